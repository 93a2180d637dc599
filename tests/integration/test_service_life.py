"""The service as a whole: its start, its stop, kills in the middle, and strangers."""

import stat
import time
from pathlib import Path

import httpx
import pytest

from service.client import Client
from service.domain.study import StudyState
from service.domain.trial import TrialState
from tests.integration.agreement import check_mlflow, check_store, finished
from tests.integration.test_four_strategies import a_study
from tests.running import RunningService, wait_until
from tests.walking import logs_of

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


def test_secrets_are_for_their_owner_only(service: RunningService) -> None:
    for path in (service.home / "token", service.home / "ray" / "token"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(service.home.stat().st_mode) == 0o700


def test_a_stranger_gets_in_nowhere(service: RunningService, client: Client) -> None:
    studies = list(client.studies())
    paths = ["/v1/studies", "/v1/datasets", "/mlflow/", "/mlflow/ajax-api/2.0/mlflow/experiments/search", "/metrics"]
    paths += [f"/v1/studies/{study.id}/best/checkpoint" for study in studies[:1]]
    for path in paths:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Cookie": "tuneyard_session=wrong"}):
            answer = httpx.get(service.url + path, headers=headers, trust_env=False, timeout=60)
            assert answer.status_code in {401, 303}, (path, answer.status_code)
            assert service.token not in answer.text


def test_the_login_code_is_not_logged(service: RunningService, client: Client) -> None:
    link = client.login_link()
    code = link.split("code=")[1].split("&")[0]
    assert httpx.get(link, trust_env=False, timeout=60).status_code == httpx.codes.SEE_OTHER
    logs = logs_of(service.home)
    assert logs
    for text in logs:
        assert code not in text
        assert service.token not in text


def test_a_login_link_is_only_printed_for_a_person(service: RunningService) -> None:
    assert "is ready" in service.log()
    assert "code=" not in service.log(), "its output goes into a file"


@pytest.mark.slow
def test_a_stopped_study_keeps_what_it_has(service: RunningService, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    document = a_study(service, name="stopped", strategy={"kind": "random"}, budget={"trials": 500})
    study = client.apply(document)
    wait_until(lambda: client.study(study.id).trials.get(TrialState.COMPLETED, 0) >= 2, 120, "no trial was completed")
    client.stop(study.id)
    found = finished(client, client.wait(study.id, timeout=60))
    assert found.study.state is StudyState.STOPPED
    check_store(found)
    check_mlflow(service, found, monkeypatch)


@pytest.mark.slow
def test_a_cancelled_study_ends_at_once(service: RunningService, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    document = a_study(service, name="cancelled", strategy={"kind": "random"}, budget={"trials": 500})
    document["trainer"]["epochs"] = 500
    study = client.apply(document)
    wait_until(lambda: client.study(study.id).progress.epochs.spent >= 2, 120, "no trial reported")
    client.cancel(study.id)
    found = finished(client, client.wait(study.id, timeout=60))
    assert found.study.state is StudyState.CANCELLED
    assert {trial.state for trial in found.trials} <= {TrialState.CANCELLED, TrialState.COMPLETED}
    check_mlflow(service, found, monkeypatch)


@pytest.mark.slow
def test_a_study_survives_the_kill_of_the_whole_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = RunningService(tmp_path).start()
    try:
        with service.client() as client:
            for path in sorted(service.rows.glob("*.csv")):
                client.upload("intents", path)
            study = client.apply(a_study(service, name="survivor", strategy={"kind": "random"}, budget={"trials": 6}))
            wait_until(lambda: client.study(study.id).progress.epochs.spent >= 3, 120, "no trial reported")
        service.kill()
        wait_until(lambda: not service.processes(), 60, "a killed service leaves processes behind")
        service.start()
        with service.client() as client:
            found = finished(client, client.wait(study.id, timeout=200))
        assert found.study.state is StudyState.COMPLETED
        assert len(found.trials) == 6
        check_store(found)
        check_mlflow(service, found, monkeypatch)
    finally:
        assert service.stop() == 0
    wait_until(lambda: not service.processes(), 30, "something is left behind")


def test_an_answer_on_a_kept_connection_is_sent_at_once(service: RunningService, client: Client) -> None:
    with service.http() as kept:
        seconds = []
        for _ in range(50):
            begun = time.perf_counter()
            kept.get("/v1").raise_for_status()
            seconds.append(time.perf_counter() - begun)
    assert min(seconds[1:]) < 0.03, "each body waits until its head is acknowledged"
