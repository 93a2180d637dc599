"""Fine-tune an encoder to give each word a tag, as in entity recognition and slot filling.

A word's tag is learned and predicted at the first of its tokens. A word of which no token is left, because it is behind
`max_length` or the tokenizer makes nothing of it, has no loss and counts as predicted `O`: scores are over all words there are.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForTokenClassification

from trainers import analysis, losses, metrics
from trainers.configs import TokenClassificationConfig
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
    Ragged,
    by_length,
    epoch_order,
    padded,
    prepared,
    save_ragged,
    save_texts,
    tokenizer_sha256,
)
from trainers.ranks import Ranks
from trainers.splits import Place, Row
from trainers.texts import augmented, check_masking, divided, file_hashes, label_key, normalised, read_lists, source_files

T = TypeVar("T")

_VERSION = 2
"""Raised when what is prepared changes, so that older caches are left alone."""
_VALIDATION_BATCH = 64
_CHUNK = 1000
_OUTSIDE = "O"


class TokenClassification:
    """Fine-tune an encoder with a head that tags each word (Devlin et al. 2019, section 5.3)."""

    def __init__(self, config: TokenClassificationConfig, context: TrialContext, ranks: Ranks | None = None) -> None:
        """Load the model and the rows. Raises TrainerError when they do not fit."""
        self._config = config
        self._device = open_device(context)
        folder = folder_of(config, context)
        self._tokenizer = _word_tokenizer(folder)
        check_masking(config.augmentation, self._tokenizer)
        self._rows = prepare(config, self._tokenizer, folder, context)
        self._names: Sequence[str] = self._rows.facts["labels"]
        loaded = load_model(AutoModelForTokenClassification, folder, config, self._head())
        check_length("max_length", config.max_length, loaded.model.config)
        self._model = add_adapters(loaded, config)
        self._loop = Loop(config, context, self._device, self._model, ranks)
        self._train = self._sentences("train")
        self._weights = self._class_weights()
        self._features: FrozenFeatures | None = frozen_features(
            loaded, self._loop.freezing, config, folder, context.cache, self._as_inputs()
        )
        self._validated: Tensor | None = None

    @property
    def facts(self) -> Mapping[str, Any]:
        """Rows, tags, parameters and what they were computed with."""
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
        """Write model, configuration with the tags' names, and tokenizer."""
        export_model(self._model, self._config, directory)
        export_tokenizer(self._tokenizer, self._config.max_length, directory)

    def analysis(self) -> Mapping[str, Any]:
        """Where the validation rows of the last report went wrong."""
        if self._validated is None:
            return {}
        sentences = self._sentences("validation")
        certain = self._validated.double().softmax(-1).amax(-1)
        certain[~sentences.seen] = torch.nan
        return analysis.tagged_words(
            self._predicted(sentences, self._validated),
            self._wanted(sentences),
            sentences.by_row(self._rows.texts("validation-words")),
            sentences.by_row(certain.tolist()),
        )

    def test(self, exported: Path) -> Mapping[str, float]:
        """Metrics of an export on the test rows."""
        if "test" not in self._rows.facts["rows"]:
            return {}
        outputs = measured_export(
            AutoModelForTokenClassification, exported, self._device, lambda model: self._evaluated(model, "test")
        )
        return {f"test/{name}": value for name, value in self._measured("test", outputs).items()}

    def _batches(self, epoch: int) -> Sequence[Sequence[int]]:
        config, lengths = self._config, self._train.tokens.lengths
        return epoch_order(lengths, config.batch_size, config.seed, epoch, group_by_length=config.group_by_length)

    def _weight(self, rows: Sequence[int]) -> float:
        return losses.class_weight_total(torch.from_numpy(self._train.labels(rows)), self._weights)

    def _loss(self, rows: Sequence[int], epoch: int) -> Tensor:
        if self._features is not None:
            self._features.use("train", rows, self._device)
        ids, left = self._inputs(rows, epoch)
        logits, labels = self._logits(self._loop.network, ids).float(), left.to(self._device)
        weights = None if self._weights is None else self._weights.to(self._device)
        gamma = self._config.focal_gamma if self._config.loss == "focal" else None
        loss = partial(losses.class_loss, weights=weights, smoothing=self._config.label_smoothing, gamma=gamma)
        if not self._config.augmentation.token_dropout:
            return loss(logits.flatten(0, 1), labels.flatten())
        # The words that are left of a row stand for all of its words, by which the loop divides.
        shares = [self._weight([row]) / losses.class_weight_total(left[at], self._weights) for at, row in enumerate(rows)]
        return torch.stack([share * loss(logits[at], labels[at]) for at, share in enumerate(shares)]).sum()

    def _inputs(self, rows: Sequence[int], epoch: int) -> tuple[Array, Tensor]:
        """Tokens of training rows, padded with -1, and the tags to learn at them, both of shape (rows, longest)."""
        changes = self._config.augmentation
        if not (changes.token_dropout or changes.span_masking):
            return self._train.tokens.padded(rows, -1), torch.from_numpy(self._train.labels(rows))
        special, seed = frozenset(self._tokenizer.all_special_ids), self._config.seed
        tokens, mask = self._train.tokens, self._tokenizer.mask_token_id
        changed = [augmented(tokens[row], changes, special, mask, (seed, epoch, row)) for row in rows]
        longest = max(len(kept) for _, kept in changed)
        labels = [self._train.labels_of(row, kept) for row, (_, kept) in zip(rows, changed, strict=True)]
        return padded([ids for ids, _ in changed], longest, -1), torch.from_numpy(padded(labels, longest, losses.IGNORED))

    def _logits(self, network: Any, ids: Array) -> Tensor:
        """Shape (rows, longest, tags), for tokens padded with -1."""
        known = torch.from_numpy(ids)
        mask = known >= 0
        known = known.masked_fill(~mask, self._tokenizer.pad_token_id or 0)
        logits: Tensor = network(input_ids=known.to(network.device), attention_mask=mask.long().to(network.device)).logits
        return logits

    def _validate(self) -> Mapping[str, float]:
        self._model.eval()
        self._validated = self._evaluated(self._model, "validation")
        return self._measured("validation", self._validated)

    def _measure(self) -> Mapping[str, float]:
        """What is measured once of the model, of one row of median length."""
        tokens = self._sentences("validation").tokens
        inputs = tokens.padded([median_row(tokens.lengths)], -1)
        return measured(self._model, self._config, lambda: self._logits(self._model, inputs), self._features)

    @torch.inference_mode()
    def _evaluated(self, model: Any, split: str) -> Tensor:
        """Outputs for all words of a split, shape (words, tags), in fp32; zeros for a word of which no token is left."""
        sentences = self._sentences(split)
        features = self._features if model is self._model else None

        def compute(rows: Sequence[int]) -> Tensor:
            if features is not None:
                features.use(split, rows, self._device)
            logits = self._logits(model, sentences.tokens.padded(rows, -1)).float().cpu()
            return logits[torch.from_numpy(sentences.labels(rows) != losses.IGNORED)]

        outputs = torch.zeros(len(sentences.tags.values), len(self._names))
        for rows, found in in_batches(by_length(sentences.tokens.lengths), _VALIDATION_BATCH, compute):
            outputs[np.concatenate([sentences.places(row) for row in rows])] = found
        return outputs

    def _measured(self, split: str, outputs: Tensor) -> Mapping[str, float]:
        sentences = self._sentences(split)
        seen, wanted = sentences.seen, torch.from_numpy(sentences.tags.values.astype(np.int64))
        return {
            **metrics.entity_metrics(self._predicted(sentences, outputs), self._wanted(sentences)),
            "loss": float(cross_entropy(outputs[seen].double(), wanted[seen])),
        }

    def _predicted(self, sentences: "_Sentences", outputs: Tensor) -> list[list[str]]:
        pairs = zip(outputs.argmax(-1).tolist(), sentences.seen.tolist(), strict=True)
        return sentences.by_row([self._names[number] if is_seen else _OUTSIDE for number, is_seen in pairs])

    def _wanted(self, sentences: "_Sentences") -> list[list[str]]:
        return sentences.by_row([self._names[number] for number in sentences.tags.values.tolist()])

    def _sentences(self, split: str) -> "_Sentences":
        return _Sentences(*(self._rows.ragged(name) for name in (split, f"{split}-places", f"{split}-tags")))

    def _head(self) -> Mapping[str, Any]:
        """What the model's configuration says of its head."""
        return {
            "id2label": dict(enumerate(self._names)),
            "label2id": {name: number for number, name in enumerate(self._names)},
            "pad_token_id": self._tokenizer.pad_token_id,
        }

    def _class_weights(self) -> Tensor | None:
        if self._config.class_weights == "none":
            return None
        learned = self._train.tags.values[self._train.seen.numpy()]
        return torch.tensor(losses.balanced_weights(np.bincount(learned, minlength=len(self._names)).tolist()))

    def _as_inputs(self) -> Inputs:
        """What the frozen layers are given."""
        changes = self._config.augmentation
        rows = {split: self._rows.ragged(split) for split in ("train", "validation")}
        return Inputs(
            rows=rows,
            forward=lambda split, some: self._logits(self._model, rows[split].padded(some, -1)),
            depends_on={"rows": self._rows.folder.name},
            change=bool(changes.token_dropout or changes.span_masking),
        )


