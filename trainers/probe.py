"""How well base models do on somebody's rows as they are, to choose one before anything is trained.

    python -m trainers.probe < request.json

Reads a `Request` as JSON and writes one JSON object a line: `{"model": ..., "metrics": {...}, ...}` for each model as it is
done, `{"model": ..., "failure": ...}` for one that cannot be tried, or a single `{"error": ...}` when the rows are no use.

Classification: features of up to 1,000 rows are computed once by the frozen network, and a linear head is fitted to them and
scored on rows held back ("linear probe": Alain and Bengio 2016). Generation: the negative log-likelihood of up to 200 rows in
bits per byte of text, which does not depend on how a tokenizer cuts texts.
"""

import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from trainers import tables
from trainers.contract import TrainerError
from trainers.images import read_images
from trainers.linear_head import held_back_logits
from trainers.metrics import classification_metrics, entity_metrics
from trainers.prepared import file_sha256, prepared, save_array, tokenizer_sha256, weights_sha256
from trainers.probe_networks import (
    continued,
    image_features,
    load_network,
    load_tokenizer,
    text_features,
    word_features,
    written_after,
)

_VERSION = 1
"""Of how features are computed: others are not looked at."""
_MOST_ROWS = 1000
_MOST_SENTENCES = 300
_MOST_IMAGES = 300
_MOST_TEXTS = 200
_MOST_LABELS_SHARE = 0.5


@dataclass(frozen=True)
class Request:
    """What to try. `columns` names columns by their role, `models` maps names to folders, `cache` is for features.

    After `seconds` the process ends itself, whoever still waits for it.
    """

    kind: str
    rows: str
    columns: Mapping[str, str]
    models: Mapping[str, str]
    cache: str
    seed: int = 0
    threads: int = 1
    seconds: int = 600


@dataclass(frozen=True)
class Result:
    """How one model did on `rows` rows; `milliseconds_per_row` is what one took when it was computed, loading included."""

    metrics: Mapping[str, float]
    milliseconds_per_row: float
    rows: int


class UselessRowsError(ValueError):
    """Nothing can be learned from these rows; the message says what to do."""


@dataclass(frozen=True)
class _Task:
    """`load` reads the rows, of which there are `len`; `run` tries one model on them."""

    load: Callable[[Request], Sequence[Any]]
    run: Callable[[Request, Path, Sequence[Any]], Result]


@dataclass(frozen=True)
class _Labelled:
    """Something to look at, and its label or its words' tags."""

    content: Any
    labels: tuple[str, ...] = field(default=())


def main() -> int:
    """Answer the request on stdin."""
    request = Request(**json.load(sys.stdin))
    signal.alarm(request.seconds)
    os.nice(10)  # trials come first
    torch.set_num_threads(request.threads)
    for line in probe(request):
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
    return 0


def probe(request: Request) -> Iterator[Mapping[str, Any]]:
    """The lines of the answer, one for each model as it is done."""
    task = _TASKS[request.kind]
    try:
        rows = task.load(request)
    except (UselessRowsError, tables.TableError, OSError) as error:
        yield {"error": str(error)}
        return
    for name, folder in request.models.items():
        try:
            result = task.run(request, Path(folder), rows)
        except (TrainerError, OSError, ValueError, RuntimeError, KeyError, AttributeError, TypeError, IndexError) as error:
            yield {"model": name, "failure": f"{name} could not be tried: {error}"}
            continue
        taken = result.milliseconds_per_row
        yield {"model": name, "metrics": dict(result.metrics), "milliseconds_per_row": taken, "rows": result.rows}


def _load_texts(request: Request) -> Sequence[_Labelled]:
    text, label = request.columns["text"], request.columns["label"]
    read = tables.read(Path(request.rows), [text, label])
    pairs = [((one or "").strip(), (other or "").strip()) for one, other in zip(read[text], read[label], strict=True)]
    return _useful([_Labelled(one, (other,)) for one, other in pairs if one and other], request, _MOST_ROWS)


def _load_sentences(request: Request) -> Sequence[_Labelled]:
    tokens, tags = request.columns["text"], request.columns["label"]
    read = tables.read_lists(Path(request.rows), {tokens: None, tags: None})
    pairs = zip(read[tokens], read[tags], strict=True)
    rows = [_Labelled(words, tuple(named)) for words, named in pairs if words and named and len(words) == len(named)]
    return _useful(rows, request, _MOST_SENTENCES)


def _load_images(request: Request) -> Sequence[_Labelled]:
    pictures = read_images(Path(request.rows), request.columns["text"], request.columns["label"])
    whole = [at for at, label in enumerate(pictures.labels) if label]
    wanted = set(_drawn(whole, request, _MOST_IMAGES))
    rows = [
        _Labelled(picture.pixels, (picture.label,)) for at, picture in enumerate(pictures) if at in wanted and picture.pixels.size
    ]
    return _useful(rows, request, _MOST_IMAGES)


