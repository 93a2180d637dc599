"""`tuneyard study pause`, `resume`, `extend`, `patch`, and `tuneyard trial stop`, against a stand-in."""

import json
from dataclasses import replace
from typing import Any

import pytest

from service.cli import run
from service.cli.session import Session
from service.domain.study import StudyState
from tests.builders import NOW, a_study, a_trial
from tests.unit.stand_in import STUDY_ID, TOKEN, StandIn, a_problem


def tuneyard(service: StandIn, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setenv("TUNEYARD_TOKEN", TOKEN)
    return run(["--url", "http://127.0.0.1:1", *arguments], Session(transport=service, sleep=lambda _: None))


@pytest.mark.parametrize(
    ("arguments", "asked", "sent"),
    [
        (["study", "pause", STUDY_ID], f"POST /v1/studies/{STUDY_ID}:pause", {"now": False}),
        (["study", "pause", STUDY_ID, "--now"], f"POST /v1/studies/{STUDY_ID}:pause", {"now": True}),
        (["study", "resume", STUDY_ID], f"POST /v1/studies/{STUDY_ID}:resume", None),
        (["study", "stop", STUDY_ID], f"POST /v1/studies/{STUDY_ID}:stop", None),
        (["study", "cancel", STUDY_ID], f"POST /v1/studies/{STUDY_ID}:cancel", None),
        (
            ["study", "extend", STUDY_ID, "--set", "trials=60", "--set", "wall_clock=4h", "--set", "target=null"],
            f"POST /v1/studies/{STUDY_ID}:extend",
            {"budget": {"trials": 60, "wall_clock": "4h", "target": None}},
        ),
        (
            ["study", "patch", STUDY_ID, "--set", "priority=80", "--set", "budget.trials=40"],
            f"PATCH /v1/studies/{STUDY_ID}",
            {"priority": 80, "budget": {"trials": 40}},
        ),
        (["trial", "stop", STUDY_ID, "0"], f"POST /v1/studies/{STUDY_ID}/trials/0:stop", None),
    ],
)
def test_each_command_asks_for_what_it_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], asked: str, sent: Any
) -> None:
    service = StandIn(a_study(), trials=(a_trial(),))
    assert tuneyard(service, monkeypatch, *arguments, "-o", "json") == 0
    assert service.asked() == [asked]
    assert (json.loads(service.requests[0].content) if service.requests[0].content else None) == sent
    assert json.loads(capsys.readouterr().out)


def test_a_pause_says_how_the_study_goes_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    tuneyard(StandIn(), monkeypatch, "study", "pause", STUDY_ID)
    assert f"tuneyard study resume {STUDY_ID}" in capsys.readouterr().err


@pytest.mark.parametrize("status", [409, 412])
def test_what_the_state_forbids_is_a_conflict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], status: int
) -> None:
    service = StandIn()
    service.failing = [a_problem(status, "Study is completed: it cannot be changed any more.")]
    assert tuneyard(service, monkeypatch, "study", "patch", STUDY_ID, "--set", "priority=80") == 5
    assert "cannot be changed" in capsys.readouterr().err


def test_an_extension_of_nothing_is_wrong_usage_unless_the_study_was_stopped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    service = StandIn()
    assert tuneyard(service, monkeypatch, "study", "extend", STUDY_ID) == 2
    assert "--set trials=60" in " ".join(capsys.readouterr().err.split())
    assert service.asked() == [f"GET /v1/studies/{STUDY_ID}"]
    stopped = StandIn(replace(a_study(), state=StudyState.STOPPED, ended_at=NOW))
    assert tuneyard(stopped, monkeypatch, "study", "extend", STUDY_ID) == 0
    assert stopped.asked()[-1] == f"POST /v1/studies/{STUDY_ID}:extend"


def test_an_extension_shows_the_new_limit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    budget = {"trials": 60, "wall_clock": "4h", "target": 0.94, "no_improvement": 9}
    assert tuneyard(StandIn(a_study(budget=budget)), monkeypatch, "study", "extend", STUDY_ID, "--set", "trials=60") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "0 of 60 trials, 0s of 4h 00m, ends at 0.9400, ends after 9 trials without a better one" in shown


def test_a_patch_of_nothing_is_wrong_usage(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert tuneyard(StandIn(), monkeypatch, "study", "patch", STUDY_ID) == 2
    assert "--set" in capsys.readouterr().err
