"""What the frozen part of a network makes of each row, computed once per study and used over epochs and trials.

The network itself stays as it is: its last frozen layer is told to answer what was computed before, and what is below it to do
nothing. Names of weights, exports and checkpoints know nothing of it. Whether an architecture can be treated so is not assumed
but tried on some rows.
"""

import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainers.configs import TrainingConfig
from trainers.freezing import Freezing, embeddings_of, layers_of
from trainers.hardware import in_batches
from trainers.models import LoadedModel
from trainers.prepared import Ragged, by_length, is_prepared, prepared, weights_sha256

_BATCH = 64
_TRIED_ROWS = 4
_TOLERANCE = 1e-4
_LARGEST_SHARE_OF_DISK = 0.2

Forward = Callable[[Sequence[int]], Tensor]
"""The network's output for some rows of a split, shape (rows, ...)."""


@dataclass(frozen=True)
class Inputs:
    """What a network is given.

    `rows` are those of each split, or how many there are of images, which are all alike. `forward` runs the whole network over
    some of a split. `depends_on` says what the rows are, and what is done to them; `change` whether they do from epoch to epoch.
    """

    rows: Mapping[str, Ragged | int]
    forward: Callable[[str, Sequence[int]], Tensor]
    depends_on: Mapping[str, Any]
    change: bool


def frozen_features(
    loaded: LoadedModel, freezing: Freezing, settings: TrainingConfig, folder: Path, cache: Path, inputs: Inputs
) -> "FrozenFeatures | None":
    """What the frozen layers make of the rows, where it is the same in all epochs, and in all trials on the model in `folder`."""
    if not freezing.count or freezing.is_gradual or inputs.change or settings.compile or settings.initialisation == "random":
        return None
    frozen = {name.rpartition(".")[0] for name, one in loaded.model.named_parameters() if not one.requires_grad}
    if frozen & set(loaded.new_parts):  # drawn by a seed that other trials do not share
        return None
    features = FrozenFeatures(loaded.model, freezing)
    forward = {split: partial(inputs.forward, split) for split in inputs.rows}
    loaded.model.eval()
    positions, *state = features.shape(forward["train"])
    rows = {split: _alike(given, positions) if isinstance(given, int) else given for split, given in inputs.rows.items()}
    depends_on = {**inputs.depends_on, "weights": weights_sha256(folder)}
    return features if features.compute(cache, depends_on, rows, forward, math.prod(state)) else None


def _alike(rows: int, positions: int) -> Ragged:
    return Ragged(np.zeros(0), np.arange(rows + 1, dtype=np.int64) * positions)


@dataclass
class _Replies:
    """What the frozen parts answer: `answer` puts hidden states into what a layer answers. It holds none of the parts.

    The parts hold it, and a part that held itself would live on after its trial until the garbage is collected.
    """

    given: Tensor | None = None
    answer: Callable[[Any], Any] = field(default=lambda hidden: hidden)


