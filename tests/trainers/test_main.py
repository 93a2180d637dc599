"""A training by itself, from the command line."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForSequenceClassification

from tests.tiny import make_tiny_encoder, write_intents
from trainers import contract
from trainers.__main__ import main

STEPS = 8
"""Of an epoch of the desk's rows."""


class Desk:
    """A configuration beside a tiny model and rows."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self.out = root / "out"
        self._capsys = capsys
        self.said = self.complaint = ""
        self.write()

    def write(self, **changes: Any) -> None:
        document = {
            "model": "tiny",
            "data": {"train": "rows/train.csv", "validation": "rows/validation.csv", "test": "rows/test.csv"},
            "epochs": 3,
            "batch_size": 16,
            "learning_rate": 5e-3,
            "max_length": 32,
        }
        kept = {key: value for key, value in {**document, **changes}.items() if value is not None}
        (self.root / "config.yaml").write_text(yaml.safe_dump(kept))

    def run(self, *options: str, kind: str = "text-classification") -> int:
        status = main([kind, str(self.root / "config.yaml"), "-o", str(self.out), *options])
        self.said, self.complaint = self._capsys.readouterr()
        return status

    def reports(self) -> list[dict[str, Any]]:
        """Without the time they took."""
        lines = [json.loads(line) for line in (self.out / "reports.jsonl").read_text().splitlines()]
        return [{**line, "seconds": 0.0} for line in lines]


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("material")
    (folder / "tiny").mkdir()
    make_tiny_encoder(folder / "tiny")
    (folder / "rows").mkdir()
    write_intents(folder / "rows", train=120, validation=40, test=30)
    return folder


@pytest.fixture
def desk(material: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    shutil.copytree(material, tmp_path / "desk")
    return Desk(tmp_path / "desk", capsys)


def at_step(step: int, then: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do something in the middle of the next trainer's step, counted from 1."""
    make, steps = contract.make_trainer, iter(range(1, 1_000_000))

    def made(*arguments: Any) -> Any:
        trainer: Any = make(*arguments)
        trainer._model.register_forward_hook(lambda model, *_: then() if model.training and next(steps) == step else None)
        monkeypatch.setattr("trainers.__main__.make_trainer", make)
        return trainer

    monkeypatch.setattr("trainers.__main__.make_trainer", made)


def press_ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def die() -> None:
    raise SystemExit(9)


def test_a_training_leaves_reports_the_best_weights_and_how_they_do(desk: Desk) -> None:
    assert desk.run() == 0
    reports = desk.reports()
    assert [(report["number"], report["step"], report["last"]) for report in reports] == [
        (1, STEPS, False),
        (2, 2 * STEPS, False),
        (3, 3 * STEPS, True),
    ]
    model: Any = AutoModelForSequenceClassification.from_pretrained(desk.out / "best")
    assert sorted(model.config.label2id) == ["balance", "card", "loan", "transfer", "travel"]
    tested = json.loads((desk.out / "test.json").read_text())
    assert set(tested) == {"test/accuracy", "test/f1_macro", "test/loss"}
    best = min(reports, key=lambda report: float(report["metrics"]["validation/loss"]))
    analysis = json.loads((desk.out / "analysis.json").read_text())
    assert analysis["metrics"]["loss"] == pytest.approx(best["metrics"]["validation/loss"], abs=1e-5)
    assert f"Report {best['number']} is the best by validation/loss" in desk.said


def test_what_is_piped_is_a_table_parted_by_tabs(desk: Desk) -> None:
    desk.run("--metric", "validation/accuracy")
    title, *rows = [line.split("\t") for line in desk.said.splitlines() if "\t" in line]
    assert title[:4] == ["report", "epoch", "step", "validation/accuracy"]
    assert [row[:3] for row in rows] == [["1", "1.00", "8"], ["2", "2.00", "16"], ["3", "3.00", "24"]]
    assert all(float(cell) >= 0 for row in rows for cell in row)
    assert "\033" not in desk.said


