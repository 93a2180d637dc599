"""`GET /v1/studies/{id}/spending` and `GET /v1/studies/{id}/forecast`."""

from datetime import timedelta

import pytest
from starlette.testclient import TestClient

from service.api.spending_schemas import ForecastView, SpendingView
from service.domain.errors import TooFewTrials
from service.domain.forecast import Band
from service.domain.ports import Change
from service.domain.study import StudyReason
from service.domain.trial import TrialReason
from tests.api.conftest import World
from tests.builders import NOW, a_forecast

BUDGET = {"trials": 4, "gpu_hours": 1, "cost": {"limit": 2, "per_gpu_hour": 3600}}
FOUR_BYTES = Band(4.0, 4.0, 4.0)
GPU = {"gpus_per_trial": 0.5, "max_concurrent_trials": 2}


def spent(client: TestClient, study_id: str, query: str = "") -> SpendingView:
    answer = client.get(f"/v1/studies/{study_id}/spending{query}")
    assert answer.status_code == 200, answer.text
    return SpendingView.model_validate_json(answer.content)


def foretold(client: TestClient, study_id: str) -> ForecastView:
    answer = client.get(f"/v1/studies/{study_id}/forecast")
    assert answer.status_code == 200, answer.text
    return ForecastView.model_validate_json(answer.content)


def test_a_study_says_what_its_budget_went_into(client: TestClient, world: World) -> None:
    study = world.runs(world.has_study(budget=BUDGET, resources=GPU))
    world.has_trial(study, 0, [0.5])  # 2 s on half a GPU, of 3 reports
    pruned = world.has_trial(study, 1, [0.5, 0.6]).losing(4.0, 0.5)
    world.parts.store.trials.record("driver", [Change(pruned.ended(TrialReason.RUNG_CUT, NOW))])
    found = spent(client, study.id)
    assert (found.limits.trials.spent, found.limits.epochs.spent, found.limits.trials.limit) == (2, 3, 4)
    assert found.limits.gpu_hours.spent == pytest.approx(5 / 3600)
    assert found.limits.cost is not None
    assert (found.limits.cost.spent, found.limits.cost.limit) == pytest.approx((5, 2))
    assert (found.total.trials, found.total.seconds, found.total.lost_seconds) == (2, 6, 4)
    assert (found.pruned.trials, found.pruned.reports) == (1, 2)
    assert [found.total.cost, found.pruned.cost] == pytest.approx([5, 4])
    assert [(one.state, one.reports) for one in found.by_state] == [("running", 1), ("pruned", 2)]
    assert [(one.rung, one.trials) for one in found.by_rung] == [(0, 2)]
    assert [one.trial for one in found.costliest] == [1, 0]
    assert (found.reserved.reports, found.reserved.seconds) == (2, 4)
    assert found.reserved.cost == pytest.approx(2)


def test_a_study_without_a_price_has_no_cost_and_names_as_many_trials_as_asked(client: TestClient, world: World) -> None:
    study = world.has_study()
    for number in range(3):
        world.has_trial(study, number, [0.5])
    found = spent(client, study.id, "?limit=1")
    assert (found.limits.cost, found.total.cost, found.reserved.cost) == (None, None, None)
    assert len(found.costliest) == 1


def test_the_studys_own_view_says_what_it_cost(client: TestClient, world: World) -> None:
    study = world.runs(world.has_study(budget=BUDGET, resources=GPU))
    world.has_trial(study, 0, [0.5])
    progress = client.get(f"/v1/studies/{study.id}").json()["progress"]
    assert progress["cost"] == {"spent": pytest.approx(1.0), "limit": 2}
    assert progress["fraction"] == pytest.approx(0.5)


def test_a_running_study_is_foretold_with_bands(client: TestClient, world: World) -> None:
    study = world.runs(world.has_study(budget=BUDGET, resources=GPU))
    found = foretold(client, study.id)
    assert (found.state, found.coverage, found.past) == ("running", 0.8, [])
    now = found.now
    assert now is not None
    assert (now.seconds.low, now.seconds.expected, now.seconds.high) == (100, 120, 200)
    assert now.ends_at.expected == NOW + timedelta(seconds=120)
    assert (now.gpu_hours.low, now.gpu_hours.expected, now.gpu_hours.high) == (0.5, 1, 2)
    assert now.cost is not None
    assert now.cost.expected == 3600
    assert now.bytes is None


def test_before_its_first_report_a_study_cannot_be_foretold(client: TestClient, world: World) -> None:
    world.forecaster.refusal = TooFewTrials("No trial has reported yet: ask again later.")
    answer = client.get(f"/v1/studies/{world.has_study().id}/forecast")
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:tuneyard:problem:too-few-trials")


def test_a_completed_study_says_what_its_forecasts_were_worth(client: TestClient, world: World) -> None:
    study = world.runs(world.has_study(resources=GPU))
    for ended, high in ((1, 200.0), (2, 121.0)):
        world.parts.store.forecasts.add(study.id, a_forecast(ended=ended, seconds=Band(100.0, 120.0, high), bytes=FOUR_BYTES))
    world.has_trial(study, 0, [0.5, 0.6])
    world.checkpoints.export(study.id, 0, 2, {"model.safetensors": b"1234"})
    world.clock.pass_seconds(150)
    world.ends(study)
    world.clock.pass_seconds(1000)
    found = foretold(client, study.id)
    scores = [one.scores for one in found.past]
    assert found.now is None
    assert [(one.seconds.happened, one.seconds.is_inside) for one in scores if one and one.seconds] == [(150, True), (150, False)]
    assert scores[0] is not None
    assert scores[0].seconds is not None
    assert scores[0].trials is not None
    assert scores[0].seconds.error == pytest.approx(-0.2)
    assert (scores[0].trials.expected, scores[0].trials.happened) == (4, 1)
    assert scores[0].cost is None
    assert scores[0].bytes is not None
    assert (scores[0].bytes.happened, scores[0].bytes.error) == (4, 0)


def test_a_study_that_was_stopped_is_not_held_against_its_forecasts(client: TestClient, world: World) -> None:
    study = world.runs(world.has_study())
    world.parts.store.forecasts.add(study.id, a_forecast())
    world.ends(study, StudyReason.STOP_REQUESTED)
    found = foretold(client, study.id)
    assert (found.now, [one.scores for one in found.past]) == (None, [None])


def test_a_forecast_of_another_budget_is_not_held_against_what_came(client: TestClient, world: World) -> None:
    study = world.runs(world.has_study())
    world.parts.store.forecasts.add(study.id, a_forecast(at=NOW + timedelta(seconds=30), ended=1))
    world.clock.pass_seconds(60)
    client.post(f"/v1/studies/{study.id}:extend", json={"budget": {"trials": 9}})
    world.parts.store.forecasts.add(study.id, a_forecast(at=NOW + timedelta(seconds=90), ended=2))
    world.ends(world.parts.store.studies.get(study.id))
    assert [one.scores is not None for one in foretold(client, study.id).past] == [False, True]


@pytest.mark.parametrize("what", ["spending", "forecast"])
def test_an_unknown_study_is_not_found(client: TestClient, what: str) -> None:
    assert client.get(f"/v1/studies/nothing-abc123/{what}").status_code == 404
