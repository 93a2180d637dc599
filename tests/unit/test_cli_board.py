from dataclasses import replace
from datetime import timedelta
from typing import Any

from rich.console import Console

from service.api.schemas import TrialView
from service.api.waiting_views import WaitingView
from service.cli.board import ENDED_SHOWN, Board, changes, draw
from service.domain.study import StudyState
from service.domain.trial import Trial, TrialReason, TrialState
from service.domain.waiting import WaitingCause
from tests.builders import NOW, a_study, a_trial
from tests.unit.stand_in import STUDY_ID, a_study_view


def a_running(number: int, **changed: Any) -> Trial:
    return a_trial(number, state=TrialState.RUNNING, started_at=NOW, **changed)


def an_ended(number: int, value: float, **changed: Any) -> Trial:
    ended: dict[str, Any] = {
        "state": TrialState.COMPLETED,
        "ended_at": NOW + timedelta(seconds=number),
        "reason": TrialReason.EPOCHS_DONE,
    }
    return a_trial(number, **{**ended, "reports": 3, "value": value, "best_value": value, "best_report": 2, **changed})


def a_board(*trials: Trial) -> Board:
    study = replace(a_study(), state=StudyState.RUNNING, started_at=NOW)
    return Board(a_study_view(study)).with_trials(TrialView.of(trial) for trial in trials)


def drawn(board: Board, *, rows: int = 20, width: int = 100) -> list[str]:
    console = Console(width=width, color_system=None, force_terminal=True)
    with console.capture() as capture:
        console.print(draw(board, rows=rows, now=NOW + timedelta(seconds=83), mlflow="http://here/mlflow/#/experiments/7/runs"))
    return [line.rstrip() for line in capture.get().splitlines()]


def shown_trials(lines: list[str]) -> list[int]:
    return [int(line.split()[0]) for line in lines if line.strip() and line.split()[0].isdigit()]


def test_the_head_tells_study_state_counts_and_time() -> None:
    first = drawn(a_board(a_running(0), an_ended(1, 0.5), a_trial(2, state=TrialState.PAUSED)))[0]
    assert first == f"{STUDY_ID}  running  ·  1 of 4 finished  ·  1 running  ·  1 waiting  ·  1m 23s"


def test_the_time_of_a_paused_study_stands_still() -> None:
    board = a_board(a_trial(0))
    progress = board.study.progress
    spent = progress.model_copy(update={"wall_clock_seconds": progress.wall_clock_seconds.model_copy(update={"spent": 45.0})})
    paused = board.study.model_copy(update={"state": "paused", "reason": "pause_requested", "progress": spent})
    assert drawn(board.with_study(paused))[0] == f"{STUDY_ID}  paused  ·  0 of 4 finished  ·  0 running  ·  1 waiting  ·  45s"


def test_the_best_trial_is_shown_with_its_configuration() -> None:
    line = drawn(a_board(an_ended(0, 0.5), an_ended(1, 0.75)))[1]
    assert " ".join(line.split()) == "best 0.7500 validation/accuracy trial 1, report 2 lr 0.001"


def test_a_study_that_waits_says_why() -> None:
    waiting = WaitingView(cause=WaitingCause.SHARE, detail="It has 1 of the 2 slots it could use.", since=NOW)
    lines = drawn(a_board().with_study(a_board().study.model_copy(update={"waiting": waiting})))
    assert lines[2] == "waits   It has 1 of the 2 slots it could use."


def test_the_address_in_mlflow_is_shown_whole() -> None:
    assert "http://here/mlflow/#/experiments/7/runs" in drawn(a_board())[2]


def test_running_trials_come_first_and_then_those_that_ended_last() -> None:
    lines = drawn(a_board(*(an_ended(number, 0.5) for number in range(30)), a_running(30), a_running(31)))
    assert shown_trials(lines) == [30, 31, 29, 28, 27, 26, 25]
    assert len(shown_trials(lines)) == 2 + ENDED_SHOWN


def test_a_board_fits_into_a_small_terminal() -> None:
    lines = drawn(a_board(an_ended(0, 0.5), *(a_running(number) for number in range(1, 40))), rows=6)
    assert len(shown_trials(lines)) == 6
    assert any("and 34 more running" in line for line in lines)


def test_no_line_is_wider_than_the_terminal() -> None:
    long = {"learning_rate": 1e-3, "model": "owner/" + "very-long-name-" * 8}
    assert max(len(line) for line in drawn(a_board(an_ended(0, 0.5, parameters=long)), width=100)) <= 100


def test_short_names_are_explained() -> None:
    assert drawn(a_board(a_running(0)))[-1] == "lr = learning_rate"


def test_a_trial_is_told_from_its_proposal_to_its_end() -> None:
    empty, begun = a_board(), a_board(a_running(0))
    reported = a_board(a_running(0, reports=1, value=0.5, best_value=0.5, best_report=1))
    cut = a_board(an_ended(0, 0.5, reports=1, state=TrialState.PRUNED, reason=TrialReason.RUNG_CUT))
    assert changes(empty, begun) == ["trial 0 proposed: learning_rate=0.001"]
    assert changes(begun, reported) == ["trial 0 report 1/3: validation/accuracy 0.5000  (best so far)"]
    assert changes(reported, cut) == ["trial 0 pruned: best validation/accuracy 0.5000"]


def test_a_worse_report_is_not_told_as_the_best() -> None:
    before = a_board(an_ended(0, 0.9), a_running(1))
    after = a_board(an_ended(0, 0.9), a_running(1, reports=1, value=0.5, best_value=0.5, best_report=1))
    assert changes(before, after) == ["trial 1 report 1/3: validation/accuracy 0.5000"]


def test_a_board_that_did_not_change_has_nothing_to_tell() -> None:
    board = a_board(an_ended(0, 0.9), a_running(1))
    assert changes(board, board) == []


def test_less_is_better_where_the_objective_says_so() -> None:
    study = a_study(objective={"metric": "validation/loss", "direction": "minimize"})
    board = Board(a_study_view(study)).with_trials(
        TrialView.of(an_ended(number, value)) for number, value in ((0, 0.9), (1, 0.2))
    )
    assert board.best is not None
    assert board.best.number == 1


def test_the_earlier_of_two_equal_trials_is_the_best() -> None:
    board = a_board(an_ended(1, 0.5), an_ended(0, 0.5))
    assert board.best is not None
    assert board.best.number == 0


def test_a_board_says_that_the_service_is_away() -> None:
    away = replace(a_board(a_running(0)), away="Connection refused")
    assert "the service does not answer (Connection refused): trying again" in drawn(away)
    assert not any("answer" in line for line in drawn(a_board(a_running(0))))


def test_a_log_says_once_that_the_service_is_away_and_once_that_it_is_back() -> None:
    board = a_board(a_running(0))
    away, still = replace(board, away="Connection refused"), replace(board, away="timed out")
    assert changes(board, away) == ["the service does not answer (Connection refused): trying again"]
    assert changes(away, still) == []
    assert changes(still, board) == ["the service answers again"]
