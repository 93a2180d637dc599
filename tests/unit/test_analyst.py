"""The analyst, over a store in memory: what it asks of its child, when, and what it makes of failures."""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from service.analysis import analyst, children
from service.analysis.analyst import Analyst
from service.analysis.children import Turn
from service.domain.errors import AnalysisFailed, AnalysisTimedOut, NotFound, NotReady, StudyNotFound
from service.domain.ports import Change, Store
from service.domain.study import Study
from service.domain.study_analysis import StudyAnalysis
from service.domain.trial import TrialReason
from service.store.memory import memory_store
from tests.analysed import a_searched_study, configurations
from tests.builders import NOW, a_report, a_trial

PNG = b"\x89PNG"


class Children:
    """What a child would answer; `asked` is what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.failure: Exception | None = None

    def measure(self, request: Mapping[str, Any]) -> Sequence[float]:
        self.asked.append("measure")
        if self.failure is not None:
            raise self.failure
        return [1.0, *[0.0] * (len(request["points"][0]) - 1)]

    def draw(self, analysis: StudyAnalysis) -> Mapping[str, bytes]:
        self.asked.append("draw")
        return {"slices.png": PNG} if analysis.scored else {}


class World:
    """A store with a study in it, and an analyst."""

    def __init__(self, trials: int = 0) -> None:
        self.store: Store = memory_store()
        self.study: Study = self.store.studies.add(a_searched_study())
        self.store.leases.acquire(self.study.id, "driver", NOW, timedelta(days=1))
        self.children = Children()
        self.analyst = Analyst(self.store, self.children.measure, self.children.draw)
        self.configurations = configurations(100)
        for number in range(trials):
            self.tries(number)

    def tries(self, number: int) -> None:
        trial = a_trial(number, self.study.id, parameters=self.configurations[number])
        started = trial.started(NOW)
        report = a_report(1, 0.5 + number / 1000)
        reported = started.reported(report, self.study.definition.objective, gpus=0)
        changes = [Change(trial), Change(reported, report=report), Change(reported.ended(TrialReason.EPOCHS_DONE, NOW))]
        self.store.trials.record("driver", changes)


def test_a_studys_analysis_is_made_of_what_the_store_remembers() -> None:
    world = World(trials=12)
    found = world.analyst.analysis(world.study.id)
    assert (found.study_id, found.scored, found.importance.trials) == (world.study.id, 12, 12)
    assert found.importance.parameters[0].importance == 1.0
    assert found.history[-1].incumbent == 0.511


def test_it_is_kept_until_the_study_goes_on() -> None:
    world = World(trials=12)
    first = world.analyst.analysis(world.study.id)
    assert world.analyst.analysis(world.study.id) is first
    world.tries(12)
    assert world.analyst.analysis(world.study.id).scored == 13
    assert world.children.asked == ["measure", "measure"]


def test_a_trial_that_ends_without_a_report_is_news_too() -> None:
    world = World(trials=1)
    assert world.analyst.analysis(world.study.id).excluded == {}
    failed = a_trial(1, world.study.id)
    world.store.trials.record("driver", [Change(failed), Change(failed.ended(TrialReason.TRAINER_ERROR, NOW))])
    assert world.analyst.analysis(world.study.id).excluded == {"failed": 1}


def test_the_figures_are_drawn_together_when_one_is_asked_for_and_kept() -> None:
    world = World(trials=12)
    assert world.analyst.figure(world.study.id, "slices") == PNG
    assert world.analyst.figure(world.study.id, "slices") == PNG
    assert world.children.asked == ["measure", "draw"]


def test_a_figure_of_nothing_is_not_there_yet() -> None:
    world = World()
    with pytest.raises(NotFound, match="nothing to draw of study 'intents-abc123' as `slices` yet"):
        world.analyst.figure(world.study.id, "slices")


def test_a_study_that_is_not_there_is_not_found() -> None:
    world = World()
    for ask in (lambda: world.analyst.analysis("gone-abc123"), lambda: world.analyst.figure("gone-abc123", "slices")):
        with pytest.raises(StudyNotFound):
            ask()


def test_a_child_that_failed_is_asked_again_next_time() -> None:
    world = World(trials=12)
    world.children.failure = AnalysisFailed("It ended with code 1. Ask again.")
    with pytest.raises(AnalysisFailed):
        world.analyst.analysis(world.study.id)
    world.children.failure = None
    assert world.analyst.analysis(world.study.id).scored == 12


def test_only_the_studies_asked_about_last_are_remembered() -> None:
    world = World()
    others = [world.store.studies.add(replace(world.study, id=f"other-{number}")) for number in range(20)]
    first = world.analyst.analysis(world.study.id)
    for other in others:
        world.analyst.analysis(other.id)
    assert world.analyst.analysis(world.study.id) is not first
    assert world.analyst.analysis(world.study.id).study_id == world.study.id


@contextmanager
def a_child_at_work(world: World) -> Iterator[None]:
    """Somebody whose child takes its time."""
    begun, finish = threading.Event(), threading.Event()

    def measure(_: Mapping[str, Any]) -> Sequence[float]:
        begun.set()
        assert finish.wait(60)
        return [1.0, 0.0, 0.0]

    world.analyst = Analyst(world.store, measure, world.children.draw, Turn("analysed", wait_seconds=0.0))
    asking = threading.Thread(target=world.analyst.analysis, args=(world.study.id,))
    asking.start()
    assert begun.wait(60)
    try:
        yield
    finally:
        finish.set()
        asking.join()


def test_whoever_comes_while_a_child_is_at_work_too_long_is_told_to_ask_again() -> None:
    world = World(trials=12)
    with a_child_at_work(world), pytest.raises(NotReady, match="ask again in a few seconds"):
        world.analyst.analysis(world.study.id)
    assert world.analyst.analysis(world.study.id).scored == 12


def test_all_files_for_a_run_are_made_in_the_background() -> None:
    world = World(trials=12)
    files = world.analyst.begin(world.study.id).result(60)
    assert set(files) == {"analysis.json", "slices.png"}
    assert json.loads(files["analysis.json"])["scored"] == 12


def test_what_goes_wrong_in_the_background_is_told_by_the_result() -> None:
    assert isinstance(World().analyst.begin("gone-abc123").exception(60), StudyNotFound)


def test_a_real_child_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analyst, "_MEASURE_SECONDS", 100.0)  # it lets all else on the machine go first
    points = [[number / 20, (number * 7 % 20) / 20] for number in range(20)]
    shares = analyst.measure({"points": points, "values": [one for one, _ in points]})
    assert shares[0] > 0.9


def test_a_child_that_ends_badly_is_named_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(AnalysisFailed, match=r"Measuring ended with code 1; the service's log tells more\. Ask again\."):
        children.run_module("service.analysis.fanova", [], given=b"no JSON", seconds=100, doing="Measuring")
    assert "JSONDecodeError" in caplog.text


def test_a_child_that_takes_too_long_is_ended() -> None:
    with pytest.raises(AnalysisTimedOut, match=r"Measuring was not done within 0 s"):
        children.run_module("service.analysis.fanova", [], given=b"{}", seconds=0.001, doing="Measuring")
