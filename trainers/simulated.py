"""A trainer that trains nothing: its learning curves are answers of formulas. No torch here.

It tries a study's definition, its strategy and its budget in seconds, and the service around them under failures.
"""

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

from pydantic import JsonValue

from trainers.configs import SimulatedConfig, condition_of, expression_of
from trainers.contract import Goal, GpuMemory, Report, TrainerError, TrialContext
from trainers.simulated_gpu import SimulatedMemory

_SLICE_SECONDS = 0.02
"""The longest that an interruption waits for."""
_MEGABYTE = 10**6
_DEFAULT_GOAL = Goal("validation/loss", "minimize")


@dataclass
class Position:
    """Where a trial stands; all of it is in a checkpoint. `ended` is an early stop."""

    step: int = 0
    reports: int = 0
    best: float | None = None
    reports_without_gain: int = 0
    ended: bool = False


class Simulated:
    """Answers what `config.metrics` say, at once or as slowly as it is asked to."""

    def __init__(self, config: SimulatedConfig, context: TrialContext) -> None:
        self._config = config
        self._context = context
        self._position = Position()
        self._gpu: GpuMemory | None = None
        self._memory = _memory_of(config, context)

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"trained": "nothing: the metrics are answers of formulas", "steps_per_epoch": self._config.steps_per_epoch}

    def reports(self) -> Iterator[Report]:
        config, position = self._config, self._position
        begun = time.perf_counter()
        while position.step < config.total_steps and not position.ended:
            if not self._step():
                return
            if position.step % config.every and position.step < config.total_steps:
                continue
            metrics = self._answers(config.reported, position.step)
            position.reports += 1
            position.ended = self._is_over(metrics)
            now = time.perf_counter()
            yield Report(
                number=position.reports,
                epoch=position.step / config.steps_per_epoch,
                step=position.step,
                metrics=metrics,
                seconds=now - begun,
                last=position.ended or position.step >= config.total_steps,
                gpu_memory=self._gpu,
            )
            begun = now

    def save(self, directory: Path) -> None:
        (directory / "position.json").write_text(json.dumps(asdict(self._position)))
        _write_ballast(directory, self._config.state_megabytes)

    def load(self, directory: Path) -> None:
        self._position = Position(**json.loads((directory / "position.json").read_text()))

    def export(self, directory: Path) -> None:
        step = self._position.step
        known = {"values": dict(self._config.values.known), "step": step, "metrics": self._measured()}
        (directory / "simulation.json").write_text(json.dumps(known, indent=2, ensure_ascii=False) + "\n")
        _write_ballast(directory, self._config.export_megabytes)

    def analysis(self) -> Mapping[str, Any]:
        measured = self._measured().items()
        found = {name.removeprefix("validation/"): value for name, value in measured if name.startswith("validation/")}
        return {"task": "simulated", "rows": 0, "metrics": found}

    def test(self, exported: Path) -> Mapping[str, float]:
        known = json.loads((exported / "simulation.json").read_text())
        return self._answers(self._config.tested, known["step"])

    def _step(self) -> bool:
        """Take one step, unless an interruption comes before it is done. Raises TrainerError where the trial is to fail."""
        step = self._position.step + 1
        seconds = self._evaluate("seconds_per_epoch", expression_of(self._config.seconds_per_epoch).evaluate, step)
        until = time.perf_counter() + seconds / self._config.steps_per_epoch
        while self._context.interruption() is None:
            left = until - time.perf_counter()
            if left <= 0:
                self._position.step = step
                self._fail(step)
                self._take_memory(step)
                return True
            time.sleep(min(left, _SLICE_SECONDS))
        return False

    def _fail(self, step: int) -> None:
        for reason, condition in self._config.fails.conditions.items():
            if not self._evaluate(f"fails.{reason}", condition_of(condition).evaluate, step):
                continue
            if reason != "lost":
                raise TrainerError(reason, f"`fails.{reason}` is true after step {step}: {condition}")
            if self._may_be_lost():
                os.kill(os.getpid(), signal.SIGKILL)

    def _take_memory(self, step: int) -> None:
        """Have of the GPU what the step needs. Raises TrainerError where there is less."""
        if self._memory is not None and self._config.gpu_memory is not None:
            formula = expression_of(self._config.gpu_memory.peak_megabytes)
            wanted = self._evaluate("gpu_memory.peak_megabytes", formula.evaluate, step)
            self._gpu = self._memory.take(round(wanted * _MEGABYTE))

    def _may_be_lost(self) -> bool:
        """Whether the trial's worker may be killed once more; it is written down, as nobody is left to remember it."""
        marks = self._context.cache / f"lost-{sha256(self._config.model_dump_json().encode()).hexdigest()[:32]}"
        marks.parent.mkdir(parents=True, exist_ok=True)
        with marks.open("ab") as file:
            if file.tell() >= self._config.fails.lost_times:
                return False
            file.write(b"x")
        return True

    def _measured(self) -> Mapping[str, float]:
        """The metrics of the last report."""
        return self._answers(self._config.reported, self._position.step)

    def _answers(self, names: Collection[str], step: int) -> Mapping[str, float]:
        if not step:
            return {}
        return {name: self._answer(name, step) for name in sorted(names)}

    def _answer(self, name: str, step: int) -> float:
        value = float(self._evaluate(f"metrics.{name}", expression_of(self._config.metrics[name]).evaluate, step))
        if name.startswith("model/") or not self._config.noise:
            return value
        drawn = json.dumps([self._config.seed, self._config.values.model_dump(mode="json"), name, step], sort_keys=True)
        return value + Random(drawn).gauss(0.0, self._config.noise)  # noqa: S311 - noise, not a secret

    def _evaluate(self, key: str, evaluate: Callable[[Mapping[str, JsonValue]], Any], step: int) -> Any:
        try:
            return evaluate(self._config.names_at(step))
        except (ArithmeticError, TypeError, ValueError) as error:
            raise TrainerError("trainer_error", f"{self._config.no_answer(key, step, error)}.") from error

    def _is_over(self, metrics: Mapping[str, float]) -> bool:
        """Whether early stopping ends the trial after this report: as in `trainers.loop`."""
        stopping, position = self._config.early_stopping, self._position
        if stopping is None:
            return False
        goal = self._context.goal or _DEFAULT_GOAL
        value = metrics[goal.metric]
        if position.best is None or goal.gain(value, position.best) > stopping.min_gain:
            position.best, position.reports_without_gain = value, 0
        else:
            position.reports_without_gain += 1
        return position.reports_without_gain >= stopping.patience


def _memory_of(config: SimulatedConfig, context: TrialContext) -> SimulatedMemory | None:
    """The memory of the GPU that the trial holds, as its worker numbers it; None where it holds none, or none is simulated."""
    if config.gpu_memory is None or context.device == "cpu":
        return None
    gpu = f"gpu-{socket.gethostname()}-{os.environ.get('CUDA_VISIBLE_DEVICES', '')}"
    return SimulatedMemory(context.cache / gpu, round(config.gpu_memory.total_megabytes * _MEGABYTE))


def _write_ballast(directory: Path, megabytes: float) -> None:
    """A JSON string of that size, for the disk and the network to carry; none for a size of nothing."""
    left = round(megabytes * _MEGABYTE)
    if not left:
        return
    with (directory / "ballast.json").open("w") as file:
        file.write('"')
        while left > 0:
            left -= file.write("0" * min(left, _MEGABYTE))
        file.write('"')
