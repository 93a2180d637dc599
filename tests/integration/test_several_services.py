"""Two services on one PostgreSQL: one controller leads, and the other goes on with what it led when that is gone."""

import contextlib
import json
import logging
import os
import secrets
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from service.api.schemas import StudyView
from service.client import Client
from service.clock import SystemClock
from service.domain.study import StudyState
from service.domain.trial import TrialState
from service.store.sql import open_store
from tests.integration.agreement import Finished, check_mlflow, check_store, finished
from tests.running import RunningService, arguments_of, lives, wait_until
from tests.servers import Postgresql
from tests.walking import logs_of

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(400)]

_LOG = logging.getLogger(__name__)
LEASE_SECONDS = 10.0
"""As it is where nobody sets it."""
PASSWORD = secrets.token_hex(8)
"""The server asks for none, and takes any."""


class Pair:
    """Two services with a home each, which share the database, MLflow's, the checkpoints and the token."""

    def __init__(self, root: Path, server: Postgresql) -> None:
        self.url = _with_password(server.database("tuneyard"))
        token = root / "token"
        token.write_text(secrets.token_hex(32))
        token.chmod(0o600)
        shared = {
            "TUNEYARD_DATABASE_URL": self.url,
            "TUNEYARD_MLFLOW_DATABASE_URL": _with_password(server.database("mlflow")),
            "TUNEYARD_MLFLOW_ARTIFACTS": str(root / "artifacts"),
            "TUNEYARD_TOKEN_FILE": str(token),
            "TUNEYARD_LEASE_SECONDS": str(LEASE_SECONDS),
            "TUNEYARD_HEARTBEAT_SECONDS": "2",
        }
        self.token = token.read_text()
        (root / "checkpoints").mkdir()
        for name in ("one", "two"):
            (root / name / "home").mkdir(parents=True)
            (root / name / "home" / "checkpoints").symlink_to(root / "checkpoints")
            (root / name / "home" / "token").symlink_to(token)  # for the tests' own client
        self.one = RunningService(root / "one", **shared)
        (root / "two" / "models").symlink_to(root / "one" / "models")
        self.two = RunningService(root / "two", **shared)

    def start(self) -> "Pair":
        self.one.start()
        wait_until(lambda: leader(self.one) == "here", 60, "the first service does not lead")
        self.two.start()
        assert (leader(self.one), leader(self.two)) == ("here", "elsewhere")
        return self


@pytest.fixture
def pair(tmp_path: Path, postgresql: Postgresql) -> Iterator[Pair]:
    found = Pair(tmp_path, postgresql)
    try:
        yield found.start()
    finally:
        for service in (found.one, found.two):
            with contextlib.suppress(AssertionError):  # it was never started
                service.kill()
            for process in service.processes():
                end(process)


def leader(service: RunningService) -> str:
    return str(httpx.get(f"{service.url}/readyz", trust_env=False, timeout=60).json()["leader"])


