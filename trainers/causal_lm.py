"""Fine-tune a decoder on plain texts, or on instructions with their answers.

Plain texts are joined, each with an end-of-text token behind it, and cut into rows of equal length: no step pays for padding, and
a text may look back at those before it in its row. Of an instruction with its answer the loss counts the answer alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import TemplateError
from torch import Tensor
from transformers import AutoModelForCausalLM

from trainers import analysis, losses, metrics
from trainers.analysis import Tokens
from trainers.configs import CausalLmConfig
from trainers.contract import Report, TrainerError, TrialContext
from trainers.hardware import open_device
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
    Prepared,
    epoch_order,
    prepared,
    save_array,
    save_ragged,
    save_texts,
    tokenizer_sha256,
)
from trainers.ranks import Ranks
from trainers.scoring import scored
from trainers.splits import Row
from trainers.texts import divided, file_hashes, normalised, read_columns, source_files

_VERSION = 2
"""Raised when what is prepared changes, so that older caches are left alone."""
_CHUNK = 1000


class CausalLm:
    """Fine-tune a decoder to predict the next token (Radford et al. 2018, section 3.1)."""

    def __init__(self, config: CausalLmConfig, context: TrialContext, ranks: Ranks | None = None) -> None:
        """Load the model and the rows. Raises TrainerError when they do not fit."""
        self._config = config
        self._device = open_device(context)
        folder = folder_of(config, context)
        self._tokenizer = load_tokenizer(folder)
        loaded = load_model(AutoModelForCausalLM, folder, config, {})
        check_length("max_length", config.max_length, loaded.model.config)
        self._rows = prepare(config, self._tokenizer, folder, context)
        self._model = add_adapters(loaded, config)
        self._loop = Loop(config, context, self._device, self._model, ranks)
        self._tokens = {split: self._rows.ragged(split) for split in self._rows.facts["rows"]}
        self._starts = {split: self._rows.array(f"{split}-starts") for split in self._tokens}
        self._validated: Tokens | None = None

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
        return analysis.language("causal-lm", self._validated, self._rows.texts("validation-texts"))

    def test(self, exported: Path) -> Mapping[str, float]:
        """Metrics of an export on the test rows."""
        if "test" not in self._rows.facts["rows"]:
            return {}
        tokens = measured_export(AutoModelForCausalLM, exported, self._device, lambda model: self._evaluated(model, "test"))
        return {f"test/{name}": value for name, value in _measured(tokens).items()}

    def _batches(self, epoch: int) -> Sequence[Sequence[int]]:
        config, lengths = self._config, self._tokens["train"].lengths
        return epoch_order(lengths, config.batch_size, config.seed, epoch, group_by_length=config.group_by_length)

    def _weight(self, rows: Sequence[int]) -> float:
        some = list(rows)
        return float((self._tokens["train"].lengths[some] - self._starts["train"][some]).sum())

    def _loss(self, rows: Sequence[int], _epoch: int) -> Tensor:
        logits, wanted, _ = self._predicted(self._loop.network, "train", rows)
        return losses.class_loss(logits.float(), wanted, smoothing=self._config.label_smoothing)

    def _predicted(self, network: Any, split: str, rows: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """The tokens to be predicted, row by row: logits of shape (tokens, vocabulary), numbers, and places in `rows`.

        Nothing is computed over the vocabulary for the other tokens, which are most of them where answers are short.
        """
        ids = torch.from_numpy(self._tokens[split].padded(rows, -1))
        starts = torch.from_numpy(self._starts[split][list(rows)])
        known = ids >= 0
        wanted = known & (torch.arange(ids.shape[1]) >= starts[:, None])
        before = wanted.roll(-1, dims=1)  # the first token of a row is never wanted
        logits = network(
            input_ids=ids.masked_fill(~known, _padding(self._tokenizer)).to(network.device),
            attention_mask=known.long().to(network.device),
            logits_to_keep=before.to(network.device),
            use_cache=False,
        ).logits
        return logits, ids[wanted].to(network.device), wanted.nonzero()

    def _validate(self) -> Mapping[str, float]:
        self._model.eval()
        self._validated = self._evaluated(self._model, "validation")
        return _measured(self._validated)

    def _measure(self) -> Mapping[str, float]:
        """What is measured once of the model, of one row of median length."""
        row = median_row(self._tokens["validation"].lengths)
        return measured(self._model, self._config, lambda: self._predicted(self._model, "validation", [row]))

    def _evaluated(self, model: Any, split: str) -> Tokens:
        """How well each token of a split is predicted, in fp32; rows are pairs, or documents."""
        tokens, starts = self._tokens[split], self._starts[split]
        documents = self._rows.array(f"{split}-documents") if self._config.data.text else None

        def predict(rows: Sequence[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            logits, wanted, places = self._predicted(model, split, rows)
            row, column = np.asarray(rows)[places[:, 0].numpy()], places[:, 1].numpy()
            of = row if documents is None else documents[tokens.offsets[row] + column]
            return logits, wanted, torch.from_numpy(of), torch.from_numpy(column - starts[row])

        return scored(tokens.lengths, model.config.vocab_size, predict)


def prepare(config: CausalLmConfig, tokenizer: Any, folder: Path, context: TrialContext) -> Prepared:
    """Rows cleaned, divided and tokenised: `SPLIT` (tokens), `SPLIT-starts` (the first of each row to predict), and texts.

    `validation-texts` are pairs, or plain documents; then `SPLIT-documents` says which of them each token is from. Raises
    TrainerError for rows that cannot be used.
    """
    data = config.data
    if tokenizer.eos_token_id is None:
        raise TrainerError(
            "trainer_error", f"The tokenizer of {folder.name} has no end-of-text token: use one with an `eos_token`."
        )
    if data.text is None and data.template == "chat" and tokenizer.chat_template is None:
        detail = f"The tokenizer of {folder.name} has no chat template: write a `template` with {{prompt}} in it."
        raise TrainerError("trainer_error", detail)
    files = source_files(data, context.sources)
    hashes = file_hashes(files)

    def make(into: Path) -> Mapping[str, Any]:
        read = {split: _read(path, config) for split, path in files.items()}
        division = divided(data, {split: rows.keys() for split, rows in read.items()})
        kept = {"train": division.train, "validation": division.validation, "test": division.test}
        counts: dict[str, dict[str, int]] = {}
        for split, places in kept.items():
            if not places:
                continue
            rows = _Rows(
                [read[place.source].prompts[place.position] for place in places] if data.text is None else (),
                [read[place.source].texts[place.position] for place in places],
            )
            write = _write_documents if data.text else _write_pairs
            counts[split] = write(into, split, rows, tokenizer, config)
        by_name = {name: {split: found[name] for split, found in counts.items()} for name in counts["train"]}
        return {**division.facts, **by_name, "sha256": hashes}

    depends_on = {
        "version": _VERSION,
        "kind": config.kind,
        "files": hashes,
        "data": data.model_dump(mode="json", exclude={"train", "validation", "test"}),
        "max_length": config.max_length,
        "tokenizer": tokenizer_sha256(folder),
    }
    return prepared(context.cache, depends_on, make)


@dataclass(frozen=True)
class _Rows:
    """The rows of one file or split, normalised: answers with their prompts, or plain texts without."""

    prompts: Sequence[str]
    texts: Sequence[str]

    def keys(self) -> list[Row]:
        """What dividing needs to know. A prompt may have several answers, each a row of its own, but all of them in one split."""
        prompts = self.prompts or [""] * len(self.texts)
        return [
            Row(key=(prompt, text), is_empty=not text, group=prompt or None)
            for prompt, text in zip(prompts, self.texts, strict=True)
        ]


def _read(path: Path, config: CausalLmConfig) -> _Rows:
    data = config.data
    if data.text is not None:
        return _Rows((), normalised(read_columns(path, [data.text])[data.text], data))
    columns = read_columns(path, [data.prompt, data.answer])
    return _Rows(normalised(columns[data.prompt], data), normalised(columns[data.answer], data))


def _write_documents(into: Path, split: str, rows: _Rows, tokenizer: Any, config: CausalLmConfig) -> dict[str, int]:
    """Write a split's documents as one stream of tokens, cut into rows; a last row of a single token predicts nothing."""
    first, last = _start(tokenizer), [tokenizer.eos_token_id]
    documents = [np.asarray([*first, *found, *last], dtype=np.int32) for found in _tokenised(tokenizer, rows.texts)]
    stream = np.concatenate(documents)
    ends = np.arange(config.max_length, len(stream), config.max_length)
    length = len(stream) - 1 if len(ends) and len(stream) - ends[-1] == 1 else len(stream)
    offsets = np.concatenate([[0], ends[ends < length], [length]]).astype(np.int64)
    save_array(into, split, stream[:length])
    save_array(into, f"{split}-offsets", offsets)
    save_array(into, f"{split}-starts", np.ones(len(offsets) - 1, dtype=np.int64))
    if split != "train":
        numbers = np.arange(len(documents), dtype=np.int64)
        save_array(into, f"{split}-documents", np.repeat(numbers, [len(one) for one in documents])[:length])
    if split == "validation":
        save_texts(into, "validation-texts", rows.texts)
    return {"rows": len(documents), "packed": len(offsets) - 1, "tokens": int(length - len(offsets) + 1)}


