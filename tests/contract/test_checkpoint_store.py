"""The contract of `CheckpointStore`."""

import hashlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from service.domain.checkpoint import CheckpointFile, Manifest
from service.domain.errors import CheckpointNotFound, FileNotInCheckpoint
from service.domain.ports import CheckpointStore
from service.domain.stored import Freed, Stored, StoredKind
from tests.builders import a_report
from tests.contract.checkpoint_places import STUDY, OnDisk, Place

MODEL = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 10, "tokenizer/vocab.txt": "wörter\n".encode()}
ANALYSIS = {"task": "text-classification", "rows": 3, "mistakes": [{"text": "wörter", "loss": 0.1 + 0.2}]}


@pytest.fixture
def store(place: Place) -> CheckpointStore:
    return place.store


def export(
    place: Place,
    trial: int = 0,
    report: int = 1,
    files: Mapping[str, bytes] = MODEL,
    study_id: str = STUDY,
    analysis: Mapping[str, Any] | None = None,
) -> Manifest:
    """What a worker writes after the trial's best report."""

    def write(folder: Path) -> None:
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)

    return place.trial(trial, study_id).save_export(report, write, analysis=analysis)


def train(place: Place, trial: int = 0, reports: int = 1, study_id: str = STUDY) -> None:
    """What a worker writes after each report."""
    known = [{"number": a_report(number).number} for number in range(1, reports + 1)]
    place.trial(trial, study_id).save_resume(known, lambda folder: (folder / "state.pt").touch())


def read(store: CheckpointStore, path: str, report: int = 1) -> bytes:
    with store.open(STUDY, 0, report, path) as file:
        return file.read()


def has_export(store: CheckpointStore, trial: int, report: int = 1) -> bool:
    try:
        return bool(store.manifest(STUDY, trial, report).files)
    except CheckpointNotFound:
        return False


def resumes(place: Place, trial: int) -> bool:
    return place.trial(trial).resume() is not None


def drop(store: CheckpointStore, which: Callable[[Stored], bool]) -> None:
    store.drop(STUDY, [one for one in store.stored(STUDY) if which(one)])


def test_the_manifest_names_every_file_with_its_size_and_hash(store: CheckpointStore, place: Place) -> None:
    export(place, trial=7, report=3)
    files = tuple(CheckpointFile(path, len(MODEL[path]), hashlib.sha256(MODEL[path]).hexdigest()) for path in sorted(MODEL))
    assert store.manifest(STUDY, 7, 3) == Manifest(STUDY, 7, 3, files)


def test_the_writer_gets_the_manifest_that_the_reader_gets(store: CheckpointStore, place: Place) -> None:
    assert export(place) == store.manifest(STUDY, 0, 1)


@pytest.mark.parametrize("path", sorted(MODEL))
def test_a_file_is_read_as_it_was_written(store: CheckpointStore, place: Place, path: str) -> None:
    export(place)
    assert read(store, path) == MODEL[path]


def test_a_file_can_be_read_from_its_middle(store: CheckpointStore, place: Place) -> None:
    export(place)
    with store.open(STUDY, 0, 1, "model.safetensors") as file:
        assert file.seek(300) == 300
        assert file.read(10) == MODEL["model.safetensors"][300:310]


def test_each_report_has_an_export_of_its_own(store: CheckpointStore, place: Place) -> None:
    export(place, report=1)
    place.trial(0).save_export(12, lambda folder: (folder / "config.json").touch(), before=1)
    assert [store.manifest(STUDY, 0, report).report for report in (1, 12)] == [1, 12]
    assert (read(store, "config.json"), read(store, "config.json", report=12)) == (b"{}", b"")
    with pytest.raises(FileNotInCheckpoint):
        store.open(STUDY, 0, 12, "model.safetensors")


def test_a_report_without_an_export_is_not_answered_with_another_ones(store: CheckpointStore, place: Place) -> None:
    export(place, report=2)
    for report in (1, 3):
        with pytest.raises(CheckpointNotFound):
            store.manifest(STUDY, 0, report)


def test_a_file_that_was_opened_is_read_to_its_end_though_a_better_export_comes(store: CheckpointStore, place: Place) -> None:
    export(place, report=1)
    with store.open(STUDY, 0, 1, "config.json") as file:
        export(place, report=2, files={"config.json": b"[]"})
        assert file.read() == b"{}"