def test_a_terminal_gets_columns_with_the_best_in_bold(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    desk.run()
    title, first, *_ = desk.said.splitlines()
    assert first.startswith("\033[1m"), "the first is the best so far"
    assert len(title) == len(first.removeprefix("\033[1m").removesuffix("\033[0m"))
    assert "\t" not in desk.said


@pytest.mark.parametrize(("metric", "best"), [("validation/loss", min), ("validation/accuracy", max), ("train/loss", min)])
def test_the_best_is_the_best_by_the_metric(desk: Desk, metric: str, best: Any) -> None:
    desk.run("--metric", metric)
    reports = desk.reports()
    value = best(report["metrics"][metric] for report in reports)
    number = next(report["number"] for report in reports if report["metrics"][metric] == value)
    assert f"Report {number} is the best by {metric}" in desk.said


def test_a_direction_that_is_given_is_taken(desk: Desk) -> None:
    desk.run("--metric", "train/learning_rate", "--direction", "minimize")
    assert "Report 3 is the best by train/learning_rate" in desk.said


@pytest.mark.parametrize("step", [3, STEPS + 3])
def test_ctrl_c_pauses_in_the_middle_of_an_epoch_and_the_same_command_goes_on(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    whole = Desk(desk.root, desk._capsys)
    whole.out = desk.root / "whole"
    whole.run()
    before = signal.getsignal(signal.SIGINT)
    at_step(step, press_ctrl_c, monkeypatch)
    assert desk.run() == 130
    assert f"Paused after report {step // STEPS}" in desk.said
    assert "Ctrl-C again ends at once" in desk.complaint
    assert signal.getsignal(signal.SIGINT) is before
    assert desk.run() == 0
    assert "Going on from" in desk.said
    assert desk.reports() == whole.reports()
    assert (desk.out / "test.json").read_text() == (whole.out / "test.json").read_text()


def test_a_second_ctrl_c_ends_at_once_and_leaves_the_last_report(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def press_twice() -> None:
        press_ctrl_c()
        press_ctrl_c()

    at_step(STEPS + 3, press_twice, monkeypatch)
    # A shell starts what it runs in the background deaf to Ctrl-C, these tests among it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            desk.run()
    finally:
        signal.signal(signal.SIGINT, before)
    assert desk.run() == 0
    assert "after 1 report." in desk.said
    assert len(desk.reports()) == 3


def test_after_a_crash_it_goes_on_from_the_last_report(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    at_step(2 * STEPS + 1, die, monkeypatch)
    with pytest.raises(SystemExit):
        desk.run()
    assert len(desk.reports()) == 2
    assert desk.run() == 0
    assert "after 2 reports." in desk.said
    assert len(desk.reports()) == 3


@pytest.mark.parametrize("name", ["checkpoint", "best"])
def test_a_kill_between_two_renames_loses_nothing(desk: Desk, name: str) -> None:
    desk.run()
    wanted = desk.reports()
    (desk.out / name).rename(desk.out / f".{name}.old")
    assert desk.run() == 0
    assert desk.reports() == wanted
    assert not (desk.out / f".{name}.old").exists()


def test_what_is_done_is_only_told_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.run()
    told = desk.said
    at_step(1, die, monkeypatch)
    assert desk.run() == 0
    assert desk.said.splitlines()[1:] == told.splitlines()


def test_fresh_starts_over(desk: Desk) -> None:
    desk.run()
    desk.write(epochs=1)
    assert desk.run("--fresh") == 0
    assert "Going on" not in desk.said
    assert len(desk.reports()) == 1


def test_another_configurations_run_is_not_gone_on_with(desk: Desk) -> None:
    desk.run()
    desk.write(epochs=4)
    assert desk.run() == 1
    assert "holds a run of another configuration or metric" in desk.complaint
    assert "--fresh" in desk.complaint


def test_a_trial_that_diverges_says_so_and_exits_with_1(desk: Desk) -> None:
    desk.write(optimizer="sgd", learning_rate=10.0, gradient_clip=0.0, divergence_factor=1.5, epochs=30)
    assert desk.run() == 1
    assert desk.complaint.startswith("error: The loss is ")
    assert "lower the learning rate" in desk.complaint


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": None}, "`model`: Field required"),
        ({"epochs": 0}, "`epochs`: Input should be greater than or equal to 1"),
        ({"epoch": 3}, "`epoch`: Extra inputs are not permitted"),
        ({"data": {"train": "rows/train.csv", "column": "x"}}, "`data.column`: Extra inputs"),
        ({"max_steps": 5}, "`max_steps` and a `report_every` in steps go together"),
        ({"data": {"train": "rows/gone.csv"}}, "`data.train` is 'rows/gone.csv', but there is no file"),
        ({"kind": "seq2seq"}, "is for 'seq2seq', not for text-classification"),
        ({"sources": ["rows"]}, "`sources` has to be names with the paths"),
        ({"data": {"train": "rows/train.csv", "label": "category"}}, "there is no column 'category'"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_configuration_is_said_with_its_field(desk: Desk, changes: Mapping[str, Any], said: str) -> None:
    desk.write(**changes)
    assert desk.run() == 1
    assert said in desk.complaint
    assert "Traceback" not in desk.complaint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: [", "is no YAML"),
        ("- a\n- b\n", "holds no configuration"),
        ("", "holds no configuration"),
        ("model: !!python/object/apply:os.getcwd []", "is no YAML"),
    ],
)
def test_what_is_no_configuration_is_refused(desk: Desk, text: str, said: str) -> None:
    (desk.root / "config.yaml").write_text(text)
    assert desk.run() == 1
    assert said in desk.complaint


def test_a_configuration_that_is_not_there_is_refused(desk: Desk) -> None:
    (desk.root / "config.yaml").unlink()
    assert desk.run() == 1
    assert "config.yaml cannot be read" in desk.complaint


def test_a_metric_that_is_not_reported_is_refused_with_those_that_are(desk: Desk) -> None:
    assert desk.run("--metric", "accuracy") == 1
    assert "there is no metric 'accuracy': use one of train/learning_rate, train/loss, validation/accuracy" in desk.complaint


def test_a_number_may_be_written_without_a_point(desk: Desk) -> None:
    path = desk.root / "config.yaml"
    path.write_text(path.read_text().replace("learning_rate: 0.005", "learning_rate: 5e-3"))
    assert desk.run() == 0


def test_names_of_a_study_get_their_files_from_sources(desk: Desk) -> None:
    desk.write(
        kind="text-classification",
        data={"train": "dataset://intents/train.csv"},
        sources={"dataset://intents/train.csv": "rows/train.csv"},
        epochs=1,
    )
    assert desk.run() == 0
    assert not (desk.out / "test.json").exists(), "there are no test rows"


def test_a_model_that_is_no_folder_is_downloaded_without_pickles(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, list[str]]] = []

    def download(name: str, *, allow_patterns: list[str], **_: Any) -> str:
        asked.append((name, allow_patterns))
        return str(desk.root / "tiny")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    desk.write(model="owner/name", epochs=1)
    assert desk.run() == 0
    ((name, patterns),) = asked
    assert name == "owner/name"
    assert "*.safetensors" in patterns
    assert not [pattern for pattern in patterns if pattern.endswith((".bin", ".py", "*"))]


def test_a_model_that_cannot_be_had_is_named(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    desk.write(model="owner/name")
    assert desk.run() == 1
    assert "`model` is 'owner/name', which is no folder and cannot be downloaded: no network" in desk.complaint


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said(desk: Desk) -> None:
    assert desk.run("--device", "cuda") == 1
    assert "torch finds none" in desk.complaint


def test_help_says_what_is_read_and_written(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    said = capsys.readouterr().out
    for word in ("python -m trainers", "text-classification", "reports.jsonl", "--fresh", "Ctrl-C"):
        assert word in said


@pytest.mark.integration
@pytest.mark.timeout(300)
def test_it_needs_no_service_no_ray_and_no_mlflow(desk: Desk) -> None:
    desk.write(epochs=1)
    loaded = "sorted({name.partition('.')[0] for name in sys.modules} & {'service', 'ray', 'mlflow', 'optuna'})"
    code = f"import sys; from trainers.__main__ import main; status = main(); print({loaded}); sys.exit(status)"
    arguments = ["text-classification", str(desk.root / "config.yaml"), "-o", str(desk.out)]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
