"""How a study may end: its search goes on in worlds that are like what was measured. Run as a process of its own.

python -m service.search.forecast < REQUEST.json
"""

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from math import ceil, exp, inf, isfinite, log, nextafter, sqrt
from random import Random
from statistics import fmean, stdev, variance

from search_spaces import Configuration
from service.domain.forecast import Course
from service.domain.history import History
from service.domain.objective import Objective
from service.domain.standing import Standing
from service.domain.study import Study, StudyState
from service.domain.trial import Trial, TrialReason, TrialState
from service.search.draws import random_of
from service.search.memory import Same
from service.search.preview import without_model
from service.search.simulate import Simulation, simulate

COURSES = 24
_FEWEST = 4
_SECONDS = 12.0
"""After which no other course begins, when there are enough."""
_LONGEST_SECONDS = 60
_MOST_REPORTS = 5_000
_SPREAD, _GUESSED_TRIALS = 0.4, 2
"""By how much trials differ in speed, in the logarithm, and after how many measured ones that guess counts no more than they."""
_NOISE, _GUESSED = 0.2, 4
"""By how much the reports of one trial do, and after how many measured times that guess counts no more than they."""
_DRIFT = 0.05
"""By how much all trials together may be faster or slower than so far: a machine has other things to do, at times."""
_BESIDE = 0.1
"""What a report takes beside its training, as a share of that, in the mean, as long as it was not measured."""
_SHRINKING = 0.6
"""What a report changes a value by, as a share of what the report before did, where no trial has come so far."""
_BLUR = 0.1
"""How far values may lie from the only one so far, as a share of it."""
_BLIND, _BLIND_TRIALS = 0.7, 12
"""How many of the courses leave open when the target is reached, and after how many ended trials half as many do."""
_BEYOND = 1.5
"""By how many times the reports that are left such a course may miss the target."""
_TINY = 1e-6
_FAILED = frozenset({TrialState.FAILED, TrialState.INFEASIBLE})


def main() -> int:
    standing = Standing.from_json(sys.stdin.read())
    began = time.monotonic()
    found = courses(standing, lambda: time.monotonic() - began > _SECONDS)
    json.dump([asdict(course) for course in found], sys.stdout)
    return 0


def courses(standing: Standing, is_late: Callable[[], bool] = lambda: False, most: int = COURSES) -> list[Course]:
    """Ways in which the study may go on; none when one has more reports than are simulated. It stops early when it is late."""
    study, history = _lighter(standing)
    measured = _Measured.of(history)
    left = _reports_left(standing, study, history, measured)
    found: list[Course] = []
    for place in range(most):
        if place >= _FEWEST and is_late():
            break
        world = _World.of(standing, study, history, measured, place, left)
        done = _led(standing, study, history, world)
        if done.reason is None:
            return []
        found.append(_course(standing, done, world.skipped_seconds))
    return found


def _led(standing: Standing, study: Study, history: History, world: "_World") -> Simulation:
    return simulate(
        study, _nothing, workers=standing.slots, seconds=world.seconds, fail=world.fail, stop=world.stop,
        gain=world.gain, lose=world.lose,
        history=history, overhead_seconds=world.overhead_seconds, stop_after_reports=_MOST_REPORTS,
    )  # fmt: skip


def _reports_left(standing: Standing, study: Study, history: History, measured: "_Measured") -> int:
    """How many reports are left where none reaches the target; 0 where the study has none, or is too large to tell."""
    if study.definition.budget.target is None:
        return 0
    budget = study.definition.budget.model_copy(update={"target": None})
    endless = replace(study, definition=study.definition.model_copy(update={"budget": budget}))
    done = _led(standing, endless, history, _World.of(standing, endless, history, measured, 0, 0))
    given = sum(trial.own_reports for trial in history.trials.values())
    return 0 if done.reason is None else sum(trial.own_reports for trial in done.history.trials.values()) - given


def _lighter(standing: Standing) -> tuple[Study, History]:
    """The study with draws in place of its model's proposals, and one objective.

    Its clock begins with `now`, and it has run for as long by then.
    """
    definition = standing.definition
    simpler = {
        "strategy": without_model(definition.plan.strategy), "outcomes": (), "objectives": (definition.objective,),
        "resources": definition.resources.model_copy(update={"max_concurrent_trials": standing.slots}),
    }  # fmt: skip
    study = Study(
        id="forecast", definition=definition.model_copy(update=simpler), created_at=standing.now, state=StudyState.RUNNING,
        started_at=standing.now - timedelta(seconds=standing.elapsed_seconds), amended_at=standing.amended_at,
    )  # fmt: skip
    trials = {number: replace(trial, not_before=None) for number, trial in standing.history.trials.items()}
    return study, replace(standing.history, trials=trials, prior=(), points={})


