import math
from datetime import timedelta

import pytest
from starlette.testclient import TestClient

from service.api.schemas import TrialPage
from service.domain.decision import Decision
from service.domain.ports import Change
from service.domain.trial import Attempt, AttemptOutcome
from tests.api.conftest import World
from tests.builders import NOW, a_report, a_trial

TYPE = "urn:tuneyard:problem:"


def test_a_trial_tells_how_far_it_is(client: TestClient, world: World) -> None:
    study = world.runs(world.has_study())
    world.has_trial(study, 3, [0.5, 0.9, 0.8])
    view = client.get(f"/v1/studies/{study.id}/trials/3").json()
    assert (view["state"], view["reports"], view["value"], view["best_value"], view["best_report"]) == ("running", 3, 0.8, 0.9, 2)
    assert view["parameters"] == {"learning_rate": 1e-3}
    assert client.get(view["links"]["reports"]).status_code == 200


def test_trials_come_in_pages_and_in_the_order_asked_for(client: TestClient, world: World) -> None:
    study = world.runs(world.has_study())
    for number, accuracy in enumerate([0.5, 0.9, 0.7]):
        world.has_trial(study, number, [accuracy])
    world.has_trial(study, 3)
    seen, cursor = [], None
    while True:
        query = {"limit": "3", "order": "-best_value", **({"cursor": cursor} if cursor else {})}
        page = TrialPage.model_validate_json(client.get(f"/v1/studies/{study.id}/trials", params=query).content)
        seen += [trial.number for trial in page.items]
        cursor = page.cursor
        if cursor is None:
            break
    assert seen == [1, 2, 0, 3]


def test_trials_are_filtered_by_states(client: TestClient, world: World) -> None:
    study = world.runs(world.has_study())
    world.has_trial(study, 0, [0.5])
    world.has_trial(study, 1)
    found = client.get(f"/v1/studies/{study.id}/trials?state=queued").json()["items"]
    assert [trial["number"] for trial in found] == [1]


@pytest.mark.parametrize("query", ["limit=0", "order=value", "state=flying", "cursor=nonsense"])
def test_a_query_for_trials_that_means_nothing_is_refused(client: TestClient, world: World, query: str) -> None:
    assert client.get(f"/v1/studies/{world.has_study().id}/trials?{query}").status_code == 422


@pytest.mark.parametrize("below", ["", "/reports", "/attempts", "/checkpoint", "/analysis"])
def test_an_unknown_trial_is_not_found(client: TestClient, world: World, below: str) -> None:
    answer = client.get(f"/v1/studies/{world.has_study().id}/trials/7{below}")
    assert (answer.status_code, answer.json()["type"]) == (404, TYPE + "trial-not-found")


@pytest.mark.parametrize("number", ["-1", "x", "1.0", "+1", "9" * 5000, "%31%2F"])
def test_what_is_no_trial_number_is_not_found(client: TestClient, world: World, number: str) -> None:
    answer = client.get(f"/v1/studies/{world.has_study().id}/trials/{number}")
    assert (answer.status_code, answer.json()["type"]) == (404, TYPE + "no-such-path")


def test_reports_are_answered_in_order_from_where_the_client_stands(client: TestClient, world: World) -> None:
    study = world.runs(world.has_study())
    world.has_trial(study, 0, [0.1, 0.2, 0.3])
    place = f"/v1/studies/{study.id}/trials/0/reports"
    assert [report["number"] for report in client.get(place).json()] == [1, 2, 3]
    assert [report["number"] for report in client.get(f"{place}?after=1").json()] == [2, 3]
    assert [report["number"] for report in client.get(f"{place}?limit=2").json()] == [1, 2]
    assert client.get(place).json()[0]["metrics"]["validation/accuracy"] == 0.1


def test_a_metric_that_is_not_finite_is_null(client: TestClient, world: World) -> None:
    study = world.runs(world.has_study())
    trial = world.has_trial(study, 0, [0.5])
    report = a_report(2, metrics={"validation/accuracy": 0.5, "train/loss": math.nan, "validation/loss": math.inf})
    world.parts.store.trials.record("driver", [Change(trial.reported(report, study.definition.objective, 0), report=report)])
    metrics = client.get(f"/v1/studies/{study.id}/trials/0/reports?after=1").json()[0]["metrics"]
    assert metrics == {"validation/accuracy": 0.5, "train/loss": None, "validation/loss": None}


def test_attempts_are_answered_in_order(client: TestClient, world: World) -> None:
    study = world.runs(world.has_study())
    world.has_trial(study, 0)
    for number in (1, 2):
        attempt = Attempt(
            number=number, first=number - 1, until=3, started_at=NOW, ended_at=NOW + timedelta(seconds=9),
            outcome=AttemptOutcome.LOST, worker="localhost:1", detail="gone",
        )  # fmt: skip
        world.parts.store.trials.record("driver", [Change(world.parts.store.trials.get(study.id, 0), attempt=attempt)])
    found = client.get(f"/v1/studies/{study.id}/trials/0/attempts").json()
    assert [(attempt["number"], attempt["outcome"], attempt["detail"]) for attempt in found] == [
        (1, "lost", "gone"),
        (2, "lost", "gone"),
    ]


def test_parameters_keep_their_types(client: TestClient, world: World) -> None:
    study = world.runs(world.has_study())
    world.has_trial(study, 0)
    world.parts.store.trials.record("driver", [Change(a_trial(1, study.id, parameters={"a": 1, "b": 1.0, "c": "1", "d": True}))])
    text = client.get(f"/v1/studies/{study.id}/trials/1").text
    assert '"parameters":{"a":1,"b":1.0,"c":"1","d":true}' in text


def test_a_trial_says_why_it_is_there_and_a_list_of_trials_does_not(client: TestClient, world: World) -> None:
    study = world.runs(world.has_study())
    world.has_trial(study, 0)
    cut = Decision("cut", "hyperband", report=1, value=0.5, rank=9, among=9, cut=math.inf)
    world.parts.store.trials.record(
        "driver", [Change(a_trial(0), decision=Decision("proposed", "random")), Change(a_trial(0), decision=cut)]
    )
    proposed, ended = client.get(f"/v1/studies/{study.id}/trials/0").json()["decisions"]
    assert (proposed["kind"], proposed["by"], proposed["sentence"]) == ("proposed", "random", "Drawn at random.")
    assert (ended["rank"], ended["value"], ended["cut"], ended["parent"]) == (9, 0.5, None, None)
    assert ended["sentence"] == cut.sentence
    (listed,) = client.get(f"/v1/studies/{study.id}/trials").json()["items"]
    assert listed["decisions"] is None


def test_a_copy_names_the_trial_that_it_came_from(client: TestClient, world: World) -> None:
    study = world.runs(world.has_study())
    world.has_trial(study, 0)
    world.parts.store.trials.record("driver", [Change(a_trial(1, parent=0, parent_report=2, reports=2))])
    view = client.get(f"/v1/studies/{study.id}/trials/1").json()
    assert (view["parent"], view["parent_report"], view["decisions"]) == (0, 2, [])
