"""The contract of `TrialStore.record`, and of the events that each write leaves in `EventStore`."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from service.domain.decision import Decision
from service.domain.errors import LeaseLost, StudyNotFound
from service.domain.events import Event, EventKind
from service.domain.ports import Change, Store
from service.domain.study import StudyReason
from service.domain.trial import Attempt, AttemptOutcome, Trial, TrialReason, TrialState
from tests.builders import NOW, a_report, a_study, a_trial
from tests.contract.conftest import DRIVER, at_once, end, has_study, has_trial
from tests.fakes import FakeClock

STUDY = "intents-abc123"


def told(store: Store, after: int = 0, study_id: str = STUDY) -> list[tuple[str, Any]]:
    """The kind of each event, and the number or state in it that says most."""
    payloads = [(event.kind.value, event.payload) for event in store.events.after(study_id, after)]
    return [(kind, payload.get("report", payload.get("state"))) for kind, payload in payloads]


def test_every_field_of_a_trial_is_read_back_as_it_was(store: Store) -> None:
    has_study(store)
    moment = datetime(2031, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
    trial = Trial(
        study_id=STUDY, number=3, until=9, created_at=NOW, state=TrialState.FAILED, bracket=2, rung=1, reports=4, value=1 / 3,
        parameters={"a": 0.1 + 0.2, "b": 10**18, "c": "ü “” 💥", "d": None, "e": True, "f": 1.0, "g": 1e-300},
        best_value=-1e300, best_report=2, best_epoch=1.5, attempts=2, retries=1, seconds=0.1, gpu_seconds=0.05,
        reason=TrialReason.DIVERGED, detail="line 1\nline 2", started_at=moment, ended_at=moment + timedelta(microseconds=1),
        parent=2, parent_report=3, repeats=1, seed=2**31 - 1,
    )  # fmt: skip
    store.trials.record(DRIVER, [Change(trial)])
    read = store.trials.get(STUDY, 3)
    assert read == trial
    assert {name: type(value) for name, value in read.parameters.items()} == {n: type(v) for n, v in trial.parameters.items()}


def test_every_field_of_a_report_is_read_back_as_it_was(store: Store) -> None:
    has_study(store)
    metrics = {"validation/accuracy": 0.1 + 0.2, "validation/loss": math.inf, "train/loss": 5e-324}
    report = a_report(epoch=0.1, step=2**40, metrics=metrics, seconds=1e-9, worker="höst:1")
    store.trials.record(DRIVER, [Change(a_trial(), report=report)])
    assert store.trials.reports(STUDY, 0) == [report]


def test_a_metric_that_is_no_number_stays_so(store: Store) -> None:
    has_study(store)
    report = a_report(metrics={"validation/accuracy": 0.5, "train/loss": math.nan})
    store.trials.record(DRIVER, [Change(a_trial(), report=report)])
    assert math.isnan(store.trials.reports(STUDY, 0)[0].metrics["train/loss"])


@pytest.mark.parametrize("said", ["null \x00 byte", "half a pair \ud83d", "\ude00", "a file's name \udce4.csv"])
def test_what_a_worker_said_is_stored_whatever_is_in_it(store: Store, said: str) -> None:
    study = has_study(store)
    attempt = Attempt(1, 0, 3, NOW, NOW, AttemptOutcome.FAILED, "host:1", said)
    store.trials.record(DRIVER, [Change(a_trial(state=TrialState.RUNNING))])
    store.trials.record(DRIVER, [Change(a_trial(state=TrialState.FAILED, detail=said), attempt=attempt)])
    store.studies.save(study.pausing(StudyReason.TOO_MANY_FAILURES, NOW, said))
    details = [store.trials.get(STUDY, 0).detail, store.trials.attempts(STUDY, 0)[0].detail, store.studies.get(STUDY).detail]
    details += [event.payload["detail"] for event in store.events.after(STUDY, 0) if "detail" in event.payload]
    kept = [part for part in said if part.isascii() and part != "\x00"]
    assert len(details) == 5
    for detail in details:
        assert set(kept) <= set((detail or "").encode().decode())


def test_the_attempts_of_all_trials_come_together_by_trial_and_in_order(store: Store) -> None:
    has_study(store)
    first, second = Attempt(1, 0, 3, NOW), Attempt(2, 1, 3, NOW + timedelta(seconds=9))
    for number in (1, 0):
        store.trials.record(DRIVER, [Change(a_trial(number), attempt=second), Change(a_trial(number), attempt=first)])
    store.trials.record(DRIVER, [Change(a_trial(2))])
    assert store.trials.all_attempts(STUDY) == {0: [first, second], 1: [first, second]}
    with pytest.raises(StudyNotFound):
        store.trials.all_attempts("gone-abc123")


def test_what_is_recorded_again_as_nobody_knows_whether_it_was_stored_is_there_once(store: Store) -> None:
    has_study(store)
    why = Decision("proposed", "random")
    change = Change(a_trial(state=TrialState.RUNNING), a_report(), Attempt(1, 0, 3, NOW), why)
    for _ in range(2):
        store.trials.record(DRIVER, [change])
    assert [decision for _, decision in store.trials.decisions(STUDY, 0)] == [why]
    assert (len(store.trials.attempts(STUDY, 0)), len(store.trials.reports(STUDY, 0))) == (1, 1)
    kinds = [event.kind for event in store.events.after(STUDY, 0)]
    assert [kind for kind in kinds if kind.startswith("trial.")] == ["trial.created", "trial.report"]


def test_what_a_step_came_to_is_told_in_order_and_once_however_often_it_is_recorded(store: Store) -> None:
    study = has_study(store)
    running = has_trial(store, study).started(NOW)
    store.trials.record(DRIVER, [Change(running, attempt=Attempt(1, 0, 1, NOW))])
    before = store.events.after(STUDY, 0)[-1].id
    reported = running.reported(a_report(), study.definition.objective, 0)
    ended = reported.ended(TrialReason.EPOCHS_DONE, NOW)
    done = Attempt(1, 0, 1, NOW, NOW, AttemptOutcome.DONE, "host:1")
    for _ in range(2):
        store.trials.record(DRIVER, [Change(reported, a_report()), Change(ended, attempt=done)])
    assert [kind for kind, _ in told(store, before)] == ["trial.report", "trial.state"]
    assert (store.trials.get(STUDY, 0).state, store.trials.attempts(STUDY, 0)) == (TrialState.COMPLETED, [done])


def test_attempts_are_added_and_then_brought_up_to_date_in_order(store: Store) -> None:
    has_study(store)
    first, second = Attempt(1, 0, 3, NOW), Attempt(2, 1, 3, NOW + timedelta(seconds=9))
    lost = replace(first, ended_at=NOW, outcome=AttemptOutcome.LOST, worker="host:1", detail="it was killed")
    store.trials.record(DRIVER, [Change(a_trial(), attempt=first)])
    assert store.trials.attempts(STUDY, 0) == [first]
    store.trials.record(DRIVER, [Change(a_trial(), attempt=second), Change(a_trial(), attempt=lost)])
    assert store.trials.attempts(STUDY, 0) == [lost, second]


def test_what_an_attempt_took_of_a_large_gpu_is_kept(store: Store) -> None:
    has_study(store)
    attempt = Attempt(1, 0, 3, NOW, gpus=0.3333, peak_bytes=20 * 2**30, gpu_bytes=141 * 2**30)
    store.trials.record(DRIVER, [Change(a_trial(), attempt=attempt)])
    assert store.trials.attempts(STUDY, 0) == [attempt]


def test_a_trial_without_attempts_and_reports_has_none(store: Store) -> None:
    has_trial(store, has_study(store))
    assert (store.trials.attempts(STUDY, 0), store.trials.reports(STUDY, 0)) == ([], [])


def test_the_version_of_a_trial_counts_its_writes(store: Store) -> None:
    has_study(store)
    versions = []
    for _ in range(3):
        store.trials.record(DRIVER, [Change(a_trial(version=99))])
        versions.append(store.trials.get(STUDY, 0).version)
    assert versions == [0, 1, 2]


def test_a_report_that_is_already_there_is_left_as_it_is_and_told_once(store: Store) -> None:
    has_study(store)
    store.trials.record(DRIVER, [Change(a_trial(), report=a_report(1, 0.5))])
    before = store.events.after(STUDY, 0)
    store.trials.record(DRIVER, [Change(a_trial(), report=a_report(1, 0.9, worker="another"))])
    assert store.trials.reports(STUDY, 0) == [a_report(1, 0.5)]
    assert store.events.after(STUDY, 0) == before


def test_nothing_is_written_of_changes_of_which_one_cannot_be(store: Store) -> None:
    has_study(store, "other")
    has_study(store)
    before = store.events.after(STUDY, 0)
    with pytest.raises(ValueError, match="one study"):
        store.trials.record(DRIVER, [Change(a_trial(0), report=a_report()), Change(a_trial(0, "other"))])
    assert store.trials.history(STUDY).trials == {}
    assert store.events.after(STUDY, 0) == before


def test_no_changes_are_nothing_to_do(store: Store) -> None:
    store.trials.record("nobody", [])


@pytest.mark.parametrize("owner", ["driver-2", ""])
def test_one_who_does_not_hold_the_lease_writes_nothing(store: Store, owner: str) -> None:
    has_study(store)
    with pytest.raises(LeaseLost):
        store.trials.record(owner, [Change(a_trial())])
    assert store.trials.history(STUDY).trials == {}


def test_one_whose_lease_ran_out_and_was_taken_writes_nothing(store: Store) -> None:
    store.studies.add(a_study())
    assert store.leases.acquire(STUDY, DRIVER, NOW, timedelta(seconds=10))
    store.trials.record(DRIVER, [Change(a_trial(0))])
    assert store.leases.acquire(STUDY, "driver-2", NOW + timedelta(seconds=10), timedelta(seconds=10))
    with pytest.raises(LeaseLost):
        store.trials.record(DRIVER, [Change(a_trial(1))])
    store.trials.record("driver-2", [Change(a_trial(2))])
    assert list(store.trials.history(STUDY).trials) == [0, 2]


def test_one_who_gave_the_lease_up_writes_nothing(store: Store) -> None:
    has_study(store)
    store.leases.release(STUDY, DRIVER)
    with pytest.raises(LeaseLost):
        store.trials.record(DRIVER, [Change(a_trial())])


def test_nothing_is_written_of_a_study_that_is_not_there(store: Store) -> None:
    with pytest.raises(LeaseLost):
        store.trials.record(DRIVER, [Change(a_trial())])


def test_a_lease_that_is_taken_while_its_holder_writes_stops_every_later_write(store: Store) -> None:
    has_study(store)

    def write() -> int:
        for number in range(20):
            store.trials.record(DRIVER, [Change(a_trial(number))])
        return -1

    def take() -> int:
        assert store.leases.acquire(STUDY, "driver-2", NOW + timedelta(days=2), timedelta(days=1))
        return len(store.trials.history(STUDY).trials)

    written, seen = at_once(write, take)
    assert isinstance(seen, int)
    assert isinstance(written, LeaseLost) or written == -1
    assert len(store.trials.history(STUDY).trials) == (seen if isinstance(written, LeaseLost) else 20)


def test_writes_at_the_same_time_lose_no_event(store: Store) -> None:
    study = has_study(store)
    writes = [partial(store.trials.record, DRIVER, [Change(a_trial(number), report=a_report())]) for number in range(6)]
    written = at_once(*writes, lambda: store.studies.save(study.running(NOW)))
    assert [outcome for outcome in written if isinstance(outcome, Exception)] == []
    events = store.events.after(STUDY, 0)
    assert [event.id for event in events] == list(range(1, 15))
    kinds = [event.kind for event in events]
    assert [kinds.count(kind) for kind in (EventKind.STUDY_STATE, EventKind.TRIAL_CREATED, EventKind.TRIAL_REPORT)] == [1, 6, 6]


def test_every_write_of_a_study_is_told_in_order(store: Store, clock: FakeClock) -> None:
    study = store.studies.add(a_study())
    clock.pass_seconds(5)
    running = store.studies.save(study.running(clock.now()))
    clock.pass_seconds(5)
    store.studies.save(running.stopping(StudyReason.STOP_REQUESTED, "enough"))
    assert store.events.after(STUDY, 0) == [
        Event(EventKind.STUDY_CREATED, STUDY, NOW, {"name": "intents", "state": "queued"}, 1),
        Event(EventKind.STUDY_STATE, STUDY, NOW + timedelta(seconds=5), {"state": "running"}, 2),
        Event(
            EventKind.STUDY_STATE, STUDY, NOW + timedelta(seconds=10),
            {"state": "stopping", "reason": "stop_requested", "detail": "enough"}, 3,
        ),
    ]  # fmt: skip


def test_every_write_of_a_trial_is_told_in_order(store: Store, clock: FakeClock) -> None:
    study = has_study(store)
    clock.pass_seconds(5)
    trial = a_trial()
    report = a_report()
    running = trial.started(NOW)
    done = running.reported(report, study.definition.objective, 0).ended(TrialReason.EPOCHS_DONE, NOW, "done")
    for change in (Change(trial), Change(running), Change(done, report=report)):
        store.trials.record(DRIVER, [change])
    state = {"trial": 0, "attempt": 1, "until": 3}
    reported = {
        "trial": 0,
        "report": 1,
        "epoch": 1.0,
        "step": 10,
        "metrics": report.metrics,
        "attempt": 1,
        "worker": "localhost:1",
    }
    assert store.events.after(STUDY, 1) == [
        Event(EventKind.TRIAL_CREATED, STUDY, NOW, {**state, "state": "queued", "attempt": 0, "parameters": trial.parameters}, 2),
        Event(EventKind.TRIAL_STATE, STUDY, clock.now(), {**state, "state": "running"}, 3),
        Event(EventKind.TRIAL_REPORT, STUDY, report.at, reported, 4),
        Event(
            EventKind.TRIAL_STATE,
            STUDY,
            clock.now(),
            {**state, "state": "completed", "reason": "epochs_done", "detail": "done"},
            5,
        ),
    ]


def test_a_new_attempt_is_told_also_when_the_state_is_the_same(store: Store) -> None:
    has_study(store)
    running = a_trial(state=TrialState.RUNNING, attempts=1)
    store.trials.record(DRIVER, [Change(running)])
    store.trials.record(DRIVER, [Change(replace(running, attempts=2))])
    store.trials.record(DRIVER, [Change(replace(running, attempts=2, retries=1))])
    assert told(store, after=1) == [("trial.created", "running"), ("trial.state", "running")]


def test_changes_of_one_record_are_told_in_their_order(store: Store) -> None:
    has_study(store)
    changes = [Change(a_trial(1), report=a_report(1)), Change(a_trial(0)), Change(a_trial(1, state=TrialState.RUNNING))]
    store.trials.record(DRIVER, changes)
    assert told(store, after=1) == [
        ("trial.created", "queued"),
        ("trial.report", 1),
        ("trial.created", "queued"),
        ("trial.state", "running"),
    ]


def test_a_refused_write_is_not_told(store: Store) -> None:
    study = has_study(store)
    store.studies.save(study.running(NOW))
    before = store.events.after(STUDY, 0)
    for _ in range(2):
        with pytest.raises(LeaseLost):
            store.trials.record("driver-2", [Change(a_trial())])
    assert store.events.after(STUDY, 0) == before
    store.trials.record(DRIVER, [Change(a_trial())])
    assert store.events.after(STUDY, 0)[-1].id == before[-1].id + 1


def test_events_are_read_in_batches_from_the_last_one_seen(store: Store) -> None:
    study = has_study(store)
    for number in range(5):
        has_trial(store, study, number)
    assert [event.id for event in store.events.after(STUDY, 0, limit=4)] == [1, 2, 3, 4]
    assert [event.id for event in store.events.after(STUDY, 4, limit=4)] == [5, 6]
    assert store.events.after(STUDY, 6) == []
    assert store.events.after(STUDY, 2**63 - 1) == []


def test_an_event_that_is_told_again_is_there_once(store: Store) -> None:
    has_study(store)
    one = Event(EventKind.STUDY_QUARANTINE, "intents-abc123", NOW, {"node": "bad-node", "trials": [1, 2]})
    other = replace(one, payload={"node": "worse-node", "trials": [1]})
    for events in ([one], [one, other], [other]):
        store.events.add(events)
    assert [event.payload["node"] for event in store.events.after("intents-abc123", 1)] == ["bad-node", "worse-node"]


def test_each_study_has_events_of_its_own(store: Store) -> None:
    has_trial(store, has_study(store, "other"))
    has_study(store)
    end(store)
    assert told(store) == [("study.created", "queued"), ("study.state", "stopping"), ("study.state", "completed")]
    assert told(store, study_id="other") == [("study.created", "queued"), ("trial.created", "queued")]


def test_an_unknown_study_has_no_events_to_ask_for(store: Store) -> None:
    with pytest.raises(StudyNotFound):
        store.events.after(STUDY, 0)