@dataclass(frozen=True)
class _Sentences:
    """The rows of a split: their tokens, the place in its sentence of each token's word (-1 for none), and each word's tag."""

    tokens: Ragged
    words: Ragged
    tags: Ragged

    def labels(self, rows: Sequence[int]) -> Array:
        """The tags to learn, shape (rows, longest)."""
        labels = [self.labels_of(row) for row in rows]
        return padded(labels, max(map(len, labels)), losses.IGNORED)

    def labels_of(self, row: int, kept: Array | None = None) -> Array:
        """Each word's tag at the first of its tokens, of those that are kept; all others are not to be learned."""
        words = self.words[row] if kept is None else self.words[row][kept]
        is_first = (words >= 0) & (np.diff(words, prepend=-1) != 0)
        labels: Array = np.where(is_first, self.tags[row][words], losses.IGNORED)
        return labels

    def places(self, row: int) -> Array:
        """Where the words of a row that have tokens are among the words of all rows."""
        words = self.words[row]
        places: Array = self.tags.offsets[row] + np.unique(words[words >= 0])
        return places

    @property
    def seen(self) -> Tensor:
        """Whether there is a token of each word of all rows."""
        places = np.repeat(self.tags.offsets[:-1], self.words.lengths) + self.words.values
        seen = np.zeros(len(self.tags.values), dtype=bool)
        seen[places[self.words.values >= 0]] = True
        return torch.from_numpy(seen)

    def by_row(self, values: Sequence[T]) -> list[list[T]]:
        """What there is for each word of all rows, row by row."""
        return [list(values[start:end]) for start, end in pairwise(self.tags.offsets.tolist())]