def _course(standing: Standing, done: Simulation, skipped_seconds: float) -> Course:
    searched = list(done.history.searched.trials.values())
    with_value = sum(trial.best_value is not None for trial in searched)
    final = standing.definition.final
    return Course(
        seconds=standing.elapsed_seconds + done.seconds,
        gpu_seconds=sum(trial.gpu_seconds for trial in done.history.trials.values())
        + skipped_seconds * standing.definition.resources.gpus,
        trials=len(searched),
        reports=done.history.searched.reports_given,
        kept=min(with_value, standing.definition.checkpoints.keep) + (min(with_value, final.top) if final else 0),
    )


def _nothing(_: Configuration, __: int) -> float:
    raise AssertionError("what a report says is drawn by `gain`")


@dataclass
class _World:
    """One way in which things may go on. What was measured is drawn from anew, so that worlds differ by as much as is unknown.

    A new trial takes after one that there was: it is as fast, but for what is unknown, and fails or stops early where that one
    did. `skipped_seconds` is what had been trained of the reports that were under way. `reached_at` is the report, counted from
    here, that reaches the target whatever was measured; None where the values say it.
    """

    standing: Standing
    objective: Objective
    history: History
    measured: "_Measured"
    random: Random
    reached_at: int | None = None
    skipped_seconds: float = 0.0
    _given: int = 0
    _models: dict[Same[Configuration], Trial] = field(default_factory=dict)
    _means: dict[Same[Configuration], float] = field(default_factory=dict)

    @staticmethod
    def of(standing: Standing, study: Study, history: History, measured: "_Measured", place: int, left: int) -> "_World":
        """The world of that place; `left` is how many reports are left where none reaches the target."""
        random = random_of(standing.definition.seed, place, "forecast")
        world = _World(standing, study.definition.objective, history, measured, random)
        ended = sum(trial.state.is_end for trial in history.trials.values())
        if left and random.random() < _BLIND * _BLIND_TRIALS / (_BLIND_TRIALS + ended):
            world.reached_at = ceil((_BEYOND * left) ** random.random())
        return world

    def __post_init__(self) -> None:
        known = [trial for trial in self.history.trials.values() if self._times(trial) or trial.state in _FAILED]
        self._known = self.random.choices(known, k=len(known))
        self._timed = [trial for trial in self._known if self._times(trial)] or [one for one in known if self._times(one)]
        self._pace = exp(self.random.gauss(0.0, self.measured.blur / sqrt(len(self._timed))))
        self._drift = exp(self.random.gauss(0.0, _DRIFT))
        self.overhead_seconds = self._overhead_seconds()
        running = self.history.in_state(TrialState.RUNNING)
        self._under_way = {Same(trial.parameters): (trial.reports + 1, self._trained(trial)) for trial in running}
        for trial in self.history.trials.values():
            times = self._times(trial)
            if times:
                error = self.random.gauss(0.0, self.measured.noise / sqrt(len(times)))
                self._means[Same(trial.parameters)] = fmean(times) * exp(error)

    def seconds(self, parameters: Configuration, report: int) -> float:
        key = Same(parameters)
        if key not in self._means:
            times = self._times(self._model(parameters)) or self._times(self._timed[0])
            self._means[key] = fmean(times) * self._pace * exp(self.random.gauss(0.0, self.measured.blur))
        due = self._means[key] * self._drift * exp(self.random.gauss(0.0, self.measured.noise))
        number, trained = self._under_way.get(key, (0, None))
        left = due if number != report else self._left(due, trained)
        self.skipped_seconds += due - left
        return left

    def gain(self, _: Configuration, report: int, before: float | None) -> float:
        self._given += 1
        value = self._drawn(report, before)
        target = self.standing.definition.budget.target
        if self.reached_at is None or target is None:
            return value
        if self._given >= self.reached_at:
            return target
        return nextafter(target, self.objective.sort_key(inf)) if self.objective.reaches(value, target) else value

    def _drawn(self, report: int, before: float | None) -> float:
        if before is None or not isfinite(before):
            return self._step(1, 1.0)
        last = max(self.measured.steps)
        if report <= last:
            return before + self._step(report, 1.0)
        shrunk = _SHRINKING ** (report - last)
        return before + (self._step(last, shrunk) if last > 1 else self.random.gauss(0.0, shrunk * self.measured.steps[1].blur))

    def _step(self, report: int, share: float) -> float:
        seen = self.measured.steps.get(report) or self.measured.steps[max(self.measured.steps)]
        return share * (self.random.choice(seen.values) + self.random.gauss(0.0, seen.blur))

    def fail(self, trial: Trial, report: int) -> TrialReason | None:
        model = self._models.get(Same(trial.parameters))
        if model is None or model.state not in _FAILED or report != model.own_reports + 1:
            return None
        return model.reason

    def stop(self, trial: Trial, report: int) -> bool:
        model = self._models.get(Same(trial.parameters))
        return model is not None and model.stopped_early and report == model.reports

    def lose(self, _: Trial, __: int) -> bool:
        return self.random.random() < self.standing.losses

    def _left(self, due: float, trained: float | None) -> float:
        """What is left of a report that is under way. One that is late already is so by nobody knows how much more."""
        if trained is None:
            return due * self.random.random()
        return due - trained if trained < due else trained * self.random.random()

    def _trained(self, trial: Trial) -> float | None:
        since = self.standing.under_way.get(trial.number)
        return None if since is None else max(0.0, since - self.overhead_seconds)

    def _overhead_seconds(self) -> float:
        if self.standing.overhead_seconds is not None:
            return self.standing.overhead_seconds * exp(self.random.gauss(0.0, self.measured.noise))
        return self.random.expovariate(1 / _BESIDE) * fmean(fmean(self._times(trial)) for trial in self._timed)

    def _model(self, parameters: Configuration) -> Trial:
        return self._models.setdefault(Same(parameters), self.random.choice(self._known))

    def _times(self, trial: Trial) -> Sequence[float]:
        return self.history.seconds.get(trial.number, ())


