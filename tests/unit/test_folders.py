import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from service.folders import folders_in
from tests.walking import files_below, paths_below


def test_folders_are_told_with_their_last_change_and_files_are_none(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "file").touch()
    changed = datetime.fromtimestamp((tmp_path / "one").stat().st_mtime, UTC)
    assert folders_in(tmp_path) == {"one": changed}
    assert folders_in(tmp_path / "none") == {}


def test_a_folder_that_goes_while_they_are_looked_at_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    is_dir = Path.is_dir

    def and_goes(path: Path) -> bool:
        was = is_dir(path)
        if path.name == "one":
            path.rmdir()
        return was

    monkeypatch.setattr(Path, "is_dir", and_goes)
    assert set(folders_in(tmp_path)) == {"two"}


def test_a_walk_goes_on_though_a_folder_goes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    seen = []
    for path in paths_below(tmp_path):
        seen.append(path.relative_to(tmp_path).as_posix())
        shutil.rmtree(tmp_path / "two", ignore_errors=True)
    assert sorted(seen) == ["one", "one/file", "two"]
    assert list(files_below(tmp_path)) == [tmp_path / "one" / "file"]
