"""Child processes: started again when they die, gone when their supervisor is."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from service import processes
from service.controller.drivers import Drivers
from service.processes import Child, Children
from service.serve import free_ports
from tests.builders import NOW

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
_SLEEPS = [sys.executable, "-c", "import time; time.sleep(600)"]
_IGNORES_SIGTERM = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)",
]


def wait_until(happened: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def recorded(home: Path) -> list[int]:
    return [entry["pid"] for entry in json.loads((home / "processes.json").read_text())]


@pytest.fixture
def children(tmp_path: Path) -> Iterator[Children]:
    children = Children(tmp_path / "logs", tmp_path / "processes.json")
    yield children
    children.stop()


def test_a_child_that_dies_is_started_again(children: Children, tmp_path: Path) -> None:
    children.start(Child("sleeper", _SLEEPS))
    (first,) = recorded(tmp_path)
    os.kill(first, signal.SIGKILL)

    def is_back() -> bool:
        children.tend()
        return recorded(tmp_path) != [first]

    wait_until(is_back)
    assert lives(recorded(tmp_path)[0])


def test_who_cannot_write_down_what_runs_goes_on_and_does_it_later(
    children: Children, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    children.start(Child("sleeper", _SLEEPS))
    (first,) = recorded(tmp_path)
    os.kill(first, signal.SIGKILL)
    started: list[int] = []

    def full(path: Path, text: str) -> None:
        started.append(json.loads(text)[0]["pid"])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(processes, "write_private", full)
        while len(started) < 2:
            children.tend()
    assert recorded(tmp_path) == [first]
    assert lives(started[0])
    assert capsys.readouterr().err.count("No space left on device") == 1
    children.tend()
    assert recorded(tmp_path) == [started[0]], "the one that was started meanwhile, and no other"


def test_what_a_dead_child_has_started_in_other_groups_goes_with_it(children: Children, tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import subprocess, sys, time

        left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], process_group=0)
        print(left.pid, flush=True)
        time.sleep(600)
        """
    )
    children.start(Child("parent", [sys.executable, "-c", script]))
    log = children.log("parent")
    wait_until(lambda: "\n" in log.read_text())
    left = int(log.read_text())
    os.kill(recorded(tmp_path)[0], signal.SIGKILL)

    def is_gone() -> bool:
        children.tend()
        return not lives(left)

    wait_until(is_gone)


def test_stopping_ends_even_a_child_that_does_not_listen(tmp_path: Path) -> None:
    children = Children(tmp_path / "logs", tmp_path / "processes.json")
    children.start(Child("deaf", _IGNORES_SIGTERM, stop_seconds=0.2))
    wait_until(lambda: "deaf" in children.log("deaf").read_text())
    (pid,) = recorded(tmp_path)
    children.stop()
    assert not lives(pid)


def test_a_child_gets_its_environment_and_writes_its_log(children: Children) -> None:
    children.start(Child("speaker", [sys.executable, "-c", "import os; print(os.environ['WORD'])"], {"WORD": "moon"}))
    wait_until(lambda: "moon" in children.log("speaker").read_text())


