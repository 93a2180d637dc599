"""What the API answers about a study's first and last steps: a preview, a refinement, a fork, a final. No FastAPI here."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from search_spaces import Parameter, Value
from service.api.decision_views import WarmStartView
from service.domain.preview import Preview
from service.domain.refinement import Refinement
from service.domain.study import WarmStart
from service.domain.trial import TrialState

_PARAMETERS = {"learning_rate": 3.2e-05, "batch_size": 32}
_RANGE = {"kind": "float", "low": 1e-5, "high": 1e-4, "log": True}


class _View(BaseModel):
    """Clients ignore keys they do not know, so that a newer service may answer an older client."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class SpreadView(_View):
    """Some runs' values of one metric."""

    mean: float = Field(description="Their mean.", examples=[0.921])
    deviation: float | None = Field(description="Their sample standard deviation; null for one value.", examples=[0.004])
    n: int = Field(description="How many there are.", examples=[3])


class FinalRunView(_View):
    """One run of a configuration under a seed of its own: a whole trial."""

    trial: int = Field(description="The run's number among the study's trials.", examples=[31])
    seed: int | None = Field(description="The trainer's seed.", examples=[1674317069])
    state: TrialState = Field(description="Where it is; only completed runs count.", examples=["completed"])
    value: float | None = Field(description="The objective at its best report so far.", examples=[0.924])
    tests: Mapping[str, float] = Field(description="What the test rows said at its end.", examples=[{"test/accuracy": 0.918}])
    seconds: float = Field(description="Seconds it has trained.", examples=[41.2])
    gpu_seconds: float = Field(description="Seconds of GPU it has used.", examples=[0.0])


class FinalistView(_View):
    """One of the best configurations of the search, trained again."""

    trial: int = Field(description="The search's trial.", examples=[7])
    parameters: Mapping[str, Value] = Field(description="What it tries.", examples=[_PARAMETERS])
    objective: SpreadView | None = Field(description="The objective at each finished run's best report; null without a run.")
    tests: Mapping[str, SpreadView] = Field(
        description="What the test rows said of the finished runs, by metric.",
        examples=[{"test/accuracy": {"mean": 0.915, "deviation": 0.005, "n": 3}}],
    )
    failed: int = Field(description="Runs that failed: one with a failed run does not win while another has none.", examples=[0])
    seconds: float | None = Field(description="Mean seconds of training a finished run.", examples=[41.2])
    gpu_seconds: float | None = Field(description="Mean seconds of GPU of a finished run.", examples=[0.0])
    bytes: int | None = Field(description="Size of the exported model, where it is still there.", examples=[91350000])
    p_value: float | None = Field(
        description="How likely a difference from the first as large as this one is without any, after Holm's correction; null "
        "for the first itself, before the study's end, and for too few runs.",
        examples=[0.31],
    )
    runs: Sequence[FinalRunView] = Field(description="Its runs, by number.")


class FinalView(_View):
    """The best configurations, trained again under new seeds: which one wins when luck does not choose."""

    study_id: str = Field(description="The study.", examples=["intents-abc123"])
    metric: str = Field(description="The objective.", examples=["validation/accuracy"])
    direction: Literal["maximize", "minimize"] = Field(description="Whether more or less of it is better.", examples=["maximize"])
    top: int = Field(description="Configurations that the definition asks for.", examples=[3])
    seeds: int = Field(description="Runs of each.", examples=[3])
    finished: int = Field(description="Runs that have finished.", examples=[9])
    finalists: Sequence[FinalistView] = Field(description="The configurations, the best mean first.")
    method: str = Field(description="How the first is compared with the others.", examples=["Welch's t-test, two-sided"])
    alpha: float = Field(description="The p-value below which a difference is taken for real.", examples=[0.05])
    winner: int | None = Field(description="The search's trial that wins; null before the study's end.", examples=[7])
    champion: int | None = Field(description="The winner's best run: the study's best trial from then on.", examples=[31])
    verdict: str = Field(description="All of it in a sentence or two.", examples=["Trial 7 wins with validation/accuracy 0.921."])


class SpaceChangeView(_View):
    """What becomes of one parameter."""

    parameter: str = Field(description="The parameter.", examples=["learning_rate"])
    action: Literal["narrowed", "extended", "dropped", "fixed", "kept"] = Field(
        description="`dropped` are choices of it; `fixed` makes it a constant.", examples=["narrowed"]
    )
    before: Parameter = Field(description="What it is in the study.", examples=[{**_RANGE, "high": 1e-2}])
    after: Parameter = Field(description="What is proposed.", examples=[_RANGE])
    sentence: str = Field(description="Why.", examples=["`dropout` is fixed at 0.1, as in the best trial."])


