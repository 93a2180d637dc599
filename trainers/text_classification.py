"""Fine-tune an encoder to give each text a label, several labels or a number."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from trainers import analysis, losses, metrics
from trainers.configs import TextClassificationConfig
from trainers.contract import Report, TrainerError, TrialContext
from trainers.features import FrozenFeatures, Inputs, frozen_features
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
from trainers.prepared import (
    Array,
    Prepared,
    by_length,
    epoch_order,
    padded,
    prepared,
    save_array,
    save_ragged,
    save_texts,
    tokenizer_sha256,
)
from trainers.ranks import Ranks
from trainers.splits import Place, Row
from trainers.texts import (
    augmented,
    check_masking,
    divided,
    file_hashes,
    label_key,
    normalised,
    read_columns,
    read_lists,
    source_files,
    token_types,
    tokenised,
)

_VERSION = 4
"""Raised when what is prepared changes, so that older caches are left alone."""
_VALIDATION_BATCH = 64
_PROBLEMS = {
    "single-label": "single_label_classification",
    "multi-label": "multi_label_classification",
    "regression": "regression",
}


class TextClassification:
    """Fine-tune an encoder with a classification head (Devlin et al. 2019, section 4.1)."""

    def __init__(self, config: TextClassificationConfig, context: TrialContext, ranks: Ranks | None = None) -> None:
        """Load the model and the rows. Raises TrainerError when they do not fit."""
        self._config = config
        self._device = open_device(context)
        folder = folder_of(config, context)
        self._tokenizer = load_tokenizer(folder)
        check_masking(config.augmentation, self._tokenizer)
        self._rows = prepare(config, self._tokenizer, folder, context)
        self._names: Sequence[str] = self._rows.facts["labels"]
        loaded = load_model(AutoModelForSequenceClassification, folder, config, self._head())
        check_length("max_length", config.max_length, loaded.model.config)
        self._model = add_adapters(loaded, config)
        self._loop = Loop(config, context, self._device, self._model, ranks)
        self._tokens = {split: self._rows.ragged(split) for split in self._rows.facts["rows"]}
        # Which text of a pair each token is of, for models that are told.
        typed = self._tokens if _has_types(config, self._tokenizer) else ()
        self._types = {split: self._rows.ragged(f"{split}-types") for split in typed}
        self._train = self._tokens["train"]
        self._train_labels = torch.from_numpy(np.array(self._rows.array("train-labels")))
        self._weights = self._class_weights()
        self._features: FrozenFeatures | None = frozen_features(
            loaded, self._loop.freezing, config, folder, context.cache, self._as_inputs()
        )
        self._validated: tuple[Tensor, Tensor] | None = None

    @property
    def facts(self) -> Mapping[str, Any]:
        """Rows, labels, parameters and what they were computed with."""
        return {**self._rows.facts, **self._loop.facts(), "frozen_features": self._features is not None}

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
        """Write model, configuration with the labels' names, and tokenizer."""
        export_model(self._model, self._config, directory)
        export_tokenizer(self._tokenizer, self._config.max_length, directory)

    def analysis(self) -> Mapping[str, Any]:
        """Where the validation rows of the last report went wrong."""
        if self._validated is None:
            return {}
        outputs, wanted = self._validated
        texts, lengths = self._rows.texts("validation-texts"), self._tokens["validation"].lengths.tolist()
        match self._config.problem:
            case "single-label":
                return analysis.text_labels(outputs, wanted, self._names, texts, lengths)
            case "multi-label":
                return analysis.text_label_sets(outputs, wanted, self._names, texts, lengths)
            case "regression":
                return analysis.text_numbers(outputs[:, 0], wanted, texts, lengths)

    def test(self, exported: Path) -> Mapping[str, float]:
        """Metrics of an export on the test rows."""
        if "test" not in self._rows.facts["rows"]:
            return {}
        evaluated = measured_export(
            AutoModelForSequenceClassification, exported, self._device, lambda model: self._evaluated(model, "test")
        )
        return {f"test/{name}": value for name, value in self._measured(*evaluated).items()}

    def _batches(self, epoch: int) -> Sequence[Sequence[int]]:
        config = self._config
        return epoch_order(self._train.lengths, config.batch_size, config.seed, epoch, group_by_length=config.group_by_length)

    def _weight(self, rows: Sequence[int]) -> float:
        if self._config.problem == "single-label":
            return losses.class_weight_total(self._train_labels[list(rows)], self._weights)
        return float(len(rows))

    def _loss(self, rows: Sequence[int], epoch: int) -> Tensor:
        if self._features is not None:
            self._features.use("train", rows, self._device)
        logits = self._logits(self._loop.network, *self._inputs(rows, epoch)).float()
        labels = self._train_labels[list(rows)].to(self._device)
        weights = None if self._weights is None else self._weights.to(self._device)
        gamma = self._config.focal_gamma if self._config.loss == "focal" else None
        match self._config.problem:
            case "single-label":
                return losses.class_loss(logits, labels, weights=weights, smoothing=self._config.label_smoothing, gamma=gamma)
            case "multi-label":
                return losses.multi_label_loss(logits, labels, weights=weights, gamma=gamma)
            case "regression":
                delta = self._config.huber_delta if self._config.loss == "huber" else None
                return losses.regression_loss(logits[:, 0], labels, delta=delta)

    def _inputs(self, rows: Sequence[int], epoch: int) -> tuple[Array, Array | None]:
        """Tokens of training rows, padded with -1, shape (rows, longest), and which text of a pair each is of."""
        changes = self._config.augmentation
        if not (changes.token_dropout or changes.span_masking):
            return self._padded("train", rows)
        special, seed = frozenset(self._tokenizer.all_special_ids), self._config.seed
        texts, kept = zip(
            *(augmented(self._train[row], changes, special, self._tokenizer.mask_token_id, (seed, epoch, row)) for row in rows),
            strict=True,
        )
        ids, types = padded(texts, max(map(len, texts)), -1), self._types.get("train")
        if types is None:
            return ids, None
        return ids, padded([types[row][places] for row, places in zip(rows, kept, strict=True)], ids.shape[1], 0)

    def _padded(self, split: str, rows: Sequence[int]) -> tuple[Array, Array | None]:
        """The same of any rows, as they are."""
        types = self._types.get(split)
        return self._tokens[split].padded(rows, -1), None if types is None else types.padded(rows, 0)

    def _logits(self, network: Any, ids: Array, types: Array | None) -> Tensor:
        """Shape (rows, classes), for tokens padded with -1."""
        known = torch.from_numpy(ids)
        mask = known >= 0
        inputs = {"input_ids": known.masked_fill(~mask, self._tokenizer.pad_token_id or 0), "attention_mask": mask.long()}
        if types is not None:
            inputs["token_type_ids"] = torch.from_numpy(types)
        logits: Tensor = network(**{name: tensor.to(network.device) for name, tensor in inputs.items()}).logits
        return logits

    def _validate(self) -> Mapping[str, float]:
        self._model.eval()
        self._validated = self._evaluated(self._model, "validation")
        return self._measured(*self._validated)

    def _measure(self) -> Mapping[str, float]:
        """What is measured once of the model, of one row of median length."""
        inputs = self._padded("validation", [median_row(self._tokens["validation"].lengths)])
        return measured(self._model, self._config, lambda: self._logits(self._model, *inputs), self._features)

    @torch.inference_mode()
    def _evaluated(self, model: Any, split: str) -> tuple[Tensor, Tensor]:
        """Outputs, shape (rows, classes), and what was wanted of a split's rows, in fp32."""
        tokens = self._tokens[split]
        features = self._features if model is self._model else None

        def compute(rows: Sequence[int]) -> Tensor:
            if features is not None:
                features.use(split, rows, self._device)
            return self._logits(model, *self._padded(split, rows)).float().cpu()

        outputs = torch.empty(len(tokens), len(self._names))
        for rows, found in in_batches(by_length(tokens.lengths), _VALIDATION_BATCH, compute):
            outputs[list(rows)] = found
        return outputs, torch.from_numpy(np.array(self._rows.array(f"{split}-labels")))

    def _measured(self, outputs: Tensor, wanted: Tensor) -> Mapping[str, float]:
        match self._config.problem:
            case "single-label":
                return metrics.classification_metrics(outputs, wanted)
            case "multi-label":
                return metrics.multi_label_metrics(outputs, wanted)
            case "regression":
                return metrics.regression_metrics(outputs[:, 0], wanted)

    def _head(self) -> Mapping[str, Any]:
        """What the model's configuration says of its head."""
        return {
            "id2label": dict(enumerate(self._names)),
            "label2id": {name: number for number, name in enumerate(self._names)},
            "problem_type": _PROBLEMS[self._config.problem],
            "pad_token_id": self._tokenizer.pad_token_id,
        }

    def _class_weights(self) -> Tensor | None:
        if self._config.class_weights == "none":
            return None
        labels = self._train_labels
        if self._config.problem == "multi-label":
            return torch.tensor(losses.positive_weights([int(count) for count in labels.sum(0)], len(labels)))
        return torch.tensor(losses.balanced_weights(torch.bincount(labels, minlength=len(self._names)).tolist()))

    def _as_inputs(self) -> Inputs:
        """What the frozen layers are given."""
        changes = self._config.augmentation
        return Inputs(
            rows={split: self._tokens[split] for split in ("train", "validation")},
            forward=lambda split, some: self._logits(self._model, *self._padded(split, some)),
            depends_on={"rows": self._rows.folder.name},
            change=bool(changes.token_dropout or changes.span_masking),
        )


