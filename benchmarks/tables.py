"""Tables of learning curves: what a search would have seen, without training.

A table is a search space and, for each configuration in it, the objective at reports 1, 2, ...; either for a fixed list of
configurations, of which the nearest that is left stands for a proposal, or as a function. Read here:

- `FOLDER/nmt_lora_finetune/nmtlc_finetune.json`: LoRA fine-tunings of BLOOMZ and XGLM (Zhang & Duh 2024), BLEU by checkpoint;
- `FOLDER/taskset/*.npz`: `names`, `hp_names`, `hp` (tasks x configurations x parameters), `valid` (tasks x configurations x
  reports), a loss (Metz et al. 2020, as the DyHPO, DPL and ifBO papers use it: diverged configurations left out);
- any `FOLDER/*.json` of the form `{"name", "maximize", "reports", "space": {...}, "configurations": [{...}], "curves": [[...]]}`.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from search_spaces import CategoricalParameter, Configuration, Space
from service.domain.history import History

Curve = Sequence[float]
_FAR = 1000.0
"""How much farther another choice is than any other value: the nearest row has the same choices while one with them is left."""


@dataclass(frozen=True)
class Table:
    """Learning curves over a space given as in a study definition. `reports` is the length of a whole trial."""

    name: str
    space: Mapping[str, Any]
    maximize: bool
    reports: int
    rows: Sequence[Configuration] = ()
    curves: Sequence[Curve] = ()
    function: Callable[[Configuration], Curve] | None = None
    """In place of rows and curves. Best and median are then estimated from `rows`, drawn at random."""

    def curve(self, parameters: Configuration) -> Curve:
        """The objective at reports 1, 2, ...; shorter than `reports` where the trial ended by itself."""
        return self.function(parameters) if self.function else self.curves[self.place(parameters)]

    @cached_property
    def finals(self) -> Sequence[float]:
        """The best value of each row's curve."""
        pick = max if self.maximize else min
        curves = [self.function(row) for row in self.rows] if self.function else self.curves
        return [pick((value for value in curve if math.isfinite(value)), default=math.nan) for curve in curves]

    @cached_property
    def best(self) -> float:
        """The best value in the table."""
        return (max if self.maximize else min)(value for value in self.finals if math.isfinite(value))

    @cached_property
    def middle(self) -> float:
        """The median configuration's value."""
        return median(value for value in self.finals if math.isfinite(value))

    def regret(self, value: float) -> float:
        """How far `value` is from the best, as a share of the median configuration's distance from it."""
        return (self.best - value) / (self.best - self.middle)

    def place(self, row: Configuration) -> int:
        """Which of the rows this very one is."""
        return self._places[id(row)]

    @cached_property
    def _places(self) -> Mapping[int, int]:
        return {id(row): place for place, row in enumerate(self.rows)}


_SAME = 1e-9


class NearestRow:
    """For a table with rows, in place of a proposal: itself where the table has it, else the nearest row that no trial has."""

    def __init__(self, table: Table, space: Space) -> None:
        self._table = table
        self._points = np.array([[0.5 if share is None else share for share in space.to_unit(row)] for row in table.rows])
        self._space = space
        choices = [space.parameters[name] for name in space.names]
        self._is_choice = np.array([isinstance(one, CategoricalParameter) and not one.ordered for one in choices])

    def __call__(self, proposed: Configuration, history: History) -> Configuration | None:
        """For `simulate`."""
        return self.of(proposed, [trial.parameters for trial in history.trials.values()])

    def of(self, proposed: Configuration, taken: Sequence[Configuration]) -> Configuration | None:
        """The nearest row that is none of those taken; None when all are."""
        if len(taken) == len(self._table.rows):
            return None
        away = self._points - np.array([0.5 if share is None else share for share in self._space.to_unit(proposed)])
        distance = np.where(self._is_choice, (np.abs(away) > _SAME) * _FAR, away**2).sum(axis=1)
        distance[[self._table.place(row) for row in taken]] = np.inf
        return self._table.rows[int(distance.argmin())]


def read_tables(folder: Path) -> Iterator[Table]:
    """All tables of a folder."""
    lora = folder / "nmt_lora_finetune" / "nmtlc_finetune.json"
    if lora.exists():
        yield from _lora(json.loads(lora.read_text()))
    for path in sorted((folder / "taskset").glob("*.npz")):
        yield from _taskset(np.load(path))
    for path in sorted(folder.glob("*.json")):
        document = json.loads(path.read_text())
        yield Table(
            document["name"], document["space"], document["maximize"], document["reports"],
            document["configurations"], document["curves"],
        )  # fmt: skip


