from typing import Any

import pytest
from starlette.testclient import TestClient

from service.api.lineage_schemas import LineageView
from service.domain.ports import Change
from tests.api.conftest import World
from tests.builders import a_trial

PBT: dict[str, Any] = {"strategy": {"kind": "pbt", "population": 2}, "budget": {}}


def test_a_population_tells_what_each_member_was_trained_with(client: TestClient, world: World) -> None:
    study = world.runs(world.has_study(**PBT))
    world.has_trial(study, 0, [0.5, 0.9])
    copy = a_trial(1, study.id, bracket=1, parent=0, parent_report=1, reports=1, parameters={"learning_rate": 2e-3})
    world.parts.store.trials.record("driver", [Change(copy)])
    world.reports(copy, [])
    answer = client.get(f"/v1/studies/{study.id}/lineage")
    assert answer.status_code == 200
    first, second = LineageView.model_validate_json(answer.content).members
    assert (first.member, first.trial, first.value, len(first.stretches)) == (0, 0, 0.9, 1)
    ways = [(one.trial, one.from_report, one.to_report, one.parameters["learning_rate"]) for one in second.stretches]
    assert (second.member, second.trial, ways) == (1, 1, [(0, 0, 1, 1e-3), (1, 1, 1, 2e-3)])


@pytest.mark.parametrize("trials", [0, 1])
def test_a_study_without_a_population_has_no_members(client: TestClient, world: World, trials: int) -> None:
    study = world.runs(world.has_study())
    for number in range(trials):
        world.has_trial(study, number, [0.5])
    assert client.get(f"/v1/studies/{study.id}/lineage").json() == {"study_id": study.id, "members": []}


def test_a_study_that_is_not_there_has_no_lineage(client: TestClient) -> None:
    answer = client.get("/v1/studies/nobody-abc123/lineage")
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:tuneyard:problem:study-not-found")
