"""When failures pause a study."""

from dataclasses import replace
from datetime import timedelta

import pytest

from service.domain.attempts import Attempts
from service.domain.breaker import FAILURES_ALIKE, LATEST, UNFIT, error_of, kind_of_error, tripped
from service.domain.history import History
from service.domain.study import Study
from service.domain.trial import Attempt, AttemptOutcome, Trial, TrialReason, TrialState
from tests.builders import NOW, a_study, a_trial

TRACEBACK = """Traceback (most recent call last):
  File "/srv/attempt.py", line 90, in advance
    reports = self._start()
  File "/srv/data.py", line 12, in read
    raise KeyError(name)
          ^^^^^^^^^^^^^
KeyError: 'label'
"""


def at(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)


def attempt(number: int = 1, outcome: AttemptOutcome | None = None, seconds: float = 1, detail: str | None = None) -> Attempt:
    ended = None if outcome is None else NOW + at(seconds)
    return Attempt(number, first=0, until=3, started_at=NOW, ended_at=ended, outcome=outcome, worker="host:1", detail=detail)


def failing(number: int, detail: str | None = TRACEBACK, *, reports: int = 0, seconds: float = 1) -> tuple[Trial, Attempt]:
    """A trial whose first attempt has failed, and that is to be tried again."""
    trial = a_trial(number, attempts=1, errors=1, reports=reports, not_before=NOW + at(seconds + 1))
    return trial, attempt(outcome=AttemptOutcome.FAILED, seconds=seconds, detail=detail)


def running(number: int, reports: int = 0) -> tuple[Trial, Attempt]:
    return a_trial(number, attempts=1, state=TrialState.RUNNING, reports=reports), attempt()


def ended(number: int, reason: TrialReason, detail: str | None = "boom", *, reports: int = 0) -> tuple[Trial, Attempt]:
    when = NOW + at(number)
    trial = a_trial(number, attempts=1, state=reason.end, reason=reason, detail=detail, reports=reports, ended_at=when)
    failed = reason in {TrialReason.TRAINER_ERROR, TrialReason.DIVERGED, TrialReason.OUT_OF_MEMORY}
    outcome = AttemptOutcome.FAILED if failed else AttemptOutcome.DONE
    return trial, attempt(outcome=outcome, seconds=number, detail=detail)


def said(*trials: tuple[Trial, Attempt], study: Study | None = None) -> str | None:
    history = History({trial.number: trial for trial, _ in trials})
    attempts: Attempts = {trial.number: [one] for trial, one in trials}
    return tripped(study or a_study(), history, attempts)


def test_three_trials_that_fail_alike_pause_the_study_before_any_of_them_is_tried_again() -> None:
    why = said(failing(0, seconds=3), failing(1, seconds=1), failing(2, seconds=2))
    assert why is not None
    assert why.startswith("Trials 0, 1 and 2 failed alike, and no trial has come further: KeyError: 'label'. Mend what causes it")
    assert "`:resume`" in why
    assert why.endswith(f"Trial 0 said:\n{TRACEBACK.strip()}")


def test_two_do_not() -> None:
    assert said(*(failing(number) for number in range(FAILURES_ALIKE - 1))) is None


def test_errors_that_differ_in_numbers_paths_and_names_are_alike() -> None:
    details = [f"OSError: [Errno 5] cannot read '/data/{n}/rows.csv' at 0x7f{n}a, {n}.5e-{n} s" for n in range(3)]
    assert said(*(failing(number, detail) for number, detail in enumerate(details))) is not None


def test_errors_of_different_kinds_do_not_pause_it() -> None:
    assert said(failing(0, "KeyError: 'a'"), failing(1, "OSError: gone"), failing(2, "ValueError: no")) is None


def test_a_trial_that_came_further_says_that_it_can_be_done() -> None:
    failures = [failing(number, reports=1) for number in range(3)]
    assert said(*failures, running(3, reports=2)) is None
    assert said(*failures, running(3, reports=1)) is not None
    assert said(*failures, ended(3, TrialReason.RUNG_CUT, reports=1)) is not None
    assert said(*failures, ended(3, TrialReason.EPOCHS_DONE, reports=1)) is None


@pytest.mark.parametrize("reason", [TrialReason.DIVERGED, TrialReason.OUT_OF_MEMORY])
def test_what_diverged_or_did_not_fit_does_not_count(reason: TrialReason) -> None:
    assert said(*(ended(number, reason) for number in range(9))) is None


