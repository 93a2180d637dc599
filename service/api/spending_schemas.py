"""What the API answers about what a study has spent and will spend. No FastAPI here."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from service.api.schemas import SpentView
from service.domain.budget import Budget
from service.domain.forecast import SHARE, Band, Course, Forecast, Score, scored
from service.domain.history import reserved_seconds
from service.domain.spending import SpendingTable, Spent, added
from service.domain.study import Study, StudyState
from service.domain.trial import Trial, TrialState

_STUDY = "intents-abc123"
_AT = "2030-01-02T03:04:05Z"
_AMOUNT = {"trials": 9, "reports": 27, "seconds": 540.0, "lost_seconds": 0.0, "gpu_hours": 0.15, "cost": 0.375}
_BAND = {"low": 0.9, "expected": 1.1, "high": 1.4}


class _View(BaseModel):
    """Clients ignore keys they do not know, so that a newer service may answer an older client."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class AmountView(_View):
    """What some trials have used."""

    trials: int = Field(description="How many trials.", examples=[9])
    reports: int = Field(description="Reports they gave.", examples=[27])
    seconds: float = Field(description="Seconds that these reports took.", examples=[540.0])
    lost_seconds: float = Field(description="Seconds of attempts that were lost or failed, beside their reports.", examples=[0.0])
    gpu_hours: float = Field(description="Hours of GPU, lost ones included.", examples=[0.15])
    cost: float | None = Field(description="What these cost; null where the budget names no price.", examples=[0.375])

    @classmethod
    def of(cls, spent: Spent, budget: Budget) -> Self:
        return cls(
            trials=spent.trials, reports=spent.reports, seconds=spent.seconds, lost_seconds=spent.lost_seconds,
            gpu_hours=spent.gpu_seconds / 3600, cost=budget.cost_of(spent.gpu_seconds),
        )  # fmt: skip


class StateAmountView(AmountView):
    """What the trials in one state have used."""

    state: TrialState = Field(description="The state.", examples=["pruned"])


class RungAmountView(AmountView):
    """What the trials used that have come to one rung and no further."""

    rung: int = Field(description="The rung; 0 is the lowest, and the only one of a strategy without rungs.", examples=[1])


class TrialAmountView(AmountView):
    """What one trial has used."""

    trial: int = Field(description="The trial's number.", examples=[7])
    state: TrialState = Field(description="Where it is.", examples=["completed"])
    rung: int = Field(description="The rung it has come to.", examples=[2])


class LimitsView(_View):
    """What is spent beside what may be."""

    trials: SpentView = Field(description="Trials started.", examples=[{"spent": 12, "limit": 30}])
    epochs: SpentView = Field(description="Reports given, the final's aside.", examples=[{"spent": 27, "limit": 90}])
    wall_clock_seconds: SpentView = Field(
        description="Seconds since the study first ran, pauses aside.", examples=[{"spent": 310.5, "limit": 7200}]
    )
    gpu_hours: SpentView = Field(description="Hours of GPU.", examples=[{"spent": 0.6, "limit": 8}])
    cost: SpentView | None = Field(
        description="What these cost; null where the budget names no price.", examples=[{"spent": 1.5, "limit": 25}]
    )


class ReservedView(_View):
    """What live attempts have still to use, at the speed measured so far."""

    reports: int = Field(description="Reports.", examples=[6])
    seconds: float = Field(description="Seconds; 0 before the first report.", examples=[120.0])
    gpu_hours: float = Field(description="Hours of GPU.", examples=[0.033])
    cost: float | None = Field(description="What these will cost; null where the budget names no price.", examples=[0.083])


