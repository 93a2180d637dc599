"""What a decision costs, and what the strategies find: `python -m benchmarks.search cost`, or `tables`.

`cost`: the time of one `next_action` at several sizes of history, with the ratio to one `ask` of a plain Optuna study of
that size in the same run. Ours rebuilds the study from the history each time, as nothing may outlive a call; Optuna's keeps
its trials.
`tables`: strategies on learning curves, on a clock of its own, beside random search, Optuna's TPE and Ray's ASHA. A budget
is the time that passed, in trainings of a whole trial on all workers: elapsed times workers by the reports of a whole trial;
who waits pays. Regret is 100 times how far the best value so far is from the table's best, as a share of how far the median
configuration is; the mean over tables of a family and seeds, with its standard error. Without `--tables` on a made-up curve;
`benchmarks/tables.py` says which files a folder may hold.
"""

import argparse
import json
import math
import multiprocessing
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import optuna

from benchmarks.peers import PEERS, run_peer
from benchmarks.tables import NearestRow, Table, made_up, read_tables
from search_spaces import Value
from service.domain.definition import StudyDefinition, parse_definition
from service.domain.history import History
from service.domain.study import Study, StudyState
from service.domain.trial import Trial, TrialState
from service.search import next_action, simulate
from service.search.draws import draw_unseen, random_of

NOW = datetime(2030, 1, 1, tzinfo=UTC)
SIZES = (10, 100, 1000, 3000)
EPOCHS = 27
SPACE = {
    "learning_rate": {"kind": "float", "low": 1e-6, "high": 1e-2, "log": True},
    "dropout": {"kind": "float", "low": 0.0, "high": 0.5},
    "weight_decay": {"kind": "float", "low": 0.0, "high": 0.3},
    "frozen_layers": {"kind": "int", "low": 0, "high": 6},
    "batch_size": {"kind": "categorical", "choices": [16, 32, 64]},
}
STRATEGIES: Mapping[str, dict[str, Any]] = {
    "auto": {"kind": "auto"},
    "random": {"kind": "random"},
    "sobol": {"kind": "sobol"},
    "tpe": {"kind": "bayesian", "sampler": {"kind": "tpe"}},
    "gp": {"kind": "bayesian", "sampler": {"kind": "gp"}},
    "median tpe": {"kind": "median"},
    "hyperband sync": {"kind": "hyperband"},
    "hyperband sync tpe": {"kind": "hyperband", "sampler": {"kind": "tpe"}},
    "hyperband async": {"kind": "hyperband", "mode": "async"},
    "hyperband async tpe": {"kind": "hyperband", "mode": "async", "sampler": {"kind": "tpe"}},
}
TABLED = tuple(name for name in STRATEGIES if name != "gp")
"""Strategies that `tables` compares: a Gaussian process takes half a second a proposal."""

