"""A narrower space from what a study has found: ranges around its good trials, and without what does not matter.

The best trial always stays inside, so that a study of the new space can find at least as good a configuration.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from statistics import quantiles
from typing import Literal, assert_never

from search_spaces import (
    CategoricalParameter,
    Configuration,
    ConstantParameter,
    FloatParameter,
    IntParameter,
    Parameter,
    Value,
    contains,
    count,
    identity,
)
from search_spaces.cube import coordinate_of, value_in
from service.domain.errors import TooFewTrials
from service.domain.history import History
from service.domain.study import Study
from service.domain.study_analysis import Importance
from service.domain.trial import TrialState

Action = Literal["narrowed", "extended", "dropped", "fixed", "kept"]
Takes = Callable[[Mapping[str, Parameter]], bool]
"""Whether a study of this space could be run: asked before a range is extended."""

FEWEST_TRIALS = 10
"""With fewer, what looks good is luck."""
FEWEST_GOOD = 5
_GOOD_SHARE = 0.25
_MARGIN = 0.1
"""Of the old range, on both sides of the good trials' middle 80 %: they are few, and lie closer together than the truth."""
_NARROWEST = 0.25
"""Of the old range: a study that follows can narrow it further, but none finds what was cut away."""
_UNCHANGED = 0.9
"""A range that keeps so much of itself is left as it is."""
_EDGE = 0.1
_EXTENSIONS = (0.25, 0.1)
"""Of the old range, the first that the trainer takes."""
_UNIMPORTANT = 0.05
"""Share of the variance below which a parameter is fixed."""
_BY_CHANCE = 0.05
_ROUNDING = 1e-6
_Number = FloatParameter | IntParameter


@dataclass(frozen=True)
class SpaceChange:
    """What becomes of one parameter, and why in a sentence."""

    parameter: str
    action: Action
    before: Parameter
    after: Parameter
    sentence: str


@dataclass(frozen=True)
class Refinement:
    """The space that is proposed, from `trials` trials compared at report `report`, of which `good` are the best, best first."""

    space: Mapping[str, Parameter]
    changes: tuple[SpaceChange, ...]
    trials: int
    good: tuple[int, ...]
    report: int


@dataclass(frozen=True)
class _Compared:
    """The trials that tell of the space: the best first."""

    all: Sequence[Configuration]
    good: Sequence[Configuration]

    def having(self, name: str) -> list[Value]:
        """The values that the good ones have of a parameter."""
        return [one[name] for one in self.good if name in one]


def refined(study: Study, history: History, importance: Importance, takes: Takes) -> Refinement:
    """The narrower space. Raises TooFewTrials."""
    report = importance.report or 1
    ranked = _ranked(study, history.searched, report)
    if len(ranked) < FEWEST_TRIALS:
        raise TooFewTrials(
            f"Refining needs {FEWEST_TRIALS} trials that can be compared, and study {study.id!r} has {len(ranked)}: "
            "ask again when there are more."
        )
    good = ranked[: max(FEWEST_GOOD, math.ceil(_GOOD_SHARE * len(ranked)))]
    trials = [history.trials[number].parameters for number in ranked]
    compared = _Compared(trials, trials[: len(good)])
    old = study.definition.space
    shares = _fixable(importance)
    needed = {other for parameter in old.values() for other in parameter.when or {}}
    changes: list[SpaceChange] = []
    for name, parameter in old.items():
        if name in needed:
            changes.append(_kept(name, parameter, "the conditions of other parameters name it"))
            continue
        others = {**old, **{change.parameter: change.after for change in changes}}

        def takes_it(after: Parameter, name: str = name, others: Mapping[str, Parameter] = others) -> bool:
            return takes({**others, name: after})

        changes.append(_changed(name, parameter, compared, shares.get(name), takes_it))
    return Refinement({change.parameter: change.after for change in changes}, tuple(changes), len(ranked), tuple(good), report)


def _ranked(study: Study, history: History, report: int) -> list[int]:
    """Trials with a value that had as many reports, or all that they were to have, best first by their best up to there."""
    objective = study.definition.objective
    found = []
    for number, values in history.values.items():
        trial = history.trials[number]
        finite = [value for value in values[:report] if math.isfinite(value)]
        if finite and (trial.state is TrialState.COMPLETED or len(values) >= report):
            counted = history.counted(number, report)  # one that breaks an outcome tells of the space too, but is not good
            best = min(counted or finite, key=objective.sort_key)
            found.append((not counted, objective.sort_key(best), number))
    return [number for _, _, number in sorted(found)]


