"""What every trainer promises of a state that is loaded under another configuration."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.trainers.cases import Case, a_config, a_trainer
from trainers.configs import changeable
from trainers.contract import Report, Trainer

OTHERWISE: Mapping[str, Any] = {
    "learning_rate": 1e-4, "weight_decay": 0.2, "beta1": 0.7, "beta2": 0.9, "momentum": 0.3, "layer_decay": 0.8,
    "gradient_clip": 0.25, "dropout": 0.35, "attention_dropout": 0.45, "label_smoothing": 0.1, "class_weights": "balanced",
    "focal_gamma": 1.0, "huber_delta": 2.0, "lora.dropout": 0.15, "augmentation.token_dropout": 0.1,
    "augmentation.span_masking": 0.1, "augmentation.flip": 0.5, "augmentation.crop": 0.2, "augmentation.shift": 0.1,
    "augmentation.erase": 0.3,
}  # fmt: skip


def after_a_report(case: Case, place: Path, into: Path, **changes: Any) -> Trainer:
    """A trainer that has given its first report and saved its state."""
    trainer = a_trainer(case, place, **changes)
    next(trainer.reports())
    trainer.save(into)
    return trainer


def loaded(case: Case, place: Path, state: Path, **changes: Any) -> Trainer:
    trainer = a_trainer(case, place, **changes)
    trainer.load(state)
    return trainer


def trained(trainer: Trainer) -> dict[str, Tensor]:
    model: Any = trainer._model  # type: ignore[attr-defined]  # every trainer has one, and tests may look
    return {name: one.detach().clone() for name, one in model.named_parameters() if one.requires_grad}


def groups(trainer: Trainer) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = trainer._loop._optimizer.param_groups  # type: ignore[attr-defined]  # and a loop
    return found


def moments(trainer: Trainer) -> dict[tuple[str, str], Tensor]:
    model, state = trainer._model, trainer._loop._optimizer.state  # type: ignore[attr-defined]
    names = {one: name for name, one in model.named_parameters()}
    return {(names[one], key): value for one, kept in state.items() for key, value in kept.items()}


def changed(case: Case, names: Mapping[str, Any]) -> dict[str, Any]:
    """Changes of the case's document; what it has beside the keys of a group stays."""
    changes: dict[str, Any] = {}
    for name, value in names.items():
        group, _, key = name.rpartition(".")
        if group:
            changes.setdefault(group, dict(case.document.get(group, {})))[key] = value
        else:
            changes[name] = value
    return changes


def test_the_next_steps_go_by_the_new_learning_rate_at_the_old_place_of_the_schedule(
    case: Case, place: Path, tmp_path: Path
) -> None:
    one = after_a_report(case, place, tmp_path, learning_rate=1e-3)
    other = loaded(case, place, tmp_path, learning_rate=4e-3)
    known, new = next(one.reports()), next(other.reports())
    assert (new.number, new.step, new.epoch) == (known.number, known.step, known.epoch) == (2, known.step, 2.0)
    assert new.metrics["train/learning_rate"] == pytest.approx(4 * known.metrics["train/learning_rate"])
    for group in groups(other):
        assert group["lr"] == pytest.approx(new.metrics["train/learning_rate"] * group["scale"])


def test_with_next_to_no_learning_rate_the_loaded_weights_stay_where_they_are(case: Case, place: Path, tmp_path: Path) -> None:
    before = trained(after_a_report(case, place, tmp_path))
    trainer = loaded(case, place, tmp_path, learning_rate=1e-12)
    reports = list(trainer.reports())
    assert [report.number for report in reports] == [2, 3]
    assert all(torch.allclose(weight, before[name], rtol=0, atol=1e-9) for name, weight in trained(trainer).items())


def test_the_optimizer_keeps_its_moments_and_has_the_new_decay(case: Case, place: Path, tmp_path: Path) -> None:
    one = after_a_report(case, place, tmp_path, weight_decay=0.1)
    other = loaded(case, place, tmp_path, weight_decay=0.3, beta1=0.5)
    known, taken = moments(one), moments(other)
    assert known.keys() == taken.keys() != set()
    assert all(torch.equal(known[key], taken[key]) for key in known)
    assert {group["weight_decay"] for group in groups(other)} <= {0.3, 0.0}
    assert any(group["weight_decay"] == 0.3 for group in groups(other))
    assert {group["betas"] for group in groups(other)} == {(0.5, 0.999)}


def test_the_network_has_the_new_dropout(case: Case, place: Path, tmp_path: Path) -> None:
    after_a_report(case, place, tmp_path, dropout=0.1)
    trainer = loaded(case, place, tmp_path, dropout=0.4)
    model: Any = trainer._model  # type: ignore[attr-defined]
    found = {module.p for module in model.modules() if isinstance(module, nn.Dropout) and module.p}
    adapters = {case.document["lora"]["dropout"]} if "dropout" in case.document.get("lora", {}) else set()
    assert found <= {0.4} | adapters, "a convolutional network has none"


def test_all_that_may_change_may_change_at_once(case: Case, place: Path, tmp_path: Path) -> None:
    after_a_report(case, place, tmp_path)
    names = changeable(a_config(case))
    reports: list[Report] = list(
        loaded(case, place, tmp_path, **changed(case, {name: OTHERWISE[name] for name in names})).reports()
    )
    assert [report.number for report in reports] == [2, 3]
