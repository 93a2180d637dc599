"""The study definition: the user's file, POSTed as it is. Strict: what is not understood is refused, never ignored."""

import json
from collections.abc import Iterator, Mapping
from itertools import combinations, product
from math import isqrt
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from search_spaces import Parameter, Scalar, grid_size, grid_values
from service.domain.budget import Budget
from service.domain.errors import InvalidDefinition, Violation
from service.domain.pointers import Location, pointer, violations_of
from service.domain.presets import expand_preset
from service.domain.requirements import Requirements
from service.domain.searched import add_searched_keys, configured, extremes, parameter_names
from service.domain.strategy import GridStrategy, HyperbandStrategy, Strategy
from trainers.configs import TrainerConfig, metrics_of


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Objective(_Strict):
    """What makes one trial better than another."""

    metric: str = Field(description="One of the metrics the trainer reports.", examples=["validation/accuracy"])
    direction: Literal["maximize", "minimize"] = Field(description="Whether more or less of it is better.", examples=["maximize"])

    def better(self, one: float, other: float) -> bool:
        """Whether `one` is strictly better than `other`."""
        return one > other if self.direction == "maximize" else one < other

    def sort_key(self, value: float) -> float:
        """A number that is smaller for better values."""
        return -value if self.direction == "maximize" else value

    def reaches(self, value: float, target: float) -> bool:
        """Whether `value` is at least as good as `target`."""
        return value >= target if self.direction == "maximize" else value <= target


class Resources(_Strict):
    """What each trial holds while it runs, and how many run at once."""

    cpus_per_trial: int = Field(default=1, ge=1, le=256, description="CPU threads of one trial.", examples=[1])
    gpus_per_trial: float = Field(
        default=0, ge=0, le=64,
        description="GPUs that a trial holds: a share of one, or whole ones, with a process each; 0 trains on the CPU.",
        examples=[0], json_schema_extra={"anyOf": [{"maximum": 1}, {"multipleOf": 1}]},
    )  # fmt: skip
    max_concurrent_trials: int = Field(default=1, ge=1, le=1000, description="Most trials of this study at once.", examples=[2])

    @field_validator("gpus_per_trial")
    @classmethod
    def _several_are_whole(cls, value: float) -> float:
        if value > 1 and not value.is_integer():
            raise ValueError(f"a trial holds a share of one GPU, or whole ones: set {int(value)} or {int(value) + 1}")
        return value


class Checkpoints(_Strict):
    """What of the trials' weights outlives them."""

    keep: int = Field(default=5, ge=1, le=1000, description="Number of best trials whose exported model is kept.", examples=[5])


class StudyDefinition(_Strict):
    """One search: what to train, what varies, what is better, how to search and what it may spend."""

    name: str = Field(
        min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$",
        description="A name for people; need not be unique.", examples=["banking-intents"],
    )  # fmt: skip
    trainer: TrainerConfig = Field(description="The trainer's configuration; what `space` names is set by each trial.")
    space: dict[str, Parameter] = Field(
        min_length=1, max_length=100,
        description="What varies: a key of the trainer's configuration (nested keys with dots, as in `lora.rank`) and its "
        "parameter. A group of keys that the trainer does not set starts from its defaults.",
        examples=[{"learning_rate": {"kind": "float", "low": 1e-6, "high": 1e-3, "log": True}}],
    )  # fmt: skip
    objective: Objective = Field(description="What the search optimises.")
    strategy: Strategy = Field(description="How the search proposes and stops trials.")
    budget: Budget = Field(default=Budget(), description="What the study may spend.")
    resources: Resources = Field(default=Resources(), description="What a trial holds and how many run at once.")
    checkpoints: Checkpoints = Field(default=Checkpoints(), description="Which exported models are kept.")
    requirements: Requirements = Field(default=Requirements(), description="What base models have to be like.")
    seed: int = Field(default=0, ge=0, lt=2**31, description="Seed of the search itself.", examples=[0])

    def configured(self, parameters: Mapping[str, Scalar]) -> TrainerConfig:
        """The trainer's configuration of a trial with these parameters."""
        return configured(self.trainer, parameters)

    @property
    def max_reports(self) -> int:
        """Reports of a trial that runs to its end when `epochs` is not searched."""
        return self.trainer.reports

    def reports_of(self, parameters: Mapping[str, Scalar]) -> int:
        """Reports of a trial with these parameters that runs to its end."""
        if "epochs" not in parameters or self.trainer.max_steps is not None:
            return self.max_reports
        epochs = parameters["epochs"]
        assert isinstance(epochs, int)  # noqa: S101 - validated at POST
        return epochs


