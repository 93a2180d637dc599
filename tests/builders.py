"""Values to test with: valid by default, changed by keyword."""

from datetime import UTC, datetime, timedelta
from typing import Any

from search_spaces import Value
from service.domain.definition import StudyDefinition, parse_definition
from service.domain.forecast import Band, Forecast
from service.domain.study import Study
from service.domain.trial import Report, Trial
from trainers.configs import FineTuningConfig, TrainerConfig, TrainingConfig

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


def a_document(**changes: Any) -> dict[str, Any]:
    """A study definition as a client sends it."""
    document: dict[str, Any] = {
        "name": "intents",
        "trainer": {
            "kind": "text-classification",
            "model": "tiny-encoder",
            "data": {"train": "dataset://intents/train.csv"},
            "epochs": 3,
        },
        "space": {"learning_rate": {"kind": "float", "low": 1e-5, "high": 1e-2, "log": True}},
        "objective": {"metric": "validation/accuracy", "direction": "maximize"},
        "strategy": {"kind": "random"},
        "budget": {"trials": 4},
    }
    if "objectives" in changes and "objective" not in changes:
        del document["objective"]
    return {**document, **changes}


def a_definition(**changes: Any) -> StudyDefinition:
    return parse_definition(a_document(**changes))


def a_study(study_id: str = "intents-abc123", created_at: datetime = NOW, **changes: Any) -> Study:
    return Study(id=study_id, definition=a_definition(**changes), created_at=created_at)


def a_trial(number: int = 0, study_id: str = "intents-abc123", **changes: Any) -> Trial:
    values: dict[str, Any] = {"parameters": {"learning_rate": 1e-3}, "until": 3, "created_at": NOW}
    return Trial(study_id=study_id, number=number, **{**values, **changes})


def a_report(number: int = 1, accuracy: float = 0.5, **changes: Any) -> Report:
    values: dict[str, Any] = {
        "epoch": float(number),
        "step": 10 * number,
        "metrics": {"validation/accuracy": accuracy, "validation/loss": 1 - accuracy, "train/loss": 1.0},
        "seconds": 2.0,
        "attempt": 1,
        "worker": "localhost:1",
        "at": NOW + timedelta(seconds=10 * number),
    }
    return Report(number=number, **{**values, **changes})


def fine_tuning(trainer: TrainerConfig) -> FineTuningConfig:
    """The configuration of a trainer that has a model and rows."""
    assert isinstance(trainer, TrainingConfig)
    return trainer


def a_forecast(**changes: Any) -> Forecast:
    """One of 100 to 200 s, after 60 of them."""
    values: dict[str, Any] = {
        "at": NOW + timedelta(seconds=60), "elapsed_seconds": 60.0, "ended": 2, "slots": 2, "courses": 24,
        "seconds": Band(100.0, 120.0, 200.0), "gpu_seconds": Band(1800.0, 3600.0, 7200.0), "trials": Band(4.0, 4.0, 4.0),
        "reports": Band(10.0, 12.0, 12.0), "bytes": None,
    }  # fmt: skip
    return Forecast(**{**values, **changes})


def as_number(value: Value) -> float:
    """A parameter's value that is a number."""
    assert isinstance(value, int | float)
    return float(value)
