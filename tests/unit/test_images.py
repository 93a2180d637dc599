"""Labelled pictures in zips and tables."""

import base64
import io
import json
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from service.catalog.builtin import fetch_builtin
from trainers.images import LabelledPictures, Picture, look_images, read_images
from trainers.tables import Summary, TableError
from trainers.zips import Limits

RED = (255, 0, 0)


def encoded(image: Image.Image | None = None, file_format: str = "PNG", **saved: Any) -> bytes:
    written = io.BytesIO()
    (image or Image.new("RGB", (3, 2), RED)).save(written, file_format, **saved)
    return written.getvalue()


def grey(*rows: list[int], mode: str = "L") -> Image.Image:
    return Image.fromarray(np.asarray(rows, dtype=np.uint8)).convert(mode)


class Folder:
    """Files to read."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def zip(self, files: Mapping[str, bytes], **how: Any) -> Path:
        path = self._root / "pictures.zip"
        with zipfile.ZipFile(path, "w", **how) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return path

    def parquet(self, **columns: Any) -> Path:
        parquet.write_table(pa.table(columns), self._root / "pictures.parquet")
        return self._root / "pictures.parquet"

    def lines(self, *rows: Any) -> Path:
        path = self._root / "pictures.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    def csv(self, content: str) -> Path:
        (self._root / "pictures.csv").write_text(content)
        return self._root / "pictures.csv"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def only(pictures: LabelledPictures) -> Picture:
    [picture] = pictures
    return picture


def decoded(folder: Folder, content: bytes, name: str = "a/1.png") -> Any:
    return only(read_images(folder.zip({name: content}))).pixels


def refusal(path: Path, *, limits: Limits | None = None) -> str:
    with pytest.raises(TableError) as refused:
        list(read_images(path, limits=limits or Limits()))
    return refused.value.detail


def test_the_folder_of_a_picture_is_its_label(folder: Folder) -> None:
    pictures = read_images(folder.zip({"dogs/1.png": encoded(), "cats/1.jpg": encoded(file_format="JPEG")}))
    assert len(pictures) == 2
    assert pictures.labels == ("cats", "dogs")
    assert [(picture.label, picture.name, picture.pixels.shape) for picture in pictures] == [
        ("cats", "cats/1.jpg", (2, 3, 3)), ("dogs", "dogs/1.png", (2, 3, 3)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["small/Greek/a/1.png", "small/Latin/a/1.png"], ["Greek/a", "Latin/a"]),
        (["train/cats/1.png", "train/dogs/1.png"], ["cats", "dogs"]),
        (["train/cats/1.png", "train/cats/2.png"], ["cats", "cats"]),
        (["cats/1.png"], ["cats"]),
        (["cats/1.png", "cats/black/1.png"], ["cats", "cats/black"]),
        (["x/cats/1.png", "x/cats/black/1.png"], ["cats", "cats/black"]),
        (["x\\cats\\1.png", "x\\dogs\\1.png"], ["cats", "dogs"]),
    ],
)
def test_folders_that_all_pictures_share_are_no_part_of_a_label(folder: Folder, names: list[str], labels: list[str]) -> None:
    assert list(read_images(folder.zip(dict.fromkeys(names, encoded()))).labels) == labels


def test_what_is_hidden_or_no_picture_is_passed_over(folder: Folder) -> None:
    others = ["__MACOSX/cats/._1.png", "cats/.hidden.png", ".git/cats/2.png", "README.md", "cats/inner.zip", "cats/Thumbs.db"]
    path = folder.zip({"cats/": b"", "cats/1.png": encoded(), **dict.fromkeys(others, b"no picture")})
    assert look_images(path) == Summary(1, ("image", "label"))
    assert [picture.name for picture in read_images(path)] == ["cats/1.png"]


def test_pictures_can_be_gone_through_again(folder: Folder) -> None:
    pictures = read_images(folder.zip({"a/1.png": encoded()}))
    assert only(pictures).name == only(pictures).name


@pytest.mark.parametrize(
    ("image", "colours"),
    [
        (grey([0, 255], mode="1"), [(0, 0, 0), (255, 255, 255)]),
        (grey([0, 100]), [(0, 0, 0), (100, 100, 100)]),
        (Image.new("RGB", (2, 1), RED).convert("P"), [RED, RED]),
        (Image.new("RGBA", (2, 1), (*RED, 0)), [(255, 255, 255)] * 2),
        (Image.new("RGBA", (2, 1), (*RED, 255)), [RED, RED]),
        (Image.new("LA", (2, 1), (0, 0)), [(255, 255, 255)] * 2),
        (Image.fromarray(np.asarray([[0, 65535]], dtype=np.uint16)), [(0, 0, 0), (255, 255, 255)]),
    ],
    ids=["black and white", "grey", "palette", "clear", "opaque", "clear grey", "16 bits"],
)
def test_every_kind_of_picture_becomes_red_green_and_blue(
    folder: Folder, image: Image.Image, colours: list[tuple[int, int, int]]
) -> None:
    pixels = decoded(folder, encoded(image))
    assert pixels.dtype == np.uint8
    assert [tuple(colour) for colour in pixels[0].tolist()] == colours


def test_a_palettes_clear_colour_is_white(folder: Folder) -> None:
    image = Image.new("P", (1, 1), 0)
    image.putpalette([9, 9, 9])
    assert decoded(folder, encoded(image, transparency=0)).tolist() == [[[255, 255, 255]]]


def test_a_picture_in_print_colours_is_read(folder: Folder) -> None:
    assert decoded(folder, encoded(Image.new("CMYK", (4, 4)), "JPEG"), "a/1.jpg").shape == (4, 4, 3)


def test_a_picture_is_turned_as_its_camera_was(folder: Folder) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decoded(folder, encoded(Image.new("RGB", (3, 2)), "JPEG", exif=exif), "a/1.jpg").shape == (3, 2, 3)


def test_a_picture_of_32_bits_a_pixel_is_refused(folder: Folder) -> None:
    path = folder.zip({"a/1.tif": encoded(Image.new("F", (2, 2)), "TIFF")})
    assert "'a/1.tif' has 32 bits a pixel" in refusal(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is no picture"),
        (b"hello", "is no picture"),
        (encoded(Image.effect_noise((64, 64), 50))[:2000], "is a broken picture"),
        (encoded()[:30], "picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is no picture that can be read: use PNG, JPEG"),
    ],
    ids=["nothing", "a text", "half a picture of noise", "half a small picture", "PostScript"],
)
def test_a_broken_picture_in_a_zip_is_named(folder: Folder, content: bytes, reason: str) -> None:
    path = folder.zip({"cats/1.png": encoded(), "cats/2.png": content})
    with pytest.raises(TableError, match=rf"'cats/2\.png' .*{reason}"):
        look_images(path)
    assert reason in refusal(path)


def test_a_photograph_that_is_cut_short_is_found_when_it_is_read(folder: Folder) -> None:
    whole = encoded(Image.effect_noise((64, 64), 50), "JPEG")
    assert "'a/1.jpg' is a broken picture" in refusal(folder.zip({"a/1.jpg": whole[: len(whole) // 2]}))


@pytest.mark.parametrize(
    "name", ["../1.png", "cats/../../1.png", "/etc/1.png", "C:/cats/1.png", "..\\..\\cats\\1.png", "../x.txt"]
)
def test_a_name_that_would_leave_the_folder_is_refused(folder: Folder, name: str) -> None:
    path = folder.zip({"cats/1.png": encoded(), name: encoded()})
    assert "would leave its folder" in refusal(path)
    with pytest.raises(TableError, match="would leave its folder"):
        look_images(path)


def test_a_link_is_refused(folder: Folder, tmp_path: Path) -> None:
    path = folder.zip({"cats/1.png": encoded()})
    link = zipfile.ZipInfo("cats/2.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    assert "'cats/2.png' in the zip is a link" in refusal(path)


def test_an_encrypted_file_is_refused(folder: Folder) -> None:
    path = folder.zip({"cats/1.png": encoded()})
    raw = bytearray(path.read_bytes())
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        raw[raw.index(signature) + place] |= 1
    path.write_bytes(raw)
    assert "is encrypted: make the zip without a password" in refusal(path)


def test_a_file_that_is_not_what_its_checksum_says_is_refused(folder: Folder) -> None:
    path = folder.zip({"cats/1.png": encoded()})
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"IDAT", b"IDAX"))
    with pytest.raises(TableError, match=r"'cats/1\.png' in the zip is broken: Bad CRC-32"):
        look_images(path)


@pytest.mark.parametrize("content", [b"", b"no zip at all", b"PK\x05\x06 and no more"])
def test_what_is_no_zip_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(TableError, match="the zip is broken"):
        look_images(tmp_path / "a.zip")


def test_a_zip_that_is_cut_short_is_refused(folder: Folder) -> None:
    path = folder.zip({"cats/1.png": encoded()})
    path.write_bytes(path.read_bytes()[:-30])
    assert "the zip is broken" in refusal(path)


def test_a_compression_that_python_does_not_know_is_refused(folder: Folder) -> None:
    path = folder.zip({"cats/1.png": encoded()})
    raw = bytearray(path.read_bytes())
    struct.pack_into("<H", raw, raw.index(b"PK\x01\x02") + 10, 99)
    path.write_bytes(raw)
    assert "'cats/1.png' in the zip is compressed in a way that is not read here" in refusal(path)


def test_a_zip_that_unpacks_to_much_more_than_it_holds_is_refused_before_it_is_read(folder: Folder) -> None:
    path = folder.zip({f"a/{number}.bmp": bytes(1_000_000) for number in range(3)}, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 20_000
    assert "unpacks to 3,000,000 bytes, more than 100 times its size" in refusal(path, limits=Limits(small_bytes=2_000_000))
    assert "unpacks to 3,000,000 bytes, more than 2,500,000 bytes" in refusal(path, limits=Limits(unpacked_bytes=2_500_000))
    assert "'a/0.bmp' in the zip unpacks to more than 999,999 bytes" in refusal(path, limits=Limits(image_bytes=999_999))


def test_a_file_that_is_larger_than_it_says_is_not_read_further(folder: Folder) -> None:
    path = folder.zip({"a/1.bmp": bytes(1_000_000)}, compression=zipfile.ZIP_DEFLATED)
    raw = bytearray(path.read_bytes())
    struct.pack_into("<I", raw, raw.index(b"PK\x01\x02") + 24, 10)
    path.write_bytes(raw)
    assert "'a/1.bmp' in the zip is broken" in refusal(path)


def test_a_file_that_says_it_is_larger_than_its_zip_is_refused_before_room_is_made_for_it(folder: Folder) -> None:
    path = folder.zip({"a/1.png": encoded()})
    raw = bytearray(path.read_bytes())
    struct.pack_into("<I", raw, raw.index(b"PK\x01\x02") + 20, 200_000_000)
    path.write_bytes(raw)
    tracemalloc.start()
    try:
        assert "the zip is broken: 'a/1.png' would be larger than all of it" in refusal(path)
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()


def test_a_zip_of_too_many_entries_is_refused(folder: Folder) -> None:
    path = folder.zip({f"a/{number}": b"" for number in range(20)})
    assert "more than 19 entries" in refusal(path, limits=Limits(entries=19))
    assert "more than 1 entries" in refusal(path, limits=Limits(entries=1))


def test_a_picture_of_too_many_pixels_is_refused_by_its_header(folder: Folder) -> None:
    path = folder.zip({"a/1.png": encoded()})
    assert refusal(path, limits=Limits(pixels=5)) == "'a/1.png' has more than 5 pixels: scale it down"
    with pytest.raises(TableError, match="more than 5 pixels"):
        look_images(path, limits=Limits(pixels=5))


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_a_picture_that_says_it_is_enormous_is_refused(folder: Folder, side: int) -> None:
    raw = bytearray(encoded())
    struct.pack_into(">II", raw, 16, side, side)
    struct.pack_into(">I", raw, 29, zlib.crc32(raw[12:29]))
    with pytest.raises(TableError, match="more than 89,478,485 pixels"):
        look_images(folder.zip({"a/1.png": bytes(raw)}))


def test_a_picture_outside_every_folder_is_refused(folder: Folder) -> None:
    assert "'1.png' in the zip is in no folder" in refusal(folder.zip({"1.png": encoded(), "a/2.png": encoded()}))


def test_a_zip_without_pictures_is_refused(folder: Folder) -> None:
    assert "there is no picture in the zip" in refusal(folder.zip({"cats/readme.txt": b"hello"}))


def test_encoded_pictures_are_read_from_a_table(folder: Folder) -> None:
    path = folder.parquet(picture=[encoded(), None], kind=["a", "b"])
    first, second = read_images(path, "picture", "kind")
    assert (first.label, first.name, first.pixels.shape) == ("a", "row 1", (2, 3, 3))
    assert (second.label, second.name, second.pixels.shape) == ("b", "row 2", (0, 0, 3))


def test_pictures_are_read_as_hugging_face_keeps_them(folder: Folder) -> None:
    path = folder.parquet(image=[{"bytes": encoded(), "path": "1.png"}], label=[7])
    assert (only(read_images(path)).label, only(read_images(path)).pixels.shape) == ("7", (2, 3, 3))


def test_a_path_without_bytes_is_refused(folder: Folder) -> None:
    path = folder.parquet(image=[{"bytes": None, "path": "/data/1.png"}], label=["a"])
    assert refusal(path) == "row 1 has a picture's path without its bytes: write the bytes into the file"


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
def test_pictures_in_base64_are_read(folder: Folder, prefix: str) -> None:
    text = prefix + base64.b64encode(encoded()).decode()
    assert only(read_images(folder.lines({"image": text, "label": "a"}))).pixels.shape == (2, 3, 3)
    assert only(read_images(folder.csv(f'image,label\n"{text}",a\n'))).pixels.shape == (2, 3, 3)


PIXELS = [[0, 4, 8, 16], [16, 16, 0, 0]]
SCALED = [[[0, 64], [128, 255]], [[255, 255], [0, 0]]]


def test_grey_values_are_scaled_by_the_brightest_of_the_whole_file(folder: Folder) -> None:
    as_text = "image,label\n" + "".join(f'"{json.dumps(values)}",a\n' for values in PIXELS)
    as_words = "image,label\n" + "".join(f"{' '.join(map(str, values))},a\n" for values in PIXELS)
    for path in (
        folder.parquet(image=PIXELS, label=["a", "a"]),
        folder.parquet(image=pa.array(PIXELS, pa.list_(pa.uint8(), 4)), label=["a", "a"]),
        folder.parquet(image=[[values[:2], values[2:]] for values in PIXELS], label=["a", "a"]),
        folder.lines(*({"image": values, "label": "a"} for values in PIXELS)),
        folder.csv(as_text),
        folder.csv(as_words),
    ):
        pictures = read_images(path)
        assert pictures.white == 16
        assert [picture.pixels[:, :, 1].tolist() for picture in pictures] == SCALED


def test_other_rows_are_scaled_as_the_training_rows_are(folder: Folder) -> None:
    train = read_images(folder.lines({"image": [16, 0, 0, 0], "label": "a"}))
    other = read_images(folder.lines({"image": [8, 0, 0, 32], "label": "a"}), white=train.white)
    assert only(other).pixels[:, :, 0].tolist() == [[128, 0], [0, 255]]


def test_a_file_of_black_pictures_stays_black(folder: Folder) -> None:
    assert only(read_images(folder.lines({"image": [0, 0, 0, 0], "label": "a"}))).pixels.max() == 0


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([1, 2, 3], "line 2 has 3 grey values, which make no square"),
        ([], "line 2 has 0 grey values"),
        ([[1, 2], [3]], "line 2 is a list, but not of grey values"),
        ([1, None, 3, 4], "line 2 has a grey value that is negative or no number"),
        ([1, "x", 3, 4], "line 2 is a list, but not of grey values"),
        ([1, -2, 3, 4], "line 2 has a grey value that is negative"),
        ([[[1]]], "line 2 has 1 grey values"),
        (7, "line 2 is no picture"),
        ({"x": 1}, "line 2 is no picture"),
        ("hello!", "line 2 is text, but no picture in base64"),
        ("aGVsbG8=", "line 2 is no picture that can be read"),
    ],
)
def test_a_value_that_is_no_picture_is_named_by_its_line(folder: Folder, value: Any, reason: str) -> None:
    path = folder.lines({"image": None, "label": "a"}, {"image": value, "label": "a"})
    with pytest.raises(TableError) as refused:
        list(read_images(path))
    assert refused.value.detail.startswith(reason)
    assert refused.value.column == "image"


def test_grey_values_and_encoded_pictures_do_not_mix(folder: Folder) -> None:
    text = base64.b64encode(encoded()).decode()
    path = folder.lines({"image": text, "label": "a"}, {"image": [1], "label": "a"})
    assert "line 2 has grey values, where the rows before have encoded pictures" in refusal(path)


def test_a_broken_picture_in_a_table_is_named_by_its_row(folder: Folder) -> None:
    path = folder.parquet(image=[encoded(), encoded(Image.effect_noise((64, 64), 50))[:2000]], label=["a", "b"])
    assert refusal(path).startswith("row 2 is a broken picture")


@pytest.mark.parametrize("column", ["image", "label"])
def test_a_column_that_is_missing_is_named(folder: Folder, column: str) -> None:
    path = folder.lines({"image": [1], "label": "a"})
    with pytest.raises(TableError, match="'image', 'label'") as refused:
        read_images(path, "other" if column == "image" else "image", "other" if column == "label" else "label")
    assert refused.value.column == "other"


def test_pictures_are_decoded_one_at_a_time(folder: Folder) -> None:
    pictures = iter(read_images(folder.zip({"a/1.png": encoded(), "b/2.png": b"broken"})))
    assert next(pictures).label == "a"
    with pytest.raises(TableError):
        next(pictures)


def test_the_built_in_digits_are_pictures(tmp_path: Path) -> None:
    pictures = read_images(fetch_builtin("builtin://digits/test", tmp_path), "pixels", "label")
    assert pictures.white == 16
    assert {picture.pixels.shape for picture in pictures} == {(8, 8, 3)}
    assert set(pictures.labels) == set("0123456789")
