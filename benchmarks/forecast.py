"""How often a study ends within the band that was foretold of it: `python -m benchmarks.forecast`.

Studies without a trainer, on a clock of their own, are led to their ends, and foretold after a quarter, a half and three
quarters of their reports. Each has a world of its own: how much trials and the reports of one differ in speed, what a report
takes beside its training, whether some trials fail, and whether reports get slower or faster. A third of the studies has a
target and a third `no_improvement`; some are reached soon, some late and some never. A band that is right holds 80 % of the
ends. `width` is the median width of the bands of time, as a share of the time that was left; `error` is the median of by how
much the expected time was wrong, as a share of what it took.
"""

import argparse
import multiprocessing
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random
from statistics import fmean, median
from typing import Any

from search_spaces import Configuration
from service.domain.budget import Budget
from service.domain.definition import parse_definition
from service.domain.forecast import SHARE, Course, Forecast, scored
from service.domain.standing import Standing
from service.domain.study import Study, StudyState
from service.domain.trial import Trial, TrialReason
from service.search import simulate
from service.search.draws import random_of
from service.search.forecast import courses
from service.search.simulate import Simulation

NOW = datetime(2030, 1, 1, tzinfo=UTC)
PARTS = (0.25, 0.5, 0.75)
SLOTS = 2
TRAINER = {"kind": "text-classification", "model": "m", "data": {"train": "dataset://a/b.csv"}}
STRATEGIES: Mapping[str, dict[str, Any]] = {
    "random": {"kind": "random"},
    "bayesian": {"kind": "bayesian", "sampler": {"kind": "tpe", "startup_trials": 5}},
    "hyperband": {"kind": "hyperband", "sampler": {"kind": "random"}},
    "pbt": {"kind": "pbt", "population": 4},
}
ENDS = ("budget", "target", "no_improvement")


@dataclass
class World:
    """How a study's trials do. All of it depends on the seed, the configuration and the report alone."""

    seed: int
    noise: float = field(init=False)
    spread: float = field(init=False)
    overhead: float = field(init=False)
    failing: float = field(init=False)
    change: float = field(init=False)

    def __post_init__(self) -> None:
        luck = random_of(self.seed, 0, "world")
        self.noise, self.spread = luck.choice([0.02, 0.1, 0.3]), luck.choice([0.0, 0.2, 0.5, 0.8])
        self.overhead, self.failing = luck.choice([0.0, 0.1, 0.5]), luck.choice([0.0, 0.0, 0.0, 0.2])
        self.change = luck.gauss(0.0, 0.1)

    def seconds(self, parameters: Configuration, report: int) -> float:
        trial = self._luck(parameters, "trial").lognormvariate(0.0, self.spread)
        return 10 * trial * self._luck(parameters, f"report {report}").lognormvariate(self.change * report / 10, self.noise)

    def value(self, parameters: Configuration, report: int) -> float:
        end = self._luck(parameters, "value").betavariate(5, 2)
        return end * (1 - 0.6 ** (report + 1)) + self._luck(parameters, f"value {report}").gauss(0.0, 0.01)

    def fails(self, trial: Trial, report: int) -> TrialReason | None:
        luck = self._luck(trial.parameters, "failure")
        return TrialReason.DIVERGED if luck.random() < self.failing and report == luck.randint(1, 4) else None

    def _luck(self, parameters: Configuration, purpose: str) -> Random:
        return random_of(self.seed, 0, f"{sorted(parameters.items())} {purpose}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=240)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--first", type=int, default=0, help="seed of the first study")
    arguments = parser.parse_args()
    with multiprocessing.Pool(arguments.processes) as pool:
        seeds = range(arguments.first, arguments.first + arguments.studies)
        rows = [row for several in pool.imap_unordered(foretold, seeds, chunksize=4) for row in several]
    print_shares(rows)


@dataclass(frozen=True)
class Row:
    """One forecast of one study: which of its numbers came to lie within their bands, and by how much the time was wrong."""

    strategy: str
    end: str
    part: float
    is_inside: Mapping[str, bool]
    width: float
    error: float


