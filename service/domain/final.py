"""The honest winner: a study's best configurations trained again under new seeds, so that luck does not choose among them.

The search takes the best of many noisy values, which is better than the configuration that gave it. Its own values therefore
do not count here, only those of the new runs.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev

from search_spaces import Configuration
from service.domain.definition import Objective
from service.domain.errors import CheckpointNotFound
from service.domain.ports import CheckpointStore
from service.domain.significance import holm, welch
from service.domain.sizes import size
from service.domain.study import Study
from service.domain.trial import Trial, TrialState

ALPHA = 0.05
"""Below this p-value a difference is taken for real."""
METHOD = "Welch's t-test, two-sided, of the first with each other, with Holm's correction"
_ALIKE = 1.05
"""Costs up to so many times the lowest count as equal: the same training takes that much longer on a busier machine."""


@dataclass(frozen=True)
class Finalist:
    """A configuration that was trained again: `trial` is the search's, `runs` are those under new seeds, by number.

    `bytes` is the size of its exported model, where there is one.
    """

    trial: int
    runs: tuple[Trial, ...]
    bytes: int | None = None

    @property
    def parameters(self) -> Configuration:
        """What it tries."""
        return self.runs[0].parameters

    @property
    def finished(self) -> list[Trial]:
        """Runs that were trained to their end: the others say nothing of it."""
        return [run for run in self.runs if run.state is TrialState.COMPLETED and math.isfinite(_value(run))]

    @property
    def failed(self) -> int:
        """Runs that diverged or failed otherwise: another seed may do that to whoever trains it next."""
        return sum(run.state in {TrialState.FAILED, TrialState.INFEASIBLE} for run in self.runs)

    @property
    def values(self) -> list[float]:
        """The objective at the best report of each run that finished."""
        return [_value(run) for run in self.finished]

    @property
    def mean(self) -> float | None:
        """Of those values."""
        return fmean(self.values) if self.values else None

    @property
    def deviation(self) -> float | None:
        """The sample standard deviation of those values; None for fewer than two."""
        return stdev(self.values) if len(self.values) > 1 else None

    @property
    def seconds(self) -> float | None:
        """Mean training time of a run."""
        return fmean(run.seconds for run in self.finished) if self.finished else None

    @property
    def gpu_seconds(self) -> float | None:
        """Mean GPU time of a run."""
        return fmean(run.gpu_seconds for run in self.finished) if self.finished else None

    def best_run(self, objective: Objective) -> Trial | None:
        """The finished run with the best value; the earlier one of two equals."""
        return min(self.finished, key=lambda run: (objective.sort_key(_value(run)), run.number), default=None)


@dataclass(frozen=True)
class FinalResult:
    """What the new runs say. `finalists` are ranked by their mean, those with failed runs behind those without.

    `chances` has for each finalist but the first how likely a difference from it as large as seen is when there is none; None
    where that cannot be said. `winner` is None until the study has ended, and where no run finished.
    """

    finalists: tuple[Finalist, ...] = ()
    chances: Mapping[int, float | None] = field(default_factory=dict)
    winner: Finalist | None = None
    champion: Trial | None = None
    """The winner's best run, whose model is the study's."""
    verdict: str = ""

    @property
    def finished(self) -> int:
        """Runs that were trained to their end."""
        return sum(len(one.finished) for one in self.finalists)


def final_result(study: Study, runs: Sequence[Trial], sizes: Mapping[int, int] | None = None) -> FinalResult:
    """The result of a study whose definition asks for a final; `runs` are its trials that repeat another.

    The first by mean wins when every other one is worse by more than noise. Otherwise the cheapest of those that cannot be told
    from it does: by GPU time, or training time without a GPU, and at equal cost by the size of the model, which `sizes` has in
    bytes for each trial of the search. One with a failed run does not win while another has none.
    """
    objective = study.definition.objective
    finalists = _ranked(_grouped(runs, sizes or {}), objective)
    counted = [one for one in finalists if one.finished]
    if not study.state.is_end or not counted:
        return FinalResult(tuple(finalists), verdict=_before(study, finalists))
    first, *others = counted
    chances = _chances(first, others)
    sound = [one for one in counted if not one.failed] or counted
    tied = [one for one in sound if one is first or not _differs(chances[one.trial])]
    winner = _cheapest(tied)
    verdict = _verdict(study, sound, chances, tied, winner) + _shortfall(study, finalists)
    return FinalResult(tuple(finalists), chances, winner, winner.best_run(objective), verdict)


def export_sizes(checkpoints: CheckpointStore, study: Study, runs: Sequence[Trial]) -> Mapping[int, int]:
    """Bytes of the exported model of each finalist's best run, by the search's trial; without those that are not there."""
    found: dict[int, int] = {}
    for one in _grouped(runs, {}):
        best = one.best_run(study.definition.objective)
        if best is None or best.best_report is None:
            continue
        try:
            manifest = checkpoints.manifest(study.id, best.number, best.best_report)
        except CheckpointNotFound:
            continue
        found[one.trial] = sum(file.bytes for file in manifest.files)
    return found


def kept_runs(study: Study, runs: Sequence[Trial]) -> frozenset[int]:
    """Runs whose exported model is kept: the best one of each finalist, as any of them may be the winner's."""
    best = [one.best_run(study.definition.objective) for one in _grouped(runs, {})]
    return frozenset(run.number for run in best if run is not None)


