"""Where the rooms meet. Each port has one contract suite in `tests/contract`, run against every adapter."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Generic, Literal, Protocol, TypeVar

from search_spaces import Configuration
from service.domain.access import AccessToken, AuditEntry, Caller, Project, Quotas, Usage
from service.domain.checkpoint import Manifest
from service.domain.datasets import NO_LIMITS, Allowance, DatasetFile
from service.domain.decision import Decision
from service.domain.definition import StudyDefinition
from service.domain.deletion import Deletion, Forgotten
from service.domain.events import Event
from service.domain.forecast import Forecast
from service.domain.history import History, PriorTrial
from service.domain.share import Share
from service.domain.spending import SpendingTable
from service.domain.stored import NOTHING_FREED, Footprint, Freed, Stored
from service.domain.study import Study, StudyState
from service.domain.trial import Attempt, Report, Trial, TrialRequest, TrialState

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True)
class Page(Generic[T_co]):
    """Some of a list; `cursor` asks for what follows and is None at its end."""

    items: Sequence[T_co]
    cursor: str | None


@dataclass(frozen=True)
class IdempotencyKey:
    """A client's name for one request, and a hash of what it sent with it."""

    key: str
    body_sha256: str


@dataclass(frozen=True)
class StudyQuery:
    """Which studies, in which order. `name` matches a part of the name, letter case aside; `project` None is any."""

    states: frozenset[StudyState] = frozenset()
    name: str | None = None
    order: Literal["created_at", "-created_at", "name", "-name"] = "-created_at"
    limit: int = 50
    cursor: str | None = None
    project: str | None = None


@dataclass(frozen=True)
class TrialQuery:
    """Which trials of a study, in which order. Trials without a value come last when ordered by `best_value`."""

    states: frozenset[TrialState] = frozenset()
    order: Literal["number", "-number", "best_value", "-best_value"] = "number"
    limit: int = 50
    cursor: str | None = None


@dataclass(frozen=True)
class Change:
    """What one decision of a driver wrote, all or nothing: a trial as it is now, what came with it, and the reason for it."""

    trial: Trial
    report: Report | None = None
    attempt: Attempt | None = None
    decision: Decision | None = None


class StudyStore(Protocol):
    """The studies. Every write appends the matching event in the same transaction."""

    def add(self, study: Study, idempotency: IdempotencyKey | None = None, prior: Sequence[PriorTrial] = ()) -> Study:
        """Store a new study with what it knows of earlier ones, or return the one stored under the same key.

        Raises IdempotencyConflict on another body.
        """
        ...

    def with_key(self, idempotency: IdempotencyKey) -> Study | None:
        """The study that was stored under this key, if any; raises IdempotencyConflict on another body."""
        ...

    def get(self, study_id: str) -> Study:
        """Raises StudyNotFound."""
        ...

    def project_of(self, study_id: str) -> str:
        """What the study belongs to. Raises StudyNotFound."""
        ...

    def find(self, query: StudyQuery) -> Page[Study]:
        """Raises InvalidQuery for a cursor of another order or none of ours."""
        ...

    def save(self, study: Study, by: str | None = None) -> Study:
        """Compare-and-set on `version`; returns the study as stored. Raises StaleWrite, StudyNotFound.

        The event names who asked, and what of the definition changed.
        """
        ...

    def delete(self, study_id: str, by: str | None = None) -> Deletion:
        """Forget a study and all that belongs to it, and say what that was; `MirrorStore.deleted` names it.

        Raises StudyNotFound, StudyStillActive.
        """
        ...


@dataclass(frozen=True)
class TrialTotals:
    """Sums over all trials of a study; of `trials` and `reports` those that the final adds are left out."""

    reports: int = 0
    gpu_seconds: float = 0.0
    trials: int = 0