def prepare(config: TextClassificationConfig, tokenizer: Any, folder: Path, context: TrialContext) -> Prepared:
    """Rows cleaned, divided and tokenised: `SPLIT` (tokens), `SPLIT-labels` and `validation-texts`; facts name the labels.

    `SPLIT-types` says which text of a pair a token is of, where the model is told. Labels are numbers of classes, shape (rows,);
    of several labels zeros and ones, shape (rows, classes); or numbers.
    Raises TrainerError for rows that cannot be used.
    """
    data = config.data
    files = source_files(data, context.sources)
    hashes = file_hashes(files)

    def make(into: Path) -> Mapping[str, Any]:
        read = {split: _read(path, config) for split, path in files.items()}
        division = divided(data, {split: rows.keys(config) for split, rows in read.items()})
        kept = {"train": division.train, "validation": division.validation, "test": division.test}
        names = _label_names([read[place.source].labels[place.position] for place in division.train], config)
        cut = {}
        for split, places in kept.items():
            if not places:
                continue
            texts = [read[place.source].texts[place.position] for place in places]
            pairs = [read[place.source].pairs[place.position] for place in places] if data.text_pair else None
            tokens, cut[split] = tokenised(tokenizer, texts, config.max_length, pairs)
            save_ragged(into, split, tokens)
            if pairs is not None and _has_types(config, tokenizer):
                save_ragged(into, f"{split}-types", token_types(tokenizer, texts, pairs, config.max_length))
            save_array(into, f"{split}-labels", _numbered(places, read, names, config, split))
            if split == "validation":
                save_texts(
                    into,
                    "validation-texts",
                    texts if pairs is None else [f"{one}\n{two}" for one, two in zip(texts, pairs, strict=True)],
                )
        return {**division.facts, "cut": cut, "labels": names, "sha256": hashes}

    depends_on = {
        "version": _VERSION,
        "kind": [config.kind, config.problem],
        "files": hashes,
        "data": data.model_dump(mode="json", exclude={"train", "validation", "test"}),
        "max_length": config.max_length,
        "tokenizer": tokenizer_sha256(folder),
    }
    return prepared(context.cache, depends_on, make)