def test_a_lost_attempt_does_not_count_but_a_trial_that_was_lost_for_good_does() -> None:
    lost = [(a_trial(number, attempts=1), attempt(outcome=AttemptOutcome.LOST, detail="gone")) for number in range(9)]
    assert said(*lost) is None
    detail = "its worker was lost 6 times in a row without a new report"
    assert said(*(ended(number, TrialReason.RETRIES_EXHAUSTED, detail) for number in range(3))) is not None


def test_the_runs_of_the_final_do_not_count() -> None:
    runs = [(replace(trial, repeats=9), one) for trial, one in (failing(number) for number in range(3))]
    assert said(ended(9, TrialReason.EPOCHS_DONE, reports=1), *runs) is None


def test_more_than_half_of_the_latest_trials_failing_pauses_it() -> None:
    good = [ended(number, TrialReason.EPOCHS_DONE, reports=3) for number in range(4)]
    bad = [ended(number, TrialReason.TRAINER_ERROR, f"Error{'abcdefg'[number - 4]}: no") for number in range(4, 10)]
    why = said(*good, *bad)
    assert why is not None
    assert why.startswith(f"6 of the last {LATEST} trials failed: Errorf: no. Mend")
    more = ended(10, TrialReason.EPOCHS_DONE, reports=3)
    assert said(*good, *bad, more, ended(11, TrialReason.EPOCHS_DONE, reports=3)) is not None
    assert said(*good, *bad[1:], more) is None
    assert said(*good[1:], *bad) is None


def test_trials_that_did_not_fit_are_passed_over_among_the_latest() -> None:
    good = [ended(number, TrialReason.EPOCHS_DONE, reports=3) for number in range(4)]
    unfit = [ended(number, TrialReason.OUT_OF_MEMORY) for number in range(4, 12)]
    bad = [ended(number, TrialReason.TRAINER_ERROR, f"Error{'abcdef'[number - 12]}: no") for number in range(12, 18)]
    assert said(*good, *unfit, *bad) is not None


@pytest.mark.parametrize("reason", [TrialReason.OUT_OF_MEMORY, TrialReason.DIVERGED])
def test_a_study_of_which_no_configuration_fits_pauses_with_advice(reason: TrialReason) -> None:
    unfit = [ended(number, reason, "too large") for number in range(UNFIT)]
    why = said(*unfit)
    assert why is not None
    assert why.startswith("No configuration fits")
    assert "take a smaller model" in why
    assert why.endswith("The last one said: too large")
    assert said(*unfit[1:]) is None
    assert said(*unfit, running(99, reports=1)) is None


def test_what_was_before_the_study_was_resumed_does_not_count() -> None:
    resumed = replace(a_study(), resumed_at=NOW + at(100))
    old = [failing(number) for number in range(3)]
    assert said(*old, study=resumed) is None
    assert said(*old, failing(3, seconds=101), failing(4, seconds=102), study=resumed) is None
    assert said(*old, *(failing(number, seconds=100 + number) for number in range(3, 6)), study=resumed) is not None
    assert said(*(ended(number, TrialReason.OUT_OF_MEMORY) for number in range(UNFIT)), study=resumed) is None


@pytest.mark.parametrize(
    ("detail", "error"),
    [(TRACEBACK, "KeyError: 'label'"), ("one line", "one line"), ("first\nlast\n\n", "last"), ("", "nothing"),
     ("  \n ", "nothing"), (None, "nothing"),
     (TRACEBACK.replace("KeyError: 'label'", "RuntimeError: CUDA error: unspecified\nCompile with TORCH_USE_CUDA_DSA"),
      "RuntimeError: CUDA error: unspecified")],
)  # fmt: skip
def test_an_error_is_named_by_the_line_of_its_exception(detail: str | None, error: str) -> None:
    assert error_of(detail) == error


def test_words_are_not_taken_for_paths() -> None:
    assert kind_of_error("ValueError: and/or is not true/false") == "ValueError: and/or is not true/false"
    assert kind_of_error("FileNotFoundError: /data/a-1/b.csv is gone") == "FileNotFoundError: / is gone"


def test_trials_that_a_user_stopped_before_their_first_report_do_not_say_that_nothing_fits() -> None:
    stopped = [ended(number, TrialReason.STOP_REQUESTED) for number in range(UNFIT - 1)]
    assert said(*stopped, ended(UNFIT, TrialReason.OUT_OF_MEMORY, "too large")) is None
