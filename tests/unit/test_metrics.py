"""How good predictions are, held against scikit-learn."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, log_loss

from trainers.metrics import classification_metrics, f1_macro

PAIRS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=40)


@given(PAIRS)
def test_macro_f1_is_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    predicted, labels = (torch.tensor(column) for column in zip(*pairs, strict=True))
    wanted = f1_score(labels.numpy(), predicted.numpy(), average="macro", zero_division=0)
    assert f1_macro(predicted, labels, 6) == pytest.approx(wanted)


def test_accuracy_and_loss_are_means_over_rows() -> None:
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
    labels = torch.tensor([0, 1, 2])
    found = classification_metrics(logits, labels)
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["loss"] == pytest.approx(log_loss(labels.numpy(), logits.double().softmax(-1).numpy(), labels=[0, 1, 2]))
