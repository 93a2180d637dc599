"""What the API answers, as the server writes it and the Python client reads it. No FastAPI here."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from search_spaces import Value
from service.api.decision_views import DecisionView, PlanView, WarmStartView
from service.api.outcome_views import BrokenOutcomeView
from service.api.waiting_views import WaitingView
from service.domain.access import DEFAULT_PROJECT
from service.domain.budget import Spending
from service.domain.checkpoint import Manifest
from service.domain.datasets import DatasetFile
from service.domain.decision import Decision
from service.domain.definition import StudyDefinition
from service.domain.events import Event, EventKind
from service.domain.final import FinalResult
from service.domain.leadership import Leader
from service.domain.stored import Footprint
from service.domain.strategy import PbtStrategy
from service.domain.study import Study, StudyReason, StudyState
from service.domain.trial import Attempt, AttemptOutcome, Report, Trial, TrialReason, TrialState

_STUDY = "intents-abc123"
_AT = "2030-01-02T03:04:05Z"
_PARAMETERS = {"learning_rate": 3.2e-05, "batch_size": 32}
_METRICS = {"validation/accuracy": 0.925, "validation/loss": 0.31, "train/loss": 0.28}
_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


class _View(BaseModel):
    """Clients ignore keys they do not know, so that a newer service may answer an older client."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ViolationView(_View):
    """One thing wrong with what was sent."""

    pointer: str = Field(
        description="JSON pointer (RFC 6901) into the body, or the name of a query, path or header parameter.",
        examples=["/space/learning_rate/low"],
    )
    detail: str = Field(
        description="What is wrong and what to do.", examples=["`learning_rate` cannot be -1.0: Input should be greater than 0"]
    )


class Problem(_View):
    """An error (RFC 9457), always sent as `application/problem+json`."""

    type: str = Field(
        description="What kind of error this is; stable, to be compared by programs.",
        examples=["urn:tuneyard:problem:study-not-found"],
    )
    title: str = Field(description="The kind of error, for people.", examples=["There is no such study"])
    status: int = Field(description="The HTTP status code.", examples=[404])
    detail: str | None = Field(
        default=None,
        description="What happened, and what to do about it.",
        examples=["There is no study 'intents-abc124': `GET /v1/studies` lists those there are."],
    )
    instance: str | None = Field(
        default=None,
        description="The path that was asked for, or the id of the log entry.",
        examples=["/v1/studies/intents-abc124"],
    )
    violations: tuple[ViolationView, ...] = Field(
        default=(),
        description="Everything that is wrong with the request, where it was refused for its content.",
        examples=[[]],
    )


class StudyLinks(_View):
    """Where to go from a study. All are paths on this service, null where the study has nothing there."""

    self: str = Field(description="The study.", examples=[f"/v1/studies/{_STUDY}"])
    trials: str = Field(description="Its trials.", examples=[f"/v1/studies/{_STUDY}/trials"])
    events: str = Field(description="The stream of what happens to it.", examples=[f"/v1/studies/{_STUDY}/events"])
    best: str | None = Field(description="Its best trial; several objectives have none.", examples=[f"/v1/studies/{_STUDY}/best"])
    pareto: str | None = Field(
        description="Of several objectives, the trials that no other beats.", examples=[f"/v1/studies/{_STUDY}/pareto"]
    )
    final: str | None = Field(
        description="How its best configurations do when trained again, where its definition asks for that.",
        examples=[f"/v1/studies/{_STUDY}/final"],
    )
    lineage: str | None = Field(
        description="Of a population, where each member's weights come from.", examples=[f"/v1/studies/{_STUDY}/lineage"]
    )
    analysis: str = Field(description="What it has learned.", examples=[f"/v1/studies/{_STUDY}/analysis"])
    spending: str = Field(description="What its budget went into.", examples=[f"/v1/studies/{_STUDY}/spending"])
    forecast: str = Field(description="How it is expected to end.", examples=[f"/v1/studies/{_STUDY}/forecast"])
    refine: str = Field(description="A narrower space, once it has trials enough.", examples=[f"/v1/studies/{_STUDY}/refine"])
    mlflow: str | None = Field(
        description="Its page in the MLflow UI, once it has one.", examples=["/mlflow/#/experiments/1/runs"]
    )


