"""The training loop beyond the contract: freezing, schedules, optimizers, number formats, and what is odd."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, MPNetConfig

from tests.trainers.cases import CASES, Case, a_trainer
from tests.trainers.test_contract import said, same, weights
from trainers.configs import TrainingConfig
from trainers.contract import Goal, Interruption, Report, TrainerError, TrialContext
from trainers.loop import Loop, Work
from trainers.optimisation import make_optimizer, rate_factor
from trainers.ranks import Ranks

CPU = torch.device("cpu")
STEPS = 8
"""Of an epoch of the case."""


@pytest.fixture(scope="session")
def case() -> Case:
    return CASES[0]


def settings(**changes: Any) -> TrainingConfig:
    return TrainingConfig.model_validate({"model": "none", "weight_decay": 0.0, "gradient_clip": 0.0, **changes})


class Line:
    """A loop at its smallest: 6 rows in batches of 2, a network of one weight, and what happened."""

    def __init__(
        self, weighs: float = 1.0, interrupted_at: int | None = None, ranks: Ranks | None = None, **changes: Any
    ) -> None:
        self.model = nn.Linear(1, 1, bias=False)
        nn.init.ones_(self.model.weight)
        self.epochs: list[int] = []
        self.sizes: list[int] = []
        self.validation_loss = 1.0
        self.gradients_at_validation: list[Tensor | None] = []
        self._weighs = weighs
        looks = iter(range(1_000_000))
        context = TrialContext(
            cache=Path("none"), interruption=lambda: Interruption.PAUSE if next(looks) == interrupted_at else None
        )
        self.loop = Loop(
            settings(**{"batch_size": 2, "schedule": "constant", "warmup_fraction": 0.0, **changes}),
            context,
            CPU,
            self.model,
            ranks,
        )

    def reports(self, batches: Sequence[Sequence[int]] = ((0, 1), (2, 3), (4, 5))) -> list[Report]:
        work = Work(batches=lambda _: batches, loss=self._loss, weight=self._weight, validate=self._validate)
        return said(list(self.loop.reports(work)))

    def _loss(self, rows: Sequence[int], epoch: int) -> Tensor:
        self.epochs.append(epoch)
        self.sizes.append(len(rows))
        inputs = torch.tensor([[float(row + 1)] for row in rows])
        loss: Tensor = (self._weighs * self.model(inputs)).square().sum()
        return loss

    def _weight(self, rows: Sequence[int]) -> float:
        return self._weighs * len(rows)

    def _validate(self) -> Mapping[str, float]:
        self.gradients_at_validation.append(self.model.weight.grad)
        return {"loss": self.validation_loss}


class OneOfTwo:
    """The first of two processes, of which the other one says these things when all are asked, and then no more."""

    rank, count = 0, 2

    def __init__(self, *said: bool) -> None:
        self._said = iter(said)

    def share(self, rows: Sequence[int]) -> Sequence[int]:
        return rows[::2]

    def add_up(self, tensors: Sequence[Tensor]) -> None: ...

    def any(self, *, flag: bool) -> bool:
        return next(self._said, False) or flag

    def from_first(self, value: Any) -> Any:
        return value


def changed(trainer: Any, before: Mapping[str, Tensor]) -> set[str]:
    return {name for name, tensor in weights(trainer).items() if not torch.equal(tensor, before[name])}


def test_gradual_unfreezing_lets_one_more_layer_train_each_epoch_from_the_top(case: Case, place: Path) -> None:
    trainer = a_trainer(case, place, epochs=3, unfreeze_per_epoch=1)
    before, moved = weights(trainer), []
    for _ in trainer.reports():
        names = changed(trainer, before)
        moved.append([any(part in name for name in names) for part in ("classifier", "layer.1.", "layer.0.", "embeddings")])
    assert moved == [[True, False, False, False], [True, True, False, False], [True, True, True, True]]


def test_gradual_unfreezing_ends_at_the_layers_that_stay_frozen(case: Case, place: Path) -> None:
    trainer = a_trainer(case, place, epochs=4, unfreeze_per_epoch=1, frozen_layers=1)
    before = weights(trainer)
    list(trainer.reports())
    assert not [name for name in changed(trainer, before) if "embeddings" in name or "layer.0." in name]


@pytest.mark.parametrize("interrupted_at", [3, STEPS, STEPS + 1, 2 * STEPS, 2 * STEPS + 3])
def test_gradual_unfreezing_goes_on_where_it_stopped(case: Case, place: Path, tmp_path: Path, interrupted_at: int) -> None:
    whole = a_trainer(case, place, unfreeze_per_epoch=1)
    wanted = said(list(whole.reports()))
    reports, second = interrupted(case, place, tmp_path, interrupted_at, unfreeze_per_epoch=1)
    assert reports == wanted
    assert same(weights(whole), weights(second))


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "sgd", "learning_rate": 0.1},
        {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 0.1},
        {"optimizer": "adafactor"},
        {"schedule": "one_cycle", "layer_decay": 0.8},
        {"precision": "fp16"},
        {"frozen_layers": 1},
        {"frozen_layers": "all"},
        {"gradient_checkpointing": True},
        {"augmentation": {"token_dropout": 0.2, "span_masking": 0.2}},
    ],
    ids=str,
)
def test_a_trial_goes_on_bit_for_bit_whatever_it_is_optimised_by(
    case: Case, place: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    whole = a_trainer(case, place, epochs=2, **changes)
    wanted = said(list(whole.reports()))
    reports, second = interrupted(case, place, tmp_path, STEPS + 2, epochs=2, **changes)
    assert reports == wanted
    assert same(weights(whole), weights(second))


def interrupted(case: Case, place: Path, folder: Path, at: int, **changes: Any) -> tuple[list[Report], Any]:
    """What is said before and after a pause, and the second trainer."""
    first = a_trainer(case, place, interrupted_at=at, **changes)
    reports = list(first.reports())
    first.save(folder)
    torch.manual_seed(999)  # another process would be in another random state
    second = a_trainer(case, place, **changes)
    second.load(folder)
    return said(reports + list(second.reports())), second


def test_one_cycle_is_torchs() -> None:
    total, peak = 100, 30
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1.0, total_steps=total, pct_start=(peak + 1) / total, cycle_momentum=False
    )
    asked = settings(schedule="one_cycle", warmup_fraction=peak / total)
    for step in range(total):
        assert rate_factor(asked, step, total) == pytest.approx(theirs.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        if step < total - 1:
            theirs.step()


@pytest.mark.parametrize(("schedule", "halfway"), [("linear", 0.5), ("cosine", 0.5), ("constant", 1.0)])
def test_the_rate_rises_over_the_warm_up_and_then_follows_its_schedule(schedule: str, halfway: float) -> None:
    asked = settings(schedule=schedule, warmup_fraction=0.2)
    rates = [rate_factor(asked, step, 100) for step in range(100)]
    assert rates[:21] == sorted(rates[:21])
    assert 0 < rates[0] < 0.05
    assert rates[20] == 1.0
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert rates[60] == pytest.approx(halfway)
    assert rates[99] > 0


def test_sgd_is_nesterovs() -> None:
    line = Line(optimizer="sgd", learning_rate=1e-3, epochs=2, momentum=0.9)
    line.reports()
    weight = nn.Parameter(torch.ones(1, 1))
    theirs = torch.optim.SGD([weight], lr=1e-3, momentum=0.9, nesterov=True)
    for rows in [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]] * 2:
        theirs.zero_grad()
        (torch.tensor([rows]).T @ weight).square().mean().backward()  # type: ignore[no-untyped-call]
        theirs.step()
    assert torch.equal(line.model.weight, weight)


def test_a_gradient_is_clipped_to_its_longest_norm() -> None:
    long, clipped = (Line(optimizer="sgd", momentum=0.0, learning_rate=1e-3, epochs=1, gradient_clip=clip) for clip in (0.0, 0.5))
    long.reports()
    clipped.reports()
    assert 1 - float(clipped.model.weight.detach()) == pytest.approx(3 * 1e-3 * 0.5, rel=1e-4), "half the rate each step"
    assert 1 - float(long.model.weight.detach()) > 0.05


def test_each_layer_learns_more_slowly_than_the_one_above_it(case: Case, place: Path) -> None:
    model: Any = a_trainer(case, place)._model  # type: ignore[attr-defined]
    groups = make_optimizer(model, settings(layer_decay=0.5), list(model.named_parameters())).param_groups
    scales = {id(parameter): group["scale"] for group in groups for parameter in group["params"]}
    parts = [
        (model.classifier.weight, 1.0),
        (model.bert.pooler.dense.bias, 1.0),
        (model.bert.encoder.layer[1].attention.self.query.weight, 0.5),
        (model.bert.encoder.layer[0].output.dense.bias, 0.25),
        (model.bert.embeddings.word_embeddings.weight, 0.125),
    ]
    assert [scales[id(parameter)] for parameter, _ in parts] == [scale for _, scale in parts]


def test_only_matrices_decay(case: Case, place: Path) -> None:
    model: Any = a_trainer(case, place)._model  # type: ignore[attr-defined]
    groups = make_optimizer(model, settings(weight_decay=0.3), list(model.named_parameters())).param_groups
    assert [(group["weight_decay"], {one.ndim > 1 for one in group["params"]}) for group in groups] == [
        (0.3, {True}),
        (0.0, {False}),
    ]


@pytest.mark.parametrize("lora", [None, {"rank": 2, "dropout": 0.0}])
def test_activations_that_are_computed_twice_give_the_same_gradients(case: Case, place: Path, lora: Any) -> None:
    changes = {"epochs": 2, "dropout": 0.0, "lora": lora, "precision": "fp32"}
    once, twice = (a_trainer(case, place, **changes, gradient_checkpointing=on) for on in (False, True))
    assert said(list(once.reports())) == said(list(twice.reports()))
    assert same(weights(once), weights(twice))


def test_activations_are_computed_twice(case: Case, place: Path) -> None:
    for twice, wanted in ((False, STEPS), (True, 2 * STEPS)):
        trainer: Any = a_trainer(case, place, epochs=1, gradient_checkpointing=twice)
        calls: list[bool] = []
        feed = trainer._model.bert.encoder.layer[0].intermediate
        feed.register_forward_hook(lambda module, *_, calls=calls: calls.append(True) if module.training else None)
        list(trainer.reports())
        assert len(calls) == wanted


def test_a_model_that_cannot_compute_activations_twice_is_named(case: Case, place: Path, tmp_path: Path) -> None:
    shutil.copytree(place, tmp_path / "place", ignore=shutil.ignore_patterns("cache", "*.safetensors", "config.json"))
    config = MPNetConfig(vocab_size=200, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path / "place" / "tiny")
    with pytest.raises(TrainerError, match="`gradient_checkpointing` is not for models of type mpnet: leave it out"):
        a_trainer(case, tmp_path / "place", gradient_checkpointing=True)


@pytest.mark.integration
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch's own, of itself
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_compiled_network_learns_the_same_and_is_exported_under_its_own_names(case: Case, place: Path, tmp_path: Path) -> None:
    plain, compiled = (a_trainer(case, place, epochs=1, dropout=0.0, precision="fp32", compile=on) for on in (False, True))
    (wanted,), (found,) = list(plain.reports()), list(compiled.reports())
    assert found.metrics["train/loss"] == pytest.approx(wanted.metrics["train/loss"], rel=1e-3)
    assert found.metrics["validation/loss"] == pytest.approx(wanted.metrics["validation/loss"], rel=1e-2)
    assert weights(compiled).keys() == weights(plain).keys()
    compiled.export(tmp_path)
    assert case.measure(tmp_path, place, "validation")["loss"] == pytest.approx(found.metrics["validation/loss"], abs=1e-5)


def test_fp16_keeps_weights_in_fp32_and_its_scale_in_the_state(case: Case, place: Path, tmp_path: Path) -> None:
    trainer: Any = a_trainer(case, place, precision="fp16", epochs=1)
    list(trainer.reports())
    assert trainer.facts["training_precision"] == "fp16"
    assert {parameter.dtype for parameter in trainer._model.parameters()} == {torch.float32}
    trainer.save(tmp_path)
    again: Any = a_trainer(case, place, precision="fp16", epochs=1)
    again.load(tmp_path)
    assert again._loop._scaler.state_dict() == trainer._loop._scaler.state_dict()
    assert again._loop._scaler.get_scale() > 1


def test_reports_in_steps_stop_early_by_the_goal(case: Case, place: Path) -> None:
    changes: dict[str, Any] = {"report_every": 3, "max_steps": 60, "early_stopping": {"patience": 2, "min_gain": 1e6}}
    reports = list(a_trainer(case, place, goal=Goal("validation/accuracy", "maximize"), **changes).reports())
    assert [(report.step, report.last) for report in reports] == [(3, False), (6, False), (9, True)]


def test_without_a_goal_the_validation_loss_is_watched() -> None:
    line = Line(epochs=9, early_stopping={"patience": 3, "min_gain": 0.0})
    assert [report.last for report in line.reports()] == [False, False, False, True], "it is 1 from the first report on"


def test_a_trial_that_stopped_early_gives_nothing_more(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"epochs": 9, "early_stopping": {"patience": 1, "min_gain": 0.0}}
    first, second = Line(**changes), Line(**changes)
    assert len(first.reports()) == 2
    first.loop.save(tmp_path)
    second.loop.load(tmp_path)
    assert second.reports() == []


def test_a_trial_at_its_end_goes_on_when_it_gets_more_epochs(tmp_path: Path) -> None:
    first, second, whole = Line(epochs=2), Line(epochs=3), Line(epochs=3)
    first.reports()
    first.loop.save(tmp_path)
    second.loop.load(tmp_path)
    assert second.reports() == whole.reports()[2:]
    assert torch.equal(second.model.weight, whole.model.weight)


def test_steps_go_on_over_the_end_of_an_epoch() -> None:
    line = Line(report_every=2, max_steps=7)
    assert [(report.step, report.epoch, report.last) for report in line.reports()] == [
        (2, 2 / 3, False),
        (4, 4 / 3, False),
        (6, 2.0, False),
        (7, 7 / 3, True),
    ]
    assert line.epochs == [0, 0, 0, 1, 1, 1, 2]


def test_a_batch_that_weighs_nothing_changes_nothing() -> None:
    line = Line(weighs=0.0, epochs=2)
    reports = line.reports()
    assert [(report.step, report.metrics["train/loss"]) for report in reports] == [(3, 0.0), (6, 0.0)]
    assert torch.equal(line.model.weight, torch.ones(1, 1))


def test_memory_that_is_short_in_another_process_halves_the_micro_batches_of_this_one() -> None:
    full, wanted = (Line(ranks=ranks, batch_size=4, epochs=1, optimizer="sgd") for ranks in (OneOfTwo(False, True), OneOfTwo()))
    batches = [[0, 1, 2, 3]]
    assert full.reports(batches) == wanted.reports(batches)
    assert (full.sizes, wanted.sizes) == ([2, 1, 1], [2]), "what was computed before the other one told is not counted"
    assert torch.equal(full.model.weight, wanted.model.weight)
    assert (full.loop.facts()["micro_batch_size"], wanted.loop.facts()["micro_batch_size"]) == (1, 4)


@pytest.mark.parametrize(
    ("rows", "size", "wanted"), [(16, 5, [4, 4, 4, 4]), (9, 4, [3, 3, 3]), (7, 3, [2, 2, 3]), (4, 8, [4]), (2, 1, [1, 1])]
)
def test_no_row_of_a_batch_is_left_over_for_a_micro_batch_of_its_own(rows: int, size: int, wanted: list[int]) -> None:
    line = Line(batch_size=rows, micro_batch_size=size, epochs=1)
    line.reports([range(rows)])
    assert line.sizes == wanted


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_weights_that_the_last_step_spoilt_end_the_trial_as_diverged(loss: float) -> None:
    line = Line(epochs=1)
    line.validation_loss = loss
    with pytest.raises(TrainerError, match=f"The validation loss is {loss} after step 3: lower the learning rate") as raised:
        line.reports()
    assert raised.value.reason == "diverged"


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch's own, of itself
def test_what_earlier_trials_compiled_does_not_count_against_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    resets: list[None] = []
    monkeypatch.setattr(torch.compiler, "reset", lambda: resets.append(None))
    Line()
    assert not resets
    Line(compile=True)
    assert len(resets) == 1


def test_no_gradients_take_room_while_validating() -> None:
    line = Line(epochs=2)
    line.reports()
    assert line.gradients_at_validation == [None, None]


def test_a_pause_before_the_first_step_changes_nothing(tmp_path: Path) -> None:
    line, whole, second = Line(epochs=2, interrupted_at=0), Line(epochs=2), Line(epochs=2)
    assert line.reports() == []
    line.loop.save(tmp_path)
    second.loop.load(tmp_path)
    assert second.reports() == whole.reports()


def test_the_state_of_another_model_is_refused(case: Case, place: Path, tmp_path: Path) -> None:
    Line(epochs=1).loop.save(tmp_path)
    with pytest.raises(KeyError):
        a_trainer(case, place).load(tmp_path)