def test_children_end_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from service.processes import Child, Children

        home = Path(sys.argv[1])
        children = Children(home / "logs", home / "processes.json")
        children.start(Child("sleeper", [sys.executable, "-c", "import time; time.sleep(600)"]))
        time.sleep(600)
        """
    )
    supervisor = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
    wait_until((tmp_path / "processes.json").exists)
    (pid,) = recorded(tmp_path)
    supervisor.kill()
    supervisor.wait()
    wait_until(lambda: not lives(pid))


def test_the_next_supervisor_ends_what_a_killed_one_left(tmp_path: Path) -> None:
    left = subprocess.Popen(_SLEEPS, start_new_session=True)
    record = [{"pid": left.pid, "created": psutil.Process(left.pid).create_time()}]
    (tmp_path / "processes.json").write_text(json.dumps(record))
    Children(tmp_path / "logs", tmp_path / "processes.json")
    assert left.wait(60) == -signal.SIGKILL


def test_a_stranger_that_was_given_the_same_number_is_left_alone(tmp_path: Path) -> None:
    stranger = subprocess.Popen(_SLEEPS, start_new_session=True)
    try:
        record = [{"pid": stranger.pid, "created": psutil.Process(stranger.pid).create_time() - 60}]
        (tmp_path / "processes.json").write_text(json.dumps(record))
        Children(tmp_path / "logs", tmp_path / "processes.json")
        assert lives(stranger.pid)
    finally:
        stranger.kill()
        stranger.wait()


def a_fleet(root: Path) -> Drivers:
    return Drivers(root / "run", root / "logs", lambda *_: (_SLEEPS, {}))


def test_a_restarted_controller_still_knows_its_drivers(tmp_path: Path) -> None:
    first = a_fleet(tmp_path)
    first.start("study-1", NOW, reports=0)
    again = a_fleet(tmp_path).launched()["study-1"]
    assert (again.alive, again.at) == (True, NOW)
    first.stop_all()
    assert a_fleet(tmp_path).launched() == {}


def test_launches_without_a_new_report_are_counted(tmp_path: Path) -> None:
    drivers = a_fleet(tmp_path)
    pids = []
    try:
        for launch, reports in enumerate([0, 0, 0, 5]):
            drivers.start("study-1", NOW + timedelta(minutes=launch), reports)
            pids.append(json.loads((tmp_path / "run" / "drivers" / "study-1.json").read_text())["pid"])
            if launch == 2:
                assert drivers.launched()["study-1"].fruitless == 2
        assert drivers.launched()["study-1"].fruitless == 0
    finally:
        # Each launch takes the record of the one before: end those too, and none of anybody else's children.
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not any(lives(pid) for pid in pids))
        drivers.stop_all()


def test_a_child_that_computes_for_a_process_ends_when_that_is_killed(tmp_path: Path) -> None:
    endless = "import os, pathlib, time\npathlib.Path('pid').write_text(str(os.getpid()))\ntime.sleep(600)\n"
    (tmp_path / "endless.py").write_text(endless)
    script = textwrap.dedent(
        """
        import subprocess, threading
        from service import lifeline

        threading.Thread(target=lambda: subprocess.run(lifeline.command("endless"), check=False)).start()
        """
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, env=environment)
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "")
    pid = int((tmp_path / "pid").read_text())
    assert lives(pid)
    parent.kill()
    parent.wait()
    wait_until(lambda: not lives(pid))


def test_a_child_whose_parent_ended_before_it_began_does_not_begin(tmp_path: Path) -> None:
    (tmp_path / "endless.py").write_text("import pathlib\npathlib.Path('began').touch()\n")
    gone = subprocess.Popen(_SLEEPS)
    gone.kill()
    gone.wait()
    command = [sys.executable, "-m", "service.lifeline", str(gone.pid), "endless"]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"}, check=False)
    assert (done.returncode, (tmp_path / "began").exists()) == (1, False)


def test_an_orphan_that_does_not_listen_is_killed_where_it_is_said_to_be(tmp_path: Path) -> None:
    script = textwrap.dedent(
        f"""
        import signal, sys, time
        from pathlib import Path
        from service.processes import Child, Children

        home = Path(sys.argv[1])
        children = Children(home / "logs", home / "processes.json")
        children.start(Child("deaf", {_IGNORES_SIGTERM!r}, orphaned=signal.SIGKILL))
        time.sleep(600)
        """
    )
    supervisor = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
    wait_until(lambda: (tmp_path / "logs" / "deaf.log").exists() and "deaf" in (tmp_path / "logs" / "deaf.log").read_text())
    (pid,) = recorded(tmp_path)
    supervisor.kill()
    supervisor.wait()
    wait_until(lambda: not lives(pid))


def test_a_port_that_somebody_listens_on_is_not_free_and_a_free_one_is_given_to_nobody_who_asks_for_any(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernels = Path("/proc/sys/net/ipv4/ip_local_port_range")
    assert not kernels.exists() or free_ports(1)[0] < int(kernels.read_text().split()[0])
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_server(("127.0.0.1", 0)) as other:
        taken, left = listening.getsockname()[1], other.getsockname()[1]
        other.close()
        monkeypatch.setattr("service.serve._PORTS", [taken, left])
        assert {free_ports(1)[0] for _ in range(8)} == {left}
        monkeypatch.setattr("service.serve._PORTS", [taken])
        with pytest.raises(OSError, match="in use"):
            free_ports(1)
