"""The contract of `DatasetStore`."""

import fcntl
import hashlib
import io
import json
import os
import stat
import zipfile
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from service.catalog.datasets import LocalDatasetStore
from service.domain.datasets import Allowance, DatasetFile
from service.domain.errors import (
    DatasetNotFound,
    NoSpace,
    QuotaSpent,
    TooManyFiles,
    UnreadableDataset,
    UnsafePath,
    UploadTooLarge,
)
from service.domain.ports import DatasetStore
from service.folders import MARGIN_BYTES
from tests.builders import NOW

ROWS = b"text,label\nhello,a\nbye,b\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "datasets"


@pytest.fixture
def store(root: Path) -> DatasetStore:
    return LocalDatasetStore(root, max_bytes=10_000)


def put(store: DatasetStore, content: bytes = ROWS, dataset: str = "intents", file: str = "train.csv") -> DatasetFile:
    return store.put(dataset, file, io.BytesIO(content), NOW)


def contents(root: Path) -> list[bytes]:
    """Everything on disk but descriptions and locks."""
    return [path.read_bytes() for path in root.rglob("*") if path.is_file() and path.suffix != ".json" and path.name != ".lock"]


def test_a_stored_file_is_described_by_what_is_in_it(store: DatasetStore) -> None:
    stored = put(store)
    sha256 = hashlib.sha256(ROWS).hexdigest()
    assert stored == DatasetFile("intents", "train.csv", len(ROWS), sha256, 2, ("text", "label"), NOW)
    assert store.get("intents", "train.csv") == stored


def test_its_path_has_its_content_and_tells_its_format(store: DatasetStore) -> None:
    put(store)
    path = store.path("intents", "train.csv")
    assert path.read_bytes() == ROWS
    assert path.suffix == ".csv"


def test_another_store_on_the_same_disk_has_it_too(store: DatasetStore, root: Path) -> None:
    stored = put(store)
    assert LocalDatasetStore(root, max_bytes=1).get("intents", "train.csv") == stored


def test_a_file_that_is_put_again_takes_the_place_of_the_first(store: DatasetStore, root: Path) -> None:
    put(store)
    second = store.put("intents", "train.csv", io.BytesIO(ROWS + b"more,a\n"), NOW + timedelta(hours=1))
    assert store.all() == [second]
    assert contents(root) == [ROWS + b"more,a\n"]


def test_the_same_content_can_be_put_again(store: DatasetStore) -> None:
    put(store)
    put(store)
    assert store.path("intents", "train.csv").read_bytes() == ROWS


def test_two_files_of_the_same_content_do_not_lose_it_together(store: DatasetStore) -> None:
    put(store, file="train.csv")
    put(store, file="copy.csv")
    put(store, b"text,label\nnew,a\n", file="train.csv")
    assert store.path("intents", "copy.csv").read_bytes() == ROWS


def test_all_files_come_ordered_by_data_set_and_name(store: DatasetStore) -> None:
    for dataset, file in [("b", "x.csv"), ("a", "z.csv"), ("a", "b.csv")]:
        put(store, dataset=dataset, file=file)
    assert [stored.uri for stored in store.all()] == ["dataset://a/b.csv", "dataset://a/z.csv", "dataset://b/x.csv"]


def test_there_are_no_files_at_first(store: DatasetStore) -> None:
    assert list(store.all()) == []


@pytest.mark.parametrize(
    ("dataset", "file"), [("intents", "test.csv"), ("other", "train.csv"), ("..", "x.csv"), ("intents", ""), ("", "")]
)
def test_what_is_not_there_is_not_found(store: DatasetStore, dataset: str, file: str) -> None:
    put(store)
    with pytest.raises(DatasetNotFound):
        store.get(dataset, file)
    with pytest.raises(DatasetNotFound):
        store.path(dataset, file)


@pytest.mark.parametrize(
    ("dataset", "file"),
    [("../x", "a.csv"), ("x", "../a.csv"), (".hidden", "a.csv"), ("x", "a/b.csv"), ("", "a.csv"), ("x", "..csv")],
)
def test_a_name_that_would_leave_its_folder_is_refused(store: DatasetStore, root: Path, dataset: str, file: str) -> None:
    with pytest.raises(UnsafePath):
        put(store, dataset=dataset, file=file)
    assert not root.exists()


@pytest.mark.parametrize("file", ["train.txt", "train", "train.csv.json", "train.csv.gz"])
def test_a_format_that_is_not_read_is_refused_before_the_upload_is_read(store: DatasetStore, file: str) -> None:
    content = io.BytesIO(ROWS)
    with pytest.raises(UnreadableDataset, match=r"\.csv, \.jsonl, \.parquet, \.conll, \.bio, \.zip"):
        store.put("intents", file, content, NOW)
    assert content.tell() == 0