class TrialStore(Protocol):
    """Trials, their attempts and reports, and what was decided. Only the holder of the study's lease writes, but for requests."""

    def get(self, study_id: str, number: int) -> Trial:
        """Raises StudyNotFound, TrialNotFound."""
        ...

    def find(self, study_id: str, query: TrialQuery) -> Page[Trial]:
        """Raises StudyNotFound, InvalidQuery."""
        ...

    def counts(self, study_ids: Iterable[str]) -> Mapping[str, Mapping[TrialState, int]]:
        """Number of trials in each state, for each study."""
        ...

    def totals(self, study_ids: Iterable[str]) -> Mapping[str, TrialTotals]:
        """What the trials of each study add up to; nothing for one without trials."""
        ...

    def spending(self, study_id: str) -> SpendingTable:
        """What the study's trials have used, by state and rung. Raises StudyNotFound."""
        ...

    def costliest(self, study_id: str, limit: int) -> Sequence[Trial]:
        """The trials that took the most seconds, lost ones included; the earlier of equals first. Raises StudyNotFound."""
        ...

    def best(self, study_id: str) -> Trial | None:
        """The search's trial with the best value by the study's objective, the earlier of equals. Raises StudyNotFound."""
        ...

    def bests(self, studies: Sequence[Study]) -> Mapping[str, Trial]:
        """The same of each of these studies that has one."""
        ...

    def repeats(self, study_id: str) -> Sequence[Trial]:
        """The trials that train another again, by number. Raises StudyNotFound."""
        ...

    def history(self, study_id: str) -> History:
        """All of it, for a driver's replay. Raises StudyNotFound."""
        ...

    def reports(self, study_id: str, number: int, after: int = 0, limit: int | None = None) -> Sequence[Report]:
        """Reports with a number above `after`, in order. Raises StudyNotFound, TrialNotFound."""
        ...

    def attempts(self, study_id: str, number: int) -> Sequence[Attempt]:
        """A trial's attempts, in order. Raises StudyNotFound, TrialNotFound."""
        ...

    def all_attempts(self, study_id: str) -> Mapping[int, Sequence[Attempt]]:
        """The attempts of each trial of a study, in order. Raises StudyNotFound."""
        ...

    def decisions(self, study_id: str, number: int) -> Sequence[tuple[datetime, Decision]]:
        """What was decided about a trial and when, in order. Raises StudyNotFound, TrialNotFound."""
        ...

    def request(
        self,
        study_id: str,
        parameters: Configuration,
        at: datetime,
        idempotency: IdempotencyKey | None = None,
        by: str | None = None,
    ) -> TrialRequest:
        """Remember a configuration to try, or return the request made under the same key; not only for the lease's holder.

        Raises StudyNotFound, StudyEnded, ConfigurationKnown when it was tried or asked for, TooManyRequests,
        IdempotencyConflict on another body. The study's version goes up, so that a driver about to end it notices.
        """
        ...

    def ask_to_stop(self, study_id: str, number: int, at: datetime, by: str | None = None) -> Trial:
        """Remember that a trial should stop, and answer the trial; not only for the lease's holder.

        Asked again, or of one that has ended, nothing changes. Raises StudyNotFound, TrialNotFound.
        """
        ...

    def stops(self, study_id: str) -> frozenset[int]:
        """Numbers of the trials that were asked to stop. Raises StudyNotFound."""
        ...

    def requests(self, study_id: str, after: int = 0) -> Sequence[TrialRequest]:
        """The configurations that were asked for, those with a number above `after`, in order. Raises StudyNotFound."""
        ...

    def record(self, owner: str, changes: Sequence[Change]) -> None:
        """Write changes of one study in one transaction; a report already there is left as it is. Raises LeaseLost."""
        ...


class EventStore(Protocol):
    """What happened, in order."""

    def add(self, events: Sequence[Event]) -> None:
        """Append what was done beside the writes of the other stores, once; events of studies that are gone are dropped."""
        ...

    def after(self, study_id: str, event_id: int, limit: int = 500) -> Sequence[Event]:
        """Events with a greater id, oldest first. Raises StudyNotFound."""
        ...

    def latest(self, study_ids: Collection[str]) -> Mapping[str, tuple[int, bool]]:
        """Of those of these studies that are there the id of the last event, 0 without one, and whether they have ended."""
        ...


class ForecastStore(Protocol):
    """What was foretold of studies while they ran."""

    def add(self, study_id: str, forecast: Forecast) -> None:
        """Remember it, under the number of trials that had ended; one that is there stays. Nothing for a study that is gone."""
        ...

    def of(self, study_id: str) -> Sequence[Forecast]:
        """All of a study's, oldest first. Raises StudyNotFound."""
        ...


