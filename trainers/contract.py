"""What a trainer is: a loop that yields reports and can save, load and export itself. It knows nothing of who runs it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, assert_never

from trainers.configs import (
    CausalLmConfig,
    FineTuningConfig,
    ImageClassificationConfig,
    Seq2SeqConfig,
    SimulatedConfig,
    TextClassificationConfig,
    TokenClassificationConfig,
    TrainerConfig,
)

if TYPE_CHECKING:  # it needs torch, and this does not
    from trainers.ranks import Ranks


class Interruption(StrEnum):
    """Why a trainer is asked to leave its loop before its last epoch."""

    PAUSE = "pause"


class TrainerError(Exception):
    """The trial cannot go on: `reason` is machine-readable, the message is a sentence that says what to do."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class GpuMemory:
    """What a trial has taken of its GPU: the most bytes so far, those that the GPU has, and how often it was refused more."""

    peak_bytes: int
    total_bytes: int
    refusals: int = 0


@dataclass(frozen=True)
class Report:
    """How far a trainer has come and how well it does there.

    `number` counts reports from 1, `epoch` is a fraction of passes over the data, `step` counts optimizer steps, `seconds`
    is the time since the last report of the same process. `last` says that none follows: training is at its end, or stopped
    early by itself. `gpu_memory` is measured where the trial has one GPU, or a share of it.
    """

    number: int
    epoch: float
    step: int
    metrics: Mapping[str, float]
    seconds: float
    last: bool = False
    gpu_memory: GpuMemory | None = None


@dataclass(frozen=True)
class Goal:
    """The metric that a trial is judged by."""

    metric: str
    direction: Literal["maximize", "minimize"]

    def gain(self, value: float, over: float) -> float:
        """By how much `value` is better than `over`; negative where it is worse."""
        return value - over if self.direction == "maximize" else over - value


@dataclass(frozen=True)
class TrialContext:
    """What surrounds one trial on one worker.

    `sources` and `models` map the names in the configuration to local paths (a name that is missing is a path itself);
    `cache` is a folder shared by the trials of a study for prepared data; `threads` is the number of CPU threads, divided
    among the `processes` that share the trial. `goal` is what early stopping goes by, the validation loss where there is none.
    """

    cache: Path
    sources: Mapping[str, Path] = field(default_factory=dict)
    models: Mapping[str, Path] = field(default_factory=dict)
    threads: int = 1
    device: str = "cpu"
    processes: int = 1
    goal: Goal | None = None
    interruption: Callable[[], Interruption | None] = lambda: None


class Trainer(Protocol):
    """One task, one file. Made from its configuration and a `TrialContext`; reading data and models may raise `TrainerError`."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the model card says beside the configuration: rows and hash of each split, labels, parameters. JSON only."""
        ...

    def reports(self) -> Iterator[Report]:
        """Yield one `Report` per `config.report_every` from where `load` left off, to `config.reports` or an early stop.

        Polls `context.interruption()` every step; when asked to pause it returns at once, ready to `save` mid-epoch.
        Raises `TrainerError` with reason `diverged` when the loss is not finite or explodes, and `out_of_memory` when not even
        one row fits.
        """
        ...

    def save(self, directory: Path) -> None:
        """Write into the existing, empty `directory` everything `load` needs to go on bit for bit."""
        ...

    def load(self, directory: Path) -> None:
        """Go on from what `save` wrote, on a freshly made trainer.

        Its configuration is the same, or differs in what `configs.changeable` names: it goes on with its own values.
        """
        ...

    def export(self, directory: Path) -> None:
        """Write what a user pulls into the existing, empty `directory`: `from_pretrained` loads it. No pickle."""
        ...

    def analysis(self) -> Mapping[str, Any]:
        """Where the validation rows of the last report went wrong (see `trainers.analysis`). JSON only."""
        ...

    def test(self, exported: Path) -> Mapping[str, float]:
        """Metrics `test/...` of what `export` wrote there, on the test rows in fp32; empty where there are no test rows."""
        ...


def make_trainer(config: TrainerConfig, context: TrialContext, ranks: "Ranks | None" = None) -> Trainer:
    """The trainer for a configuration; imports no other trainer, and torch and transformers where it needs them.

    `ranks` is given in each of the processes that share a trial; without it a context of several processes starts them.
    """
    if isinstance(config, SimulatedConfig):
        from trainers.simulated import Simulated  # noqa: PLC0415 - like the others

        return Simulated(config, context)
    if context.processes > 1 and ranks is None:
        from trainers.distributed import Distributed  # noqa: PLC0415 - torch only where it is used

        return Distributed(config, context)
    return _in_one_process(config, context, ranks)


def _in_one_process(config: FineTuningConfig, context: TrialContext, ranks: "Ranks | None") -> Trainer:
    match config:
        case TextClassificationConfig():
            from trainers.text_classification import TextClassification  # noqa: PLC0415 - torch only where it is used

            return TextClassification(config, context, ranks)
        case TokenClassificationConfig():
            from trainers.token_classification import TokenClassification  # noqa: PLC0415 - the same

            return TokenClassification(config, context, ranks)
        case CausalLmConfig():
            from trainers.causal_lm import CausalLm  # noqa: PLC0415 - the same

            return CausalLm(config, context, ranks)
        case Seq2SeqConfig():
            from trainers.seq2seq import Seq2Seq  # noqa: PLC0415 - the same

            return Seq2Seq(config, context, ranks)
        case ImageClassificationConfig():
            from trainers.image_classification import ImageClassification  # noqa: PLC0415 - the same

            return ImageClassification(config, context, ranks)
        case _:
            assert_never(config)
