"""What the API answers about decisions, as the server writes it and the Python client reads it."""

import math
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache

from pydantic import BaseModel, ConfigDict, Field

from search_spaces import Value
from service.domain.automatic import Plan
from service.domain.decision import Decision, DecisionKind
from service.domain.definition import StudyDefinition
from service.domain.strategy import Strategy
from service.domain.study import WarmStart
from service.domain.trial import TrialRequest

_STUDY = "intents-abc123"
_AT = "2030-01-02T03:04:05Z"
_PARAMETERS = {"learning_rate": 3.2e-05, "batch_size": 32}


class _View(BaseModel):
    """Clients ignore keys they do not know, so that a newer service may answer an older client."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class DecisionView(_View):
    """Why a trial was proposed, promoted or cut. What does not belong to the kind of decision is null."""

    kind: DecisionKind = Field(description="What was decided.", examples=["cut"])
    by: str = Field(description="The sampler or rule that decided; `initial` and `request` are users.", examples=["hyperband"])
    at: datetime = Field(description="When.", examples=[_AT])
    sentence: str = Field(
        description="All of it in words.",
        examples=["Cut by `hyperband` at report 1: 0.412 is number 9 of 9; the cut was at 0.83."],
    )
    report: int | None = Field(description="The report that values were compared at, or that a model looked at.", examples=[1])
    rung: int | None = Field(description="The rung that it is about.", examples=[0])
    bracket: int | None = Field(description="Hyperband's bracket.", examples=[0])
    observations: int | None = Field(description="How many trials the model knew.", examples=[12])
    value: float | None = Field(description="The trial's value in the comparison.", examples=[0.412])
    rank: int | None = Field(description="Its place in the comparison, from 1.", examples=[9])
    among: int | None = Field(description="How many trials were compared.", examples=[9])
    cut: float | None = Field(description="The value that it took to go on.", examples=[0.83])
    parent: int | None = Field(description="The trial that it is a copy of.", examples=[4])
    incumbent: int | None = Field(description="The best trial at that time.", examples=[7])
    incumbent_value: float | None = Field(description="The best value at that time.", examples=[0.91])

    @classmethod
    def of(cls, at: datetime, decision: Decision) -> "DecisionView":
        return cls(
            kind=decision.kind, by=decision.by, at=at, sentence=decision.sentence, report=decision.report, rung=decision.rung,
            bracket=decision.bracket, observations=decision.observations, value=_finite(decision.value), rank=decision.rank,
            among=decision.among, cut=_finite(decision.cut), parent=decision.parent, incumbent=decision.incumbent,
            incumbent_value=_finite(decision.incumbent_value),
        )  # fmt: skip


class PlanView(_View):
    """The strategy that leads a study."""

    strategy: Strategy = Field(description="The definition's strategy, with nothing left open.")
    reason: str | None = Field(
        description="Why it was chosen; null where the definition names it.",
        examples=["`gp`, as a small numeric space and few trials suit a Gaussian process."],
    )

    @classmethod
    def of(cls, definition: StudyDefinition) -> "PlanView":
        plan = _plan(definition.model_dump_json())
        return cls(strategy=plan.strategy, reason=plan.reason)


class WarmStartView(_View):
    """What became of the trials of the studies that a study starts from."""

    carried_over: int = Field(description="Trials that the search knows from its start.", examples=[28])
    left_out: int = Field(description="Trials that say nothing of this study.", examples=[4])
    because: Mapping[str, int] = Field(
        description="How many were left out for each reason: `out_of_range` of the space, `other_setting` than the trainer's, "
        "`unknown_value` of a parameter that is new, `constraint_not_met`, `other_reports`, `no_value`, `copy_or_repeat` of "
        "another trial, `several_objectives`, `too_many`.",
        examples=[{"out_of_range": 3, "no_value": 1}],
    )

    @classmethod
    def of(cls, known: WarmStart) -> "WarmStartView":
        return cls(carried_over=known.carried_over, left_out=sum(known.because.values()), because=known.because)


class TrialRequestView(_View):
    """A configuration that was asked for."""

    study_id: str = Field(description="The study.", examples=[_STUDY])
    request: int = Field(description="The request's number within the study, from 1.", examples=[2])
    parameters: Mapping[str, Value] = Field(description="What is to be tried.", examples=[_PARAMETERS])
    at: datetime = Field(description="When it was asked for.", examples=[_AT])
    place: int = Field(description="Its place in the queue: 1 is tried next, and 0 has begun.", examples=[1])
    trial: int | None = Field(description="The trial that tries it, once it has begun.", examples=[None])

    @classmethod
    def of(cls, study_id: str, request: TrialRequest, place: int, trial: int | None) -> "TrialRequestView":
        return cls(
            study_id=study_id, request=request.number, parameters=request.parameters, at=request.at, place=place, trial=trial
        )


@lru_cache(maxsize=512)
def _plan(definition: str) -> Plan:
    """The plan of a definition in JSON: choosing one may count all configurations of its space, which takes a second."""
    return StudyDefinition.model_validate_json(definition).plan


def _finite(value: float | None) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if value is not None and math.isfinite(value) else None
