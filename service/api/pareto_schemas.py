"""What the API answers about a study's front, as the server writes it and the Python client reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from search_spaces import Value
from service.domain.study import Study
from service.domain.trial import TrialState

if TYPE_CHECKING:  # it needs numpy, which a client does not
    from service.domain.front import Front


class _View(BaseModel):
    """Clients ignore keys they do not know, so that a newer service may answer an older client."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ObjectiveView(_View):
    """One of the objectives."""

    metric: str = Field(description="The metric.", examples=["validation/accuracy"])
    direction: Literal["maximize", "minimize"] = Field(description="Whether more or less of it is better.", examples=["maximize"])


class ParetoTrialView(_View):
    """A trial that no other beats in all objectives."""

    trial: int = Field(description="The trial's number.", examples=[7])
    state: TrialState = Field(description="Where it is; while it trains, its point may still move.", examples=["completed"])
    report: int = Field(
        description="The report that the values are of and whose export is kept: its best by the first objective.", examples=[3]
    )
    values: Mapping[str, float] = Field(
        description="The objectives' values at that report, by metric.",
        examples=[{"validation/accuracy": 0.93, "model/latency_ms": 2.4}],
    )
    parameters: Mapping[str, Value] = Field(description="What is tried.", examples=[{"learning_rate": 3.2e-05}])
    checkpoint: str = Field(
        description="Where its exported checkpoint is.", examples=["/v1/studies/intents-abc123/trials/7/checkpoint"]
    )


class ParetoView(_View):
    """The front of a study: with one objective its best trial, and others of the same value."""

    study_id: str = Field(description="The study.", examples=["intents-abc123"])
    objectives: Sequence[ObjectiveView] = Field(description="The objectives, in the order of the definition.")
    size: int = Field(description="How many trials are on the front; `trials` has at most `limit` of them.", examples=[2])
    trials: Sequence[ParetoTrialView] = Field(
        description="Trials on the front, the best by the first objective first. Of a front larger than `limit` its ends, "
        "and then those farthest from their neighbours."
    )
    reference: Mapping[str, float] | None = Field(
        description="The point up to which the volume reaches: what was asked for, or a tenth of the range of all trials' values "
        "beyond the worst of each objective; null before the first report.",
        examples=[{"validation/accuracy": 0.41, "model/latency_ms": 9.1}],
    )
    hypervolume: float | None = Field(
        description="The volume of what the front beats, up to the reference point. Compare it only for the same point. "
        "Null where the front has too many members for it.",
        examples=[1.93],
    )

    @classmethod
    def of(cls, study: Study, front: Front, most: int) -> ParetoView:
        metrics = [objective.metric for objective in study.definition.objectives]
        return cls(
            study_id=study.id,
            objectives=[ObjectiveView(metric=one.metric, direction=one.direction) for one in study.definition.objectives],
            size=len(front.members),
            trials=[
                ParetoTrialView(
                    trial=one.trial.number, state=one.trial.state, report=one.trial.best_report or 0,
                    values=dict(zip(metrics, one.values, strict=True)), parameters=one.trial.parameters,
                    checkpoint=f"/v1/studies/{study.id}/trials/{one.trial.number}/checkpoint",
                )
                for one in front.spread(most)
            ],
            reference=None if front.reference is None else dict(zip(metrics, front.reference, strict=True)),
            hypervolume=front.volume,
        )  # fmt: skip
