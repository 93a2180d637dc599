"""When failures follow a node or a GPU."""

from dataclasses import replace
from datetime import timedelta
from time import process_time
from typing import Any

import pytest

from service.domain.attempts import DRIVER_GONE, Attempts
from service.domain.breaker import tripped
from service.domain.history import History
from service.domain.quarantine import Quarantine, elsewhere, gpus_of, node_of, nodes_of, quarantined
from service.domain.study import Study
from service.domain.trial import Attempt, AttemptOutcome, Trial, TrialReason, TrialState
from tests.builders import NOW, a_study, a_trial

LATER = NOW + timedelta(hours=1)
Tried = tuple[Trial, Attempt]


def tried(number: int, worker: str, outcome: AttemptOutcome | None, start: float = 0, end: float = 1, **changes: Any) -> Tried:
    """A trial with one attempt, `start` to `end` seconds after the beginning."""
    began, ended = NOW + timedelta(seconds=start), NOW + timedelta(seconds=end)
    attempt = Attempt(1, 0, 3, began, None if outcome is None else ended, outcome, worker, "RuntimeError: CUDA error")
    state = TrialState.RUNNING if outcome is None else TrialState.QUEUED
    values: dict[str, Any] = {"state": state, "attempts": 1, **changes}
    return a_trial(number, **values), attempt


def failing(number: int, worker: str = "bad:1", start: float = 0, end: float = 1) -> Tried:
    return tried(number, worker, AttemptOutcome.FAILED, start, end)


def found(*all_tried: Tried, study: Study | None = None, seconds: float = 10) -> tuple[Quarantine, ...]:
    history, attempts = seen(*all_tried)
    return quarantined(study or a_study(), history, attempts, NOW + timedelta(seconds=seconds))


def seen(*all_tried: Tried) -> tuple[History, Attempts]:
    return History({trial.number: trial for trial, _ in all_tried}), {trial.number: [one] for trial, one in all_tried}


THREE = [failing(0), failing(1, start=1, end=2), failing(2, start=2, end=3)]
GOOD = tried(9, "good:7", AttemptOutcome.DONE, 0, 5)


def test_a_node_on_which_three_trials_failed_while_another_went_well_elsewhere_is_quarantined() -> None:
    (one,) = found(*THREE, GOOD)
    assert (one.node, one.gpu, one.trials) == ("bad", None, (0, 1, 2))
    assert one.sentence.startswith("Nothing more of this study runs on node bad: trials 0, 1 and 2 failed there")
    assert nodes_of([one]) == {"bad"}


def test_the_processes_of_a_node_count_together_and_lost_ones_with_failed_ones() -> None:
    lost = tried(2, "bad:3", AttemptOutcome.LOST, 2, 3)
    assert found(failing(0, "bad:1"), failing(1, "bad:2", 1, 2), lost, GOOD)


@pytest.mark.parametrize(
    "others",
    [
        [],
        [failing(3, "good:7", 0, 5)],
        [tried(9, "good:7", None, 9.5)],
        [tried(9, "good:7", AttemptOutcome.DONE, -9, -1)],
        [GOOD, failing(3, "good:8", 0, 5)],
    ],
    ids=["nobody", "failing too", "running for less long", "good before", "as often failing as good"],
)
def test_a_node_is_not_to_blame_while_nothing_goes_better_elsewhere(others: list[Tried]) -> None:
    assert found(*THREE, *others) == ()


def test_an_attempt_elsewhere_that_outlives_those_that_failed_goes_well() -> None:
    assert found(*THREE, tried(9, "good:7", None, 0))


@pytest.mark.parametrize(
    "fourth",
    [tried(3, "bad:1", AttemptOutcome.DONE, 3, 4), tried(3, "bad:1", None, 3, reports=1)],
    ids=["done", "has reported"],
)
def test_a_trial_that_went_well_there_since_clears_the_node(fourth: Tried) -> None:
    assert found(*THREE, fourth, GOOD) == ()


def test_two_trials_are_not_enough_however_often_they_fail() -> None:
    again = replace(failing(1, start=2, end=3)[1], number=2)
    history, attempts = seen(failing(0), failing(1, start=1, end=2), GOOD)
    assert quarantined(a_study(), history, {**attempts, 1: [*attempts[1], again]}, LATER) == ()


def test_what_a_configuration_or_the_drivers_end_did_is_not_held_against_a_node() -> None:
    diverged = [
        tried(number, "bad:1", AttemptOutcome.FAILED, state=TrialState.FAILED, reason=TrialReason.DIVERGED) for number in range(3)
    ]
    assert found(*diverged, GOOD) == ()
    gone = [tried(number, "bad:1", AttemptOutcome.LOST) for number in range(3)]
    assert found(*((trial, replace(one, detail=DRIVER_GONE)) for trial, one in gone), GOOD) == ()


def test_resuming_the_study_tries_the_node_again() -> None:
    assert found(*THREE, GOOD, study=replace(a_study(), resumed_at=NOW + timedelta(seconds=4))) == ()


def test_one_gpu_of_several_is_told_and_its_node_is_not_left() -> None:
    three = [failing(number, "host:1/gpu1", number, number + 1) for number in range(3)]
    (one,) = found(*three, tried(9, "host:2/gpu0", AttemptOutcome.DONE, 0, 5))
    assert (one.node, one.gpu) == ("host", "1")
    assert one.sentence.startswith("GPU 1 of node host seems to be broken")
    assert nodes_of([one]) == frozenset()


def test_a_node_with_its_only_gpu_is_left_as_a_whole() -> None:
    three = [failing(number, "bad:1/gpu0", number, number + 1) for number in range(3)]
    (one,) = found(*three, GOOD)
    assert (one.node, one.gpu) == ("bad", None)


def test_failures_of_a_quarantined_node_do_not_pause_the_study() -> None:
    slow = tried(9, "good:7", None, 0)
    history, attempts = seen(*THREE, slow)
    assert tripped(a_study(), history, attempts) is not None
    assert tripped(a_study(), history, elsewhere(attempts, found(*THREE, slow))) is None


def test_an_attempt_that_no_worker_had_is_held_against_no_node() -> None:
    refused = [(trial, replace(attempt, worker=None)) for trial, attempt in THREE]
    assert found(*refused, GOOD) == ()


def test_a_study_of_thousands_of_attempts_is_looked_through_once() -> None:
    many = [tried(number, f"node-{number % 2}:1/gpu{number % 4}", AttemptOutcome.DONE) for number in range(3000)]
    began = process_time()
    assert found(*many) == ()
    assert process_time() - began < 5  # comparing each with each takes half a minute


def test_a_workers_name_says_where_it_is() -> None:
    assert (node_of("node-b:12/gpu0,1"), gpus_of("node-b:12/gpu0,1")) == ("node-b", ["0", "1"])
    assert (node_of("node-b:12"), gpus_of("node-b:12")) == ("node-b", [])
