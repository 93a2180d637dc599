"""What the API answers about studies that were deleted, as the server writes it and the Python client reads it."""

from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from service.domain.deletion import Deletion
from service.domain.stored import Freed

_AT = "2030-01-02T03:04:05Z"


class _View(BaseModel):
    """Clients ignore keys they do not know, so that a newer service may answer an older client."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class FreedView(_View):
    """What was deleted from the disk."""

    files: int = Field(description="Files.", examples=[42])
    bytes: int = Field(description="Bytes that they took.", examples=[548000000])

    @classmethod
    def of(cls, freed: Freed) -> "FreedView":
        return cls(files=freed.files, bytes=freed.bytes)


class MlflowRemovedView(_View):
    """What MLflow had of the study, its runs' files included. MLflow keeps the rows of deleted runs, and does not show them."""

    experiment: str | None = Field(description="The experiment's id; null where it had none.", examples=["7"])
    runs: int = Field(description="Runs in it.", examples=[13])
    registered_model: bool = Field(description="Whether a model was registered.", examples=[True])
    at: datetime = Field(description="When it was removed.", examples=[_AT])


class DeletionView(_View):
    """What was removed with a study."""

    study_id: str = Field(description="The study's id.", examples=["intents-abc123"])
    name: str = Field(description="The name its definition gave it.", examples=["intents"])
    at: datetime = Field(description="When it was deleted.", examples=[_AT])
    by: str | None = Field(description="Who asked for it.", examples=["ada"])
    trials: int = Field(description="Trials removed from the store.", examples=[12])
    attempts: int = Field(description="Their attempts.", examples=[14])
    reports: int = Field(description="Their reports.", examples=[27])
    events: int = Field(description="Events of the study.", examples=[61])
    checkpoints: FreedView = Field(description="Checkpoints and exported models deleted from the disk.")
    prepared: FreedView = Field(description="Prepared rows deleted from the disk, where its end had not done that yet.")
    mlflow: MlflowRemovedView | None = Field(
        description="What was removed from MLflow; null until it has been: within a minute, or as soon as MLflow can be reached. "
        "`GET /v1/deletions` tells.",
        examples=[None],
    )

    @classmethod
    def of(cls, deletion: Deletion) -> "DeletionView":
        forgotten, at = deletion.forgotten, deletion.forgotten_at
        return cls(
            study_id=deletion.study_id, name=deletion.name, at=deletion.at, by=deletion.by, trials=deletion.trials,
            attempts=deletion.attempts, reports=deletion.reports, events=deletion.events,
            checkpoints=FreedView.of(deletion.checkpoints), prepared=FreedView.of(deletion.prepared),
            mlflow=None if forgotten is None or at is None else MlflowRemovedView(
                experiment=forgotten.experiment, runs=forgotten.runs, registered_model=forgotten.registered_model, at=at
            ),
        )  # fmt: skip


class DeletionsView(_View):
    """Studies that were deleted."""

    items: Sequence[DeletionView] = Field(description="The last 100, the newest first.")