class LeaseStore(Protocol):
    """Who drives which study."""

    def acquire(self, study_id: str, owner: str, now: datetime, lasting: timedelta) -> bool:
        """Take a free or expired lease, or renew one's own; False when another holds it."""
        ...

    def release(self, study_id: str, owner: str) -> None:
        """Give up one's own lease; anything else is left alone."""
        ...

    def holders(self, now: datetime) -> Mapping[str, str]:
        """Owner of each study whose lease has not run out."""
        ...


class LeadershipStore(Protocol):
    """Which controller leads, of all that use this database."""

    def acquire(self, owner: str, now: datetime, lasting: timedelta) -> bool:
        """Take it where nobody has it or its time has run out, or renew one's own; False when another holds it."""
        ...

    def release(self, owner: str) -> None:
        """Give up one's own; anything else is left alone."""
        ...

    def holder(self, now: datetime) -> str | None:
        """Who leads; None once its time has run out."""
        ...


class ShareStore(Protocol):
    """How many slots each study has, and how many it could use."""

    def all(self) -> Mapping[str, Share]:
        """Of every study that has one."""
        ...

    def get(self, study_id: str) -> Share | None: ...

    def of(self, study_ids: Collection[str]) -> Mapping[str, Share]:
        """Of those of these studies that have one."""
        ...

    def poll(self, study_id: str) -> tuple[int, int]:
        """The study's version and its slots: a cheap look for its driver. Raises StudyNotFound.

        No slots without a share, or with one that was counted for another number of trials on a GPU.
        """
        ...

    def grant(self, shares: Mapping[str, Share]) -> None:
        """Write all but `wanted` of these studies' shares, for the controller; studies that are gone are left out."""
        ...

    def want(self, study_id: str, wanted: int | None) -> None:
        """Write `wanted`, for the study's driver."""
        ...

    def drop(self, study_id: str) -> None:
        """Forget the share of a study that neither runs nor waits any more."""
        ...


class FootprintStore(Protocol):
    """What the checkpoints of each study take, as the controller last measured it."""

    def of(self, study_ids: Collection[str]) -> Mapping[str, Footprint]:
        """Of those of these studies that were measured."""
        ...

    def set(self, study_id: str, footprint: Footprint) -> None:
        """Replace it; that of a study that is gone is dropped."""
        ...


class DeletionStore(Protocol):
    """What became of studies that were deleted; `StudyStore.delete` adds to it, and `MirrorStore.set_forgotten`."""

    def recent(self, limit: int = 100) -> Sequence[Deletion]:
        """The newest first."""
        ...

    def freed(self, study_id: str, checkpoints: Freed = NOTHING_FREED, prepared: Freed = NOTHING_FREED) -> None:
        """Add to what was deleted from the disk; nothing happens for a study that was not deleted."""
        ...


@dataclass(frozen=True)
class MirroredTrial:
    """How far the tracker has followed one trial: up to this version and this many reports. `number` -1 is the study itself."""

    study_id: str
    number: int
    run_id: str
    version: int = -1
    reports: int = 0


class MirrorStore(Protocol):
    """How far the tracker got."""

    def experiment(self, study_id: str) -> str | None:
        """The tracker's id of a study, once it has one."""
        ...

    def experiments(self, study_ids: Collection[str]) -> Mapping[str, str]:
        """The tracker's ids of those of these studies that have one."""
        ...

    def set_experiment(self, study_id: str, experiment_id: str) -> None: ...

    def mirrored(self, study_id: str) -> Mapping[int, MirroredTrial]:
        """What has been mirrored of a study, by trial number; -1 is the study itself."""
        ...

    def set_mirrored(self, entries: Sequence[MirroredTrial]) -> None:
        """Remember progress; entries of deleted studies are ignored."""
        ...

    def marks(self) -> Mapping[str, int | None]:
        """A number for each study that grows whenever something happens in it; None where a driver may write without a word."""
        ...

    def behind(self, among: Collection[str] | None = None) -> Sequence[str]:
        """Ids of those of these studies, or of all, with something the tracker has not seen: a version of it is ahead."""
        ...

    def ahead(self) -> Sequence[MirroredTrial]:
        """What says more than the store has, as after a return to a backup."""
        ...

    def deleted(self) -> Sequence[str]:
        """Ids of the studies that were deleted here and that the tracker has yet to forget."""
        ...

    def set_forgotten(self, study_id: str, forgotten: Forgotten, at: datetime) -> None:
        """The tracker has nothing of a deleted study any more, and this is what it had; of other studies nothing changes."""
        ...