def zipped(**files: bytes) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for label, content in files.items():
            archive.writestr(f"{label}/1.png", content)
    return written.getvalue()


def picture() -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (2, 2)).save(written, "PNG")
    return written.getvalue()


@pytest.mark.parametrize("file", ["train.conll", "train.bio"])
def test_sentences_with_tags_are_rows(store: DatasetStore, file: str) -> None:
    stored = put(store, b"Emma B-person\nis O\n\nhere O\n", file=file)
    assert (stored.rows, stored.columns) == (2, ("tokens", "tags"))
    assert store.path("intents", file).suffix == Path(file).suffix


def test_the_images_of_a_zip_are_rows(store: DatasetStore) -> None:
    stored = put(store, zipped(cats=picture(), dogs=picture()), file="train.zip")
    assert (stored.rows, stored.columns) == (2, ("image", "label"))
    assert store.path("intents", "train.zip").suffix == ".zip"


def test_a_refused_image_is_named(store: DatasetStore) -> None:
    with pytest.raises(UnreadableDataset, match=r"'train\.zip' cannot be read: 'dogs/1\.png' is no picture"):
        put(store, zipped(cats=picture(), dogs=b"hello"), file="train.zip")


BROKEN = [
    ("train.csv", b""),
    ("train.csv", b"text,label\n"),
    ("train.csv", b"text,label\nonly one\n"),
    ("train.csv", b"te\xffxt,label\na,b\n"),
    ("train.csv", b"text,text\na,b\n"),
    ("train.jsonl", b""),
    ("train.jsonl", b"not json\n"),
    ("train.jsonl", b'{"\\ud800": "half a surrogate pair"}\n'),
    ("train.parquet", b"PAR1 and no more"),
    ("train.conll", b"\n"),
    ("train.conll", b"Emma B-person\nis\n"),
    ("train.zip", b"no zip"),
    ("train.zip", zipped()),
    ("train.zip", zipped(cats=b"no picture")),
]


@pytest.mark.parametrize(("file", "content"), BROKEN)
def test_a_file_that_cannot_be_read_is_refused_and_leaves_nothing(
    store: DatasetStore, root: Path, file: str, content: bytes
) -> None:
    with pytest.raises(UnreadableDataset, match=file):
        put(store, content, file=file)
    assert list(store.all()) == []
    assert contents(root) == []


def test_a_parquet_file_with_a_broken_page_is_refused(store: DatasetStore) -> None:
    written = io.BytesIO()
    parquet.write_table(pa.table({"text": ["hello there"] * 9, "label": list("abcdefghi")}), written)
    raw = written.getvalue()
    with pytest.raises(UnreadableDataset):
        put(store, raw[:10] + bytes(60) + raw[70:], file="train.parquet")


def test_a_column_that_is_called_twice_is_named(store: DatasetStore) -> None:
    with pytest.raises(UnreadableDataset) as refused:
        put(store, b"text,text\na,b\n")
    assert refused.value.column == "text"


def test_a_refused_file_leaves_the_earlier_one_as_it_was(store: DatasetStore) -> None:
    stored = put(store)
    with pytest.raises(UnreadableDataset):
        put(store, b"")
    assert store.get("intents", "train.csv") == stored
    assert store.path("intents", "train.csv").read_bytes() == ROWS


def test_a_file_of_more_bytes_than_allowed_is_refused_and_leaves_nothing(root: Path) -> None:
    small = LocalDatasetStore(root, max_bytes=len(ROWS))
    put(small)
    with pytest.raises(UploadTooLarge):
        put(small, ROWS + b"\n", file="more.csv")
    assert contents(root) == [ROWS]


def test_many_writers_at_once_leave_one_whole_file(store: DatasetStore, root: Path) -> None:
    versions = [ROWS + f"row {number},c\n".encode() * number for number in range(12)]
    with ThreadPoolExecutor(6) as writers:
        list(writers.map(lambda content: put(store, content), versions))
    assert contents(root) == [store.path("intents", "train.csv").read_bytes()]
    assert hashlib.sha256(contents(root)[0]).hexdigest() == store.get("intents", "train.csv").sha256


def test_what_a_killed_writer_left_is_cleared_by_the_next_one(store: DatasetStore, root: Path) -> None:
    put(store)
    (root / ".incoming" / "left").write_bytes(b"half an upload")
    (root / "intents" / f"{'0' * 64}.csv").write_bytes(b"content that nothing names")
    put(store, file="test.csv")
    assert contents(root) == [ROWS]


