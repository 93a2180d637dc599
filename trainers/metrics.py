"""How good predictions are. Plain floats, named as reports name them after their `validation/`.

Importing scikit-learn, SciPy or seqeval for it would take a worker seconds of its start: the tests hold these against them.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

Entity = tuple[str, int, int]
"""Type, first word, last word."""

_OUTSIDE = "O"


def classification_metrics(logits: Tensor, labels: Tensor) -> Mapping[str, float]:
    """Accuracy, macro F1 and mean cross-entropy in nats. `logits` has shape (rows, classes), `labels` shape (rows,)."""
    predicted = logits.argmax(-1)
    return {
        "accuracy": float((predicted == labels).double().mean()),
        "f1_macro": f1_macro(predicted, labels, logits.shape[-1]),
        "loss": float(cross_entropy(logits.to(torch.float64), labels)),
    }


def multi_label_metrics(logits: Tensor, labels: Tensor) -> Mapping[str, float]:
    """Accuracy (the share of rows with every label right), F1 and mean binary cross-entropy in nats.

    Both have shape (rows, classes), `labels` of zeros and ones. A label is predicted at a probability of one half or more.
    Macro F1 is the mean over all classes; one that neither occurs nor is predicted counts 0.
    """
    predicted, wanted = logits >= 0, labels > 0
    hits = (predicted & wanted).sum(0).double()
    either = (predicted.sum(0) + wanted.sum(0)).double()
    return {
        "accuracy": float((predicted == wanted).all(-1).double().mean()),
        "f1_micro": _ratio(2 * float(hits.sum()), float(either.sum())),
        "f1_macro": float((2 * hits / either.clamp(min=1)).mean()),
        "loss": float(binary_cross_entropy_with_logits(logits.double(), labels.double())),
    }


def regression_metrics(predicted: Tensor, wanted: Tensor) -> Mapping[str, float]:
    """Errors, explained variance and correlations of numbers of shape (rows,); `loss` is the mean squared error.

    Where all predictions or all targets are the same there is nothing to correlate with: `pearson` and `spearman` are 0.
    `r2` of targets that are all the same is 1 when every prediction is right and 0 otherwise.
    """
    found, right = predicted.double(), wanted.double()
    errors = found - right
    loss = float(errors.square().mean())
    spread = float((right - right.mean()).square().mean())
    return {
        "rmse": math.sqrt(loss),
        "mae": float(errors.abs().mean()),
        "r2": 1 - loss / spread if _varies(right) and spread > 0 else float(loss == 0),
        "pearson": _correlation(found, right),
        "spearman": _correlation(_ranks(found), _ranks(right)),
        "loss": loss,
    }


def entity_metrics(predicted: Sequence[Sequence[str]], wanted: Sequence[Sequence[str]]) -> Mapping[str, float]:
    """Precision, recall and F1 of entities, as conlleval and seqeval count them, and the share of words with the right tag.

    An entity is right when its type, its first and its last word are. `f1_macro` is the mean of F1 over the types that occur
    or are predicted.
    """
    words = right_words = 0
    counts: dict[str, list[int]] = {}
    for ours, theirs in zip(predicted, wanted, strict=True):
        words += len(theirs)
        right_words += sum(one == other for one, other in zip(ours, theirs, strict=True))
        found, meant = entities(ours), entities(theirs)
        for column, some in enumerate((found & meant, found, meant)):
            for entity in some:
                counts.setdefault(entity[0], [0, 0, 0])[column] += 1
    hits, found_all, meant_all = (sum(column) for column in zip(*counts.values(), strict=True)) if counts else (0, 0, 0)
    scores = [_ratio(2 * right, ours + theirs) for right, ours, theirs in counts.values()]
    return {
        "accuracy": _ratio(right_words, words),
        "f1": _ratio(2 * hits, found_all + meant_all),
        "precision": _ratio(hits, found_all),
        "recall": _ratio(hits, meant_all),
        "f1_macro": _ratio(sum(scores), len(scores)),
    }


def entities(tags: Sequence[str]) -> set[Entity]:
    """The entities that BIO tags mark, by conlleval's lenient rules (Tjong Kim Sang and De Meulder 2003).

    A `B-`, a change of type, and an `I-` after anything outside each begin one. `E-` ends one and `S-` is one of a single word;
    any other tag, as of parts of speech, is one of a single word whose type is the tag.
    """
    return set(_entities(tags))


def language_metrics(loss_sum: float, right: int, tokens: int) -> Mapping[str, float]:
    """Loss for each token in nats, perplexity, and the share of tokens that were the likeliest. `loss_sum` adds over tokens."""
    loss = loss_sum / tokens
    return {"loss": loss, "perplexity": perplexity(loss), "accuracy": right / tokens}


def perplexity(loss: float) -> float:
    """The exponential of a loss for each token, held below what a float can say."""
    return math.exp(min(loss, 700.0))


def exact_match(predicted: Sequence[str], wanted: Sequence[str]) -> float:
    """Share of rows that are the same text, white space around it aside."""
    pairs = list(zip(predicted, wanted, strict=True))
    return _ratio(sum(ours.strip() == theirs.strip() for ours, theirs in pairs), len(pairs))


def rouge_l(predicted: Sequence[str], wanted: Sequence[str]) -> float:
    """Mean over rows of ROUGE-L's F-measure (Lin 2004) between words in lower case, parted by white space."""
    scores = [_rouge_l(ours.lower().split(), theirs.lower().split()) for ours, theirs in zip(predicted, wanted, strict=True)]
    return _ratio(sum(scores), len(scores))