def prepare(config: TokenClassificationConfig, tokenizer: Any, folder: Path, context: TrialContext) -> Prepared:
    """Rows cleaned, divided and tokenised: what `_Sentences` holds, and all `validation-words`; facts name the tags.

    Raises TrainerError for rows that cannot be used.
    """
    data = config.data
    files = source_files(data, context.sources)
    hashes = file_hashes(files)

    def make(into: Path) -> Mapping[str, Any]:
        read = {split: _read(path, config, tokenizer) for split, path in files.items()}
        division = divided(data, {split: rows.keys() for split, rows in read.items()})
        kept = {"train": division.train, "validation": division.validation, "test": division.test}
        names = _tag_names([read[place.source].tags[place.position] for place in division.train])
        cut = {}
        for split, places in kept.items():
            if not places:
                continue
            encoded = [read[place.source].encoded[place.position] for place in places]
            save_ragged(into, split, [row.tokens for row in encoded])
            save_ragged(into, f"{split}-places", [row.words for row in encoded])
            save_ragged(into, f"{split}-tags", _numbered(places, read, names, split))
            cut[split] = sum(row.is_cut for row in encoded)
            if split == "validation":
                words = [word for place in places for word in read[place.source].words[place.position]]
                save_texts(into, "validation-words", words)
        return {**division.facts, "cut": cut, "labels": names, "sha256": hashes}

    depends_on = {
        "version": _VERSION,
        "kind": config.kind,
        "files": hashes,
        "data": data.model_dump(mode="json", exclude={"train", "validation", "test"}),
        "max_length": config.max_length,
        "tokenizer": tokenizer_sha256(folder),
    }
    return prepared(context.cache, depends_on, make)


