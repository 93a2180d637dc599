"""What a trainer is: a loop that yields reports and can save, load and export itself. It knows nothing of who runs it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, assert_never

from trainers.configs import TextClassificationConfig, TrainerConfig


class Interruption(StrEnum):
    """Why a trainer is asked to leave its loop before its last epoch."""

    PAUSE = "pause"


class TrainerError(Exception):
    """The trial cannot go on: `reason` is machine-readable, the message is a sentence that says what to do."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class Report:
    """How far a trainer has come and how well it does there.

    `number` counts reports from 1, `epoch` is a fraction of passes over the data, `step` counts optimizer steps, `seconds`
    is the time since the last report of the same process.
    """

    number: int
    epoch: float
    step: int
    metrics: Mapping[str, float]
    seconds: float


@dataclass(frozen=True)
class TrialContext:
    """What surrounds one trial on one worker.

    `sources` and `models` map the names in the configuration to local paths (a name that is missing is a path itself);
    `cache` is a folder shared by the trials of a study for prepared data; `threads` is the number of CPU threads.
    """

    cache: Path
    sources: Mapping[str, Path] = field(default_factory=dict)
    models: Mapping[str, Path] = field(default_factory=dict)
    threads: int = 1
    device: str = "cpu"
    interruption: Callable[[], Interruption | None] = lambda: None


class Trainer(Protocol):
    """One task, one file. Made from its configuration and a `TrialContext`; reading data and models may raise `TrainerError`."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the model card says beside the configuration: rows and hash of each split, labels, parameters. JSON only."""
        ...

    def reports(self) -> Iterator[Report]:
        """Yield one `Report` per epoch from where `load` left off to `config.epochs`.

        Polls `context.interruption()` every step; when asked to pause it returns at once, ready to `save` mid-epoch.
        Raises `TrainerError` with reason `diverged` when the loss is not finite.
        """
        ...

    def save(self, directory: Path) -> None:
        """Write into the existing, empty `directory` everything `load` needs to go on bit for bit."""
        ...

    def load(self, directory: Path) -> None:
        """Go on from what `save` wrote, on a freshly made trainer of the same configuration."""
        ...

    def export(self, directory: Path) -> None:
        """Write what a user pulls into the existing, empty `directory`: `from_pretrained` loads it. No pickle."""
        ...


def make_trainer(config: TrainerConfig, context: TrialContext) -> Trainer:
    """The trainer for a configuration; imports torch and transformers."""
    match config:
        case TextClassificationConfig():
            from trainers.text_classification import TextClassification  # noqa: PLC0415 - torch only where it is used

            return TextClassification(config, context)
        case _:
            assert_never(config)
