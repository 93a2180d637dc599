"""The user's choice of how to search: closed unions of samplers and strategies, told apart by `kind`."""

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Choice(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


_BECAUSE = Field(
    default=None, max_length=1000, exclude_if=lambda because: because is None,
    description="Why that was chosen: what the study's `plan` says.", examples=["Whole trials, as there are few."],
)  # fmt: skip
_STARTUP = Field(default=10, ge=1, le=10_000, description="Random draws before the model is trusted.", examples=[10])


class RandomSampler(_Choice):
    """Draw each configuration independently."""

    kind: Literal["random"] = Field(description="Independent draws.", examples=["random"])


class TpeSampler(_Choice):
    """Tree-structured Parzen estimator (Bergstra et al. 2011), multivariate, with running trials counted as bad ones."""

    kind: Literal["tpe"] = Field(description="Tree-structured Parzen estimator.", examples=["tpe"])
    startup_trials: int = _STARTUP


class BohbSampler(_Choice):
    """A Parzen estimator of the highest rung that enough trials have reached, and random draws (BOHB, Falkner et al. 2018)."""

    kind: Literal["tpe"] = Field(description="Tree-structured Parzen estimator of a rung.", examples=["tpe"])
    startup_trials: int = _STARTUP
    random_share: float = Field(
        default=1 / 3, ge=0, le=1, description="Share of trials that are drawn at random although there is a model.",
        examples=[0.3333],
    )  # fmt: skip


class GpSampler(_Choice):
    """Gaussian process with expected improvement in log space (optuna's GPSampler)."""

    kind: Literal["gp"] = Field(description="Gaussian process.", examples=["gp"])
    startup_trials: int = _STARTUP


class CmaesSampler(_Choice):
    """Covariance matrix adaptation (Hansen 2016), a generation after the other; for parameters whose values have an order."""

    kind: Literal["cmaes"] = Field(description="Covariance matrix adaptation.", examples=["cmaes"])
    population: int | None = Field(
        default=None, ge=4, le=1000, description="Trials of a generation; 4 + 3 log(parameters) when left out.", examples=[8]
    )


class Nsga2Sampler(_Choice):
    """A genetic search for several objectives: parents by front and crowding, crossed and mutated (NSGA-II, Deb et al. 2002)."""

    kind: Literal["nsga2"] = Field(description="Genetic search for several objectives.", examples=["nsga2"])
    population: int = Field(
        default=20, ge=4, le=1000, description="Parents that children are bred from, and random draws before.", examples=[20]
    )


class AutoSampler(_Choice):
    """A Gaussian process for a small numeric space and few trials, else a Parzen estimator."""

    kind: Literal["auto"] = Field(description="What fits the space and the budget.", examples=["auto"])
    chosen: Annotated[TpeSampler | GpSampler | Nsga2Sampler, Field(discriminator="kind")] | None = Field(
        default=None, exclude_if=lambda chosen: chosen is None,
        description="What it stands for, where that is settled: a study whose budget changes goes on with what it began with.",
        examples=[{"kind": "tpe"}],
    )  # fmt: skip
    because: str | None = _BECAUSE


BayesianSampler = Annotated[AutoSampler | TpeSampler | GpSampler | CmaesSampler | Nsga2Sampler, Field(discriminator="kind")]
HyperbandSampler = Annotated[RandomSampler | BohbSampler, Field(discriminator="kind")]
MedianSampler = Annotated[RandomSampler | TpeSampler | GpSampler, Field(discriminator="kind")]


class GridStrategy(_Choice):
    """Try every combination of the space's values once, in an order drawn from the study's seed."""

    kind: Literal["grid"] = Field(description="Every combination once.", examples=["grid"])
    sample: bool = Field(
        default=False,
        description="Of a grid larger than the budget, try a sample drawn from the study's seed; otherwise it is refused.",
        examples=[True],
    )


class RandomStrategy(_Choice):
    """Draw each configuration independently of all others (Bergstra & Bengio 2012)."""

    kind: Literal["random"] = Field(description="Independent draws.", examples=["random"])


class SobolStrategy(_Choice):
    """Draw configurations that fill the space evenly: a scrambled Sobol sequence (Owen 1998)."""

    kind: Literal["sobol"] = Field(description="Draws that fill the space evenly.", examples=["sobol"])


class BayesianStrategy(_Choice):
    """Draw each configuration where a model of the trials so far expects the most."""

    kind: Literal["bayesian"] = Field(description="Draws led by a model of the trials so far.", examples=["bayesian"])
    sampler: BayesianSampler = Field(
        default=AutoSampler(kind="auto"), description="The model that proposes.", examples=[{"kind": "tpe"}]
    )


class HyperbandStrategy(_Choice):
    """Start many trials for few reports, let the best of each rung go on (Li et al. 2018; `async`: ASHA, Li et al. 2020)."""

    kind: Literal["hyperband"] = Field(description="Early stopping at rungs.", examples=["hyperband"])
    mode: Literal["sync", "async"] = Field(
        default="sync",
        description="`sync` waits until a rung is full and takes its best; "
        "`async` promotes a trial as soon as it is in the best part of its rung.",
        examples=["sync"],
    )
    reduction_factor: int = Field(default=3, ge=2, le=10, description="Of this many trials at a rung, one goes on.", examples=[3])
    min_epochs: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="Reports at the lowest rung: epochs, unless the trainer's `report_every` says otherwise. "
        "The last report of a whole trial is the highest.",
        examples=[1],
    )
    sampler: HyperbandSampler = Field(
        default=RandomSampler(kind="random"), description="What proposes new trials.", examples=[{"kind": "tpe"}]
    )


