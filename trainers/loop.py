"""The training loop that every trainer runs: steps, reports, interruptions, early stopping, short memory, exact resumption.

What a task makes of its rows is in its own file, and comes in as `Work`. It is one loop and not a copy in each task, as what is
subtle in it (adding up gradients, going on after a lack of memory, resuming in the middle of an epoch) must be right once.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainers.checkpoint import load_position, load_random_state, load_state, save_random_state, save_state
from trainers.configs import TrainingConfig
from trainers.contract import Goal, Report, TrainerError, TrialContext
from trainers.freezing import Freezing
from trainers.hardware import (
    autocast,
    is_out_of_memory,
    measured_memory,
    memory_errors_named,
    number_format,
    random_state,
    restore_random_state,
)
from trainers.optimisation import make_optimizer, rate_factor
from trainers.ranks import OneProcess, Ranks, gradients

_FIRST_LOSSES = 10
_AVERAGING = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_DEFAULT_GOAL = Goal("validation/loss", "minimize")


@dataclass(frozen=True)
class Work:
    """What the loop needs to know of a task.

    `batches` lists the rows of each batch of an epoch, and depends on the epoch alone. `loss` is the sum over some rows of a
    batch in an epoch, `weight` what their mean divides it by: a batch that weighs 0 has nothing to learn from and is passed
    over. `validate` measures the present weights, in fp32, `measure` after it what does not change: what `settings.measure` says.
    """

    batches: Callable[[int], Sequence[Sequence[int]]]
    loss: Callable[[Sequence[int], int], Tensor]
    weight: Callable[[Sequence[int]], float]
    validate: Callable[[], Mapping[str, float]]
    measure: Callable[[], Mapping[str, float]] = dict


@dataclass
class Position:
    """Where a trial stands; all of it is in a checkpoint. Sums are since the last report; `ended` is an early stop.

    `measured` is what was measured once of the model, so that a trial that goes on elsewhere says the same as before.
    """

    micro_batch_size: int
    step: int = 0
    epoch: int = 0
    reports: int = 0
    loss_sum: float = 0.0
    weight_sum: float = 0.0
    first_losses: list[float] = field(default_factory=list)
    best: float | None = None
    reports_without_gain: int = 0
    ended: bool = False
    scaler: Mapping[str, Any] | None = None
    measured: Mapping[str, float] | None = None


class Loop:
    """Trains `model` in place. A task calls `network` in `Work.loss`: the same weights, compiled where that is asked for."""

    def __init__(
        self, settings: TrainingConfig, context: TrialContext, device: torch.device, model: Any, ranks: Ranks | None = None
    ) -> None:
        """Raises TrainerError when the model cannot be frozen or computed as asked for, or when memory is short."""
        self._settings = settings
        self._context = context
        self._device = device
        self._model = model
        self._ranks = ranks or OneProcess()
        self.number_format = number_format(settings.precision, device)
        with memory_errors_named("The model"):
            model.to(device)
        if settings.gradient_checkpointing:
            _recompute_activations(model)
        self.freezing = Freezing(model, settings)
        if settings.compile:  # what earlier trials of this process compiled counts as this one's, and there is a limit
            torch.compiler.reset()
        self.network = torch.compile(model, dynamic=True) if settings.compile else model
        self._optimizer = make_optimizer(model, settings, self.freezing.trained)
        self._running_means = [mean for part in model.modules() if isinstance(part, _AVERAGING) for mean in part.buffers()]
        self._scaler = torch.amp.GradScaler(device.type, enabled=self.number_format == "fp16")
        self._position = Position(settings.micro_batch_size or settings.batch_size)

    def facts(self) -> Mapping[str, Any]:
        """What was computed with."""
        parameters = list(self._model.parameters())
        return {
            "parameters": sum(parameter.numel() for parameter in parameters),
            "trained_parameters": sum(parameter.numel() for _, parameter in self.freezing.trained),
            "training_precision": self.number_format,
            "micro_batch_size": min(self._position.micro_batch_size, self._settings.batch_size),
            "device": torch.cuda.get_device_name(self._device) if self._device.type == "cuda" else "cpu",
            "threads": self._context.threads,
            "processes": self._ranks.count,
        }

    def reports(self, work: Work) -> Iterator[Report]:
        """Yield a report every epoch, or every so many steps, from the resumed position on; returns early when asked to pause."""
        position, settings = self._position, self._settings
        begun = time.perf_counter()
        entered, batches = -1, work.batches(0)
        steps_per_epoch = len(batches)
        total = settings.max_steps or settings.epochs * steps_per_epoch
        every = steps_per_epoch if settings.report_every == "epoch" else settings.report_every
        while position.step < total and not position.ended:
            if self._ranks.any(flag=self._context.interruption() is not None):
                return
            position.epoch = position.step // steps_per_epoch
            if entered != position.epoch:
                entered = position.epoch
                batches = work.batches(entered)
                self.freezing.enter(entered)
                self.freezing.train()
            self._step(batches[position.step % steps_per_epoch], total, work)
            if position.step % every and position.step < total:
                continue
            metrics = self._report_metrics(work, total)
            position.reports += 1
            position.loss_sum, position.weight_sum = 0.0, 0.0
            position.ended = self._is_over(metrics)
            now = time.perf_counter()
            yield Report(
                number=position.reports,
                epoch=position.step / steps_per_epoch,
                step=position.step,
                metrics=metrics,
                seconds=now - begun,
                last=position.ended or position.step >= total,
                gpu_memory=measured_memory(torch.cuda) if self._device.type == "cuda" and self._ranks.count == 1 else None,
            )
            begun = now
            self.freezing.train()

    def save(self, directory: Path) -> None:
        """Write everything that `load` needs to go on bit for bit; of the processes of a trial each writes its random state."""
        if self._ranks.rank:
            save_random_state(directory, self._ranks.rank)
            return
        scaler = self._scaler.state_dict() if self._scaler.is_enabled() else None
        save_state(directory, self._model, self._optimizer, {**asdict(self._position), "scaler": scaler})

    def load(self, directory: Path) -> None:
        """Go on from what `save` wrote. It holds no setting: learning rate, decay and dropout are those of this trainer."""
        self._position = Position(**load_position(directory))
        if self.freezing.is_gradual:  # weights that do not train yet are not in a state
            self.freezing.enter(self._position.epoch)
        with memory_errors_named("The state to resume from"):
            load_state(directory, self._model, self._optimizer)
        if self._ranks.rank:
            load_random_state(directory, self._ranks.rank)
        if self._position.scaler is not None:
            self._scaler.load_state_dict(dict(self._position.scaler))

    def _step(self, rows: Sequence[int], total: int, work: Work) -> None:
        weight = work.weight(rows)
        if weight:
            self._learn(rows, weight, total, work)
        self._position.step += 1

    def _learn(self, rows: Sequence[int], weight: float, total: int, work: Work) -> None:
        """One optimizer step. Raises TrainerError when its loss is not finite or explodes, or memory is short."""
        position, settings = self._position, self._settings
        rate = settings.learning_rate * rate_factor(settings, position.step, total)
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        loss = self._gradients_in_memory(rows, weight, work)
        self._check_divergence(loss / weight)
        with memory_errors_named("The optimizer's state"):
            self._scaler.unscale_(self._optimizer)
            if settings.gradient_clip:
                torch.nn.utils.clip_grad_norm_(self._model.parameters(), settings.gradient_clip)
            self._scaler.step(self._optimizer)
            self._scaler.update()
        self._optimizer.zero_grad()  # nor do gradients take room while validating
        position.loss_sum += loss
        position.weight_sum += weight

    def _gradients_in_memory(self, rows: Sequence[int], weight: float, work: Work) -> float:
        """The loss's sum over a batch, with its gradients; in ever smaller micro-batches while memory is short.

        Micro-batches that did not fit have changed no weights; random states and running means are put back.
        """
        state, means = random_state(self._device), [mean.clone() for mean in self._running_means]
        while True:
            loss, is_full = 0.0, False
            self._optimizer.zero_grad()
            try:
                loss = self._gradients(self._ranks.share(rows), weight, work)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                is_full = True  # handled outside, where the error's traceback holds no activations any more
            if not self._ranks.any(flag=is_full):
                return self._from_all_ranks(loss)
            largest = min(self._position.micro_batch_size, math.ceil(len(rows) / self._ranks.count))
            if largest == 1:
                raise TrainerError(
                    "out_of_memory",
                    "Not even one row fits into the memory of the device: lower the length or use a smaller model.",
                )
            self._position.micro_batch_size = max(1, largest // 2)
            restore_random_state(state, self._device)
            for mean, before in zip(self._running_means, means, strict=True):
                mean.copy_(before)
            if self._device.type == "cuda":
                torch.cuda.empty_cache()

    def _gradients(self, rows: Sequence[int], weight: float, work: Work) -> float:
        losses = []
        for part in _parts(rows, self._position.micro_batch_size):
            with autocast(self._device, self.number_format):
                loss = work.loss(part, self._position.epoch)
            losses.append(loss.detach())
            if loss.requires_grad:  # the last batches of a shard may have nothing to learn from
                self._scaler.scale(loss / weight).backward()  # type: ignore[no-untyped-call]  # torch has no type for it
        return sum(map(float, losses))  # read at the end: a GPU would wait at each

    def _from_all_ranks(self, loss: float) -> float:
        if self._ranks.count == 1:
            return loss
        total = torch.tensor([loss], dtype=torch.float64, device="cpu" if self._device.type == "cpu" else self._device)
        self._ranks.add_up([*gradients(self._model), total])
        return float(total)

    def _check_divergence(self, loss: float) -> None:
        first = self._position.first_losses
        limit = self._settings.divergence_factor * max(first, default=math.inf)
        if not math.isfinite(loss) or (len(first) == _FIRST_LOSSES and loss > limit):
            detail = f"The loss is {loss:.4g} at step {self._position.step + 1}: lower the learning rate."
            raise TrainerError("diverged", detail)
        if len(first) < _FIRST_LOSSES:
            first.append(loss)

    def _report_metrics(self, work: Work, total: int) -> Mapping[str, float]:
        """Of the first process, which alone validates. Raises TrainerError when what it measured is not finite."""
        position = self._position
        measured = dict(work.validate()) if self._ranks.rank == 0 else {}
        metrics = {
            **{f"validation/{name}": value for name, value in measured.items()},
            **self._measured_once(work),
            "train/loss": position.loss_sum / position.weight_sum if position.weight_sum else 0.0,
            "train/learning_rate": self._settings.learning_rate * rate_factor(self._settings, position.step - 1, total),
        }
        found: Mapping[str, float] = self._ranks.from_first(metrics)
        loss = found.get("validation/loss", 0.0)
        if not math.isfinite(loss):  # the last step may have spoilt the weights, with no other after it to notice
            raise TrainerError("diverged", f"The validation loss is {loss} after step {position.step}: lower the learning rate.")
        return found

    def _measured_once(self, work: Work) -> Mapping[str, float]:
        if not self._settings.measure or self._ranks.rank:
            return {}
        if self._position.measured is None:
            self._position.measured = dict(work.measure())
        return self._position.measured

    def _is_over(self, metrics: Mapping[str, float]) -> bool:
        """Whether early stopping ends the trial after this report."""
        stopping, position = self._settings.early_stopping, self._position
        if stopping is None:
            return False
        goal = self._context.goal or _DEFAULT_GOAL
        value = metrics[goal.metric]
        if position.best is None or goal.gain(value, position.best) > stopping.min_gain:
            position.best, position.reports_without_gain = value, 0
        else:
            position.reports_without_gain += 1
        return position.reports_without_gain >= stopping.patience


def _parts(rows: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """The rows in as few parts of at most `size` as possible, of lengths that differ by one at most.

    A row left over would be alone, and batch normalisation cannot learn from one row.
    """
    count = math.ceil(len(rows) / size)
    for start, end in pairwise(len(rows) * part // max(1, count) for part in range(count + 1)):
        yield rows[start:end]


def _recompute_activations(model: Any) -> None:
    try:
        model.activation_checkpointing_enable()
    except ValueError as error:
        detail = f"`gradient_checkpointing` is not for models of type {model.config.model_type}: leave it out."
        raise TrainerError("trainer_error", detail) from error
