"""What a study does next, and whether a trial that has reported goes on."""

from datetime import datetime
from typing import assert_never

from service.domain.budget import Spending, may_add_trial, may_begin, may_train
from service.domain.decision import Decision
from service.domain.history import History
from service.domain.strategy import (
    AutoStrategy,
    BayesianStrategy,
    GridStrategy,
    HyperbandStrategy,
    MedianStrategy,
    PbtStrategy,
    RandomStrategy,
    SobolStrategy,
)
from service.domain.study import Study, StudyReason
from service.domain.trial import Trial, TrialReason, TrialState
from service.search.actions import Action, Cut, Done, Resume, Start, Wait
from service.search.feasible import broken_outcome
from service.search.final import next_run, reached_target, search_is_over
from service.search.grid import grid_configuration
from service.search.hyperband import last_cut, last_promotion, next_async, next_sync
from service.search.improvement import is_stagnant
from service.search.median import below_median
from service.search.memory import keys_of
from service.search.pbt import next_of_population
from service.search.samplers import next_number, propose

_STOPPED = Decision("cut", "user")


def next_action(study: Study, history: History, now: datetime) -> Action:
    """The one thing to do next; to be asked again after every action that starts or cuts trials, while a slot is free.

    In this order: what users asked to stop ends, where it does not run; a queued trial goes on (highest rung first, then lowest
    number), or ends where its last report was its end;
    a rung's losers end; a rung's winner goes on; a new trial starts, when the budget holds all it needs up to its first pause;
    `Wait` while anything runs; what is still paused ends; the final's runs start; `Done`. Once wall-clock or GPU time does not
    pay one more report nothing starts any more. A search that has stopped getting better is `Done` whatever runs, or begins its
    final. `max_concurrent_trials` is the caller's to hold. `space_exhausted` means that every configuration was tried,
    `target_reached` and `no_improvement` what a final may have followed, `budget_spent` everything else: also one whole cycle of
    brackets when hyperband has no budget, or that a next trial would need more than is left, or that a population is at its end.
    """
    stopped = stopped_before_their_ends(history)
    if stopped is not None:
        return stopped
    spent = history.spending(study, now)
    running = bool(history.in_state(TrialState.RUNNING))
    if not may_begin(study.definition.budget, spent):
        return Wait() if running else Done(StudyReason.BUDGET_SPENT)
    if study.definition.final is None and is_stagnant(study, history):
        return Done(StudyReason.NO_IMPROVEMENT)
    queued = history.in_state(TrialState.QUEUED)
    ready = [trial for trial in queued if trial.not_before is None or trial.not_before <= now]
    if ready:
        return _go_on(study, history, min(ready, key=lambda trial: (-trial.rung, trial.number)))
    running = running or bool(queued)  # what waits for its time after an error will run
    searched, is_over = history.searched, search_is_over(study, history)
    action = None if is_over else _search(study, searched, spent)
    if action is None:
        is_live = searched.in_state(TrialState.RUNNING, TrialState.QUEUED)
        action = Wait() if is_live else _clear(study, searched, spent, is_over=is_over)
    return action or next_run(study, history) or (Wait() if running else Done(_reason(study, searched)))


def stopped_before_their_ends(history: History) -> Cut | None:
    """The end of trials that users asked to stop and that do not run now; those that run end at their next report."""
    asked = [trial.number for trial in history.in_state(TrialState.QUEUED, TrialState.PAUSED) if trial.number in history.stops]
    return Cut(tuple(asked), TrialReason.STOP_REQUESTED, (_STOPPED,) * len(asked)) if asked else None


def end_of(study: Study, history: History, trial: Trial) -> tuple[TrialReason, Decision] | None:
    """Why a live trial ends with its last report, by a rule that looks at every report; None when it goes on."""
    if trial.number in history.stops:
        return TrialReason.STOP_REQUESTED, _STOPPED
    broken = broken_outcome(study, history, trial, is_last=False)
    if broken is not None or trial.repeats is not None:
        return broken
    if study.definition.final is not None and reached_target(study, history):
        return TrialReason.TARGET_REACHED, Decision("cut", "target").beside(history.best(study.definition.objective))
    if study.definition.final is not None and is_stagnant(study, history):
        return TrialReason.BUDGET_SPENT, Decision("cut", "no_improvement").beside(history.best(study.definition.objective))
    match study.definition.plan.strategy:
        case MedianStrategy() as strategy if trial.reports:
            why = below_median(study, history.searched, trial, strategy)
            return None if why is None else (TrialReason.BELOW_MEDIAN, why)
        case _:
            return None


def _go_on(study: Study, history: History, trial: Trial) -> Action:
    # Its driver may have died after the report and before what follows from it.
    end = end_of(study, history, trial)
    return Resume(trial.number) if end is None else Cut((trial.number,), end[0], (end[1],))


def _search(study: Study, history: History, spent: Spending) -> Action | None:
    strategy = study.definition.plan.strategy
    match strategy:
        case GridStrategy() | RandomStrategy() | SobolStrategy() | BayesianStrategy() | MedianStrategy():
            return _whole_trial(study, history, spent)
        case HyperbandStrategy(mode="sync"):
            return next_sync(study, history, spent)
        case HyperbandStrategy():
            return next_async(study, history, spent)
        case PbtStrategy():
            return next_of_population(study, history, spent)
        case AutoStrategy():
            raise AssertionError("a plan leaves nothing open")
        case _:
            assert_never(strategy)


def _whole_trial(study: Study, history: History, spent: Spending) -> Start | None:
    """A new trial that runs to its end without a pause."""
    definition = study.definition
    shortest = definition.max_reports if "epochs" not in definition.space else 1
    # Asked before the proposal too: a model's proposal takes time, and would be thrown away each time.
    if not may_add_trial(definition.budget, spent) or not may_train(definition.budget, spent, shortest):
        return None
    number = next_number(history)
    proposal = propose(study, history, number)
    if proposal is None:
        return None
    until = definition.reports_of(proposal.parameters)
    if not may_train(definition.budget, spent, until):
        return None
    why = proposal.decision(study, history)
    return Start(number=number, parameters=proposal.parameters, bracket=0, rung=0, until=until, why=why)


def _clear(study: Study, history: History, spent: Spending, *, is_over: bool) -> Action | None:
    """What becomes of paused trials when nothing of the search runs and no new trial may start."""
    paused = history.in_state(TrialState.PAUSED)
    if not paused:
        return None
    if is_over:
        reason = TrialReason.TARGET_REACHED if reached_target(study, history) else TrialReason.BUDGET_SPENT
        return Cut(tuple(trial.number for trial in paused), reason)
    if isinstance(study.definition.plan.strategy, PbtStrategy):
        return None  # a member that cannot go on did not lose
    return last_promotion(study, history, spent) or last_cut(study, history, paused)


def _reason(study: Study, history: History) -> StudyReason:
    if study.definition.final is not None and reached_target(study, history):
        return StudyReason.TARGET_REACHED
    if is_stagnant(study, history):
        return StudyReason.NO_IMPROVEMENT
    return StudyReason.SPACE_EXHAUSTED if _is_exhausted(study, history) else StudyReason.BUDGET_SPENT


def _is_exhausted(study: Study, history: History) -> bool:
    if isinstance(study.definition.plan.strategy, PbtStrategy):
        return False  # a population ends with its last report
    space = study.definition.search_space
    if isinstance(study.definition.plan.strategy, GridStrategy):
        seen = keys_of(space, history.trials.values())
        return grid_configuration(space, study.definition.seed, 0, seen) is None
    size = space.size()
    return size is not None and len(history.trials) >= size