def _grouped(runs: Sequence[Trial], sizes: Mapping[int, int]) -> list[Finalist]:
    groups: dict[int, list[Trial]] = {}
    for run in sorted(runs, key=lambda run: run.number):
        if run.repeats is not None:
            groups.setdefault(run.repeats, []).append(run)
    return [Finalist(trial, tuple(group), sizes.get(trial)) for trial, group in groups.items()]


def _ranked(finalists: list[Finalist], objective: Objective) -> list[Finalist]:
    def rank(one: Finalist) -> tuple[bool, bool, float, int]:
        mean = one.mean
        return mean is None, one.failed > 0, 0.0 if mean is None else objective.sort_key(mean), one.trial

    return sorted(finalists, key=rank)


def _chances(first: Finalist, others: Sequence[Finalist]) -> dict[int, float | None]:
    raw = {one.trial: welch(first.values, one.values) for one in others}
    known = {trial: chance for trial, chance in raw.items() if chance is not None}
    adjusted = dict(zip(known, holm(list(known.values())), strict=True))
    return {trial: adjusted.get(trial) for trial in raw}


def _differs(chance: float | None) -> bool:
    return chance is not None and chance < ALPHA


def _cheapest(tied: Sequence[Finalist]) -> Finalist:
    """Of finalists that finished, the best first."""
    costs = {one.trial: _cost(one, tied) for one in tied}
    alike = [one for one in tied if costs[one.trial] <= _ALIKE * min(costs.values())]
    return min(alike, key=lambda one: math.inf if one.bytes is None else one.bytes)


def _cost(one: Finalist, among: Sequence[Finalist]) -> float:
    """Seconds of a run: on the GPU where any of them used one."""
    return (one.gpu_seconds if any(other.gpu_seconds for other in among) else one.seconds) or 0.0


def _before(study: Study, finalists: Sequence[Finalist]) -> str:
    """What can be said while there is no winner."""
    done, most = sum(len(one.finished) for one in finalists), _planned(study)
    if study.state.is_end:
        why = "no run finished" if finalists else "the study ended before any run began"
        return f"Nothing was decided, as {why}: the best trial of the search stays the best."
    if not finalists:
        final = study.definition.final
        top = final.top if final else 0
        return f"The search goes on; then its best {top} configurations are trained again under {most // max(1, top)} seeds each."
    return f"{done} of at most {most} runs have finished so far."


def _verdict(
    study: Study, sound: Sequence[Finalist], chances: Mapping[int, float | None], tied: Sequence[Finalist], winner: Finalist
) -> str:
    first, *others = sound
    metric = study.definition.objective.metric
    if not others:
        return f"Trial {first.trial} wins with {metric} {_spread(first)}: no other configuration finished its runs."
    if len(tied) == 1:
        next_best = max(others, key=lambda one: chances[one.trial] or 0.0)
        return (
            f"Trial {first.trial} wins with {metric} {_spread(first)}: every other is worse by more than noise, least clearly "
            f"trial {next_best.trial} with {_spread(next_best)} (p = {chances[next_best.trial]:.2g})."
        )
    known = [chance for one in tied if (chance := chances.get(one.trial)) is not None]
    why = f"p >= {min(known):.2g}" if len(known) == len(tied) - 1 else "too few runs to tell"
    cost = f"{_cost(winner, tied):.3g} s {'of GPU ' if winner.gpu_seconds else ''}a run"
    model = "" if winner.bytes is None else f" and a model of {size(winner.bytes)}"
    names = ", ".join(str(one.trial) for one in tied)
    return (
        f"Trials {names} cannot be told apart from noise ({why}): trial {winner.trial} with {metric} {_spread(winner)} wins as "
        f"the cheapest, with {cost}{model}."
    )


def _shortfall(study: Study, finalists: Sequence[Finalist]) -> str:
    """What is missing of the runs that were asked for."""
    done, failed = sum(len(one.finished) for one in finalists), sum(one.failed for one in finalists)
    listed = ", ".join(f"{one.failed} of trial {one.trial}" for one in finalists if one.failed)
    said = f" Runs failed: {listed}, which counts against it." if failed else ""
    seeds = study.definition.final.seeds if study.definition.final else 0
    if done + failed < len(finalists) * seeds:
        said += f" The study ended ({study.reason}) when {done} of at most {_planned(study)} runs had finished."
    return said


def _planned(study: Study) -> int:
    final = study.definition.final
    return final.top * final.seeds if final else 0


def _spread(one: Finalist) -> str:
    deviation = "" if one.deviation is None else f" ± {one.deviation:.2g}"
    return f"{one.mean:.4g}{deviation} (n = {len(one.values)})"


def _value(run: Trial) -> float:
    return math.nan if run.best_value is None else run.best_value
