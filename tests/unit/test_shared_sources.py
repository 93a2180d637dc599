"""Rows and models on their way to workers through object storage, and when they are dropped there."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.checkpoints.cache import WorkerCache
from service.checkpoints.shared_sources import UNUSED, SourceSweep, fetch, publish, unused
from service.checkpoints.storage import Entry, Patience, Storage, open_storage
from service.domain.errors import DamagedObject
from service.domain.ports import LocalSources
from tests.builders import NOW

TRAIN = "dataset://intents/train.csv"


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    (tmp_path / "mount").mkdir()
    return open_storage(f"file://{tmp_path}/mount", Patience.SHORT)


@pytest.fixture
def sources(tmp_path: Path) -> LocalSources:
    """A model of two files, one of them a link as in the hub's cache, and one file of rows."""
    model = tmp_path / "model"
    model.mkdir()
    (tmp_path / "blob").write_text("weights")
    (model / "model.safetensors").symlink_to(tmp_path / "blob")
    (model / "config.json").write_text("{}")
    (tmp_path / "0-train.csv").write_text("text,label\n")
    return LocalSources(models={"tiny": model}, sources={TRAIN: tmp_path / "0-train.csv"})


def a_cache(root: Path, node: str) -> WorkerCache:
    return WorkerCache(root / node, 10**9, "file:///mount")


def digests(storage: Storage) -> set[str]:
    return {entry.key.split("/")[1] for entry in storage.list("sources")}


def grow_old(root: Path) -> None:
    """As if all was put there two hours ago."""
    for path in (root / "mount").rglob("*"):
        os.utime(path, (1_000_000, 1_000_000))


def test_a_worker_has_what_the_driver_has_under_the_names_of_the_definition(
    storage: Storage, sources: LocalSources, tmp_path: Path
) -> None:
    here = fetch(storage, a_cache(tmp_path, "a"), publish(storage, "study", sources))
    assert sorted(path.name for path in here.models["tiny"].iterdir()) == ["config.json", "model.safetensors"]
    assert (here.models["tiny"] / "model.safetensors").read_text() == "weights"
    assert (here.sources[TRAIN].read_text(), here.sources[TRAIN].suffix) == ("text,label\n", ".csv")


def test_what_is_there_is_not_sent_again_for_another_study(storage: Storage, sources: LocalSources, tmp_path: Path) -> None:
    first = publish(storage, "study", sources)
    there = {entry.key: entry.at for entry in storage.list("sources")}
    assert publish(storage, "other", sources) == first
    again = {entry.key: entry.at for entry in storage.list("sources")}
    assert {key.rpartition("/")[2] for key in again if again[key] != there[key]} == {"index.json"}


def test_what_is_there_in_part_is_sent(storage: Storage, sources: LocalSources, tmp_path: Path) -> None:
    shared = publish(storage, "study", sources)
    storage.delete([f"sources/{shared.models['tiny']}/files/config.json"])
    publish(storage, "study", sources)
    assert (fetch(storage, a_cache(tmp_path, "a"), shared).models["tiny"] / "config.json").exists()


def test_the_workers_of_a_node_fetch_it_once(storage: Storage, sources: LocalSources, tmp_path: Path) -> None:
    shared = publish(storage, "study", sources)
    first = fetch(storage, a_cache(tmp_path, "a"), shared)
    shutil.rmtree(tmp_path / "mount")
    assert fetch(storage, a_cache(tmp_path, "a"), shared) == first


def test_what_was_changed_in_storage_is_refused(storage: Storage, sources: LocalSources, tmp_path: Path) -> None:
    shared = publish(storage, "study", sources)
    storage.put(f"sources/{shared.models['tiny']}/files/config.json", b"[]")
    with pytest.raises(DamagedObject, match="SHA-256"):
        fetch(storage, a_cache(tmp_path, "a"), shared)
    storage.put(f"sources/{shared.models['tiny']}/index.json", b"[]")
    with pytest.raises(DamagedObject, match="index differs"):
        fetch(storage, a_cache(tmp_path, "b"), shared)


