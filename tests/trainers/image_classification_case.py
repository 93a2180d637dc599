"""Drawn shapes: a tiny ResNet on zips with a folder for each label, a tiny vision transformer on tables of PNGs."""

import io
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image, ImageDraw
from pyarrow import parquet
from transformers import AutoImageProcessor, AutoModelForImageClassification, ResNetConfig, ResNetModel, ViTConfig, ViTModel

_SPLITS = {"train": 96, "validation": 36, "test": 24}
_SHAPES = ("disc", "frame", "stripes")


def shapes(count: int, seed: int, kinds: Sequence[str] = _SHAPES) -> Iterator[tuple[str, Image.Image]]:
    """Labels and images of different sizes, in colours that say nothing; each kind as often as the others."""
    random = np.random.default_rng(seed)
    for number in range(count):
        width, height = random.integers(18, 40, 2).tolist()
        dark, light = (tuple(random.integers(low, low + 100, 3).tolist()) for low in (0, 156))
        image = Image.new("RGB", (width, height), light)
        left, top, margin = random.integers(1, 6, 3).tolist()
        box = (left, top, width - 1 - margin, height - 2)
        draw, kind = ImageDraw.Draw(image), kinds[number % len(kinds)]
        match kind:
            case "disc":
                draw.ellipse(box, fill=dark)
            case "frame":
                draw.rectangle(box, outline=dark, width=2)
            case "stripes":
                for y in range(top, height, 6):
                    draw.rectangle((0, y, width, y + 2), fill=dark)
        yield kind, image


def png(image: Image.Image) -> bytes:
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    return encoded.getvalue()


def write_zip(path: Path, images: Iterable[tuple[str, Image.Image]]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for number, (label, image) in enumerate(images):
            archive.writestr(f"shapes/{label}/{number:03}.png", png(image))


def make_tiny_resnet(folder: Path, **changes: Any) -> None:
    """Write a ResNet of some thousand parameters with random weights."""
    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", **changes)
    ResNetModel(config).save_pretrained(folder)


def make_tiny_vit(folder: Path, **changes: Any) -> None:
    """Write a vision transformer of some thousand parameters with random weights."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = ViTConfig(**{**sizes, "image_size": 16, "patch_size": 4, "initializer_range": 0.2, **changes})
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder)


def write_zips(folder: Path) -> None:
    make_tiny_resnet(folder / "tiny")
    for seed, (split, count) in enumerate(_SPLITS.items()):
        write_zip(folder / f"{split}.zip", shapes(count, seed))


def write_tables(folder: Path) -> None:
    make_tiny_vit(folder / "tiny")
    for seed, (split, count) in enumerate(_SPLITS.items()):
        rows = [{"picture": {"bytes": png(image), "path": None}, "shape": label} for label, image in shapes(count, seed)]
        parquet.write_table(pa.Table.from_pylist(rows), folder / f"{split}.parquet")


def measure_zip(exported: Path, place: Path, split: str) -> Mapping[str, float]:
    with zipfile.ZipFile(place / f"{split}.zip") as archive:
        return judge(exported, [(name.split("/")[1], Image.open(io.BytesIO(archive.read(name)))) for name in archive.namelist()])


def measure_table(exported: Path, place: Path, split: str) -> Mapping[str, float]:
    rows = parquet.read_table(place / f"{split}.parquet").to_pylist()
    return judge(exported, [(row["shape"], Image.open(io.BytesIO(row["picture"]["bytes"]))) for row in rows])


def judge(exported: Path, rows: Sequence[tuple[str, Image.Image]]) -> Mapping[str, float]:
    """Metrics of an export on image files, with nothing but transformers."""
    model: Any = AutoModelForImageClassification.from_pretrained(exported).eval()
    processor: Any = AutoImageProcessor.from_pretrained(exported, backend="pil")  # torchvision's resizes a little otherwise
    with torch.inference_mode():
        logits = torch.cat([model(**processor(image, return_tensors="pt")).logits.double() for _, image in rows])
    wanted = torch.tensor([model.config.label2id[label] for label, _ in rows])
    return {
        "accuracy": float((logits.argmax(-1) == wanted).double().mean()),
        "loss": float(torch.nn.functional.cross_entropy(logits, wanted)),
    }


def _document(ending: str, **changes: Any) -> dict[str, Any]:
    data = {split: f"dataset://{split}.{ending}" for split in _SPLITS}
    return {
        "kind": "image-classification",
        "model": "tiny",
        "data": {**data, **changes.pop("columns", {})},
        "image_size": 16,
        "epochs": 3,
        "batch_size": 16,
        "learning_rate": 1e-2,
        "augmentation": {"flip": 0.5, "crop": 0.2, "shift": 0.1, "erase": 0.2},
        **changes,
    }


_VIT = _document("parquet", columns={"image": "picture", "label": "shape"}, learning_rate=5e-3)
_REACHED = {"accuracy": 0.9, "loss": 0.4}

RESNET_CASE = (write_zips, _document("zip"), measure_zip, {"epochs": 12}, _REACHED)
VIT_CASE = (write_tables, _VIT, measure_table, {"epochs": 12, "dropout": 0.0}, _REACHED)
LORA_CASE = (
    write_tables,
    {**_VIT, "lora": {"rank": 4, "dropout": 0.1}},
    measure_table,
    {"epochs": 20, "learning_rate": 2e-2, "dropout": 0.0},
    {"accuracy": 0.8, "loss": 0.6},  # the frozen part has random weights
)
