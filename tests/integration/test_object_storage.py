"""A service whose checkpoints, rows and models are in object storage, with workers that have only that and a cache."""

import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from service.checkpoints.storage import Entry, Patience, open_storage
from service.client import Client
from service.domain.study import StudyState
from service.domain.trial import AttemptOutcome
from tests.running import RunningService, wait_until
from tests.s3 import ADDRESS, running_s3
from tests.walking import logs_of, paths_below

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def s3() -> Iterator[Mapping[str, str]]:
    with running_s3() as environment:
        yield environment


@pytest.fixture(scope="module")
def service(s3: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    root = tmp_path_factory.mktemp("storage")
    running = RunningService(
        root, **s3, TUNEYARD_STORAGE_URL=ADDRESS, TUNEYARD_WORKER_CACHE=str(root / "cache"), TUNEYARD_WORKER_CACHE_GB="1"
    )  # fmt: skip
    try:
        yield running.start()
    finally:
        code = running.stop()
    assert code == 0, running.log()


@pytest.fixture
def client(service: RunningService) -> Iterator[Client]:
    with service.client() as client:
        for path in sorted(service.rows.glob("*.csv")):
            client.upload("intents", path)
        yield client


@pytest.fixture
def stored(s3: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """What lies in the bucket below a prefix."""
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    storage = open_storage(ADDRESS, Patience.SHORT)

    def listed(prefix: str) -> list[Entry]:
        return list(storage.list(prefix))

    return listed


def simulated(name: str, seconds_per_epoch: float, epochs: int, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "trainer": {
            "kind": "simulated", "epochs": epochs, "steps_per_epoch": 50, "seconds_per_epoch": seconds_per_epoch,
            "metrics": {"validation/accuracy": "1 - rate / (1 + epoch)"}, "noise": 0.01,
        },
        "space": {"values.rate": {"kind": "float", "low": 0.1, "high": 0.9}},
        "objective": {"metric": "validation/accuracy", "direction": "maximize"},
        "strategy": {"kind": "random"},
        "budget": {"trials": 1},
        "resources": {"max_concurrent_trials": 1},
        **changes,
    }  # fmt: skip


def worker_of(client: Client, study_id: str) -> psutil.Process:
    return psutil.Process(int(client.reports(study_id, 0)[-1].worker.rpartition(":")[2]))


def test_a_study_whose_worker_is_killed_on_a_node_that_then_has_nothing_trains_at_most_one_epoch_again(
    client: Client, service: RunningService, stored: Any
) -> None:
    study = client.apply(simulated("moved", seconds_per_epoch=1.5, epochs=5))
    wait_until(lambda: client.study(study.id).progress.epochs.spent >= 2, 120, "no trial reported twice")
    os.kill(worker_of(client, study.id).pid, signal.SIGKILL)
    for folder in (service.home.parent / "cache").glob(f"*/checkpoints/{study.id}/*"):  # as if it went on elsewhere
        shutil.rmtree(folder)
    wait_until(lambda: client.study(study.id).state is StudyState.COMPLETED, 180, "the study did not complete")
    assert [report.number for report in client.reports(study.id, 0)] == [1, 2, 3, 4, 5]
    assert [attempt.outcome for attempt in client.attempts(study.id, 0)] == [AttemptOutcome.LOST, AttemptOutcome.DONE]
    best = client.best(study.id).best_report
    export = next(f"export-{best:06d}-a{report.attempt}" for report in client.reports(study.id, 0) if report.number == best)

    def left() -> set[str]:
        return {Path(entry.key).parts[3] for entry in stored(f"checkpoints/{study.id}/000000")}

    wait_until(lambda: left() == {export}, 120, "what only a trial that goes on needs is not deleted")
    exports = [path for path in paths_below(service.home) if path.name.startswith("export-")]
    assert not [path for path in exports if "cache" not in path.parts], "nothing is on the service's disk"


def test_a_best_model_is_pulled_and_verified_and_read_in_parts_and_from_the_storage_itself(
    client: Client, service: RunningService, tmp_path: Path, stored: Any
) -> None:
    data = {"train": "dataset://intents/train.csv", "validation": "dataset://intents/validation.csv"}
    trainer = {
        "kind": "text-classification",
        "model": service.model,
        "data": {**data, "text": "text", "label": "label"},
        "epochs": 1,
    }
    space = {"learning_rate": {"kind": "float", "low": 1e-4, "high": 1e-2, "log": True}}
    study = client.apply(simulated("tiny", 0, 1, trainer={**trainer, "max_length": 32}, space=space))
    wait_until(lambda: client.study(study.id).state is StudyState.COMPLETED, 180, "the study did not complete")
    pulled = client.pull(study.id, tmp_path / "best")
    weights = (pulled / "model.safetensors").read_bytes()
    place = f"{service.url}/v1/studies/{study.id}/best/checkpoint/files/model.safetensors"
    with service.http() as http:
        part = http.get(place, headers={"Range": "bytes=1000-1999"})
        assert (part.status_code, part.content) == (206, weights[1000:2000])
        sent = http.get(place, params={"redirect": "true"})
        assert (sent.status_code, sent.content) == (307, b"")
    assert httpx.get(sent.headers["Location"], trust_env=False, timeout=60).content == weights, "the address is enough"
    logs = "".join(logs_of(service.home))
    assert "X-Amz-Signature" not in logs + service.log()
    assert "secret-for-tests" not in logs
    assert sum(entry.key.endswith("/index.json") for entry in stored("sources")) == 3, "two files of rows and a model, once each"


def test_a_study_is_paused_in_the_middle_of_an_epoch_though_no_disk_is_shared(client: Client) -> None:
    study = client.apply(simulated("paused", seconds_per_epoch=15, epochs=3))
    wait_until(lambda: client.study(study.id).progress.epochs.spent >= 1, 120, "no trial reported")
    time.sleep(2.0)  # into the second epoch
    begun = time.monotonic()
    client.pause(study.id, now=True)
    wait_until(lambda: client.study(study.id).state is StudyState.PAUSED, 60, "the study is not paused")
    assert time.monotonic() - begun < 10
    client.cancel(study.id)


def test_a_service_does_not_start_without_the_bucket_and_says_why(s3: Mapping[str, str], tmp_path: Path) -> None:
    running = RunningService(tmp_path, **s3, TUNEYARD_STORAGE_URL="s3://no-such-bucket/here")
    with pytest.raises(AssertionError, match="The object storage s3://no-such-bucket/here does not answer, or refuses"):
        running.start()
    assert "Traceback" not in running.log()


def test_a_driver_that_begins_while_the_storage_is_not_there_waits_for_it(tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    mount.mkdir()
    running = RunningService(
        tmp_path, TUNEYARD_STORAGE_URL=f"file://{mount}", TUNEYARD_WORKER_CACHE=str(tmp_path / "cache"), TUNEYARD_STANDBY="false"
    ).start()  # fmt: skip
    try:
        with running.client() as client:
            study = client.apply(simulated("waits", seconds_per_epoch=1, epochs=4))
            wait_until(lambda: client.study(study.id).progress.epochs.spent >= 1, 120, "no trial reported")
            gone = running.driver_pid(study.id)
            mount.rename(tmp_path / "unmounted")
            os.kill(gone, signal.SIGKILL)
            log = running.home / "logs" / "drivers" / f"{study.id}.log"
            wait_until(lambda: log.read_text().count("waiting for the object storage") >= 4, 120, "no driver waits")
            waiting = running.driver_pid(study.id)
            assert (waiting != gone, client.study(study.id).state) == (True, StudyState.RUNNING)
            (tmp_path / "unmounted").rename(mount)
            wait_until(lambda: client.study(study.id).state is StudyState.COMPLETED, 180, "the study did not complete")
            assert [one.number for one in client.reports(study.id, 0)] == [1, 2, 3, 4]
            assert log.read_text().count("waiting for the object storage") < 12
    finally:
        code = running.stop()
    assert code == 0, running.log()
