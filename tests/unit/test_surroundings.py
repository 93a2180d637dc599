import subprocess
from pathlib import Path

import pytest

from service.tracking.surroundings import surroundings


@pytest.fixture(autouse=True)
def _as_long_as_git_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.tracking.surroundings._GIT_SECONDS", 60.0)


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit, of `package/module.py`."""
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "module.py").write_text("")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message=One")
    return tmp_path


def test_the_revision_is_that_of_the_folder_and_not_of_where_the_process_runs(
    repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert surroundings(repository / "package")["git_revision"] == git(repository, "rev-parse", "HEAD")


def test_a_folder_that_lies_in_somebody_elses_repository_has_no_revision(repository: Path) -> None:
    installed = repository / ".venv" / "package"
    installed.mkdir(parents=True)
    (installed / "module.py").write_text("")
    assert "git_revision" not in surroundings(installed)


def test_a_folder_outside_every_repository_has_no_revision_and_the_rest_is_told(tmp_path: Path) -> None:
    found = surroundings(tmp_path)
    assert "git_revision" not in found
    assert {"python", "platform", "numpy"} <= set(found)