def _write_pairs(into: Path, split: str, rows: _Rows, tokenizer: Any, config: CausalLmConfig) -> dict[str, int]:
    """Write a split's prompts with their answers, but for answers that leave no room. Raises TrainerError for none left."""
    prompts, answers = _prompts(tokenizer, rows.prompts, config.data.template), _tokenised(tokenizer, rows.texts)
    tokens: list[list[int]] = []
    starts: list[int] = []
    kept: list[int] = []
    cut = 0
    for number, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        first = prompt[:1] if prompt[0] == tokenizer.bos_token_id else []
        room = config.max_length - len(answer) - 1
        if room < min(len(prompt), len(first) + 1):
            continue
        if room < len(prompt):
            cut += 1
            prompt = [*first, *prompt[len(prompt) - room + len(first) :]]  # noqa: PLW2901 - the end of it, next to the answer
        tokens.append([*prompt, *answer, tokenizer.eos_token_id])
        starts.append(len(prompt))
        kept.append(number)
    if not kept:
        detail = f"No answer of the {split} rows fits into the `max_length` of {config.max_length} tokens: raise it."
        raise TrainerError("trainer_error", detail)
    save_ragged(into, split, tokens)
    save_array(into, f"{split}-starts", np.asarray(starts, dtype=np.int64))
    if split == "validation":
        save_texts(into, "validation-texts", [f"{rows.prompts[number]}\n{rows.texts[number]}" for number in kept])
    count = sum(map(len, tokens)) - sum(starts)
    return {"rows": len(kept), "cut": cut, "too_long": len(rows.texts) - len(kept), "tokens": count}