class BestView(_View):
    """The best trial of a study so far, in short."""

    trial: int = Field(description="The trial's number.", examples=[7])
    repeats: int | None = Field(
        default=None,
        description="The search's trial whose configuration it trains again, where it is a run of the final; null otherwise.",
        examples=[None],
    )
    value: float = Field(description="Its objective at its best report.", examples=[0.925])
    report: int = Field(description="The number of that report.", examples=[2])
    epoch: float = Field(description="How many epochs it had trained by then.", examples=[2.0])
    parameters: Mapping[str, Value] = Field(description="What was tried.", examples=[_PARAMETERS])


class SpentView(_View):
    """How much of one limit is spent."""

    spent: float = Field(description="Spent so far.", examples=[12.0])
    limit: float | None = Field(description="The budget's limit; null when there is none.", examples=[30.0])


class ProgressView(_View):
    """What a study has spent, beside its budget."""

    trials: SpentView = Field(description="Trials started.", examples=[{"spent": 12, "limit": 30}])
    epochs: SpentView = Field(
        description="Reports given, over all trials: an epoch each, unless the trainer's `report_every` says otherwise.",
        examples=[{"spent": 27, "limit": 90}],
    )
    wall_clock_seconds: SpentView = Field(
        description="Seconds since the study first ran, but for those in which it was paused or had ended.",
        examples=[{"spent": 310.5, "limit": 7200}],
    )
    gpu_hours: SpentView = Field(description="Hours of GPU, over all trials.", examples=[{"spent": 0.0, "limit": None}])
    cost: SpentView | None = Field(
        default=None, description="What these cost; null where the budget names no price.", examples=[{"spent": 1.5, "limit": 25}]
    )
    fraction: float | None = Field(
        description="The largest of these shares, 0 to 1; null when nothing is limited.", ge=0, le=1, examples=[0.4]
    )


class FinalSummaryView(_View):
    """How the final of a study stands: `GET .../final` tells more."""

    finished: int = Field(description="Runs that have finished.", examples=[9])
    winner: int | None = Field(description="The search's trial whose configuration wins; null before the end.", examples=[7])
    verdict: str = Field(description="How it stands, in a sentence or two.", examples=["Trial 7 wins."])


class StorageView(_View):
    """What a study's checkpoints take on disk, as last measured: within some seconds while it goes on."""

    bytes: int = Field(description="Bytes on disk, of states to go on from and of exported models.", examples=[548000000])
    max_bytes: int | None = Field(
        description="What `checkpoints.max_total_gb` allows; null without a limit.", examples=[20000000000]
    )
    at: datetime = Field(description="When this last changed.", examples=[_AT])
    detail: str | None = Field(description="What stands against keeping the limit, in a sentence.", examples=[None])
    missing: Sequence[int] = Field(
        description="Trials whose exported model should be there and is gone from the disk.", examples=[[]]
    )


class StudyView(_View):
    """A study: what was asked for, and how far it is."""

    id: str = Field(description="The study's id.", examples=[_STUDY])
    name: str = Field(description="The name its definition gives it.", examples=["intents"])
    state: StudyState = Field(description="Where it is; completed, stopped, cancelled and failed are ends.", examples=["running"])
    reason: StudyReason | None = Field(description="Why it ends, ended or is paused.", examples=["budget_spent"])
    detail: str | None = Field(description="More about the reason, for people.", examples=["The last 10 trials all failed."])
    definition: StudyDefinition = Field(description="What was POSTed, with all defaults filled in.")
    created_at: datetime = Field(description="When it was POSTed.", examples=[_AT])
    created_by: str | None = Field(default=None, description="Who POSTed it, as far as they said.", examples=["ada"])
    project: str = Field(default=DEFAULT_PROJECT, description="What it belongs to.", examples=["default"])
    started_at: datetime | None = Field(description="When it first ran.", examples=[_AT])
    ended_at: datetime | None = Field(description="When it ended.", examples=[_AT])
    version: int = Field(description="Grows with every change of the study itself.", examples=[3])
    trials: Mapping[TrialState, int] = Field(
        description="Number of trials in each state; states without a trial are left out.",
        examples=[{"running": 2, "completed": 10}],
    )
    best: BestView | None = Field(
        description="The best trial so far, of several objectives by the first, after a final the best run of its winner; null "
        "before the first report that counts."
    )
    final: FinalSummaryView | None = Field(
        default=None, description="How the best configurations do when trained again; null where the definition asks for none."
    )
    plan: PlanView | None = Field(default=None, description="The strategy that leads it, and why.")
    warm_start: WarmStartView | None = Field(
        default=None, description="What it knows of earlier studies; null where its definition names none."
    )
    waiting: WaitingView | None = Field(
        default=None, description="Why it has fewer workers than it could use, or none; null where it has enough."
    )
    quarantined: Sequence[str] = Field(
        default=(), description="Nodes and GPUs where its attempts fail while others go well elsewhere: a sentence for each. "
        "Empty in lists, and once it has ended.",
        examples=[[]],
    )  # fmt: skip
    trials_per_gpu: int | None = Field(
        default=None, description="How many of its trials share a GPU now; null where its definition does not leave that to be "
        "measured.", examples=[3],
    )  # fmt: skip
    progress: ProgressView = Field(description="What it has spent, beside its budget.")
    storage: StorageView | None = Field(
        default=None, description="What its checkpoints take on disk; null before they were first measured."
    )
    links: StudyLinks = Field(description="Where to go from here.")


