"""Uploads that unpack to more than they are, or to something else than they say."""

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator

import pyarrow as pa
from PIL import Image
from pyarrow import parquet

from tests.hostile.attack import Attack, attack, posting, putting
from tests.hostile.target import Answer, Target, trained
from tests.thrift import DEEP, told

_MEGABYTE = 1024**2
_LINK = 0o120777 << 16


def attacks() -> Iterator[Attack]:
    for file, name, content in _UPLOADS:
        yield attack(f"{file}: {name}", putting(file, content), 413, 422)
    yield attack("repeated.parquet: a value that stands once in the file, and 5,000 times in its rows", _repeated, 422)
    yield attack("huge.csv: more than an upload may have", _too_large, 413)


def _zipped(entries: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED, mode: int = 0) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        for name, content in entries.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr, entry.compress_type = mode, method
            archive.writestr(entry, content)
    return made.getvalue()


def _picture() -> bytes:
    made = io.BytesIO()
    Image.new("L", (8, 8), 99).save(made, "PNG")
    return made.getvalue()


def _giant(width: int, height: int) -> bytes:
    """A PNG whose header says so, and that has next to nothing in it."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def _patched(content: bytes, signature: bytes, offset: int, form: str, value: int) -> bytes:
    """With a number of the first header of this kind replaced."""
    raw = bytearray(content)
    struct.pack_into(form, raw, raw.index(signature) + offset, value)
    return bytes(raw)


def _overlapping() -> bytes:
    """Thirty entries of the directory, all of which are the same bytes."""
    whole = _zipped({"cats/00.png": b"\0" * 4 * _MEGABYTE})
    at, end = whole.index(b"PK\x01\x02"), whole.index(b"PK\x05\x06")
    entry = whole[at:end]
    entries = b"".join(entry.replace(b"00.png", b"%02d.png" % number) for number in range(30))
    tail = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 30, 30, len(entries), at, 0)
    return whole[:at] + entries + tail


def _parquet(**columns: object) -> bytes:
    made = io.BytesIO()
    coded = "text" in columns or "a" in columns
    parquet.write_table(pa.table(columns), made, compression="zstd", use_dictionary=coded, write_statistics=False)
    return made.getvalue()


def _same(value: bytes, times: int) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array([value], pa.binary(len(value)))] * times)


def _zeros(lists: int, length: int) -> pa.Array:
    """Lists of as many zeros each."""
    zeros = pa.Array.from_buffers(pa.int64(), lists * length, [None, pa.py_buffer(bytes(8 * lists * length))])
    return pa.ListArray.from_arrays(pa.array([at * length for at in range(lists + 1)], pa.int32()), zeros)


def _nothing(length: int) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array([0, length], pa.int32()), pa.nulls(length, pa.int64()))


def _front_coded(value: str, times: int) -> bytes:
    made = io.BytesIO()
    coded = {"text": "DELTA_BYTE_ARRAY"}
    parquet.write_table(
        pa.table({"text": [value] * times}), made, compression="zstd", use_dictionary=False, column_encoding=coded
    )
    return made.getvalue()


def _footer_of(length: int) -> bytes:
    whole = _parquet(text=["a"] * 100_000)
    return whole[:-8] + struct.pack("<I", length) + b"PAR1"


def _repeated(target: Target) -> Answer:
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 5000, pa.int32()), pa.array(["x" * _MEGABYTE]))
    content = _parquet(text=text, label=["a", "b"] * 2500)
    answer = putting("repeated.parquet", lambda: content)(target)
    if answer.status in {413, 422}:
        return answer
    rows = {"train": "dataset://hostile/repeated.parquet", "text": "text", "label": "label", "validation_fraction": 0.1}
    trainer = {**dict(trained(target.service.model)["trainer"]), "data": rows}  # type: ignore[call-overload]  # a dictionary
    return posting(trained(target.service.model, trainer=trainer))(target)


def _too_large(target: Target) -> Answer:
    return target.ask("PUT", "/v1/datasets/hostile/files/huge.csv", "editor", b"x" * 1000, {"Content-Length": str(10 * 1024**4)})


_UPLOADS: tuple[tuple[str, str, Callable[[], bytes]], ...] = (
    ("up.zip", "a name that climbs", lambda: _zipped({"../../cats/1.png": _picture()})),
    ("up2.zip", "a name with a backslash that climbs", lambda: _zipped({"..\\..\\cats\\1.png": _picture()})),
    ("absolute.zip", "an absolute name", lambda: _zipped({"/etc/cats/1.png": _picture()})),
    ("drive.zip", "a drive's letter", lambda: _zipped({"C:/cats/1.png": _picture()})),
    ("link.zip", "a symbolic link", lambda: _zipped({"cats/1.png": b"/etc/passwd"}, mode=_LINK)),
    ("nested.zip", "a zip in a zip", lambda: _zipped({"cats/1.zip": _zipped({"cats/1.png": b"\0" * 10 * _MEGABYTE})})),
    (
        "ratio.zip",
        "a hundred megabytes of nothing",
        lambda: _zipped({f"cats/{at}.png": b"\0" * 60 * _MEGABYTE for at in range(2)}),
    ),
    ("overlap.zip", "entries that overlap", _overlapping),
    ("lzma.zip", "an LZMA dictionary", lambda: _zipped({"cats/1.png": _picture()}, zipfile.ZIP_LZMA)),
    ("bzip2.zip", "bzip2", lambda: _zipped({"cats/1.png": b"\0" * 10 * _MEGABYTE}, zipfile.ZIP_BZIP2)),
    ("locked.zip", "an encrypted entry", lambda: _patched(_zipped({"cats/1.png": _picture()}), b"PK\x01\x02", 8, "<H", 1)),
    (
        "sizes.zip",
        "a size that is not so",
        lambda: _patched(_zipped({"cats/1.png": _picture()}), b"PK\x01\x02", 24, "<I", 200_000_000),
    ),
    (
        "directory.zip",
        "a directory that is not so",
        lambda: _patched(_zipped({"a/1.png": b""}), b"PK\x05\x06", 12, "<I", 2**32 - 2),
    ),
    ("many.zip", "ten thousand entries", lambda: _zipped({f"c/{at}.txt": b"" for at in range(10_000)})),
    ("names.zip", "names of sixty thousand letters", lambda: _zipped({f"{'x' * 60_000}{at}/1.png": b"" for at in range(20)})),
    (
        "giant.zip",
        "a picture of ten billion pixels",
        lambda: _zipped({"a/1.png": _giant(100_000, 100_000), "b/1.png": _picture()}),
    ),
    ("wide.zip", "a picture of two billion columns", lambda: _zipped({"a/1.png": _giant(2**31 - 1, 1)})),
    (
        "script.zip",
        "a picture that is a program",
        lambda: _zipped({"a/1.eps": b"%!PS\n(x) run", "a/1.png": b"%!PS-Adobe\n(x) run"}),
    ),
    ("line.jsonl", "one long line", lambda: b'{"text": "' + b"x" * 17 * _MEGABYTE + b'"}'),
    ("deep.jsonl", "a deep line", lambda: b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    ("number.jsonl", "a long number", lambda: b'{"a": ' + b"9" * 100_000 + b"}"),
    ("keys.jsonl", "keys that are all different", lambda: b"".join(b'{"k%d": 1}\n' % at for at in range(20_000))),
    ("half.jsonl", "half a surrogate pair", lambda: b'{"\\ud800": "x"}'),
    ("columns.csv", "very many columns", lambda: b",".join(b"c%d" % at for at in range(50_000)) + b"\n"),
    ("line.csv", "one long line", lambda: b"text,label\n" + b"x" * 17 * _MEGABYTE),
    ("header.csv", "a header that never ends", lambda: b'"' + b"x" * 17 * _MEGABYTE),
    ("name.csv", "a column with a long name", lambda: b"x" * 5000 + b",label\na,b\n"),
    ("line.conll", "one long line", lambda: b"x " * _MEGABYTE + b"O\n"),
    ("sentence.conll", "one long sentence", lambda: b"x O\n" * 100_001),
    ("footer.parquet", "a footer of gigabytes", lambda: _footer_of(2**32 - 1)),
    ("footer2.parquet", "a footer that is cut", lambda: _footer_of(9)),
    ("zeros.parquet", "compressed pages", lambda: _parquet(zeros=[b"\0" * 105 * _MEGABYTE])),
    ("wide.parquet", "values of one length that are all the same", lambda: _parquet(a=_same(bytes(1_000_000), 1400))),
    ("lists.parquet", "lists of nothing but zeros", lambda: _parquet(a=_zeros(8, 10_000_000))),
    ("lie.parquet", "lists of which the footer says less", lambda: told(_parquet(a=_zeros(1, 40_000_000)), 40_000_000, 1)),
    ("nulls.parquet", "very many nulls", lambda: _parquet(a=pa.nulls(30_000_000, pa.int64()))),
    ("nested.parquet", "a list of nulls", lambda: _parquet(a=_nothing(40_000_000))),
    ("flags.parquet", "lists of yes and no", lambda: _parquet(a=_zeros(2, 20_000_000).cast(pa.list_(pa.bool_())))),
    ("front.parquet", "values by what they share", lambda: _front_coded("x" * _MEGABYTE, 600)),
    ("deep.parquet", "columns in columns", lambda: DEEP),
    ("columns.parquet", "very many columns", lambda: _parquet(**{f"c{at}": [1] for at in range(11_000)})),
    ("none.parquet", "no Parquet at all", lambda: b"PAR1" + b"\xff" * 1000 + b"PAR1"),
    ("code.pkl", "a pickle", lambda: b"cos\nsystem\n(S'true'\ntR."),
    ("page.html", "a page", lambda: b"<script>alert(1)</script>"),
    ("lines.csv", "text that is JSON", lambda: json.dumps({"a": [1] * 10}).encode()),
)
