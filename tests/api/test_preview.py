"""`POST /v1/studies:preview`."""

import json
from typing import Any

import pytest
import yaml
from starlette.testclient import TestClient

from service.api.preview import report_time_of
from service.api.step_schemas import PreviewView
from service.domain.errors import AnalysisTimedOut, InvalidDefinition, NotReady, Violation
from tests.api.conftest import World
from tests.builders import a_definition, a_document


def previewed(client: TestClient, **changes: Any) -> PreviewView:
    answer = client.post("/v1/studies:preview", json=a_document(**changes))
    assert answer.status_code == 200, answer.text
    return PreviewView.model_validate_json(answer.content)


def test_a_preview_tells_what_the_study_would_do_and_stores_nothing(client: TestClient, world: World) -> None:
    found = previewed(client)
    assert (found.trials, found.reports, found.strategy) == (4, 12, {"kind": "random"})
    assert [(one.rungs, one.sizes) for one in found.brackets] == [([1, 3], [3, 1])]
    assert found.configurations[0].why == "Drawn at random."
    assert (found.seconds, found.report_time.seconds, found.warm_start) == (None, None, None)
    assert "No trial with trainer `text-classification`" in found.report_time.sentence
    assert client.get("/v1/studies").json()["items"] == []
    assert world.previewer.asked[0] == (a_definition(), (), None)


def test_yaml_is_read_as_in_a_post(client: TestClient) -> None:
    body = yaml.safe_dump(a_document())
    answer = client.post("/v1/studies:preview", content=body, headers={"Content-Type": "application/yaml"})
    assert answer.status_code == 200


def test_the_time_of_a_report_is_the_median_of_what_earlier_trials_took(client: TestClient, world: World) -> None:
    study = world.runs(world.has_study())
    for number in range(3):
        world.has_trial(study, number, [0.5, 0.6])  # 2 s a report
    found = previewed(client)
    assert (found.report_time.seconds, found.report_time.trials, found.seconds) == (2.0, 3, 24.0)
    assert found.report_time.sentence == (
        "The median of 3 earlier trials with trainer `text-classification` and this model on the same kind of device, "
        "on the same data."
    )


def test_other_models_devices_and_ways_to_report_tell_nothing_and_other_data_little(world: World) -> None:
    study = world.runs(world.has_study())
    world.has_trial(study, 0, [0.5])
    trainer = a_document()["trainer"]

    def trials(**changes: Any) -> int:
        return report_time_of(world.parts.store, a_definition(**changes)).trials

    assert trials() == 1
    assert trials(trainer={**trainer, "model": "another"}) == 0
    assert trials(resources={"gpus_per_trial": 1}) == 0
    assert trials(trainer={**{k: v for k, v in trainer.items() if k != "epochs"}, "report_every": 10, "max_steps": 30}) == 0
    space = {**a_document()["space"], "model": {"kind": "categorical", "choices": ["another", "tiny-encoder"]}}
    assert trials(space=space) == 1
    elsewhere = report_time_of(world.parts.store, a_definition(trainer={**trainer, "data": {"train": "dataset://b/c.csv"}}))
    assert (elsewhere.trials, elsewhere.sentence.endswith("on other data.")) == (1, True)


def test_what_earlier_studies_would_tell_is_counted(client: TestClient, world: World) -> None:
    study = world.runs(world.has_study())
    world.has_trial(study, 0, [0.5])
    world.has_trial(study, 1)
    found = previewed(client, warm_start=[study.id])
    assert found.warm_start is not None
    assert (found.warm_start.carried_over, found.warm_start.because) == (1, {"no_value": 1})
    assert len(world.previewer.asked[0][1]) == 1


@pytest.mark.parametrize(
    ("changes", "place"),
    [({"budget": {}}, "/budget"), ({"warm_start": ["nothing-abc123"]}, "/warm_start/0"), ({"colour": 1}, "/colour")],
)
def test_a_definition_that_would_be_refused_is_refused(client: TestClient, changes: dict[str, Any], place: str) -> None:
    answer = client.post("/v1/studies:preview", json=a_document(**changes))
    assert (answer.status_code, answer.json()["violations"][0]["pointer"]) == (422, place)


def test_what_the_catalog_refuses_is_refused(client: TestClient, world: World) -> None:
    world.catalog.refusal = InvalidDefinition([Violation("/trainer/model", "is nowhere: name another")])
    assert client.post("/v1/studies:preview", json=a_document()).status_code == 422


def test_a_preview_that_takes_too_long_is_told(client: TestClient, world: World) -> None:
    world.previewer.refusal = AnalysisTimedOut("Previewing the study was not done within 40 s: ask again.")
    answer = client.post("/v1/studies:preview", json=a_document())
    assert (answer.status_code, answer.json()["type"]) == (504, "urn:tuneyard:problem:analysis-timed-out")


def test_a_preview_that_others_keep_from_beginning_is_told_and_the_description_says_so(client: TestClient, world: World) -> None:
    world.previewer.refusal = NotReady("Another study is being previewed: ask again in a few seconds.")
    answer = client.post("/v1/studies:preview", json=a_document())
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:tuneyard:problem:not-ready")
    responses = client.get("/openapi.json").json()["paths"]["/v1/studies:preview"]["post"]["responses"]
    assert "not-ready" in json.dumps(responses["503"])