class StudyPage(_View):
    """Some studies."""

    items: Sequence[StudyView] = Field(description="The studies, in the order asked for.")
    cursor: str | None = Field(
        description="Hand it back as `cursor` for what follows; null at the end.", examples=["eyJvIjoiLWNyZWF0ZWRfYXQifQ"]
    )


class TrialLinks(_View):
    """Where to go from a trial. All are paths on this service."""

    self: str = Field(description="The trial.", examples=[f"/v1/studies/{_STUDY}/trials/7"])
    study: str = Field(description="Its study.", examples=[f"/v1/studies/{_STUDY}"])
    reports: str = Field(description="Its reports.", examples=[f"/v1/studies/{_STUDY}/trials/7/reports"])
    attempts: str = Field(description="Its attempts.", examples=[f"/v1/studies/{_STUDY}/trials/7/attempts"])
    checkpoint: str = Field(description="Its exported checkpoint.", examples=[f"/v1/studies/{_STUDY}/trials/7/checkpoint"])
    analysis: str = Field(
        default="", description="Where its best report went wrong.", examples=[f"/v1/studies/{_STUDY}/trials/7/analysis"]
    )


class TrialView(_View):
    """A trial: one configuration tried."""

    study_id: str = Field(description="The study it belongs to.", examples=[_STUDY])
    number: int = Field(description="Its number within the study, from 0.", examples=[7])
    state: TrialState = Field(
        description="Where it is; completed, pruned, stopped, cancelled, infeasible and failed are ends.", examples=["completed"]
    )
    parameters: Mapping[str, Value] = Field(description="What is tried.", examples=[_PARAMETERS])
    bracket: int = Field(description="Hyperband's bracket, or a population's member; 0 in other strategies.", examples=[0])
    rung: int = Field(description="How often it was promoted; of a copy how often its parent was, and one more.", examples=[1])
    until: int = Field(description="The report its present or last attempt runs to.", examples=[3])
    reports: int = Field(description="How many reports it has given.", examples=[3])
    value: float | None = Field(description="The objective at its last report.", examples=[0.921])
    best_value: float | None = Field(description="The objective at its best report.", examples=[0.925])
    best_report: int | None = Field(description="The number of that report.", examples=[2])
    best_epoch: float | None = Field(description="How many epochs it had trained by then.", examples=[2.0])
    attempts: int = Field(description="How often it was started or taken up again.", examples=[2])
    retries: int = Field(description="Attempts lost in a row since the last report.", examples=[0])
    errors: int = Field(default=0, description="Attempts that failed and were tried again (`max_retries`).", examples=[0])
    not_before: datetime | None = Field(
        default=None, description="When it is tried again, while it waits for that after an error.", examples=[None]
    )
    seconds: float = Field(description="Seconds it has trained, over all attempts.", examples=[41.2])
    gpu_seconds: float = Field(description="Seconds of GPU it has used, over all attempts.", examples=[0.0])
    reason: TrialReason | None = Field(description="Why it ended.", examples=["epochs_done"])
    detail: str | None = Field(description="More about the reason, for people.", examples=[None])
    created_at: datetime = Field(description="When it was proposed.", examples=[_AT])
    started_at: datetime | None = Field(description="When its first attempt began.", examples=[_AT])
    ended_at: datetime | None = Field(description="When it ended.", examples=[_AT])
    version: int = Field(description="Grows with every change of the trial.", examples=[6])
    parent: int | None = Field(default=None, description="The trial that it began as a copy of.", examples=[None])
    parent_report: int = Field(default=0, description="The report of that trial which it went on from.", examples=[0])
    repeats: int | None = Field(
        default=None, description="The search's trial that it trains again for the final; null for those of the search.",
        examples=[None],
    )  # fmt: skip
    seed: int | None = Field(default=None, description="The trainer's seed, where it has its own.", examples=[None])
    broken: Sequence[BrokenOutcomeView] | None = Field(
        default=None,
        description="The outcomes that the nearest of its reports breaks; none where one keeps them all. In lists left out.",
        examples=[None],
    )
    has_checkpoint: bool | None = Field(
        default=None,
        description="Whether its exported model is there to be pulled; null in lists, which leave it out.",
        examples=[True],
    )
    waiting: WaitingView | None = Field(
        default=None, description="Why it waits; null where it runs or has ended, and in lists, which leave it out."
    )
    decisions: Sequence[DecisionView] | None = Field(
        default=None, description="Why it was proposed, promoted and cut, in order; null in lists, which leave it out.",
        examples=[None],
    )  # fmt: skip
    links: TrialLinks = Field(description="Where to go from here.")

    @classmethod
    def of(
        cls,
        trial: Trial,
        decisions: Sequence[tuple[datetime, Decision]] | None = None,
        broken: Sequence[BrokenOutcomeView] | None = None,
        *,
        has_checkpoint: bool | None = None,
        waiting: WaitingView | None = None,
    ) -> "TrialView":
        study = f"/v1/studies/{trial.study_id}"
        place = f"{study}/trials/{trial.number}"
        return cls(
            study_id=trial.study_id, number=trial.number, state=trial.state, parameters=trial.parameters, bracket=trial.bracket,
            rung=trial.rung, until=trial.until, reports=trial.reports, value=_finite(trial.value),
            best_value=_finite(trial.best_value), best_report=trial.best_report, best_epoch=trial.best_epoch,
            attempts=trial.attempts, retries=trial.retries, errors=trial.errors, not_before=trial.not_before,
            seconds=trial.seconds, gpu_seconds=trial.gpu_seconds,
            reason=trial.reason, detail=trial.detail, created_at=trial.created_at, started_at=trial.started_at,
            ended_at=trial.ended_at, version=trial.version, parent=trial.parent, parent_report=trial.parent_report,
            repeats=trial.repeats, seed=trial.seed,
            decisions=None if decisions is None else [DecisionView.of(at, decision) for at, decision in decisions],
            broken=broken, has_checkpoint=has_checkpoint, waiting=waiting,
            links=TrialLinks(
                self=place, study=study, reports=f"{place}/reports", attempts=f"{place}/attempts",
                checkpoint=f"{place}/checkpoint", analysis=f"{place}/analysis",
            ),
        )  # fmt: skip