def _useful(rows: Sequence[_Labelled], request: Request, most: int) -> Sequence[_Labelled]:
    """Some of the rows, drawn by the seed. Raises UselessRowsError."""
    label = request.columns["label"]
    drawn = _drawn(rows, request, most)
    labels = {name for row in drawn for name in row.labels}
    if len(labels) <= 1:
        raise UselessRowsError(f"the rows have {len(labels)} labels in `{label}`: name a column with two or more")
    if len(labels) > max(2, _MOST_LABELS_SHARE * sum(len(row.labels) for row in drawn)):
        raise UselessRowsError(f"nearly every row has a label of its own in `{label}`: name the column with the labels")
    return drawn


def _load_generated(request: Request) -> Sequence[_Labelled]:
    names = [request.columns["text"], *([request.columns["label"]] if request.kind == "seq2seq" else [])]
    read = tables.read(Path(request.rows), names)
    texts = list(zip(*([(value or "").strip() for value in read[name]] for name in names), strict=True))
    drawn = _drawn([_Labelled(row) for row in texts if all(row)], request, _MOST_TEXTS)
    if not drawn:
        raise UselessRowsError(f"no row has text in `{'` and `'.join(names)}`: name other columns")
    return drawn


def _drawn(rows: Sequence[Any], request: Request, most: int) -> list[Any]:
    """At most so many of them, by the seed, in their order."""
    picked = np.random.default_rng(request.seed).permutation(len(rows))[:most]
    return [rows[at] for at in sorted(picked.tolist())]


def _classify(request: Request, folder: Path, rows: Sequence[_Labelled]) -> Result:
    """A linear head over one vector for each row."""
    compute = image_features if request.kind == "image-classification" else text_features
    features, milliseconds = _features(
        request, folder, rows, lambda: (compute(folder, [row.content for row in rows]), [1] * len(rows))
    )
    names = sorted({row.labels[0] for row in rows})
    wanted = [names.index(row.labels[0]) for row in rows]
    scored = dict(held_back_logits(features, [[number] for number in wanted], len(names), request.seed))
    order = sorted(scored)
    metrics = classification_metrics(torch.cat([scored[row] for row in order]), torch.tensor([wanted[row] for row in order]))
    return Result({key: metrics[key] for key in ("accuracy", "f1_macro")}, milliseconds, len(rows))


def _tag(request: Request, folder: Path, rows: Sequence[_Labelled]) -> Result:
    """A linear head over one vector for each word: that of its first token."""

    def compute() -> tuple[Tensor, list[int]]:
        states = word_features(folder, [row.content for row in rows])
        return torch.cat(states), [len(one) for one in states]

    features, milliseconds = _features(request, folder, rows, compute)
    names = sorted({tag for row in rows for tag in row.labels})
    seen = [row.labels[: len(found)] for row, found in zip(rows, features, strict=True)]
    numbers = [[names.index(tag) for tag in tags] for tags in seen]
    scored = dict(held_back_logits(features, numbers, len(names), request.seed))
    predicted = [[names[int(number)] for number in scored[row].argmax(-1)] for row in sorted(scored)]
    metrics = entity_metrics(predicted, [seen[row] for row in sorted(scored)])
    return Result({key: metrics[key] for key in ("f1", "accuracy")}, milliseconds, len(rows))


def _features(
    request: Request, folder: Path, rows: Sequence[_Labelled], compute: Callable[[], tuple[Tensor, list[int]]]
) -> tuple[list[Tensor], float]:
    """Features of each row, shape (vectors, width), and the milliseconds a row took: computed once for a file and a model."""
    depends_on = {
        "version": _VERSION, "kind": request.kind, "rows": file_sha256(Path(request.rows)), "column": request.columns["text"],
        "label": request.columns["label"], "seed": request.seed, "weights": weights_sha256(folder),
        "tokenizer": tokenizer_sha256(folder),
    }  # fmt: skip

    def make(target: Path) -> Mapping[str, Any]:
        begun = time.perf_counter()
        features, counts = compute()
        taken = (time.perf_counter() - begun) * 1000 / len(rows)
        save_array(target, "features", features.numpy())
        return {"counts": counts, "milliseconds_per_row": taken}

    found = prepared(Path(request.cache), depends_on, make)
    features = torch.from_numpy(np.array(found.array("features")))
    return list(torch.split(features, found.facts["counts"])), float(found.facts["milliseconds_per_row"])


def _generate(request: Request, folder: Path, rows: Sequence[_Labelled]) -> Result:
    """Bits per byte of text, over all rows."""
    tokenizer = load_tokenizer(folder)
    is_pair = request.kind == "seq2seq"
    model = load_network(folder, AutoModelForSeq2SeqLM if is_pair else AutoModelForCausalLM)
    measure = written_after if is_pair else continued
    begun = time.perf_counter()
    measured = [measure(model, tokenizer, *row.content) for row in rows]
    taken = (time.perf_counter() - begun) * 1000 / len(rows)
    length = sum(count for _, count in measured)
    if not length:
        raise ValueError("its tokenizer makes nothing of these texts")
    return Result({"bits_per_byte": sum(nats for nats, _ in measured) / math.log(2) / length}, taken, len(rows))


_TASKS: Mapping[str, _Task] = {
    "text-classification": _Task(_load_texts, _classify),
    "token-classification": _Task(_load_sentences, _tag),
    "image-classification": _Task(_load_images, _classify),
    "causal-lm": _Task(_load_generated, _generate),
    "seq2seq": _Task(_load_generated, _generate),
}

if __name__ == "__main__":
    sys.exit(main())
