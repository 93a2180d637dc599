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
from math import exp, isfinite, log, sqrt
from random import Random
from statistics import fmean, stdev

from search_spaces import Configuration
from service.domain.forecast import Course
from service.domain.history import History
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
_SPREAD = 0.5
"""By how much trials differ in speed, in the logarithm, as far as one does not know."""
_NOISE, _GUESSED = 0.2, 4
"""By how much the reports of one trial do, and after how many measured times that guess counts no more than they."""
_DRIFT = 0.05
"""By how much all trials together may be faster or slower than so far: a machine has other things to do, at times."""
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
    found: list[Course] = []
    for place in range(most):
        if place >= _FEWEST and is_late():
            break
        world = _World(history, measured, random_of(standing.definition.seed, place, "forecast"), standing.losses)
        done = simulate(
            study, _nothing, workers=standing.slots, seconds=world.seconds, fail=world.fail, stop=world.stop,
            gain=world.gain, lose=world.lose,
            history=history, overhead_seconds=standing.overhead_seconds, stop_after_reports=_MOST_REPORTS,
        )  # fmt: skip
        if done.reason is None:
            return []
        found.append(_course(standing, done, world.skipped_seconds))
    return found


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

    A new trial takes after one that there was: it is as fast, and fails or stops early where that one did. `skipped_seconds` is
    what had been trained of the reports that were under way.
    """

    history: History
    measured: "_Measured"
    random: Random
    losses: float = 0.0
    skipped_seconds: float = 0.0
    _models: dict[Same[Configuration], Trial] = field(default_factory=dict)
    _means: dict[Same[Configuration], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = [trial for trial in self.history.trials.values() if self._times(trial) or trial.state in _FAILED]
        self._known = self.random.choices(known, k=len(known))
        self._timed = [trial for trial in self._known if self._times(trial)] or [one for one in known if self._times(one)]
        self._pace = exp(self.random.gauss(0.0, _SPREAD / sqrt(len(self._timed))))
        self._drift = exp(self.random.gauss(0.0, _DRIFT))
        self._under_way = {Same(trial.parameters): trial.reports + 1 for trial in self.history.in_state(TrialState.RUNNING)}
        for trial in self.history.trials.values():
            times = self._times(trial)
            if times:
                error = self.random.gauss(0.0, self.measured.noise / sqrt(len(times)))
                self._means[Same(trial.parameters)] = fmean(times) * exp(error)

    def seconds(self, parameters: Configuration, report: int) -> float:
        key = Same(parameters)
        if key not in self._means:
            times = self._times(self._model(parameters)) or self._times(self._timed[0])
            self._means[key] = fmean(times) * self._pace
        due = self._means[key] * self._drift * exp(self.random.gauss(0.0, self.measured.noise))
        left = due * self.random.random() if self._under_way.get(key) == report else due
        self.skipped_seconds += due - left
        return left

    def gain(self, _: Configuration, report: int, before: float | None) -> float:
        known = before is not None and isfinite(before)
        steps = self.measured.steps
        seen = steps.get(report if known else 1, steps[max(steps)])
        step = self.random.choice(seen.values) + self.random.gauss(0.0, seen.blur)
        return step + before if before is not None and known else step

    def fail(self, trial: Trial, report: int) -> TrialReason | None:
        model = self._models.get(Same(trial.parameters))
        if model is None or model.state not in _FAILED or report != model.own_reports + 1:
            return None
        return model.reason

    def stop(self, trial: Trial, report: int) -> bool:
        model = self._models.get(Same(trial.parameters))
        return model is not None and model.stopped_early and report == model.reports

    def lose(self, _: Trial, __: int) -> bool:
        return self.random.random() < self.losses

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
    deviation of logarithms.
    """

    steps: Mapping[int, _Steps]
    noise: float

    @staticmethod
    def of(history: History) -> "_Measured":
        found: dict[int, list[float]] = {1: []}
        for values in history.values.values():
            for place, value in enumerate(values):
                before = 0.0 if place == 0 else values[place - 1]
                if isfinite(value) and isfinite(before):
                    found.setdefault(place + 1, []).append(value - before)
        blurs = {report: 1.06 * stdev(seen) * len(seen) ** -0.2 if len(seen) > 1 else 0.0 for report, seen in found.items()}
        steps = {report: _Steps(seen or [0.0], blurs[report]) for report, seen in found.items()}
        logs = [[log(max(one, _TINY)) for one in times] for times in history.seconds.values()]
        squares = sum((one - fmean(times)) ** 2 for times in logs for one in times)
        degrees = sum(len(times) - 1 for times in logs if times)
        return _Measured(steps, sqrt((_GUESSED * _NOISE**2 + squares) / (_GUESSED + degrees)))


if __name__ == "__main__":
    signal.alarm(_LONGEST_SECONDS)  # whoever started this may be gone
    with contextlib.suppress(OSError):
        os.nice(10)  # training goes first
    sys.exit(main())