class TrialPage(_View):
    """Some trials of a study."""

    items: Sequence[TrialView] = Field(description="The trials, in the order asked for.")
    cursor: str | None = Field(
        description="Hand it back as `cursor` for what follows; null at the end.", examples=["eyJvIjoibnVtYmVyIn0"]
    )


class ReportView(_View):
    """One report of a trial."""

    number: int = Field(description="Its number within the trial, from 1 without gaps.", examples=[2])
    epoch: float = Field(description="Epochs trained when it was given.", examples=[2.0])
    step: int = Field(description="Optimizer steps taken when it was given.", examples=[1126])
    metrics: Mapping[str, float | None] = Field(
        description="What the trainer measured; null stands for a value that is not a finite number.", examples=[_METRICS]
    )
    seconds: float = Field(description="Seconds since the report before it.", examples=[20.4])
    attempt: int = Field(description="The attempt that gave it.", examples=[1])
    worker: str = Field(description="The host and process that gave it.", examples=["localhost:4711"])
    at: datetime = Field(description="When it was given.", examples=[_AT])

    @classmethod
    def of(cls, report: Report) -> "ReportView":
        return cls(
            number=report.number, epoch=report.epoch, step=report.step, seconds=report.seconds, attempt=report.attempt,
            worker=report.worker, at=report.at, metrics={name: _finite(value) for name, value in report.metrics.items()},
        )  # fmt: skip


