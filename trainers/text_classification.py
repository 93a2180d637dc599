"""Fine-tune an encoder on texts with one label each."""

import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from trainers.checkpoint import load_state, save_state
from trainers.configs import TextClassificationConfig
from trainers.contract import Report, TrainerError, TrialContext
from trainers.hardware import autocast, computes_in_bf16, memory_errors_named, open_device
from trainers.metrics import classification_metrics
from trainers.models import export_model, freeze_layers, load_classifier, load_tokenizer
from trainers.texts import Ints, epoch_order, padded_batches, prepare

_CLIP_NORM = 1.0
_VALIDATION_BATCH = 64


class TextClassification:
    """Fine-tune an encoder with a classification head (Devlin et al. 2019, section 4.1).

    AdamW with decay on matrices alone, a linear warm-up and a linear decay to zero, gradients clipped at norm 1. Steps run in
    bf16 where that is faster; weights, validation and export are fp32. One report an epoch.
    """

    def __init__(self, config: TextClassificationConfig, context: TrialContext) -> None:
        """Load the model and the rows. Raises TrainerError when they do not fit."""
        self._config = config
        self._context = context
        self._device = open_device(context)
        self._bf16 = computes_in_bf16(config.precision, self._device)
        folder = context.models.get(config.model, Path(config.model))
        self._tokenizer = load_tokenizer(folder)
        self._texts = prepare(config.data, config.max_length, self._tokenizer, folder, context.sources, context.cache)
        torch.manual_seed(config.seed)
        self._model: Any = load_classifier(folder, self._texts.labels, config.dropout)
        with memory_errors_named("The model"):
            self._model.to(self._device)
        freeze_layers(self._model, config.frozen_layers)
        self._optimizer = self._make_optimizer()
        self._steps_per_epoch = math.ceil(len(self._texts.train) / config.batch_size)
        self._epoch = 0
        """Epochs that are behind."""
        self._batch = 0
        """Batches of the present epoch that are behind."""
        self._loss_sum = 0.0
        """Of the present epoch, a loss for each row that is behind."""
        self._rows_seen = 0

    @property
    def facts(self) -> Mapping[str, Any]:
        """Rows, labels, parameters and what they were computed with."""
        parameters = list(self._model.parameters())
        return {
            **self._texts.facts,
            "labels": list(self._texts.labels),
            "parameters": sum(parameter.numel() for parameter in parameters),
            "trained_parameters": sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
            "training_precision": "bf16" if self._bf16 else "fp32",
            "device": torch.cuda.get_device_name() if self._device.type == "cuda" else "cpu",
            "threads": self._context.threads,
        }

    def reports(self) -> Iterator[Report]:
        """Yield one report an epoch, from the resumed position to `config.epochs`; returns early when asked to pause."""
        begun = time.perf_counter()
        while self._epoch < self._config.epochs:
            if not self._train_epoch():
                return
            metrics = {
                **{f"validation/{name}": value for name, value in self._validate().items()},
                "train/loss": self._loss_sum / self._rows_seen,
                "train/learning_rate": self._learning_rate(self._steps_done - 1),
            }
            self._epoch, self._batch, self._loss_sum, self._rows_seen = self._epoch + 1, 0, 0.0, 0
            now = time.perf_counter()
            yield Report(self._epoch, float(self._epoch), self._steps_done, metrics, now - begun)
            begun = now

    def save(self, directory: Path) -> None:
        """Write everything that `load` needs to go on bit for bit."""
        position = {"epoch": self._epoch, "batch": self._batch, "loss_sum": self._loss_sum, "rows_seen": self._rows_seen}
        save_state(directory, self._model, self._optimizer, position)

    def load(self, directory: Path) -> None:
        """Go on from what `save` wrote."""
        with memory_errors_named("The state to resume from"):
            position = load_state(directory, self._model, self._optimizer)
        self._epoch, self._batch = position["epoch"], position["batch"]
        self._loss_sum, self._rows_seen = position["loss_sum"], position["rows_seen"]

    def export(self, directory: Path) -> None:
        """Write model, configuration with the labels' names, and tokenizer."""
        export_model(self._model, self._tokenizer, self._config.max_length, directory)

    @property
    def _steps_done(self) -> int:
        return self._epoch * self._steps_per_epoch + self._batch

    def _train_epoch(self) -> bool:
        """Train the rest of the present epoch; False when asked to pause before its end."""
        self._model.train()
        order = epoch_order(self._texts.train, self._config.batch_size, self._config.seed, self._epoch)
        for ids, labels in padded_batches(self._texts.train, self._config.batch_size, order[self._batch :]):
            if self._context.interruption() is not None:
                return False
            loss = self._step(ids, labels)
            self._batch += 1
            self._loss_sum += loss * len(labels)
            self._rows_seen += len(labels)
        return True

    def _step(self, ids: Ints, labels: Ints) -> float:
        """One optimizer step; answers its loss. Raises TrainerError when that is not finite, or memory is short."""
        for group in self._optimizer.param_groups:
            group["lr"] = self._learning_rate(self._steps_done)
        with memory_errors_named(f"A batch of {ids.shape[0]} texts of {ids.shape[1]} tokens"):
            with autocast(self._device, bf16=self._bf16):
                logits = self._logits(ids)
            loss = cross_entropy(logits.float(), torch.from_numpy(labels).to(self._device))
            value = float(loss.detach())
            if not math.isfinite(value):
                raise TrainerError("diverged", f"The loss is {value} at step {self._steps_done + 1}: lower the learning rate.")
            self._optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), _CLIP_NORM)
            self._optimizer.step()
        return value

    def _logits(self, ids: Ints) -> Tensor:
        """Shape (rows, classes), for ids padded with -1."""
        known = torch.from_numpy(ids)
        mask = known >= 0
        known = known.masked_fill(~mask, self._tokenizer.pad_token_id)
        outputs = self._model(input_ids=known.to(self._device), attention_mask=mask.long().to(self._device))
        logits: Tensor = outputs.logits
        return logits

    @torch.inference_mode()
    def _validate(self) -> Mapping[str, float]:
        """Metrics on the validation rows in fp32, on the weights that would be exported now."""
        self._model.eval()
        logits, labels = [], []
        for ids, wanted in padded_batches(self._texts.validation, _VALIDATION_BATCH):
            with memory_errors_named(f"A validation batch of {ids.shape[0]} texts of {ids.shape[1]} tokens"):
                logits.append(self._logits(ids).float().cpu())
            labels.append(torch.from_numpy(wanted))
        return classification_metrics(torch.cat(logits), torch.cat(labels))

    def _learning_rate(self, step: int) -> float:
        """Of the step after so many others: up over the warm-up, then down to zero at the trial's last step."""
        total = self._config.epochs * self._steps_per_epoch
        warmup = int(self._config.warmup_fraction * total)
        if step < warmup:
            return self._config.learning_rate * (step + 1) / (warmup + 1)
        return self._config.learning_rate * (total - step) / (total - warmup)

    def _make_optimizer(self) -> torch.optim.AdamW:
        trained = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
        groups = [
            {"params": [one for one in trained if one.ndim > 1], "weight_decay": self._config.weight_decay},
            {"params": [one for one in trained if one.ndim <= 1], "weight_decay": 0.0},
        ]
        # `fused` makes a step of MiniLM on one core take 0.02 s, 0.13 s without.
        return torch.optim.AdamW([group for group in groups if group["params"]], lr=self._config.learning_rate, fused=True)