class MedianStrategy(_Choice):
    """Stop a trial whose best value so far is worse than the median of the other trials' (Golovin et al. 2017)."""

    kind: Literal["median"] = Field(description="Early stopping below the median.", examples=["median"])
    grace_reports: int = Field(default=1, ge=1, le=1000, description="Reports before a trial may be stopped.", examples=[2])
    min_trials: int = Field(
        default=5, ge=1, le=1000, description="Other trials that must have come as far before one is stopped.", examples=[5]
    )
    sampler: MedianSampler = Field(
        default=TpeSampler(kind="tpe"), description="What proposes new trials.", examples=[{"kind": "tpe"}]
    )


class PbtStrategy(_Choice):
    """Train a population side by side; its worst members go on as changed copies of its best (Jaderberg et al. 2017)."""

    kind: Literal["pbt"] = Field(description="Population-based training.", examples=["pbt"])
    population: int = Field(default=8, ge=2, le=200, description="Members that train side by side.", examples=[8])
    interval: int = Field(
        default=1, ge=1, le=1000, description="Reports from one comparison of the members to the next.", examples=[1]
    )
    quantile: float = Field(
        default=0.25, gt=0, le=0.5,
        description="Share of the population, one member at least, that ends at a comparison; the same share is copied.",
        examples=[0.25],
    )  # fmt: skip
    resample_probability: float = Field(
        default=0.25, ge=0, le=1, description="Probability that a copy draws a parameter anew, and does not change it a little.",
        examples=[0.25],
    )  # fmt: skip
    factors: tuple[Annotated[float, Field(gt=0, le=100)], ...] = Field(
        default=(0.8, 1.25), min_length=1, max_length=10,
        description="A copy's number is its parent's times one of these; an ordered choice moves to a neighbour.",
        examples=[[0.8, 1.25]],
    )  # fmt: skip

    @property
    def places(self) -> int:
        """How many members end at a comparison, and as many are copied."""
        return self.places_of(self.population)

    def places_of(self, members: int) -> int:
        """How many of so many members end at a comparison."""
        return max(1, math.floor(members * self.quantile + 1e-9))

    def most_trials(self, reports: int) -> int:
        """How many trials it takes where a whole one has so many reports: the population, and all copies."""
        return self.population + self.places * (math.ceil(reports / self.interval) - 1)


_Chosen = Annotated[
    GridStrategy | RandomStrategy | SobolStrategy | BayesianStrategy | HyperbandStrategy | MedianStrategy | PbtStrategy,
    Field(discriminator="kind"),
]


class AutoStrategy(_Choice):
    """What fits the space, the budget and the number of workers; the study says which one and why."""

    kind: Literal["auto"] = Field(description="What fits the space, the budget and the workers.", examples=["auto"])
    chosen: _Chosen | None = Field(
        default=None, exclude_if=lambda chosen: chosen is None,
        description="What it stands for, where that is settled: a study whose budget or number of workers changes goes on with "
        "what it began with.",
        examples=[{"kind": "sobol"}],
    )  # fmt: skip
    because: str | None = _BECAUSE


Strategy = Annotated[
    AutoStrategy
    | GridStrategy
    | RandomStrategy
    | SobolStrategy
    | BayesianStrategy
    | HyperbandStrategy
    | MedianStrategy
    | PbtStrategy,
    Field(discriminator="kind"),
]
