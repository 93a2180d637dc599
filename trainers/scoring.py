"""How well a model predicts texts, token by token."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainers.analysis import Tokens
from trainers.hardware import in_batches
from trainers.prepared import by_length

_BATCH = 64
_LOGITS = 2**26
"""Most logits computed at once, of which there is one for each token and each entry of the vocabulary."""

Predict = Callable[[Sequence[int]], tuple[Tensor, Tensor, Tensor, Tensor]]
"""Of some rows the logits, shape (tokens, vocabulary), the tokens that were wanted, and the row and position of each."""


@torch.inference_mode()
def scored(lengths: npt.NDArray[np.int64], vocabulary: int, predict: Predict) -> Tokens:
    """How well each token is predicted that rows of these lengths are to predict, in fp32."""

    def compute(rows: Sequence[int]) -> tuple[Tensor, ...]:
        logits, wanted, of, positions = predict(rows)
        log_p = logits.float().log_softmax(-1)
        certain, likeliest = log_p.max(-1)
        found = -log_p.gather(-1, wanted[:, None])[:, 0], likeliest == wanted, certain.exp()
        return of, positions, *(one.cpu() for one in found)

    size = _LOGITS // (int(lengths.max()) * vocabulary)
    batches = in_batches(by_length(lengths), max(1, min(_BATCH, size)), compute)
    of, positions, losses, right, certain = map(torch.cat, zip(*(found for _, found in batches), strict=True))
    return Tokens(rows=of, losses=losses, right=right, positions=positions, confidences=certain)
