"""Train or fine-tune a convolutional network or a vision transformer to give each image a label."""

import hashlib
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForImageClassification

from trainers import analysis, losses, metrics
from trainers.augmentation import augmented, drawn
from trainers.configs import ImageAugmentation, ImageClassificationConfig
from trainers.contract import Report, TrainerError, TrialContext
from trainers.features import FrozenFeatures, Inputs, frozen_features
from trainers.hardware import in_batches, open_device
from trainers.image_processing import Scaling, export_processor, normalisation_of, scaling_of, side_of
from trainers.images import LabelledPictures, read_images
from trainers.loop import Loop, Work
from trainers.measures import measured
from trainers.models import LoadedModel, add_adapters, export_model, folder_of, load_model, measured_export
from trainers.prepared import Array, Prepared, epoch_order, prepared, save_array, save_texts
from trainers.ranks import Ranks
from trainers.splits import Place, Row
from trainers.tables import TableError
from trainers.texts import divided, file_hashes, label_key, source_files

_VERSION = 2
"""Raised when what is prepared changes, so that older caches are left alone."""
_VALIDATION_BATCH = 64
_AT_ONCE = 256


class ImageClassification:
    """Train a network with a classification head on images (He et al. 2016; Dosovitskiy et al. 2021, section 3.2)."""

    def __init__(self, config: ImageClassificationConfig, context: TrialContext, ranks: Ranks | None = None) -> None:
        """Load the model and the images. Raises TrainerError when they do not fit."""
        self._config = config
        self._device = open_device(context)
        folder = folder_of(config, context)
        self._scaling = scaling_of(config, folder)
        self._rows = prepare(config, self._scaling, context)
        self._normalisation = normalisation_of(config, self._scaling, folder, self._rows)
        self._names: Sequence[str] = self._rows.facts["labels"]
        loaded = _loaded(config, self._scaling, folder, self._names)
        self._model = add_adapters(loaded, config)
        self._loop = Loop(config, context, self._device, self._model, ranks)
        self._images = {split: _Images.of(self._rows, split) for split in self._rows.facts["rows"]}
        self._train_labels = torch.from_numpy(np.array(self._rows.array("train-labels")))
        self._weights = self._class_weights()
        self._features: FrozenFeatures | None = frozen_features(
            loaded, self._loop.freezing, config, folder, context.cache, self._as_inputs()
        )
        self._validated: tuple[Tensor, Tensor] | None = None

    @property
    def facts(self) -> Mapping[str, Any]:
        """Rows, labels, parameters and what they were computed with."""
        return {
            **self._rows.facts,
            **self._loop.facts(),
            "normalisation": asdict(self._normalisation),
            "frozen_features": self._features is not None,
        }

    def reports(self) -> Iterator[Report]:
        """Yield a report every epoch, or every so many steps, from the resumed position on; returns early when asked to pause."""
        return self._loop.reports(
            Work(batches=self._batches, loss=self._loss, weight=self._weight, validate=self._validate, measure=self._measure)
        )

    def save(self, directory: Path) -> None:
        """Write everything that `load` needs to go on bit for bit."""
        self._loop.save(directory)

    def load(self, directory: Path) -> None:
        """Go on from what `save` wrote."""
        self._loop.load(directory)

    def export(self, directory: Path) -> None:
        """Write model, configuration with the labels' names, and image processor."""
        export_model(self._model, self._config, directory)
        export_processor(self._scaling, self._normalisation, directory)

    def analysis(self) -> Mapping[str, Any]:
        """Where the validation rows of the last report went wrong."""
        if self._validated is None:
            return {}
        return analysis.image_labels(*self._validated, self._names, self._rows.texts("validation-images"))

    def test(self, exported: Path) -> Mapping[str, float]:
        """Metrics of an export on the test rows."""
        if "test" not in self._rows.facts["rows"]:
            return {}
        evaluated = measured_export(
            AutoModelForImageClassification, exported, self._device, lambda model: self._evaluated(model, "test")
        )
        return {f"test/{name}": value for name, value in metrics.classification_metrics(*evaluated).items()}

    def _batches(self, epoch: int) -> Sequence[Sequence[int]]:
        config = self._config
        images = np.zeros(len(self._train_labels), dtype=np.int64)  # all of one size
        return _without_single(epoch_order(images, config.batch_size, config.seed, epoch, group_by_length=False))

    def _weight(self, rows: Sequence[int]) -> float:
        return losses.class_weight_total(self._train_labels[list(rows)], self._weights)

    def _loss(self, rows: Sequence[int], epoch: int) -> Tensor:
        config = self._config
        if self._features is not None:
            self._features.use("train", rows, self._device)
        images = self._inputs("train", rows)
        if config.augmentation != ImageAugmentation():
            images = augmented(images, config.augmentation, drawn(config.seed, epoch, rows).to(self._device))
        with _single_rows_named():
            logits = self._loop.network(pixel_values=images).logits.float()
        labels = self._train_labels[list(rows)].to(self._device)
        weights = None if self._weights is None else self._weights.to(self._device)
        gamma = config.focal_gamma if config.loss == "focal" else None
        return losses.class_loss(logits, labels, weights=weights, smoothing=config.label_smoothing, gamma=gamma)

    def _inputs(self, split: str, rows: Sequence[int], device: torch.device | None = None) -> Tensor:
        """Normalised images, shape (rows, channels, size, size)."""
        pixels = torch.from_numpy(self._images[split][rows]).to(device or self._device)
        return self._normalisation.of(pixels.permute(0, 3, 1, 2))  # channels stay last in memory: no copy

    def _validate(self) -> Mapping[str, float]:
        self._model.eval()
        self._validated = self._evaluated(self._model, "validation")
        return metrics.classification_metrics(*self._validated)

    def _measure(self) -> Mapping[str, float]:
        """What is measured once of the model, of one row of median length."""
        image = self._inputs("validation", [0])
        return measured(self._model, self._config, lambda: self._model(pixel_values=image), self._features)

    @torch.inference_mode()
    def _evaluated(self, model: Any, split: str) -> tuple[Tensor, Tensor]:
        """Outputs, shape (rows, classes), and what was wanted of a split's rows, in fp32."""
        labels = torch.from_numpy(np.array(self._rows.array(f"{split}-labels")))
        features = self._features if model is self._model else None

        def compute(rows: Sequence[int]) -> Tensor:
            if features is not None:
                features.use(split, rows, self._device)
            logits: Tensor = model(pixel_values=self._inputs(split, rows, model.device)).logits
            return logits.float().cpu()

        outputs = torch.empty(len(labels), len(self._names))
        for rows, found in in_batches(range(len(labels)), _VALIDATION_BATCH, compute):
            outputs[list(rows)] = found
        return outputs, labels

    def _class_weights(self) -> Tensor | None:
        if self._config.class_weights == "none":
            return None
        counts = torch.bincount(self._train_labels, minlength=len(self._names)).tolist()
        return torch.tensor(losses.balanced_weights(counts))

    def _as_inputs(self) -> Inputs:
        """What the frozen layers are given."""

        def forward(split: str, some: Sequence[int]) -> Tensor:
            logits: Tensor = self._model(pixel_values=self._inputs(split, some)).logits
            return logits

        return Inputs(
            rows={split: len(self._images[split]) for split in ("train", "validation")},
            forward=forward,
            depends_on={"rows": self._rows.folder.name, "normalisation": asdict(self._normalisation)},
            change=self._config.augmentation != ImageAugmentation(),
        )