class SpendingView(_View):
    """What a study's budget went into."""

    study_id: str = Field(description="The study.", examples=[_STUDY])
    limits: LimitsView = Field(description="Totals beside the budget's limits.")
    reserved: ReservedView = Field(description="On top of that, what live attempts have still to use.")
    total: AmountView = Field(description="All trials together, the final's too.", examples=[_AMOUNT])
    pruned: AmountView = Field(description="What went into trials that were pruned.", examples=[_AMOUNT])
    final: AmountView = Field(description="What went into the final.", examples=[_AMOUNT])
    by_state: Sequence[StateAmountView] = Field(
        description="The search's trials by state.", examples=[[{"state": "pruned", **_AMOUNT}]]
    )
    by_rung: Sequence[RungAmountView] = Field(
        description="The search's trials by the rung they have come to.", examples=[[{"rung": 0, **_AMOUNT}]]
    )
    costliest: Sequence[TrialAmountView] = Field(
        description="The trials that took the most time, at most `limit`.",
        examples=[[{"trial": 7, "state": "completed", "rung": 2, **_AMOUNT}]],
    )

    @classmethod
    def of(cls, study: Study, table: SpendingTable, live: Sequence[Trial], costliest: Sequence[Trial], now: datetime) -> Self:
        budget, total = study.definition.budget, table.total()

        def amount(spent: Spent) -> dict[str, Any]:
            return AmountView.of(spent, budget).model_dump()

        searched = [part for part in table.parts if not part.is_final]
        mean = total.seconds / total.reports if total.reports else 0.0
        return cls(
            study_id=study.id,
            limits=_limits(study, table, now),
            reserved=_reserved(study, live, mean),
            total=AmountView.of(total, budget),
            pruned=AmountView.of(table.total(lambda part: part.state is TrialState.PRUNED), budget),
            final=AmountView.of(table.total(lambda part: part.is_final), budget),
            by_state=[
                StateAmountView(state=state, **amount(added(part.spent for part in searched if part.state is state)))
                for state in TrialState
                if any(part.state is state for part in searched)
            ],
            by_rung=[
                RungAmountView(rung=rung, **amount(added(part.spent for part in searched if part.rung == rung)))
                for rung in sorted({part.rung for part in searched})
            ],
            costliest=[
                TrialAmountView(trial=one.number, state=one.state, rung=one.rung, **amount(_of(one))) for one in costliest
            ],
        )


class BandView(_View):
    """A number that is foretold."""

    low: float = Field(description="One of ten studies like this stays below.", examples=[0.9])
    expected: float = Field(description="Half of them do.", examples=[1.1])
    high: float = Field(description="One of ten goes beyond.", examples=[1.4])

    @classmethod
    def of(cls, band: Band) -> Self:
        return cls(low=band.low, expected=band.expected, high=band.high)


class EndView(_View):
    """When a study is expected to end, if it is never paused."""

    earliest: datetime = Field(description="One of ten studies like this ends before.", examples=[_AT])
    expected: datetime = Field(description="Half of them do.", examples=[_AT])
    latest: datetime = Field(description="One of ten ends after.", examples=[_AT])


class ScoreView(_View):
    """How well one number was foretold."""

    expected: float = Field(description="What was expected.", examples=[1.1])
    happened: float = Field(description="What came.", examples=[1.0])
    error: float | None = Field(description="By how much too high, as a share of that; null where that is 0.", examples=[0.1])
    is_inside: bool = Field(description="Whether it lies within the band.", examples=[True])

    @classmethod
    def of(cls, score: Score, factor: float = 1.0) -> Self:
        return cls(
            expected=score.expected * factor, happened=score.happened * factor, error=score.error, is_inside=score.is_inside
        )


class ScoresView(_View):
    """How well a forecast foretold what came; null for what was not foretold."""

    seconds: ScoreView | None = Field(description="Of the time it ran.")
    gpu_hours: ScoreView | None = Field(description="Of the hours of GPU.")
    cost: ScoreView | None = Field(description="Of the cost.")
    trials: ScoreView | None = Field(description="Of the number of trials.")
    reports: ScoreView | None = Field(description="Of the number of reports.")
    bytes: ScoreView | None = Field(description="Of the disk that its exported models take.")


class PredictionView(_View):
    """A study's end as it was foretold at a moment. All bands are of the whole study."""

    at: datetime = Field(description="When it was foretold.", examples=[_AT])
    ended_trials: int = Field(description="Trials that had ended by then.", examples=[4])
    slots: int = Field(description="Trials that ran side by side, as they would go on to.", examples=[2])
    courses: int = Field(description="Simulated courses of the study.", examples=[24])
    ends_at: EndView = Field(description="When it ends.")
    seconds: BandView = Field(description="How long it runs in all, pauses aside.", examples=[_BAND])
    gpu_hours: BandView = Field(description="Hours of GPU.", examples=[_BAND])
    cost: BandView | None = Field(description="What these cost; null where the budget names no price.", examples=[_BAND])
    trials: BandView = Field(description="Trials it starts, the final's runs aside.", examples=[_BAND])
    reports: BandView = Field(description="Reports these give.", examples=[_BAND])
    bytes: BandView | None = Field(
        description="Disk that the exported models take which it keeps; null before the first one.", examples=[_BAND]
    )
    notes: Sequence[str] = Field(description="What it leaves out.", examples=[["The study is paused."]])

    @classmethod
    def of(cls, forecast: Forecast, budget: Budget) -> Self:
        seconds, gpu = forecast.seconds, forecast.gpu_seconds
        return cls(
            at=forecast.at, ended_trials=forecast.ended, slots=forecast.slots, courses=forecast.courses,
            ends_at=EndView(
                earliest=forecast.ends_at(seconds.low), expected=forecast.ends_at(seconds.expected),
                latest=forecast.ends_at(seconds.high),
            ),
            seconds=BandView.of(seconds), gpu_hours=BandView.of(gpu.times(1 / 3600)),
            cost=BandView.of(gpu.times(budget.cost.per_gpu_hour / 3600)) if budget.cost else None,
            trials=BandView.of(forecast.trials), reports=BandView.of(forecast.reports),
            bytes=forecast.bytes and BandView.of(forecast.bytes), notes=list(forecast.notes),
        )  # fmt: skip


