"""What a decision costs, and what the strategies find: `python -m benchmarks.search cost`, or `compare`.

`cost`: the time of one `next_action` at several sizes of history, with the ratio to one `ask` of a plain Optuna study of
that size in the same run. Ours rebuilds the study from the history each time, as nothing may outlive a call; Optuna's keeps
its trials.
`compare`: strategies on a made-up learning curve at equal epochs, in simulated time, medians over seeds.
"""

import argparse
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from statistics import median
from typing import Any

import optuna

from search_spaces import Scalar
from service.domain.definition import parse_definition
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
    "random": {"kind": "random"},
    "tpe": {"kind": "bayesian", "sampler": {"kind": "tpe"}},
    "gp": {"kind": "bayesian", "sampler": {"kind": "gp"}},
    "hyperband sync": {"kind": "hyperband"},
    "hyperband sync tpe": {"kind": "hyperband", "sampler": {"kind": "tpe"}},
    "hyperband async": {"kind": "hyperband", "mode": "async"},
    "hyperband async tpe": {"kind": "hyperband", "mode": "async", "sampler": {"kind": "tpe"}},
}
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
    parser.add_argument("what", choices=["cost", "compare"])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--workers", type=int, default=4)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if arguments.what == "cost":
        decision_cost()
    else:
        comparison(arguments.seeds, arguments.workers)


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


def comparison(seeds: int, workers: int) -> None:
    budgets = [4, 8, 16, 32]
    print(f"median best loss after so many full trainings' worth of time, {workers} workers, {seeds} seeds; 0.1 is the least")
    print(f"{'strategy':22}{''.join(f'{budget:8}' for budget in budgets)}{'trials':>8}{'busy':>7}")
    for name, strategy in STRATEGIES.items():
        rows, trials, busy = [], [], []
        for seed in range(seeds):
            study = a_study(strategy, {"epochs": budgets[-1] * EPOCHS}, seed=seed, workers=workers)
            done = simulate(study, learning_curve, workers=workers)
            limits = [budget * EPOCHS / workers for budget in budgets]
            rows.append([min((value for at, value in done.best_by_time if at <= limit), default=math.inf) for limit in limits])
            trials.append(len(done.history.trials))
            busy.append(sum(attempt.ended - attempt.began for attempt in done.attempts) / done.seconds / workers)
        medians = "".join(f"{median(column):8.3f}" for column in zip(*rows, strict=True))
        print(f"{name:22}{medians}{median(trials):8.0f}{median(busy):7.2f}", flush=True)


def learning_curve(parameters: Mapping[str, Scalar], report: int) -> float:
    """A loss that falls with a power of the epochs to a floor that the parameters decide; slow learners start badly."""
    rate, dropout, decay, frozen = (float(parameters[name] or 0) for name in list(SPACE)[:4])
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
        parameters = draw_unseen(study.definition.space, set(), random_of(1, number, "benchmark")) or {}
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
