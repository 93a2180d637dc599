import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml
from rich.console import Console

import service
from service.api.schemas import StudyView, study_view
from service.client.address import service_file
from service.demo import main, process
from service.demo.errors import DemoFailed
from service.demo.story import STUDY, command_line, cut_short, keep_serving, print_mlflow
from service.domain.budget import Spending
from service.domain.definition import parse_definition
from service.domain.study import StudyReason
from service.domain.trial import TrialState
from tests.builders import a_study, fine_tuning


def test_the_demos_study_is_a_valid_definition() -> None:
    study = parse_definition(yaml.safe_load(STUDY.read_text(encoding="utf-8")))
    assert study.budget.is_bounded
    assert fine_tuning(study.trainer).data.test == "builtin://api-docs/test"


def test_the_demos_study_uses_both_cores_and_ends_in_time() -> None:
    study = parse_definition(yaml.safe_load(STUDY.read_text(encoding="utf-8")))
    assert study.resources.max_concurrent_trials == 2
    assert study.budget.wall_clock is not None
    assert study.budget.wall_clock <= 210


def test_settings_of_another_service_do_not_reach_the_demos() -> None:
    environment = {"TUNEYARD_DATABASE_URL": "postgresql://x", "TUNEYARD_TOKEN": "x", "TUNEYARD_OFFLINE": "1", "PATH": "/bin"}
    assert process.child_environment(environment) == {"TUNEYARD_OFFLINE": "1", "PATH": "/bin"}


def announce(home: Path, text: str) -> None:
    service_file(home).parent.mkdir(parents=True)
    service_file(home).write_text(text)


def test_a_service_is_known_by_its_own_process(tmp_path: Path) -> None:
    announce(tmp_path, json.dumps({"url": "http://127.0.0.1:5", "pid": 42}))
    assert process.announced(tmp_path, 42) == "http://127.0.0.1:5"


@pytest.mark.parametrize("text", ['{"url": "http://127.0.0.1:5", "pid": 41}', "{", "[]", '{"pid": 42}'])
def test_what_an_older_service_left_is_not_mistaken_for_ours(tmp_path: Path, text: str) -> None:
    announce(tmp_path, text)
    assert process.announced(tmp_path, 42) is None


def test_a_service_that_was_never_there_is_not_announced(tmp_path: Path) -> None:
    assert process.announced(tmp_path, 42) is None


def test_only_the_end_of_a_log_is_shown(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("\n".join(str(number) for number in range(100)))
    assert process.tail(tmp_path / "log", lines=2) == "98\n99"


def test_a_log_that_is_not_there_has_no_end(tmp_path: Path) -> None:
    assert process.tail(tmp_path / "log") == ""


def test_a_demo_that_could_not_write_its_result_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "thesis.txt").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert main() == 1
    assert "no earlier pull" in capsys.readouterr().out
    assert not (tmp_path / ".tuneyard").exists()


def an_ended_study(*, trials: int = 6, completed: int = 1, reason: StudyReason = StudyReason.BUDGET_SPENT) -> StudyView:
    study = replace(a_study(budget={"trials": 6, "wall_clock": "3m"}), reason=reason)
    counts = {TrialState.COMPLETED: completed, TrialState.STOPPED: trials - completed}
    spent = Spending(trials=trials, epochs=trials, wall_clock_seconds=180.0, gpu_seconds=0.0)
    return study_view(study, counts=counts, best=None, spent=spent, experiment="1")


@pytest.mark.parametrize(("trials", "completed", "ran"), [(4, 0, "4 of its 6"), (6, 0, "6 of its 6"), (5, 2, "5 of its 6")])
def test_a_search_that_its_minutes_cut_short_says_so(trials: int, completed: int, ran: str) -> None:
    said = cut_short(an_ended_study(trials=trials, completed=completed))
    assert said is not None
    assert f"3m 00s, in which {ran} trials ran" in said


def test_a_search_that_tried_all_it_was_to_try_was_not_cut_short() -> None:
    assert cut_short(an_ended_study()) is None
    assert cut_short(an_ended_study(trials=2, reason=StudyReason.STOP_REQUESTED)) is None