def parse_definition(document: Any) -> StudyDefinition:
    """A study definition from decoded JSON or YAML; raises `InvalidDefinition` with a JSON pointer for every violation."""
    try:
        text = json.dumps(document, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidDefinition([Violation("", f"the document holds a value that JSON cannot hold ({error})")]) from error
    except RecursionError as error:
        raise InvalidDefinition([Violation("", "the document is nested too deeply")]) from error
    expanded = expand_preset(json.loads(text))
    try:
        return _parsed(expanded.document)
    except InvalidDefinition as refused:
        raise InvalidDefinition(expanded.as_sent(refused.violations)) from refused


def _parsed(whole: Any) -> StudyDefinition:
    """The definition that a document without a preset holds; searched keys are added to its trainer."""
    origins = add_searched_keys(whole)
    try:
        study = StudyDefinition.model_validate_json(json.dumps(whole))
    except ValidationError as error:
        raise InvalidDefinition(violations_of(whole, origins, error.errors(include_url=False))) from error
    violations = [*_space_violations(study), *_objective_violations(study), *_strategy_violations(study)]
    if violations:
        raise InvalidDefinition(violations)
    return study


def _space_violations(study: StudyDefinition) -> list[Violation]:
    """Whether the trainer has each parameter, takes every value it can get, and takes them together."""
    found = []
    for name, parameter in study.space.items():
        key = name.partition(".")[0]
        if key in _FIXED:
            found.append(Violation(pointer(["space", name]), _FIXED[key]))
        elif name == "epochs" and study.trainer.max_steps is not None:
            found.append(Violation("/space/epochs", "says nothing beside the trainer's `max_steps`: take it out of the space"))
        else:
            found += _value_violations(study, name, parameter)
    return found or _pair_violations(study)


def _value_violations(study: StudyDefinition, name: str, parameter: Parameter) -> Iterator[Violation]:
    metric = study.objective.metric
    is_reported = metric in metrics_of(study.trainer)
    for at, value in extremes(parameter):
        try:
            reported = metrics_of(_configured(study, {name: value}))
        except (KeyError, TypeError):
            names = ", ".join(f"`{key}`" for key in sorted(parameter_names(type(study.trainer))) if key not in _FIXED)
            yield Violation(pointer(["space", name]), f"trainer `{study.trainer.kind}` has no parameter `{name}`: it has {names}")
            return
        except ValidationError as error:
            yield Violation(pointer(["space", name, *at]), f"`{name}` cannot be {value!r}: {_reason(error)}")
        else:
            if is_reported and metric not in reported:
                detail = f"`{name}` cannot be {value!r}: the trainer then does not report `{metric}`, the objective"
                yield Violation(pointer(["space", name, *at]), detail)


def _pair_violations(study: StudyDefinition) -> list[Violation]:
    """Values that the trainer takes alone, but not together with another parameter's: the first such pair of two parameters.

    What a configuration asks of its keys together, it asks of two at a time. Of very many values a spread is looked at.
    """
    values = {name: extremes(parameter) for name, parameter in study.space.items()}
    pairs = list(combinations(values, 2))
    if sum(len(values[one]) * len(values[other]) for one, other in pairs) > _MOST_PAIRS:
        most = max(2, isqrt(_MOST_PAIRS // len(pairs)))
        values = {name: _spread(found, most) for name, found in values.items()}
    violations = []
    for one, other in pairs:
        for (_, before), (at, value) in product(values[one], values[other]):
            try:
                _configured(study, {one: before, other: value})
            except ValidationError as error:
                detail = f"`{other}` cannot be {value!r} where `{one}` is {before!r}: {_reason(error)}"
                violations.append(Violation(pointer(["space", other, *at]), detail))
                break
    return violations


def _configured(study: StudyDefinition, parameters: Mapping[str, Scalar]) -> TrainerConfig:
    """The configuration with these values, among the trainer's own or, where it does not take them there, among searched ones.

    What the trainer itself says of a searched key, no trial ever has. Raises as `StudyDefinition.configured` does.
    """
    try:
        return study.configured(parameters)
    except ValidationError as error:
        searched = {name: extremes(parameter)[0][1] for name, parameter in study.space.items()}
        try:
            return study.configured({**searched, **parameters})
        except (KeyError, TypeError, ValidationError):
            raise error from None


def _spread(values: list[tuple[Location, Scalar]], most: int) -> list[tuple[Location, Scalar]]:
    """So many of the values at most, the first and the last among them."""
    if len(values) <= most:
        return values
    return [values[at * (len(values) - 1) // (most - 1)] for at in range(most)]


def _reason(error: ValidationError) -> str:
    return str(error.errors(include_url=False)[0]["msg"]).removeprefix("Value error, ")


def _objective_violations(study: StudyDefinition) -> list[Violation]:
    metrics = metrics_of(study.trainer)
    if study.objective.metric in metrics:
        return []
    listed = ", ".join(f"`{metric}`" for metric in sorted(metrics))
    return [Violation("/objective/metric", f"trainer `{study.trainer.kind}` reports {listed}: name one of them")]


def _strategy_violations(study: StudyDefinition) -> list[Violation]:
    match study.strategy:
        case GridStrategy():
            return _grid_violations(study)
        case HyperbandStrategy():
            return _hyperband_violations(study)
        case _:
            if study.budget.is_bounded:
                return []
            detail = "would never end: set at least one of `trials`, `epochs`, `wall_clock`, `gpu_hours`"
            return [Violation("/budget", detail)]


def _grid_violations(study: StudyDefinition) -> list[Violation]:
    continuous = [name for name, parameter in study.space.items() if grid_values(parameter) is None]
    if continuous:
        return [
            Violation(pointer(["space", name]), "a grid needs values: add `grid: [...]`, or use `choices`") for name in continuous
        ]
    size = grid_size(study.space)
    if study.budget.trials is not None and size > study.budget.trials:
        detail = f"the grid has {size} configurations: raise `trials` to {size}, or leave it out"
        return [Violation("/budget/trials", detail)]
    if size > MAX_GRID:
        return [Violation("/space", f"the grid has {size} configurations, more than {MAX_GRID}: make it coarser")]
    return []


def _hyperband_violations(study: StudyDefinition) -> list[Violation]:
    assert isinstance(study.strategy, HyperbandStrategy)  # noqa: S101 - narrowed by the caller
    found = []
    if "epochs" in study.space:
        detail = "hyperband decides how long a trial runs: take `epochs` out of the space"
        found.append(Violation("/space/epochs", detail))
    if study.strategy.min_epochs > study.max_reports:
        detail = f"is above the {study.max_reports} reports of a whole trial: lower it"
        found.append(Violation("/strategy/min_epochs", detail))
    if study.strategy.mode == "async" and not study.budget.is_bounded:
        detail = "would never end: set at least one of `trials`, `epochs`, `wall_clock`, `gpu_hours`"
        found.append(Violation("/budget", detail))
    return found


MAX_GRID = 100_000
_MOST_PAIRS = 20_000
"""Pairs of values that are looked at: a second's work."""
_ALIKE = "all trials of a study report alike: set it in `trainer` alone"
_FIXED = {
    "kind": "the kind of trainer cannot vary: make one study of each kind",
    "report_every": _ALIKE,
    "max_steps": _ALIKE,
}
"""Keys of the trainer that no space may name, and why."""
