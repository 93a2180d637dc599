"""The driver that waits for a study: it takes the next one, and its death never matters."""

import gc
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from service.controller.drivers import Drivers
from service.controller.standby import Standby, Waiting
from service.domain.trial import TrialState
from tests.builders import NOW
from tests.running import RunningService, arguments_of, lives, wait_until

pytestmark = pytest.mark.integration

STUDY = "intents-abc123"
_WAITS = """
import os, sys
os.write(0, b"ready\\n")
line = sys.stdin.readline()
print("heard", line, flush=True)
"""


class Minutes:
    """A clock that moves when told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class World:
    """Drivers of scripts: one that waits, and others that begin at once."""

    def __init__(self, root: Path, waits: str = _WAITS) -> None:
        self.clock, self.log = Minutes(), root / "logs" / "standby.log"
        self.standby = Standby(self.log, 600, lambda: ([sys.executable, "-c", waits], {}), self.clock)
        begins = [sys.executable, "-c", "print('begun')"]
        self.drivers = Drivers(root / "run", root / "logs", lambda _: (begins, {}), self.standby)

    def ready(self) -> psutil.Process:
        """The driver that waits, once it is ready to."""
        self.standby.tend(is_cluster_up=True)
        waiting = self.standby._waiting
        assert waiting is not None
        wait_until(waiting.look, 60, "it is not ready")
        return psutil.Process(waiting.process.pid)

    def close(self) -> None:
        """End what still runs, and collect what ended by itself."""
        self.standby.stop()
        self.drivers.stop_all()

    def has_begun_another(self) -> bool:
        """Whether a driver that did not wait has begun, and ended."""
        return bool(self.drivers.dead()) and self.drivers.log_tail(STUDY) == "begun\n"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


def test_the_next_study_goes_to_the_driver_that_waits_and_is_on_record_as_its(world: World) -> None:
    waiting = world.ready()
    world.drivers.start(STUDY, NOW, 0)
    wait_until(lambda: "heard" in world.log.read_text(), 60, "it heard of no study")
    assert json.loads(world.log.read_text().partition(" ")[2])["study"] == STUDY
    assert world.drivers.known() == {STUDY}
    wait_until(lambda: world.drivers.dead() == {STUDY: waiting.pid}, 60, "it goes on")
    assert world.drivers.log_tail(STUDY) == ""


def test_a_driver_that_died_while_it_waited_is_not_missed(world: World) -> None:
    waiting = world.ready()
    waiting.kill()
    wait_until(lambda: not lives(waiting), 60, "it lives")
    world.drivers.start(STUDY, NOW, 0)
    wait_until(world.has_begun_another, 60, "no other driver began")


def test_one_that_is_not_ready_yet_is_not_waited_for(tmp_path: Path) -> None:
    world = World(tmp_path, waits="import time; time.sleep(600)")
    world.standby.tend(is_cluster_up=True)
    world.drivers.start(STUDY, NOW, 0)
    wait_until(world.has_begun_another, 60, "no other driver began")
    world.close()


def test_it_is_let_go_when_no_study_comes_and_another_waits_once_studies_come_again(world: World) -> None:
    first = world.ready()
    world.clock.now = 601
    world.standby.tend(is_cluster_up=True)
    assert not lives(first)
    world.clock.now = 1000
    world.standby.tend(is_cluster_up=True)
    assert world.standby._waiting is None
    world.drivers.start(STUDY, NOW, 0)
    wait_until(world.has_begun_another, 60, "no other driver began")
    world.clock.now = 1020
    assert world.ready().pid != first.pid


def test_none_waits_for_a_cluster_that_is_not_up_or_just_after_one_was_used(world: World) -> None:
    world.standby.tend(is_cluster_up=False)
    assert world.standby._waiting is None
    waiting = world.ready()
    world.drivers.start(STUDY, NOW, 0)
    world.standby.tend(is_cluster_up=True)
    assert world.standby._waiting is None
    wait_until(lambda: world.drivers.dead() == {STUDY: waiting.pid}, 60, "it goes on")


def test_none_starts_beside_the_driver_of_a_study_that_found_none_waiting(world: World) -> None:
    world.drivers.start(STUDY, NOW, 0)
    world.standby.tend(is_cluster_up=True)
    assert world.standby._waiting is None
    world.clock.now = 20
    assert world.ready().is_running()
    wait_until(world.has_begun_another, 60, "no other driver began")


def test_one_that_cannot_start_keeps_nobody_from_going_on_and_is_tried_again_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(tmp_path)
    world.log.parent.write_text("in the place of the folder")
    for world.clock.now in (0, 1, 14):
        world.standby.tend(is_cluster_up=True)
    assert [record.levelname for record in caplog.records if record.name == "tuneyard.controller"] == ["WARNING"]
    assert "no driver waits for the next study" in caplog.text
    world.log.parent.unlink()
    world.clock.now = 16
    assert world.ready().is_running()
    world.close()


def test_a_program_that_cannot_be_run_leaves_no_socket_open(tmp_path: Path) -> None:
    standby = Standby(tmp_path / "standby.log", 600, lambda: ([str(tmp_path / "nothing")], {}), Minutes())
    gc.collect()  # what earlier tests have left open
    before = psutil.Process().num_fds()
    standby.tend(is_cluster_up=True)
    assert standby.take() is None
    assert psutil.Process().num_fds() <= before


def test_one_that_has_broken_the_line_does_not_wait() -> None:
    ours, theirs = socket.socketpair()
    ours.sendall(b"not read by anybody")
    theirs.close()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process, ours:
        assert not Waiting(process, ours).look()
        process.kill()


def test_it_ends_when_its_controller_is_gone(world: World) -> None:
    process = world.ready()
    waiting = world.standby._waiting
    assert waiting is not None
    waiting.line.close()
    wait_until(lambda: not lives(process), 60, "it waits for nobody")


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_study_is_driven_by_the_driver_that_waited_and_goes_on_when_that_is_killed(tmp_path: Path) -> None:
    service = RunningService(tmp_path, TUNEYARD_STANDBY="true").start()
    try:
        with service.client() as client:
            logs = service.home / "logs"
            wait_until(lambda: _said(logs / "standby.log", "waiting for a study"), 60, "no driver waits")
            [waiting] = [process for process in service.processes() if "--standby" in arguments_of(process)]
            study = client.apply(_simulated())
            wait_until(lambda: client.study(study.id).trials.get(TrialState.COMPLETED, 0) > 1, 120, "no trial ends")
            assert service.driver_pid(study.id) == waiting.pid
            os.kill(waiting.pid, signal.SIGKILL)
            ended = client.wait(study.id, timeout=100)
            assert (ended.state, ended.trials[TrialState.COMPLETED]) == ("completed", 6)
            assert _said(logs / "drivers" / f"{study.id}.log", "is completed")
    finally:
        service.stop()


def _said(log: Path, words: str) -> bool:
    return log.exists() and words in log.read_text()


def _simulated() -> dict[str, object]:
    return {
        "name": "waited for",
        "trainer": {"kind": "simulated", "metrics": {"validation/loss": "x"}, "epochs": 2, "seconds_per_epoch": 0.5},
        "space": {"values.x": {"kind": "float", "low": 0.0, "high": 1.0}},
        "objective": {"metric": "validation/loss", "direction": "minimize"},
        "strategy": {"kind": "random"},
        "budget": {"trials": 6},
    }
