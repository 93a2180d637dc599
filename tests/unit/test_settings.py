"""What `tuneyard serve` says of settings that cannot be."""

import json
import os
from pathlib import Path

import pytest

from service.cli.app import run
from service.cli.exits import ExitCode
from service.domain.errors import WrongSettings
from service.settings import read_settings


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("TUNEYARD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TUNEYARD_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "99999"), ("CPUS", "abc"), ("OFFLINE", "maybe"), ("ALLOWED_HOSTS", "[1"), ("MODEL_ROOTS", "[3]"),
        ("LEASE_SECONDS", "0"),
    ],
)  # fmt: skip
def test_a_setting_that_cannot_be_is_wrong_usage_and_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    monkeypatch.setenv(f"TUNEYARD_{name}", value)
    for line in (["serve"], ["db", "current"]):
        assert run(line) == ExitCode.USAGE
        (said,) = capsys.readouterr().err.splitlines()
        assert said.startswith(f"error: TUNEYARD_{name} cannot be ")
        assert "pydantic" not in said


def test_all_settings_that_cannot_be_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEYARD_PORT", "99999")
    with pytest.raises(WrongSettings, match=r"--cpus cannot be '0': .*; TUNEYARD_|TUNEYARD_PORT .*; --cpus") as refused:
        read_settings(cpus=0)
    assert "TUNEYARD_PORT cannot be '99999': Input should be less than or equal to 65535" in refused.value.detail


@pytest.mark.parametrize(
    ("text", "roots"),
    [
        ("/a", ["/a"]), (f"/a{os.pathsep}/b c{os.pathsep}", ["/a", "/b c"]), (json.dumps(["/a:b", "/c"]), ["/a:b", "/c"]),
        ("", []), ("[]", []),
    ],
)  # fmt: skip
def test_folders_are_a_list_as_in_a_path_or_in_json(monkeypatch: pytest.MonkeyPatch, text: str, roots: list[str]) -> None:
    monkeypatch.setenv("TUNEYARD_MODEL_ROOTS", text)
    assert read_settings().model_roots == tuple(map(Path, roots))


@pytest.mark.parametrize("text", ["a.example, b.example", '["a.example", "b.example"]'])
def test_names_are_a_list_with_commas_or_in_json(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("TUNEYARD_ALLOWED_HOSTS", text)
    monkeypatch.setenv("TUNEYARD_WORKER_ENVIRONMENT", text)
    settings = read_settings()
    assert settings.allowed_hosts == settings.worker_environment == ("a.example", "b.example")


def test_a_model_root_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    assert run(["serve", "--model-root", str(tmp_path / "missing")]) == ExitCode.USAGE


def test_an_address_of_another_machine_is_to_be_replaced_and_not_the_port(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["serve", "--home", str(tmp_path / "home"), "--host", "192.0.2.1", "--port", "0"]) == ExitCode.UNEXPECTED
    said = capsys.readouterr().err
    assert "choose another --host" in said
    assert "--port" not in said