@pytest.mark.parametrize(("study_id", "trial"), [(STUDY, 1), ("other", 0)])
def test_a_trial_without_an_export_has_no_checkpoint(store: CheckpointStore, place: Place, study_id: str, trial: int) -> None:
    export(place)
    train(place, trial=1)
    with pytest.raises(CheckpointNotFound):
        store.manifest(study_id, trial, 1)
    with pytest.raises(CheckpointNotFound):
        store.open(study_id, trial, 1, "config.json")


@pytest.mark.parametrize(
    "path",
    [
        "", ".", "..", "missing.json", "CONFIG.JSON", "tokenizer", "tokenizer/", "./config.json", "tokenizer/../config.json",
        "../manifest.json", "../../resume-000001/reports.json", "../../../../secret.json", "/etc/passwd", "/etc/hosts.txt",
        "config.json\x00", "..\\manifest.json",
    ],
)  # fmt: skip
def test_only_what_the_manifest_names_is_opened(store: CheckpointStore, place: Place, path: str) -> None:
    place.leave("secret.json", b"secret")
    export(place)
    train(place)
    with pytest.raises(FileNotInCheckpoint):
        store.open(STUDY, 0, 1, path)


def test_an_export_that_is_replaced_while_it_is_opened_is_not_found(store: CheckpointStore, place: Place) -> None:
    export(place)
    place.lose(f"{STUDY}/000000/export-000001-a1/model/config.json")
    with pytest.raises(CheckpointNotFound, match="again"):
        store.open(STUDY, 0, 1, "config.json")


def test_the_analysis_of_an_export_is_read_as_it_was_written_and_is_no_file_of_it(store: CheckpointStore, place: Place) -> None:
    export(place, report=2, analysis=ANALYSIS)
    assert store.analysis(STUDY, 0, 2) == ANALYSIS
    assert [file.path for file in store.manifest(STUDY, 0, 2).files] == sorted(MODEL)
    with pytest.raises(FileNotInCheckpoint):
        store.open(STUDY, 0, 2, "analysis.json")


def test_each_export_has_an_analysis_of_its_own(store: CheckpointStore, place: Place) -> None:
    export(place, analysis=ANALYSIS)
    place.trial(0).save_export(2, lambda _: None, before=1, analysis={"rows": 1})
    assert (store.analysis(STUDY, 0, 1), store.analysis(STUDY, 0, 2)) == (ANALYSIS, {"rows": 1})


@pytest.mark.parametrize(("trial", "report"), [(0, 1), (0, 2), (1, 1)])
def test_what_has_no_analysis_is_not_found(store: CheckpointStore, place: Place, trial: int, report: int) -> None:
    export(place)
    with pytest.raises(CheckpointNotFound):
        store.analysis(STUDY, trial, report)


def test_an_analysis_goes_with_its_export(store: CheckpointStore, place: Place) -> None:
    for trial in range(2):
        export(place, trial, analysis=ANALYSIS)
    drop(store, lambda one: one.trial == 0)
    assert store.analysis(STUDY, 1, 1) == ANALYSIS
    with pytest.raises(CheckpointNotFound):
        store.analysis(STUDY, 0, 1)


def test_an_adapter_may_lie_beside_the_weights_it_was_merged_into(store: CheckpointStore, place: Place) -> None:
    adapter = {"adapter/adapter_model.safetensors": b"low rank", "adapter/adapter_config.json": b"{}"}
    export(place, files={**MODEL, **adapter})
    assert {path: read(store, path) for path in adapter} == adapter


def test_what_is_stored_is_listed_with_its_size_and_time(store: CheckpointStore, place: Place) -> None:
    assert store.stored(STUDY) == []
    export(place, trial=3, report=12)
    train_to(place, 12, "0123456789", trial=3)
    export(place, trial=10, report=1)
    listed = store.stored(STUDY)
    assert [(one.trial, one.kind, one.report) for one in listed] == [(3, "export", 12), (3, "resume", 12), (10, "export", 1)]
    assert {one.attempt for one in listed} == {1}
    weights = sum(map(len, MODEL.values()))
    assert [weights <= one.bytes < weights + 2_000 for one in listed] == [True, False, True]
    assert listed[1].bytes == 10 + place.files()[f"{STUDY}/000003/resume-000012-a1/reports.json"]
    assert all(abs(datetime.now(UTC) - one.at) < timedelta(minutes=5) for one in listed)


