"""The trainer that trains nothing: formulas, noise, pauses, failures."""

import json
import math
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from trainers.configs import SimulatedConfig, changeable, metrics_of
from trainers.contract import Goal, Interruption, Report, Trainer, TrainerError, TrialContext, make_trainer

LOSS = "(log(learning_rate) + 7) ** 2 / 10 + 1 / epoch"


def a_config(**changes: Any) -> SimulatedConfig:
    document = {
        "kind": "simulated", "epochs": 4, "metrics": {"validation/loss": LOSS}, "values": {"learning_rate": 1e-3, "width": 64},
        "steps_per_epoch": 5, **changes,
    }  # fmt: skip
    return SimulatedConfig.model_validate_json(json.dumps(document))


def a_trainer(
    cache: Path, interruption: Callable[[], Interruption | None] = lambda: None, goal: Goal | None = None, **changes: Any
) -> Trainer:
    return make_trainer(a_config(**changes), TrialContext(cache=cache, interruption=interruption, goal=goal))


def said(reports: list[Report]) -> list[Report]:
    return [replace(report, seconds=0.0) for report in reports]


def refused(**changes: Any) -> str:
    with pytest.raises(ValidationError) as raised:
        a_config(**changes)
    return str(raised.value)


def test_a_report_says_what_the_formulas_say(tmp_path: Path) -> None:
    metrics = {
        "validation/loss": LOSS,
        "train/loss": "epoch / epochs + step",
        "model/megabytes": "width / 10",
        "validation/f1": 0.5,
    }
    found = [report.metrics for report in a_trainer(tmp_path, metrics=metrics).reports()]
    assert found == [
        {
            "validation/loss": (math.log(1e-3) + 7) ** 2 / 10 + 1 / epoch,
            "train/loss": epoch / 4 + 5 * epoch,
            "model/megabytes": 6.4,
            "validation/f1": 0.5,
        }
        for epoch in (1, 2, 3, 4)
    ]


def test_noise_has_the_spread_that_was_asked_for_and_leaves_the_model_alone(tmp_path: Path) -> None:
    metrics = {"validation/loss": "0", "model/megabytes": "5"}
    found = list(a_trainer(tmp_path, epochs=400, noise=0.1, metrics=metrics).reports())
    drawn = [report.metrics["validation/loss"] for report in found]
    assert abs(sum(drawn) / 400) < 0.02
    assert 0.09 < math.sqrt(sum(value**2 for value in drawn) / 400) < 0.11
    assert {report.metrics["model/megabytes"] for report in found} == {5.0}


@pytest.mark.parametrize("changes", [{"seed": 1}, {"values": {"learning_rate": 1e-3, "width": 65}}])
def test_another_seed_and_another_configuration_draw_other_noise(tmp_path: Path, changes: dict[str, Any]) -> None:
    one, again, other = (said(list(a_trainer(tmp_path, noise=0.1, **more).reports())) for more in ({}, {}, changes))
    assert one == again
    assert all(before.metrics != after.metrics for before, after in zip(one, other, strict=True))


@pytest.mark.parametrize("look", [0, 1, 4, 5, 7, 19])
def test_a_trial_paused_at_any_step_goes_on_as_if_it_had_not(tmp_path: Path, look: int) -> None:
    wanted = said(list(a_trainer(tmp_path, noise=0.1).reports()))
    looks = iter(range(1000))
    first = a_trainer(tmp_path, lambda: Interruption.PAUSE if next(looks) == look else None, noise=0.1)
    reports = list(first.reports())
    assert len(reports) == look // 5
    state = tmp_path / "state"
    state.mkdir()
    first.save(state)
    second = a_trainer(tmp_path, noise=0.1)
    second.load(state)
    assert said(reports + list(second.reports())) == wanted


def test_a_pause_is_heard_in_the_middle_of_a_long_step(tmp_path: Path) -> None:
    looks = iter(range(1000))
    trainer = a_trainer(tmp_path, lambda: Interruption.PAUSE if next(looks) == 1 else None, seconds_per_epoch="1e6 * width")
    assert list(trainer.reports()) == []


def test_an_epoch_takes_as_long_as_it_is_asked_to(tmp_path: Path) -> None:
    [report] = a_trainer(tmp_path, epochs=1, seconds_per_epoch="width / 1000").reports()
    assert report.seconds >= 0.064


def test_early_stopping_goes_by_the_goal(tmp_path: Path) -> None:
    metrics = {"validation/loss": "1 / epoch", "validation/accuracy": "min(epoch, 2)"}
    goal = Goal("validation/accuracy", "maximize")
    found = list(a_trainer(tmp_path, goal=goal, epochs=9, metrics=metrics, early_stopping={"patience": 2}).reports())
    assert [report.last for report in found] == [False, False, False, True]


@pytest.mark.parametrize("reason", ["trainer_error", "diverged", "out_of_memory"])
def test_a_trial_fails_where_its_condition_is_true(tmp_path: Path, reason: str) -> None:
    reports = a_trainer(tmp_path, fails={reason: "epoch > 2 and width == 64"}).reports()
    assert [next(reports).number, next(reports).number] == [1, 2]
    with pytest.raises(TrainerError, match=f"`fails.{reason}` is true after step 11") as raised:
        next(reports)
    assert raised.value.reason == reason


