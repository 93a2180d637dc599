"""Random walks over a study's life without Ray: verbs, reports, failures, shares, time and crashes in any order.

A driver is a `Ledger` on a store in memory, workers and their checkpoints are a few lists, and a process may end at any moment:
between two writes, in the middle of one, or after an epoch that nobody has heard of yet.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from service.domain.amending import amended, larger
from service.domain.errors import ConfigurationKnown, IllegalMove, InvalidDefinition, StudyEnded
from service.domain.events import EventKind
from service.domain.history import History
from service.domain.share import Share
from service.domain.study import STUDY_MOVES, Study, StudyReason, StudyState
from service.domain.trial import TRIAL_MOVES, Trial, TrialState
from service.domain.waiting import trial_waiting
from service.execution.assignment import Progress
from service.execution.ledger import Finished, Idle, Ledger
from service.search import next_action
from service.store.memory import memory_store
from tests.builders import a_definition
from tests.fakes import FakeClock
from tests.unit.mortal import Died, Fate, Workers, mortal

STUDY = "walked-abc123"
TRAINER = {"kind": "text-classification", "model": "tiny", "data": {"train": "dataset://a/b.csv"}, "epochs": 4}
RATE = {"kind": "float", "low": 1e-4, "high": 1e-2, "log": True}
GRID = {"learning_rate": {**RATE, "grid": [1e-4, 1e-3, 1e-2]}, "batch_size": {"kind": "categorical", "choices": [8, 16]}}
STRATEGIES: Mapping[str, dict[str, Any]] = {
    "random": {"strategy": {"kind": "random"}, "budget": {"trials": 5}},
    "epochs": {"strategy": {"kind": "random"}, "budget": {"epochs": 14}},
    "grid": {"strategy": {"kind": "grid"}, "space": GRID, "budget": {}},
    "tpe": {"strategy": {"kind": "bayesian", "sampler": {"kind": "tpe", "startup_trials": 2}}, "budget": {"trials": 5}},
    "hyperband": {"strategy": {"kind": "hyperband", "reduction_factor": 2}, "budget": {"trials": 7}},
    "async": {"strategy": {"kind": "hyperband", "reduction_factor": 2, "mode": "async"}, "budget": {"trials": 6}},
    "median": {"strategy": {"kind": "median", "min_trials": 2, "sampler": {"kind": "random"}}, "budget": {"trials": 5}},
    "pbt": {"strategy": {"kind": "pbt", "population": 3, "interval": 1}, "budget": {"epochs": 14}},
    "final": {"strategy": {"kind": "random"}, "budget": {"trials": 3}, "final": {"top": 1, "seeds": 2}},
    "target": {"strategy": {"kind": "sobol"}, "budget": {"trials": 6, "target": 0.8}},
    "stagnant": {"strategy": {"kind": "random"}, "budget": {"trials": 8, "no_improvement": 2}},
    "auto": {"strategy": {"kind": "auto"}, "budget": {"trials": 8}},
}  # fmt: skip
ACTIVE = {StudyState.QUEUED, StudyState.RUNNING, StudyState.PAUSING, StudyState.STOPPING}
ACCIDENTS = ("lost", "lost_unheard", "trainer_error", "trainer_error", "diverged", "out_of_memory", "no_space", "interrupted")
VERBS = (
    "pauses", "pauses_now", "resumes", "resumes", "resumes", "resumes",
    "extends", "patches", "asks_for_a_trial", "stops_a_trial", "stops", "cancels",
)  # fmt: skip
ENOUGH = 400
"""Turns in which any study comes to its end when it is left alone."""


class Walk(RuleBasedStateMachine):
    """A study, whoever drives it, and whoever asks things of it."""

    def __init__(self, strategy: Mapping[str, Any]) -> None:
        super().__init__()
        self.strategy = strategy

    @initialize(concurrent=st.integers(1, 3), retries=st.integers(0, 2))
    def begin(self, concurrent: int, retries: int) -> None:
        self.clock = FakeClock()
        self.store = memory_store(self.clock)
        document: dict[str, Any] = {
            "space": {"learning_rate": RATE}, "trainer": TRAINER, "resources": {"max_concurrent_trials": concurrent},
            "max_retries": retries, **self.strategy,
        }  # fmt: skip
        self.store.studies.add(Study(id=STUDY, definition=a_definition(**document), created_at=self.clock.now()))
        self.store.shares.grant({STUDY: Share(concurrent)})
        self.workers = Workers(self.clock)
        self.known: Study | None = None
        self.ledger: Ledger | None = None
        self.live: dict[int, Trial] = {}
        self.drivers = 0
        self.fate = Fate()
        self.seen_events = 0
        self.states: dict[int, TrialState] = {}
        self.study_state = StudyState.QUEUED
        self.most = self.study.definition.budget

    # The service at work.

    @rule(reports=st.integers(0, 12), seconds=st.integers(1, 20))
    def work_goes_on(self, reports: int, seconds: int) -> None:
        """What happens most of the time: a driver is there, slots are filled, workers report in turn."""
        for place in range(reports + 1):
            if self.study.state not in ACTIVE:
                return
            if self.ledger is None:
                self.a_driver_starts()
            self.the_driver_looks(is_brief=True)
            self.slots_are_filled()
            if self.live:
                self.a_worker_reports(place, seconds)
            elif self.ledger is not None:
                self.the_driver_comes_to_its_end()

    @precondition(lambda self: self.ledger is None and self.study.state in ACTIVE)
    @rule()
    def a_driver_starts(self) -> None:
        self.drivers += 1
        owner = f"driver-{self.drivers}"
        assert self.store.leases.acquire(STUDY, owner, self.clock.now(), timedelta(days=1))
        try:
            self.ledger = Ledger(mortal(self.store, self.fate), self.clock, STUDY, owner)
            self.ledger.begin(lambda trial: len(self.workers.saved(trial.number)) >= trial.reports)
        except Died:
            self.driver_is_gone()

    @precondition(lambda self: self.ledger is not None)
    @rule(is_brief=st.booleans())
    def the_driver_looks(self, is_brief: bool) -> None:  # noqa: FBT001 - a rule's argument
        self.drive(lambda ledger: ledger.poll() if is_brief else ledger.refresh())

    @precondition(lambda self: self.live)
    @rule(which=st.integers(0, 2), seconds=st.integers(1, 20), is_early=st.booleans())
    def a_worker_reports(self, which: int, seconds: int, is_early: bool = False) -> None:  # noqa: FBT001, FBT002
        trial = self.running(which)
        self.workers.train(trial, self.stored(trial), seconds)
        saved = self.workers.saved(trial.number)
        outcome = "done" if len(saved) >= trial.until else "stopped_early" if is_early and seconds == 1 else None
        if not self.says(trial, outcome, reports=saved):
            self.live.pop(trial.number, None)

    @rule(slots=st.sampled_from([0, 1, 2, 2, 3, 4]), seconds=st.integers(0, 120))
    def slots_and_time_change(self, slots: int, seconds: int) -> None:
        self.store.shares.grant({STUDY: Share(slots)})
        self.clock.pass_seconds(seconds)

    def slots_are_filled(self) -> None:
        while self.ledger is not None and len(self.live) < self.slots and self.a_trial_begins():
            pass

    def a_trial_begins(self) -> bool:
        """Whether the driver had one to run."""
        before = self.history
        asked = self.drive(lambda ledger: ledger.next())
        if not isinstance(asked, Trial):
            assert asked is None or isinstance(asked, Idle if self.live else Finished)
            return False
        assert self.ledger is not None
        assert self.ledger.study.state is StudyState.RUNNING
        assert len(self.live) < self.slots
        assert asked.number not in self.live
        assert asked.not_before is None
        self.check_that_requests_come_first(self.ledger.history, before, asked)
        self.live[asked.number] = asked
        self.workers.begin(asked)
        return True

    @precondition(lambda self: self.ledger is not None and (not self.live or self.study.reason is StudyReason.CANCEL_REQUESTED))
    @rule()
    def the_driver_comes_to_its_end(self) -> None:
        """As `service.driver` does it, once nothing runs."""

        def end(ledger: Ledger) -> bool:
            match ledger.refresh().state:
                case StudyState.STOPPING:
                    ledger.finish()
                case StudyState.PAUSING:
                    ledger.pause()
            return ledger.study.state is not StudyState.RUNNING

        if self.drive(end):
            self.driver_is_gone()

    # What goes wrong.

    @precondition(lambda self: self.live)
    @rule(which=st.integers(0, 2), accident=st.sampled_from(ACCIDENTS))
    def something_happens_to_a_worker(self, which: int, accident: str) -> None:
        trial = self.live.pop(self.running(which).number)
        match accident:
            case "lost" | "lost_unheard":
                if accident == "lost_unheard":
                    self.workers.train(trial, self.stored(trial), 1)
                self.drive(lambda ledger: ledger.lose(trial.number, trial.attempts, "killed"))
            case "interrupted":
                self.says(trial, "interrupted", seconds=0.5)
            case "no_space":
                self.says(trial, "no_space", reports=self.workers.saved(trial.number), detail="3 bytes are free")
            case _:
                saved = self.workers.saved(trial.number)
                self.says(trial, "failed", reports=saved, reason=accident, detail="ValueError: no")

    @precondition(lambda self: self.ledger is not None)
    @rule(writes=st.integers(0, 4), is_last_done=st.booleans())
    def the_driver_is_killed(self, writes: int, is_last_done: bool) -> None:  # noqa: FBT001
        """At once, or over one of its next writes."""
        if writes:
            self.fate.writes, self.fate.is_last_done = writes, is_last_done
        else:
            self.driver_is_gone()

    # What users ask for.

    @rule(verb=st.sampled_from(VERBS), amount=st.integers(0, 4))
    def a_user_asks(self, verb: str, amount: int) -> None:
        now, more = self.clock.now(), self.more(amount)
        concurrent = {"max_concurrent_trials": amount or 1}
        match verb:
            case "pauses" | "pauses_now":
                self.change(lambda study: study.pausing(StudyReason.PAUSE_REQUESTED, now, is_urgent=verb == "pauses_now"))
            case "resumes":
                self.change(lambda study: study.resumed(now))
            case "extends":
                self.change(lambda study: study.extended(larger(study, more), now))
            case "patches":
                patch = {"budget": self.more(amount - 2), "resources": concurrent}
                self.change(lambda study: study.changed(amended(study.definition, patch), now))
            case "asks_for_a_trial":
                self.request({"learning_rate": 2e-4 * (amount + 1), "batch_size": 8})
            case "stops_a_trial" if self.states:
                self.store.trials.ask_to_stop(STUDY, sorted(self.states)[amount % len(self.states)], now)
            case "stops" | "cancels" if amount == 0:  # seldom: it is over after that
                reason = StudyReason.STOP_REQUESTED if verb == "stops" else StudyReason.CANCEL_REQUESTED
                self.change(lambda study: study.stopping(reason))

    def request(self, known: Mapping[str, Any]) -> None:
        try:
            asked = {name: known[name] for name in self.study.definition.space}
            self.store.trials.request(STUDY, asked, self.clock.now())
        except (ConfigurationKnown, StudyEnded):
            return

    def change(self, by: Callable[[Study], Study]) -> None:
        """What the state forbids is refused and changes nothing."""
        study = self.study
        try:
            changed = by(study)
        except (IllegalMove, InvalidDefinition):
            return
        if changed != study:
            self.store.studies.save(changed, by="somebody")
        for name in ("trials", "epochs"):
            limit = getattr(changed.definition.budget, name)
            if limit is not None and limit > (getattr(self.most, name) or 0):
                self.most = self.most.model_copy(update={name: limit})

    def more(self, amount: int) -> dict[str, Any]:
        """The budget's own limits, changed by so much."""
        budget = self.study.definition.budget
        limits = {name: getattr(budget, name) for name in ("trials", "epochs")}
        return {name: limit + amount for name, limit in limits.items() if limit is not None and limit + amount > 0}

    # What all of them need.

    @property
    def study(self) -> Study:
        """The study as stored, read again where it has changed."""
        version, _ = self.store.shares.poll(STUDY)
        if self.known is None or self.known.version != version:
            self.known = self.store.studies.get(STUDY)
        return self.known

    @property
    def history(self) -> History:
        return self.store.trials.history(STUDY)

    @property
    def slots(self) -> int:
        return self.store.shares.poll(STUDY)[1]

    def stored(self, trial: Trial) -> Trial:
        return self.store.trials.get(STUDY, trial.number)

    def running(self, which: int) -> Trial:
        return self.live[sorted(self.live)[which % len(self.live)]]

    def says(self, trial: Trial, outcome: str | None, **changes: Any) -> Any:
        """Let a worker answer its driver; whether the attempt goes on."""
        progress = Progress(trial.number, trial.attempts, "host:1", outcome=cast("Any", outcome), **changes)
        return self.drive(lambda ledger: ledger.record(progress))

    def drive(self, act: Callable[[Ledger], Any]) -> Any:
        """Let the driver do something, in which it may die."""
        if self.ledger is None:
            return None
        try:
            return act(self.ledger)
        except Died:
            self.driver_is_gone()
            return None

    def driver_is_gone(self) -> None:
        """Its workers go with it, and its lease runs out."""
        self.live.clear()
        self.ledger = None
        self.fate = Fate()
        self.store.leases.release(STUDY, f"driver-{self.drivers}")

    # What holds after every step.

    @invariant()
    def everything_holds(self) -> None:
        study, history = self.study, self.history
        self.check_moves()
        self.check_store(study, history)
        self.check_budget(history.searched)
        self.check_driver(history)
        self.check_waiting(study, history)
        assert all(times == 1 for times in self.workers.trained.values()), "an epoch that was saved was trained again"

    def check_moves(self) -> None:
        """Every move is one of the tables', a promotion is two at once, and what has ended only goes on with its study."""
        for event in self.store.events.after(STUDY, self.seen_events, 10_000):
            self.seen_events = event.id
            if event.kind is EventKind.STUDY_STATE:
                state = StudyState(event.payload["state"])
                assert state is self.study_state or state in STUDY_MOVES[self.study_state]
                self.study_state = state
            elif event.kind in {EventKind.TRIAL_CREATED, EventKind.TRIAL_STATE}:
                number, after = event.payload["trial"], TrialState(event.payload["state"])
                before = self.states.get(number)
                is_promoted = (before, after) == (TrialState.PAUSED, TrialState.RUNNING)
                assert before is None or is_promoted or after in TRIAL_MOVES[before], (number, before, after)
                assert before is None or not before.is_end or self.study_state is StudyState.QUEUED
                self.states[number] = after

    def check_store(self, study: Study, history: History) -> None:
        """Nothing is missing and nothing is there twice."""
        attempts = self.store.trials.all_attempts(STUDY)
        assert sorted(history.trials) == list(range(len(history.trials)))
        space = study.definition.search_space
        tried = [trial.parameters for trial in history.trials.values() if trial.parent is None and trial.repeats is None]
        assert len({space.key(each) for each in tried}) == len(tried)
        for number, trial in history.trials.items():
            assert len(history.values.get(number, (0.0,) * trial.parent_report)) == trial.reports
            assert trial.reports <= max(trial.parent_report, len(self.workers.saved(number)))
            outcomes = [one.outcome for one in attempts.get(number, ())]
            assert len(outcomes) == trial.attempts
            assert [outcome is None for outcome in outcomes] == [False] * (len(outcomes) - 1) + [
                trial.state is TrialState.RUNNING
            ]
            if trial.state.is_end:
                assert trial.reason is not None
                assert trial.reason.end is trial.state
        if study.state is StudyState.PAUSED:
            assert not history.in_state(TrialState.RUNNING)
        if study.state.is_end:
            assert all(trial.state.is_end for trial in history.trials.values())

    def check_budget(self, history: History) -> None:
        if self.most.trials is not None:
            assert len(history.trials) <= self.most.trials
        if self.most.epochs is not None:
            assert sum(trial.reports - trial.parent_report for trial in history.trials.values()) <= self.most.epochs

    def check_driver(self, stored: History) -> None:
        """A driver knows what the store says, and decides what a new one would."""
        if self.ledger is None:
            return
        known, study, now = self.ledger.history, self.ledger.study, self.clock.now()
        assert _unversioned(known) == _unversioned(stored)
        assert set(self.live) == {trial.number for trial in known.in_state(TrialState.RUNNING)}
        replayed = replace(stored, requested=known.requested, stops=known.stops)
        assert next_action(study, known, now) == next_action(study, replayed, now)

    def check_waiting(self, study: Study, history: History) -> None:
        """What waits says why."""
        if study.state is StudyState.STOPPING or study.state.is_end:
            return
        for trial in history.in_state(TrialState.QUEUED, TrialState.PAUSED):
            why = trial_waiting(study, None, history, trial, trial.created_at, self.clock.now())
            assert why is not None
            assert why.detail.endswith(".")

    def check_that_requests_come_first(self, known: History, before: History, asked: Trial) -> None:
        """Nothing new is proposed while the driver knows of a configuration that a user asked for."""
        tried = [dict(trial.parameters) for trial in before.trials.values()]
        wanted = [dict(one) for one in known.requested if dict(one) not in tried]
        if asked.number not in before.trials and asked.parent is None and asked.repeats is None and wanted:
            assert dict(asked.parameters) == wanted[0]

    def teardown(self) -> None:
        """Left alone, the study comes to its end, whatever it has been through."""
        if not hasattr(self, "most"):
            return
        if self.ledger is not None:
            self.driver_is_gone()
        for _ in range(ENOUGH):
            if self.study.state.is_end:
                break
            self.store.shares.grant({STUDY: Share(2)})
            if self.study.state is StudyState.PAUSED:
                self.change(lambda study: study.resumed(self.clock.now()))
            self.work_goes_on(5, 2)
            self.clock.pass_seconds(60)
        else:
            pytest.fail(f"the study does not come to its end: {self.study.state}, {self.history.trials}")
        self.everything_holds()
        for number, trial in self.history.trials.items():
            reports = [report.number for report in self.store.trials.reports(STUDY, number)]
            assert reports == list(range(trial.parent_report + 1, trial.reports + 1))


def _unversioned(history: History) -> Mapping[int, Trial]:
    return {number: replace(trial, version=0) for number, trial in history.trials.items()}


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_study_stays_whole_whatever_happens_in_whatever_order(name: str) -> None:
    # What fails is told as it was found: to look for the shortest way there takes minutes.
    walks = settings(max_examples=3, stateful_step_count=50, phases=[Phase.reuse, Phase.generate])
    run_state_machine_as_test(lambda: Walk(STRATEGIES[name]), settings=walks)  # type: ignore[arg-type]
