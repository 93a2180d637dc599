"""The processes that share a trial, from the point of view of one of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Ranks(Protocol):
    """Data parallelism: each process computes its share of every batch, and all of them make the same step."""

    @property
    def rank(self) -> int:
        """This process's number, from 0; the first one validates, reports and writes."""
        ...

    @property
    def count(self) -> int: ...

    def share(self, rows: Sequence[int]) -> Sequence[int]:
        """This process's rows of a batch."""
        ...

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by the sum of all processes' ones, in place."""
        ...

    def any(self, *, flag: bool) -> bool:
        """Whether any process says so."""
        ...

    def from_first(self, value: Any) -> Any:
        """What the first process has."""
        ...


@dataclass(frozen=True)
class OneProcess:
    """A trial that has a process to itself."""

    rank: int = 0
    count: int = 1

    def share(self, rows: Sequence[int]) -> Sequence[int]:
        return rows

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Its sums are whole already."""

    def any(self, *, flag: bool) -> bool:
        return flag

    def from_first(self, value: Any) -> Any:
        return value


def gradients(model: nn.Module) -> list[Tensor]:
    """Of the parameters that train; zeros where this process's rows gave none."""
    found = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            found.append(parameter.grad)
    return found
