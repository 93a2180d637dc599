"""Labelled pictures in zips and tables, decoded one at a time. The catalog checks files with it, trainers read them.

Needs numpy, Pillow and pyarrow.
"""

import base64
import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image, ImageOps, UnidentifiedImageError

from trainers import tables
from trainers.bounds import TooMuch
from trainers.parquets import decoded, open_parquet
from trainers.tables import Summary, TableError
from trainers.zips import LIMITS, Limits, Member, find_members, open_zip, unpack

COLUMNS = ("image", "label")
"""What the columns of a zip of pictures are called, which has none."""

_ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm"})
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
"""None of Pillow's other formats: some of them start programs."""
_NUMBERS = re.compile(r"[\d\s.,eE+\-\[\]]+")
_AT_ONCE = 64

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Picture:
    """`pixels` are red, green and blue, 0 to 255, of shape (height, width, 3): (0, 0, 3) for one that is missing.

    `label` is empty where it is missing; `name` says where in its file the picture is.
    """

    pixels: Pixels
    label: str
    name: str


@dataclass(frozen=True)
class LabelledPictures:
    """Pictures that are decoded while one iterates, as often as one does; `labels` are known before.

    `white` is the grey value that is white in a table of grey values, and None elsewhere. Iterating raises TableError.
    """

    labels: tuple[str, ...]
    white: float | None
    _decode: Callable[[], Iterator[tuple[str, Pixels]]] = field(repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[Picture]:
        for (name, pixels), label in zip(self._decode(), self.labels, strict=True):
            yield Picture(pixels, label, name)


def read_images(
    path: Path, image: str = COLUMNS[0], label: str = COLUMNS[1], *, limits: Limits = LIMITS, white: float | None = None
) -> LabelledPictures:
    """The pictures of a zip with a folder for each label, or of a table with the columns `image` and `label`.

    In a zip a label is the folder's path, without the folders that all pictures have in common. In a table a picture is encoded
    (bytes, a record of `bytes` and `path`, or base64), or a square of grey values: a list, row by row, or as text. Black is 0
    and white is the brightest value of the whole file, unless `white` says it: take that of the training rows for the others.

    Turned as EXIF says; what shines through is white. Raises TableError, OSError.
    """
    if path.suffix.lower() == ".zip":
        members = find_members(path, _ENDINGS, limits)
        return LabelledPictures(tuple(member.label for member in members), None, lambda: _unzipped(path, members, limits))
    labels = _labels(path, image, label)
    scale = _brightest(path, image) if white is None else white
    return LabelledPictures(labels, scale, lambda: _tabled(path, image, scale, limits))


def look_images(path: Path, *, limits: Limits = LIMITS) -> Summary:
    """Count the pictures of a zip. Reads every one, without decoding it whole. Raises TableError, OSError."""
    members = find_members(path, _ENDINGS, limits)
    with open_zip(path) as archive:
        for member in members:
            _verify(unpack(archive, member), member.name, limits)
    return Summary(len(members), COLUMNS)


def _unzipped(path: Path, members: Sequence[Member], limits: Limits) -> Iterator[tuple[str, Pixels]]:
    with open_zip(path) as archive:
        for member in members:
            yield member.entry.filename, _decode(unpack(archive, member), member.name, limits)


@contextmanager
def _opened(encoded: bytes, name: str, limits: Limits) -> Iterator[Image.Image]:
    """A picture whose header was read. `name` begins the sentence of an error."""
    try:
        with Image.open(io.BytesIO(encoded), formats=_FORMATS) as image:
            _check_pixels(image, name, limits)
            yield image
    except TableError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(name, limits) from error
    except UnidentifiedImageError as error:
        raise TableError(f"{name} is no picture that can be read: use {', '.join(_FORMATS)}") from error
    except Exception as error:  # Pillow raises whatever its decoders ran into
        raise TableError(f"{name} is a broken picture: {error}") from error


def _check_pixels(image: Image.Image, name: str, limits: Limits) -> None:
    if image.width * image.height > limits.pixels:
        raise _too_large(name, limits)


def _too_large(name: str, limits: Limits) -> TableError:
    return TableError(f"{name} has more than {limits.pixels:,} pixels: scale it down")


def _verify(encoded: bytes, name: str, limits: Limits) -> None:
    with _opened(encoded, name, limits) as image:
        image.verify()


def _decode(encoded: bytes, name: str, limits: Limits) -> Pixels:
    with _opened(encoded, name, limits) as image:
        return _rgb(ImageOps.exif_transpose(image), name)


def _rgb(image: Image.Image, name: str) -> Pixels:
    if image.mode.startswith("I;16"):
        return _grey_pixels(np.asarray(image), 65535)
    if image.mode in {"I", "F"}:  # what is white in them is known to nobody
        raise TableError(f"{name} has 32 bits a pixel: save it with 8 or 16")
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))


