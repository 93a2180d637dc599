"""Base models as a user chooses among them: what their files and cards say, and how they do on one's own rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol


class Place(StrEnum):
    """Where a base model is."""

    FOLDER = "folder"
    CACHE = "cache"
    PACKAGE = "package"
    BUILTIN = "builtin"
    HUB = "hub"


@dataclass(frozen=True)
class ModelHeader:
    """What a model's configuration and the headers of its weights say; None where they do not.

    `kinds` are the trainers that can train it. `layers` counts those that can be frozen: of an encoder-decoder its encoder's, of
    a convolutional network its stages. `longest` is the tokens of the longest text, `image_size` the side of an image in pixels,
    `weights_bytes` the size of the weights' files. `image_values` counts the numbers that all layers together put out for one
    image, or is None where that cannot be told.
    """

    model_type: str
    kinds: frozenset[str]
    layers: int | None = None
    longest: int | None = None
    hidden_size: int | None = None
    heads: int | None = None
    vocabulary: int | None = None
    image_size: int | None = None
    image_values: int | None = None
    parameters: int | None = None
    weights_bytes: int | None = None
    dtype: str | None = None

    @property
    def megabytes(self) -> float | None:
        """The weights' size in units of 1,000,000 bytes."""
        return None if self.weights_bytes is None else self.weights_bytes / 1e6


@dataclass(frozen=True)
class Benchmark:
    """A result that a model's card tells of."""

    task: str
    dataset: str
    metric: str
    value: float


@dataclass(frozen=True)
class ModelCard:
    """What a model's card says. `characters` is the length of its text; 0 is a card that holds nothing for people."""

    licence: str | None = None
    datasets: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    base_models: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    benchmarks: tuple[Benchmark, ...] = ()
    characters: int = 0
    updated_at: datetime | None = None


@dataclass(frozen=True)
class FoundModel:
    """A base model and where it is. `card` is None where there is none."""

    name: str
    place: Place
    header: ModelHeader
    card: ModelCard | None = None


@dataclass(frozen=True)
class ProbeRows:
    """The rows to try models on: where they are, and what their columns are called by their role (`text`, `label`, ...)."""

    source: str
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Probed:
    """How one model did: `metrics` by name, or the `failure` in a sentence."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    milliseconds_per_row: float | None = None
    rows: int = 0
    failure: str | None = None


class BaseModels(Protocol):
    """The base models that a study can name, and the rows of one project to try them on."""

    def of(self, project: str) -> "BaseModels":
        """With the rows of another project."""
        ...

    def describe(self, name: str) -> FoundModel:
        """One model, here or on the hub; returns within seconds. Raises ModelNotFound, UnusableModel."""
        ...

    def here(self) -> Sequence[FoundModel]:
        """Every model on this machine that some trainer can train, by name."""
        ...

    def probe(self, kind: str, rows: ProbeRows, names: Sequence[str]) -> Mapping[str, Probed]:
        """How the named models on this machine do on these rows, as they are; their weights stay frozen.

        Raises DatasetNotFound, UnreadableDataset, InvalidQuery for a missing column, and NotReady while it is under way.
        """
        ...
