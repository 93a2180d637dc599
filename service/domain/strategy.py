"""The user's choice of how to search: closed unions of samplers and schedulers, told apart by `kind`."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Choice(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class RandomSampler(_Choice):
    """Draw each configuration independently."""

    kind: Literal["random"] = Field(description="Independent draws.", examples=["random"])


class TpeSampler(_Choice):
    """Tree-structured Parzen estimator (Bergstra et al. 2011), multivariate, with running trials counted as bad ones."""

    kind: Literal["tpe"] = Field(description="Tree-structured Parzen estimator.", examples=["tpe"])
    startup_trials: int = Field(
        default=10, ge=1, le=10_000, description="Random draws before the model is trusted.", examples=[10]
    )


class GpSampler(_Choice):
    """Gaussian process with expected improvement in log space (optuna's GPSampler)."""

    kind: Literal["gp"] = Field(description="Gaussian process.", examples=["gp"])
    startup_trials: int = Field(
        default=10, ge=1, le=10_000, description="Random draws before the model is trusted.", examples=[10]
    )


BayesianSampler = Annotated[TpeSampler | GpSampler, Field(discriminator="kind")]
HyperbandSampler = Annotated[RandomSampler | TpeSampler, Field(discriminator="kind")]


class GridStrategy(_Choice):
    """Try every combination of the space's values once, in an order drawn from the study's seed."""

    kind: Literal["grid"] = Field(description="Every combination once.", examples=["grid"])


class RandomStrategy(_Choice):
    """Draw each configuration independently of all others (Bergstra & Bengio 2012)."""

    kind: Literal["random"] = Field(description="Independent draws.", examples=["random"])


class BayesianStrategy(_Choice):
    """Draw each configuration where a model of the trials so far expects the most."""

    kind: Literal["bayesian"] = Field(description="Draws led by a model of the trials so far.", examples=["bayesian"])
    sampler: BayesianSampler = Field(
        default=TpeSampler(kind="tpe"), description="The model that proposes.", examples=[{"kind": "tpe"}]
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


Strategy = Annotated[GridStrategy | RandomStrategy | BayesianStrategy | HyperbandStrategy, Field(discriminator="kind")]