def test_a_formula_without_an_answer_on_the_way_ends_the_trial(tmp_path: Path) -> None:
    reports = a_trainer(tmp_path, metrics={"validation/loss": "1 / (epoch - 2)"}).reports()
    next(reports)
    with pytest.raises(TrainerError, match=r"`metrics\.validation/loss` has no answer at epoch 2") as raised:
        next(reports)
    assert raised.value.reason == "trainer_error"


_RUN = """
import json, sys
from pathlib import Path
from trainers.configs import SimulatedConfig
from trainers.contract import TrialContext, make_trainer
config = SimulatedConfig.model_validate_json(sys.argv[2])
trainer = make_trainer(config, TrialContext(cache=Path(sys.argv[1]), processes=2))
for report in trainer.reports():
    print(report.number, flush=True)
out = Path(sys.argv[1]) / "out"
out.mkdir()
trainer.save(out), trainer.export(out), trainer.analysis(), trainer.test(out)
print(json.dumps([name for name in ("torch", "transformers", "numpy") if name in sys.modules]))
"""


def run(cache: Path, **changes: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _RUN, str(cache), a_config(**changes).model_dump_json()]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


def test_a_worker_is_lost_as_often_as_it_is_asked_to(tmp_path: Path) -> None:
    fails = {"lost": "epoch == 2", "lost_times": 2}
    done = [run(tmp_path, fails=fails) for _ in range(3)]
    assert [one.returncode for one in done] == [-signal.SIGKILL, -signal.SIGKILL, 0]
    assert done[0].stdout.splitlines() == ["1"]


def test_it_loads_no_torch_no_transformers_and_no_numpy(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_what_is_saved_and_exported_is_json_of_the_size_that_was_asked_for(tmp_path: Path) -> None:
    trainer = a_trainer(tmp_path, state_megabytes=0.3, export_megabytes=1.5)
    list(trainer.reports())
    for name, write, size in (("state", trainer.save, 300_000), ("export", trainer.export, 1_500_000)):
        (tmp_path / name).mkdir()
        write(tmp_path / name)
        files = list((tmp_path / name).iterdir())
        assert all(json.loads(file.read_text()) for file in files)
        assert size <= sum(file.stat().st_size for file in files) < size + 1000


def test_the_export_holds_the_values_and_the_metrics_of_its_report(tmp_path: Path) -> None:
    trainer = a_trainer(tmp_path, noise=0.1)
    report = next(trainer.reports())
    trainer.export(tmp_path)
    known = json.loads((tmp_path / "simulation.json").read_text())
    assert known == {"values": {"learning_rate": 1e-3, "width": 64}, "step": 5, "metrics": dict(report.metrics)}


def test_test_metrics_are_formulas_of_what_was_exported_and_none_of_a_report(tmp_path: Path) -> None:
    metrics = {"validation/loss": "epoch", "test/loss": "epoch + width"}
    trainer = a_trainer(tmp_path, metrics=metrics)
    reports = trainer.reports()
    next(reports)
    trainer.export(tmp_path)
    list(reports)
    assert trainer.test(tmp_path) == {"test/loss": 65.0}
    assert metrics_of(a_config(metrics=metrics)) == {"validation/loss"}


def test_the_analysis_says_what_it_is_of(tmp_path: Path) -> None:
    trainer = a_trainer(tmp_path, metrics={"validation/loss": "epoch", "train/loss": "0"})
    next(trainer.reports())
    assert trainer.analysis() == {"task": "simulated", "rows": 0, "metrics": {"loss": 1.0}}


def test_all_values_may_change_in_the_middle_of_a_trial() -> None:
    assert changeable(a_config()) == {"values.learning_rate", "values.width"}


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"metrics": {"validation/loss": "log(rate)"}}, "`metrics.validation/loss` names `rate`, which has no value"),
        ({"metrics": {"validation/loss": "log(0 * width)"}}, "`metrics.validation/loss` has no answer at epoch 1"),
        ({"metrics": {"validation/loss": "1 / (epoch - 4)"}}, "`metrics.validation/loss` has no answer at epoch 4"),
        ({"metrics": {"validation/loss": "width < 5"}}, "is no number"),
        ({"metrics": {"validation/loss": "width."}}, "cannot be read"),
        ({"metrics": {"loss": 1}}, "String should match pattern"),
        ({"metrics": {}}, "at least 1 item"),
        ({"metrics": {"model/megabytes": "epoch"}}, "take `epoch` out of it"),
        ({"fails": {"lost": "width + 1"}}, "is no condition"),
        ({"fails": {"lost": "width"}}, "64 is neither true nor false"),
        ({"fails": {"late": "epoch > 1"}}, "Extra inputs are not permitted"),
        ({"seconds_per_epoch": "depth"}, "`seconds_per_epoch` names `depth`"),
        ({"seconds_per_epoch": "1 - width"}, "`seconds_per_epoch` is -63 at epoch 1: nothing takes less than 0"),
        ({"values": {"epoch": 3}}, "give the value another name"),
        ({"values": {"lora.rank": 3}}, "use letters, digits and underscores"),
        ({"values": {"in": 3}}, "use letters, digits and underscores"),
        ({"values": {f"v{number}": 1 for number in range(101)}}, "more than 100"),
        ({"model": "tiny"}, "Extra inputs are not permitted"),
    ],
)
def test_what_cannot_be_simulated_is_refused(changes: dict[str, Any], wanted: str) -> None:
    assert wanted in refused(**changes)