def end(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()


def controllers(service: RunningService) -> list[psutil.Process]:
    return [one for one in service.processes() if "service.daemon" in arguments_of(one)]


def _with_password(url: str) -> str:
    return url.replace("postgres:@", f"postgres:{PASSWORD}@")


def a_study(client: Client, trials: int = 6, epochs: int = 10) -> StudyView:
    document: dict[str, Any] = {
        "name": "moves",
        "trainer": {
            "kind": "simulated", "metrics": {"validation/loss": "rate / epoch"}, "seconds_per_epoch": 0.6, "epochs": epochs,
        },
        "space": {"values.rate": {"kind": "float", "low": 0.1, "high": 1.0}},
        "objective": {"metric": "validation/loss", "direction": "minimize"},
        "strategy": {"kind": "random"},
        "budget": {"trials": trials},
        "resources": {"max_concurrent_trials": 2},
    }  # fmt: skip
    study = client.apply(document)
    wait_until(lambda: client.study(study.id).progress.epochs.spent >= 4, 120, "the study does not run")
    return study


def ends_whole(client: Client, study: StudyView, trials: int = 6) -> Finished:
    """The study, once it is completed: nothing of it is lost, and nothing is there twice."""
    wait_until(lambda: client.study(study.id).state.is_end, 200, "the study does not end")
    found = finished(client, client.study(study.id))
    assert (found.study.state, found.study.trials) == (StudyState.COMPLETED, {TrialState.COMPLETED: trials})
    check_store(found)
    told = [event.payload["trial"] for event in client.events(study.id) if event.kind == "trial.created"]
    assert sorted(told) == list(range(trials))
    return found


def seconds_until(service: RunningService, where: str, at_most: float) -> float:
    begun = time.monotonic()
    wait_until(lambda: leader(service) == where, at_most, f"the leader is not {where} in time")
    took = time.monotonic() - begun
    _LOG.info("the leader is %s after %.1f s", where, took)
    return took


def test_the_second_service_goes_on_when_the_first_is_killed(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    with pair.two.client() as client:
        study = a_study(client)
        controllers(pair.one)[0].kill()
        wait_until(lambda: len(controllers(pair.one)) == 1, 60, "the controller is not started again")
        wait_until(lambda: leader(pair.one) in {"here", "elsewhere"}, 60, "nobody leads")
        living = pair.one.processes()
        pair.one.kill()
        for process in living:
            end(process)
        reported = client.study(study.id).progress.epochs.spent
        seconds_until(pair.two, "here", LEASE_SECONDS + 5)
        begun = time.monotonic()
        wait_until(lambda: client.study(study.id).progress.epochs.spent > reported, 120, "the study does not go on")
        _LOG.info("its next report came after %.1f s more", time.monotonic() - begun)
        found = ends_whole(client, study)
        assert {attempt.number for one in found.attempts.values() for attempt in one} >= {1, 2}, "some went on elsewhere"
        check_mlflow(pair.two, found, monkeypatch)
    assert pair.two.stop() == 0
    wait_until(lambda: not pair.two.processes(), 30, "something is left behind")


def test_a_service_that_leaves_in_peace_is_followed_at_once(pair: Pair) -> None:
    with pair.two.client() as client:
        study = a_study(client)
        os.kill(controllers(pair.one)[0].ppid(), signal.SIGTERM)
        assert seconds_until(pair.two, "here", LEASE_SECONDS) < LEASE_SECONDS / 2
        assert pair.one.stop() == 0
        wait_until(lambda: not pair.one.processes(), 30, "something is left behind")
        ends_whole(client, study)
    assert pair.two.stop() == 0


def test_a_controller_that_wakes_up_late_follows_and_the_driver_that_it_started_goes_on(pair: Pair) -> None:
    with pair.two.client() as client:
        study = a_study(client, epochs=40)
        driver, stopped = pair.one.driver_pid(study.id), controllers(pair.one)[0]
        stopped.suspend()
        seconds_until(pair.two, "here", LEASE_SECONDS + 15)
        store = open_store(pair.url)
        version = store.leadership.holder(SystemClock().now())
        stopped.resume()
        wait_until(lambda: not lives(stopped), 30, "it goes on as if it led")
        wait_until(lambda: len(controllers(pair.one)) == 1, 60, "no other controller is started in its place")
        time.sleep(3)
        assert store.leadership.holder(SystemClock().now()) == version
        assert (leader(pair.one), leader(pair.two)) == ("elsewhere", "here")
        assert not (pair.two.home / "run" / "drivers" / f"{study.id}.json").exists(), "the first service's driver lives"
        assert psutil.Process(driver).is_running()
        attempts = {trial.number: trial.attempts for trial in client.trials(study.id)}
        assert set(attempts.values()) <= {0, 1}, "nothing was begun again"
        assert pair.one.stop() == 0, "and it stops the driver with its service"
        wait_until(lambda: not pair.one.processes(), 30, "something is left behind")
        wait_until((pair.two.home / "run" / "drivers" / f"{study.id}.json").exists, 60, "no driver takes its place")
        client.stop(study.id)
        wait_until(lambda: client.study(study.id).state.is_end, 60, "the study does not end")
        check_store(finished(client, client.study(study.id)))
    assert pair.two.stop() == 0


def test_no_password_shows_in_the_list_of_processes_or_in_a_log(pair: Pair) -> None:
    for service in (pair.one, pair.two):
        said = [" ".join(arguments_of(process)) for process in service.processes()]
        logs = logs_of(service.home)
        assert logs
        assert [text for text in [*said, *logs, service.log()] if PASSWORD in text or pair.token in text] == []
        announced = json.loads((service.home / "run" / "service.json").read_text())
        assert set(announced) == {"url", "pid"}