def _grey_pixels(values: npt.NDArray[Any], white: float) -> Pixels:
    scaled = np.clip(np.rint(values * (255 / white)), 0, 255).astype(np.uint8)
    return np.repeat(scaled[:, :, None], 3, axis=2)


def _labels(path: Path, image: str, label: str) -> tuple[str, ...]:
    found: list[str] = []
    columns = dict[str, None]()
    for part in tables.parts(path, [label]):
        found += [(value or "").strip() for value in part.texts[label]]
        columns.update(dict.fromkeys(part.columns))
    if image not in columns:
        raise TableError(f"there is no column {image!r}: the file has {', '.join(map(repr, columns))}", image)
    return tuple(found)


def _tabled(path: Path, column: str, white: float | None, limits: Limits) -> Iterator[tuple[str, Pixels]]:
    for name, value in _cells(path, column):
        with _blaming(column):
            pixels = _cell_pixels(value, white, name, limits)
        yield name, pixels


@contextmanager
def _blaming(column: str) -> Iterator[None]:
    try:
        yield
    except TableError as error:
        raise TableError(error.detail, column) from error


def _cell_pixels(value: Any, white: float | None, name: str, limits: Limits) -> Pixels:
    if _is_missing(value):
        return np.zeros((0, 0, 3), dtype=np.uint8)
    values = _grey_values(value, name)
    if values is None:
        return _decode(_encoded(value, name), name, limits)
    if white is None:
        raise TableError(f"{name} has grey values, where the rows before have encoded pictures: use one of them alone")
    return _grey_pixels(values, white)


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, str | bytes) and not value.strip())


def _encoded(value: Any, name: str) -> bytes:
    match value:
        case bytes():
            return value
        case {"bytes": bytes() as encoded}:
            return encoded
        case {"path": str(), **_others}:
            raise TableError(f"{name} has a picture's path without its bytes: write the bytes into the file")
        case str():
            try:
                return base64.b64decode(value.rpartition("base64,")[2], validate=True)
            except ValueError as error:
                raise TableError(f"{name} is text, but no picture in base64 and no grey values") from error
        case _:
            raise TableError(f"{name} is no picture: use encoded bytes, or a list of grey values")


def _grey_values(value: Any, name: str) -> npt.NDArray[np.float64] | None:
    """The grey values, of shape (height, width), from 0; None where the value is none of these."""
    if isinstance(value, str) and _NUMBERS.fullmatch(value):
        value = re.split(r"[\s,]+", value.strip("[], \t\r\n"))
    if not isinstance(value, list | np.ndarray):
        return None
    try:
        values = np.asarray(value, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise TableError(f"{name} is a list, but not of grey values: {error}") from error
    if not (np.isfinite(values).all() and (values >= 0).all()):
        raise TableError(f"{name} has a grey value that is negative or no number: they start at 0, which is black")
    side = isqrt(values.size)
    if values.ndim == 1 and side and side * side == values.size:
        values = values.reshape(side, side)
    if values.ndim != 2 or not values.size:  # noqa: PLR2004 - height and width
        raise TableError(f"{name} has {values.size} grey values, which make no square")
    return values


def _brightest(path: Path, column: str) -> float | None:
    """The greatest grey value of a file; None where the pictures are encoded."""
    brightest = 0.0
    found = False
    for name, value in _cells(path, column):
        if _is_missing(value):
            continue
        with _blaming(column):
            values = _grey_values(value, name)
        if values is None:
            return None
        found, brightest = True, max(brightest, float(values.max()))
    return (brightest or 1.0) if found else None


def _cells(path: Path, column: str) -> Iterator[tuple[str, Any]]:
    """A column's values as they are, each with where it is. Lists of numbers of a Parquet file come as arrays."""
    match path.suffix.lower():
        case ".jsonl":
            for number, row in tables.json_rows(path):
                yield f"line {number}", row.get(column)
        case ".parquet":
            for number, value in enumerate(_parquet_cells(path, column), start=1):
                yield f"row {number}", value
        case _:
            texts = (value for part in tables.parts(path, [column]) for value in part.texts[column])
            for number, text in enumerate(texts, start=1):
                yield f"row {number}", text


def _parquet_cells(path: Path, column: str) -> Iterator[Any]:
    try:
        with open_parquet(path) as opened:
            for batch in opened.batches([column], _AT_ONCE):
                for cell in decoded(batch.column(column)):
                    is_flat = isinstance(cell, pa.ListScalar) and pa.types.is_primitive(cell.type.value_type)
                    yield cell.values.to_numpy(zero_copy_only=False) if is_flat and cell.is_valid else cell.as_py()
    except (FileNotFoundError, PermissionError):
        raise
    except TooMuch as error:
        raise TableError(str(error)) from error
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"the file is broken: {error}") from error
