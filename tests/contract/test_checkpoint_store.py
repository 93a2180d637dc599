"""The contract of `CheckpointStore`."""

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from service.checkpoints.local import LocalCheckpointStore, TrialFolder
from service.domain.checkpoint import CheckpointFile, Manifest
from service.domain.errors import CheckpointNotFound, FileNotInCheckpoint
from service.domain.ports import CheckpointStore
from tests.builders import a_report

STUDY = "intents-abc123"
MODEL = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 10, "tokenizer/vocab.txt": "wörter\n".encode()}


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return LocalCheckpointStore(tmp_path)


def export(root: Path, trial: int = 0, report: int = 1, files: Mapping[str, bytes] = MODEL, study_id: str = STUDY) -> Manifest:
    """What a worker writes after the trial's best report."""

    def write(folder: Path) -> None:
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)

    return TrialFolder(root, study_id, trial).save_export(report, write)


def train(root: Path, trial: int = 0, reports: int = 1, study_id: str = STUDY) -> None:
    """What a worker writes after each report."""
    known = [{"number": a_report(number).number} for number in range(1, reports + 1)]
    TrialFolder(root, study_id, trial).save_resume(known, lambda folder: (folder / "state.pt").touch())


def read(store: CheckpointStore, path: str, trial: int = 0) -> bytes:
    with store.open(STUDY, trial, path) as file:
        return file.read()


def has_export(store: CheckpointStore, trial: int) -> bool:
    try:
        return bool(store.manifest(STUDY, trial).files)
    except CheckpointNotFound:
        return False


def resumes(root: Path, trial: int) -> bool:
    return TrialFolder(root, STUDY, trial).resume() is not None


def test_the_manifest_names_every_file_with_its_size_and_hash(store: CheckpointStore, tmp_path: Path) -> None:
    export(tmp_path, trial=7, report=3)
    files = tuple(CheckpointFile(path, len(MODEL[path]), hashlib.sha256(MODEL[path]).hexdigest()) for path in sorted(MODEL))
    assert store.manifest(STUDY, 7) == Manifest(STUDY, 7, 3, files)


def test_the_writer_gets_the_manifest_that_the_reader_gets(store: CheckpointStore, tmp_path: Path) -> None:
    assert export(tmp_path) == store.manifest(STUDY, 0)


@pytest.mark.parametrize("path", sorted(MODEL))
def test_a_file_is_read_as_it_was_written(store: CheckpointStore, tmp_path: Path, path: str) -> None:
    export(tmp_path)
    assert read(store, path) == MODEL[path]


def test_a_file_can_be_read_from_its_middle(store: CheckpointStore, tmp_path: Path) -> None:
    export(tmp_path)
    with store.open(STUDY, 0, "model.safetensors") as file:
        assert file.seek(300) == 300
        assert file.read(10) == MODEL["model.safetensors"][300:310]


def test_the_export_of_a_better_report_takes_the_place_of_the_one_before(store: CheckpointStore, tmp_path: Path) -> None:
    export(tmp_path, report=1)
    export(tmp_path, report=12, files={"config.json": b"[]"})
    assert store.manifest(STUDY, 0).report == 12
    assert read(store, "config.json") == b"[]"
    with pytest.raises(FileNotInCheckpoint):
        store.open(STUDY, 0, "model.safetensors")


def test_a_file_that_was_opened_is_read_to_its_end_though_a_better_export_comes(store: CheckpointStore, tmp_path: Path) -> None:
    export(tmp_path, report=1)
    with store.open(STUDY, 0, "config.json") as file:
        export(tmp_path, report=2, files={"config.json": b"[]"})
        assert file.read() == b"{}"


@pytest.mark.parametrize(("study_id", "trial"), [(STUDY, 1), ("other", 0)])
def test_a_trial_without_an_export_has_no_checkpoint(store: CheckpointStore, tmp_path: Path, study_id: str, trial: int) -> None:
    export(tmp_path)
    train(tmp_path, trial=1)
    with pytest.raises(CheckpointNotFound):
        store.manifest(study_id, trial)
    with pytest.raises(CheckpointNotFound):
        store.open(study_id, trial, "config.json")


@pytest.mark.parametrize(
    "path",
    [
        "", ".", "..", "missing.json", "CONFIG.JSON", "tokenizer", "tokenizer/", "./config.json", "tokenizer/../config.json",
        "../manifest.json", "../../resume-000001/reports.json", "../../../../secret.json", "/etc/passwd", "/etc/hosts.txt",
        "config.json\x00", "..\\manifest.json",
    ],
)  # fmt: skip
def test_only_what_the_manifest_names_is_opened(store: CheckpointStore, tmp_path: Path, path: str) -> None:
    (tmp_path / "secret.json").write_text("secret")
    export(tmp_path)
    train(tmp_path)
    with pytest.raises(FileNotInCheckpoint):
        store.open(STUDY, 0, path)


def test_an_export_that_is_replaced_while_it_is_opened_is_not_found(store: CheckpointStore, tmp_path: Path) -> None:
    export(tmp_path)
    shutil.rmtree(next(tmp_path.rglob("model")))
    with pytest.raises(CheckpointNotFound, match="again"):
        store.open(STUDY, 0, "config.json")


@pytest.mark.parametrize("exports", [set(), {0}, {1, 2}, {0, 1, 2, 3}, {9}])
@pytest.mark.parametrize("resumable", [set(), {1}, {0, 3}, {0, 1, 2, 3}])
def test_only_the_exports_and_the_resume_states_that_are_named_are_kept(
    store: CheckpointStore, tmp_path: Path, exports: set[int], resumable: set[int]
) -> None:
    for trial in range(4):
        export(tmp_path, trial)
        train(tmp_path, trial)
    store.keep_only(STUDY, frozenset(exports), frozenset(resumable))
    assert {trial for trial in range(10) if has_export(store, trial)} == exports - {9}
    assert {trial for trial in range(10) if resumes(tmp_path, trial)} == resumable


def test_what_is_kept_of_one_study_says_nothing_of_another(store: CheckpointStore, tmp_path: Path) -> None:
    export(tmp_path, study_id="other")
    train(tmp_path, study_id="other")
    store.keep_only(STUDY, frozenset(), frozenset())
    assert store.manifest("other", 0).files
    assert TrialFolder(tmp_path, "other", 0).resume() is not None


def test_to_keep_something_of_nothing_does_no_harm(store: CheckpointStore) -> None:
    store.keep_only(STUDY, frozenset({0, 1}), frozenset({2}))
    assert not has_export(store, 0)


def test_a_deleted_study_leaves_nothing_and_others_are_left_alone(store: CheckpointStore, tmp_path: Path) -> None:
    for study_id in (STUDY, "other"):
        export(tmp_path, study_id=study_id)
        train(tmp_path, study_id=study_id)
    store.delete(STUDY)
    assert not has_export(store, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
    assert store.manifest("other", 0).files


def test_to_delete_what_is_not_there_does_no_harm(store: CheckpointStore) -> None:
    store.delete(STUDY)
    assert not has_export(store, 0)