class RefinementView(_View):
    """A narrower space, from what the study has found."""

    study_id: str = Field(description="The study.", examples=["intents-abc123"])
    trials: int = Field(description="Trials that were compared.", examples=[31])
    report: int = Field(description="They are compared by their best objective up to this report.", examples=[3])
    good: Sequence[int] = Field(description="The best of them, which the space is drawn around, best first.", examples=[[7, 3]])
    space: Mapping[str, Parameter] = Field(description="The whole space that is proposed.", examples=[{"learning_rate": _RANGE}])
    changes: Sequence[SpaceChangeView] = Field(description="Every parameter, and why it changes or does not.")

    @classmethod
    def of(cls, study_id: str, refinement: Refinement) -> "RefinementView":
        return cls(
            study_id=study_id, trials=refinement.trials, report=refinement.report, good=refinement.good, space=refinement.space,
            changes=[
                SpaceChangeView(
                    parameter=one.parameter, action=one.action, before=one.before, after=one.after, sentence=one.sentence
                )
                for one in refinement.changes
            ],
        )  # fmt: skip


class ForkRequest(BaseModel):
    """What a new study changes of an old one."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    refine: bool = Field(default=False, description="Search the space that `refine` proposes of the old study.", examples=[True])
    changes: dict[str, JsonValue] = Field(
        default={}, description="A JSON merge patch (RFC 7396) of the old study's definition: what it names is replaced, null "
        "takes out, and objects are merged key by key. It comes after what `refine` changes.",
        examples=[{"budget": {"trials": 50}}],
    )  # fmt: skip


class PlannedBracketView(_View):
    """A ladder of rungs."""

    index: int = Field(description="Which one it is, in the order in which they begin.", examples=[0])
    rungs: Sequence[int] = Field(description="The reports at which its trials are compared.", examples=[[1, 3, 9]])
    sizes: Sequence[int] = Field(
        description="How many trials come to each: as planned, or of an asynchronous ladder as simulated.", examples=[[9, 3, 1]]
    )


class PlannedTrialView(_View):
    """One of the first configurations."""

    parameters: Mapping[str, Value] = Field(description="What is tried.", examples=[_PARAMETERS])
    why: str = Field(description="Why it is proposed.", examples=["Drawn at random."])


class ReportTimeView(_View):
    """How long a report takes."""

    seconds: float | None = Field(description="The median of what earlier trials took; null without any.", examples=[20.4])
    trials: int = Field(description="How many trials it rests on.", examples=[57])
    sentence: str = Field(description="Which they are.", examples=["57 earlier trials with this trainer, model and data."])


class PreviewView(_View):
    """What a study would do, foreseen without training anything or storing it."""

    strategy: Mapping[str, Any] = Field(description="The strategy that would lead it.", examples=[{"kind": "random"}])
    reason: str | None = Field(description="Why that one, where the definition left it open.", examples=[None])
    brackets: Sequence[PlannedBracketView] = Field(description="Hyperband's brackets, at most 20.")
    configurations: Sequence[PlannedTrialView] = Field(
        description="The first that would start while no trial has reported, at most ten: what follows depends on results."
    )
    space_size: int | None = Field(description="Configurations in the space; null where they cannot be counted.", examples=[None])
    grid_size: int | None = Field(description="Configurations of a grid; null where there is none.", examples=[54])
    trials: int | None = Field(description="Trials it comes to, nothing failing; null where that cannot be said.", examples=[30])
    reports: int | None = Field(description="Their reports together.", examples=[112])
    final_runs: int | None = Field(description="Runs of the final, which come on top.", examples=[9])
    report_time: ReportTimeView = Field(description="How long one of them takes, by what earlier trials took.")
    seconds: float | None = Field(
        description="How long it trains, with `max_concurrent_trials` side by side; the start of workers and what is saved come "
        "on top. Null where that cannot be said.",
        examples=[1180.0],
    )
    warm_start: WarmStartView | None = Field(description="What it would know from its start; null without `warm_start`.")
    notes: Sequence[str] = Field(description="What these numbers leave out.", examples=[[]])

    @classmethod
    def of(cls, preview: Preview, report_time: ReportTimeView, warm_start: WarmStart | None) -> "PreviewView":
        return cls(
            strategy=preview.strategy, reason=preview.reason, space_size=preview.space_size, grid_size=preview.grid_size,
            brackets=[PlannedBracketView(index=one.index, rungs=one.rungs, sizes=one.sizes) for one in preview.brackets],
            configurations=[PlannedTrialView(parameters=one.parameters, why=one.why) for one in preview.configurations],
            trials=preview.trials, reports=preview.reports, final_runs=preview.final_runs, seconds=preview.seconds,
            report_time=report_time, notes=preview.notes,
            warm_start=None if warm_start is None else WarmStartView.of(warm_start),
        )  # fmt: skip
