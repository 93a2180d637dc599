"""What is wrong with a study's models and rows, each with a JSON pointer into the user's document."""

from collections.abc import Iterator, Mapping

from service.catalog.builtin import SCHEME
from service.catalog.headers import ModelHeader
from service.catalog.models import Models
from service.catalog.sources import Sources
from service.catalog.variants import Rows, rows_of, values_of
from service.domain.definition import StudyDefinition
from service.domain.errors import DatasetNotFound, ModelNotFound, UnreadableDataset, UnusableModel, Violation
from trainers.configs import BUILTIN_SPLITS

_SHOWN = 3
_FEWEST_LABELS = 2


def check_models(definition: StudyDefinition, models: Models) -> Iterator[Violation]:
    """Models that cannot be used, and settings that the smallest of the others does not allow."""
    headers: dict[str, ModelHeader] = {}
    for choice in values_of(definition, "model"):
        name = str(choice.value)
        try:
            headers[name] = models.look(name)
        except (ModelNotFound, UnusableModel) as error:
            yield Violation(choice.pointer, error.detail)
    layers = {name: header.layers for name, header in headers.items() if header.layers is not None}
    yield from _above(definition, "frozen_layers", layers, "layers")
    longest = {name: header.longest for name, header in headers.items() if header.longest is not None}
    yield from _above(definition, "max_length", longest, "tokens at most")


def check_rows(definition: StudyDefinition, sources: Sources) -> Iterator[Violation]:
    """Rows that are not there, that lack a column, or that a classification cannot be trained and validated on."""
    seen = set()
    for rows in rows_of(definition):
        for violation in _check(rows, sources):
            if violation not in seen:
                seen.add(violation)
                yield violation


def _above(definition: StudyDefinition, key: str, limits: Mapping[str, int], what: str) -> Iterator[Violation]:
    if not limits:
        return
    name, limit = min(limits.items(), key=lambda item: item[1])
    for one in values_of(definition, key):
        if isinstance(one.value, int) and one.value > limit:
            yield Violation(one.pointer, f"{one.value} is too much: {name!r} has {limit} {what}, so set it to {limit} or less")


def _check(rows: Rows, sources: Sources) -> Iterator[Violation]:
    usable: dict[str, str] = {}
    for split, uri in _named(rows).items():
        try:
            columns = sources.columns(uri)
        except DatasetNotFound as error:
            yield Violation(rows.pointers[split], error.detail)
            continue
        missing = [key for key in ("text", "label") if getattr(rows.data, key) not in columns]
        for key in missing:
            listed = ", ".join(f"`{column}`" for column in columns)
            detail = f"{uri} has no column `{getattr(rows.data, key)}`: it has {listed}"
            yield Violation(rows.pointers[key], detail)
        if "label" not in missing:
            usable[split] = uri
    yield from _check_labels(rows, usable, sources)


def _named(rows: Rows) -> dict[str, str]:
    """The splits that are named, without those that only follow from a wrong `builtin://NAME`, which is complained of once."""
    data = rows.data
    named = {"train": data.train, "validation": data.validation, "test": data.test}
    whole = data.train.rpartition("/")[0] if data.train.startswith(SCHEME) else None
    return {
        split: uri
        for split, uri in named.items()
        if uri is not None and (split == BUILTIN_SPLITS[0] or uri != f"{whole}/{split}")
    }


def _check_labels(rows: Rows, usable: Mapping[str, str], sources: Sources) -> Iterator[Violation]:
    counts: dict[str, Mapping[str, int]] = {}
    for split, uri in usable.items():
        try:
            found = sources.labels(uri, rows.data.label)
        except (DatasetNotFound, UnreadableDataset) as error:
            yield Violation(
                rows.pointers["label" if isinstance(error, UnreadableDataset) and error.column else split], error.detail
            )
            continue
        if found is not None:
            counts[split] = found
    if "train" not in counts:
        return
    train = counts.pop("train")
    if len(train) < _FEWEST_LABELS:
        only = f"only the label {next(iter(train))!r}" if train else "no label"
        detail = (
            f"the training rows have {only} in `{rows.data.label}`: a classification needs two, so name another column or file"
        )
        yield Violation(rows.pointers["label"], detail)
        return
    for split, labels in counts.items():
        yield from _check_known(rows.pointers[split], train, labels)
    if rows.data.validation is None and not any(rows.data.held_back(train).values()):
        detail = (
            f"holds back none of {sum(train.values())} rows, as each label keeps one "
            "to train on: raise it, add rows, or name a file as `validation`"
        )
        yield Violation(rows.pointers["validation_fraction"], detail)


def _check_known(at: str, train: Mapping[str, int], labels: Mapping[str, int]) -> Iterator[Violation]:
    unknown = sorted(set(labels) - set(train))
    if unknown:
        shown = ", ".join(repr(label) for label in unknown[:_SHOWN])
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        yield Violation(
            at, f"has labels that no training row has: {shown}{more}. Add such rows to `train`, or take them out here"
        )
