"""Rows of the Hugging Face hub by name, without the hub."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from service.catalog.hub_datasets import (
    Address,
    HubDatasets,
    HuggingFaceDatasets,
    RemoteDataset,
    choose_files,
    parse_address,
)
from service.domain.errors import DatasetNotFound, UnreadableDataset
from trainers.bounds import ROW_BYTES
from trainers.tables import read


class FakeDatasetHub:
    """A hub with the files it is given by data set; `asked` and `downloaded` say what it was asked for."""

    def __init__(self, datasets: Mapping[str, Mapping[str, bytes]]) -> None:
        self.datasets = dict(datasets)
        self.commit = "c0ffee"
        self.asked: list[str] = []
        self.downloaded: list[str] = []

    def look(self, name: str) -> RemoteDataset:
        self.asked.append(name)
        if name not in self.datasets:
            raise DatasetNotFound(f"no data set {name!r}")
        files = self.datasets[name]
        return RemoteDataset(self.commit, tuple(files), {file: len(content) for file, content in files.items()})

    def download(self, name: str, commit: str, files: Sequence[str], into: Path) -> list[Path]:
        paths = []
        for file in files:
            self.downloaded.append(f"{name}@{commit}/{file}")
            (into / file).parent.mkdir(parents=True, exist_ok=True)
            (into / file).write_bytes(self.datasets[name][file])
            paths.append(into / file)
        return paths


def table(*texts: str, **more: object) -> bytes:
    written = io.BytesIO()
    parquet.write_table(pa.table({"text": list(texts), **more}), written)
    return written.getvalue()


def chosen(uri: str, *files: str) -> list[str]:
    return choose_files(files, parse_address(uri))


def test_a_name_says_data_set_configuration_and_split() -> None:
    assert parse_address("hub://stanfordnlp/imdb/train") == Address("stanfordnlp/imdb", None, "train")
    assert parse_address("hub://openai/gsm8k/main/test") == Address("openai/gsm8k", "main", "test")
    assert parse_address("hub://openai/gsm8k/main/test").uri == "hub://openai/gsm8k/main/test"


@pytest.mark.parametrize(
    "uri",
    ["hub://", "hub://imdb", "hub://imdb/train", "hub://a/b/c/d/e", "hub://a/b/..", "hub://../b/train", "hub://a/b//train",
     "hub://a--b/c/train", "hub://a/b/tr ain"],
)  # fmt: skip
def test_a_name_that_cannot_be_one_says_how_they_are_made(uri: str) -> None:
    with pytest.raises(DatasetNotFound, match="use hub://OWNER/NAME/SPLIT or hub://OWNER/NAME/CONFIG/SPLIT"):
        parse_address(uri)


@pytest.mark.parametrize(
    "file",
    ["train.csv", "train.jsonl", "train.parquet", "data/train.parquet", "data/train-00000-of-00001.parquet", "train/0000.parquet",
     "data/train-00000-of-00001-b42a775f407cee45.parquet", "default/train/0000.parquet", "train_0.csv", "plain_text/train.csv"],
)  # fmt: skip
def test_a_splits_file_is_known_by_its_name(file: str) -> None:
    assert chosen("hub://a/b/train", file, "README.md", "test.csv", "data/test-00000-of-00001.parquet", "b.py") == [file]


@pytest.mark.parametrize(
    "file", ["train.py", "train.pkl", "train.json", "train.csv.gz", "training.csv", "my_train.csv", "../train.csv", "/train.csv"]
)
def test_another_file_is_not_a_splits(file: str) -> None:
    with pytest.raises(DatasetNotFound):
        chosen("hub://a/b/train", file)


def test_all_shards_come_in_order() -> None:
    shards = [f"data/train-0000{number}-of-00003.parquet" for number in range(3)]
    assert chosen("hub://a/b/train", *reversed(shards)) == shards


def test_a_missing_shard_is_complained_of() -> None:
    with pytest.raises(UnreadableDataset, match="1 of 3 files"):
        chosen("hub://a/b/train", "data/train-00000-of-00003.parquet")


def test_of_several_formats_one_is_taken() -> None:
    assert chosen("hub://a/b/train", "train.csv", "train.jsonl", "data/train.parquet") == ["data/train.parquet"]


def test_a_configuration_has_its_own_folder() -> None:
    files = ("main/train.parquet", "socratic/train.parquet", "data/other/train.parquet")
    assert chosen("hub://a/b/socratic/train", *files) == ["socratic/train.parquet"]
    assert chosen("hub://a/b/other/train", *files) == ["data/other/train.parquet"]
    with pytest.raises(
        DatasetNotFound, match="name one of hub://a/b/main/train, hub://a/b/other/train, hub://a/b/socratic/train"
    ):
        chosen("hub://a/b/train", *files)
    with pytest.raises(DatasetNotFound, match="name one of hub://a/b/main/train"):
        chosen("hub://a/b/nope/train", *files)


def test_a_data_set_without_tables_is_refused() -> None:
    with pytest.raises(DatasetNotFound, match="no Parquet, JSONL or CSV file: upload its rows"):
        chosen("hub://a/b/train", "train.json", "b.py")


def test_a_split_is_fetched_once(tmp_path: Path) -> None:
    hub = FakeDatasetHub({"a/b": {"train.csv": b"text,label\nhello,x\n", "b.py": b"exit()"}})
    datasets = HubDatasets(tmp_path, hub)
    path = datasets.fetch("hub://a/b/train")
    assert read(path, ["text"]) == {"text": ["hello"]}
    assert path.suffix == ".csv"
    assert HubDatasets(tmp_path, None).fetch("hub://a/b/train") == path == datasets.find("hub://a/b/train")
    assert hub.downloaded == ["a/b@c0ffee/train.csv"]


def test_looking_downloads_nothing(tmp_path: Path) -> None:
    hub = FakeDatasetHub({"a/b": {"train.csv": b"text\nhello\n"}})
    datasets = HubDatasets(tmp_path, hub)
    datasets.look("hub://a/b/train")
    assert (hub.downloaded, datasets.find("hub://a/b/train")) == ([], None)
    with pytest.raises(DatasetNotFound):
        datasets.look("hub://a/b/test")


def test_every_split_is_of_the_commit_that_was_pinned_first(tmp_path: Path) -> None:
    hub = FakeDatasetHub({"a/b": {"train.csv": b"text\nhello\n", "test.csv": b"text\nbye\n"}})
    datasets = HubDatasets(tmp_path, hub)
    datasets.fetch("hub://a/b/train")
    hub.commit = "newer"
    datasets.fetch("hub://a/b/test")
    assert hub.downloaded == ["a/b@c0ffee/train.csv", "a/b@c0ffee/test.csv"]


@pytest.mark.parametrize(
    ("ending", "shards"),
    [
        ("parquet", [table("a", "b"), table("c")]),
        ("jsonl", [b'{"text": "a"}\n{"text": "b"}', b'{"text": "c"}\n']),
        ("csv", [b"text\na\nb", b"text\r\nc\r\n"]),
    ],
)
def test_shards_become_one_file(tmp_path: Path, ending: str, shards: list[bytes]) -> None:
    files = {f"data/train-0000{number}-of-00002.{ending}": shard for number, shard in enumerate(shards)}
    path = HubDatasets(tmp_path, FakeDatasetHub({"a/b": files})).fetch("hub://a/b/train")
    assert read(path, ["text"]) == {"text": ["a", "b", "c"]}
    assert not list(tmp_path.rglob("*of-00002*"))


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"train-0-of-2.csv": b"text\na\n", "train-1-of-2.csv": b"body\na\n"}, r"train-1-of-2\.csv has other columns"),
        ({"train-0-of-2.parquet": table("a"), "train-1-of-2.parquet": table("a", more=[1])}, "cannot be read"),
        ({"train.csv": b"text,label\na\n"}, "line 2 has 1 value"),
        ({"train.parquet": b"PAR1"}, "cannot be read"),
        ({"train.jsonl": b"\n"}, "has no rows"),
    ],
)
def test_rows_that_cannot_be_read_are_not_kept(tmp_path: Path, files: Mapping[str, bytes], reason: str) -> None:
    datasets = HubDatasets(tmp_path, FakeDatasetHub({"a/b": files}))
    with pytest.raises(UnreadableDataset, match=reason):
        datasets.fetch("hub://a/b/train")
    assert datasets.find("hub://a/b/train") is None


def test_an_offline_service_says_that_it_is(tmp_path: Path) -> None:
    for ask in (HubDatasets(tmp_path, None).look, HubDatasets(tmp_path, None).fetch):
        with pytest.raises(DatasetNotFound, match="the service is offline"):
            ask("hub://a/b/train")


def test_the_hubs_own_setting_forbids_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: True)
    with pytest.raises(DatasetNotFound, match="HF_HUB_OFFLINE forbids"):
        HuggingFaceDatasets().look("a/b")


def test_a_split_larger_than_an_upload_is_refused_before_it_is_downloaded(tmp_path: Path) -> None:
    hub = FakeDatasetHub({"a/b": {"train.csv": b"text\n" + b"x" * 100, "test.csv": b"text\nx\n"}})
    datasets = HubDatasets(tmp_path, hub, max_bytes=50)
    assert datasets.fetch("hub://a/b/test")
    for ask in (datasets.look, datasets.fetch):
        with pytest.raises(UnreadableDataset, match="has 105 bytes, more than the 50 of an upload"):
            ask("hub://a/b/train")
    assert hub.downloaded == ["a/b@c0ffee/test.csv"]


def test_a_file_whose_size_the_hub_does_not_say_is_not_downloaded(tmp_path: Path) -> None:
    class Silent(FakeDatasetHub):
        def look(self, name: str) -> RemoteDataset:
            return replace(super().look(name), sizes={})

    hub = Silent({"a/b": {"train.csv": b"text\nhello\n"}})
    datasets = HubDatasets(tmp_path, hub, max_bytes=50)
    for ask in (datasets.look, datasets.fetch):
        with pytest.raises(UnreadableDataset, match=r"does not say how large 'train\.csv' .*: upload its rows"):
            ask("hub://a/b/train")
    assert hub.downloaded == []


def test_a_file_that_unpacks_to_far_more_than_it_is_is_not_joined(tmp_path: Path) -> None:
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 110, pa.int32()), pa.array(["x" * 1024**2]))
    written = io.BytesIO()
    parquet.write_table(pa.table({"text": text}), written, compression="zstd")
    datasets = HubDatasets(tmp_path, FakeDatasetHub({"a/b": {"train.parquet": written.getvalue()}}))
    with pytest.raises(UnreadableDataset, match="more than 100 times its size"):
        datasets.fetch("hub://a/b/train")
    joined = next(tmp_path.rglob(".joined.parquet"))
    assert joined.stat().st_size < 1000, "nothing of it was written out"


def test_lists_and_what_holds_others_are_joined_as_they_are(tmp_path: Path) -> None:
    pairs, more = pa.list_(pa.string(), 2), pa.struct([("a", pa.list_(pa.binary()))])
    kind = pa.schema({
        "tags": pa.large_list(pa.string()), "pair": pairs, "more": more, "by": pa.map_(pa.string(), pa.string()),
        "text": pa.large_string(), "n": pa.int16(),
    })  # fmt: skip
    rows = [{"tags": ["x", "y"], "pair": ["a", "b"], "more": {"a": [b"z"]}, "by": [("k", "v")], "text": "t", "n": 3}]
    shards = {}
    for number in range(2):
        written = io.BytesIO()
        parquet.write_table(pa.Table.from_pylist(rows * 2, kind), written, row_group_size=1)
        shards[f"train-{number}-of-2.parquet"] = written.getvalue()
    path = HubDatasets(tmp_path, FakeDatasetHub({"a/b": shards})).fetch("hub://a/b/train")
    assert parquet.read_table(path).to_pylist() == rows * 4


def test_a_header_that_never_ends_is_not_read_to_its_end(tmp_path: Path) -> None:
    files = {f"train-{number}-of-2.csv": b"x" * (ROW_BYTES + 2) + b"\na\n" for number in range(2)}
    datasets = HubDatasets(tmp_path, FakeDatasetHub({"a/b": files}))
    with pytest.raises(UnreadableDataset, match=r"the first line of train-0-of-2\.csv has more than"):
        datasets.fetch("hub://a/b/train")
