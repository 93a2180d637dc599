"""What the controller puts right while a study runs, and what is left of a study that is deleted."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.api.schemas import StudyView
from service.client import Client
from service.domain.study import StudyState
from service.domain.trial import TrialState
from service.folders import sizes_in
from tests.running import RunningService, wait_until
from tests.walking import files_below, paths_below

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

_LEASE_SECONDS = 300
_LIMIT_BYTES = 12_000_000
_STATE_BYTES, _EXPORT_BYTES = 2_000_000, 1_000_000
_DEFINITION = {
    "name": "repaired",
    "trainer": {
        "kind": "simulated",
        "epochs": 4,
        "metrics": {"validation/accuracy": "width / 100 + epoch / 1000"},
        "seconds_per_epoch": 0.4,
        "state_megabytes": _STATE_BYTES / 1e6,
        "export_megabytes": _EXPORT_BYTES / 1e6,
    },
    "space": {"values.width": {"kind": "int", "low": 1, "high": 90}},
    "objective": {"metric": "validation/accuracy", "direction": "maximize"},
    "strategy": {"kind": "random"},
    "budget": {"trials": 8},
    "resources": {"max_concurrent_trials": 2},
    "checkpoints": {"keep": 5, "max_total_gb": _LIMIT_BYTES / 1e9},
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A service whose leases last longer than the test waits."""
    running = RunningService(tmp_path_factory.mktemp("repaired"), TUNEYARD_LEASE_SECONDS=str(_LEASE_SECONDS))
    try:
        yield running.start()
    finally:
        code = running.stop()
    assert code == 0, running.log()


@pytest.fixture(scope="module")
def client(service: RunningService) -> Iterator[Client]:
    with service.client() as client:
        yield client


class Meter(threading.Thread):
    """Measures a folder again and again, and remembers the most that was in it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self._folder = folder
        self._done = threading.Event()
        self.most = 0

    def run(self) -> None:
        while not self._done.wait(0.05):
            self.most = max(self.most, sum(sizes_in(self._folder)))

    def stop(self) -> int:
        self._done.set()
        self.join()
        return self.most


@pytest.fixture(scope="module")
def stray(service: RunningService) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that looks like a driver of this home whose study is gone."""
    command = [sys.executable, "-c", "import time; time.sleep(600)", "service.driver", "gone-abc123"]
    process = subprocess.Popen(command, env={**os.environ, "TUNEYARD_HOME": str(service.home)})
    yield process
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def study(service: RunningService, client: Client, stray: "subprocess.Popen[bytes]") -> StudyView:
    """A study whose driver was killed in the middle, at its end."""
    posted = client.apply(_DEFINITION)
    folder = service.home / "checkpoints" / posted.id
    wait_until(lambda: client.study(posted.id).trials.get(TrialState.COMPLETED), 120, "no trial was completed")
    meter = Meter(folder)
    meter.start()
    first, killed_at = service.driver_pid(posted.id), time.monotonic()
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: service.driver_pid(posted.id) != first, _LEASE_SECONDS / 4, "no other driver started")
    started_after = time.monotonic() - killed_at
    ended = client.wait(posted.id, timeout=200)
    assert (ended.state, ended.trials) == (StudyState.COMPLETED, {"completed": 8})
    assert started_after < _LEASE_SECONDS / 4
    assert meter.stop() <= _LIMIT_BYTES + 2 * (_STATE_BYTES + _EXPORT_BYTES), "one checkpoint for each live trial above the limit"
    return ended


def told(client: Client, study: StudyView, kind: str) -> list[dict[str, object]]:
    return [dict(event.payload) for event in client.events(study.id) if event.kind == kind]


def test_the_lease_of_a_killed_driver_is_released_and_the_study_goes_on_at_once(client: Client, study: StudyView) -> None:
    repaired = told(client, study, "study.repaired")
    assert [one["what"] for one in repaired] == ["lease"]


def test_checkpoints_stay_within_their_budget_and_each_that_is_deleted_is_told(
    service: RunningService, client: Client, study: StudyView
) -> None:
    wait_until(lambda: _storage(client, study) < _LIMIT_BYTES, 60, "the last trials were not tidied")
    deleted = told(client, study, "checkpoint.deleted")
    assert {one["because"] for one in deleted} <= {"ended", "budget", "not_kept", "superseded"}
    assert sum(one["because"] == "ended" for one in deleted) >= 6
    best = client.best(study.id)
    assert best.has_checkpoint
    assert (best.number, "export", best.best_report) not in {(one["trial"], one["kind"], one["report"]) for one in deleted}
    folder = service.home / "checkpoints" / study.id

    def held() -> int:
        trials = folder.glob("[!.]*")  # beside them are signs of a few bytes
        return sum(size for trial in trials for size in sizes_in(trial))

    wait_until(lambda: held() == _storage(client, study), 60, "what is there was not measured again")
    view = client.study(study.id)
    assert view.storage is not None
    assert view.storage.max_bytes == _LIMIT_BYTES


def _storage(client: Client, study: StudyView) -> int:
    view = client.study(study.id)
    return -1 if view.storage is None else view.storage.bytes


def test_a_driver_of_a_study_that_is_gone_is_ended(stray: "subprocess.Popen[bytes]", study: StudyView) -> None:
    assert stray.wait(120) == -signal.SIGKILL


def test_a_deleted_study_leaves_nothing_behind_and_says_what_there_was(
    service: RunningService, client: Client, study: StudyView
) -> None:
    wait_until(lambda: _is_registered(service, study), 120, "the best model was not registered")
    experiment = (client.mlflow_address(client.study(study.id)) or "").split("/experiments/")[1].split("/")[0]
    artifacts = service.home / "mlflow" / "artifacts" / experiment
    assert any(files_below(artifacts))
    removed = client.delete(study.id)
    assert (removed.study_id, removed.trials, removed.reports) == (study.id, 8, 32)
    assert removed.events > 40
    assert removed.checkpoints.bytes > _EXPORT_BYTES
    assert not (service.home / "checkpoints" / study.id).exists()
    wait_until(lambda: client.deletions()[0].mlflow is not None, 120, "MLflow still has it")
    (deletion,) = client.deletions()
    assert deletion.mlflow is not None
    assert (deletion.mlflow.experiment, deletion.mlflow.runs, deletion.mlflow.registered_model) == (experiment, 9, True)
    assert not artifacts.exists()
    # Its log is kept for a while, and what Ray Tune leaves in its session goes with the next sweep.
    ours = [path for path in service.home.iterdir() if path.name not in {"logs", "ray"}]
    left = [path for folder in ours for path in paths_below(folder) if study.id in path.name]
    assert left == []
    assert study.id not in json.dumps([view.id for view in client.studies()])


def _is_registered(service: RunningService, study: StudyView) -> bool:
    place = f"{service.url}/mlflow/api/2.0/mlflow/registered-models/alias"
    asked = {"name": study.id, "alias": "champion"}
    answer = httpx.get(place, params=asked, headers={"Authorization": f"Bearer {service.token}"}, trust_env=False, timeout=30)
    return answer.status_code == httpx.codes.OK