PLAIN: Mapping[str, Callable[[], Any]] = {
    "random": lambda: optuna.samplers.RandomSampler(seed=0),
    "tpe": lambda: optuna.samplers.TPESampler(multivariate=True, constant_liar=True, seed=0),
    "gp": lambda: optuna.samplers.GPSampler(seed=0),
}
DISTRIBUTIONS = {
    "learning_rate": optuna.distributions.FloatDistribution(1e-6, 1e-2, log=True),
    "dropout": optuna.distributions.FloatDistribution(0.0, 0.5),
    "weight_decay": optuna.distributions.FloatDistribution(0.0, 0.3),
    "frozen_layers": optuna.distributions.IntDistribution(0, 6),
    "batch_size": optuna.distributions.CategoricalDistribution((16, 32, 64)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["cost", "tables"])
    parser.add_argument("--tables", type=Path, help="folder of tables; a made-up curve when left out")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--sigma", type=float, default=0.0, help="spread of the logarithm of a report's time")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="lines of the table; all of them when left out")
    arguments = parser.parse_args()
    if arguments.what == "cost":
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        decision_cost()
    else:
        families = families_in(arguments.tables)
        methods = arguments.methods or [*PEERS, *TABLED]
        print_regrets(families, methods, arguments.seeds, arguments.workers, arguments.sigma, arguments.processes)


def decision_cost() -> None:
    print(f"{'sampler':22}{'trials':>8}{'ours ms':>10}{'optuna ms':>11}{'ratio':>8}")
    for name, strategy in STRATEGIES.items():
        for size in SIZES:
            study = a_study(strategy, {"trials": 100_000})
            history = a_history(study, size)
            ours = milliseconds(partial(next_action, study, history, NOW))
            if name not in PLAIN or (name == "gp" and size > 1000):
                print(f"{name:22}{size:8}{ours:10.1f}")
                continue
            plain = plain_study(name, history)
            theirs = milliseconds(partial(plain.ask, DISTRIBUTIONS))
            print(f"{name:22}{size:8}{ours:10.1f}{theirs:11.1f}{ours / theirs:8.1f}")


BUDGETS: Mapping[str, tuple[int, ...]] = {"lora": (2, 4, 8)}
USUAL_BUDGETS = (4, 8, 16, 32)
_TABLES: dict[str, Table] = {}


def families_in(folder: Path | None) -> Mapping[str, list[Table]]:
    """The tables by the first part of their names."""
    families: dict[str, list[Table]] = {}
    for table in read_tables(folder) if folder else [made_up(EPOCHS)]:
        families.setdefault(table.name.partition("-")[0], []).append(table)
    return families


def print_regrets(
    families: Mapping[str, list[Table]], methods: Sequence[str], seeds: int, workers: int, sigma: float, processes: int
) -> None:
    for family, tables in families.items():
        budgets = BUDGETS.get(family, USUAL_BUDGETS)
        print(f"\n{family}: {len(tables)} tables, {seeds} seeds, {workers} workers; regret x 100 after so many whole trainings")
        print(f"{'':22}{''.join(f'{budget:>14}' for budget in budgets)}{'seconds':>10}")
        for method in methods:
            began = time.perf_counter()
            _TABLES.update({table.name: table for table in tables})
            jobs = [(table.name, method, seed, budgets, workers, sigma) for table in tables for seed in range(seeds)]
            # Forked, so that the tables need not be sent.
            with multiprocessing.get_context("fork").Pool(processes) as pool:
                regrets = np.array(pool.starmap(regrets_of, jobs, chunksize=4))
            means, errors = regrets.mean(axis=0), regrets.std(axis=0) / math.sqrt(len(regrets))
            cells = "".join(f"{mean:8.1f} ±{error:4.1f}" for mean, error in zip(means, errors, strict=True))
            print(f"{method:22}{cells}{time.perf_counter() - began:10.0f}", flush=True)


def regrets_of(name: str, method: str, seed: int, budgets: Sequence[int], workers: int, sigma: float) -> list[float]:
    """100 times the regret at each budget, of one run on the table of that name; 100 before any report, 200 at most."""
    table = _TABLES[name]
    seconds = budgets[-1] * table.reports / workers
    # Another one for each table: the same draws on all of them would be one sample, and not many.
    seed = (zlib.crc32(table.name.encode()) + seed) % 2**31
    random = np.random.default_rng(seed)
    # The mean is 1, so that a budget buys as much.
    duration: Callable[[], float] = (lambda: float(random.lognormal(-(sigma**2) / 2, sigma))) if sigma else (lambda: 1.0)
    definition = a_tabled_study(table, STRATEGIES.get(method, {"kind": "random"}), seconds, workers, seed)
    if method in PEERS:
        peer = PEERS[method](table, definition.definition.search_space, seed)
        best_by_time = run_peer(table, peer, workers, seconds, duration)
    else:
        best_by_time = simulate(
            definition,
            lambda parameters, report: table.curve(parameters)[report - 1],
            workers=workers,
            seconds=lambda *_: duration(),
            stop=lambda trial, report: report >= len(table.curve(trial.parameters)),
            row=None if table.function else NearestRow(table, definition.definition.search_space),
        ).best_by_time
    regrets = []
    for budget in budgets:
        values = [value for at, value in best_by_time if at <= budget * table.reports / workers + 1e-9]
        regrets.append(100 * min(2.0, max(0.0, table.regret(values[-1]))) if values else 100.0)
    return regrets


def a_tabled_study(table: Table, strategy: dict[str, Any], seconds: float, workers: int, seed: int) -> Study:
    """A running study over the table's space, which need not be a trainer's."""
    definition = a_study({"kind": "random"}, {"wall_clock": seconds}, seed, workers).definition
    document = {
        **definition.model_dump(mode="json", exclude_none=True),
        "space": table.space,
        "strategy": strategy,
        "objective": {"metric": "validation/loss", "direction": "maximize" if table.maximize else "minimize"},
    }
    document["trainer"]["epochs"] = table.reports
    searched = StudyDefinition.model_validate_json(json.dumps(document))
    return Study(id="benchmark", definition=searched, created_at=NOW, state=StudyState.RUNNING, started_at=NOW)


def learning_curve(parameters: Mapping[str, Value], report: int) -> float:
    """A loss that falls with a power of the epochs to a floor that the parameters decide; slow learners start badly."""
    rate, dropout, decay, frozen = (float(str(parameters[name] or 0)) for name in list(SPACE)[:4])
    off = (math.log10(rate) + 4) / 2
    floor = 0.1 + 0.5 * off**2 + (dropout - 0.1) ** 2 + (decay - 0.05) ** 2 + 0.01 * frozen
    return floor + (1 + abs(off)) * math.pow(report, -0.7) - math.pow(EPOCHS, -0.7)


def a_study(strategy: dict[str, Any], budget: dict[str, Any], seed: int = 0, workers: int = 4) -> Study:
    definition = parse_definition(
        {
            "name": "benchmark",
            "trainer": {"kind": "text-classification", "model": "m", "data": {"train": "dataset://a/b.csv"}, "epochs": EPOCHS},
            "space": SPACE,
            "objective": {"metric": "validation/loss", "direction": "minimize"},
            "strategy": strategy,
            "budget": budget,
            "resources": {"max_concurrent_trials": workers},
            "seed": seed,
        }
    )
    return Study(id="benchmark", definition=definition, created_at=NOW, state=StudyState.RUNNING, started_at=NOW)


def a_history(study: Study, size: int) -> History:
    """So many finished trials with values at every rung, so that a model has what it asks for, and a new one is due."""
    trials, values = {}, {}
    for number in range(size):
        parameters = draw_unseen(study.definition.search_space, set(), random_of(1, number, "benchmark")) or {}
        reached = tuple(learning_curve(parameters, report) for report in range(1, EPOCHS + 1))
        trial = Trial(study_id=study.id, number=number, parameters=parameters, until=EPOCHS, created_at=NOW, bracket=10**6)
        best = min(reached)
        trials[number] = replace(trial, state=TrialState.COMPLETED, rung=9, reports=EPOCHS, value=reached[-1], best_value=best)
        values[number] = reached
    return History(trials, values)


def plain_study(name: str, history: History) -> Any:
    study = optuna.create_study(sampler=PLAIN[name]())
    study.add_trials(
        [
            optuna.trial.create_trial(params=dict(trial.parameters), distributions=DISTRIBUTIONS, value=trial.best_value)
            for trial in history.trials.values()
        ]
    )
    return study


def milliseconds(call: Callable[[], Any]) -> float:
    """Median time of three calls, or of the only one that took over 2 s, after one to warm up."""
    call()
    times: list[float] = []
    while len(times) < 3 and sum(times) < 2000:
        began = time.perf_counter()
        call()
        times.append((time.perf_counter() - began) * 1000)
    return median(times)


if __name__ == "__main__":
    main()
