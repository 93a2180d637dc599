import pytest
from starlette.testclient import TestClient

from service.api.pareto_schemas import ParetoView
from tests.api.conftest import World

OBJECTIVES = [
    {"metric": "validation/accuracy", "direction": "maximize"},
    {"metric": "train/loss", "direction": "minimize"},
]  # the trials of these tests have a training loss of 1
TWO_WAYS = [OBJECTIVES[0], {"metric": "validation/f1_macro", "direction": "maximize"}]


def test_the_front_of_a_study_names_trials_with_their_values_and_the_report_they_are_of(client: TestClient, world: World) -> None:
    study = world.runs(world.has_study(objectives=OBJECTIVES))
    world.has_trial(study, 0, [0.5, 0.6])
    world.has_trial(study, 1, [0.9, 0.7])
    answer = client.get(f"/v1/studies/{study.id}/pareto")
    assert answer.status_code == 200
    found = ParetoView.model_validate_json(answer.content)
    [best] = found.trials
    assert (best.trial, best.report, best.state) == (1, 1, "running")
    assert best.values == {"validation/accuracy": 0.9, "train/loss": 1.0}
    assert best.checkpoint == f"/v1/studies/{study.id}/trials/1/checkpoint"
    assert found.reference == pytest.approx({"validation/accuracy": 0.57, "train/loss": 1.1})
    assert found.hypervolume == pytest.approx(0.33 * 0.1)


def test_the_volume_reaches_up_to_the_point_that_was_asked_for(client: TestClient, world: World) -> None:
    study = world.runs(world.has_study(objectives=OBJECTIVES))
    world.has_trial(study, 0, [0.5])
    answer = client.get(f"/v1/studies/{study.id}/pareto", params={"reference": [0.25, 3.0]}).json()
    assert answer["reference"] == {"validation/accuracy": 0.25, "train/loss": 3.0}
    assert answer["hypervolume"] == pytest.approx(0.25 * 2)


@pytest.mark.parametrize("reference", [[0.1], [0.1, 0.2, 0.3], ["nan", 0.5]])
def test_a_reference_point_has_a_finite_number_for_each_objective(
    client: TestClient, world: World, reference: list[float | str]
) -> None:
    study = world.has_study(objectives=OBJECTIVES)
    answer = client.get(f"/v1/studies/{study.id}/pareto", params={"reference": reference})
    assert answer.status_code == 422
    assert "`validation/accuracy`, `train/loss`" in answer.json()["violations"][0]["detail"]


def test_of_a_front_larger_than_asked_for_its_ends_and_the_loneliest_are_sent_and_its_size(
    client: TestClient, world: World
) -> None:
    study = world.runs(world.has_study(objectives=[OBJECTIVES[0], {"metric": "validation/loss", "direction": "maximize"}]))
    for number, accuracy in enumerate([0.1, 0.4, 0.7, 0.8, 0.9]):  # the loss of these tests is 1 - accuracy
        world.has_trial(study, number, [accuracy])
    whole, part = (client.get(f"/v1/studies/{study.id}/pareto", params=query).json() for query in ({}, {"limit": 3}))
    assert ([one["trial"] for one in whole["trials"]], whole["size"]) == ([4, 3, 2, 1, 0], 5)
    assert ([one["trial"] for one in part["trials"]], part["size"]) == ([4, 1, 0], 5)
    assert (part["hypervolume"], part["reference"]) == (whole["hypervolume"], whole["reference"])


def test_before_the_first_report_the_front_is_empty(client: TestClient, world: World) -> None:
    study = world.has_study(objectives=OBJECTIVES)
    answer = client.get(f"/v1/studies/{study.id}/pareto").json()
    assert (answer["trials"], answer["reference"], answer["hypervolume"]) == ([], None, None)


def test_the_front_of_one_objective_is_the_best_trial(client: TestClient, world: World) -> None:
    study = world.runs(world.has_study())
    world.has_trial(study, 0, [0.5])
    world.has_trial(study, 1, [0.9])
    answer = client.get(f"/v1/studies/{study.id}/pareto").json()
    assert [trial["trial"] for trial in answer["trials"]] == [1]
    assert client.get(f"/v1/studies/{study.id}/best").json()["number"] == 1


def test_reports_that_break_an_outcome_are_not_on_the_front(client: TestClient, world: World) -> None:
    study = world.runs(world.has_study(objectives=OBJECTIVES, outcomes=["validation/loss <= 0.45"]))
    world.has_trial(study, 0, [0.5])
    world.has_trial(study, 1, [0.6])
    answer = client.get(f"/v1/studies/{study.id}/pareto").json()
    assert [trial["trial"] for trial in answer["trials"]] == [1]


@pytest.mark.parametrize("path", ["best", "best/checkpoint", "best/checkpoint/archive"])
def test_of_several_objectives_no_trial_is_the_best(client: TestClient, world: World, path: str) -> None:
    study = world.runs(world.has_study(objectives=OBJECTIVES))
    world.has_trial(study, 0, [0.5])
    answer = client.get(f"/v1/studies/{study.id}/{path}")
    assert answer.status_code == 409
    assert answer.json()["type"] == "urn:tuneyard:problem:no-single-best"
    assert f"/v1/studies/{study.id}/pareto" in answer.json()["detail"]


def test_a_study_that_is_not_there_has_no_front(client: TestClient) -> None:
    assert client.get("/v1/studies/nobody-abc123/pareto").status_code == 404


def test_a_trial_that_broke_an_outcome_says_which_and_by_how_much(client: TestClient, world: World) -> None:
    study = world.runs(world.has_study(outcomes=["validation/loss <= 0.2"]))
    world.has_trial(study, 0, [0.5])
    assert client.get(f"/v1/studies/{study.id}/trials/0").json()["broken"] == [
        {"outcome": "validation/loss <= 0.2", "value": 0.5, "by": pytest.approx(0.3), "report": 1}
    ]