class AttemptView(_View):
    """One unbroken execution of a trial."""

    number: int = Field(description="Its number within the trial, from 1.", examples=[1])
    first: int = Field(description="The report it went on from; 0 for a start from nothing.", examples=[0])
    until: int = Field(description="The report it ran towards.", examples=[3])
    started_at: datetime = Field(description="When it began.", examples=[_AT])
    ended_at: datetime | None = Field(description="When it ended.", examples=[_AT])
    outcome: AttemptOutcome | None = Field(
        description="How it ended: it reached its last report, was lost, was stopped before that, gave up its slot "
        "(`preempted`), was paused with its study, failed, or was short of memory on a GPU that it shared (`crowded`).",
        examples=["done"],
    )
    worker: str | None = Field(description="The host and process that ran it.", examples=["localhost:4711"])
    detail: str | None = Field(description="The error, where there was one.", examples=[None])
    gpus: float = Field(default=0.0, description="GPUs that it held, or its share of one.", examples=[0.25])
    peak_bytes: int | None = Field(
        default=None, description="The most of its GPU's memory that it took; null where nobody measured.", examples=[3221225472]
    )
    gpu_bytes: int | None = Field(default=None, description="The memory that its GPU has.", examples=[85899345920])

    @classmethod
    def of(cls, attempt: Attempt) -> "AttemptView":
        return cls(
            number=attempt.number, first=attempt.first, until=attempt.until, started_at=attempt.started_at,
            ended_at=attempt.ended_at, outcome=attempt.outcome, worker=attempt.worker, detail=attempt.detail,
            gpus=attempt.gpus, peak_bytes=attempt.peak_bytes, gpu_bytes=attempt.gpu_bytes,
        )  # fmt: skip


class ManifestFileView(_View):
    """One file of a checkpoint."""

    path: str = Field(description="Its path inside the checkpoint.", examples=["model.safetensors"])
    bytes: int = Field(description="Its size.", examples=[90868376])
    sha256: str = Field(description="The SHA-256 of its content, in hex; in quotes it is the file's ETag.", examples=[_SHA256])
    link: str = Field(
        default="",
        description="Where to get it: below this trial, so that it stays right when another trial becomes the best.",
        examples=[f"/v1/studies/{_STUDY}/trials/7/checkpoint/files/model.safetensors"],
    )


class ManifestView(_View):
    """The files of one exported checkpoint."""

    study_id: str = Field(description="The study.", examples=[_STUDY])
    trial: int = Field(description="The trial that was exported.", examples=[7])
    report: int = Field(description="The report it was exported at: the trial's best.", examples=[2])
    bytes: int = Field(default=0, description="The size of all files together.", examples=[91350000])
    files: Sequence[ManifestFileView] = Field(description="The files, by path.")
    archive: str = Field(
        default="",
        description="Where to get all of them as one tar stream.",
        examples=[f"/v1/studies/{_STUDY}/trials/7/checkpoint/archive"],
    )

    @classmethod
    def of(cls, manifest: Manifest) -> "ManifestView":
        place = f"/v1/studies/{manifest.study_id}/trials/{manifest.trial}/checkpoint"
        return cls(
            study_id=manifest.study_id, trial=manifest.trial, report=manifest.report,
            bytes=sum(file.bytes for file in manifest.files), archive=f"{place}/archive",
            files=[
                ManifestFileView(path=file.path, bytes=file.bytes, sha256=file.sha256, link=f"{place}/files/{file.path}")
                for file in manifest.files
            ],
        )  # fmt: skip


class AnalysisView(_View):
    """Where a trial's best report went wrong on the validation rows."""

    study_id: str = Field(description="The study.", examples=[_STUDY])
    trial: int = Field(description="The trial.", examples=[7])
    report: int = Field(description="The report that was analysed: the trial's best.", examples=[2])
    analysis: Mapping[str, Any] = Field(
        description="What the trainer found: always `task`, `rows` and `metrics`, and what else its kind has to say, such as the "
        "most confident `mistakes`. null stands for a value that is not a finite number.",
        examples=[{"task": "text-classification", "rows": 86, "metrics": {"accuracy": 0.919}, "labels": ["buy", "sell"]}],
    )

    @classmethod
    def of(cls, study_id: str, trial: int, report: int, analysis: Mapping[str, Any]) -> "AnalysisView":
        return cls(study_id=study_id, trial=trial, report=report, analysis=_json_safe(analysis))


