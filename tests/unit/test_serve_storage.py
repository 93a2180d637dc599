"""What `tuneyard serve` says of an object storage that it cannot use, before it starts anything."""

from pathlib import Path

import pytest

from service.cli.app import run
from service.cli.exits import ExitCode


def test_a_storage_that_is_not_there_is_said_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUNEYARD_STORAGE_URL", f"file://{tmp_path}/missing")
    assert run(["serve", "--home", str(tmp_path / "home"), "--port", "0"]) == ExitCode.UNEXPECTED
    said = capfd.readouterr().err
    assert "make it, or mount it" in said
    assert said.count("missing") == 1
    assert "Traceback" not in said


def test_an_address_with_credentials_is_refused_and_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUNEYARD_STORAGE_URL", "s3://key:hidden@models/a")
    assert run(["serve", "--home", str(tmp_path / "home"), "--port", "0"]) == ExitCode.USAGE
    said = capfd.readouterr().err
    assert "AWS_SECRET_ACCESS_KEY" in said
    assert "hidden" not in said
    assert not (tmp_path / "home").exists()
