"""Rows that a study keeps although somebody replaces the file."""

import os
from pathlib import Path

import pytest

from service.catalog.pinning import pin
from service.domain.errors import DatasetNotFound
from service.domain.ports import LocalSources

TRAIN, TEST = "dataset://intents/train.csv", "dataset://intents/test.csv"


@pytest.fixture
def sources(tmp_path: Path) -> LocalSources:
    (tmp_path / "train.csv").write_text("first")
    (tmp_path / "test.csv").write_text("test")
    return LocalSources(models={"tiny": tmp_path / "tiny"}, sources={TRAIN: tmp_path / "train.csv", TEST: tmp_path / "test.csv"})


def replace(sources: LocalSources, uri: str, content: str) -> None:
    """As the store does it: a new file under the name."""
    path = sources.sources[uri]
    path.unlink()
    path.write_text(content)


def test_pinned_files_have_the_same_content_and_ending(sources: LocalSources, tmp_path: Path) -> None:
    pinned = pin(sources, tmp_path / "pinned")
    assert {uri: path.read_text() for uri, path in pinned.sources.items()} == {TRAIN: "first", TEST: "test"}
    assert {path.suffix for path in pinned.sources.values()} == {".csv"}
    assert {path.parent for path in pinned.sources.values()} == {tmp_path / "pinned"}


def test_a_replaced_file_stays_as_it_was_for_the_study(sources: LocalSources, tmp_path: Path) -> None:
    pin(sources, tmp_path / "pinned")
    replace(sources, TRAIN, "second")
    assert pin(sources, tmp_path / "pinned").sources[TRAIN].read_text() == "first"


def test_a_deleted_file_stays_for_the_study(sources: LocalSources, tmp_path: Path) -> None:
    pin(sources, tmp_path / "pinned")
    sources.sources[TRAIN].unlink()
    assert pin(sources, tmp_path / "pinned").sources[TRAIN].read_text() == "first"


def test_models_are_answered_as_they_came(sources: LocalSources, tmp_path: Path) -> None:
    pin(sources, tmp_path / "pinned")
    moved = LocalSources(models={"tiny": tmp_path / "moved"}, sources=sources.sources)
    assert pin(moved, tmp_path / "pinned").models == {"tiny": tmp_path / "moved"}


def test_pinning_takes_no_second_copy(sources: LocalSources, tmp_path: Path) -> None:
    assert pin(sources, tmp_path / "pinned").sources[TRAIN].samefile(sources.sources[TRAIN])


def test_a_disk_without_links_gets_a_copy(sources: LocalSources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", link)
    pinned = pin(sources, tmp_path / "pinned").sources[TRAIN]
    assert pinned.read_text() == "first"
    assert not pinned.samefile(sources.sources[TRAIN])


def test_two_files_of_one_name_do_not_meet(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "train.parquet").write_text(folder)
    uris = {f"builtin://{folder}/train": tmp_path / folder / "train.parquet" for folder in ("a", "b")}
    pinned = pin(LocalSources({}, uris), tmp_path / "pinned").sources
    assert [pinned[uri].read_text() for uri in sorted(uris)] == ["a", "b"]


def test_a_pinning_that_was_killed_halfway_starts_again(sources: LocalSources, tmp_path: Path) -> None:
    (tmp_path / "pinned").mkdir()
    (tmp_path / "pinned" / "1-train.csv").write_text("of an earlier start")
    (tmp_path / "pinned" / "0-gone.csv").write_text("of an earlier start")
    assert pin(sources, tmp_path / "pinned").sources[TRAIN].read_text() == "first"
    assert not (tmp_path / "pinned" / "0-gone.csv").exists()


def test_a_file_that_vanishes_meanwhile_is_told_of_and_nothing_is_pinned(sources: LocalSources, tmp_path: Path) -> None:
    sources.sources[TRAIN].unlink()
    with pytest.raises(DatasetNotFound, match="start it again"):
        pin(sources, tmp_path / "pinned")
    assert not (tmp_path / "pinned" / "sources.json").exists()
