"""Keys of a trainer's configuration, as a search space names them: nested ones with dots."""

import json
from collections.abc import Iterator, Sequence
from typing import Any, assert_never, get_args

from pydantic import BaseModel

from search_spaces import CategoricalParameter, Configuration, ConstantParameter, FloatParameter, IntParameter, Parameter, Value
from service.domain.pointers import Location
from trainers.configs import CONFIGS, TrainerConfig


def add_searched_keys(document: Any) -> dict[Location, Location]:
    """A trainer key that `space` sets need not stand in `trainer` too: its first value there makes it whole.

    A group that is not there, such as `lora`, is added with it, and has its defaults for the rest. A parameter that exists only
    sometimes adds nothing, as a trial without it has what `trainer` says. Answers where each value and each group that was
    added came from.
    """
    trainer, space = (document.get("trainer"), document.get("space")) if isinstance(document, dict) else (None, None)
    origins: dict[Location, Location] = {}
    if isinstance(trainer, dict) and isinstance(space, dict):
        config = CONFIGS.get(str(trainer.get("kind")))
        for name, parameter in space.items():
            path = tuple(name.split("."))
            at, value = _first_value(parameter)
            if value is None or parameter.get("when") is not None or not _is_key_of(config, path):
                continue
            for added in _add(trainer, path, value):
                origins["trainer", *added] = ("space", name, *at) if added == path else ("space", name)
    return origins


def configured(trainer: TrainerConfig, parameters: Configuration) -> TrainerConfig:
    """The configuration with these values. Raises KeyError for no key of it, ValidationError for no value of it.

    A group that is not there, such as `lora`, comes with its first value.
    """
    tree: dict[str, Any] = trainer.model_dump(mode="json")
    if "data.train" in parameters and trainer.data is not None:
        tree["data"] = trainer.data.without_brought_splits()
    for name, value in parameters.items():
        path = name.split(".")
        if not _is_key_of(type(trainer), path):
            raise KeyError(name)
        branch = tree
        for part in path[:-1]:
            if branch.get(part) is None:
                branch[part] = {}
            branch = branch[part]
        branch[path[-1]] = value
    return type(trainer).model_validate_json(json.dumps(tree))


def keys_of(trainer: TrainerConfig) -> list[str]:
    """Every key of this configuration, those of its groups too, and of groups that take any name those that they hold."""
    held = [f"{name}.{key}" for name, group in trainer if isinstance(group, BaseModel) for key in group.model_extra or ()]
    return sorted([*parameter_names(type(trainer)), *held])


def parameter_names(config: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every key that all configurations of a kind have, those of groups too."""
    for name, field in config.model_fields.items():
        group = _group_of(field.annotation)
        if group is None:
            yield prefix + name
        else:
            yield from parameter_names(group, f"{prefix}{name}.")


def setting(trainer: TrainerConfig, name: str) -> Value:
    """What the trainer itself says of a key; raises KeyError for no key of it, or one of a group that it does not set."""
    found: Any = trainer.model_dump(mode="json")
    for part in name.split("."):
        if not isinstance(found, dict):
            raise KeyError(name)
        found = found[part]
    value: Value = found
    return value


def extremes(parameter: Parameter) -> list[tuple[Location, Value]]:
    """The values of a parameter that stand for all of them, each with its place in it."""
    match parameter:
        case FloatParameter() | IntParameter():
            return [(("low",), parameter.low), (("high",), parameter.high)]
        case CategoricalParameter():
            return [(("choices", index), choice) for index, choice in enumerate(parameter.choices)]
        case ConstantParameter():
            return [(("value",), parameter.value)]
        case _:
            assert_never(parameter)


def _is_key_of(config: Any, path: Sequence[str]) -> bool:
    for part in path:
        group = _group_of(config)
        if group is None or (part not in group.model_fields and group.model_config.get("extra") != "allow"):
            return False
        config = group.model_fields[part].annotation if part in group.model_fields else None
    return True


def _group_of(annotation: Any) -> type[BaseModel] | None:
    """The model that a value of this type is, or is where it is given: of `Lora | None` it is `Lora`."""
    candidates = (annotation, *get_args(annotation))
    return next((one for one in candidates if isinstance(one, type) and issubclass(one, BaseModel)), None)


def _first_value(parameter: Any) -> tuple[Location, Any]:
    """The first value that a parameter can take, and where it stands in it."""
    match parameter:
        case {"choices": [first, *_]}:
            return ("choices", 0), first
        case {"value": value}:
            return ("value",), value
        case {"low": low}:
            return ("low",), low
        case _:
            return (), None


def _add(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> Iterator[tuple[str, ...]]:
    """Put the value there, not in the place of another; yields the path of each group and of the key that this adds."""
    for depth, part in enumerate(path[:-1], start=1):
        if tree.get(part) is None:
            tree[part] = {}
            yield path[:depth]
        if not isinstance(tree[part], dict):
            return
        tree = tree[part]
    if path[-1] not in tree:
        tree[path[-1]] = value
        yield path
