"""Images on their way from a file to a model: scaled to a square, normalised, and how an image processor says the same.

An exported processor makes exactly what training saw, by Pillow's filters; torchvision's differ in the last bit of a pixel.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trainers.configs import ImageClassificationConfig
from trainers.contract import TrainerError
from trainers.images import Pixels
from trainers.models import load_config
from trainers.prepared import Prepared

_USUAL_SIZE = 224
_PROCESSOR = "preprocessor_config.json"


@dataclass(frozen=True)
class Scaling:
    """Every image becomes a square of `size` pixels with 3 channels, or 1 of grey; `resample` is Pillow's number of a filter.

    The whole image does, whatever its shape was: nothing at its edges is cut off, and any image processor can say it.
    """

    size: int
    channels: int
    resample: int

    def of(self, pixels: Pixels) -> Pixels:
        """Shape (size, size, channels), from (height, width, 3). Pillow's filters blur where they make smaller."""
        image = Image.fromarray(pixels)
        if self.channels == 1:
            image = image.convert("L")
        scaled = np.asarray(image.resize((self.size, self.size), Image.Resampling(self.resample)))
        return scaled.reshape(self.size, self.size, self.channels)


@dataclass(frozen=True)
class Normalisation:
    """Pixels times `factor`, less `mean`, divided by `std`, each with a value for each channel."""

    factor: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def of(self, pixels: Tensor) -> Tensor:
        """In fp32, from 0 to 255 in shape (rows, channels, height, width)."""
        mean, std = (torch.tensor(values, device=pixels.device)[:, None, None] for values in (self.mean, self.std))
        return pixels.float().mul_(self.factor / std).sub_(mean / std)


def scaling_of(config: ImageClassificationConfig, folder: Path) -> Scaling:
    """As configured, else as the model's image processor or the model itself has it."""
    processor, model = _processor(folder), load_config(folder, config, {})
    cropped = processor.get("crop_size") if processor.get("do_center_crop") else None
    own = [side for given in (cropped, processor.get("size"), getattr(model, "image_size", None)) if (side := side_of(given))]
    size = config.image_size or next(iter(own), _USUAL_SIZE)
    patch = getattr(model, "patch_size", None)
    if isinstance(patch, int) and size % patch:
        detail = f"`image_size` is {size}, but the model sees patches of {patch} pixels: use a multiple of it."
        raise TrainerError("trainer_error", detail)
    resample = processor.get("resample") if config.initialisation == "pretrained" else None
    channels = int(getattr(model, "num_channels", 3))
    if channels not in (1, 3):
        raise TrainerError("trainer_error", f"The model {folder.name} reads {channels} channels: use one that reads 1 or 3.")
    return Scaling(size, channels, resample if resample in set(Image.Resampling) else Image.Resampling.BILINEAR.value)


def side_of(given: Any) -> int | None:
    """Of the forms in which models and image processors say a size."""
    match given:
        case int():
            return given
        case {"height": int() as side} | {"shortest_edge": int() as side} | [int() as side, *_]:
            return side
        case _:
            return None


def _processor(folder: Path) -> Mapping[str, Any]:
    """What the model says of its image processor; nothing where it does not. Raises TrainerError."""
    path = folder / _PROCESSOR
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise TrainerError("trainer_error", f"{path.name} of the model {folder.name} is broken: {error}") from error
    return found if isinstance(found, dict) else {}


def normalisation_of(config: ImageClassificationConfig, scaling: Scaling, folder: Path, rows: Prepared) -> Normalisation:
    """As the pretrained weights know it, else so that the training images have mean 0 and deviation 1."""
    processor = _processor(folder) if config.initialisation == "pretrained" else {}
    if not processor:
        return Normalisation(1 / 255, tuple(rows.facts["image_mean"]), tuple(rows.facts["image_std"]))
    factor = processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 1.0
    if not processor.get("do_normalize", True):
        return Normalisation(factor, (0.0,) * scaling.channels, (1.0,) * scaling.channels)
    mean, std = (_channels(processor.get(name), scaling.channels) for name in ("image_mean", "image_std"))
    if mean is None or std is None or not all(std):
        detail = f"{_PROCESSOR} of the model {folder.name} has no `image_mean` and `image_std` of {scaling.channels} numbers."
        raise TrainerError("trainer_error", f"{detail} Write them into it, or take it away.")
    return Normalisation(factor, mean, std)


def _channels(given: Any, channels: int) -> tuple[float, ...] | None:
    values = [given] * channels if isinstance(given, int | float) else given
    if not isinstance(values, list) or len(values) != channels or not all(isinstance(value, int | float) for value in values):
        return None
    return tuple(map(float, values))


def export_processor(scaling: Scaling, normalisation: Normalisation, folder: Path) -> None:
    """Write an image processor that makes of an image file what training made of it."""
    processor = {
        "image_processor_type": "ViTImageProcessor",  # it does no more than what follows
        "do_convert_rgb": scaling.channels > 1,
        "do_resize": True,
        "size": {"height": scaling.size, "width": scaling.size},
        "resample": scaling.resample,
        "do_rescale": True,
        "rescale_factor": normalisation.factor,
        "do_normalize": True,
        "image_mean": normalisation.mean,
        "image_std": normalisation.std,
    }
    (folder / _PROCESSOR).write_text(json.dumps(processor, indent=2) + "\n")