def f1_macro(predicted: Tensor, labels: Tensor, classes: int) -> float:
    """Mean F1 over the classes that occur or are predicted, as `sklearn.metrics.f1_score(average="macro")` has it."""
    hits = torch.bincount(labels[predicted == labels], minlength=classes).double()
    either = (torch.bincount(predicted, minlength=classes) + torch.bincount(labels, minlength=classes)).double()
    seen = either > 0
    return float((2 * hits[seen] / either[seen]).mean())


def _entities(tags: Sequence[str]) -> Iterator[Entity]:
    start, before, kind = 0, _OUTSIDE, ""
    for position, tag in enumerate([*tags, _OUTSIDE]):
        prefix, name = _parted(tag)
        if not (before in "BI" and prefix in "IE" and name == kind):
            if before != _OUTSIDE:
                yield kind, start, position - 1
            start = position
        before, kind = prefix, name


def _parted(tag: str) -> tuple[str, str]:
    """How a tag relates to its neighbours, and its type."""
    prefix, _, name = tag.partition("-")
    if prefix in ("B", "I", "E", "S", _OUTSIDE):
        return prefix, name or "_"
    return "S", tag


def _rouge_l(found: Sequence[str], meant: Sequence[str]) -> float:
    return _ratio(2 * _common(found, meant), len(found) + len(meant))


def _common(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    lengths = [0] * (len(second) + 1)
    for word in first:
        before = 0
        for column, other in enumerate(second, start=1):
            before, lengths[column] = lengths[column], before + 1 if word == other else max(lengths[column], lengths[column - 1])
    return lengths[-1]


def _correlation(first: Tensor, second: Tensor) -> float:
    if not (_varies(first) and _varies(second)):
        return 0.0
    return float((_unit(first) * _unit(second)).sum().clamp(-1, 1))


def _unit(values: Tensor) -> Tensor:
    """The values about their mean, at length 1. Scaled first, so that squares of the very small or large are still numbers."""
    centred = values - values.mean()
    scaled = centred / centred.abs().max()
    unit: Tensor = scaled / torch.linalg.vector_norm(scaled)
    return unit


def _varies(values: Tensor) -> bool:
    return bool((values != values[0]).any())


def _ranks(values: Tensor) -> Tensor:
    """Ranks from 1; equal values share the mean of theirs."""
    _, which, counts = torch.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    ranks: Tensor = last - (counts.double() - 1) / 2
    return ranks[which]


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