def made_up(reports: int = 27) -> Table:
    """A loss that falls with a power of the reports to a floor that the parameters decide; slow learners start badly."""
    space = {
        "learning_rate": {"kind": "float", "low": 1e-6, "high": 1e-2, "log": True},
        "dropout": {"kind": "float", "low": 0.0, "high": 0.5},
        "weight_decay": {"kind": "float", "low": 0.0, "high": 0.3},
        "frozen_layers": {"kind": "int", "low": 0, "high": 6},
        "batch_size": {"kind": "categorical", "choices": [16, 32, 64]},
    }

    def curve(parameters: Configuration) -> Curve:
        rate, dropout, decay, frozen = (float(str(parameters[name])) for name in list(space)[:4])
        off = (math.log10(rate) + 4) / 2
        floor = 0.1 + 0.5 * off**2 + (dropout - 0.1) ** 2 + (decay - 0.05) ** 2 + 0.01 * frozen
        return [floor + (1 + abs(off)) * report**-0.7 - reports**-0.7 for report in range(1, reports + 1)]

    random = np.random.default_rng(0)
    rows: list[Configuration] = [
        {
            "learning_rate": float(10 ** random.uniform(-6, -2)), "dropout": float(random.uniform(0, 0.5)),
            "weight_decay": float(random.uniform(0, 0.3)), "frozen_layers": int(random.integers(7)),
            "batch_size": int(random.choice([16, 32, 64])),
        }
        for _ in range(999)
    ]  # fmt: skip
    optimum: Configuration = {
        "learning_rate": 1e-4, "dropout": 0.1, "weight_decay": 0.05, "frozen_layers": 0, "batch_size": 32
    }  # fmt: skip
    return Table("made-up", space, maximize=False, reports=reports, rows=[*rows, optimum], function=curve)


_LORA_REPORTS = 27


def _lora(records: list[dict[str, Any]]) -> Iterator[Table]:
    names = ("lora_r", "batch_size", "learning_rate")
    for dataset in sorted({record["dataset"] for record in records}):
        own = [record for record in records if record["dataset"] == dataset]
        space: dict[str, Any] = {"llm": {"kind": "categorical", "choices": sorted({record["llm"] for record in own})}}
        for name in names:
            space[name] = {"kind": "categorical", "choices": sorted({record[name] for record in own}), "ordered": True}
        rows = [{name: record[name] for name in ("llm", *names)} for record in own]
        curves = [[float(value) for value in record["bleu"][:_LORA_REPORTS]] for record in own]
        yield Table(f"lora-{dataset}", space, maximize=True, reports=_LORA_REPORTS, rows=rows, curves=curves)


_LOG_PARAMETERS = frozenset(
    {"learning_rate", "one_minus_beta1", "one_minus_beta2", "epsilon", "l1", "l2", "linear_decay", "exponential_decay"}
)


def _taskset(archive: Any) -> Iterator[Table]:
    names = [str(name) for name in archive["hp_names"]]
    for task, loss, settings in zip(archive["names"], archive["valid"], archive["hp"], strict=True):
        finite = np.isfinite(loss)
        worst = np.nanmin(np.nanquantile(np.where(finite, loss, np.nan), 0.95, axis=0))
        kept = finite.all(axis=1) & (np.where(finite, loss, np.inf) < worst).all(axis=1)
        rows = [_adam(dict(zip(names, map(float, row), strict=True))) for row in settings[kept]]
        space = {
            name: {
                "kind": "float", "log": name in _LOG_PARAMETERS,
                "low": min(float(str(row[name])) for row in rows), "high": max(float(str(row[name])) for row in rows),
            }
            for name in rows[0]
        }  # fmt: skip
        curves = [[float(value) for value in curve] for curve in loss[kept]]
        name = str(task).replace("FixedTextRNNClassification_", "")
        yield Table(f"taskset-{name}", space, maximize=False, reports=loss.shape[1], rows=rows, curves=curves)


def _adam(row: dict[str, float]) -> Configuration:
    """Adam's parameters on scales where they spread: one less its betas."""
    spread = {
        name.replace("beta", "one_minus_beta"): 1 - value if name.startswith("beta") else value for name, value in row.items()
    }
    return {name: max(value, 1e-12) for name, value in spread.items()}
