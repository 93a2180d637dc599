"""`tuneyard db current` and `upgrade`, and how a service is called."""

import socket
from pathlib import Path

import pytest

from service.cli import run
from service.settings import Layout, Settings, service_name
from service.store.database import Database
from service.store.versions import versions_of


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("TUNEYARD_DATABASE_URL", raising=False)
    return tmp_path / "home"


def newest(home: Path) -> str:
    return versions_of(Settings(home=home).store_url).newest


def test_a_database_is_made_once_and_then_up_to_date(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--home", str(home), "db", "current"]) == 5
    assert capsys.readouterr().out.startswith("none (no tables yet")
    assert run(["--home", str(home), "db", "upgrade"]) == 0
    assert capsys.readouterr().out == f"The database has version {newest(home)} now; before: none.\n"
    assert run(["--home", str(home), "db", "current"]) == 0
    assert capsys.readouterr().out == f"{newest(home)} (up to date)\n"
    assert run(["--home", str(home), "db", "upgrade"]) == 0
    assert capsys.readouterr().out == f"The database is up to date: version {newest(home)}.\n"


def test_the_version_of_a_database_is_told_without_making_one(home: Path) -> None:
    run(["--home", str(home), "db", "current"])
    assert not home.exists()


@pytest.mark.parametrize(
    ("found", "advice"), [("0001", "run `tuneyard db upgrade`"), ("9999", "install the version that wrote it")]
)
def test_a_database_of_another_version_is_told_with_what_to_do(
    home: Path, capsys: pytest.CaptureFixture[str], found: str, advice: str
) -> None:
    run(["--home", str(home), "db", "upgrade"])
    database = Database(Settings(home=home).store_url)
    with database.writing() as connection:
        connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{found}'")
    database.engine.dispose()
    capsys.readouterr()
    assert run(["--home", str(home), "db", "current"]) == 5
    said = capsys.readouterr().out
    assert said.startswith(found)
    assert advice in said


def test_the_database_is_that_of_the_environment(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUNEYARD_DATABASE_URL", "mysql://localhost/tuneyard")
    assert run(["--home", str(home), "db", "upgrade"]) == 1
    assert "TUNEYARD_DATABASE_URL" in capsys.readouterr().err


def test_a_service_keeps_its_name_and_two_homes_on_one_machine_have_two(tmp_path: Path) -> None:
    one, two = Layout(tmp_path / "one"), Layout(tmp_path / "two")
    assert service_name(one) == service_name(one) != service_name(two)
    assert service_name(one).startswith(f"{socket.gethostname()}-")
