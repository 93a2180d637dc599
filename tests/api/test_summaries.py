"""What views show of a study's trials: asked for anew while it goes on, and once after its end."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from service.api import summaries
from service.api.summaries import Summaries
from service.domain.study import Study, StudyReason
from service.store.memory import memory_store
from tests.builders import NOW, a_study
from tests.fakes import FakeClock


class Asked:
    """A trial store without trials that remembers which studies it was asked for."""

    def __init__(self) -> None:
        self._trials = memory_store(FakeClock()).trials
        self.asked: list[Sequence[str]] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._trials, name)

    def bests(self, studies: Sequence[Study]) -> dict[str, object]:
        self.asked.append([study.id for study in studies])
        return {}


RUNNING = replace(a_study(), id="runs-abc123").running(NOW)
ENDED = replace(a_study(), id="ended-abc123").running(NOW).stopping(StudyReason.BUDGET_SPENT).ended(NOW)


def test_trials_of_an_ended_study_are_looked_at_once_and_those_of_others_each_time() -> None:
    trials = Asked()
    known = Summaries(trials)  # type: ignore[arg-type]
    for _ in range(2):
        assert known.of([RUNNING, ENDED]).keys() == {RUNNING.id, ENDED.id}
    assert trials.asked == [[RUNNING.id, ENDED.id], [RUNNING.id]]


def test_a_study_that_was_extended_and_has_ended_again_is_looked_at_again() -> None:
    trials = Asked()
    known = Summaries(trials)  # type: ignore[arg-type]
    for study in (ENDED, replace(ENDED, version=ENDED.version + 3)):
        known.of([study])
    assert len(trials.asked) == 2


def test_no_more_are_kept_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summaries, "_MOST_KEPT", 2)
    trials = Asked()
    known = Summaries(trials)  # type: ignore[arg-type]
    studies = [replace(ENDED, id=f"ended-{number}") for number in range(3)]
    for study in [*studies, studies[2], studies[0]]:
        known.of([study])
    assert trials.asked == [["ended-0"], ["ended-1"], ["ended-2"], ["ended-0"]]
