"""What `study get` and `trial get` print of something that waits."""

from datetime import timedelta
from io import StringIO

from rich.console import Console, RenderableType

from service.api.schemas import TrialView
from service.api.waiting_views import WaitingView
from service.cli.tables import study_table, trial_table
from service.domain.study import StudyReason
from service.domain.waiting import WaitingCause
from tests.builders import NOW, a_study, a_trial
from tests.unit.stand_in import a_study_view

WAITING = WaitingView(cause=WaitingCause.SHARE, detail="It has 1 of the 2 slots it could use.", since=NOW)


def printed(table: RenderableType) -> list[str]:
    out = StringIO()
    Console(file=out, width=200).print(table)
    return [" ".join(line.split()) for line in out.getvalue().splitlines()]


def test_a_study_that_waits_says_why_and_for_how_long() -> None:
    lines = printed(study_table(a_study_view(a_study()).model_copy(update={"waiting": WAITING}), None))
    assert any(line.startswith("waits It has 1 of the 2 slots it could use. For ") for line in lines)
    assert not any(line.startswith("waits") for line in printed(study_table(a_study_view(a_study()), None)))


def test_a_study_took_the_time_in_which_it_was_not_paused() -> None:
    begun = a_study().running(NOW - timedelta(minutes=30)).pausing(StudyReason.PAUSE_REQUESTED, NOW)
    paused = begun.paused(NOW - timedelta(minutes=20))
    going_on = paused.resumed(NOW - timedelta(minutes=5)).running(NOW - timedelta(minutes=5))
    assert "took 15m 00s" in printed(study_table(a_study_view(going_on), None))


def test_a_trial_that_waits_says_why() -> None:
    lines = printed(trial_table(TrialView.of(a_trial(), waiting=WAITING), [], []))
    assert any(line.startswith("waits It has 1 of the 2 slots it could use. For ") for line in lines)
