"""What a new study can know of earlier ones: their trials, put into its space."""

from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from search_spaces import Configuration, Value, contains, count, identity, value_at
from service.domain.definition import StudyDefinition
from service.domain.history import History, PriorTrial
from service.domain.searched import setting
from service.domain.study import Study, WarmStart
from service.domain.trial import Trial, TrialState

MOST_PRIOR = 2_000
"""Trials that a study knows from its start: half of them the best, the others the latest."""


@dataclass(frozen=True)
class LeftOut:
    """Why a trial does not carry over; `reason` is for programs."""

    reason: str


def unlike(definition: StudyDefinition, old: StudyDefinition) -> str | None:
    """Why nothing that an earlier study measured says anything of this one, or None where it does."""
    kind = definition.trainer.kind
    if old.trainer.kind != kind:
        return f"trains with `{old.trainer.kind}`, not with `{kind}`"
    if old.objective != definition.objective:
        wanted, said = definition.objective, old.objective
        return f"is to {said.direction} `{said.metric}`, not to {wanted.direction} `{wanted.metric}`"
    return None


def warm_start(
    definition: StudyDefinition, studies: Sequence[tuple[Study, History]], settled: AbstractSet[str] = frozenset()
) -> tuple[tuple[PriorTrial, ...], WarmStart]:
    """The trials of these studies that say something of the new one, and what became of all.

    `settled` names parameters that have one value now because they were found to matter little: a trial with another value of
    one says as much as one with that value.
    """
    carried: list[tuple[PriorTrial, Trial]] = []
    because: Counter[str] = Counter()
    for old, history in studies:
        for number, trial in sorted(history.trials.items()):
            found = carried_over(definition, old.definition, trial, history.values.get(number, ()), settled)
            if isinstance(found, LeftOut):
                because[found.reason] += 1
            else:
                carried.append((found, trial))
    kept = _best_and_latest(definition, carried)
    because["too_many"] += len(carried) - len(kept)
    return kept, WarmStart(len(kept), dict(+because))


def carried_over(
    definition: StudyDefinition,
    old: StudyDefinition,
    trial: Trial,
    values: Sequence[float],
    settled: AbstractSet[str] = frozenset(),
) -> PriorTrial | LeftOut:
    """A trial of an earlier study as this one knows it."""
    if len(definition.objectives) > 1:
        return LeftOut("several_objectives")
    if trial.value is None:
        return LeftOut("no_value")
    if trial.parent is not None or trial.repeats is not None:
        return LeftOut("copy_or_repeat")  # of no configuration of its own
    if (old.trainer.report_every, old.trainer.max_steps) != (definition.trainer.report_every, definition.trainer.max_steps):
        return LeftOut("other_reports")
    parameters = _moved(definition, old, trial.parameters, settled)
    if isinstance(parameters, LeftOut):
        return parameters
    is_whole = trial.state is TrialState.COMPLETED and old.reports_of(trial.parameters) == definition.reports_of(parameters)
    return PriorTrial(trial.study_id, trial.number, parameters, tuple(values), is_whole)


def _moved(
    definition: StudyDefinition, old: StudyDefinition, tried: Configuration, settled: AbstractSet[str]
) -> Configuration | LeftOut:
    """The configuration in the new space that trains as the old one did, but for what is settled."""
    space = definition.search_space
    found: dict[str, Value] = {}
    for name in space.parents_first:
        is_active = space.is_active(name, found)
        said = _said(old, tried, name) if is_active else ()
        if said and name in settled and count(space.parameters[name]) == 1:
            said = [value_at(space.parameters[name], 0)]
        if is_active and not said:
            return LeftOut("unknown_value")
        for value in said:
            if not contains(space.parameters[name], value):
                return LeftOut("out_of_range")
            found[name] = value
    fixed = [name for name in dict.fromkeys((*tried, *space.parameters)) if name not in found]
    if any(not _is_same(_said(old, tried, name), _said(definition, {}, name)) for name in fixed):
        return LeftOut("other_setting")
    ordered = {name: found[name] for name in space.parameters if name in found}
    return ordered if space.meets_constraints(ordered) else LeftOut("constraint_not_met")


def _said(definition: StudyDefinition, parameters: Configuration, name: str) -> Sequence[Value]:
    """The value that a trial with these parameters trains with; none where neither they nor the trainer says one."""
    if name in parameters:
        return [parameters[name]]
    try:
        return [setting(definition.trainer, name)]
    except KeyError:
        return []


def _is_same(one: Sequence[Value], other: Sequence[Value]) -> bool:
    """Whether they are the same values; 0 and 0.0 are, 1 and true are not."""
    texts = [[identity(value) for value in values] for values in (one, other)]
    has_flag = any(isinstance(value, bool) for value in (*one, *other))
    return texts[0] == texts[1] or (not has_flag and one == other)


def _best_and_latest(definition: StudyDefinition, carried: Sequence[tuple[PriorTrial, Trial]]) -> tuple[PriorTrial, ...]:
    """At most so many of them, in their order."""
    if len(carried) <= MOST_PRIOR:
        return tuple(prior for prior, _ in carried)
    objective, half = definition.objective, MOST_PRIOR // 2

    def rank(place: int) -> tuple[bool, float]:
        value = carried[place][1].best_value
        return value is None, 0.0 if value is None else objective.sort_key(value)

    best = sorted(range(len(carried)), key=rank)[:half]
    others = set(range(len(carried))) - set(best)
    latest = sorted(others, key=lambda place: carried[place][1].created_at)[-half:]
    return tuple(carried[place][0] for place in sorted([*best, *latest]))
