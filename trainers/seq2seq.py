"""Fine-tune an encoder-decoder to turn texts into texts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForSeq2SeqLM

from trainers import analysis, losses, metrics
from trainers.analysis import Tokens
from trainers.configs import Seq2SeqConfig
from trainers.contract import Report, TrainerError, TrialContext
from trainers.hardware import in_batches, open_device
from trainers.loop import Loop, Work
from trainers.measures import measured, median_row
from trainers.models import (
    add_adapters,
    check_length,
    export_model,
    export_tokenizer,
    folder_of,
    load_model,
    load_tokenizer,
    measured_export,
)
from trainers.prepared import Prepared, by_length, epoch_order, prepared, save_ragged, save_texts, tokenizer_sha256
from trainers.ranks import Ranks
from trainers.scoring import scored
from trainers.splits import Row
from trainers.texts import divided, file_hashes, normalised, read_columns, source_files, tokenised

_VERSION = 2
"""Raised when what is prepared changes, so that older caches are left alone."""
_VALIDATION_BATCH = 64


class Seq2Seq:
    """Fine-tune an encoder-decoder to write a target for each source (Raffel et al. 2020, section 2)."""

    def __init__(self, config: Seq2SeqConfig, context: TrialContext, ranks: Ranks | None = None) -> None:
        """Load the model and the rows. Raises TrainerError when they do not fit."""
        self._config = config
        self._device = open_device(context)
        folder = folder_of(config, context)
        self._tokenizer = load_tokenizer(folder)
        loaded = load_model(AutoModelForSeq2SeqLM, folder, config, {})
        for name in ("max_length", "max_target_length"):
            check_length(name, getattr(config, name), loaded.model.config)
        self._rows = prepare(config, self._tokenizer, folder, context)
        self._model = add_adapters(loaded, config)
        self._loop = Loop(config, context, self._device, self._model, ranks)
        self._sources = {split: self._rows.ragged(split) for split in self._rows.facts["rows"]}
        self._targets = {split: self._rows.ragged(f"{split}-targets") for split in self._sources}
        self._validated: tuple[Tokens, Sequence[str]] | None = None

    @property
    def facts(self) -> Mapping[str, Any]:
        """Rows, tokens, parameters and what they were computed with."""
        return {**self._rows.facts, **self._loop.facts()}

    def reports(self) -> Iterator[Report]:
        """Yield a report every epoch, or every so many steps, from the resumed position on; returns early when asked to pause."""
        return self._loop.reports(
            Work(batches=self._batches, loss=self._loss, weight=self._weight, validate=self._validate, measure=self._measure)
        )

    def save(self, directory: Path) -> None:
        """Write everything that `load` needs to go on bit for bit."""
        self._loop.save(directory)

    def load(self, directory: Path) -> None:
        """Go on from what `save` wrote."""
        self._loop.load(directory)

    def export(self, directory: Path) -> None:
        """Write model, configuration, how to generate, and tokenizer."""
        export_model(self._model, self._config, directory)
        export_tokenizer(self._tokenizer, self._config.max_length, directory)

    def analysis(self) -> Mapping[str, Any]:
        """Where the validation rows of the last report went wrong."""
        if self._validated is None:
            return {}
        tokens, written = self._validated
        wanted = self._rows.texts("validation-wanted")[: len(written)]
        return analysis.language("seq2seq", tokens, self._rows.texts("validation-texts"), written, wanted)

    def test(self, exported: Path) -> Mapping[str, float]:
        """Metrics of an export on the test rows."""
        if "test" not in self._rows.facts["rows"]:
            return {}
        evaluated = measured_export(
            AutoModelForSeq2SeqLM,
            exported,
            self._device,
            lambda model: (self._evaluated(model, "test"), self._written(model, "test")),
        )
        return {f"test/{name}": value for name, value in self._measured("test", *evaluated).items()}

    def _batches(self, epoch: int) -> Sequence[Sequence[int]]:
        config, lengths = self._config, self._sources["train"].lengths
        return epoch_order(lengths, config.batch_size, config.seed, epoch, group_by_length=config.group_by_length)

    def _weight(self, rows: Sequence[int]) -> float:
        return float(self._targets["train"].lengths[list(rows)].sum())

    def _loss(self, rows: Sequence[int], _epoch: int) -> Tensor:
        logits, wanted, _ = self._predicted(self._loop.network, "train", rows)
        return losses.class_loss(logits.float(), wanted, smoothing=self._config.label_smoothing)

    def _predicted(self, network: Any, split: str, rows: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """The targets' tokens, row by row: logits of shape (tokens, vocabulary), numbers, and places in `rows`."""
        labels = torch.from_numpy(self._targets[split].padded(rows, losses.IGNORED))
        wanted = labels != losses.IGNORED
        device = network.device
        given = self._decoder_inputs(labels.to(device))
        logits = network(**self._encoder_inputs(split, rows, device), **given, use_cache=False).logits
        return logits[wanted.to(device)], labels[wanted].to(device), wanted.nonzero()

    def _encoder_inputs(self, split: str, rows: Sequence[int], device: torch.device) -> Mapping[str, Tensor]:
        ids = torch.from_numpy(self._sources[split].padded(rows, -1))
        known = ids >= 0
        ids = ids.masked_fill(~known, self._tokenizer.pad_token_id or 0)
        return {"input_ids": ids.to(device), "attention_mask": known.long().to(device)}

    def _decoder_inputs(self, labels: Tensor) -> Mapping[str, Tensor]:
        """What the decoder reads: how it begins, and how targets are moved along, each architecture says for itself.

        Those that say it only in passing get the labels, and compute a loss of their own that is not used.
        """
        if not hasattr(self._model, "prepare_decoder_input_ids_from_labels"):
            return {"labels": labels}
        return {"decoder_input_ids": self._model.prepare_decoder_input_ids_from_labels(labels=labels)}

    def _validate(self) -> Mapping[str, float]:
        self._model.eval()
        self._validated = self._evaluated(self._model, "validation"), self._written(self._model, "validation")
        return self._measured("validation", *self._validated)

    def _measure(self) -> Mapping[str, float]:
        """What is measured once of the model, of one row of median length."""
        row = median_row(self._sources["validation"].lengths)
        return measured(self._model, self._config, lambda: self._predicted(self._model, "validation", [row]))

    def _evaluated(self, model: Any, split: str) -> Tokens:
        """How well each token of a split's targets is predicted, in fp32."""

        def predict(rows: Sequence[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            logits, wanted, places = self._predicted(model, split, rows)
            return logits, wanted, torch.tensor(rows)[places[:, 0]], places[:, 1]

        return scored(self._targets[split].lengths, model.config.vocab_size, predict)

    @torch.inference_mode()
    def _written(self, model: Any, split: str) -> list[str]:
        """What the model makes of a split's first sources: the likeliest token after each other, without chance."""
        lengths = self._sources[split].lengths[: self._config.generated_rows]

        def compute(rows: Sequence[int]) -> list[str]:
            inputs = self._encoder_inputs(split, rows, model.device)
            tokens = model.generate(**inputs, max_new_tokens=self._config.max_target_length, num_beams=1, do_sample=False)
            texts: list[str] = self._tokenizer.batch_decode(tokens, skip_special_tokens=True)
            return texts

        written = [""] * len(lengths)
        for rows, texts in in_batches(by_length(lengths), _VALIDATION_BATCH, compute):
            for row, text in zip(rows, texts, strict=True):
                written[row] = text
        return written

    def _measured(self, split: str, tokens: Tokens, written: Sequence[str]) -> Mapping[str, float]:
        loss, right = float(tokens.losses.double().sum()), int(tokens.right.sum())
        found = metrics.language_metrics(loss, right, len(tokens.losses))
        if not written:
            return found
        wanted = self._rows.texts(f"{split}-wanted")[: len(written)]
        return {**found, "exact_match": metrics.exact_match(written, wanted), "rouge_l": metrics.rouge_l(written, wanted)}


def prepare(config: Seq2SeqConfig, tokenizer: Any, folder: Path, context: TrialContext) -> Prepared:
    """Rows cleaned, divided and tokenised: `SPLIT` (sources), `SPLIT-targets`, `SPLIT-wanted` and `validation-texts`.

    Raises TrainerError for rows that cannot be used.
    """
    data = config.data
    if tokenizer.eos_token_id is None:
        raise TrainerError(
            "trainer_error", f"The tokenizer of {folder.name} has no end-of-text token: use one with an `eos_token`."
        )
    files = source_files(data, context.sources)
    hashes = file_hashes(files)

    def make(into: Path) -> Mapping[str, Any]:
        read = {split: _read(path, config) for split, path in files.items()}
        division = divided(data, {split: rows.keys() for split, rows in read.items()})
        kept = {"train": division.train, "validation": division.validation, "test": division.test}
        cut, cut_targets, count = {}, {}, {}
        for split, places in kept.items():
            if not places:
                continue
            sources = [read[place.source].sources[place.position] for place in places]
            targets = [read[place.source].targets[place.position] for place in places]
            tokens, cut[split] = tokenised(tokenizer, [data.prefix + source for source in sources], config.max_length)
            save_ragged(into, split, tokens)
            tokens, cut_targets[split] = _target_tokens(tokenizer, targets, config.max_target_length)
            save_ragged(into, f"{split}-targets", tokens)
            count[split] = sum(map(len, tokens))
            if split != "train":
                save_texts(into, f"{split}-wanted", targets)
            if split == "validation":
                save_texts(into, "validation-texts", sources)
        return {**division.facts, "cut": cut, "cut_targets": cut_targets, "tokens": count, "sha256": hashes}

    depends_on = {
        "version": _VERSION,
        "kind": config.kind,
        "files": hashes,
        "data": data.model_dump(mode="json", exclude={"train", "validation", "test"}),
        "max_length": [config.max_length, config.max_target_length],
        "tokenizer": tokenizer_sha256(folder),
    }
    return prepared(context.cache, depends_on, make)


@dataclass(frozen=True)
class _Rows:
    """The rows of one file, normalised."""

    sources: Sequence[str]
    targets: Sequence[str]

    def keys(self) -> list[Row]:
        """What dividing needs to know. A source may have several targets, each a row of its own, but all of them in one split."""
        return [
            Row(key=(source, target), is_empty=not source or not target, group=source)
            for source, target in zip(self.sources, self.targets, strict=True)
        ]


def _read(path: Path, config: Seq2SeqConfig) -> _Rows:
    data = config.data
    columns = read_columns(path, [data.source, data.target])
    return _Rows(normalised(columns[data.source], data), normalised(columns[data.target], data))


def _target_tokens(tokenizer: Any, targets: Sequence[str], max_length: int) -> tuple[list[list[int]], int]:
    """Token numbers of each target with the end of text behind it, at most `max_length`; and how many were cut."""

    def as_target(texts: Sequence[str], **options: Any) -> Any:
        return tokenizer(text_target=texts, **options)

    end = tokenizer.eos_token_id
    if as_target([""])["input_ids"][0][-1:] == [end]:
        return tokenised(as_target, targets, max_length)
    tokens, cut = tokenised(as_target, targets, max_length - 1)
    return [[*row, end] for row in tokens], cut