@dataclass(frozen=True)
class _Steps:
    """By how much values changed from the report before, and how far a draw may lie beside: so that it may be better than all."""

    values: Sequence[float]
    blur: float


@dataclass(frozen=True)
class _Measured:
    """What all worlds draw from: the steps of each report that was seen, and by how much a trial's reports differ in time.

    The steps of the first report are the values themselves; they are blurred by Silverman's rule of thumb. `noise` is a standard
    deviation of logarithms, and so is `blur`: by how much more trials may differ in speed than those so far do.
    """

    steps: Mapping[int, _Steps]
    noise: float
    blur: float

    @staticmethod
    def of(history: History) -> "_Measured":
        found: dict[int, list[float]] = {1: []}
        for values in history.values.values():
            for place, value in enumerate(values):
                before = 0.0 if place == 0 else values[place - 1]
                if isfinite(value) and isfinite(before):
                    found.setdefault(place + 1, []).append(value - before)
        steps = {report: _Steps(seen or [0.0], _blur(seen)) for report, seen in found.items()}
        logs = [[log(max(one, _TINY)) for one in times] for times in history.seconds.values() if times]
        squares = sum((one - fmean(times)) ** 2 for times in logs for one in times)
        degrees = sum(len(times) - 1 for times in logs)
        noise = sqrt((_GUESSED * _NOISE**2 + squares) / (_GUESSED + degrees))
        return _Measured(steps, noise, _unknown_spread([fmean(times) for times in logs]))


def _blur(seen: Sequence[float]) -> float:
    if len(seen) < 2:  # noqa: PLR2004 - one says nothing of a spread
        return _BLUR * abs(seen[0]) if seen else 0.0
    return 1.06 * stdev(seen) * exp(-0.2 * log(len(seen)))


def _unknown_spread(means: Sequence[float]) -> float:
    """What the spread of these, as far as one can tell, has beyond what draws from them have."""
    freedom = len(means) - 1
    seen = variance(means) if freedom > 0 else 0.0
    spread: float = (_GUESSED_TRIALS * _SPREAD**2 + freedom * seen) / (_GUESSED_TRIALS + max(0, freedom))
    return sqrt(max(0.0, spread - seen * freedom / max(1, len(means))))


if __name__ == "__main__":
    signal.alarm(_LONGEST_SECONDS)  # whoever started this may be gone
    with contextlib.suppress(OSError):
        os.nice(10)  # training goes first
    sys.exit(main())
