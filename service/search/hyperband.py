"""Early stopping at rungs: synchronous brackets (Li et al. 2018), and their asynchronous kin (ASHA, Li et al. 2020).

A trial's value at a rung is the best of its reports up to there. A trial that fails counts as the worst of its rung and
holds nobody up; a trial without a finite value is never promoted. One that stopped early by itself, as it got no better, keeps
its value at every rung above: it takes a place among the best of a rung, and needs no training for it. Of two equals the
lower number goes on.

While a synchronous rung waits for its last trials, idle workers begin the next bracket's, so that nobody idles. There is
one exception: where the winners are few and short, a worker that has just begun a long trial elsewhere would find them all
trained one after the other by its colleague; it waits for the rung instead, at most as long as one attempt of it takes.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from service.domain.budget import Spending, may_add_trial, may_train
from service.domain.decision import Decision
from service.domain.history import History
from service.domain.rungs import Bracket, all_rungs, brackets
from service.domain.strategy import HyperbandStrategy
from service.domain.study import Study
from service.domain.trial import Trial, TrialReason, TrialState
from service.search.actions import Action, Cut, Promote, Start
from service.search.samplers import next_number, propose
from service.search.values import Comparison, best_of, counts_at

_MARGIN = 2
"""Trials of one study differ in speed: this many times longer than planned, and winners still run side by side."""


@dataclass
class _Open:
    """What the brackets that have begun ask for."""

    losers: list[tuple[int, Decision]] = field(default_factory=list)
    promotions: list[Promote] = field(default_factory=list)
    longest_start: float = float("inf")
    """The longest attempt that may begin elsewhere, in reports."""


def next_sync(study: Study, history: History, spent: Spending) -> Action | None:
    """Cut a decided rung's losers, promote its winners (oldest bracket, then best first), or start the next trial planned."""
    members: defaultdict[int, list[Trial]] = defaultdict(list)
    for _, trial in sorted(history.trials.items()):
        members[trial.bracket].append(trial)
    found = _Open()
    opening = None
    for bracket in brackets(study.definition):
        if len(members[bracket.index]) < bracket.sizes[0]:
            opening = bracket
            break
        _climb(study, history, bracket, members[bracket.index], found)
    if found.losers:
        losers = sorted(found.losers, key=lambda loser: loser[0])
        return Cut(tuple(number for number, _ in losers), TrialReason.RUNG_CUT, tuple(why for _, why in losers))
    promotion = _first_affordable(study, history, spent, found.promotions)
    if promotion is not None or opening is None or opening.rungs[0] > found.longest_start:
        return promotion
    return _start(study, history, spent, opening.index, opening.rungs[0])


def _climb(study: Study, history: History, bracket: Bracket, members: list[Trial], found: _Open) -> None:
    """Walk up a bracket whose trials have all begun, as far as its rungs are decided."""
    cohort = members
    for rung, (report, above) in enumerate(zip(bracket.rungs, bracket.rungs[1:], strict=False)):
        winners_wanted = bracket.sizes[rung + 1]
        if not all(_has_settled(trial, rung, report) for trial in cohort):
            if winners_wanted > 1:
                together = (winners_wanted - 1) * (above - report) / _MARGIN
                found.longest_start = min(found.longest_start, together)
            return
        winners = best_of(history, cohort, report, winners_wanted, study.definition.objective)
        numbers = {trial.number for trial in winners}
        losers = [trial for trial in cohort if trial.number not in numbers and trial.state is TrialState.PAUSED]
        waiting = [trial for trial in winners if trial.state is TrialState.PAUSED and trial.rung == rung]
        if not losers and not waiting:
            cohort = winners
            continue
        compared = Comparison.of(study, history, cohort, report, winners_wanted)
        found.losers += [(trial.number, compared.decision("cut", "hyperband", trial, rung)) for trial in losers]
        found.promotions += [
            Promote(trial.number, rung + 1, above, compared.decision("promoted", "hyperband", trial, rung + 1))
            for trial in waiting
        ]
        cohort = winners


def next_async(study: Study, history: History, spent: Spending) -> Action | None:
    """Promote a trial in the best part of the highest rung that has one, else start a trial at the lowest rung."""
    rungs = all_rungs(study.definition)[::-1]
    promotion = _first_affordable(study, history, spent, _promotable(study, history, rungs))
    return promotion or _start(study, history, spent, 0, rungs[0])


