"""The whole error tree. Each class is one situation; `detail` is a sentence that says what to do."""

from collections.abc import Sequence
from dataclasses import dataclass

from service.domain.sizes import size


@dataclass(frozen=True)
class Violation:
    """One thing wrong with what a client sent; `pointer` is a JSON pointer (RFC 6901) into it."""

    pointer: str
    detail: str

    @property
    def place(self) -> str:
        """Where it is, for people: the pointer without what it escapes."""
        return self.pointer.replace("~1", "/").replace("~0", "~")


class TuneyardError(Exception):
    """Base of every error this project raises on purpose."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class InvalidDefinition(TuneyardError):
    """A study definition that cannot be run as it stands; every violation names its field."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__(_first_of(violations))
        self.violations = tuple(violations)


class InvalidConfiguration(TuneyardError):
    """A configuration that the study's space does not hold; every violation names its field."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__(_first_of(violations))
        self.violations = tuple(violations)


class MalformedDocument(TuneyardError):
    """The body is not JSON or YAML at all."""


class UnsupportedMediaType(TuneyardError):
    """The body's content type is one we do not read."""


class InvalidQuery(TuneyardError):
    """A filter, an order, a cursor or a column that means nothing here."""


class NotFound(TuneyardError):
    """Base of what is not there."""


class StudyNotFound(NotFound):
    """No study has this id."""

    def __init__(self, study_id: str) -> None:
        super().__init__(f"There is no study {study_id!r}: `GET /v1/studies` lists those there are.")


class TrialNotFound(NotFound):
    """The study has no trial with this number."""

    def __init__(self, study_id: str, number: int) -> None:
        super().__init__(f"Study {study_id!r} has no trial {number}: `GET /v1/studies/{study_id}/trials` lists its trials.")


class NoBestTrial(NotFound):
    """No trial of the study has a report that counts yet, so none is the best."""

    def __init__(self, study_id: str) -> None:
        super().__init__(
            f"No trial of study {study_id!r} has reported yet, or none has kept its `outcomes`: ask again later, or watch "
            f"`GET /v1/studies/{study_id}/events`."
        )


class NoFinal(NotFound):
    """The study's definition asks for no final."""

    def __init__(self, study_id: str) -> None:
        super().__init__(
            f"Study {study_id!r} has no final: one with `final: {{top: 3, seeds: 3}}` trains its best configurations again."
        )


class CheckpointNotFound(NotFound):
    """The trial has no exported checkpoint, or not any more."""


class FileNotInCheckpoint(NotFound):
    """The checkpoint's manifest names no such file."""


class DatasetNotFound(NotFound):
    """No data set has this name, or it has no such file."""


class ModelNotFound(NotFound):
    """The base model is in no model root, cache or installed package, and not on the hub as far as it can be reached."""


class UnusableModel(TuneyardError):
    """The base model is there, but the trainer cannot use it."""


class UnreadableDataset(TuneyardError):
    """A data set's file cannot be read, or lacks what the trainer needs."""

    def __init__(self, detail: str, *, column: str | None = None) -> None:
        super().__init__(detail)
        self.column = column


class ProjectNotFound(NotFound):
    """No project has this name, or the caller does not see it."""

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no project {name!r}: `GET /v1/projects` lists those there are.")


class TokenNotFound(NotFound):
    """No token has this id, or it belongs to another project."""

    def __init__(self, token_id: str) -> None:
        super().__init__(f"There is no token {token_id!r}: `GET /v1/tokens` lists those there are.")


class UnsafePath(TuneyardError):
    """A name that would leave the folder it belongs to."""


class UploadTooLarge(TuneyardError):
    """More bytes than one file may have."""


class TooManyUploads(TuneyardError):
    """More uploads under way at once than this process takes."""


class TooManyFiles(TuneyardError):
    """More files than the data sets of one project may have."""


class Conflict(TuneyardError):
    """Base of what cannot be done in the state things are in."""


class IllegalMove(Conflict):
    """A state machine has no such move."""


class StaleWrite(Conflict):
    """Somebody else changed this value since it was read: read it again and decide anew."""


class IdempotencyConflict(Conflict):
    """The same Idempotency-Key came with another body."""


class NoSingleBest(Conflict):
    """The study has several objectives: many trials are best, each in its own way."""

    def __init__(self, study_id: str) -> None:
        super().__init__(
            f"Study {study_id!r} has several objectives, so no trial is the best: `GET /v1/studies/{study_id}/pareto` lists "
            f"those that no other beats, and `GET /v1/studies/{study_id}/trials/NUMBER/checkpoint` has the export of each."
        )


