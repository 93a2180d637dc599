"""What training makes small, held against torch's own means and the papers' formulas."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor
from torch.nn import functional

from trainers.losses import (
    balanced_weights,
    class_loss,
    class_weight_total,
    multi_label_loss,
    positive_weights,
    regression_loss,
)

WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 4.0])


def some_rows(rows: int = 7, classes: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(rows, classes, generator=generator)
    return logits, torch.randint(classes, (rows,), generator=generator)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("ignored", [0, 3])
def test_class_loss_over_its_total_is_torchs_mean(weights: Tensor | None, smoothing: float, ignored: int) -> None:
    logits, labels = some_rows()
    labels[:ignored] = -100
    wanted = functional.cross_entropy(logits, labels, weights, label_smoothing=smoothing)
    found = class_loss(logits, labels, weights=weights, smoothing=smoothing) / class_weight_total(labels, weights)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("gamma", [None, 2.0])
def test_the_parts_of_a_batch_add_up_to_the_batch(gamma: float | None) -> None:
    logits, labels = some_rows()
    parts = [class_loss(logits[part], labels[part], weights=WEIGHTS, gamma=gamma) for part in (slice(3), slice(3, 7))]
    totals = [class_weight_total(labels[part], WEIGHTS) for part in (slice(3), slice(3, 7))]
    torch.testing.assert_close(torch.stack(parts).sum(), class_loss(logits, labels, weights=WEIGHTS, gamma=gamma))
    assert sum(totals) == pytest.approx(class_weight_total(labels, WEIGHTS))


def test_focal_loss_is_the_papers() -> None:
    logits, labels = some_rows()
    p = logits.softmax(-1)[torch.arange(7), labels]
    torch.testing.assert_close(class_loss(logits, labels, gamma=2.0), (-((1 - p) ** 2) * p.log()).sum())


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_focal_loss_without_an_exponent_is_cross_entropy(smoothing: float) -> None:
    logits, labels = some_rows()
    labels[1] = -100
    given_zero = class_loss(logits, labels, weights=WEIGHTS, smoothing=smoothing, gamma=0.0)
    torch.testing.assert_close(given_zero, class_loss(logits, labels, weights=WEIGHTS, smoothing=smoothing))


def test_ignored_rows_have_no_focal_loss_and_no_gradient() -> None:
    logits, labels = some_rows()
    labels[2:] = -100
    logits.requires_grad_()
    loss = class_loss(logits, labels, gamma=2.0)
    torch.testing.assert_close(loss, class_loss(logits[:2], labels[:2], gamma=2.0))
    [gradient] = torch.autograd.grad(loss, logits)
    assert gradient[2:].abs().max() == 0
    assert gradient[:2].abs().max() > 0


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_gradient_of_a_row_that_is_certain_is_finite(gamma: float, smoothing: float) -> None:
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    loss = class_loss(logits, torch.tensor([0, 0]), smoothing=smoothing, gamma=gamma)
    loss = loss + multi_label_loss(logits, torch.tensor([[1, 0], [1, 1]]), gamma=gamma)
    [gradient] = torch.autograd.grad(loss, logits)
    assert loss.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_multi_label_loss_over_rows_is_torchs_mean(weights: Tensor | None) -> None:
    logits, _ = some_rows()
    labels = (some_rows(seed=1)[0] > 0).long()
    wanted = functional.binary_cross_entropy_with_logits(logits, labels.float(), pos_weight=weights)
    torch.testing.assert_close(multi_label_loss(logits, labels, weights=weights) / 7, wanted)


def test_focal_multi_label_loss_is_the_papers() -> None:
    logits, _ = some_rows()
    labels = (some_rows(seed=1)[0] > 0).float()
    p = torch.where(labels > 0, logits.sigmoid(), 1 - logits.sigmoid())
    weights = torch.where(labels > 0, WEIGHTS, torch.ones(4))
    wanted = (-weights * (1 - p) ** 2 * p.log()).mean(-1).sum()
    torch.testing.assert_close(multi_label_loss(logits, labels, weights=WEIGHTS, gamma=2.0), wanted)


@pytest.mark.parametrize(("delta", "wanted"), [(None, 0.25 + 9.0), (1.0, 0.125 + 2.5), (5.0, 0.125 + 4.5)])
def test_regression_loss_is_squared_or_hubers(delta: float | None, wanted: float) -> None:
    predicted, meant = torch.tensor([1.5, -2.0]), torch.tensor([1.0, 1.0])
    assert float(regression_loss(predicted, meant, delta=delta)) == pytest.approx(wanted)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8))
def test_balanced_weights_are_scikit_learns(counts: list[int]) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    wanted = compute_class_weight("balanced", classes=np.arange(len(counts)), y=labels)
    assert balanced_weights(counts) == pytest.approx(wanted)


@pytest.mark.parametrize(("counts", "wanted"), [([3, 0, 1], [4 / 6, 1.0, 2.0]), ([0, 0], [1.0, 1.0]), ([], [])])
def test_a_class_that_does_not_occur_weighs_one(counts: Sequence[int], wanted: Sequence[float]) -> None:
    assert balanced_weights(counts) == pytest.approx(wanted)


def test_positive_weights_make_both_sides_weigh_the_same() -> None:
    assert positive_weights([1, 5, 0, 10], 10) == [9.0, 1.0, 1.0, 1.0]