def test_what_no_study_needs_that_goes_on_is_dropped_once_it_is_old(
    storage: Storage, sources: LocalSources, tmp_path: Path
) -> None:
    shared = publish(storage, "goes-on", LocalSources({}, sources.sources))
    publish(storage, "is-over", sources)
    now = datetime.now(UTC)
    SourceSweep(storage).sweep({"goes-on"}, now)
    assert len(digests(storage)) == 2, "a driver may be about to name what was put there just now"
    grow_old(tmp_path)
    SourceSweep(storage).sweep({"goes-on"}, now)
    assert digests(storage) == {shared.sources[TRAIN].split("/")[0]}
    assert [entry.key for entry in storage.list("used")] == ["used/goes-on.json"]


def test_a_source_that_a_driver_asked_for_lately_is_not_dropped_though_it_is_old(
    storage: Storage, sources: LocalSources, tmp_path: Path
) -> None:
    publish(storage, "is-over", sources)
    grow_old(tmp_path)
    publish(storage, "begins", sources)
    SourceSweep(storage).sweep(set(), datetime.now(UTC))
    assert len(digests(storage)) == 2


def test_what_a_study_asked_for_lately_is_kept_though_who_sweeps_has_not_heard_of_it(
    storage: Storage, sources: LocalSources, tmp_path: Path
) -> None:
    publish(storage, "begins", sources)
    for path in (tmp_path / "mount" / "sources").rglob("*"):
        os.utime(path, (1_000_000, 1_000_000))
    SourceSweep(storage).sweep(set(), datetime.now(UTC))
    assert len(digests(storage)) == 2


class Interrupted(Storage):
    """A storage in which something comes between, once: after the first call of a kind."""

    after: tuple[str, Callable[[], object]] | None

    def list(self, prefix: str) -> Sequence[Entry]:
        found = super().list(prefix)
        self._interrupt(prefix)
        return found

    def put(self, key: str, content: bytes) -> None:
        super().put(key, content)
        self._interrupt(key)

    def _interrupt(self, at: str) -> None:
        if self.after is not None and at.startswith(self.after[0]):
            (_, act), self.after = self.after, None
            act()


def interrupted(storage: Storage, at: str, act: Callable[[], object]) -> Interrupted:
    other = Interrupted(storage._store, storage.url)
    other.after = (at, act)
    return other


def test_what_a_study_asks_for_while_sources_are_looked_through_is_kept(
    storage: Storage, sources: LocalSources, tmp_path: Path
) -> None:
    publish(storage, "is-over", sources)
    grow_old(tmp_path)
    sweeping = interrupted(storage, "used", lambda: publish(storage, "begins", sources))
    SourceSweep(sweeping).sweep(set(), datetime.now(UTC))
    assert {entry.key.rpartition("/")[2] for entry in storage.list("sources")} >= {
        "index.json",
        "model.safetensors",
        "0-train.csv",
    }


def test_what_a_sweep_drops_while_a_study_asks_for_it_is_put_there_again(
    storage: Storage, sources: LocalSources, tmp_path: Path
) -> None:
    shared = publish(storage, "is-over", sources)

    def sweep() -> None:
        storage.delete([entry.key for entry in storage.list("sources")])

    asking = interrupted(storage, "sources", sweep)
    assert publish(asking, "begins", sources) == shared
    assert (fetch(storage, a_cache(tmp_path, "a"), shared).models["tiny"] / "config.json").exists()


def test_it_is_looked_through_now_and_then_alone(storage: Storage, sources: LocalSources, tmp_path: Path) -> None:
    sweep, now = SourceSweep(storage), datetime.now(UTC)
    sweep.sweep(set(), now)
    publish(storage, "is-over", sources)
    grow_old(tmp_path)
    sweep.sweep(set(), now + timedelta(minutes=1))
    assert digests(storage)
    sweep.sweep(set(), now + timedelta(minutes=6))
    assert not digests(storage)


def test_the_newest_object_of_a_source_is_its_age() -> None:
    old, new = NOW - 2 * UNUSED, NOW - UNUSED / 2
    there = {name: [Entry(f"sources/{name}/index.json", 1, at), Entry("x", 1, old)] for name, at in (("a", old), ("b", new))}
    assert unused(there, set(), NOW) == ["a"]
    assert unused(there, {"a"}, NOW) == []


def test_what_a_study_may_ask_for_is_remembered_before_it_is_there(
    storage: Storage, sources: LocalSources, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Storage, "send", killed)
    with pytest.raises(KeyboardInterrupt):
        publish(storage, "study", sources)
    assert len(json.loads(storage.get("used/study.json") or b"[]")) == 2