def _without_single(batches: Sequence[Sequence[int]]) -> Sequence[Sequence[int]]:
    """The same rows without a last row that is alone: batch normalisation may not be able to learn from it.

    It shares those of the batch before it, or joins a batch of two. Batches of one row each stay as they were asked for.
    """
    match batches:
        case [*others, [first, second], [single]]:
            return [*others, [first, second, single]]
        case [*others, [_, _, _, *_] as full, [single]]:
            middle = (len(full) + 1) // 2
            return [*others, full[:middle], [*full[middle:], single]]
        case _:
            return batches


@contextmanager
def _single_rows_named() -> Iterator[None]:
    """Say what to do where batch normalisation has one value alone to learn from: TrainerError."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        detail = "Batch normalisation cannot learn from one image alone: raise `micro_batch_size`."
        raise TrainerError("trainer_error", detail) from error


@dataclass(frozen=True)
class _Images:
    """The images of a split: those at `places` of all that are in a file."""

    pixels: Array
    places: Array

    @classmethod
    def of(cls, rows: Prepared, split: str) -> "_Images":
        """Mapped."""
        return cls(rows.array(f"pixels-{rows.facts['files'][split]}"), np.array(rows.array(f"{split}-places")))

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, rows: Sequence[int]) -> Array:
        """Shape (rows, size, size, channels)."""
        found: Array = self.pixels[self.places[rows]]
        return found


def _loaded(config: ImageClassificationConfig, scaling: Scaling, folder: Path, names: Sequence[str]) -> LoadedModel:
    """The model with a head for these labels, for images of this size. Raises TrainerError."""
    head = {
        "id2label": dict(enumerate(names)),
        "label2id": {name: number for number, name in enumerate(names)},
        "problem_type": "single_label_classification",
    }
    if config.initialisation == "random":
        return load_model(AutoModelForImageClassification, folder, config, {**head, "image_size": scaling.size})
    loaded = load_model(AutoModelForImageClassification, folder, config, head)
    if side_of(getattr(loaded.model.config, "image_size", scaling.size)) == scaling.size:
        return loaded
    return LoadedModel(_for_size(loaded.model, scaling.size), loaded.new_parts)


def _for_size(model: Any, size: int) -> Any:
    """The same model for images of another size, its embeddings of positions stretched (Dosovitskiy et al. 2021, section 3.2)."""
    config = deepcopy(model.config)
    config.image_size = size
    resized = type(model)(config)
    weights, wanted = model.state_dict(), resized.state_dict()
    with torch.no_grad():
        for name in [name for name, weight in weights.items() if weight.shape != wanted[name].shape]:
            weights[name] = _stretched(model, name, wanted[name], size)
    resized.load_state_dict(weights)
    return resized


def _stretched(model: Any, name: str, wanted: Tensor, size: int) -> Tensor:
    stretch = getattr(model.get_submodule(name.rpartition(".")[0]), "interpolate_pos_encoding", None)
    stretched = stretch(wanted, size, size) if stretch and name.endswith("position_embeddings") else None
    if stretched is None or stretched.shape != wanted.shape:
        own = side_of(model.config.image_size)
        detail = (
            f"{type(model).__name__} was trained on images of {own} pixels and cannot take {size}: set `image_size` to {own}."
        )
        raise TrainerError("trainer_error", detail)
    return stretched  # type: ignore[no-any-return]  # its shape was looked at


def prepare(config: ImageClassificationConfig, scaling: Scaling, context: TrialContext) -> Prepared:
    """Images decoded, scaled and divided.

    `pixels-FILE` has all images of a file, shape (rows, size, size, channels), 0 to 255. `SPLIT-places` says which of them are in
    a split, and the fact `files` in which file; `SPLIT-labels` are numbers of classes, `validation-images` names. Facts name the
    labels, and mean and deviation of the training images' channels from 0 to 1.
    Raises TrainerError for rows that cannot be used.
    """
    data = config.data
    files = source_files(data, context.sources)
    hashes = file_hashes(files)

    def make(into: Path) -> Mapping[str, Any]:
        read: dict[str, _File] = {}
        for split, path in files.items():  # the training rows come first: they say what is white
            white = read["train"].white if read else None
            read[split] = _read(path, config, scaling, white, into / f"pixels-{split}.npy")
        division = divided(data, {split: file.rows for split, file in read.items()})
        kept = {"train": division.train, "validation": division.validation, "test": division.test}
        names = _label_names([read[place.source].rows[place.position] for place in division.train])
        for split, places in kept.items():
            if places:
                save_array(into, f"{split}-places", np.asarray([place.position for place in places], dtype=np.int64))
                save_array(into, f"{split}-labels", _numbered(places, read, names, split))
        save_texts(into, "validation-images", [read[place.source].names[place.position] for place in division.validation])
        pixels = np.load(into / "pixels-train.npy", mmap_mode="r", allow_pickle=False)
        mean, std = _moments(pixels, [place.position for place in division.train])
        return {
            **division.facts,
            "labels": names,
            "image_size": scaling.size,
            "image_mean": mean,
            "image_std": std,
            "white": read["train"].white,
            "files": {split: places[0].source for split, places in kept.items() if places},
            "sha256": hashes,
        }

    depends_on = {
        "version": _VERSION,
        "kind": config.kind,
        "files": hashes,
        "data": data.model_dump(mode="json", exclude={"train", "validation", "test"}),
        "scaling": asdict(scaling),
    }
    return prepared(context.cache, depends_on, make)


@dataclass(frozen=True)
class _File:
    """What is to know of the images of one file, beside their pixels. `white` is of grey values in a table."""

    rows: Sequence[Row]
    names: Sequence[str]
    white: float | None


def _read(path: Path, config: ImageClassificationConfig, scaling: Scaling, white: float | None, into: Path) -> _File:
    """Decode and scale every image of a file, one at a time, into an array on disk. Raises TrainerError."""
    rows: list[Row] = []
    names: list[str] = []
    try:
        pictures = read_images(path, config.data.image, config.data.label, white=white)
        pixels = _space_for(pictures, scaling, into)
        for at, picture in enumerate(pictures):
            is_empty = not picture.label or not picture.pixels.size
            key = hashlib.sha256(repr(picture.pixels.shape).encode() + picture.pixels.tobytes()).digest()
            rows.append(Row(key, picture.label, is_empty))
            names.append(picture.name)
            if not is_empty:
                pixels[at] = scaling.of(picture.pixels)
        pixels.flush()
    except TableError as error:
        raise TrainerError("trainer_error", f"{path.name}: {error.detail}.") from error
    return _File(rows, names, pictures.white)


def _space_for(pictures: LabelledPictures, scaling: Scaling, path: Path) -> Any:
    """An array on disk for the scaled images. Raises TrainerError for a disk that is too small, TableError for no images."""
    if not len(pictures):
        raise TableError("the file has no rows")
    shape = (len(pictures), scaling.size, scaling.size, scaling.channels)
    free = shutil.disk_usage(path.parent).free
    if math.prod(shape) > free:  # a mapped file that finds no room would kill the process
        detail = f"{shape[0]:,} images of {scaling.size} pixels need {math.prod(shape):,} bytes of disk, {free:,} are free"
        raise TrainerError("trainer_error", f"{detail}: lower `image_size`, or make room.")
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)


def _label_names(rows: Sequence[Row]) -> list[str]:
    names = sorted({row.stratum or "" for row in rows}, key=label_key)
    if len(names) == 1:
        detail = (
            f"The training images have only the label {names[0]!r}: there is nothing to tell apart, so add images of another."
        )
        raise TrainerError("trainer_error", detail)
    return names


def _numbered(places: Sequence[Place], read: Mapping[str, _File], names: Sequence[str], split: str) -> Array:
    labels = [read[place.source].rows[place.position].stratum or "" for place in places]
    numbers = {name: number for number, name in enumerate(names)}
    unknown = sorted(set(labels) - set(numbers))
    if unknown:
        raise TrainerError("trainer_error", f"The {split} rows have labels that no training row has, such as {unknown[0]!r}.")
    return np.asarray([numbers[label] for label in labels], dtype=np.int64)


def _moments(pixels: Array, places: Sequence[int]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, from 0 to 1; of a channel that is all the same the deviation is 1.

    Counted by value, so that they do not depend on how many images are looked at together.
    """
    channels = pixels.shape[-1]
    counts = np.zeros((channels, 256), dtype=np.int64)
    for at in range(0, len(places), _AT_ONCE):
        some = pixels[places[at : at + _AT_ONCE]]
        for channel in range(channels):
            counts[channel] += np.bincount(some[..., channel].ravel(), minlength=256)
    values, shares = np.arange(256) / 255, counts / counts.sum(1, keepdims=True)
    mean = shares @ values
    std = np.sqrt((shares * (values - mean[:, None]) ** 2).sum(1))
    return mean.tolist(), np.where(std > 0, std, 1.0).tolist()
