"""One attempt of one trial, with a trainer whose results are given."""

import json
from pathlib import Path

import pytest

from service.checkpoints.local import LocalCheckpointStore
from service.domain.errors import CheckpointNotFound
from service.domain.ports import LocalSources
from service.execution.assignment import Assignment, Progress, assign
from service.execution.attempt import AttemptRun
from tests.builders import a_study, a_trial
from tests.fakes import FakeClock, FakeTrainer
from trainers.contract import TrainerError


def an_assignment(root: Path, until: int = 3, attempt: int = 1) -> Assignment:
    trial = a_trial(until=until, attempts=attempt)
    sources = LocalSources(models={"tiny-encoder": root / "model"}, sources={})
    return assign(a_study(), trial, sources, root / "checkpoints", root / "cache")


def run(assignment: Assignment, trainer: FakeTrainer) -> list[Progress]:
    """All steps of an attempt, through the JSON they travel in."""
    attempt = AttemptRun(Assignment.from_json(assignment.to_json()), "host:1", FakeClock(), lambda *_: trainer)
    steps = [attempt.advance()]
    while steps[-1].outcome is None:
        steps.append(attempt.advance())
    return [Progress.from_json(step.to_json()) for step in steps]


def exported_after(root: Path, report: int) -> int:
    store = LocalCheckpointStore(root / "checkpoints")
    with store.open("intents-abc123", 0, report, "config.json") as file:
        return int(json.load(file)["exported_after"])


def exports(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "checkpoints").glob("intents-abc123/000000/export-*"))


def test_an_attempt_reports_until_its_rung_and_says_that_it_is_done(tmp_path: Path) -> None:
    steps = run(an_assignment(tmp_path, until=2), FakeTrainer([0.1, 0.2, 0.3]))
    assert [[report.number for report in step.reports] for step in steps] == [[1], [2]]
    assert [step.outcome for step in steps] == [None, "done"]


def test_the_export_is_of_the_best_report_and_not_of_the_last(tmp_path: Path) -> None:
    run(an_assignment(tmp_path), FakeTrainer([0.1, 0.9, 0.9]))
    assert exported_after(tmp_path, 2) == 2
    with pytest.raises(CheckpointNotFound):
        exported_after(tmp_path, 3)


def test_the_best_export_before_stays_until_a_still_better_report_comes(tmp_path: Path) -> None:
    attempt = AttemptRun(an_assignment(tmp_path, until=4), "host:1", FakeClock(), lambda *_: FakeTrainer([0.1, 0.5, 0.2, 0.9]))
    found = []
    for _ in range(4):
        attempt.advance()
        found.append(exports(tmp_path))
    assert found == [["export-000001"], *[["export-000001", "export-000002"]] * 2, ["export-000002", "export-000004"]]


def test_what_the_checkpoint_carries_is_told_before_anything_more_is_trained(tmp_path: Path) -> None:
    trained: list[int] = []
    run(an_assignment(tmp_path, until=2), FakeTrainer([0.1, 0.2, 0.3], trained))
    again = AttemptRun(
        an_assignment(tmp_path, attempt=2), "host:1", FakeClock(), lambda *_: FakeTrainer([0.1, 0.2, 0.3], trained)
    )
    first = again.advance()
    assert ([report.number for report in first.reports], first.outcome, trained) == ([1, 2], None, [1, 2])
    assert exports(tmp_path) == ["export-000001", "export-000002"]


def test_a_report_whose_export_failed_is_not_told(tmp_path: Path) -> None:
    class Full(FakeTrainer):
        def export(self, directory: Path) -> None:
            if self._done == 2:
                raise OSError("no space left on device")
            super().export(directory)

    last = run(an_assignment(tmp_path), Full([0.1, 0.2, 0.3]))[-1]
    assert (last.outcome, [report.number for report in last.reports]) == ("failed", [1])


def test_the_export_carries_a_card_with_study_configuration_and_metrics(tmp_path: Path) -> None:
    run(an_assignment(tmp_path), FakeTrainer([0.1, 0.75, 0.3]))
    store = LocalCheckpointStore(tmp_path / "checkpoints")
    with store.open("intents-abc123", 0, 2, "tuneyard.json") as file:
        record = json.load(file)
    assert record["study"] == "intents-abc123"
    assert record["metrics"]["validation/accuracy"] == 0.75
    assert record["configuration"]["learning_rate"] == 1e-3
    with store.open("intents-abc123", 0, 2, "README.md") as file:
        assert b"| validation/accuracy | 0.75 |" in file.read()


def test_the_next_attempt_goes_on_where_the_last_one_paused(tmp_path: Path) -> None:
    trained: list[int] = []
    run(an_assignment(tmp_path, until=1), FakeTrainer([0.1, 0.2, 0.3], trained))
    steps = run(an_assignment(tmp_path, until=3, attempt=2), FakeTrainer([0.1, 0.2, 0.3], trained))
    assert trained == [1, 2, 3]
    assert [report.number for step in steps for report in step.reports] == [1, 2, 3]
    assert steps[-1].reports[-1].attempt == 2


def test_reports_that_the_driver_never_recorded_come_back_without_training(tmp_path: Path) -> None:
    trained: list[int] = []
    run(an_assignment(tmp_path), FakeTrainer([0.1, 0.2, 0.3], trained))
    steps = run(an_assignment(tmp_path, attempt=2), FakeTrainer([0.1, 0.2, 0.3], trained))
    assert trained == [1, 2, 3]
    assert [report.number for report in steps[0].reports] == [1, 2, 3]
    assert steps[0].outcome == "done"


def test_a_trainer_that_gives_up_says_why_and_keeps_its_earlier_reports(tmp_path: Path) -> None:
    steps = run(an_assignment(tmp_path), FakeTrainer([0.5, TrainerError("diverged", "The loss is not finite.")]))
    assert (steps[-1].outcome, steps[-1].reason, steps[-1].detail) == ("failed", "diverged", "The loss is not finite.")
    assert exported_after(tmp_path, 1) == 1


def test_a_reason_nobody_knows_counts_as_a_trainer_error(tmp_path: Path) -> None:
    steps = run(an_assignment(tmp_path), FakeTrainer([TrainerError("moonlight", "It shone.")]))
    assert (steps[-1].reason, steps[-1].detail) == ("trainer_error", "It shone.")


def test_an_objective_that_is_not_a_number_counts_as_diverged(tmp_path: Path) -> None:
    steps = run(an_assignment(tmp_path), FakeTrainer([float("nan")]))
    assert steps[-1].reason == "diverged"
    with pytest.raises(CheckpointNotFound):
        exported_after(tmp_path, 1)


def test_a_fault_in_a_trainer_comes_back_with_its_traceback(tmp_path: Path) -> None:
    class Faulty(FakeTrainer):
        def export(self, directory: Path) -> None:
            raise ZeroDivisionError("nothing to divide by")

    steps = run(an_assignment(tmp_path), Faulty([0.5]))
    assert steps[-1].reason == "trainer_error"
    assert "nothing to divide by" in (steps[-1].detail or "")


def test_a_trainer_that_ends_early_is_a_failure(tmp_path: Path) -> None:
    steps = run(an_assignment(tmp_path, until=3), FakeTrainer([0.5]))
    assert steps[-1].outcome == "failed"
    assert "ended after report 1" in (steps[-1].detail or "")


def test_a_finished_trial_keeps_no_state_to_resume_from(tmp_path: Path) -> None:
    run(an_assignment(tmp_path), FakeTrainer([0.1, 0.2, 0.3]))
    assert not list((tmp_path / "checkpoints").rglob("state.json"))
