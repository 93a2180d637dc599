"""What training makes small. Sums over rows: the gradients of a batch's parts add up, divided by what the whole batch weighs."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, huber_loss, mse_loss

IGNORED = -100
"""The label of what is not to be learned, such as padding."""


def class_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    weights: Tensor | None = None,
    smoothing: float = 0.0,
    gamma: float | None = None,
    ignore_index: int = IGNORED,
) -> Tensor:
    """Cross-entropy in nats, summed; `logits` has shape (rows, classes), `labels` shape (rows,).

    Divided by `class_weight_total` it is `torch.nn.functional.cross_entropy`, `weights` and `smoothing` included. `gamma`
    makes it the focal loss (Lin et al. 2017, equation 5): each row times (1 - p) ** gamma, p the probability of its label.
    """
    if gamma is None:
        return cross_entropy(logits, labels, weights, ignore_index=ignore_index, reduction="sum", label_smoothing=smoothing)
    rows = cross_entropy(logits, labels, weights, ignore_index=ignore_index, reduction="none", label_smoothing=smoothing)
    known = labels.masked_fill(labels == ignore_index, 0)
    log_p = logits.log_softmax(-1).gather(-1, known.unsqueeze(-1)).squeeze(-1)
    return (_difficulty(log_p, gamma) * rows).sum()


def class_weight_total(labels: Tensor, weights: Tensor | None = None, *, ignore_index: int = IGNORED) -> float:
    """What the rows weigh together: their number, or the sum of their labels' weights. Both on one device."""
    known = labels[labels != ignore_index]
    return float(known.numel() if weights is None else weights[known].double().sum())


def multi_label_loss(logits: Tensor, labels: Tensor, *, weights: Tensor | None = None, gamma: float | None = None) -> Tensor:
    """Binary cross-entropy in nats, the mean over classes summed over rows; divide by the number of rows.

    Both have shape (rows, classes), `labels` of zeros and ones; `weights` of shape (classes,) are on the ones. `gamma` makes
    it the focal loss.
    """
    labels = labels.to(logits.dtype)
    decisions = binary_cross_entropy_with_logits(logits, labels, pos_weight=weights, reduction="none")
    if gamma is not None:
        log_p = -binary_cross_entropy_with_logits(logits, labels, reduction="none")
        decisions = _difficulty(log_p, gamma) * decisions
    return decisions.mean(-1).sum()


def regression_loss(predicted: Tensor, wanted: Tensor, *, delta: float | None = None) -> Tensor:
    """Squared error, or Huber's loss (1964) that turns linear at `delta`, summed; divide by the number of rows."""
    if delta is None:
        return mse_loss(predicted, wanted, reduction="sum")
    return huber_loss(predicted, wanted, reduction="sum", delta=delta)


def balanced_weights(counts: Sequence[int]) -> list[float]:
    """A weight for each class, inverse to how often it occurs and 1 on average over rows, as scikit-learn's `balanced`.

    A class that does not occur weighs 1 and counts for nothing.
    """
    rows, classes = sum(counts), sum(count > 0 for count in counts)
    return [rows / (classes * count) if count else 1.0 for count in counts]


def positive_weights(counts: Sequence[int], rows: int) -> list[float]:
    """For each label of several, rows without it to rows with it: both sides then weigh the same. 1 where one side is empty."""
    return [(rows - count) / count if 0 < count < rows else 1.0 for count in counts]


def _difficulty(log_p: Tensor, gamma: float) -> Tensor:
    """(1 - p) ** gamma, with a finite slope where p is 1 and gamma below 1."""
    return (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).tiny) ** gamma