class FakeClient:
    """A service with one study in MLflow."""

    url = "http://127.0.0.1:8080"

    def study(self, study_id: str) -> StudyView:
        return an_ended_study()

    def login_link(self, path: str) -> str:
        return f"{self.url}/login?code={'c' * 43}&next={quote(path, safe='')}"


class EndedService:
    def wait(self) -> int:
        raise KeyboardInterrupt


def test_addresses_stand_on_lines_of_their_own_in_one_piece_and_lead_to_the_study() -> None:
    client, out = FakeClient(), Console(file=StringIO(), width=60)
    path = print_mlflow(client, "intents-abc123", out)  # type: ignore[arg-type]  # as much of one as is asked for
    keep_serving(client, EndedService(), path, out)  # type: ignore[arg-type]  # the same
    lines = out.file.getvalue().splitlines()  # type: ignore[attr-defined]  # a StringIO
    assert path == "/mlflow/#/experiments/1/runs"
    assert [line for line in lines if "http" in line] == [client.url + path, client.login_link(path), client.login_link(path)]


def test_the_command_line_that_is_named_is_the_one_beside_this_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert command_line(tmp_path / ".venv/bin/python") == "tuneyard"
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/tuneyard").touch()
    assert command_line(tmp_path / ".venv/bin/python") == ".venv/bin/tuneyard"


STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(600)
"""
POLITE = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
print("up", flush=True)
time.sleep(600)
"""


def wait_for(log: Path, text: str) -> None:
    """Until a child has written the text; the test's own time limit ends a wait in vain."""
    while text not in process.tail(log):
        os.sched_yield()


@pytest.mark.integration
def test_a_child_is_asked_to_leave(tmp_path: Path) -> None:
    with process.running([sys.executable, "-c", POLITE], tmp_path / "log") as child:
        wait_for(tmp_path / "log", "up")
    assert child.returncode == 3


@pytest.mark.integration
def test_a_child_that_does_not_leave_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "STOP_SECONDS", 0.2)
    with process.running([sys.executable, "-c", STUBBORN], tmp_path / "log") as child:
        wait_for(tmp_path / "log", "up")
    assert child.returncode == -signal.SIGKILL


@pytest.mark.integration
def test_a_child_is_stopped_when_its_user_fails(tmp_path: Path) -> None:
    children = []

    def fail() -> None:
        with process.running([sys.executable, "-c", POLITE], tmp_path / "log") as child:
            children.append(child)
            wait_for(tmp_path / "log", "up")
            raise DemoFailed("something")

    with pytest.raises(DemoFailed):
        fail()
    assert children[0].returncode == 3


@pytest.mark.integration
def test_a_service_that_ends_while_it_starts_is_reported_at_once(tmp_path: Path) -> None:
    with process.running([sys.executable, "-c", "raise SystemExit(4)"], tmp_path / "log") as child:
        child.wait()
        with pytest.raises(DemoFailed, match="code 4"):
            process.wait_until_ready(child, tmp_path, tick=lambda: None)


@pytest.mark.integration
def test_a_service_that_never_answers_is_given_up(tmp_path: Path) -> None:
    seconds = iter(range(0, 1000, 50))
    with process.running([sys.executable, "-c", POLITE], tmp_path / "log") as child:
        wait_for(tmp_path / "log", "up")
        with pytest.raises(DemoFailed, match="did not answer"):
            process.wait_until_ready(child, tmp_path, tick=lambda: None, clock=lambda: next(seconds))


@pytest.mark.integration
def test_a_busy_port_is_not_chosen() -> None:
    listen = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", listen], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert process.pick_port(int(child.stdout.readline())) == 0
        child.communicate("\n")


@pytest.mark.parametrize("folder", ["cli", "demo"])
def test_what_is_printed_has_no_markup_which_consoles_show_as_it_stands(folder: str) -> None:
    files = Path(service.__file__).parent.joinpath(folder).rglob("*.py")
    assert [file.name for file in files if re.search(r"\[/[a-z]+\]", file.read_text())] == []
