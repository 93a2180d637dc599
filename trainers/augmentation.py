"""Changes to images that are drawn anew for each epoch. Tensors in, tensors out, a whole batch at once.

What is drawn depends on seed, epoch and row alone: micro-batches and a resumed epoch change a row as the whole batch would have.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from trainers.configs import ImageAugmentation

_DRAWS = 11
_ERASING = 5
"""How many of them say what is erased."""
_ERASED = (0.02, 1 / 3)
"""Least and greatest share of the area that is erased (Zhong et al. 2020, section 3.2)."""
_ASPECT = 3.3
"""How many times as high as wide an erased rectangle may be, or as wide as high (the same)."""


def drawn(seed: int, epoch: int, rows: Sequence[int]) -> Tensor:
    """Uniform numbers for `augmented`, those of a row in each line."""
    return torch.from_numpy(
        np.stack([np.random.default_rng([seed, epoch, row]).random(_DRAWS, dtype=np.float32) for row in rows])
    )


def augmented(images: Tensor, changes: ImageAugmentation, numbers: Tensor) -> Tensor:
    """Images that are flipped, cropped and scaled up again, shifted, and a part of them erased, in this order.

    `images` have shape (rows, channels, height, width) and are normalised, as what is erased becomes 0. A shift draws the edge
    in. `numbers` are from `drawn`, on the same device.
    """
    flip, area, crop_x, crop_y, shift_x, shift_y = numbers[:, :-_ERASING].unbind(1)
    if changes.flip:
        images = torch.where((flip < changes.flip)[:, None, None, None], images.flip(-1), images)
    if changes.crop or changes.shift:
        side = (1 - changes.crop * area).sqrt()
        reach = 2 * changes.shift  # the image goes from -1 to 1
        images = _moved(
            images,
            side,
            _signed(crop_x) * (1 - side) + _signed(shift_x) * reach,
            _signed(crop_y) * (1 - side) + _signed(shift_y) * reach,
        )
    return _erased(images, changes.erase, numbers[:, -_ERASING:]) if changes.erase else images


def _signed(numbers: Tensor) -> Tensor:
    """From between 0 and 1 to between -1 and 1."""
    return 2 * numbers - 1


def _moved(images: Tensor, side: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The square of each image with this side, as a share of the whole one, about (x, y); the middle is (0, 0)."""
    rows, _, height, width = images.shape
    across = side[:, None] * _centres(width, images) + x[:, None]
    down = side[:, None] * _centres(height, images) + y[:, None]
    places = (across[:, None, :].expand(rows, height, width), down[:, :, None].expand(rows, height, width))
    return grid_sample(images, torch.stack(places, -1), mode="bilinear", padding_mode="border", align_corners=False)


def _erased(images: Tensor, probability: float, numbers: Tensor) -> Tensor:
    """Each image with this probability without a rectangle, which becomes 0, the mean."""
    chosen, area, aspect, x, y = numbers.unbind(1)
    least, greatest = _ERASED
    share = least + (greatest - least) * area
    shape = torch.exp(_signed(aspect) * math.log(_ASPECT))
    height, width = (share * shape).sqrt().clamp(max=1), (share / shape).sqrt().clamp(max=1)
    inside = [
        (_centres(pixels, images) - _signed(place)[:, None] * (1 - side)[:, None]).abs() < side[:, None]
        for pixels, place, side in ((images.shape[2], y, height), (images.shape[3], x, width))
    ]
    is_gone = inside[0][:, None, :, None] & inside[1][:, None, None, :] & (chosen < probability)[:, None, None, None]
    return images.masked_fill(is_gone, 0)


def _centres(pixels: int, images: Tensor) -> Tensor:
    """Where the pixels of a side are that goes from -1 to 1."""
    return (2 * torch.arange(pixels, device=images.device, dtype=images.dtype) + 1) / pixels - 1