def test_an_upload_under_way_is_not_taken_for_a_killed_ones(store: DatasetStore, root: Path) -> None:
    put(store)
    with (root / ".incoming" / "under-way").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        put(store, file="test.csv")
        assert (root / ".incoming" / "under-way").is_file()


def test_files_are_their_owners_alone(store: DatasetStore, root: Path) -> None:
    before = os.umask(0)
    try:
        put(store)
    finally:
        os.umask(before)
    paths = [root, *root.rglob("*")]
    assert [path for path in paths if stat.S_IMODE(path.stat().st_mode) != (0o700 if path.is_dir() else 0o600)] == []


def test_a_description_is_json_that_a_person_can_read(store: DatasetStore, root: Path) -> None:
    put(store)
    assert json.loads((root / "intents" / "train.csv.json").read_text())["rows"] == 2


def test_a_file_is_deleted_and_its_content_with_it(store: DatasetStore, root: Path) -> None:
    first, second = put(store), put(store, ROWS + b"more,a\n", file="test.csv")
    assert store.delete("intents", "train.csv") == [first]
    assert store.all() == [second]
    assert contents(root) == [ROWS + b"more,a\n"]


def test_content_that_another_file_has_too_stays_with_it(store: DatasetStore) -> None:
    put(store)
    put(store, file="copy.csv")
    store.delete("intents", "train.csv")
    assert store.path("intents", "copy.csv").read_bytes() == ROWS


def test_a_data_set_is_deleted_with_all_its_files(store: DatasetStore, root: Path) -> None:
    other = put(store, dataset="other")
    gone = [put(store, file=file) for file in ("a.csv", "b.csv")]
    assert store.delete("intents") == gone
    assert store.all() == [other]
    assert not (root / "intents").exists()
    put(store)
    assert store.path("intents", "train.csv").read_bytes() == ROWS, "it can come again"


@pytest.mark.parametrize(
    ("dataset", "file"),
    [("intents", "test.csv"), ("other", None), ("other", "train.csv"), ("..", None), ("", None), ("intents", "../x"),
     (".incoming", None)],
)  # fmt: skip
def test_what_is_not_there_cannot_be_deleted(store: DatasetStore, dataset: str, file: str | None) -> None:
    stored = put(store)
    with pytest.raises(DatasetNotFound):
        store.delete(dataset, file)
    assert store.all() == [stored]


def test_the_size_is_that_of_the_projects_own_content(store: DatasetStore) -> None:
    assert store.size() == 0
    put(store)
    put(store, file="copy.csv")
    put(store.of("vision"), ROWS * 2)
    assert (store.size(), store.of("vision").size(), store.of("speech").size()) == (len(ROWS), 2 * len(ROWS), 0)


def test_only_as_many_files_are_stored_as_may_be(store: DatasetStore, root: Path) -> None:
    two = Allowance(files=2)
    for number in range(2):
        store.put("intents", f"{number}.csv", io.BytesIO(ROWS), NOW, two)
    with pytest.raises(TooManyFiles, match="has 2 files, and may have 2"):
        store.put("intents", "2.csv", io.BytesIO(ROWS), NOW, two)
    assert store.put("intents", "0.csv", io.BytesIO(ROWS), NOW, two)
    assert len(contents(root)) == 1, "all have the same"


def test_writers_at_once_do_not_both_take_the_last_place(store: DatasetStore) -> None:
    def put_one(number: int) -> bool:
        try:
            store.put("intents", f"{number}.csv", io.BytesIO(ROWS), NOW, Allowance(files=3))
        except TooManyFiles:
            return False
        return True

    with ThreadPoolExecutor(8) as writers:
        stored = list(writers.map(put_one, range(24)))
    assert (sum(stored), len(store.all())) == (3, 3)


def test_only_as_many_bytes_are_stored_as_may_be(store: DatasetStore) -> None:
    most = Allowance(bytes=2 * len(ROWS))
    store.put("intents", "train.csv", io.BytesIO(ROWS), NOW, most)
    with pytest.raises(QuotaSpent, match="delete data sets, or studies that have ended"):
        store.put("intents", "test.csv", io.BytesIO(ROWS + b"c,d\n"), NOW, most)
    assert store.put("intents", "train.csv", io.BytesIO(ROWS + b"c,d\n"), NOW, most), "it takes the place of the first"


def test_a_disk_that_has_no_room_beside_what_stays_free_is_left_alone(root: Path) -> None:
    store = LocalDatasetStore(root, 10_000, free=lambda _: MARGIN_BYTES + len(ROWS) - 1)
    with pytest.raises(NoSpace, match=r" MB free, and needs 1 B more: make room there\.$"):
        put(store)
    assert contents(root) == []
    store.require_room(len(ROWS) - 1)
    with pytest.raises(NoSpace):
        store.of("vision").require_room(len(ROWS))
