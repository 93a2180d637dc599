"""The API's views of base models as tables for people."""

from rich.console import RenderableType

from service.api.model_views import BenchmarkView, CandidatesView, CandidateView, ModelView
from service.cli.layout import Rows, pairs
from service.cli.words import number, some
from service.domain.sizes import size


def model_table(model: ModelView) -> RenderableType:
    """All there is to say about one model."""
    memory = model.memory
    rows = [
        ("model", model.name),
        ("place", model.place.value),
        ("trainers", ", ".join(model.tasks)),
        ("architecture", model.model_type),
        ("parameters", _count(model.parameters)),
        ("weights", _size(model.bytes, model.dtype)),
        ("layers", _count(model.layers)),
        ("hidden size", _count(model.hidden_size)),
        ("longest text", f"{model.longest} tokens" if model.longest else None),
        ("image size", f"{model.image_size} pixels" if model.image_size else None),
        ("licence", model.licence or "unknown"),
        ("trained on", some(model.datasets) or None),
        ("languages", some(model.languages) or None),
        ("made from", some(model.base_models) or None),
        ("benchmarks", some([_result(one) for one in model.benchmarks]) or None),
        ("updated", model.updated_at.date().isoformat() if model.updated_at else None),
    ]
    if memory is not None and memory.total is not None:
        how = f"{memory.method}, {memory.batch_size} rows of {memory.max_length} tokens"
        rows += [("memory", f"about {size(memory.total)} ({how})")]
    return pairs(rows)


def candidates_table(found: CandidatesView) -> Rows:
    """One line a model, a column for each metric."""
    metrics = list(dict.fromkeys(metric for one in found.models for metric in one.metrics))
    table = Rows(
        ">rank", "model", *[f">{metric}" for metric in metrics], ">ms/row", ">parameters", ">size", "licence", "card", "note",
        flow=("note",), drop=("card", "parameters", "licence", "size", *reversed(metrics[1:]), "ms/row"),
    )  # fmt: skip
    for one in found.models:
        table.add_row(
            str(one.rank or ""), one.name, *[number(one.metrics.get(metric)) for metric in metrics],
            f"{one.milliseconds_per_row:.1f}" if one.milliseconds_per_row is not None else "-",
            _count(one.parameters) or "-", size(one.bytes) if one.bytes is not None else "-", one.licence or "unknown",
            "yes" if one.documentation else "no", _note(one),
        )  # fmt: skip
    return table


def _note(one: CandidateView) -> str:
    if one.failure:
        return one.failure.splitlines()[0]
    return "trains from random weights" if one.place == "builtin" else ""


def _count(value: int | None) -> str | None:
    return None if value is None else f"{value:,}"


def _size(count: int | None, dtype: str | None) -> str | None:
    return None if count is None else f"{size(count)}{f' ({dtype})' if dtype else ''}"


def _result(one: BenchmarkView) -> str:
    return f"{one.task} {one.dataset} {one.metric} {one.value:g}"