def test_what_a_killed_writer_left_is_listed_as_unfinished(store: CheckpointStore, place: Place) -> None:
    train(place)
    name = ".resume-000002-a1.4711" if isinstance(place, OnDisk) else "resume-000002-a1/state"
    place.leave(f"{STUDY}/000000/{name}/state.pt", b"half")
    unfinished = [one for one in store.stored(STUDY) if one.kind is StoredKind.UNFINISHED]
    assert [(one.trial, one.bytes) for one in unfinished] == [(0, 4)]
    store.drop(STUDY, unfinished)
    assert [one.kind for one in store.stored(STUDY)] == [StoredKind.RESUME]


def test_only_what_is_named_is_dropped(store: CheckpointStore, place: Place) -> None:
    for trial in range(3):
        export(place, trial)
        train(place, trial)
    export(place, study_id="other")
    drop(store, lambda one: one.trial == 0 or (one.trial == 1 and one.kind is StoredKind.RESUME))
    assert [has_export(store, trial) for trial in range(3)] == [False, True, True]
    assert [resumes(place, trial) for trial in range(3)] == [False, False, True]
    assert store.manifest("other", 0, 1).files
    assert {name.split("/")[1] for name in place.files() if name.startswith(STUDY)} == {"000001", "000002"}


def test_one_of_two_exports_of_a_trial_is_dropped_alone(store: CheckpointStore, place: Place) -> None:
    export(place, report=1)
    place.trial(0).save_export(2, lambda folder: (folder / "config.json").touch(), before=1)
    drop(store, lambda one: one.report == 2)
    assert [has_export(store, 0, report) for report in (1, 2)] == [True, False]


def test_to_drop_what_is_gone_does_no_harm(store: CheckpointStore, place: Place) -> None:
    export(place)
    listed = store.stored(STUDY)
    for _ in range(2):
        store.drop(STUDY, listed)
    assert store.stored(STUDY) == []


def test_what_is_opened_is_read_to_its_end_though_it_is_dropped(store: CheckpointStore, place: Place) -> None:
    export(place)
    with store.open(STUDY, 0, 1, "config.json") as file:
        drop(store, lambda _: True)
        assert file.read() == b"{}"


def test_each_study_is_listed_with_the_time_it_last_changed(store: CheckpointStore, place: Place) -> None:
    assert store.studies() == {}
    export(place)
    train(place, study_id="other")
    assert set(store.studies()) == {STUDY, "other"}
    assert abs(datetime.now(UTC) - store.studies()[STUDY]) < timedelta(minutes=5)


def test_deleting_a_study_says_what_that_frees(store: CheckpointStore, place: Place) -> None:
    export(place)
    sizes = place.files().values()
    assert [store.delete(STUDY), store.delete(STUDY)] == [Freed(len(sizes), sum(sizes)), Freed()]


def test_a_deleted_study_leaves_nothing_and_others_are_left_alone(store: CheckpointStore, place: Place) -> None:
    for study_id in (STUDY, "other"):
        export(place, study_id=study_id)
        train(place, study_id=study_id)
    store.delete(STUDY)
    assert not has_export(store, 0)
    assert {name.split("/")[0] for name in place.files()} == {"other"}
    assert store.manifest("other", 0, 1).files


def test_to_delete_what_is_not_there_does_no_harm(store: CheckpointStore) -> None:
    store.delete(STUDY)
    assert not has_export(store, 0)


def state_of(place: Place, trial: int) -> tuple[int, int, str] | None:
    """The report that a trial goes on from, how many reports that state carries, and what the trainer left in it."""
    resume = place.trial(trial).resume()
    if resume is None or resume.state is None:
        return None
    return resume.number, len(resume.reports), (resume.state / "state.json").read_text()


def train_to(place: Place, report: int, content: str, trial: int = 0) -> None:
    reports = [{"number": number} for number in range(1, report + 1)]
    place.trial(trial).save_resume(reports, lambda folder: _written(folder / "state.json", content))


def _written(path: Path, content: str) -> None:
    path.write_text(content)


