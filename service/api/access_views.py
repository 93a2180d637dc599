"""What the API says of callers, tokens, projects and the audit log. No FastAPI here."""

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from service.domain.access import (
    CALLER_PATTERN,
    PROJECT_PATTERN,
    AccessToken,
    AuditEntry,
    Caller,
    Project,
    Quotas,
    Role,
    Source,
    Usage,
)

_AT = "2030-01-02T03:04:05Z"
_QUOTAS = tuple(field.name for field in fields(Quotas))
ProjectText = Annotated[str, Field(pattern=PROJECT_PATTERN)]


class _View(BaseModel):
    """Clients ignore keys they do not know, so that a newer service may answer an older client."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class CallerView(_View):
    """Who you are here."""

    name: str = Field(description="Your name in events and in the audit log.", examples=["ada"])
    role: Role = Field(description="What you may do.", examples=["editor"])
    project: str | None = Field(description="The project that you see; null for all of them.", examples=["vision"])
    source: Source = Field(
        description="What lets you in: the service's own token, one that was handed out, or an identity provider's.",
        examples=["token"],
    )

    @classmethod
    def of(cls, caller: Caller) -> "CallerView":
        return cls(name=caller.name, role=caller.role, project=caller.project, source=caller.source)


class TokenRequest(_Asked):
    """A token to make."""

    name: str = Field(
        pattern=CALLER_PATTERN, description="Whose it is: the name in events and in the audit log.", examples=["ada"]
    )
    role: Role = Field(default=Role.EDITOR, strict=False, description="What it lets them do.", examples=["editor"])
    project: ProjectText | None = Field(
        default=None, examples=["vision"],
        description="The project that they see: left out, yours. Who sees every one says which, or null for every one.",
    )  # fmt: skip
    expires_in_days: float | None = Field(
        default=90.0, gt=0, le=3660, description="How long it works; null is until it is revoked.", examples=[90]
    )


class TokenView(_View):
    """A token, without its secret."""

    id: str = Field(description="What it is revoked by.", examples=["k3v9x2ab"])
    name: str = Field(description="Whose it is.", examples=["ada"])
    role: Role = Field(description="What it lets them do.", examples=["editor"])
    project: str | None = Field(description="The project that they see; null for all of them.", examples=["vision"])
    created_at: datetime = Field(description="When it was made.", examples=[_AT])
    created_by: str = Field(description="Who made it.", examples=["grace"])
    expires_at: datetime | None = Field(description="When it stops working; null is never.", examples=[_AT])
    revoked_at: datetime | None = Field(description="When it was revoked.", examples=[None])
    last_used_at: datetime | None = Field(description="When it was last used, to the minute.", examples=[_AT])

    @classmethod
    def of(cls, token: AccessToken) -> "TokenView":
        return cls(**{name: getattr(token, name) for name in cls.model_fields})


class NewTokenView(TokenView):
    """A token that was just made, with its secret: it is shown only here."""

    token: str = Field(description="Send it as `Authorization: Bearer TOKEN`.", examples=["ty_..."])


class TokensView(_View):
    """Tokens."""

    items: Sequence[TokenView] = Field(description="The newest first, those that work no more among them.")


class QuotasRequest(_Asked):
    """What a project's studies may take together; what is left out or null is not limited."""

    max_running_studies: int | None = Field(default=None, ge=1, description="Studies that run at once.", examples=[4])
    max_gpu_hours: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="Hours of GPU of all its studies.", examples=[500]
    )
    max_stored_gb: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="Gigabytes of all its checkpoints and uploads.", examples=[200]
    )

    @property
    def quotas(self) -> Quotas:
        return Quotas(**{name: getattr(self, name) for name in _QUOTAS})


class ProjectRequest(QuotasRequest):
    """A project to make."""

    name: ProjectText = Field(description="Small letters, digits and dashes, at most 40.", examples=["vision"])


class ProjectView(_View):
    """A project: its quotas, and what its studies have taken."""

    name: str = Field(description="Its name.", examples=["vision"])
    created_at: datetime = Field(description="When it was made.", examples=[_AT])
    max_running_studies: int | None = Field(description="Studies that run at once; null is not limited.", examples=[4])
    max_gpu_hours: float | None = Field(description="Hours of GPU of all its studies; null is not limited.", examples=[500])
    max_stored_gb: float | None = Field(
        description="Gigabytes of all its checkpoints and uploads; null is not limited.", examples=[200]
    )
    gpu_hours: float = Field(description="Hours of GPU that its studies have used, deleted ones too.", examples=[12.5])
    stored_bytes: int = Field(description="Bytes of its checkpoints, as last measured.", examples=[5_000_000])
    dataset_bytes: int = Field(default=0, description="Bytes of its uploaded data sets.", examples=[839_073])

    @classmethod
    def of(cls, project: Project, usage: Usage) -> "ProjectView":
        return cls(
            name=project.name,
            created_at=project.created_at,
            **project.quotas.__dict__,
            gpu_hours=usage.gpu_seconds / 3600,
            stored_bytes=usage.stored_bytes,
            dataset_bytes=usage.dataset_bytes,
        )


class ProjectsView(_View):
    """Projects."""

    items: Sequence[ProjectView] = Field(description="By name; those that you see.")


class AuditEntryView(_View):
    """That somebody did something."""

    id: int = Field(description="Grows; ask with it for what came after.", examples=[42])
    at: datetime = Field(description="When it was answered.", examples=[_AT])
    caller: str = Field(description="Who asked.", examples=["ada"])
    role: Role = Field(description="As what.", examples=["editor"])
    project: str | None = Field(
        description="Whose that is which it was about; null for what is of no project or of all of them.", examples=["vision"]
    )
    token: str | None = Field(
        description="The id of the token that it came with; null for the service's own and for an identity provider's.",
        examples=["k3v9x2ab"],
    )
    action: str = Field(description="The operation's name in this description.", examples=["pauseStudy"])
    target: str = Field(description="The path it was sent to.", examples=["/v1/studies/intents-abc123:pause"])
    status: int = Field(description="What it was answered with.", examples=[202])
    address: str = Field(description="Where it came from.", examples=["192.0.2.7"])

    @classmethod
    def of(cls, entry: AuditEntry) -> "AuditEntryView":
        return cls(**entry.__dict__)
