"""What the API answers about a population, as the server writes it and the Python client reads it."""

import math
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict, Field

from search_spaces import Value
from service.domain.lineage import Lineage
from service.domain.trial import TrialState


class _View(BaseModel):
    """Clients ignore keys they do not know, so that a newer service may answer an older client."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class StretchView(_View):
    """A part of a member's way, trained with the same parameters."""

    trial: int = Field(description="The trial that trained it.", examples=[3])
    from_report: int = Field(description="The report that it went on from; 0 is the start.", examples=[0])
    to_report: int = Field(description="The last report of this part.", examples=[2])
    parameters: Mapping[str, Value] = Field(description="What it was trained with.", examples=[{"learning_rate": 3.2e-05}])


class MemberView(_View):
    """One member of a population, and all that trained its weights."""

    member: int = Field(description="Its number, from 0: the `bracket` of its trials.", examples=[0])
    trial: int = Field(description="The trial that fills it now.", examples=[11])
    state: TrialState = Field(description="Where that trial is.", examples=["running"])
    value: float | None = Field(description="The objective at its last report.", examples=[0.921])
    stretches: Sequence[StretchView] = Field(
        description="The schedule of its parameters: from the trial that began from nothing to the one that fills it now.",
    )


class LineageView(_View):
    """Where the weights of a population's members come from."""

    study_id: str = Field(description="The study.", examples=["intents-abc123"])
    members: Sequence[MemberView] = Field(description="The members by number; none in strategies other than `pbt`.")

    @classmethod
    def of(cls, study_id: str, lineages: Sequence[Lineage]) -> "LineageView":
        return cls(study_id=study_id, members=[_member(one) for one in lineages])


def _member(lineage: Lineage) -> MemberView:
    trial = lineage.trial
    return MemberView(
        member=lineage.member,
        trial=trial.number,
        state=trial.state,
        value=trial.value if trial.value is not None and math.isfinite(trial.value) else None,
        stretches=[
            StretchView(trial=one.trial, from_report=one.first, to_report=one.last, parameters=one.parameters)
            for one in lineage.stretches
        ],
    )
