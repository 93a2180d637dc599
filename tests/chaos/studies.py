"""The studies that are disturbed: one of every strategy, each over in half a minute where nobody disturbs it."""

from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

from tests.running import RunningService

_RATE = {"kind": "float", "low": 1e-5, "high": 1e-1, "log": True}
_WIDTH = {"kind": "int", "low": 8, "high": 64}
_SPACE = {"values.rate": _RATE, "values.width": _WIDTH}
_LOSS = "(log(rate) + 6) ** 2 / 20 + width / 100 + 1 / epoch"
_GRID = {"values.rate": {**_RATE, "grid": [1e-4, 1e-3, 1e-2]}, "values.width": {**_WIDTH, "grid": [8, 16, 32]}}

REAL = "real"
"""The one study that trains a model."""

_STRATEGIES: Mapping[str, dict[str, Any]] = {
    "random": {"strategy": {"kind": "random"}, "budget": {"trials": 12}},
    "hyperband": {
        "strategy": {"kind": "hyperband", "reduction_factor": 3, "sampler": {"kind": "random"}}, "trainer": {"epochs": 9},
        "resources": {"max_concurrent_trials": 2},
    },
    "async": {
        "strategy": {"kind": "hyperband", "mode": "async", "sampler": {"kind": "tpe", "startup_trials": 4}},
        "trainer": {"epochs": 9}, "budget": {"trials": 14}, "resources": {"max_concurrent_trials": 2},
    },
    "grid": {"strategy": {"kind": "grid"}, "space": _GRID},
    "tpe": {
        "strategy": {"kind": "bayesian", "sampler": {"kind": "tpe", "startup_trials": 4}}, "budget": {"trials": 12},
        "resources": {"max_concurrent_trials": 2},
    },
    "pbt": {
        "strategy": {"kind": "pbt", "population": 4, "interval": 2}, "trainer": {"epochs": 8},
        "resources": {"max_concurrent_trials": 2},
    },
    "sobol": {"strategy": {"kind": "sobol"}, "budget": {"trials": 12}},
    "median": {
        "strategy": {"kind": "median", "min_trials": 3, "sampler": {"kind": "random"}}, "trainer": {"epochs": 5},
        "budget": {"trials": 10}, "resources": {"max_concurrent_trials": 2},
    },
    "cmaes": {"strategy": {"kind": "bayesian", "sampler": {"kind": "cmaes", "population": 4}}, "budget": {"trials": 12}},
    "bohb": {
        "strategy": {"kind": "hyperband", "sampler": {"kind": "tpe", "startup_trials": 3, "random_share": 0.2}},
        "trainer": {"epochs": 9}, "budget": {"trials": 14}, "resources": {"max_concurrent_trials": 2},
    },
    "final": {"strategy": {"kind": "random"}, "budget": {"trials": 6}, "final": {"top": 2, "seeds": 2}},
    "gp": {"strategy": {"kind": "bayesian", "sampler": {"kind": "gp", "startup_trials": 4}}, "budget": {"trials": 8}},
    "nsga2": {
        "strategy": {"kind": "bayesian", "sampler": {"kind": "nsga2", "population": 4}}, "budget": {"trials": 10},
        "trainer": {"metrics": {"validation/loss": _LOSS, "validation/cost": "width / 64"}},
        "objectives": [
            {"metric": "validation/loss", "direction": "minimize"}, {"metric": "validation/cost", "direction": "minimize"},
        ],
    },
    "auto": {"strategy": {"kind": "auto"}, "budget": {"trials": 12}, "trainer": {"epochs": 5}},
}  # fmt: skip

ALONE = frozenset({"random", "sobol", "grid", "hyperband"})
"""Those whose decisions do not depend on the order in which reports come: a simulation of them is the same study."""


def definitions(service: RunningService) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and definitions without end: the first few of different strategies, the model among them, then all in turn."""
    names = list(_STRATEGIES)
    yield names[0], _simulated(names[0], 0)
    yield REAL, _real(service)
    for turn in count():
        for name in names[1:] if turn == 0 else names:
            yield name, _simulated(name, turn)


def _simulated(name: str, turn: int) -> dict[str, Any]:
    """A study that trains nothing, with checkpoints large enough to be caught half-written."""
    changes = dict(_STRATEGIES[name])
    trainer: dict[str, Any] = {
        "kind": "simulated", "metrics": {"validation/loss": _LOSS}, "noise": 0.01, "epochs": 3,
        "seconds_per_epoch": 0.6, "state_megabytes": 4, "export_megabytes": 2, "seed": turn, **changes.pop("trainer", {}),
    }  # fmt: skip
    document: dict[str, Any] = {"name": name, "trainer": trainer, "space": _SPACE, "resources": {"max_concurrent_trials": 1}}
    if "objectives" not in changes:
        document["objective"] = {"metric": "validation/loss", "direction": "minimize"}
    return {**document, "seed": turn, **changes}


def _real(service: RunningService) -> dict[str, Any]:
    """A study that trains a tiny model."""
    return {
        "name": REAL,
        "trainer": {
            "kind": "text-classification", "model": service.model, "epochs": 3, "max_length": 32,
            "data": {"train": "dataset://intents/train.csv", "validation": "dataset://intents/validation.csv"},
        },
        "space": {"learning_rate": {"kind": "float", "low": 1e-4, "high": 1e-2, "log": True}},
        "objective": {"metric": "validation/accuracy", "direction": "maximize"},
        "strategy": {"kind": "random"},
        "budget": {"trials": 5},
        "resources": {"max_concurrent_trials": 1},
    }  # fmt: skip
