"""How good predictions are."""

from collections.abc import Mapping

import torch
from sklearn.metrics import f1_score
from torch import Tensor
from torch.nn.functional import cross_entropy


def classification_metrics(logits: Tensor, labels: Tensor) -> Mapping[str, float]:
    """Accuracy, macro F1 over the labels that occur or are predicted, and mean cross-entropy in nats.

    `logits` has shape (rows, classes), `labels` shape (rows,).
    """
    predicted = logits.argmax(-1)
    return {
        "accuracy": float((predicted == labels).double().mean()),
        "f1_macro": float(f1_score(labels.numpy(), predicted.numpy(), average="macro", zero_division=0)),
        "loss": float(cross_entropy(logits.to(torch.float64), labels)),
    }
