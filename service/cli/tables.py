"""The API's views as tables for people."""

from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.text import Text

from service.api.decision_views import TrialRequestView, WarmStartView
from service.api.schemas import (
    AttemptView,
    BuiltinDatasetView,
    DatasetFileView,
    ManifestView,
    ReportView,
    StorageView,
    StudyView,
    TrialView,
)
from service.api.waiting_views import WaitingView
from service.cli.layout import Rows, pairs
from service.cli.words import (
    STATE_STYLES,
    amount,
    configuration,
    duration,
    moment,
    number,
    run_name,
    scalar,
    short_names,
    since,
    some,
    trial_state,
)
from service.domain.sizes import size

_MOST_COLUMNS = 10
"""Columns of a data set that are named."""


def studies_table(studies: Sequence[StudyView]) -> Rows:
    """One line a study."""
    table = Rows(
        "study", "state", "strategy", ">trials", ">best", "metric", "created", ">took",
        drop=("strategy", "created", "metric", "took", "trials"),
    )  # fmt: skip
    for study in studies:
        best = study.best
        table.add_row(
            study.id,
            _state(study.state, study.reason),
            study.definition.strategy.kind,
            str(sum(study.trials.values())),
            number(best.value if best else None),
            study.definition.objective.metric,
            moment(study.created_at),
            _took(study) or "-",
        )
    return table


def study_table(study: StudyView, mlflow: str | None) -> RenderableType:
    """All there is to say about one study."""
    counts = ", ".join(f"{count} {state}" for state, count in study.trials.items() if count) or "none yet"
    rows = [
        ("study", Text(study.id, style="bold")),
        ("state", _state(study.state, study.reason)),
        ("detail", study.detail),
        ("waits", _waits(study.waiting)),
        ("strategy", study.definition.strategy.kind),
        ("plan", study.plan.reason if study.plan else None),
        ("knows", _known(study.warm_start) if study.warm_start else None),
        ("model", study.definition.trainer.model),
        ("trials", counts),
        ("budget", _budget(study)),
        ("took", _took(study)),
        ("disk", _disk(study.storage) if study.storage else None),
    ]
    if study.best is not None:
        value = f"{number(study.best.value)} {study.definition.objective.metric}"
        rows += [("best", f"{value} ({run_name(study.best.trial, study.best.repeats)}, report {study.best.report})")]
        rows += [("", configuration(study.best.parameters))]
    rows += [("final", study.final.verdict if study.final else None), ("mlflow", mlflow)]
    return pairs(rows)


def _took(study: StudyView) -> str | None:
    """How long it has run, without the time in which it was paused or had ended."""
    return duration(study.progress.wall_clock_seconds.spent) if study.started_at else None


def _budget(study: StudyView) -> str | None:
    """`3 of 30 trials, 12m 05s of 2h 00m, to 0.94`: what is limited, with what is spent of it."""
    spent, budget = study.progress, study.definition.budget
    limits = [("trials", spent.trials), ("reports", spent.epochs), ("GPU-hours", spent.gpu_hours), ("of money", spent.cost)]
    told = [f"{amount(one.spent)} of {amount(one.limit)} {name}" for name, one in limits if one and one.limit is not None]
    wall = spent.wall_clock_seconds
    if wall.limit is not None:
        told.append(f"{duration(wall.spent)} of {duration(wall.limit)}")
    if budget.target is not None:
        told.append(f"ends at {number(budget.target)}")
    if budget.no_improvement is not None:
        told.append(f"ends after {budget.no_improvement} trials without a better one")
    return ", ".join(told) or None


def _waits(waiting: WaitingView | None) -> str | None:
    return None if waiting is None else f"{waiting.detail} For {since(waiting.since, None, datetime.now(UTC))} so far."


def _disk(storage: StorageView) -> str:
    """`5.2 GB of 20.0 GB`, and what is wrong with it."""
    taken = size(storage.bytes) if storage.max_bytes is None else f"{size(storage.bytes)} of {size(storage.max_bytes)}"
    gone = ", ".join(map(str, storage.missing))
    told = [storage.detail, f"The models of these trials are gone from the disk: {gone}." if gone else None]
    return ". ".join([taken, " ".join(sentence for sentence in told if sentence)]) if any(told) else taken


