"""The study definition: the user's file, POSTed as it is. Strict: what is not understood is refused, never ignored."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from search_spaces import FloatParameter, IntParameter, Parameter, Scalar, grid_size, grid_values
from service.domain.budget import Budget
from service.domain.errors import InvalidDefinition, Violation
from service.domain.strategy import GridStrategy, HyperbandStrategy, Strategy
from trainers.configs import CONFIGS, METRICS, TrainerConfig

_Location = tuple[str | int, ...]
"""Keys and indices from a document's root to a value in it."""


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
        default=0, ge=0, le=1, description="Share of one GPU that a trial holds; 0 trains on the CPU.", examples=[0]
    )
    max_concurrent_trials: int = Field(default=1, ge=1, le=1000, description="Most trials of this study at once.", examples=[2])


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
        description="What varies: a key of the trainer's configuration (nested keys with dots) and its parameter.",
        examples=[{"learning_rate": {"kind": "float", "low": 1e-6, "high": 1e-3, "log": True}}],
    )  # fmt: skip
    objective: Objective = Field(description="What the search optimises.")
    strategy: Strategy = Field(description="How the search proposes and stops trials.")
    budget: Budget = Field(default=Budget(), description="What the study may spend.")
    resources: Resources = Field(default=Resources(), description="What a trial holds and how many run at once.")
    checkpoints: Checkpoints = Field(default=Checkpoints(), description="Which exported models are kept.")
    seed: int = Field(default=0, ge=0, lt=2**31, description="Seed of the search itself.", examples=[0])

    def configured(self, parameters: Mapping[str, Scalar]) -> TrainerConfig:
        """The trainer's configuration of a trial with these parameters."""
        return _configured(self.trainer, parameters)

    @property
    def max_reports(self) -> int:
        """Reports of a trial that runs to its end when `epochs` is not searched: one an epoch."""
        return self.trainer.epochs

    def reports_of(self, parameters: Mapping[str, Scalar]) -> int:
        """Reports of a trial with these parameters that runs to its end."""
        epochs = parameters.get("epochs", self.trainer.epochs)
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
    whole = json.loads(text)
    origins = _add_searched_keys(whole)
    try:
        study = StudyDefinition.model_validate_json(json.dumps(whole))
    except ValidationError as error:
        raise InvalidDefinition(_violations(whole, origins, error.errors(include_url=False))) from error
    violations = [*_space_violations(study), *_objective_violations(study), *_strategy_violations(study)]
    if violations:
        raise InvalidDefinition(violations)
    return study


def _add_searched_keys(document: Any) -> dict[_Location, _Location]:
    """A trainer key that `space` sets need not stand in `trainer` too: its first value there makes it whole.

    Answers where each value that was added came from.
    """
    trainer, space = (document.get("trainer"), document.get("space")) if isinstance(document, dict) else (None, None)
    origins: dict[_Location, _Location] = {}
    if isinstance(trainer, dict) and isinstance(space, dict):
        for name, parameter in space.items():
            path = name.split(".")
            at, value = _first_value(parameter)
            if _is_key_of(CONFIGS.get(str(trainer.get("kind"))), path) and _set_default(trainer, path, value):
                origins["trainer", *path] = ("space", name, *at)
    return origins


def _is_key_of(config: Any, path: Sequence[str]) -> bool:
    """Whether a model of this class has the nested key."""
    for part in path:
        if not (isinstance(config, type) and issubclass(config, BaseModel) and part in config.model_fields):
            return False
        config = config.model_fields[part].annotation
    return True


def _violations(document: Any, origins: Mapping[_Location, _Location], errors: Sequence[Any]) -> list[Violation]:
    """What pydantic found, said of the document as it was sent, and once for each place in it."""
    found: dict[str, list[str]] = {}
    for item in errors:
        at = _place(document, item["loc"], is_missing=item["type"] == "missing")
        found.setdefault(pointer(origins.get(at, at)), []).append(_message(item))
    emptied = {pointer(_place(document, item["loc"], is_missing=False)) for item in errors if item["type"] == "too_short"}
    # A list whose values are all refused is said to be too short as well.
    blamed = {place for place in emptied if any(other.startswith(place + "/") for other in found)}
    return [Violation(place, "; or: ".join(dict.fromkeys(said))) for place, said in found.items() if place not in blamed]