def foretold(seed: int) -> list[Row]:
    """A study's forecasts beside what came."""
    strategy, end = list(STRATEGIES)[seed % 4], ENDS[seed // 4 % 3]
    study, world = a_study(strategy, end, seed), World(seed)
    whole = led(study, world)
    reports = whole.history.reports_given
    course = Course(
        whole.seconds, sum(trial.gpu_seconds for trial in whole.history.trials.values()), len(whole.history.trials), reports, 0
    )
    rows = []
    for part in PARTS:
        if round(part * reports) not in range(1, reports):
            continue
        then = led(study, world, stop_after_reports=round(part * reports))
        standing = Standing(
            study.definition, then.history, NOW + timedelta(seconds=then.seconds), then.seconds, SLOTS,
            overhead_seconds=world.overhead, under_way=then.under_way,
        )  # fmt: skip
        found = Forecast.of(
            courses(standing), at=standing.now, elapsed_seconds=then.seconds, ended=0, slots=SLOTS, export_bytes=None
        )
        scores, left = scored(found, course, None), whole.seconds - then.seconds
        width = (found.seconds.high - found.seconds.low) / left
        inside = {name: score.is_inside for name, score in scores.items()}
        rows.append(Row(strategy, end, part, inside, width, (found.seconds.expected - whole.seconds) / whole.seconds))
    return rows


def led(study: Study, world: World, stop_after_reports: int | None = None) -> Simulation:
    return simulate(
        study, world.value, workers=SLOTS, seconds=world.seconds, fail=world.fails, overhead_seconds=world.overhead,
        stop_after_reports=stop_after_reports,
    )  # fmt: skip


def a_study(strategy: str, end: str, seed: int) -> Study:
    luck = random_of(seed, 0, "study")
    document = {
        "name": "foretold",
        "trainer": {**TRAINER, "epochs": luck.choice([4, 9])},
        "space": {
            "learning_rate": {"kind": "float", "low": 1e-5, "high": 1e-2, "log": True},
            "weight_decay": {"kind": "float", "low": 0.0, "high": 0.3},
        },
        "objective": {"metric": "validation/accuracy", "direction": "maximize"},
        "strategy": STRATEGIES[strategy],
        "budget": {"trials": luck.choice([9, 12, 16])},
        "resources": {"max_concurrent_trials": SLOTS},
        "seed": seed,
    }  # fmt: skip
    definition = parse_definition(document)
    study = Study(id="foretold", definition=definition, created_at=NOW, state=StudyState.RUNNING, started_at=NOW)
    if end == "no_improvement":
        return _with(study, no_improvement=luck.choice([2, 3, 5]))
    if end == "target":
        best = [value for _, value in led(study, World(seed)).best_by_time]
        return _with(study, target=luck.choice([*best[len(best) // 3 :], 1.5]))
    return study


def _with(study: Study, **limit: Any) -> Study:
    budget = Budget(**{**study.definition.budget.model_dump(), **limit})
    return replace(study, definition=study.definition.model_copy(update={"budget": budget}))


def print_shares(rows: Sequence[Row]) -> None:
    print(f"shares within their {SHARE:.0%} bands, of all {len(rows)} forecasts")
    print(f"{'':16}{'way':>6}{'n':>6}{'time':>8}{'trials':>8}{'reports':>8}{'width':>8}{'error':>8}")
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        for name in ("all", row.strategy, f"by {row.end}"):
            groups[name, f"{row.part:.0%}"].append(row)
            groups[name, "any"].append(row)
    for (name, part), found in sorted(groups.items()):
        shares = [fmean(row.is_inside[what] for row in found) for what in ("seconds", "trials", "reports")]
        width, error = median(row.width for row in found), median(abs(row.error) for row in found)
        print(f"{name:16}{part:>6}{len(found):6}" + "".join(f"{share:8.0%}" for share in (*shares, width, error)))


if __name__ == "__main__":
    main()
