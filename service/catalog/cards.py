"""Model cards: a README with YAML in front, written by anybody, so nothing in it is taken for what it should be."""

import math
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from service.domain.base_models import Benchmark, ModelCard

CARD = "README.md"
_FRONT = re.compile(r"\A\s*---[ \t]*\r?\n(?P<front>.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_CUT_FRONT = re.compile(r"\A\s*---[ \t]*\r?\n(?P<front>.*)\Z", re.DOTALL)
_SCALAR = re.compile(r"^[A-Za-z_-]{1,50}:[ \t]+\S.{0,200}$", re.MULTILINE)
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where there is one
_LARGEST_BYTES = 1_000_000
_LARGEST_FRONT = 200_000
_DEEPEST = 30
_LONGEST_TEXT = 200
_MOST = 100
"""Of any list of a card; more is left out."""


def read_card(folder: Path) -> ModelCard | None:
    """The card of a model in a folder, or None when there is none that can be read."""
    try:
        stat = (folder / CARD).stat()
        return _read_card(folder / CARD, stat.st_size, stat.st_mtime_ns)
    except OSError:
        return None


@lru_cache(maxsize=1000)
def _read_card(path: Path, _size: int, _mtime_ns: int) -> ModelCard:
    """Read once while the file stays as it is."""
    with path.open("rb") as file:
        return parse_card(file.read(_LARGEST_BYTES).decode(errors="replace"))


def parse_card(text: str) -> ModelCard:
    """What a card says; what cannot be understood of it counts as not said."""
    text = text[:_LARGEST_BYTES]
    found = _FRONT.match(text) or (_CUT_FRONT.match(text) if len(text) == _LARGEST_BYTES else None)
    said = _front_matter(found["front"]) if found else {}
    return ModelCard(
        licence=_licence(said),
        datasets=_texts(said.get("datasets")),
        languages=_texts(said.get("language")),
        base_models=_texts(said.get("base_model")),
        tags=_texts(said.get("tags")),
        benchmarks=tuple(_benchmarks(said.get("model-index")))[:_MOST],
        characters=len((text[found.end() :] if found else text).strip()),
        updated_at=_moment(said.get("last_modified", said.get("date"))),
    )


def _front_matter(front: str) -> dict[Any, Any]:
    if len(front) > _LARGEST_FRONT:  # of results, mostly; the licence is in a line of its own
        return {key: value for line in _SCALAR.findall(front)[:_MOST] for key, value in _front_matter(line).items()}
    try:
        depth = 0
        for event in yaml.parse(front, _LOADER):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST or isinstance(event, yaml.AliasEvent):  # a few aliases can stand for billions of values
                return {}
        said = yaml.load(front, _LOADER)  # noqa: S506 - a safe one
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError, TypeError):  # also from dates that are none
        return {}
    return said if isinstance(said, dict) else {}


def _licence(said: dict[Any, Any]) -> str | None:
    """The licence's short name; one that has none is called by the name the card gives it."""
    [licence, *_] = _texts(said.get("license")) or (None,)
    [own, *_] = _texts(said.get("license_name")) or (None,)
    return own if licence == "other" and own else licence


def _benchmarks(index: Any) -> Iterator[Benchmark]:
    """The results of a `model-index`: models, each with results, each with a task, a data set and metrics."""
    for model in _dicts(index):
        for result in _dicts(model.get("results")):
            for metric in _dicts(result.get("metrics")):
                value = metric.get("value")
                if isinstance(value, int | float) and not isinstance(value, bool) and _is_finite(value):
                    yield Benchmark(
                        task=_name_of(result.get("task")),
                        dataset=_name_of(result.get("dataset")),
                        metric=_name_of(metric),
                        value=float(value),
                    )


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _name_of(value: Any) -> str:
    if isinstance(value, dict):
        [name, *_] = _texts(value.get("name")) or _texts(value.get("type")) or ("",)
        return name
    [name, *_] = _texts(value) or ("",)
    return name


def _dicts(value: Any) -> list[dict[Any, Any]]:
    return [item for item in value[:_MOST] if isinstance(item, dict)] if isinstance(value, list) else []


def _texts(value: Any) -> tuple[str, ...]:
    """A text, or a list of them. `no` is a language too, which YAML takes for false."""
    values = value if isinstance(value, list) else [value]
    found = ["no" if item is False else item for item in values[:_MOST]]
    return tuple(item[:_LONGEST_TEXT] for item in found if isinstance(item, str) and item)


def _moment(value: Any) -> datetime | None:
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    return datetime(value.year, value.month, value.day, tzinfo=UTC) if isinstance(value, date) else None