class StudyStillActive(Conflict):
    """The study has not ended yet."""


class StudyEnded(Conflict):
    """The study has ended, or is about to: it tries nothing more."""


class ConfigurationKnown(Conflict):
    """The study has tried this configuration, or was asked for it already."""


class TooManyRequests(Conflict):
    """The study has been asked for as many configurations as it takes."""


class TooFewTrials(Conflict):
    """What was asked for needs more trials than the study has yet."""


class ProjectExists(Conflict):
    """A project has this name already."""

    def __init__(self, name: str) -> None:
        super().__init__(f"There is a project {name!r} already: change its quotas, or choose another name.")


class QuotaSpent(Conflict):
    """The project has used up what it may."""


class DatasetInUse(Conflict):
    """A study that has not ended names the data set."""


class LeaseLost(Conflict):
    """Another process holds this study now: this one must stop at once."""


class LeadershipLost(Conflict):
    """Another controller leads now: this one must stop at once."""


class NotAuthenticated(TuneyardError):
    """No valid token or session came with the request: a token that does not count, or none.

    `needs_token` where logging in would not help.
    """

    def __init__(self, detail: str, *, is_of_token: bool = False, needs_token: bool = False) -> None:
        super().__init__(detail)
        self.is_of_token = is_of_token
        self.needs_token = needs_token


class Forbidden(TuneyardError):
    """The caller is known, but may not do this."""


class TooOften(TuneyardError):
    """More requests than one caller may send in a minute."""

    def __init__(self, detail: str, seconds: int) -> None:
        super().__init__(detail)
        self.seconds = seconds


class InvalidLoginCode(TuneyardError):
    """The login link was used, has run out or never was."""


class NotReady(TuneyardError):
    """A part of the service that this needs is not up yet."""


class SchemaTooOld(NotReady):
    """The database was written by an earlier version, and nobody has said yet that it may be changed."""


class SchemaTooNew(NotReady):
    """The database was written by a later version than this one."""


class StoreAway(TuneyardError):
    """The database does not answer, or has no room: nothing can be read or written until it does.

    `cause` is what it, or the way to it, said. It may name hosts, and is for the log alone.
    """

    def __init__(self, cause: str) -> None:
        super().__init__(
            "The database does not answer, or has no room: try again in a few seconds; the service's log tells more."
        )
        self.cause = cause


class NoSpace(TuneyardError):
    """A disk has no room for what has to be written."""

    def __init__(self, folder: str, needed: int, free: int, *, stops_study: bool = False) -> None:
        then = " The study goes on by itself once there is clearly more." if stops_study else ""
        lacks = (
            f"has {size(free)} free, and needs {size(needed - free)} more: make room there"
            if free < needed
            else f"took no more, though {size(free)} are free: see whether a quota is spent there"
        )
        super().__init__(f"The disk of {folder} {lacks}.{then}")


class WrongSettings(TuneyardError):
    """Settings that are not what their descriptions say; each is named as it is set."""


class StorageRefused(TuneyardError):
    """The address of the object storage cannot be used as it stands."""


class StorageAway(TuneyardError):
    """The object storage does not answer, refuses, or has no room.

    `cause` is what it, or the way to it, said. It may name hosts, and is for the log alone.
    """

    def __init__(self, place: str, why: str, cause: str) -> None:
        super().__init__(
            f"The object storage {place} does not answer, or refuses ({why}): see that it runs, that the bucket is there, and "
            "that the credentials in the environment may read, write, list and delete in it."
        )
        self.cause = cause


class DamagedObject(TuneyardError):
    """What came from the object storage is not what was put there."""

    def __init__(self, key: str, found: str) -> None:
        super().__init__(f"{key} in the object storage is not what was stored there ({found}): it is not used.")


class UnusableCache(TuneyardError):
    """The folder for what a worker fetches cannot be used."""


class AnalysisFailed(TuneyardError):
    """The process that analyses a study, or draws the analysis, ended without an answer."""


class AnalysisTimedOut(TuneyardError):
    """The process that analyses a study, or draws the analysis, was not done in time."""


def _first_of(violations: Sequence[Violation]) -> str:
    first = violations[0]
    more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
    return f"{first.place}: {first.detail}{more}" if first.place else f"The document {first.detail}{more}"