def _fixable(importance: Importance) -> Mapping[str, float]:
    """The shares of parameters that hardly matter. The most important one always varies."""
    known = {one.parameter: one.importance for one in importance.parameters if one.importance is not None}
    if not any(known.values()):
        return {}
    first = max(known, key=lambda name: known[name])
    return {name: share for name, share in known.items() if share < _UNIMPORTANT and name != first}


def _changed(
    name: str, parameter: Parameter, compared: _Compared, share: float | None, takes: Callable[[Parameter], bool]
) -> SpaceChange:
    if count(parameter) == 1:
        return _kept(name, parameter, "it has one value only")
    best = compared.all[0].get(name)
    if share is not None and name in compared.all[0] and contains(parameter, best):
        after = ConstantParameter(kind="constant", value=best, when=parameter.when)
        said = f"`{name}` is fixed at {_text(best)}, as in the best trial: it explains {share:.1%} of the differences."
        return SpaceChange(name, "fixed", parameter, after, said)
    if len(compared.having(name)) < FEWEST_GOOD:
        return _kept(name, parameter, f"{len(compared.having(name))} of the best {len(compared.good)} trials have it")
    match parameter:
        case FloatParameter() | IntParameter():
            return _ranged(name, parameter, compared, takes)
        case CategoricalParameter():
            return _chosen(name, parameter, compared)
        case ConstantParameter():
            return _kept(name, parameter, "it has one value only")
        case _:
            assert_never(parameter)


def _chosen(name: str, parameter: CategoricalParameter, compared: _Compared) -> SpaceChange:
    """Without the choices that many trials had and no good one: by chance that would have been so in fewer than 5 % of cases."""
    having = [one[name] for one in compared.all if name in one]
    good = compared.having(name)
    tried = {identity(choice): sum(identity(value) == identity(choice) for value in having) for choice in parameter.choices}
    liked = {identity(value) for value in good}
    dropped = [
        choice
        for choice in parameter.choices
        if identity(choice) not in liked and _none_by_chance(len(having), tried[identity(choice)], len(good)) < _BY_CHANCE
    ]
    if not dropped:
        return _kept(name, parameter, "no choice was tried often enough in vain")
    gone = {identity(choice) for choice in dropped}
    left = tuple(one for one in parameter.choices if identity(one) not in gone)
    after = CategoricalParameter.model_validate({**parameter.model_dump(), "choices": left})
    listed = ", ".join(f"{_text(choice)} ({tried[identity(choice)]} trials)" for choice in dropped)
    said = f"`{name}` loses {listed}: none of them is among the best {len(good)} of {len(having)}."
    return SpaceChange(name, "dropped", parameter, after, said)


def _none_by_chance(trials: int, tried: int, good: int) -> float:
    """How likely it is that none of the good ones is among those that were tried, when good ones are anywhere alike."""
    return math.comb(trials - tried, good) / math.comb(trials, good)


def _ranged(name: str, parameter: _Number, compared: _Compared, takes: Callable[[Parameter], bool]) -> SpaceChange:
    places = sorted(coordinate_of(parameter, value) for value in compared.having(name))
    tenths = quantiles(places, n=10, method="inclusive")
    best = compared.all[0].get(name, compared.having(name)[0])
    at = coordinate_of(parameter, best)
    low, high = _wide_enough(min(tenths[0] - _MARGIN, at), max(tenths[-1] + _MARGIN, at))
    extended = [
        after
        for is_low in (True, False)
        if _on_edge(places, is_low=is_low)
        for after in _extended(parameter, low, high, best, is_low=is_low, takes=takes)
    ]
    lie = f"the best {len(places)} trials lie {'mostly ' if len(places) > FEWEST_GOOD else ''}in {_places(parameter, places)}"
    if extended:
        said = f"`{name}` reaches beyond an edge, from {_range(parameter)} to {_range(extended[0])}: {lie}."
        return SpaceChange(name, "extended", parameter, extended[0], said)
    after = _with_range(parameter, value_in(parameter, low), value_in(parameter, high), best)
    if high - low > _UNCHANGED or _range(after) == _range(parameter):
        return _kept(name, parameter, lie)
    said = f"`{name}` narrows from {_range(parameter)} to {_range(after)}: {lie}."
    return SpaceChange(name, "narrowed", parameter, after, said)