class DatasetFileView(_View):
    """One uploaded file of a data set."""

    dataset: str = Field(description="The data set's name.", examples=["banking77"])
    file: str = Field(description="The file's name.", examples=["train.csv"])
    uri: str = Field(description="What a study definition calls it.", examples=["dataset://banking77/train.csv"])
    bytes: int = Field(description="Its size.", examples=[839073])
    sha256: str = Field(description="The SHA-256 of its content, in hex.", examples=[_SHA256])
    rows: int = Field(description="Its rows, without the header.", examples=[10003])
    columns: Sequence[str] = Field(description="Its columns, in order.", examples=[["text", "category"]])
    uploaded_at: datetime = Field(description="When it was uploaded.", examples=[_AT])

    @classmethod
    def of(cls, file: DatasetFile) -> "DatasetFileView":
        return cls(
            dataset=file.dataset, file=file.file, uri=file.uri, bytes=file.bytes, sha256=file.sha256, rows=file.rows,
            columns=file.columns, uploaded_at=file.uploaded_at,
        )  # fmt: skip


class DeletedFilesView(_View):
    """Files of a data set that were deleted."""

    files: Sequence[DatasetFileView] = Field(description="What they were.")
    bytes: int = Field(description="Their sizes together.", examples=[839_073])


class BuiltinDatasetView(_View):
    """A data set that the service makes itself."""

    name: str = Field(description="Its name.", examples=["api-docs"])
    uri: str = Field(description="What a study definition calls it; it brings its own splits.", examples=["builtin://api-docs"])
    detail: str = Field(description="What it holds.", examples=["First sentences of public docstrings, labelled by library."])


class DatasetsView(_View):
    """All data sets there are."""

    uploads: Sequence[DatasetFileView] = Field(description="Uploaded files, by data set and name.")
    builtins: Sequence[BuiltinDatasetView] = Field(description="Data sets that are always there.")


class EventView(_View):
    """One thing that happened to a study: the `data` of one server-sent event."""

    id: int = Field(description="Grows by time within a study; also the server-sent event's `id`.", examples=[42])
    kind: EventKind = Field(description="What happened; also the server-sent event's `event`.", examples=["trial.report"])
    study_id: str = Field(description="The study.", examples=[_STUDY])
    at: datetime = Field(description="When it happened.", examples=[_AT])
    trial: int | None = Field(default=None, description="The trial it is about; null when it is about the study.", examples=[7])
    payload: Mapping[str, Any] = Field(
        description="What changed: the state and reason, or the report.", examples=[{"number": 7, "state": "running"}]
    )

    @classmethod
    def of(cls, event: Event) -> "EventView":
        return cls(
            id=event.id, kind=event.kind, study_id=event.study_id, at=event.at, payload=_json_safe(event.payload),
            trial=_trial_of(event),
        )  # fmt: skip


class LoginLinkView(_View):
    """A link that logs a browser in."""

    url: str = Field(description="Open it in a browser: it works once.", examples=["/login?code=...&next=%2Fmlflow%2F"])
    expires_at: datetime = Field(description="When it stops working.", examples=[_AT])


class HealthView(_View):
    """The process answers."""

    status: str = Field(description="Always `ok`.", examples=["ok"])


class ReadinessView(_View):
    """Whether the service can do its work."""

    status: str = Field(description="`ready`, or `not ready` while a part is down.", examples=["ready"])
    parts: Mapping[str, bool] = Field(description="Each part, and whether it is up.", examples=[{"store": True, "mlflow": True}])
    leader: Leader = Field(description="Where the controller is that leads, of all services on this database.", examples=["here"])


class IndexView(_View):
    """Where to start."""

    service: str = Field(description="The service's name.", examples=["tuneyard"])
    version: str = Field(description="The service's version.", examples=["0.1.0"])
    links: Mapping[str, str] = Field(description="What there is.", examples=[{"studies": "/v1/studies", "docs": "/docs"}])