def _promotable(study: Study, history: History, rungs: tuple[int, ...]) -> list[Promote]:
    """Trials in the best 1/factor of their rung that are still there, highest rung first, then best first.

    A rung that has sent as many on as its size allows sends no other one before it has grown (delayed promotion, as in
    Hyper-Tune, Li et al. 2022): whom the first few made look good would else be promoted beside whom many do.
    """
    strategy = study.definition.plan.strategy
    assert isinstance(strategy, HyperbandStrategy)  # noqa: S101 - narrowed by the caller
    found: list[Promote] = []
    risen: set[int] = set()  # those that stopped early, and are among the best of the rung below
    for rung, (report, above) in enumerate(pairwise(rungs)):
        there = [trial for trial in history.trials.values() if trial.rung >= rung or trial.number in risen]
        settled = [trial for trial in there if _has_settled(trial, rung, report)]
        places = len(settled) // strategy.reduction_factor
        best = best_of(history, settled, report, places, study.definition.objective)
        risen = {trial.number for trial in best if trial.stopped_early}
        gone = sum(trial.rung > rung or trial.number in risen for trial in there)
        waiting = [trial for trial in best if trial.state is TrialState.PAUSED and trial.rung == rung][: max(0, places - gone)]
        if waiting:
            compared = Comparison.of(study, history, settled, report, places)
            found = [
                *(
                    Promote(trial.number, rung + 1, above, compared.decision("promoted", "hyperband", trial, rung + 1))
                    for trial in waiting
                ),
                *found,
            ]
    return found


def last_promotion(study: Study, history: History, spent: Spending) -> Promote | None:
    """When nothing runs and nothing else may start: the best trial that is furthest, so that one trial reaches the top.

    Only `async` needs it, for studies of fewer trials than its rungs would ask for; a synchronous rung always sends one on.
    """
    strategy = study.definition.plan.strategy
    if not isinstance(strategy, HyperbandStrategy) or strategy.mode == "sync":
        return None
    rungs = all_rungs(study.definition)[::-1]
    for rung in range(len(rungs) - 2, -1, -1):
        arrived = [trial for trial in history.trials.values() if trial.reports >= rungs[rung + 1]]
        if best_of(history, arrived, rungs[rung + 1], 1, study.definition.objective):
            return None
        waiting = [trial for trial in history.in_state(TrialState.PAUSED) if trial.rung == rung]
        ranked = best_of(history, waiting, rungs[rung], len(waiting), study.definition.objective)
        compared = Comparison.of(study, history, waiting, rungs[rung], 1)
        promotions = [
            Promote(trial.number, rung + 1, rungs[rung + 1], compared.decision("promoted", "hyperband", trial, rung + 1))
            for trial in ranked
        ]
        promotion = _first_affordable(study, history, spent, promotions)
        if promotion is not None:
            return promotion
    return None


def last_cut(study: Study, history: History, paused: Sequence[Trial]) -> Cut:
    """The end of what is still paused when the study ends: nothing is left that could take it further."""
    by = "hyperband" if isinstance(study.definition.plan.strategy, HyperbandStrategy) else study.definition.plan.strategy.kind
    why = []
    for trial in paused:
        there = [one for one in history.trials.values() if counts_at(one, trial.reports)]
        why.append(Comparison.of(study, history, there, trial.reports, 0).decision("cut", by, trial, trial.rung))
    return Cut(tuple(trial.number for trial in paused), TrialReason.RUNG_CUT, tuple(why))


def _has_settled(trial: Trial, rung: int, report: int) -> bool:
    """Whether the trial has nothing more to say about a rung: it ended, or it came to the rung's report and paused or went on."""
    is_live_there = trial.state in {TrialState.QUEUED, TrialState.RUNNING} and trial.rung <= rung
    return trial.state.is_end or (trial.reports >= report and not is_live_there)


def _first_affordable(study: Study, history: History, spent: Spending, promotions: list[Promote]) -> Promote | None:
    """The first promotion that the remaining reports pay for: a lower rung's is shorter than a higher one's."""
    for promotion in promotions:
        reports = promotion.until - history.trials[promotion.number].reports
        if may_train(study.definition.budget, spent, reports):
            return promotion
    return None


def _start(study: Study, history: History, spent: Spending, bracket: int, until: int) -> Start | None:
    budget = study.definition.budget
    if not may_add_trial(budget, spent) or not may_train(budget, spent, until):
        return None
    number = next_number(history)
    proposal = propose(study, history, number)
    if proposal is None:
        return None
    why = proposal.decision(study, history, bracket)
    return Start(number=number, parameters=proposal.parameters, bracket=bracket, rung=0, until=until, why=why)
