"""What the API answers about what a study has learned, as the server writes it and the Python client reads it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from service.domain.study_analysis import StudyAnalysis
from service.domain.trial import TrialState

_VALUES = {"learning_rate": 3.2e-05, "schedule": '"cosine"'}
_PLACE = "A number, or of a parameter with choices the JSON text of one."


class _View(BaseModel):
    """Clients ignore keys they do not know, so that a newer service may answer an older client."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ParameterImportanceView(_View):
    """How much one parameter matters."""

    parameter: str = Field(description="The parameter.", examples=["learning_rate"])
    importance: float | None = Field(
        description="The share of the objective's variance that it explains alone; null while there are too few trials.",
        examples=[0.72],
    )
    note: str | None = Field(
        description="What to know about it: that it never varied, or that not all trials have it.",
        examples=["It has the same value in all 31 trials that have it."],
    )


class ImportanceView(_View):
    """How much each parameter matters: fANOVA (Hutter et al. 2014), main effects alone, normalised to sum to 1."""

    parameters: Sequence[ParameterImportanceView] = Field(description="All parameters, the most important first.")
    trials: int = Field(description="How many trials it rests on.", examples=[31])
    report: int | None = Field(
        description="The trials are compared by the best objective up to this report, which at least half of all have reached.",
        examples=[3],
    )
    note: str | None = Field(description="Why there is no importance, where there is none.", examples=[None])


class HistoryPointView(_View):
    """A trial that ended with a report that keeps the outcomes, and the best one so far."""

    trial: int = Field(description="The trial.", examples=[7])
    objective: float = Field(description="The objective at its best report.", examples=[0.913])
    incumbent: float = Field(description="The best objective of all trials that had ended.", examples=[0.925])
    incumbent_trial: int = Field(description="The trial it is of.", examples=[4])
    ended: int = Field(description="How many such trials had ended, this one included.", examples=[8])
    reports: int = Field(description="Reports that all trials which had ended had given.", examples=[21])
    seconds: float = Field(description="Seconds since the study first ran.", examples=[310.5])


class CurveView(_View):
    """A trial's learning curve."""

    trial: int = Field(description="The trial.", examples=[7])
    state: TrialState = Field(description="Where it is.", examples=["completed"])
    reports: Sequence[int] = Field(description="Numbers of its reports; of very many an even spread.", examples=[[1, 2, 3]])
    objectives: Sequence[float | None] = Field(
        description="The objective at each; null where it is no finite number.", examples=[[0.81, 0.9, 0.913]]
    )


class LearningCurvesView(_View):
    """Curves of the 50 best trials, and of an even spread, by rank, of 50 others."""

    total: int = Field(description="How many trials have a curve.", examples=[120])
    curves: Sequence[CurveView] = Field(description="The curves, the best trial's first.")


class AxisView(_View):
    """What a parameter may be."""

    parameter: str = Field(description="The parameter.", examples=["learning_rate"])
    kind: str = Field(description="Its kind in the search space.", examples=["float"])
    low: float | None = Field(description="Its smallest value; null of one with choices.", examples=[1e-6])
    high: float | None = Field(description="Its largest value; null of one with choices.", examples=[1e-3])
    log: bool = Field(description="Whether it is drawn from the logarithm of the range.", examples=[True])
    choices: Sequence[str] = Field(description="Its choices, each as JSON text; none of a number.", examples=[[]])


class LineView(_View):
    """A trial across all axes."""

    trial: int = Field(description="The trial.", examples=[7])
    objective: float = Field(description="The objective at its best report.", examples=[0.913])
    values: Mapping[str, float | str] = Field(
        description=f"Where it crosses each axis; a parameter that it does not have is left out. {_PLACE}", examples=[_VALUES]
    )


class ParallelCoordinatesView(_View):
    """The 100 best trials, and an even spread, by rank, of 400 others, across all parameters."""

    total: int = Field(description="How many trials have a value.", examples=[120])
    axes: Sequence[AxisView] = Field(description="The parameters, in the order of the search space.")
    lines: Sequence[LineView] = Field(description="The trials, the best first.")


class SlicePointView(_View):
    """A trial's value of one parameter, and its objective."""

    trial: int = Field(description="The trial.", examples=[7])
    value: float | str = Field(description=_PLACE, examples=[3.2e-05])
    objective: float = Field(description="The objective at its best report.", examples=[0.913])
    reports: int = Field(description="How many reports it has given.", examples=[3])


class SliceView(_View):
    """One parameter against the objective."""

    parameter: str = Field(description="The parameter.", examples=["learning_rate"])
    points: Sequence[SlicePointView] = Field(
        description="The trials that have it, the best first: of very many the best, and an even spread of the others."
    )


class FigureLinks(_View):
    """The same as pictures (PNG). All are paths on this service."""

    importance: str = Field(
        description="A bar for each parameter.", examples=["/v1/studies/intents-abc123/analysis/importance.png"]
    )
    history: str = Field(description="The best so far.", examples=["/v1/studies/intents-abc123/analysis/history.png"])
    learning_curves: str = Field(
        description="The learning curves.", examples=["/v1/studies/intents-abc123/analysis/learning_curves.png"]
    )
    parallel_coordinates: str = Field(
        description="The trials across all parameters.", examples=["/v1/studies/intents-abc123/analysis/parallel_coordinates.png"]
    )
    slices: str = Field(
        description="The objective against each parameter.", examples=["/v1/studies/intents-abc123/analysis/slices.png"]
    )


class StudyAnalysisView(_View):
    """What a study's trials so far tell about its search."""

    study_id: str = Field(description="The study.", examples=["intents-abc123"])
    metric: str = Field(description="What it optimises.", examples=["validation/accuracy"])
    direction: Literal["maximize", "minimize"] = Field(description="Whether more or less of it is better.", examples=["maximize"])
    trials: int = Field(description="How many trials it has.", examples=[124])
    scored: int = Field(description="How many have reported a finite objective, however they ended.", examples=[120])
    excluded: Mapping[TrialState, int] = Field(
        description="Trials that ended without a value, by state: nothing below says anything about them.",
        examples=[{"failed": 3, "infeasible": 1}],
    )
    importance: ImportanceView = Field(description="How much each parameter matters.")
    history: Sequence[HistoryPointView] = Field(
        description="Trials with a report that keeps the outcomes, in the order in which they ended; of more than 1,000 an even "
        "spread, and all new incumbents."
    )
    learning_curves: LearningCurvesView = Field(description="The objective report by report.")
    parallel_coordinates: ParallelCoordinatesView = Field(description="Trials across all parameters.")
    slices: Sequence[SliceView] = Field(description="The objective against each parameter.")
    figures: FigureLinks = Field(description="Where the pictures are.")

    @classmethod
    def of(cls, analysis: StudyAnalysis) -> "StudyAnalysisView":
        figures = {name: f"/v1/studies/{analysis.study_id}/analysis/{name}.png" for name in FigureLinks.model_fields}
        return cls.model_validate({**asdict(analysis), "figures": figures})
