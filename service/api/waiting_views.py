"""Why something waits, as the server writes it and the Python client reads it."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from service.domain.waiting import Waiting, WaitingCause


class WaitingView(BaseModel):
    """Why a study or a trial waits."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    cause: WaitingCause = Field(description="What it waits for, to be compared by programs.", examples=["share"])
    detail: str = Field(
        description="The same in a sentence.",
        examples=["It has 1 of the 2 slots it could use; with priority 50 of 100 in all, its share is 1 slot."],
    )
    since: datetime = Field(description="When that began.", examples=["2030-01-02T03:04:05Z"])

    @classmethod
    def of(cls, waiting: Waiting | None) -> "WaitingView | None":
        return None if waiting is None else cls(cause=waiting.cause, detail=waiting.detail, since=waiting.since)