def test_a_fork_goes_on_from_the_state_of_its_parent_whatever_becomes_of_that(store: CheckpointStore, place: Place) -> None:
    train_to(place, 2, "two")
    assert store.fork(STUDY, 0, 5, 2) == 2
    train_to(place, 3, "three")
    assert (state_of(place, 0), state_of(place, 5)) == ((3, 3, "three"), (2, 2, "two"))
    drop(store, lambda one: one.trial == 0)
    assert state_of(place, 5) == (2, 2, "two")


def test_what_a_fork_trains_leaves_its_parent_alone(store: CheckpointStore, place: Place) -> None:
    train_to(place, 2, "two")
    store.fork(STUDY, 0, 5, 2)
    train_to(place, 3, "another three", trial=5)
    drop(store, lambda one: one.trial == 5)
    assert state_of(place, 0) == (2, 2, "two")


def test_to_fork_again_changes_nothing_of_what_was_trained_since(store: CheckpointStore, place: Place) -> None:
    train_to(place, 2, "two")
    assert [store.fork(STUDY, 0, 5, 2) for _ in range(2)] == [2, 2]
    train_to(place, 3, "three", trial=5)
    train_to(place, 4, "four")
    assert store.fork(STUDY, 0, 5, 2) == 3
    assert state_of(place, 5) == (3, 3, "three")


def test_a_fork_of_a_state_that_is_gone_goes_on_from_one_before_it(store: CheckpointStore, place: Place) -> None:
    train_to(place, 1, "one")
    assert store.fork(STUDY, 0, 5, 2) == 1
    assert state_of(place, 5) == (1, 1, "one")


def test_a_fork_never_goes_on_from_a_state_after_the_one_that_was_named(store: CheckpointStore, place: Place) -> None:
    train_to(place, 3, "three")
    assert store.fork(STUDY, 0, 5, 2) == 0
    assert state_of(place, 5) is None


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_fork_of_nothing_begins_from_nothing(store: CheckpointStore, place: Place, *, is_whole: bool) -> None:
    if is_whole:  # a trial at its end has reports and no state
        place.trial(0).save_resume([{"number": 1}, {"number": 2}], None)
    assert store.fork(STUDY, 0, 5, 2) == 0
    assert not resumes(place, 5)


def test_a_fork_takes_no_export_with_it(store: CheckpointStore, place: Place) -> None:
    export(place, report=2)
    train_to(place, 2, "two")
    store.fork(STUDY, 0, 5, 2)
    assert not has_export(store, 5, report=2)


def test_a_fork_that_was_killed_halfway_is_made_whole(
    store: CheckpointStore, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_to(place, 2, "two")
    with monkeypatch.context() as killed:
        killed.setattr(place.copies_with, _killed)
        with pytest.raises(KeyboardInterrupt):
            store.fork(STUDY, 0, 5, 2)
    assert state_of(place, 5) is None
    assert store.fork(STUDY, 0, 5, 2) == 2
    assert state_of(place, 5) == (2, 2, "two")


def _killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("kind", ["export", "resume"])
def test_of_half_a_checkpoint_nobody_sees_anything(store: CheckpointStore, place: Place, kind: str) -> None:
    export(place)
    train_to(place, 1, "one")
    place.lose(f"{STUDY}/000000/{kind}-000001-a1/{'manifest.json' if kind == 'export' else 'reports.json'}")
    assert (has_export(store, 0), resumes(place, 0)) == (kind != "export", kind != "resume")
    assert store.can_resume(STUDY, 0) is (kind != "resume")


def test_a_large_file_is_read_in_any_order_and_all_of_it(store: CheckpointStore, place: Place) -> None:
    content = bytes(range(256)) * 8192
    export(place, files={"model.safetensors": content})
    with store.open(STUDY, 0, 1, "model.safetensors") as file:
        assert (file.read(10), file.seek(-10, 2), file.read(), file.read(1)) == (
            content[:10],
            len(content) - 10,
            content[-10:],
            b"",
        )
        assert file.seek(1_000_000) == 1_000_000
        assert hashlib.sha256(file.read()).digest() == hashlib.sha256(content[1_000_000:]).digest()


def test_only_a_file_that_the_manifest_names_has_a_link(store: CheckpointStore, place: Place) -> None:
    export(place)
    with pytest.raises(FileNotInCheckpoint):
        store.link(STUDY, 0, 1, "../manifest.json")
    with pytest.raises(CheckpointNotFound):
        store.link(STUDY, 1, 1, "config.json")
