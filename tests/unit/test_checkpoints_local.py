"""The folder of one trial on disk: there is never half of anything in it."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from service.checkpoints import local
from service.checkpoints.local import LocalCheckpointStore, TrialFolder
from service.domain.errors import CheckpointNotFound

STUDY = "intents-abc123"


@pytest.fixture
def folder(tmp_path: Path) -> TrialFolder:
    return TrialFolder(tmp_path, STUDY, 4)


def known(count: int) -> list[Mapping[str, Any]]:
    return [{"number": number, "metrics": {"validation/loss": 1 / number}} for number in range(1, count + 1)]


def a_file(name: str, content: str = "") -> Callable[[Path], None]:
    """A writer of one file."""

    def write(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)

    return write


def both(*writers: Callable[[Path], None]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for writer in writers:
            writer(folder)

    return write


def broken(folder: Path) -> None:
    (folder / "half.json").write_text("{")
    raise OSError("no space left on device")


def names(root: Path) -> list[str]:
    """What is in the trial's folder."""
    trial = root / STUDY / "000004"
    return sorted(path.name for path in trial.iterdir()) if trial.exists() else []


def test_a_new_trial_starts_from_nothing(folder: TrialFolder) -> None:
    assert folder.resume() is None


def test_a_trial_goes_on_with_the_reports_and_the_state_it_had(folder: TrialFolder) -> None:
    folder.save_resume(known(2), a_file("state.json", "two"))
    resume = folder.resume()
    assert resume is not None
    assert (resume.number, resume.reports) == (2, known(2))
    assert resume.state is not None
    assert (resume.state / "state.json").read_text() == "two"


def test_a_trial_at_its_end_has_reports_and_no_state(folder: TrialFolder) -> None:
    folder.save_resume(known(3), None)
    resume = folder.resume()
    assert resume is not None
    assert (resume.number, len(resume.reports), resume.state) == (3, 3, None)


def test_a_metric_that_is_no_number_comes_back_with_the_reports(folder: TrialFolder) -> None:
    folder.save_resume([{"number": 1, "metrics": {"train/loss": float("inf")}}], None)
    resume = folder.resume()
    assert resume is not None
    assert resume.reports[0]["metrics"] == {"train/loss": float("inf")}


def test_each_state_replaces_the_one_before(folder: TrialFolder, tmp_path: Path) -> None:
    for count in (1, 2, 3):
        folder.save_resume(known(count), a_file("state.json", str(count)))
    assert names(tmp_path) == ["resume-000003"]


def test_of_two_states_that_a_killed_writer_left_the_further_one_counts(folder: TrialFolder, tmp_path: Path) -> None:
    folder.save_resume(known(9), a_file("state.json", "nine"))
    shutil.copytree(tmp_path / STUDY / "000004" / "resume-000009", tmp_path / "nine")
    folder.save_resume(known(10), a_file("state.json", "ten"))
    shutil.copytree(tmp_path / "nine", tmp_path / STUDY / "000004" / "resume-000009")
    resume = folder.resume()
    assert resume is not None
    assert resume.number == 10
    folder.save_resume(known(11), None)
    assert names(tmp_path) == ["resume-000011"]


def test_a_state_whose_writing_fails_leaves_the_one_before(folder: TrialFolder, tmp_path: Path) -> None:
    folder.save_resume(known(1), a_file("state.json", "one"))
    with pytest.raises(OSError, match="no space"):
        folder.save_resume(known(2), broken)
    resume = folder.resume()
    assert resume is not None
    assert resume.number == 1
    assert names(tmp_path) == ["resume-000001"]


def test_a_state_that_is_written_again_by_a_retried_attempt_is_the_new_one(folder: TrialFolder) -> None:
    for content in ("first", "again"):
        folder.save_resume(known(2), a_file("state.json", content))
    resume = folder.resume()
    assert resume is not None
    assert resume.state is not None
    assert [path.read_text() for path in resume.state.iterdir()] == ["again"]


def test_what_a_killed_writer_left_is_cleared_when_the_trial_goes_on(folder: TrialFolder, tmp_path: Path) -> None:
    folder.save_resume(known(1), None)
    left = [tmp_path / STUDY / "000004" / name for name in (".resume-000002.99", ".export-000002.99")]
    for each in left:
        (each / "state").mkdir(parents=True)
        (each / "state" / "half.json").write_text("{")
    resume = folder.resume()
    assert resume is not None
    assert resume.number == 1
    assert names(tmp_path) == ["resume-000001"]


def test_what_a_killed_writer_left_is_no_state_and_no_export(folder: TrialFolder, tmp_path: Path) -> None:
    for name in (".resume-000002.99", ".export-000002.99", "resume-2", "export-", "notes"):
        (tmp_path / STUDY / "000004" / name).mkdir(parents=True)
    assert folder.resume() is None
    with pytest.raises(CheckpointNotFound):
        folder.manifest(2)


@pytest.mark.parametrize("content", ["", "[{", "\x00\x00"])
def test_a_state_that_cannot_be_read_is_passed_over_for_the_one_before(folder: TrialFolder, tmp_path: Path, content: str) -> None:
    folder.save_resume(known(1), a_file("state.json", "one"))
    later = tmp_path / STUDY / "000004" / "resume-000002"
    later.mkdir()
    (later / "reports.json").write_text(content)
    resume = folder.resume()
    assert resume is not None
    assert resume.number == 1


