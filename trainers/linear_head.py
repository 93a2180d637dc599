"""A linear classifier on features that stay as they are, fitted to its optimum: multinomial logistic regression."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from trainers.configs import Splits

FOLDED_BELOW = 500
"""With fewer rows every row is held back once, in five folds: a fifth of them alone would say little."""

_FOLDS = 5
_HELD_BACK = 0.2
_STEPS = 200
_EPSILON = 1e-6


def held_back_logits(features: Sequence[Tensor], labels: Sequence[Sequence[int]], classes: int, seed: int) -> Iterator[
    tuple[int, Tensor]
]:  # fmt: skip
    """For each group of rows that is held back, its number and the logits of a head fitted on other groups.

    A group is what must not be torn apart: a text, or the words of a sentence. `features` has for each group shape
    (rows, width) and `labels` as many numbers. The split keeps the proportions of the groups' first labels.
    """
    firsts = [numbers[0] if len(numbers) == 1 else 0 for numbers in labels]
    for held in _splits(firsts, seed):
        kept = sorted(set(range(len(labels))) - set(held))
        wanted = torch.tensor([number for group in kept for number in labels[group]])
        head = fit_head(torch.cat([features[group] for group in kept]), wanted, classes)
        for group in held:
            yield group, head(features[group])


class LinearHead:
    """Logits of standardised features."""

    def __init__(self, mean: Tensor, scale: Tensor, weight: Tensor, bias: Tensor) -> None:
        self._mean, self._scale, self._weight, self._bias = mean, scale, weight, bias

    def __call__(self, features: Tensor) -> Tensor:
        """Shape (rows, classes) for features of shape (rows, width)."""
        return ((features.double() - self._mean) / self._scale) @ self._weight.T + self._bias


def fit_head(features: Tensor, labels: Tensor, classes: int) -> LinearHead:
    """The head with the smallest cross-entropy plus half of the squared weights over the rows, found by L-BFGS.

    That is scikit-learn's `LogisticRegression` with its default strength, on standardised features. Same data, same head.
    """
    features = features.double()
    mean, scale = features.mean(0), features.std(0, correction=0).clamp(min=_EPSILON)
    standard = (features - mean) / scale
    weight = torch.zeros(classes, features.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(standard @ weight.T + bias, labels) + weight.square().sum() / (2 * len(labels))
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]  # torch's own
    return LinearHead(mean, scale, weight.detach(), bias.detach())


def _splits(labels: Sequence[int], seed: int) -> list[list[int]]:
    """The rows that each head is scored on."""
    order = np.random.default_rng(seed).permutation(len(labels))
    by_label: dict[int, list[int]] = {}
    for row in order.tolist():
        by_label.setdefault(labels[row], []).append(row)
    if len(labels) < FOLDED_BELOW:
        # Dealt out label by label, without starting anew at each, so that folds are as large as each other.
        dealt = [row for label in sorted(by_label) for row in by_label[label]]
        return [sorted(dealt[fold::_FOLDS]) for fold in range(min(_FOLDS, len(labels)))]
    names = {f"{label:09}": label for label in by_label}
    counts = Counter({name: len(by_label[label]) for name, label in names.items()})
    held = Splits(train="-").held_back(counts, _HELD_BACK)
    return [sorted(row for name, count in held.items() for row in by_label[names[name]][:count])]