def _message(item: Any) -> str:
    match item["type"]:
        case "extra_forbidden":
            return "is not a key here: check its spelling or remove it"
        case "missing":
            return "is required: add it"
        case _:
            return str(item["msg"]).removeprefix("Value error, ")


def _place(document: Any, location: Sequence[str | int], *, is_missing: bool) -> _Location:
    """Where in the document a location of pydantic's is: that has the tags of unions in it, which the document does not."""
    found: list[str | int] = []
    current, may_be_tag = document, True
    for position, part in enumerate(location):
        is_last = position == len(location) - 1
        if isinstance(current, Mapping) and part in current:
            # A key may be called as the tag before it.
            if may_be_tag and part == current.get("kind") and not is_last:
                may_be_tag = False
                continue
            current = current[part]
        elif isinstance(current, list) and isinstance(part, int) and part < len(current):
            current = current[part]
        elif not (is_missing and is_last):
            may_be_tag = False
            continue
        found.append(part)
        may_be_tag = True
    return tuple(found)


def pointer(location: Sequence[str | int]) -> str:
    """A JSON pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in location)


def _first_value(parameter: Any) -> tuple[_Location, Any]:
    """The first value that a parameter can take, and where it stands in it."""
    choices, low = (parameter.get("choices"), parameter.get("low")) if isinstance(parameter, Mapping) else (None, None)
    at, value = (("choices", 0), choices[0]) if isinstance(choices, list) and choices else (("low",), low)
    return at, value if isinstance(value, str | int | float) else None


def _set_default(tree: dict[str, Any], path: Sequence[str], value: Any) -> bool:
    """Whether the value was put there: not one that is None or has nowhere to be, nor in the place of another."""
    *parents, last = path
    for part in parents:
        if not isinstance(tree.setdefault(part, {}), dict):
            return False
        tree = tree[part]
    if value is None or last in tree:
        return False
    tree[last] = value
    return True


def _configured(trainer: TrainerConfig, parameters: Mapping[str, Scalar]) -> TrainerConfig:
    tree: dict[str, Any] = trainer.model_dump(mode="json")
    if "data.train" in parameters:
        tree["data"] = trainer.data.without_brought_splits()
    for name, value in parameters.items():
        *parents, last = name.split(".")
        branch = tree
        for part in parents:
            branch = branch[part]
        if last not in branch:
            raise KeyError(name)
        branch[last] = value
    return type(trainer).model_validate_json(json.dumps(tree))


def _space_violations(study: StudyDefinition) -> list[Violation]:
    """Whether the trainer has each parameter and takes every value it can get."""
    found = []
    for name, parameter in study.space.items():
        if name == "kind" or name.split(".")[0] == "kind":
            found.append(Violation(pointer(["space", name]), "the kind of trainer cannot vary: make one study of each kind"))
            continue
        for at, value in _extremes(parameter):
            try:
                _configured(study.trainer, {name: value})
            except (KeyError, TypeError):
                detail = f"trainer `{study.trainer.kind}` has no parameter `{name}`: it has {_parameter_names(study.trainer)}"
                found.append(Violation(pointer(["space", name]), detail))
                break
            except ValidationError as error:
                reason = str(error.errors(include_url=False)[0]["msg"]).removeprefix("Value error, ")
                found.append(Violation(pointer(["space", name, *at]), f"`{name}` cannot be {value!r}: {reason}"))
    return found


def _extremes(parameter: Parameter) -> list[tuple[list[str | int], Scalar]]:
    if isinstance(parameter, FloatParameter | IntParameter):
        return [(["low"], parameter.low), (["high"], parameter.high)]
    return [(["choices", index], choice) for index, choice in enumerate(parameter.choices)]


def _parameter_names(trainer: TrainerConfig) -> str:
    names = [f"`{name}`" for name in type(trainer).model_fields if name not in {"kind", "data"}]
    return ", ".join(sorted(names))


def _objective_violations(study: StudyDefinition) -> list[Violation]:
    metrics = METRICS[study.trainer.kind]
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
    if study.strategy.min_epochs > study.trainer.epochs:
        detail = f"is above the trainer's `epochs` ({study.trainer.epochs}): lower it"
        found.append(Violation("/strategy/min_epochs", detail))
    if study.strategy.mode == "async" and not study.budget.is_bounded:
        detail = "would never end: set at least one of `trials`, `epochs`, `wall_clock`, `gpu_hours`"
        found.append(Violation("/budget", detail))
    return found


MAX_GRID = 100_000