def test_a_trial_whose_only_state_cannot_be_read_starts_from_nothing(folder: TrialFolder, tmp_path: Path) -> None:
    folder.save_resume(known(1), None)
    (tmp_path / STUDY / "000004" / "resume-000001" / "reports.json").write_text("")
    assert folder.resume() is None


def test_everything_is_on_the_disk_before_it_has_its_name(
    folder: TrialFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, bool]] = []
    final = tmp_path / STUDY / "000004" / "export-000001"
    monkeypatch.setattr(local, "_to_disk", lambda path: synced.append((path.name, final.exists())))
    folder.save_export(1, a_file("config.json"))
    *before, last = synced
    assert {"config.json", "model", "manifest.json"} < {name for name, _ in before}
    assert not any(has_its_name for _, has_its_name in before)
    assert last == ("000004", True)


def test_an_export_stands_beside_the_one_before_it_and_no_other(folder: TrialFolder, tmp_path: Path) -> None:
    for report, before in ((1, None), (2, 1), (5, 2)):
        folder.save_export(report, a_file("config.json"), before)
    assert names(tmp_path) == ["export-000002", "export-000005"]


def test_a_trial_that_starts_over_leaves_the_exports_of_later_reports(folder: TrialFolder, tmp_path: Path) -> None:
    folder.save_export(5, a_file("config.json"))
    folder.save_export(1, a_file("config.json"))
    assert names(tmp_path) == ["export-000001", "export-000005"]


def test_an_export_of_the_same_report_by_a_retried_attempt_is_the_new_one(folder: TrialFolder) -> None:
    folder.save_export(2, a_file("old.json"))
    folder.save_export(2, a_file("config.json", "{}"))
    assert [file.path for file in folder.manifest(2).files] == ["config.json"]
    with folder.open(2, "config.json") as file:
        assert file.read() == b"{}"


def test_an_export_whose_writing_fails_leaves_the_one_before(folder: TrialFolder, tmp_path: Path) -> None:
    folder.save_export(1, a_file("config.json"))
    with pytest.raises(OSError, match="no space"):
        folder.save_export(2, broken)
    assert folder.manifest(1).report == 1
    assert names(tmp_path) == ["export-000001"]


@pytest.mark.parametrize(
    "name",
    ["pytorch_model.bin", "model.pt", "state.pkl", "run.py", "model.safetensors.bin", "sub/model.ckpt", "no_suffix", ".json"],
)
def test_an_export_with_a_file_that_may_run_code_is_refused_whole(folder: TrialFolder, tmp_path: Path, name: str) -> None:
    folder.save_export(1, a_file("config.json"))
    with pytest.raises(ValueError, match="safetensors"):
        folder.save_export(2, both(a_file("model.safetensors"), a_file(name)))
    assert folder.manifest(1).report == 1
    assert names(tmp_path) == ["export-000001"]


@pytest.mark.parametrize("content", [None, "", "{"])
def test_an_export_whose_manifest_cannot_be_read_is_none(folder: TrialFolder, tmp_path: Path, content: str | None) -> None:
    folder.save_export(1, a_file("config.json"))
    manifest = tmp_path / STUDY / "000004" / "export-000001" / "manifest.json"
    manifest.unlink() if content is None else manifest.write_text(content)
    with pytest.raises(CheckpointNotFound):
        folder.manifest(1)


def test_trials_have_folders_of_their_own(tmp_path: Path) -> None:
    for number in (1, 10, 1_234_567):
        TrialFolder(tmp_path, STUDY, number).save_resume(known(1), a_file("state.json", str(number)))
    for number in (1, 10, 1_234_567):
        resume = TrialFolder(tmp_path, STUDY, number).resume()
        assert resume is not None
        assert resume.state is not None
        assert (resume.state / "state.json").read_text() == str(number)


def test_what_cannot_be_a_study_is_not_listed(tmp_path: Path) -> None:
    for name in ("lost+found", ".trash", STUDY):
        (tmp_path / name).mkdir()
    assert set(LocalCheckpointStore(tmp_path).studies()) == {STUDY}


def save_two_reports(root: Path) -> LocalCheckpointStore:
    TrialFolder(root, STUDY, 0).save_resume(known(2), a_file("state.json", "0123456789" * 1000))
    return LocalCheckpointStore(root)


def test_files_that_two_states_share_count_once(tmp_path: Path) -> None:
    store = save_two_reports(tmp_path)
    alone = sum(one.bytes for one in store.stored(STUDY))
    store.fork(STUDY, 0, 5, 2)
    assert alone <= sum(one.bytes for one in store.stored(STUDY)) < alone + 10
    store.drop(STUDY, [one for one in store.stored(STUDY) if one.trial == 0])
    assert [(one.trial, one.bytes) for one in store.stored(STUDY)] == [(5, alone)]


def test_a_disk_that_cannot_share_files_gets_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError("no links here")

    store = save_two_reports(tmp_path)
    monkeypatch.setattr("service.checkpoints.local.os.link", refused)
    assert store.fork(STUDY, 0, 5, 2) == 2
    resume = TrialFolder(tmp_path, STUDY, 5).resume()
    assert resume is not None
    assert resume.state is not None
    assert (resume.state / "state.json").read_text() == "0123456789" * 1000