def _has_types(config: TextClassificationConfig, tokenizer: Any) -> bool:
    """Whether the model is told which text of a pair a token is of."""
    return config.data.text_pair is not None and "token_type_ids" in tokenizer.model_input_names


@dataclass(frozen=True)
class _Rows:
    """The rows of one file, normalised; the second texts are empty where there are no pairs."""

    texts: Sequence[str]
    pairs: Sequence[str]
    labels: Sequence[tuple[str, ...]]

    def keys(self, config: TextClassificationConfig) -> list[Row]:
        """What dividing needs to know. Only single labels are held back in proportion, only several may be none."""
        has_pairs, has_several = bool(config.data.text_pair), config.problem == "multi-label"
        is_single = config.problem == "single-label"
        return [
            Row(
                key=(text, pair),
                stratum=labels[0] if is_single and labels else None,
                is_empty=not text or (has_pairs and not pair) or not (has_several or labels),
                labels=frozenset(labels if has_several else ()),
            )
            for text, pair, labels in zip(self.texts, self.pairs, self.labels, strict=True)
        ]


def _read(path: Path, config: TextClassificationConfig) -> _Rows:
    data, several = config.data, config.problem == "multi-label"
    wanted = [data.text, *([data.text_pair] if data.text_pair else []), *([] if several else [data.label])]
    columns = read_columns(path, wanted)
    texts = normalised(columns[data.text], data)
    pairs = normalised(columns[data.text_pair], data) if data.text_pair else [""] * len(texts)
    lists = (
        read_lists(path, {data.label: data.label_separator})[data.label] if several else [[one] for one in columns[data.label]]
    )
    labels = [tuple(dict.fromkeys(label.strip() for label in one if label.strip())) for one in lists]
    if config.problem == "regression":
        _check_numbers(path, labels)
    return _Rows(texts, pairs, labels)


def _check_numbers(path: Path, labels: Sequence[tuple[str, ...]]) -> None:
    for row, one in enumerate(labels, start=1):
        if one and not _is_number(one[0]):
            raise TrainerError("trainer_error", f"{path.name}: row {row} has the label {one[0]!r}, which is no finite number.")


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _label_names(labels: Sequence[tuple[str, ...]], config: TextClassificationConfig) -> list[str]:
    if config.problem == "regression":
        return [config.data.label]
    names = sorted({label for one in labels for label in one}, key=label_key)
    if len(names) < (1 if config.problem == "multi-label" else 2):
        only = f"only the label {names[0]!r}" if names else "no label"
        raise TrainerError(
            "trainer_error", f"The training rows have {only}: there is nothing to tell apart, so name another column or file."
        )
    return names


def _numbered(
    places: Sequence[Place], read: Mapping[str, _Rows], names: Sequence[str], config: TextClassificationConfig, split: str
) -> Array:
    labels = [read[place.source].labels[place.position] for place in places]
    if config.problem == "regression":
        return np.asarray([float(one[0]) for one in labels], dtype=np.float32)
    numbers = {name: number for number, name in enumerate(names)}
    unknown = sorted({label for one in labels for label in one} - set(numbers))
    if unknown:
        raise TrainerError("trainer_error", f"The {split} rows have labels that no training row has, such as {unknown[0]!r}.")
    if config.problem == "single-label":
        return np.asarray([numbers[one[0]] for one in labels], dtype=np.int64)
    table = np.zeros((len(labels), len(names)), dtype=np.float32)
    for row, one in enumerate(labels):
        table[row, [numbers[label] for label in one]] = 1
    return table