class FrozenFeatures:
    """Hidden states after the frozen layers, one for each position of each row of each split."""

    def __init__(self, model: Any, freezing: Freezing) -> None:
        self._layers = layers_of(model)[: freezing.count]
        self._embeddings = embeddings_of(model)[:1]
        self._states: Mapping[str, Ragged] = {}
        self._state_shape: tuple[int, ...] = (-1,)
        self._replies = _Replies()

    @torch.inference_mode()
    def shape(self, forward: Forward) -> tuple[int, ...]:
        """What the frozen part makes of a row: positions, and the shape of a state; the planes of an image are positions too."""
        return tuple(self._captured(forward, [0]).shape[1:])

    @torch.inference_mode()
    def compute(
        self, cache: Path, depends_on: Mapping[str, Any], rows: Mapping[str, Ragged], forward: Mapping[str, Forward], width: int
    ) -> bool:
        """Compute or map the states of all splits; False where that is not possible or would fill the disk.

        `rows` say how many positions each row has, `forward` runs the whole network, `width` is the size of a state.
        """
        depends_on = {**depends_on, "frozen_layers": len(self._layers), "features": 2}
        positions = sum(int(split.offsets[-1]) for split in rows.values())
        cache.mkdir(parents=True, exist_ok=True)
        fits = positions * width * 4 <= _LARGEST_SHARE_OF_DISK * shutil.disk_usage(cache).free
        if not fits and not is_prepared(cache, depends_on):
            return False
        if not self._can_be_replaced(rows["train"], forward["train"]):
            return False

        def make(folder: Path) -> Mapping[str, Any]:
            for split, ragged in rows.items():
                self._write(folder / f"{split}.npy", ragged, forward[split], width)
            return {}

        kept = prepared(cache, depends_on, make)
        self._states = {split: Ragged(kept.array(split), ragged.offsets) for split, ragged in rows.items()}
        self._replace()
        return True

    def use(self, split: str, rows: Sequence[int], device: torch.device) -> None:
        """Let the next forward pass be over these rows."""
        states = self._states[split]
        lengths = states.lengths[list(rows)]
        table = np.zeros((len(rows), int(lengths.max()), states.values.shape[1]), dtype=np.float32)
        for place, row in enumerate(rows):
            table[place, : lengths[place]] = states[row]
        self._replies.given = torch.from_numpy(table.reshape(*table.shape[:2], *self._state_shape)).to(device)

    @contextmanager
    def put_aside(self) -> Iterator[None]:
        """Compute the frozen layers as ever, for a while."""
        self._put_back()
        try:
            yield
        finally:
            self._replace()

    def _can_be_replaced(self, rows: Ragged, forward: Forward) -> bool:
        """Whether nothing that trains has a part in the states, and the network says the same with them, of padded rows too."""
        order = by_length(rows.lengths)
        some = order[:: max(1, len(order) // _TRIED_ROWS)]
        try:
            with torch.inference_mode(mode=False), torch.enable_grad():
                self._replies.given = given = self._captured(forward, some)
            whole = forward(some)
        except Exception:  # an architecture that is built in another way may fail in any way
            return False
        if given.requires_grad:
            return False
        if not self._agrees(whole, some, forward):
            self._embeddings = []  # more than the first layer looks at them
        return self._agrees(whole, some, forward)

    def _agrees(self, whole: Tensor, rows: Sequence[int], forward: Forward) -> bool:
        self._replace()
        try:
            return bool(torch.allclose(forward(rows), whole, atol=_TOLERANCE))
        except Exception:  # as above
            return False
        finally:
            self._put_back()

    def _write(self, path: Path, rows: Ragged, forward: Forward, width: int) -> None:
        states: Any = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(int(rows.offsets[-1]), width))
        for batch, found in in_batches(
            by_length(rows.lengths), _BATCH, lambda batch: self._captured(forward, batch).cpu().numpy()
        ):
            flat = found.reshape(*found.shape[:2], width)
            for place, row in enumerate(batch):
                states[rows.offsets[row] : rows.offsets[row + 1]] = flat[place, : rows.lengths[row]]
        states.flush()

    def _captured(self, forward: Forward, rows: Sequence[int]) -> Tensor:
        """What comes out of the last frozen layer; the rest of the network is not run."""
        found: list[Tensor] = []

        def capture(_module: nn.Module, _arguments: Any, output: Any) -> None:
            found.append(output[0] if isinstance(output, tuple) else output)
            self._replies.answer = _like(output)
            self._state_shape = tuple(found[0].shape[2:])
            raise _EnoughError

        hook = self._layers[-1].register_forward_hook(capture)
        try:
            with suppress(_EnoughError):
                forward(rows)
        finally:
            hook.remove()
        return found[0]

    def _replace(self) -> None:
        replies = self._replies
        for part in self._embeddings:
            part.forward = lambda *_, **__: replies.given  # of this object alone
        for part in self._layers[:-1]:
            part.forward = lambda hidden, *_, **__: replies.answer(hidden)
        self._layers[-1].forward = lambda *_, **__: replies.answer(replies.given)

    def _put_back(self) -> None:
        for part in (*self._embeddings, *self._layers):
            with suppress(AttributeError):
                del part.forward


def _like(output: Any) -> Callable[[Any], Any]:
    """Puts hidden states into what a layer answers: bare, or in a tuple beside what it does not compute."""
    if not isinstance(output, tuple):
        return lambda hidden: hidden
    nothing = [one for one in output[1:] if one is None]
    return lambda hidden: (hidden, *nothing)


class _EnoughError(Exception):
    """Leaves a forward pass after its frozen part."""