def _known(known: WarmStartView) -> str:
    """`28 trials of earlier studies; 4 left out (3 out_of_range, 1 no_value)`."""
    because = ", ".join(f"{count} {reason}" for reason, count in known.because.items())
    left_out = f"; {known.left_out} left out ({because})" if known.left_out else ""
    return f"{known.carried_over} trials of earlier studies{left_out}"


def request_table(asked: TrialRequestView) -> RenderableType:
    """What was asked for, and when it is tried."""
    begun = f"trial {asked.trial} tries it" if asked.trial is not None else None
    rows = [("study", asked.study_id), ("parameters", configuration(asked.parameters))]
    return pairs([*rows, ("place", begun or f"{asked.place} in the queue")])


def trials_table(trials: Sequence[TrialView]) -> Rows:
    """One line a trial, a column for each parameter."""
    names = list(dict.fromkeys(name for trial in trials for name in trial.parameters))
    table = Rows(
        ">trial", "state", ">reports", ">last", ">best", *[f">{name}" for name in names],
        short=short_names(names), drop=("last", "reports", *reversed(names)),
    )  # fmt: skip
    for trial in trials:
        values = [scalar(trial.parameters[name]) if name in trial.parameters else "" for name in names]
        table.add_row(
            str(trial.number) if trial.repeats is None else f"{trial.number}, again {trial.repeats}",
            _state(trial.state, trial.reason),
            f"{trial.reports}/{trial.until}",
            number(trial.value),
            number(trial.best_value),
            *values,
        )
    return table


def trial_table(trial: TrialView, reports: Sequence[ReportView], attempts: Sequence[AttemptView]) -> RenderableType:
    """One trial with its reports and attempts."""
    head = pairs(
        [
            ("trial", f"{trial.number} of {trial.study_id}"),
            ("state", _state(trial.state, trial.reason)),
            ("detail", trial.detail),
            ("waits", _waits(trial.waiting)),
            ("parameters", configuration(trial.parameters)),
            ("best", f"{number(trial.best_value)} at report {trial.best_report}" if trial.best_report else None),
            *[("why" if at == 0 else "", decision.sentence) for at, decision in enumerate(trial.decisions or ())],
        ]
    )
    metrics = list(dict.fromkeys(name for report in reports for name in report.metrics))
    curve = Rows(
        ">report", ">epoch", ">step", ">seconds", *[f">{name}" for name in metrics],
        short=short_names(metrics), drop=("step", "seconds", *reversed(metrics[1:])),
    )  # fmt: skip
    for report in reports:
        values = [number(report.metrics.get(name)) for name in metrics]
        curve.add_row(str(report.number), f"{report.epoch:g}", str(report.step), f"{report.seconds:.1f}", *values)
    ran = Rows(">attempt", "reports", "outcome", "worker", "started", "detail", flow=("detail",), drop=("started", "worker"))
    for attempt in attempts:
        ran.add_row(
            str(attempt.number),
            f"{attempt.first} to {attempt.until}",
            attempt.outcome or "running",
            attempt.worker or "",
            moment(attempt.started_at),
            (attempt.detail or "").strip().splitlines()[-1] if (attempt.detail or "").strip() else "",
        )
    parts: list[RenderableType] = [head]
    if reports:
        parts += ["", curve]
    if attempts:
        parts += ["", ran]
    return Group(*parts)


def manifest_table(manifest: ManifestView) -> Rows:
    """One line a file."""
    table = Rows("file", ">size", "sha256", drop=("sha256",))
    for file in manifest.files:
        table.add_row(file.path, size(file.bytes), file.sha256)
    return table


def datasets_table(files: Sequence[DatasetFileView], builtins: Sequence[BuiltinDatasetView] = ()) -> Rows:
    """One line an uploaded file, then one each for the data sets that are always there."""
    table = Rows("uri", ">rows", "columns", ">size", "uploaded", flow=("columns",), drop=("uploaded", "columns"))
    for file in files:
        table.add_row(file.uri, str(file.rows), some(file.columns, _MOST_COLUMNS), size(file.bytes), moment(file.uploaded_at))
    for one in builtins:
        table.add_row(one.uri, "", one.detail, "", "")
    return table


def _state(state: str, reason: str | None) -> Text:
    return Text(trial_state(state, reason), style=STATE_STYLES.get(state, ""))
