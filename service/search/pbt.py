"""Population-based training (Jaderberg et al. 2017), with truncation selection.

A population is a number of members, `Trial.bracket`, each filled by one trial after the other; `Trial.rung` is how many
generations a trial is through, a generation being `interval` reports. At the end of each the members are ranked by the value at
that very report, as in the paper: what counts is the weights a copy would start from, and not better ones that are gone. The
worst `quantile` ends, failed members with it; in the place of each begins a copy of one of the best `quantile`, its parameters
changed a little or drawn anew. All others go on.

Copies begin before the members that they are of go on, as those write over what is copied. A member that is sure to be in
neither part goes on at once; the others wait until their generation is through.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from service.domain.budget import Spending, may_add_trial, may_train
from service.domain.decision import Decision, DecisionKind
from service.domain.history import History
from service.domain.lineage import members_of
from service.domain.objective import Objective
from service.domain.strategy import PbtStrategy
from service.domain.study import Study
from service.domain.trial import Trial, TrialReason, TrialState
from service.search.actions import Action, Cut, Promote, Start
from service.search.draws import random_of
from service.search.memory import keys_of
from service.search.perturb import perturbed
from service.search.samplers import asked_for, next_number, propose


def next_of_population(study: Study, history: History, spent: Spending) -> Action | None:
    """Found the population; then, oldest generation first: end its worst, begin copies in their place, let the others go on."""
    members = members_of(history.trials.values())
    strategy = _strategy(study)
    if len(members) < strategy.population:
        founder = _founder(study, history, spent, len(members))
        if founder is not None:
            return founder
    if not members:
        return None
    latest = [trials[-1].rung + 1 for trials in members.values()]
    is_through = True
    for number in range(min(latest), max(latest) + 1):
        if number * strategy.interval >= study.definition.max_reports:
            break
        generation = _Generation.of(study, history, members, number, is_through_before=is_through)
        if not may_train(study.definition.budget, spent, generation.until - generation.report):
            return None
        action = _exploit(study, history, spent, generation) or generation.promotion(study, history)
        if action is not None:
            return action
        is_through = is_through and generation.is_through
    return None


@dataclass(frozen=True)
class _Generation:
    """One generation at its end: the members that have come there or ended, best first, those without a value last.

    `places` are the worst that end, and as many of the best that are copied. `empty` are members whose trial has ended.
    """

    number: int
    report: int
    until: int
    is_through: bool
    places: int
    ranked: Sequence[Trial]
    values: Mapping[int, float]
    empty: Sequence[Trial]

    @staticmethod
    def of(
        study: Study, history: History, members: Mapping[int, Sequence[Trial]], number: int, *, is_through_before: bool
    ) -> "_Generation":
        """Generation `number`, counted from 1."""
        definition, strategy = study.definition, _strategy(study)
        report = number * strategy.interval
        present = [[trial for trial in trials if trial.parent_report < report][-1] for trials in members.values()]
        settled = [trial for trial in present if _has_settled(trial, number, is_through_before=is_through_before)]
        values = {trial.number: _value_at(history, trial, report) for trial in settled}
        ranked = sorted(settled, key=lambda trial: _standing(history, trial, report, definition.objective))
        latest = {trials[-1].number for trials in members.values()}
        return _Generation(
            number=number,
            report=report,
            until=min(report + strategy.interval, definition.max_reports),
            is_through=len(settled) == len(present),
            places=strategy.places_of(len(present)),
            ranked=ranked,
            values=values,
            empty=[trial for trial in ranked[::-1] if trial.state.is_end and trial.rung < number and trial.number in latest],
        )

    @property
    def parents(self) -> Sequence[Trial]:
        """Whom copies are of; none before the generation is through, and none once its best have gone on."""
        return [one for one in self.ranked[: self.places] if self.waits(one)] if self.is_through else []

    @property
    def losers(self) -> Sequence[Trial]:
        """Who ends, worst first."""
        return [trial for trial in self.ranked[: -self.places - 1 : -1] if self.waits(trial) and trial not in self.parents]

    def waits(self, trial: Trial) -> bool:
        """Whether the trial stands at the end of this generation."""
        return trial.state is TrialState.PAUSED and trial.rung == self.number - 1

    def promotion(self, study: Study, history: History) -> Promote | None:
        """The best member that may go on: any once the generation is through, else one whose place cannot matter any more."""
        safe = self.ranked if self.is_through else self.ranked[self.places : -self.places]
        trial = next((trial for trial in safe if self.waits(trial)), None)
        if trial is None:
            return None
        why = self.decision("promoted", study, history, trial)
        if self.is_through and trial in self.ranked[-self.places :]:
            most = study.definition.budget.trials
            is_spent = most is not None and len(history.searched.trials) >= most
            left = "no trial is left of `budget.trials` for a copy" if is_spent else "no copy of a better one can be put"
            why = replace(why, although=f"{left} in its place")
        return Promote(trial.number, self.number, self.until, why)

    def decision(self, kind: DecisionKind, study: Study, history: History, trial: Trial, parent: Trial | None = None) -> Decision:
        """The reason for what becomes of a member."""
        best = history.best(study.definition.objective)
        value = self.values.get(trial.number, math.nan)
        last = self.ranked[: -self.places][-1:] if self.is_through else ()
        cut = self.values[last[0].number] if last else math.nan
        return Decision(
            kind=kind, by="pbt", report=self.report, rung=self.number, bracket=trial.bracket,
            value=value if math.isfinite(value) else None, rank=self.ranked.index(trial) + 1, among=len(self.ranked),
            cut=cut if math.isfinite(cut) else None, parent=None if parent is None else parent.number,
            incumbent=None if best is None else best.number, incumbent_value=None if best is None else best.best_value,
        )  # fmt: skip


def _founder(study: Study, history: History, spent: Spending, member: int) -> Start | None:
    """A member's first trial: asked for, or drawn at random."""
    definition = study.definition
    until = min(_strategy(study).interval, definition.max_reports)
    if not may_add_trial(definition.budget, spent) or not may_train(definition.budget, spent, until):
        return None
    number = next_number(history)
    proposal = propose(study, history, number)
    if proposal is None:
        return None
    why = proposal.decision(study, history, member)
    return Start(number=number, parameters=proposal.parameters, bracket=member, rung=0, until=until, why=why)


