"""Learning curves from formulas: no model and no rows."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write(_folder: Path) -> None:
    """It needs nothing."""


def measure(exported: Path, _place: Path, split: str) -> Mapping[str, float]:
    known = json.loads((exported / "simulation.json").read_text())
    rate, epoch = known["values"]["learning_rate"], known["step"] / DOCUMENT["steps_per_epoch"]
    return {"loss": (math.log(rate) + 7) ** 2 / 10 + 1 / epoch + (0.5 if split == "test" else 0.0)}


_LOSS = "(log(learning_rate) + 7) ** 2 / 10 + 1 / epoch"
DOCUMENT: dict[str, Any] = {
    "kind": "simulated",
    "epochs": 3,
    "metrics": {"train/loss": f"{_LOSS} - 0.1", "validation/loss": _LOSS, "test/loss": f"{_LOSS} + 0.5"},
    "values": {"learning_rate": 1e-3},
    "noise": 1e-6,
    "steps_per_epoch": 4,
}

CASE = (write, DOCUMENT, measure, {"epochs": 20}, {"loss": 0.06})
