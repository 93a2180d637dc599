"""What a study has learned, over HTTP."""

from dataclasses import replace

import pytest
from starlette.testclient import TestClient

from service.analysis.analyst import Analyst
from service.api.analysis_schemas import StudyAnalysisView
from service.api.schemas import Problem
from service.domain.errors import AnalysisFailed, AnalysisTimedOut, NotFound, NotReady, TuneyardError
from tests.analysed import a_searched_study, an_analysis
from tests.api.conftest import World, client_of, with_parts

PLACE = "/v1/studies/intents-abc123/analysis"


def test_an_analysis_is_answered_with_links_to_its_figures(client: TestClient, world: World) -> None:
    world.analyst.analyses["intents-abc123"] = an_analysis()
    answer = client.get(PLACE)
    assert answer.status_code == 200
    found = StudyAnalysisView.model_validate_json(answer.content)
    assert (found.study_id, found.scored, found.importance.trials) == ("intents-abc123", 12, 12)
    assert (found.parallel_coordinates.total, found.learning_curves.total) == (12, 12)
    for link in found.figures.model_dump().values():
        picture = client.get(link)
        assert (picture.status_code, picture.headers["Content-Type"]) == (200, "image/png")
        assert f"{PLACE}/{picture.text}.png" == link


def test_a_study_that_is_not_there_has_no_analysis(client: TestClient) -> None:
    for path in (PLACE, f"{PLACE}/slices.png"):
        assert client.get(path).json()["type"] == "urn:tuneyard:problem:study-not-found"


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (NotReady("Another study is being analysed: ask again in a few seconds."), 503, "not-ready"),
        (AnalysisFailed("Drawing the figures ended with code 1. Ask again."), 503, "analysis-failed"),
        (AnalysisTimedOut("Drawing the figures was not done within 60 s: ask again."), 504, "analysis-timed-out"),
        (NotFound("There is nothing to draw of study 'intents-abc123' as `slices` yet: ask again later."), 404, "not-found"),
    ],
)
def test_why_there_is_no_analysis_is_told(client: TestClient, world: World, error: TuneyardError, status: int, kind: str) -> None:
    world.analyst.refusal = error
    answer = client.get(f"{PLACE}/slices.png")
    problem = Problem.model_validate_json(answer.content)
    assert (answer.status_code, problem.type, problem.detail) == (status, f"urn:tuneyard:problem:{kind}", error.detail)


def test_a_figure_that_there_never_is_is_named(client: TestClient, world: World) -> None:
    answer = client.get(f"{PLACE}/pie.png")
    assert (answer.status_code, answer.json()["violations"][0]["pointer"]) == (422, "figure")
    assert "'learning_curves'" in answer.json()["violations"][0]["detail"]


def test_the_real_analyst_answers_for_a_study_in_the_store(world: World) -> None:
    study = world.parts.store.studies.add(replace(a_searched_study(), version=0))
    for number, accuracy in enumerate([0.5, 0.7, 0.6]):
        world.has_trial(study, number, [accuracy])
    parts = with_parts(world, analyst=Analyst(world.parts.store))
    with client_of(parts) as client:
        found = client.get(PLACE).json()
    assert (found["trials"], found["scored"], found["history"]) == (3, 3, [])
    assert [curve["trial"] for curve in found["learning_curves"]["curves"]] == [1, 2, 0]
    assert "needs 10" in found["importance"]["note"]
