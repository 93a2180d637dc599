"""`tuneyard study spending` and `forecast`, against an API over fakes."""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from service.api.spending_schemas import ForecastView, SpendingView
from service.cli import run
from service.cli.session import Session
from service.client import Client
from service.domain.forecast import Band, Course
from service.domain.spending import SpendingTable, Spent, SpentOn
from service.domain.trial import TrialState
from tests.builders import NOW, a_forecast, a_study, a_trial
from tests.unit.stand_in import STUDY_ID, TOKEN, a_problem

STUDY = a_study(
    budget={"trials": 9, "wall_clock": "2h", "cost": {"limit": 10, "per_gpu_hour": 2}}, resources={"gpus_per_trial": 1}
)
PARTS = [
    SpentOn(TrialState.COMPLETED, 1, is_final=False, spent=Spent(1, 3, 3600.0, 0.0, 3600.0)),
    SpentOn(TrialState.PRUNED, 0, is_final=False, spent=Spent(2, 2, 1200.0, 600.0, 1800.0)),
    SpentOn(TrialState.COMPLETED, 0, is_final=True, spent=Spent(1, 3, 3600.0, 0.0, 3600.0)),
]
LIVE = [a_trial(5, state=TrialState.RUNNING, reports=1, until=3, seconds=900.0)]
COSTLIEST = [a_trial(7, state=TrialState.COMPLETED, reports=3, seconds=3600.0, gpu_seconds=3600.0)]
SPENDING = SpendingView.of(replace(STUDY, started_at=NOW), SpendingTable(PARTS), LIVE, COSTLIEST, NOW + timedelta(minutes=90))
RUNNING = ForecastView.of(STUDY, a_forecast(bytes=Band(1e6, 2e6, 3e6), notes=("A guess.",)), [], None, None)
COMPLETED = ForecastView.of(STUDY, None, [a_forecast()], Course(150.0, 3600.0, 4, 12, 0), None)


class Service(httpx.MockTransport):
    """Answers both, and remembers what it was asked."""

    def __init__(self, forecast: ForecastView = RUNNING) -> None:
        super().__init__(self._answer)
        self.forecast = forecast
        self.requests: list[httpx.Request] = []

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        match request.url.path.rsplit("/", 1)[-1]:
            case "spending":
                return httpx.Response(200, content=SPENDING.model_dump_json())
            case "forecast":
                return httpx.Response(200, content=self.forecast.model_dump_json())
            case _:
                return a_problem(404, "There is nothing.")


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("TUNEYARD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TUNEYARD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TUNEYARD_TOKEN", TOKEN)


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as service:
        yield service


def tuneyard(service: Service, *arguments: str) -> int:
    return run(arguments, Session(transport=service, sleep=lambda _: None))


def shown(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


def test_what_was_spent_is_a_table_for_people(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    assert tuneyard(service, "study", "spending", STUDY_ID, "--limit", "3") == 0
    text = shown(capsys)
    for said in (
        "trials 3 9", "reports 5 2", "wall clock 1h 30m 2h 00m", "GPU-hours 2.5 0.5", "cost 5 1 10",
        "all 4 8 2h 20m 10m 00s 2.5 5", "pruned 2 2 20m 00s 10m 00s 0.5 1", "final 1 3 1h 00m 1 2", "rung 1 1 3", "trial 7 1 3",
    ):  # fmt: skip
        assert said in text, said
    assert service.requests[0].url.params["limit"] == "3"


@pytest.fixture
def _two_hours_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as changed:
        changed.setenv("TZ", "UTC-2")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("_two_hours_east")
def test_a_forecast_is_a_table_with_its_bands_in_the_zone_of_whoever_looks(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tuneyard(service, "study", "forecast", STUDY_ID) == 0
    text = shown(capsys)
    for said in (
        "ends at 2030-01-02 05:06 2030-01-02 05:05 to 2030-01-02 05:07", "runs for 2m 00s 1m 40s to 3m 20s",
        "GPU-hours 1 0.5 to 2", "cost 2 1 to 4", "trials 4 4 to 4", "disk 2.0 MB 1.0 MB to 3.0 MB",
        "from 2 ended trials, 2 at once", "A guess.",
    ):  # fmt: skip
        assert said in text, said


def test_large_numbers_are_written_out(capsys: pytest.CaptureFixture[str]) -> None:
    many = a_forecast(trials=Band(900.0, 1000.0, 1500.0))
    with Service(ForecastView.of(STUDY, many, [], None, None)) as service:
        assert tuneyard(service, "study", "forecast", STUDY_ID) == 0
    assert "trials 1,000 900 to 1,500" in shown(capsys)


def test_after_the_end_each_forecast_stands_beside_what_came(capsys: pytest.CaptureFixture[str]) -> None:
    with Service(COMPLETED) as service:
        assert tuneyard(service, "study", "forecast", STUDY_ID) == 0
    assert "2 2m 00s 1m 40s to 3m 20s 2m 30s -20% inside" in shown(capsys)


def test_of_a_study_that_has_ended_no_forecast_is_still_to_come(capsys: pytest.CaptureFixture[str]) -> None:
    with Service(ForecastView.of(STUDY, None, [], None, None)) as service:
        assert tuneyard(service, "study", "forecast", STUDY_ID) == 0
    text = shown(capsys)
    assert "No forecast of it was kept" in text
    assert "yet" not in text
    assert tuneyard(Service(), "study", "forecast", STUDY_ID) == 0
    assert "No forecast was kept yet" in shown(capsys)


def test_programs_get_the_apis_own_fields(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    assert tuneyard(service, "study", "forecast", STUDY_ID, "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)["now"]["seconds"] == {"low": 100.0, "expected": 120.0, "high": 200.0}


def test_the_python_client_asks_for_the_same(service: Service) -> None:
    with Client("http://127.0.0.1:1", TOKEN, transport=service) as client:
        assert client.spending(STUDY_ID) == SPENDING
        assert client.forecast(STUDY_ID) == RUNNING
