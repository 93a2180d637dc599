"""What a study does next."""

from datetime import datetime
from typing import assert_never

from search_spaces import grid_size
from service.domain.budget import Spending, may_add_trial, may_train, time_is_up
from service.domain.history import History
from service.domain.strategy import BayesianStrategy, GridStrategy, HyperbandStrategy, RandomStrategy
from service.domain.study import Study, StudyReason
from service.domain.trial import TrialReason, TrialState
from service.search.actions import Action, Cut, Done, Resume, Start, Wait
from service.search.draws import size_of
from service.search.hyperband import last_promotion, next_async, next_sync
from service.search.samplers import next_number, propose


def next_action(study: Study, history: History, now: datetime) -> Action:
    """The one thing to do next; to be asked again after every action that starts or cuts trials, while a slot is free.

    In this order: a queued trial goes on (highest rung first, then lowest number); a rung's losers end; a rung's winner goes
    on; a new trial starts, when the budget holds all it needs up to its first pause; `Wait` while anything runs; what is
    still paused ends; `Done`. Once wall-clock or GPU time is spent nothing starts any more. `max_concurrent_trials` is the
    caller's to hold. `space_exhausted` means that every configuration was tried, `budget_spent` everything else: also one
    whole cycle of brackets when hyperband has no budget, or that a next trial would need more reports than are left.
    """
    spent = history.spending(study, now)
    running = bool(history.in_state(TrialState.RUNNING))
    if time_is_up(study.definition.budget, spent):
        return Wait() if running else Done(StudyReason.BUDGET_SPENT)
    queued = history.in_state(TrialState.QUEUED)
    if queued:
        return Resume(min(queued, key=lambda trial: (-trial.rung, trial.number)).number)
    action = _search(study, history, spent)
    if action is not None:
        return action
    if running:
        return Wait()
    paused = history.in_state(TrialState.PAUSED)
    if paused:
        promotion = last_promotion(study, history, spent)
        return promotion or Cut(tuple(trial.number for trial in paused), TrialReason.RUNG_CUT)
    return Done(StudyReason.SPACE_EXHAUSTED if _is_exhausted(study, history) else StudyReason.BUDGET_SPENT)


def _search(study: Study, history: History, spent: Spending) -> Action | None:
    match study.definition.strategy:
        case GridStrategy() | RandomStrategy() | BayesianStrategy():
            return _whole_trial(study, history, spent)
        case HyperbandStrategy(mode="sync"):
            return next_sync(study, history, spent)
        case HyperbandStrategy():
            return next_async(study, history, spent)
        case _:
            assert_never(study.definition.strategy)


def _whole_trial(study: Study, history: History, spent: Spending) -> Start | None:
    """A new trial that runs to its end without a pause."""
    definition = study.definition
    shortest = definition.max_reports if "epochs" not in definition.space else 1
    # Asked before the proposal too: a model's proposal takes time, and would be thrown away each time.
    if not may_add_trial(definition.budget, spent) or not may_train(definition.budget, spent, shortest):
        return None
    number = next_number(history)
    parameters = propose(study, history, number)
    if parameters is None or not may_train(definition.budget, spent, definition.reports_of(parameters)):
        return None
    return Start(number=number, parameters=parameters, bracket=0, rung=0, until=definition.reports_of(parameters))


def _is_exhausted(study: Study, history: History) -> bool:
    space = study.definition.space
    size = grid_size(space) if isinstance(study.definition.strategy, GridStrategy) else size_of(space)
    return size is not None and len(history.trials) >= size