class TrackedStore(Protocol):
    """Whose the tracker's things are."""

    def experiments(self, project: str, experiment_ids: Collection[str]) -> frozenset[str]:
        """Those of these ids of the tracker's that stand for a study of the project, and for none of another one."""
        ...

    def runs(self, project: str, run_ids: Collection[str]) -> frozenset[str]:
        """The same of runs."""
        ...

    def studies(self, project: str, study_ids: Collection[str]) -> frozenset[str]:
        """Those of these studies that are the project's; experiments and registered models are named after them."""
        ...


class AccessStore(Protocol):
    """Tokens, login links and browser sessions, by the SHA-256 of their secrets; the secrets themselves are never stored."""

    def add_token(self, token: AccessToken, sha256: str) -> None: ...

    def token_with(self, sha256: str) -> AccessToken | None:
        """The token with this secret, whether or not it still works."""
        ...

    def tokens(self, project: str | None = None) -> Sequence[AccessToken]:
        """All tokens, or those of one project, the newest first."""
        ...

    def revoke(self, token_id: str, now: datetime, project: str | None = None) -> AccessToken:
        """Let nobody in with it any more, nor with a session that came of it.

        Raises TokenNotFound, for one that is not of `project` too, where one is named.
        """
        ...

    def note_use(self, token_id: str, now: datetime) -> None: ...

    def add_login_code(self, code_sha256: str, expires_at: datetime, caller: Caller) -> None: ...

    def use_login_code(self, code_sha256: str, now: datetime) -> Caller | None:
        """Who the code logs in, if it was there and fresh; it works once, also when two ask at the same time."""
        ...

    def add_session(self, session_sha256: str, expires_at: datetime, caller: Caller) -> None: ...

    def caller_of(self, session_sha256: str, now: datetime) -> Caller | None:
        """Whose session that is; None once it has run out, or the token it came of works no more."""
        ...

    def delete_session(self, session_sha256: str) -> None: ...

    def delete_sessions(self) -> None:
        """All of them, and the login links that nobody has used yet."""
        ...


class ProjectStore(Protocol):
    """The projects; `default` is always there."""

    def add(self, project: Project) -> Project:
        """Raises ProjectExists."""
        ...

    def get(self, name: str) -> Project:
        """Raises ProjectNotFound."""
        ...

    def all(self) -> Sequence[Project]:
        """Ordered by name."""
        ...

    def set_quotas(self, name: str, quotas: Quotas) -> Project:
        """Raises ProjectNotFound."""
        ...

    def usage(self, names: Collection[str]) -> Mapping[str, Usage]:
        """What the studies of each of these projects have taken; of uploads it knows nothing."""
        ...


class AuditStore(Protocol):
    """What callers did, as it was written then: entries are added and never changed."""

    def add(self, entry: AuditEntry) -> None: ...

    def after(self, entry_id: int, limit: int = 500, project: str | None = None) -> Sequence[AuditEntry]:
        """Entries with a greater id, in order, of one project or of all."""
        ...


@dataclass(frozen=True)
class Store:
    """All of what the service remembers, behind its ports.

    What is read within `at_one_moment`, by one thread, is read of the same moment, and in one transaction.
    """

    studies: StudyStore
    trials: TrialStore
    events: EventStore
    leases: LeaseStore
    leadership: LeadershipStore
    shares: ShareStore
    forecasts: ForecastStore
    footprints: FootprintStore
    deletions: DeletionStore
    mirror: MirrorStore
    tracked: TrackedStore
    access: AccessStore
    projects: ProjectStore
    audit: AuditStore
    at_one_moment: Callable[[], AbstractContextManager[None]]