class _Encoded(NamedTuple):
    """A sentence's tokens, and the place of each token's word in it, -1 for none."""

    tokens: Sequence[int]
    words: Sequence[int]
    is_cut: bool


@dataclass(frozen=True)
class _Rows:
    """The rows of one file, normalised and tokenised."""

    words: Sequence[tuple[str, ...]]
    tags: Sequence[Sequence[str]]
    encoded: Sequence[_Encoded]

    def keys(self) -> list[Row]:
        """What dividing needs to know."""
        return [
            Row(key=words, is_empty=max(encoded.words, default=-1) < 0, labels=frozenset(tags))
            for words, tags, encoded in zip(self.words, self.tags, self.encoded, strict=True)
        ]


def _read(path: Path, config: TokenClassificationConfig, tokenizer: Any) -> _Rows:
    data = config.data
    columns = read_lists(path, {data.tokens: None, data.tags: None})
    tags = [[tag.strip() for tag in row] for row in columns[data.tags]]
    for row, (some, theirs) in enumerate(zip(columns[data.tokens], tags, strict=True), start=1):
        if len(some) != len(theirs) or not all(theirs):
            counts = f"{len(some)} words and {sum(map(bool, theirs))} tags"
            raise TrainerError("trainer_error", f"{path.name}: row {row} has {counts}: give each word one tag.")
    words = [tuple(normalised(row, data)) for row in columns[data.tokens]]
    return _Rows(words, tags, _tokenised(tokenizer, words, config.max_length))


def _tokenised(tokenizer: Any, sentences: Sequence[Sequence[str]], max_length: int) -> list[_Encoded]:
    rows = []
    for start in range(0, len(sentences), _CHUNK):
        some = [list(words) for words in sentences[start : start + _CHUNK]]
        found = tokenizer(some, is_split_into_words=True, truncation=True, max_length=max_length).encodings
        rows += [
            _Encoded(one.ids, [-1 if word is None else word for word in one.word_ids], bool(one.overflowing)) for one in found
        ]
    return rows


def _word_tokenizer(folder: Path) -> Any:
    """A tokenizer that knows which word each token is of. Raises TrainerError."""
    # Where the space before a word is part of its tokens, as with RoBERTa, a word that stands alone needs one too.
    tokenizer = load_tokenizer(folder, add_prefix_space=True)
    if not tokenizer.is_fast:
        detail = f"The tokenizer of {folder.name} does not say which word a token is of: use a model with a `tokenizer.json`."
        raise TrainerError("trainer_error", detail)
    before = tokenizer.backend_tokenizer.pre_tokenizer
    if isinstance(before, ByteLevel):  # transformers hears the wish for some classes of tokenizers alone
        before.add_prefix_space = True
    return tokenizer


def _tag_names(tags: Sequence[Sequence[str]]) -> list[str]:
    """The tags, `O` first where there is one."""
    names = sorted({tag for row in tags for tag in row}, key=lambda tag: (tag != _OUTSIDE, *label_key(tag)))
    if len(names) == 1:
        detail = f"The training rows have only the tag {names[0]!r}: there is nothing to learn, so name another column or file."
        raise TrainerError("trainer_error", detail)
    return names


def _numbered(places: Sequence[Place], read: Mapping[str, _Rows], names: Sequence[str], split: str) -> list[list[int]]:
    tags = [read[place.source].tags[place.position] for place in places]
    numbers = {name: number for number, name in enumerate(names)}
    unknown = sorted({tag for row in tags for tag in row} - set(numbers))
    if unknown:
        raise TrainerError("trainer_error", f"The {split} rows have tags that no training row has, such as {unknown[0]!r}.")
    return [[numbers[tag] for tag in row] for row in tags]