def _exploit(study: Study, history: History, spent: Spending, generation: _Generation) -> Cut | Start | None:
    """End the worst members, as far as copies may begin in their place; then begin these."""
    parents = generation.parents
    if not parents:
        return None
    most = study.definition.budget.trials
    room = len(generation.ranked) if most is None else max(0, most - spent.trials - len(generation.empty))
    losers = sorted(generation.losers[:room], key=lambda trial: trial.number)
    if losers:
        why = [
            generation.decision("cut", study, history, trial, _parent(study, trial, parents, generation.number))
            for trial in losers
        ]
        return Cut(tuple(trial.number for trial in losers), TrialReason.EXPLOITED, tuple(why))
    if not generation.empty or not may_add_trial(study.definition.budget, spent):
        return None
    return _copy(study, history, generation, generation.empty[0])


def _copy(study: Study, history: History, generation: _Generation, ended: Trial) -> Start:
    """A trial in the place of one that has ended."""
    parent = _parent(study, ended, generation.parents, generation.number)
    space, number = study.definition.search_space, next_number(history)
    seen = keys_of(space, history.trials.values())
    asked = asked_for(study, history, seen)
    random = random_of(study.definition.seed, number, "perturb")
    parameters = asked.parameters if asked else perturbed(space, parent.parameters, _strategy(study), seen, random)
    best = history.best(study.definition.objective)
    why = Decision(
        kind="proposed", by=asked.by if asked else "pbt", report=generation.report, rung=generation.number, bracket=ended.bracket,
        parent=parent.number, incumbent=None if best is None else best.number,
        incumbent_value=None if best is None else best.best_value,
    )  # fmt: skip
    return Start(
        number=number, parameters=parameters, bracket=ended.bracket, rung=generation.number, until=generation.until,
        parent=parent.number, parent_report=generation.report, why=why,
    )  # fmt: skip


def _parent(study: Study, ended: Trial, parents: Sequence[Trial], generation: int) -> Trial:
    """Whom the trial is copied from that begins in the place of `ended`; known before that trial has a number."""
    return random_of(study.definition.seed, ended.number, f"parent {generation}").choice(parents)


def _has_settled(trial: Trial, generation: int, *, is_through_before: bool) -> bool:
    """Whether the trial came to the end of that generation, or ended on the way; one that ended before may yet be replaced."""
    came = trial.rung >= generation or (trial.rung == generation - 1 and trial.state is TrialState.PAUSED)
    return came or (trial.state.is_end and (trial.rung == generation - 1 or is_through_before))


def _standing(history: History, trial: Trial, report: int, objective: Objective) -> tuple[float, float, int]:
    """Smaller for better: those that break outcomes at that report come behind those that do not, those without a value last."""
    value = _value_at(history, trial, report)
    if not math.isfinite(value):
        return math.inf, 0.0, trial.number
    points = history.points.get(trial.number)
    return points[report - 1].violation if points else 0.0, objective.sort_key(value), trial.number


def _value_at(history: History, trial: Trial, report: int) -> float:
    """The value at that report; NaN for a trial that did not come there."""
    values = history.values.get(trial.number, ())
    return values[report - 1] if len(values) >= report else math.nan


def _strategy(study: Study) -> PbtStrategy:
    strategy = study.definition.plan.strategy
    assert isinstance(strategy, PbtStrategy)  # noqa: S101 - narrowed by the caller
    return strategy