def _prompts(tokenizer: Any, prompts: Sequence[str], template: str) -> list[list[int]]:
    """What the model reads before each answer: never nothing, as the first token of the answer is predicted from it."""
    if template == "chat":
        chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
        try:
            found = tokenizer.apply_chat_template(chats, add_generation_prompt=True, tokenize=True, return_dict=False)
        except TemplateError as error:
            detail = f"The tokenizer's chat template takes no single message: {error}. Write a `template` with {{prompt}} in it."
            raise TrainerError("trainer_error", detail) from error
    else:
        first = _start(tokenizer)
        texts = [template.replace("{prompt}", prompt) for prompt in prompts]
        found = [[*first, *one] for one in _tokenised(tokenizer, texts)]
    return [one or [tokenizer.eos_token_id] for one in found]


def _tokenised(tokenizer: Any, texts: Sequence[str]) -> Iterator[list[int]]:
    """Token numbers of each text, without special ones."""
    for at in range(0, len(texts), _CHUNK):
        chunk = list(texts[at : at + _CHUNK])
        yield from tokenizer(chunk, add_special_tokens=False, return_attention_mask=False)["input_ids"]


def _start(tokenizer: Any) -> list[int]:
    """The token that the tokenizer puts before every text, if any."""
    first: list[int] = tokenizer("")["input_ids"][:1]
    return first if first == [tokenizer.bos_token_id] else []


def _padding(tokenizer: Any) -> int:
    """A token that nothing looks at."""
    return int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)


def _measured(tokens: Tokens) -> Mapping[str, float]:
    return metrics.language_metrics(float(tokens.losses.double().sum()), int(tokens.right.sum()), len(tokens.losses))