def study_view(  # noqa: PLR0913 - all that is shown of a study
    study: Study,
    *,
    counts: Mapping[TrialState, int],
    best: Trial | None,
    spent: Spending,
    experiment: str | None,
    final: FinalResult | None = None,
    footprint: Footprint | None = None,
    waiting: WaitingView | None = None,
) -> StudyView:
    """The view of a study; `experiment` is MLflow's id of it."""
    return StudyView(
        id=study.id, name=study.definition.name, state=study.state, reason=study.reason, detail=study.detail,
        definition=study.definition, created_at=study.created_at, created_by=study.created_by,
        project=study.project,
        started_at=study.started_at, ended_at=study.ended_at,
        version=study.version, trials={state: counts[state] for state in TrialState if counts.get(state)},
        best=_best_view(best), progress=_progress(study.definition, spent), plan=PlanView.of(study.definition),
        warm_start=study.warm_start and WarmStartView.of(study.warm_start), final=final and _final_view(final),
        storage=footprint and _storage(study, footprint), links=_links(study, experiment),
        waiting=waiting, trials_per_gpu=study.trials_per_gpu if study.definition.resources.is_packed else None,
    )  # fmt: skip


def _storage(study: Study, footprint: Footprint) -> StorageView:
    return StorageView(
        bytes=footprint.bytes, max_bytes=study.definition.checkpoints.max_bytes, at=footprint.at, detail=footprint.detail,
        missing=footprint.missing,
    )  # fmt: skip


def _links(study: Study, experiment: str | None) -> StudyLinks:
    place, definition = f"/v1/studies/{study.id}", study.definition
    has_front = len(definition.objectives) > 1
    return StudyLinks(
        self=place, trials=f"{place}/trials", events=f"{place}/events",
        best=None if has_front else f"{place}/best", pareto=f"{place}/pareto" if has_front else None,
        final=f"{place}/final" if definition.final else None,
        lineage=f"{place}/lineage" if isinstance(definition.plan.strategy, PbtStrategy) else None,
        analysis=f"{place}/analysis", spending=f"{place}/spending", forecast=f"{place}/forecast", refine=f"{place}/refine",
        mlflow=f"/mlflow/#/experiments/{experiment}/runs" if experiment else None,
    )  # fmt: skip


def _final_view(final: FinalResult) -> FinalSummaryView:
    winner = None if final.winner is None else final.winner.trial
    return FinalSummaryView(finished=final.finished, winner=winner, verdict=final.verdict)


def _best_view(best: Trial | None) -> BestView | None:
    if best is None or best.best_value is None or best.best_report is None or not math.isfinite(best.best_value):
        return None
    return BestView(
        trial=best.number,
        repeats=best.repeats,
        value=best.best_value,
        report=best.best_report,
        epoch=best.best_epoch or 0.0,
        parameters=best.parameters,
    )


def _progress(definition: StudyDefinition, spent: Spending) -> ProgressView:
    budget = definition.budget
    trials = SpentView(spent=spent.trials, limit=budget.trials)
    epochs = SpentView(spent=spent.epochs, limit=budget.epochs)
    wall_clock = SpentView(spent=spent.wall_clock_seconds, limit=budget.wall_clock)
    gpu_hours = SpentView(spent=spent.gpu_seconds / 3600, limit=budget.gpu_hours)
    spent_money = budget.cost_of(spent.gpu_seconds)
    cost = SpentView(spent=spent_money, limit=budget.cost.limit) if budget.cost and spent_money is not None else None
    shares = [one.spent / one.limit for one in (trials, epochs, wall_clock, gpu_hours, cost) if one and one.limit]
    fraction = min(1.0, max(shares)) if shares else None
    return ProgressView(
        trials=trials, epochs=epochs, wall_clock_seconds=wall_clock, gpu_hours=gpu_hours, cost=cost, fraction=fraction
    )


def _trial_of(event: Event) -> int | None:
    """Events about a trial carry its number."""
    if event.kind in {EventKind.STUDY_CREATED, EventKind.STUDY_STATE, EventKind.TRIAL_REQUESTED}:
        return None
    number = event.payload.get("trial", event.payload.get("number"))
    return number if isinstance(number, int) else None


def _finite(value: float | None) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if value is not None and math.isfinite(value) else None


def _json_safe(value: Any) -> Any:
    """The value with null for every number that JSON cannot write."""
    match value:
        case float():
            return _finite(value)
        case Mapping():
            return {str(key): _json_safe(item) for key, item in value.items()}
        case list() | tuple():
            return [_json_safe(item) for item in value]
        case _:
            return value