class PastPredictionView(_View):
    """A forecast that was kept while the study ran."""

    prediction: PredictionView = Field(description="The forecast.")
    scores: ScoresView | None = Field(
        description="How well it foretold what came; null unless the study is completed, by the budget that it had then."
    )


class ForecastView(_View):
    """How a study is expected to end, and what was foretold of it before."""

    study_id: str = Field(description="The study.", examples=[_STUDY])
    state: StudyState = Field(description="Where the study is.", examples=["running"])
    coverage: float = Field(description="How likely each band is to hold what comes.", examples=[SHARE])
    now: PredictionView | None = Field(description="From how it stands now; null once it is at its end.")
    past: Sequence[PastPredictionView] = Field(
        description="Forecasts kept after the 1st, 2nd, 4th, 8th ... trial that ended, oldest first.", examples=[[]]
    )

    @classmethod
    def of(
        cls, study: Study, now: Forecast | None, past: Sequence[Forecast], happened: Course | None, happened_bytes: float | None
    ) -> Self:
        """`happened` is what came of the study, where that can be compared with what was foretold."""
        budget = study.definition.budget
        return cls(
            study_id=study.id, state=study.state, coverage=SHARE, now=now and PredictionView.of(now, budget),
            past=[
                PastPredictionView(
                    prediction=PredictionView.of(one, budget),
                    scores=_scores(one, happened, happened_bytes, budget) if happened and _is_of_budget(study, one) else None,
                )
                for one in past
            ],
        )  # fmt: skip


def _limits(study: Study, table: SpendingTable, now: datetime) -> LimitsView:
    budget, total = study.definition.budget, table.total()
    searched = table.total(lambda part: not part.is_final)
    cost = budget.cost_of(total.gpu_seconds)
    return LimitsView(
        trials=SpentView(spent=searched.trials, limit=budget.trials),
        epochs=SpentView(spent=searched.reports, limit=budget.epochs),
        wall_clock_seconds=SpentView(spent=study.active_seconds(now), limit=budget.wall_clock),
        gpu_hours=SpentView(spent=total.gpu_seconds / 3600, limit=budget.gpu_hours),
        cost=None if cost is None or budget.cost is None else SpentView(spent=cost, limit=budget.cost.limit),
    )


def _reserved(study: Study, live: Sequence[Trial], mean_seconds: float) -> ReservedView:
    seconds = reserved_seconds(live, mean_seconds)
    gpu_seconds = seconds * study.resources.gpus
    return ReservedView(
        reports=sum(max(0, trial.until - trial.reports) for trial in live),
        seconds=seconds,
        gpu_hours=gpu_seconds / 3600,
        cost=study.definition.budget.cost_of(gpu_seconds),
    )


def _is_of_budget(study: Study, forecast: Forecast) -> bool:
    """Whether the budget is still the one that the forecast was made with."""
    return study.amended_at is None or forecast.at >= study.amended_at


def _of(trial: Trial) -> Spent:
    return Spent(1, trial.own_reports, trial.seconds, trial.lost_seconds, trial.gpu_seconds)


def _scores(forecast: Forecast, happened: Course, happened_bytes: float | None, budget: Budget) -> ScoresView:
    found = scored(forecast, happened, happened_bytes)
    gpu, price = found["gpu_seconds"], budget.cost_of(1.0)
    return ScoresView(
        seconds=ScoreView.of(found["seconds"]),
        gpu_hours=ScoreView.of(gpu, 1 / 3600),
        cost=None if price is None else ScoreView.of(gpu, price),
        trials=ScoreView.of(found["trials"]),
        reports=ScoreView.of(found["reports"]),
        bytes=ScoreView.of(found["bytes"]) if "bytes" in found else None,
    )
