"""Who may do what: callers, their tokens, and the projects that studies and data sets belong to."""

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import assert_never

from service.domain.errors import InvalidQuery

DEFAULT_PROJECT = "default"
PROJECT_PATTERN = r"^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$"
CALLER_PATTERN = r"^[!-~]([ -~]{0,62}[!-~])?$"
"""At most 64 printable ASCII characters, as a header can carry them."""
PROJECT_TAG = "tuneyard.project"
"""The tag that says in the tracker whose an experiment or a registered model is."""
OPERATOR = "token"
"""The name of whoever holds the service's own token and says no other one."""


class Role(StrEnum):
    """What a caller may do in a project; each may do what those before it may."""

    VIEWER = "viewer"
    EDITOR = "editor"
    ADMIN = "admin"

    def covers(self, needed: "Role") -> bool:
        """Whether who has this role may do what needs that one."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


class Source(StrEnum):
    """What lets a caller in: the service's own token, one that was handed out, or an identity provider's."""

    OPERATOR = "operator"
    TOKEN = "token"  # noqa: S105 - the kind of secret, not one
    OIDC = "oidc"


@dataclass(frozen=True)
class Caller:
    """Who sends a request. `project` None stands for all of them, `token` is the id of the token it came with, if any.

    `ends_at` is when that which let them in runs out; None is never. `fingerprint` says of an operator which of the service's own
    tokens it was.
    """

    name: str
    role: Role
    source: Source
    project: str | None = None
    token: str | None = None
    ends_at: datetime | None = None
    fingerprint: str | None = field(default=None, repr=False)

    @property
    def is_admin_of_all(self) -> bool:
        """Whether it may do everything in every project."""
        return self.role is Role.ADMIN and self.project is None

    def until(self, moment: datetime) -> datetime:
        """When something of theirs ends that would last until this moment: it outlives nothing that it came of."""
        return moment if self.ends_at is None else min(moment, self.ends_at)

    def counts(self, now: datetime, fingerprint: str) -> bool:
        """Whether they still are let in, where the service's own token has this fingerprint. The store knows who was revoked."""
        match self.source:
            case Source.OPERATOR:
                return self.fingerprint == fingerprint
            case Source.TOKEN:
                return self.ends_at is None or now < self.ends_at
            case Source.OIDC:  # earlier versions did not say until when
                return self.ends_at is not None and now < self.ends_at
            case _:
                assert_never(self.source)


@dataclass(frozen=True)
class AccessToken:
    """A token that was handed out, without its secret. `project` None is every project; `expires_at` None is never."""

    id: str
    name: str
    role: Role
    project: str | None
    created_at: datetime
    created_by: str
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None

    def works(self, now: datetime) -> bool:
        """Whether it still lets anybody in."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    @property
    def caller(self) -> Caller:
        """Whoever sends it."""
        return Caller(self.name, self.role, Source.TOKEN, self.project, self.id, self.expires_at)


@dataclass(frozen=True)
class Quotas:
    """What the studies of a project may take together; None is not limited."""

    max_running_studies: int | None = None
    max_gpu_hours: float | None = None
    max_stored_gb: float | None = None


@dataclass(frozen=True)
class Usage:
    """What a project has taken: GPU time, of studies that are deleted by now too, and bytes of checkpoints and of uploads."""

    gpu_seconds: float = 0.0
    stored_bytes: int = 0
    dataset_bytes: int = 0


@dataclass(frozen=True)
class Project:
    """What studies, data sets and tokens belong to."""

    name: str
    created_at: datetime
    quotas: Quotas = field(default_factory=Quotas)


@dataclass(frozen=True)
class AuditEntry:
    """That somebody did something: one request that may have changed something, and its answer. `id` counts from 1."""

    at: datetime
    caller: str
    role: Role
    project: str | None
    token: str | None
    action: str
    target: str
    status: int
    address: str
    id: int = 0


def spent_quota(project: str, quotas: Quotas, usage: Usage) -> str | None:
    """Why no study of the project may go on now; None while it may."""
    if quotas.max_gpu_hours is not None and usage.gpu_seconds >= 3600 * quotas.max_gpu_hours:
        used = usage.gpu_seconds / 3600
        return f"Project {project!r} has used {used:.2f} of its {quotas.max_gpu_hours:g} GPU-hours (max_gpu_hours)."
    if quotas.max_stored_gb is not None and usage.stored_bytes + usage.dataset_bytes >= 1e9 * quotas.max_stored_gb:
        held, uploads = (usage.stored_bytes + usage.dataset_bytes) / 1e9, usage.dataset_bytes / 1e9
        return (
            f"The checkpoints and uploads of project {project!r} take {held:.2f} of its {quotas.max_stored_gb:g} GB "
            f"(max_stored_gb), {uploads:.2f} of it uploads: delete studies that have ended, or data sets."
        )
    return None


def check_project_name(name: str) -> str:
    """The name; raises InvalidQuery for what cannot be one."""
    if not re.fullmatch(PROJECT_PATTERN, name):
        raise InvalidQuery(f"{name!r} cannot be a project's name: use small letters, digits and dashes, at most 40.")
    return name