def _on_edge(places: Sequence[float], *, is_low: bool) -> bool:
    """Whether at least half of the good ones are at that end of the range."""
    at_edge = sum(at <= _EDGE if is_low else at >= 1 - _EDGE for at in places)
    return 2 * at_edge >= len(places)


def _wide_enough(low: float, high: float) -> tuple[float, float]:
    """The interval inside [0, 1], widened to the narrowest that a range may become."""
    lack = max(0.0, _NARROWEST - (high - low)) / 2
    low, high = low - lack, high + lack
    shift = max(0.0, -low) - max(0.0, high - 1)
    return max(0.0, low + shift), min(1.0, high + shift)


def _extended(
    parameter: _Number, low: float, high: float, best: Value, *, is_low: bool, takes: Callable[[Parameter], bool]
) -> list[_Number]:
    """The range with one end farther out than it was: the first that the trainer takes, or none."""
    for share in _EXTENSIONS:
        try:
            after = _with_range(
                parameter,
                _beyond(parameter, -share) if is_low else value_in(parameter, low),
                value_in(parameter, high) if is_low else _beyond(parameter, 1 + share),
                best,
                may_grow=True,
            )
        except (ValueError, OverflowError):  # a logarithm's range that would reach zero, or numbers that a float cannot hold
            continue
        if _range(after) != _range(parameter) and (after.low < parameter.low or after.high > parameter.high) and takes(after):
            return [after]
    return []


def _beyond(parameter: _Number, place: float) -> float:
    """The number at a place outside of [0, 1], on the parameter's own scale."""
    low, high = float(parameter.low), float(parameter.high)
    if parameter.log:
        return float(math.exp(math.log(low) * (1 - place) + math.log(high) * place))
    return low * (1 - place) + high * place


def _with_range(parameter: _Number, low: Value, high: Value, best: Value, *, may_grow: bool = False) -> _Number:
    """The parameter between about these numbers, rounded, on its steps and with the best value in it. Raises ValueError."""
    assert isinstance(low, int | float) and isinstance(high, int | float) and isinstance(best, int | float)  # noqa: PT018, S101
    if parameter.step is None:
        ends = (min(float(f"{low:.3g}"), best), max(float(f"{high:.3g}"), best))
    else:
        first = math.floor((low - parameter.low) / parameter.step + _ROUNDING)
        last = math.ceil((high - parameter.low) / parameter.step - _ROUNDING)
        on_step = [_step_at(parameter, place) for place in (first, last)]
        ends = (min(on_step[0], best), max(on_step[1], best))
    if not may_grow:
        ends = (max(ends[0], parameter.low), min(ends[1], parameter.high))
    grid = tuple(value for value in parameter.grid or () if ends[0] <= value <= ends[1]) or None
    changes = {"low": ends[0], "high": ends[1], "grid": grid if parameter.grid else None}
    found = type(parameter).model_validate({**parameter.model_dump(), **changes})
    if not contains(found, best):
        raise ValueError(f"{best} is not on the steps of the new range")
    return found


def _step_at(parameter: _Number, place: int) -> float:
    """The value so many steps from the low end: in decimals, as the parameter's own values are."""
    value = Decimal(str(parameter.low)) + place * Decimal(str(parameter.step))
    return int(value) if isinstance(parameter, IntParameter) else float(value)


def _kept(name: str, parameter: Parameter, why: str) -> SpaceChange:
    return SpaceChange(name, "kept", parameter, parameter, f"`{name}` stays as it is: {why}.")


def _range(parameter: _Number) -> str:
    return f"[{parameter.low:.3g}, {parameter.high:.3g}]"


def _places(parameter: _Number, places: Sequence[float]) -> str:
    low, high = (value_in(parameter, at) for at in (places[0], places[-1]))
    return f"[{low:.3g}, {high:.3g}]"


def _text(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