class DatasetStore(Protocol):
    """Uploaded files of one project."""

    def of(self, project: str) -> "DatasetStore":
        """Those of another project."""
        ...

    def put(self, dataset: str, file: str, content: BinaryIO, now: datetime, allowance: Allowance = NO_LIMITS) -> DatasetFile:
        """Store or replace a file, all or nothing, while the project's uploads come to no more than they may.

        Raises UnsafePath, UnreadableDataset, UploadTooLarge, TooManyFiles, QuotaSpent, NoSpace.
        """
        ...

    def delete(self, dataset: str, file: str | None = None) -> Sequence[DatasetFile]:
        """Delete one file, or all of the data set, and answer which those were. Raises DatasetNotFound."""
        ...

    def size(self) -> int:
        """Bytes of all files."""
        ...

    def require_room(self, more: int) -> None:
        """Whether so many bytes may be written where the files are, and on. Raises NoSpace."""
        ...

    def get(self, dataset: str, file: str) -> DatasetFile:
        """Raises DatasetNotFound."""
        ...

    def all(self) -> Sequence[DatasetFile]:
        """Every file, ordered by data set and name."""
        ...

    def path(self, dataset: str, file: str) -> Path:
        """Where a worker on this machine reads it. Raises DatasetNotFound."""
        ...


class CheckpointStore(Protocol):
    """Exported checkpoints of trials."""

    def studies(self) -> Mapping[str, datetime]:
        """Each study that something is stored of, and when that last changed."""
        ...

    def manifest(self, study_id: str, trial: int, report: int) -> Manifest:
        """The export of that report of the trial. Raises CheckpointNotFound."""
        ...

    def analysis(self, study_id: str, trial: int, report: int) -> Mapping[str, Any]:
        """Where that report's validation rows went wrong, as its trainer says. Raises CheckpointNotFound."""
        ...

    def open(self, study_id: str, trial: int, report: int, path: str) -> BinaryIO:
        """A file of that export, to read and seek. Raises CheckpointNotFound, FileNotInCheckpoint."""
        ...

    def link(self, study_id: str, trial: int, report: int, path: str) -> str | None:
        """An address that hands out a file of that export for a few minutes to whoever knows it; None where there is none.

        Raises CheckpointNotFound, FileNotInCheckpoint.
        """
        ...

    def can_resume(self, study_id: str, trial: int) -> bool:
        """Whether the trial, of which no attempt may be running, has a state to train on from."""
        ...

    def has_room(self, study_id: str) -> bool:
        """Whether there is clearly room on the disk for what the study had none for."""
        ...

    def fork(self, study_id: str, parent: int, child: int, report: int) -> int:
        """Let trial `child` go on from the state of `parent` at that report, whatever becomes of the parent after.

        Answers the report that it goes on from: an earlier one, or 0, where that state is gone. A child that has a state of its
        own keeps it, so that asking again changes nothing.
        """
        ...

    def stored(self, study_id: str) -> Sequence[Stored]:
        """Everything that lies there of a study's trials, by trial."""
        ...

    def drop(self, study_id: str, stored: Sequence[Stored]) -> None:
        """Delete these, as `stored` listed them; what is gone already does no harm."""
        ...

    def delete(self, study_id: str) -> Freed:
        """Delete everything of a study, and say what that was; nothing happens when there is nothing."""
        ...


class Signs(Protocol):
    """One word for all workers of a study. Raises StorageAway."""

    def read(self) -> str | None:
        """What is said; None where nothing is."""
        ...

    def write(self, word: str | None) -> None:
        """Say this, or nothing any more."""
        ...


@dataclass(frozen=True)
class LocalSources:
    """Where on this machine the models and data sets of a definition are, by the names it uses."""

    models: Mapping[str, Path]
    sources: Mapping[str, Path]


@dataclass(frozen=True)
class SharedSources:
    """What the models and data sets of a definition are called in object storage, by the names it uses."""

    models: Mapping[str, str]
    sources: Mapping[str, str]


class Catalog(Protocol):
    """What there is to train on: base models, and the rows that one project sees."""

    def of(self, project: str) -> "Catalog":
        """What another project has."""
        ...

    def check(self, definition: StudyDefinition) -> None:
        """Whether every model and data set of the study can be used, without loading them. Raises InvalidDefinition."""
        ...

    def fetch(self, definition: StudyDefinition) -> LocalSources:
        """Make them all available here; may download. Raises ModelNotFound, DatasetNotFound, UnreadableDataset."""
        ...


class Clock(Protocol):
    """The time, aware and in UTC."""

    def now(self) -> datetime: ...
