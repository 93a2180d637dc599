"""Workers on several nodes and one object storage: what goes on where, and what half of anything comes to."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from service.checkpoints.cached import CachedTrialFolder
from service.checkpoints.local import Resume, TrialFolder
from service.checkpoints.objects import ObjectCheckpointStore
from service.checkpoints.storage import Patience, Storage, open_storage
from service.checkpoints.trial_objects import TrialObjects
from service.domain.errors import CheckpointNotFound, DamagedObject, NoSpace, StorageAway

STUDY = "intents-abc123"
REPORTS = [{"number": 1, "loss": 0.5}, {"number": 2, "loss": float("nan")}, {"number": 3, "loss": 0.3}]


class Watched(Storage):
    """What was sent and fetched; it goes away when told, before so many more objects were sent."""

    sent: list[str]
    fetched: list[str]
    takes: int | None = None
    after_sending: Callable[[], None] | None = None
    before_fetching: Callable[[], None] | None = None
    """What comes between, once."""

    def send(self, key: str, path: Path, sha256: str) -> None:
        if self.takes is not None:
            if self.takes <= 0:
                raise StorageAway(self.url, "503 Slow Down", "it refuses")
            self.takes -= 1
        self.sent.append(key)
        super().send(key, path, sha256)
        then, self.after_sending = self.after_sending, None
        if then is not None:
            then()

    def fetch(self, key: str, path: Path, size: int, sha256: str) -> None:
        first, self.before_fetching = self.before_fetching, None
        if first is not None:
            first()
        self.fetched.append(key)
        super().fetch(key, path, size, sha256)


class World:
    """One storage, and nodes with disks of their own."""

    def __init__(self, root: Path) -> None:
        (root / "mount").mkdir()
        opened = open_storage(f"file://{root}/mount", Patience.SHORT)
        self.storage = Watched(opened._store, opened.url)
        self.storage.sent, self.storage.fetched = [], []
        self.root = root
        self.emptied: list[str] = []
        self.store = ObjectCheckpointStore(self.storage, root / "home")

    def trial(
        self, node: str, number: int = 0, free: Callable[[Path], int] = lambda _: 10**12, attempt: int = 1
    ) -> CachedTrialFolder:
        here = TrialFolder(self.root / node, STUDY, number, free, attempt)
        return CachedTrialFolder(here, TrialObjects(self.storage, STUDY, number), lambda: self.emptied.append(node))

    def path(self, name: str, number: int = 0) -> Path:
        return self.root / "mount" / "checkpoints" / STUDY / f"{number:06d}" / name

    def names(self) -> list[str]:
        return sorted(path.name for path in self.path("").iterdir())


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def train(trial: CachedTrialFolder, reports: int, content: str = "", *, midway: bool = False) -> None:
    def write(folder: Path) -> None:
        (folder / "deep").mkdir()
        (folder / "deep" / "weights").write_text(content or f"weights after {reports}")
        (folder / "optimizer").write_text("moments")

    trial.save_resume(REPORTS[:reports], write, midway=midway)


def export(trial: CachedTrialFolder, report: int, before: int | None = None) -> None:
    def write(folder: Path) -> None:
        (folder / "config.json").write_text(str(report))

    trial.save_export(report, write, before)


def found(resume: Resume | None) -> tuple[int, str] | None:
    if resume is None or resume.state is None:
        return None
    return resume.number, (resume.state / "deep" / "weights").read_text()


def test_a_trial_goes_on_on_another_node_exactly_from_what_was_sent(world: World) -> None:
    train(world.trial("a"), 2)
    resume = world.trial("b").resume()
    assert found(resume) == (2, "weights after 2")
    assert resume is not None
    assert json.dumps(resume.reports) == json.dumps(REPORTS[:2])


def test_a_node_that_is_behind_takes_what_the_storage_has(world: World) -> None:
    train(world.trial("a"), 1)
    world.trial("b").resume()
    train(world.trial("b"), 2)
    train(world.trial("b"), 2, "in the middle of the third", midway=True)
    assert found(world.trial("a").resume()) == (2, "in the middle of the third")
    assert world.names() == ["resume-000002-1", "resume-000002-a1"]


def test_a_node_that_has_it_all_fetches_nothing(world: World) -> None:
    train(world.trial("a"), 2)
    assert found(world.trial("a").resume()) == (2, "weights after 2")
    assert world.storage.fetched == []


def test_of_two_states_of_one_report_the_one_counts_that_was_sent_last(world: World) -> None:
    train(world.trial("a"), 1)
    world.storage.takes = 0
    with pytest.raises(StorageAway):
        train(world.trial("a"), 2, "of a node that was cut off")
    world.storage.takes = None
    second = world.trial("b", attempt=2)
    second.resume()
    second.save_resume([*REPORTS[:1], {"number": 2, "loss": 0.4}], lambda folder: _deep(folder, "of b"))
    assert found(world.trial("a").resume()) == (2, "of b")


def _deep(folder: Path, content: str) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "weights").write_text(content)


@pytest.mark.parametrize("arrived", [0, 1])
def test_a_state_that_did_not_arrive_whole_is_seen_by_nobody_and_the_one_before_it_is_there(world: World, arrived: int) -> None:
    train(world.trial("a"), 1)
    world.storage.takes = arrived
    with pytest.raises(StorageAway):
        train(world.trial("a"), 2)
    assert found(world.trial("b").resume()) == (1, "weights after 1")
    assert [one.kind for one in world.store.stored(STUDY)] == ["resume", "unfinished"][: 1 + arrived]


def test_a_state_that_a_killed_worker_had_not_sent_is_sent_before_the_trial_goes_on_there(world: World) -> None:
    train(world.trial("a"), 1)
    world.storage.takes = 1
    with pytest.raises(StorageAway):
        train(world.trial("a"), 2)
    world.storage.takes = None
    assert found(world.trial("a").resume()) == (2, "weights after 2")
    assert found(world.trial("b").resume()) == (2, "weights after 2")
    assert world.names() == ["resume-000001-a1", "resume-000002-a1"]


def test_the_export_before_the_best_stays_until_a_still_better_one_is_there(world: World) -> None:
    trial = world.trial("a")
    for report, before in [(1, None), (2, 1), (3, 2)]:
        export(trial, report, before)
    assert world.names() == ["export-000002-a1", "export-000003-a1"]


def test_an_export_that_did_not_arrive_leaves_those_before_it(world: World) -> None:
    trial = world.trial("a")
    export(trial, 1)
    export(trial, 2, 1)
    world.storage.takes = 0
    with pytest.raises(StorageAway):
        export(trial, 3, 2)
    assert [world.store.manifest(STUDY, 0, report).report for report in (1, 2)] == [1, 2]
    with pytest.raises(CheckpointNotFound):
        world.store.manifest(STUDY, 0, 3)


def test_a_model_that_another_node_exported_is_fetched_to_be_tested(world: World) -> None:
    export(world.trial("a"), 1)
    assert (world.trial("b").model(1) / "config.json").read_text() == "1"
    assert world.storage.fetched == [f"checkpoints/{STUDY}/000000/export-000001-a1/model/config.json"]
    world.trial("b").model(1)
    assert len(world.storage.fetched) == 1
    with pytest.raises(CheckpointNotFound):
        world.trial("b").model(2)


def test_a_file_that_came_damaged_is_fetched_anew(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    train(world.trial("a"), 2)
    stream, damaged = Storage.stream, ["once"]

    def once_damaged(self: Storage, key: str, start: int = 0, tag: str | None = None) -> object:
        if key.endswith("weights") and damaged:
            damaged.pop()
            return iter([b"weights after 9"])
        return stream(self, key, start, tag)

    monkeypatch.setattr(Storage, "stream", once_damaged)
    assert found(world.trial("b").resume()) == (2, "weights after 2")
    assert not damaged


@pytest.mark.parametrize("content", ["weights after 9", "short", ""])
def test_a_state_that_stays_damaged_is_passed_over_with_a_warning(
    world: World, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    train(world.trial("a"), 2)
    (world.path("resume-000002-a1") / "state" / "deep" / "weights").write_text(content)
    with caplog.at_level(logging.WARNING):
        assert world.trial("b").resume() is None
    assert "going on from before it" in caplog.text
    assert not list((world.root / "b").rglob("weights"))


@pytest.mark.parametrize("damage", ["state/deep/weights", "reports.json"])
def test_of_a_state_that_the_storage_damaged_the_one_before_it_is_there(world: World, damage: str) -> None:
    for reports in (1, 2, 3):
        train(world.trial("a"), reports)
    assert world.names() == ["resume-000002-a1", "resume-000003-a1"]
    (world.path("resume-000003-a1") / damage).write_text("damaged")
    assert found(world.trial("b").resume()) == (2, "weights after 2")


def test_a_state_whose_files_a_later_attempt_dropped_is_not_made_one(world: World) -> None:
    def overtake() -> None:
        train(world.trial("b", attempt=2), 2)

    world.storage.after_sending = overtake
    with pytest.raises(DamagedObject, match="it is gone"):
        train(world.trial("a"), 1)
    assert not (world.path("resume-000001-a1") / "reports.json").exists()


def test_a_state_that_goes_while_it_is_fetched_is_followed_to_the_next(world: World) -> None:
    late = world.trial("a")

    def go_on() -> None:
        train(late, 2)
        train(late, 3)

    train(late, 1)
    world.storage.before_fetching = go_on
    assert found(world.trial("b", attempt=2).resume()) == (3, "weights after 3")


def test_a_damaged_file_is_not_left_where_it_was_fetched_to(world: World, tmp_path: Path) -> None:
    world.storage.put("a/file", b"something else")
    with pytest.raises(DamagedObject, match="a/file"):
        world.storage.fetch("a/file", tmp_path / "file", 14, "0" * 64)
    assert not (tmp_path / "file").exists()


def test_a_node_whose_state_the_storage_has_lost_goes_on_and_sends_it(world: World) -> None:
    train(world.trial("a"), 2)
    (world.path("resume-000002-a1") / "reports.json").write_text("{")
    assert found(world.trial("a").resume()) == (2, "weights after 2")
    assert found(world.trial("b").resume()) == (2, "weights after 2")


def test_a_trial_at_its_end_has_its_reports_elsewhere_too_and_no_state(world: World) -> None:
    world.trial("a").save_resume(REPORTS, None)
    resume = world.trial("b").resume()
    assert resume is not None
    assert (resume.number, resume.state, world.store.can_resume(STUDY, 0)) == (3, None, False)


def test_a_full_cache_is_emptied_of_what_is_not_in_use_before_anything_is_refused(world: World) -> None:
    room = iter([0, *[10**12] * 20])
    train(world.trial("a", free=lambda _: next(room)), 1)
    assert world.emptied == ["a"]
    with pytest.raises(NoSpace):
        train(world.trial("a", free=lambda _: 0), 2)
    assert found(world.trial("b").resume()) == (1, "weights after 1")


def test_a_copy_goes_on_on_any_node_though_its_parent_is_gone(world: World) -> None:
    train(world.trial("a"), 2)
    assert world.store.fork(STUDY, 0, 5, 2) == 2
    world.store.drop(STUDY, [one for one in world.store.stored(STUDY) if one.trial == 0])
    assert found(world.trial("b", 5).resume()) == (2, "weights after 2")
    assert world.storage.fetched.count(f"checkpoints/{STUDY}/000005/resume-000002/state/optimizer") == 1


def test_a_folder_that_is_not_mounted_is_said_so_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(StorageAway, match="no such folder: make it, or mount it"):
        open_storage(f"file://{tmp_path}/missing", Patience.SHORT).check()
    assert not (tmp_path / "missing").exists()


def test_what_a_check_puts_there_is_not_left(world: World) -> None:
    world.storage.check()
    assert list(world.storage.list("")) == []
