"""Where predictions go wrong: validation outputs in, a JSON object out.

Every object has `task`, `rows` and `metrics`. Pairs of classes are triples `[label, predicted, count]` of indices into `labels`;
what is long is cut: the 100 worst rows, 500 characters of a text. Floats are rounded to 6 digits; what is not finite is null.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from trainers.metrics import (
    classification_metrics,
    entities,
    entity_metrics,
    exact_match,
    language_metrics,
    multi_label_metrics,
    regression_metrics,
    rouge_l,
)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_WORST = 100
_CHARACTERS = 500
_CALIBRATION_BINS = 15
_LENGTH_BUCKETS = 5
_VALUE_BUCKETS = 10
_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def text_labels(
    logits: Tensor, labels: Tensor, names: Sequence[str], texts: Sequence[str], lengths: Sequence[int]
) -> Mapping[str, Any]:
    """Texts with one label each. `logits` has shape (rows, classes); `names` has one name for each class, `lengths` tokens."""
    right = _of(logits.argmax(-1) == labels)
    return _clean({
        "task": "text-classification",
        "problem": "single-label",
        **_one_label(logits, labels, names, [{"text": _cut(text)} for text in texts]),
        "by_length": _by_length(lengths, lambda rows: {"accuracy": right[rows].mean()}),
    })  # fmt: skip


def image_labels(logits: Tensor, labels: Tensor, names: Sequence[str], images: Sequence[str]) -> Mapping[str, Any]:
    """Images with one label each; `images` names them."""
    rows = [{"name": _cut(image)} for image in images]
    return _clean({"task": "image-classification", **_one_label(logits, labels, names, rows)})


def text_label_sets(
    logits: Tensor, labels: Tensor, names: Sequence[str], texts: Sequence[str], lengths: Sequence[int]
) -> Mapping[str, Any]:
    """Texts with any number of labels each; `labels` has shape (rows, classes), of zeros and ones.

    A mistake is one label of one text: `predicted` says whether it was, and should not have been.
    """
    p, wanted = _of(logits.double().sigmoid()), _of(labels > 0)
    predicted = _of(logits >= 0)
    right, confidences = predicted == wanted, np.maximum(p, 1 - p)
    mistakes = [
        {
            "text": _cut(texts[row]),
            "label": names[column],
            "predicted": bool(predicted[row, column]),
            "confidence": confidences[row, column],
        }
        for row, column in _most_confident(~right, confidences)
    ]
    return _clean({
        "task": "text-classification",
        "problem": "multi-label",
        "rows": len(wanted),
        "metrics": multi_label_metrics(logits, labels),
        "labels": list(names),
        "per_class": _scores(names, (predicted & wanted).sum(0), predicted.sum(0), wanted.sum(0)),
        "mistakes": mistakes,
        "calibration": calibration(confidences.ravel(), right.ravel()),
        "by_length": _by_length(lengths, lambda rows: {"accuracy": right[rows].all(-1).mean()}),
    })  # fmt: skip


def text_numbers(predicted: Tensor, wanted: Tensor, texts: Sequence[str], lengths: Sequence[int]) -> Mapping[str, Any]:
    """Texts with a number each. `residuals` are predictions less what was wanted; `binned` follows the predictions upwards."""
    found, meant = _of(predicted.double()), _of(wanted.double())
    errors = found - meant
    far = np.argsort(-np.abs(errors), kind="stable")[:_WORST]
    mistakes = [{"text": _cut(texts[row]), "label": meant[row], "predicted": found[row], "error": errors[row]} for row in far]
    return _clean({
        "task": "text-classification",
        "problem": "regression",
        "rows": len(found),
        "metrics": regression_metrics(predicted, wanted),
        "residuals": _residuals(errors[np.isfinite(errors)]),
        "binned": [
            {"from": found[rows].min(), "to": found[rows].max(), "rows": len(rows)}
            | {"predicted": found[rows].mean(), "wanted": meant[rows].mean()}
            for rows in _buckets(found, _VALUE_BUCKETS)
        ],
        "mistakes": mistakes,
        "by_length": _by_length(lengths, lambda rows: {"mae": np.abs(errors[rows]).mean()}),
    })  # fmt: skip


def tagged_words(
    predicted: Sequence[Sequence[str]],
    wanted: Sequence[Sequence[str]],
    sentences: Sequence[Sequence[str]],
    confidences: Sequence[Sequence[float]],
) -> Mapping[str, Any]:
    """Sentences with a BIO tag for each word; `confidences` has the probability of each predicted tag, NaN where there is none.

    `labels` are tags, `per_entity` goes by types. A mistake is a sentence with the entities that are wrong in it: one that was
    missed has no `predicted`, one too many no `label`. It is as confident as the most confident of them.
    """
    tags = sorted({tag for rows in (predicted, wanted) for row in rows for tag in row})
    index = {tag: number for number, tag in enumerate(tags)}
    found, meant = (np.array([index[tag] for row in rows for tag in row], np.int64) for rows in (predicted, wanted))
    certain = np.array([value for row in confidences for value in row], np.float64)
    wrong = [
        {"text": _cut(" ".join(words)), **mistake}
        for words, mistake in zip(sentences, map(_wrong_entities, predicted, wanted, sentences, confidences), strict=True)
        if mistake["entities"]
    ]
    return _clean({
        "task": "token-classification",
        "rows": len(wanted),
        "words": len(meant),
        "metrics": entity_metrics(predicted, wanted),
        "labels": tags,
        "confusion": _confusion(meant, found),
        "per_entity": _entity_scores(predicted, wanted),
        "mistakes": sorted(wrong, key=lambda mistake: -mistake["confidence"])[:_WORST],
        "calibration": calibration(certain, found == meant),
        "by_length": _by_length(
            [len(words) for words in sentences],
            lambda rows: {"f1": entity_metrics([predicted[row] for row in rows], [wanted[row] for row in rows])["f1"]},
        ),
    })  # fmt: skip


@dataclass(frozen=True)
class Tokens:
    """The tokens that were to be predicted, all of shape (tokens,).

    `rows` is the row of each, from 0; `losses` are in nats; `right` says which were the likeliest. `positions` count a row's
    tokens from 0; `confidences` are the probabilities of the likeliest ones.
    """

    rows: Tensor
    losses: Tensor
    right: Tensor
    positions: Tensor | None = None
    confidences: Tensor | None = None


def language(
    task: str, tokens: Tokens, texts: Sequence[str], written: Sequence[str] = (), wanted: Sequence[str] = ()
) -> Mapping[str, Any]:
    """Texts whose next token is predicted: those with the highest loss for each token, and where in them it is high.

    `written` is what the model makes of the first texts, `wanted` what it should have made of them.
    """
    losses, right = _of(tokens.losses.double()), _of(tokens.right > 0)
    of_row = _of(tokens.rows.long())
    counts = np.bincount(of_row, minlength=len(texts))
    means = np.bincount(of_row, losses, len(texts)) / np.maximum(counts, 1)
    some = np.flatnonzero(counts)
    worst = some[np.argsort(-means[some], kind="stable")[:_WORST]]
    found: dict[str, Any] = {
        "task": task,
        "rows": len(texts),
        "tokens": len(losses),
        "metrics": dict(language_metrics(float(losses.sum()), int(right.sum()), len(losses))),
        "mistakes": [{"text": _cut(texts[row]), "loss": means[row], "tokens": counts[row]} for row in worst],
        "by_length": _by_length(counts, lambda rows: {"loss": (means * counts)[rows].sum() / max(1, counts[rows].sum())}),
    }
    if tokens.positions is not None:
        found["by_position"] = _by_length(_of(tokens.positions), lambda some: {"loss": losses[some].mean()}, "tokens")
    if tokens.confidences is not None:
        found["calibration"] = calibration(_of(tokens.confidences.double()), right)
    if written:
        found["metrics"] |= {"exact_match": exact_match(written, wanted), "rouge_l": rouge_l(written, wanted)}
        found["written"] = _written(texts, written, wanted)
    return _clean(found)


def calibration(confidences: Floats, right: Flags) -> Mapping[str, Any]:
    """Expected calibration error over 15 bins of equal width (Guo et al. 2017), and those of the bins that hold anything."""
    finite = np.isfinite(confidences)
    confidences, right = confidences[finite], right[finite]
    inside = np.clip(np.ceil(confidences * _CALIBRATION_BINS).astype(np.int64) - 1, 0, _CALIBRATION_BINS - 1)
    bins = [
        {
            "low": number / _CALIBRATION_BINS,
            "high": (number + 1) / _CALIBRATION_BINS,
            "confidence": confidences[inside == number].mean(),
            "accuracy": right[inside == number].mean(),
            "rows": int((inside == number).sum()),
        }
        for number in np.unique(inside)
    ]
    gaps = sum(one["rows"] * abs(one["accuracy"] - one["confidence"]) for one in bins)
    return {"ece": gaps / max(1, len(right)), "bins": bins}


def _one_label(logits: Tensor, labels: Tensor, names: Sequence[str], shown: Sequence[Mapping[str, str]]) -> Mapping[str, Any]:
    """What texts and images have in common; `shown` says how a row is named."""
    certain, likeliest = logits.double().softmax(-1).max(-1)
    confidences, predicted, wanted = _of(certain), _of(likeliest), _of(labels)
    right = predicted == wanted
    mistakes = [
        {**shown[row], "label": names[wanted[row]], "predicted": names[predicted[row]], "confidence": confidences[row]}
        for (row,) in _most_confident(~right, confidences)
    ]
    hits, ours, theirs = (np.bincount(some, minlength=len(names)) for some in (wanted[right], predicted, wanted))
    return {
        "rows": len(wanted),
        "metrics": classification_metrics(logits, labels),
        "labels": list(names),
        "confusion": _confusion(wanted, predicted),
        "per_class": _scores(names, hits, ours, theirs),
        "mistakes": mistakes,
        "calibration": calibration(confidences, right),
    }


def _confusion(wanted: Ints, predicted: Ints) -> list[list[int]]:
    """How often each pair occurs that does."""
    pairs, counts = np.unique(np.stack([wanted, predicted], 1), axis=0, return_counts=True)
    return [[*pair, count] for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True)]


def _scores(names: Sequence[str], hits: Ints, predicted: Ints, wanted: Ints) -> list[Mapping[str, Any]]:
    return [
        {
            "label": name,
            "precision": right / max(1, ours),
            "recall": right / max(1, theirs),
            "f1": 2 * right / max(1, ours + theirs),
            "support": theirs,
        }
        for name, right, ours, theirs in zip(names, hits.tolist(), predicted.tolist(), wanted.tolist(), strict=True)
    ]


def _entity_scores(predicted: Sequence[Sequence[str]], wanted: Sequence[Sequence[str]]) -> list[Mapping[str, Any]]:
    found, meant = (
        [(kind, row, start, end) for row, tags in enumerate(rows) for kind, start, end in entities(tags)]
        for rows in (predicted, wanted)
    )
    kinds = sorted({kind for kind, *_ in (*found, *meant)})
    index = {kind: number for number, kind in enumerate(kinds)}
    hits, ours, theirs = (
        np.bincount([index[kind] for kind, *_ in some] or np.zeros(0, np.int64), minlength=len(kinds))
        for some in (set(found) & set(meant), found, meant)
    )
    return _scores(kinds, hits, ours, theirs)


def _wrong_entities(
    predicted: Sequence[str], wanted: Sequence[str], words: Sequence[str], confidences: Sequence[float]
) -> Mapping[str, Any]:
    """The entities of one sentence that are wrong, missed or too many, and the confidence in the most confident of them."""
    found, meant = entities(predicted), entities(wanted)
    ours, theirs = ({(start, end): kind for kind, start, end in some} for some in (found - meant, meant - found))
    spans = sorted(ours.keys() | theirs.keys())
    return {
        "confidence": max((float(np.nan_to_num(np.mean(confidences[start : end + 1]))) for start, end in spans), default=0.0),
        "entities": [
            {
                "words": _cut(" ".join(words[start : end + 1])),
                "label": theirs.get((start, end)),
                "predicted": ours.get((start, end)),
            }
            for start, end in spans
        ],
    }


def _residuals(errors: Floats) -> Mapping[str, Any]:
    """Of finite errors, of which there may be none."""
    if not len(errors):
        return {"mean": None, "std": None, "quantiles": [], "histogram": []}
    counts, edges = np.histogram(errors, bins=min(30, max(1, len(errors) // 4)))
    return {
        "mean": errors.mean(),
        "std": errors.std(),
        "quantiles": [[share, value] for share, value in zip(_QUANTILES, np.quantile(errors, _QUANTILES), strict=True)],
        "histogram": [
            {"low": low, "high": high, "rows": rows} for low, high, rows in zip(edges[:-1], edges[1:], counts, strict=True)
        ],
    }


def _written(texts: Sequence[str], written: Sequence[str], wanted: Sequence[str]) -> list[Mapping[str, Any]]:
    """The written texts that are least like what was wanted."""
    scores = [rouge_l([ours], [theirs]) for ours, theirs in zip(written, wanted, strict=True)]
    return [
        {"text": _cut(texts[row]), "label": _cut(wanted[row]), "predicted": _cut(written[row]), "rouge_l": scores[row]}
        for row in sorted(range(len(scores)), key=scores.__getitem__)[:_WORST]
    ]


def _by_length(
    lengths: Sequence[int] | Ints, measure: Callable[[Ints], Mapping[str, Any]], counted: str = "rows"
) -> list[Mapping[str, Any]]:
    """The same measure on up to five parts of the rows, from the shortest to the longest."""
    known = np.asarray(lengths, np.int64)
    return [
        {"from": known[rows].min(), "to": known[rows].max(), counted: len(rows), **measure(rows)}
        for rows in _buckets(known, _LENGTH_BUCKETS)
    ]


def _buckets(values: Ints | Floats, count: int) -> Iterator[Ints]:
    """Rows in up to `count` parts of about equal size, by rising value; equal values stay together, what is not finite is out."""
    finite = np.flatnonzero(np.isfinite(values))
    if not len(finite):
        return
    edges = np.unique(np.quantile(values[finite], np.arange(1, count + 1) / count, method="inverted_cdf"))
    inside = np.searchsorted(edges, values[finite], side="left")
    for number in range(len(edges)):
        yield finite[inside == number]


def _most_confident(wrong: Flags, confidences: Floats) -> list[tuple[int, ...]]:
    """Where it is wrong, by falling confidence; an index for each dimension."""
    places = np.argwhere(wrong)
    order = np.argsort(-confidences[wrong], kind="stable")[:_WORST]
    return [tuple(place) for place in places[order].tolist()]


def _of(values: Tensor) -> npt.NDArray[Any]:
    found: npt.NDArray[Any] = values.detach().cpu().numpy()
    return found


def _cut(text: str) -> str:
    return text if len(text) <= _CHARACTERS else text[: _CHARACTERS - 1] + "…"


def _clean(found: Mapping[str, Any]) -> Mapping[str, Any]:
    return {key: _plain(value) for key, value in found.items()}


def _plain(value: Any) -> Any:
    """The same with Python's own numbers, rounded to 6 digits, and None for what is not finite."""
    match value:
        case Mapping():
            return {key: _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case bool() | np.bool_():
            return bool(value)
        case int() | np.integer():
            return int(value)
        case float() | np.floating():
            return float(f"{value:.6g}") if math.isfinite(value) else None
        case _:
            return value
