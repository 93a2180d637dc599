"""Keys of a trainer's configuration, as a search space names them: nested ones with dots."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from search_spaces import FloatParameter, IntParameter, Parameter, Scalar
from service.domain.pointers import Location
from trainers.configs import CONFIGS, TrainerConfig


def add_searched_keys(document: Any) -> dict[Location, Location]:
    """A trainer key that `space` sets need not stand in `trainer` too: its first value there makes it whole.

    A group that is not there, such as `lora`, is added with it, and has its defaults for the rest. Answers where each value
    and each group that was added came from.
    """
    trainer, space = (document.get("trainer"), document.get("space")) if isinstance(document, dict) else (None, None)
    origins: dict[Location, Location] = {}
    if isinstance(trainer, dict) and isinstance(space, dict):
        config = CONFIGS.get(str(trainer.get("kind")))
        for name, parameter in space.items():
            path = tuple(name.split("."))
            at, value = _first_value(parameter)
            if value is None or not _is_key_of(config, path):
                continue
            for added in _add(trainer, path, value):
                origins["trainer", *added] = ("space", name, *at) if added == path else ("space", name)
    return origins


def configured(trainer: TrainerConfig, parameters: Mapping[str, Scalar]) -> TrainerConfig:
    """The configuration with these values. Raises KeyError or TypeError for no key of it, ValidationError for no value of it."""
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


def parameter_names(config: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every key of a configuration, those of its groups too."""
    for name, field in config.model_fields.items():
        group = _group_of(field.annotation)
        if group is None:
            yield prefix + name
        else:
            yield from parameter_names(group, f"{prefix}{name}.")


def extremes(parameter: Parameter) -> list[tuple[Location, Scalar]]:
    """The values of a parameter that stand for all of them, each with its place in it."""
    if isinstance(parameter, FloatParameter | IntParameter):
        return [(("low",), parameter.low), (("high",), parameter.high)]
    return [(("choices", index), choice) for index, choice in enumerate(parameter.choices)]


def _is_key_of(config: Any, path: Sequence[str]) -> bool:
    for part in path:
        group = _group_of(config)
        if group is None or part not in group.model_fields:
            return False
        config = group.model_fields[part].annotation
    return True


def _group_of(annotation: Any) -> type[BaseModel] | None:
    """The model that a value of this type is, or is where it is given: of `Lora | None` it is `Lora`."""
    candidates = (annotation, *get_args(annotation))
    return next((one for one in candidates if isinstance(one, type) and issubclass(one, BaseModel)), None)


def _first_value(parameter: Any) -> tuple[Location, Any]:
    """The first value that a parameter can take, and where it stands in it."""
    choices, low = (parameter.get("choices"), parameter.get("low")) if isinstance(parameter, Mapping) else (None, None)
    at, value = (("choices", 0), choices[0]) if isinstance(choices, list) and choices else (("low",), low)
    return at, value if isinstance(value, str | int | float) else None


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
