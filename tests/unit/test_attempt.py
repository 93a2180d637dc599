"""One attempt of one trial, with a trainer whose results are given."""

import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.checkpoints.cache import WorkerCache
from service.checkpoints.local import LocalCheckpointStore
from service.checkpoints.objects import ObjectCheckpointStore
from service.checkpoints.shared_sources import publish
from service.checkpoints.signs import ObjectSigns
from service.checkpoints.space import MARGIN_BYTES
from service.checkpoints.storage import Patience, Storage, open_storage
from service.domain.errors import CheckpointNotFound, StorageAway, UnusableCache
from service.domain.ports import LocalSources
from service.execution.afar import Afar
from service.execution.assignment import Assignment, Progress, assign, assign_afar
from service.execution.attempt import AttemptRun
from service.execution.card import write_card
from service.execution.interruption import INTERRUPT, ListenerAfar
from service.execution.place import Place
from tests.builders import a_document, a_report, a_study, a_trial
from tests.fakes import FakeClock, FakeTrainer
from trainers.configs import TrainerConfig
from trainers.contract import Goal, Report, TrainerError, TrialContext
from trainers.loop import Position


def an_assignment(root: Path, until: int = 3, attempt: int = 1, **changes: Any) -> Assignment:
    trial = a_trial(until=until, attempts=attempt)
    sources = LocalSources(models={"tiny-encoder": root / "model"}, sources={})
    return assign(a_study(**changes), trial, sources, root / "checkpoints", root / "cache")


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


def card_of(root: Path, report: int) -> str:
    store = LocalCheckpointStore(root / "checkpoints")
    with store.open("intents-abc123", 0, report, "README.md") as file:
        return file.read().decode()


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
    first, second, last = (f"export-{report:06d}-a1" for report in (1, 2, 4))
    assert found == [[first], [first, second], [first, second], [second, last]]


def test_what_the_checkpoint_carries_is_told_before_anything_more_is_trained(tmp_path: Path) -> None:
    trained: list[int] = []
    run(an_assignment(tmp_path, until=2), FakeTrainer([0.1, 0.2, 0.3], trained))
    again = AttemptRun(
        an_assignment(tmp_path, attempt=2), "host:1", FakeClock(), lambda *_: FakeTrainer([0.1, 0.2, 0.3], trained)
    )
    first = again.advance()
    assert ([report.number for report in first.reports], first.outcome, trained) == ([1, 2], None, [1, 2])
    assert exports(tmp_path) == ["export-000001-a1", "export-000002-a1"]


def test_a_report_whose_export_failed_is_not_told(tmp_path: Path) -> None:
    class Broken(FakeTrainer):
        def export(self, directory: Path) -> None:
            if self._done == 2:
                raise OSError("the disk does not answer")
            super().export(directory)

    last = run(an_assignment(tmp_path), Broken([0.1, 0.2, 0.3]))[-1]
    assert (last.outcome, [report.number for report in last.reports]) == ("failed", [1])


def test_a_report_whose_state_cannot_be_saved_is_not_told_either(tmp_path: Path) -> None:
    class Broken(FakeTrainer):
        def save(self, directory: Path) -> None:
            if self._done == 2:
                raise OSError("the disk does not answer")
            super().save(directory)

    last = run(an_assignment(tmp_path), Broken([0.1, 0.2, 0.3]))[-1]
    assert (last.outcome, [report.number for report in last.reports]) == ("failed", [1])


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    "error",
    [FULL, OSError(errno.EDQUOT, "Disk quota exceeded"), RuntimeError("SafetensorError: I/O error: (os error 28)"),
     TrainerError("trainer_error", "process 1 said: OSError: [Errno 28] No space left on device")],
)  # fmt: skip
def test_a_disk_that_is_full_is_no_error_of_the_trial_and_leaves_nothing_half_written(tmp_path: Path, error: Exception) -> None:
    class Full(FakeTrainer):
        def save(self, directory: Path) -> None:
            super().save(directory)
            if self._done == 2:
                raise error

    trained: list[int] = []
    last = run(an_assignment(tmp_path), Full([0.1, 0.2, 0.3], trained))[-1]
    assert (last.outcome, last.reason, [report.number for report in last.reports]) == ("no_space", None, [1])
    assert f"The disk of {tmp_path / 'checkpoints'} took no more, though " in (last.detail or "")
    left = sorted(path.name for path in (tmp_path / "checkpoints" / "intents-abc123" / "000000").iterdir())
    assert left == ["export-000001-a1", "export-000002-a1", "resume-000001-a1"]
    steps = run(an_assignment(tmp_path, attempt=2), FakeTrainer([0.1, 0.2, 0.3], trained))
    assert (trained, steps[-1].outcome) == ([1, 2, 2, 3], "done")


def test_nothing_is_written_where_less_would_be_left_than_the_disk_must_have(tmp_path: Path) -> None:
    attempt = AttemptRun(
        an_assignment(tmp_path), "host:1", FakeClock(), lambda *_: FakeTrainer([0.1]), free=lambda _: MARGIN_BYTES - 1
    )
    step = attempt.advance()
    assert step.outcome == "no_space"
    assert step.detail is not None
    assert "has 268.4 MB free, and needs 1 B more" in step.detail
    assert not (tmp_path / "checkpoints" / "intents-abc123" / "000000").exists()


def test_a_cache_that_finds_its_disk_full_pauses_too_and_is_waited_for(tmp_path: Path) -> None:
    class Cached(FakeTrainer):
        def reports(self) -> Iterator[Report]:
            raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "cache" / "rows.bin"))

    step = run(an_assignment(tmp_path), Cached([0.1]))[-1]
    assert (step.outcome, f"The disk of {tmp_path / 'cache'} took no more, though " in (step.detail or "")) == ("no_space", True)
    asked: list[Path] = []
    store = LocalCheckpointStore(tmp_path / "checkpoints", lambda folder: asked.append(folder) or MARGIN_BYTES)  # type: ignore[func-returns-value]
    assert not store.has_room("intents-abc123")
    assert asked == [tmp_path / "cache"]


class Nodes:
    """Attempts that share an object storage and no disk."""

    def __init__(self, root: Path) -> None:
        (root / "mount").mkdir()
        self.url = f"file://{root}/mount"
        self.storage = open_storage(self.url, Patience.SHORT)
        self.store = ObjectCheckpointStore(self.storage, root / "home")
        self._root = root
        model = root / "model"
        model.mkdir()
        (model / "config.json").write_text("{}")
        sources = LocalSources(models={"tiny-encoder": model}, sources={})
        self._shared = publish(self.storage, "intents-abc123", sources)

    def run(self, node: str, trainer: FakeTrainer, attempt: int = 1, until: int = 3) -> list[Progress]:
        """All steps of an attempt there."""
        assignment = assign_afar(a_study(), a_trial(until=until, attempts=attempt), self._shared, self.url)
        listener = ListenerAfar(ObjectSigns(lambda: self.storage, "x", INTERRUPT))
        afar = Afar(self.storage, WorkerCache(self._root / node, 10**9, self.url), listener)

        def make_trainer(_: TrainerConfig, context: TrialContext) -> FakeTrainer:
            assert (context.models["tiny-encoder"] / "config.json").read_text() == "{}"
            assert all(path.is_relative_to(self._root / node) for path in (context.cache, *context.models.values()))
            return trainer

        run = AttemptRun(assignment, "host:1", FakeClock(), make_trainer, place=lambda: afar.place(assignment))
        steps = [run.advance()]
        while steps[-1].outcome is None:
            steps.append(run.advance())
        return [Progress.from_json(step.to_json()) for step in steps]


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    return Nodes(tmp_path)


def test_an_attempt_on_another_node_goes_on_where_the_last_one_was_and_has_its_best_model_tested(nodes: Nodes) -> None:
    trained: list[int] = []
    nodes.run("a", FakeTrainer([0.1, 0.9, 0.3], trained), until=2)
    steps = nodes.run("b", FakeTrainer([0.1, 0.9, 0.3], trained, tested=0.8), attempt=2)
    assert ([report.number for step in steps for report in step.reports], trained) == ([1, 2, 3], [1, 2, 3])
    assert steps[-1].reports[-1].metrics["test/report"] == 2
    with nodes.store.open("intents-abc123", 0, 2, "config.json") as file:
        assert json.load(file)["exported_after"] == 2


@pytest.mark.parametrize("from_object", range(6))
def test_a_storage_that_goes_away_is_no_error_of_the_trial_which_goes_on_elsewhere_from_what_was_told(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch, from_object: int
) -> None:
    sent: list[str] = []

    def send(self: Storage, key: str, path: Path, sha256: str) -> None:
        if len(sent) >= from_object:
            raise StorageAway(self.url, "503 Service Unavailable, SlowDown", "it refuses")
        sent.append(key)
        arrives(self, key, path, sha256)

    arrives, trained = Storage.send, list[int]()
    monkeypatch.setattr(Storage, "send", send)
    last = nodes.run("a", FakeTrainer([0.1, 0.2, 0.3], trained))[-1]
    assert (last.outcome, last.reason) == ("away", None)
    assert "On node host: The object storage" in (last.detail or "")
    assert "SlowDown" in (last.detail or "")
    told = [report.number for report in last.reports]
    monkeypatch.undo()
    steps = nodes.run("b", FakeTrainer([0.1, 0.2, 0.3], trained), attempt=2)
    assert ([report.number for step in steps for report in step.reports], steps[-1].outcome) == ([1, 2, 3], "done")
    assert trained == [*range(1, len(told) + 2), *range(len(told) + 1, 4)], "the one that did not arrive is trained again"


def test_a_node_that_cannot_cache_anything_holds_the_trial_up_and_says_what_to_do(tmp_path: Path) -> None:
    def place() -> Place:
        raise UnusableCache("The folder /cache cannot be used: set TUNEYARD_WORKER_CACHE to another.")

    step = AttemptRun(an_assignment(tmp_path), "host:1", FakeClock(), lambda *_: FakeTrainer([0.1]), place=place).advance()
    assert (step.outcome, "set TUNEYARD_WORKER_CACHE" in (step.detail or "")) == ("away", True)


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


def test_a_trainer_that_stops_early_ends_its_trial(tmp_path: Path) -> None:
    steps = run(an_assignment(tmp_path), FakeTrainer([0.1, 0.2, 0.3], last=2))
    assert [(step.outcome, [report.number for report in step.reports]) for step in steps] == [(None, [1]), ("stopped_early", [2])]
    assert not list((tmp_path / "checkpoints").rglob("state.json"))


def test_an_early_stop_that_the_driver_never_recorded_comes_back_without_training(tmp_path: Path) -> None:
    trained: list[int] = []
    run(an_assignment(tmp_path), FakeTrainer([0.1, 0.2, 0.3], trained, last=2))
    steps = run(an_assignment(tmp_path, attempt=2), FakeTrainer([0.1, 0.2, 0.3], trained, last=2))
    assert [(step.outcome, [report.number for report in step.reports]) for step in steps] == [("stopped_early", [1, 2])]
    assert trained == [1, 2]


def test_a_last_report_at_the_whole_length_is_no_early_stop(tmp_path: Path) -> None:
    for attempt in (1, 2):
        steps = run(an_assignment(tmp_path, attempt=attempt), FakeTrainer([0.1, 0.2, 0.3], last=3))
        assert steps[-1].outcome == "done"


def test_an_early_stop_at_a_rung_is_told_apart_from_the_rung(tmp_path: Path) -> None:
    assert run(an_assignment(tmp_path, until=2), FakeTrainer([0.1, 0.2, 0.3], last=2))[-1].outcome == "stopped_early"


def test_a_checkpoint_of_before_there_were_early_stops_is_read(tmp_path: Path) -> None:
    run(an_assignment(tmp_path, until=1), FakeTrainer([0.1, 0.2, 0.3]))
    (stored,) = (tmp_path / "checkpoints").rglob("reports.json")
    (report,) = json.loads(stored.read_text())
    assert "last" not in report
    assert run(an_assignment(tmp_path, attempt=2), FakeTrainer([0.1, 0.2, 0.3]))[-1].outcome == "done"


class Upgraded(FakeTrainer):
    """Reads positions as the training loop does."""

    def load(self, directory: Path) -> None:
        position = Position(**json.loads((directory / "position.json").read_text()))
        self._done = position.reports


def test_a_state_that_an_earlier_version_wrote_is_trained_again_and_its_reports_are_not_told_twice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(an_assignment(tmp_path, until=2), FakeTrainer([0.1, 0.2, 0.3]))
    (state,) = (tmp_path / "checkpoints").rglob("state.json")
    (state.parent / "position.json").write_text('{"epoch": 2, "batch": 0, "loss_sum": 0.0, "rows_seen": 0}')  # of release 0.1.0
    trained: list[int] = []
    steps = run(an_assignment(tmp_path, attempt=2), Upgraded([0.1, 0.2, 0.3], trained))
    assert [[report.number for report in step.reports] for step in steps] == [[1, 2], [3]]
    assert (steps[-1].outcome, trained) == ("done", [1, 2, 3])
    assert [report.attempt for report in steps[0].reports] == [1, 1]
    assert "trained again from its start" in caplog.text


def test_a_state_that_does_not_fit_into_memory_is_no_reason_to_start_over(tmp_path: Path) -> None:
    class Large(FakeTrainer):
        def load(self, directory: Path) -> None:
            raise TrainerError("out_of_memory", "The state to resume from does not fit.")

    run(an_assignment(tmp_path, until=1), FakeTrainer([0.1, 0.2, 0.3]))
    assert run(an_assignment(tmp_path, attempt=2), Large([0.1, 0.2, 0.3]))[-1].reason == "out_of_memory"


@pytest.mark.parametrize(("accuracies", "best"), [([0.1, 0.9, 0.3], 2), ([0.1, 0.2, 0.3], 3)])
@pytest.mark.parametrize("last", [None, 3])
def test_the_best_export_is_tested_at_the_end_and_the_last_report_says_so(
    tmp_path: Path, accuracies: list[float], best: int, last: int | None
) -> None:
    steps = run(an_assignment(tmp_path), FakeTrainer(accuracies, last=last, tested=0.8))
    tested = [{name: value for name, value in step.reports[-1].metrics.items() if name.startswith("test/")} for step in steps]
    assert tested == [{}, {}, {"test/accuracy": 0.8, "test/report": best}]


def test_a_trial_that_stops_early_is_tested_too(tmp_path: Path) -> None:
    steps = run(an_assignment(tmp_path), FakeTrainer([0.9, 0.2, 0.3], last=2, tested=0.8))
    assert steps[-1].reports[-1].metrics["test/report"] == 1


def test_a_trial_at_its_rung_is_not_tested(tmp_path: Path) -> None:
    steps = run(an_assignment(tmp_path, until=2), FakeTrainer([0.1, 0.2, 0.3], tested=0.8))
    assert not any(name.startswith("test/") for step in steps for report in step.reports for name in report.metrics)


def test_what_was_tested_comes_back_with_the_checkpoint(tmp_path: Path) -> None:
    run(an_assignment(tmp_path), FakeTrainer([0.1, 0.9, 0.3], tested=0.8))
    again = run(an_assignment(tmp_path, attempt=2), FakeTrainer([], tested=0.1))
    assert again[0].reports[-1].metrics["test/accuracy"] == 0.8


@pytest.mark.parametrize("accuracies", [[0.1, 0.9, 0.3], [0.1, 0.2, 0.3]])
def test_a_test_that_fails_costs_neither_the_export_nor_the_last_report(tmp_path: Path, accuracies: list[float]) -> None:
    trainer = FakeTrainer(accuracies, tested=TrainerError("trainer_error", "The test rows cannot be read."))
    steps = run(an_assignment(tmp_path), trainer)
    assert [(step.outcome, [report.number for report in step.reports]) for step in steps] == [
        (None, [1]),
        (None, [2]),
        ("done", [3]),
    ]
    assert not any(name.startswith("test/") for name in steps[-1].reports[-1].metrics)
    best = accuracies.index(max(accuracies)) + 1
    assert exported_after(tmp_path, best) == best


@pytest.mark.parametrize(("accuracies", "is_tested"), [([0.1, 0.2, 0.3], True), ([0.1, 0.9, 0.3], False)])
def test_the_card_says_how_the_test_went_where_the_last_report_is_the_best(
    tmp_path: Path, accuracies: list[float], *, is_tested: bool
) -> None:
    run(an_assignment(tmp_path), FakeTrainer(accuracies, tested=0.8))
    assert ("| test/accuracy | 0.8 |" in card_of(tmp_path, 3 if is_tested else 2)) is is_tested


@pytest.mark.parametrize(
    ("kind", "tag"),
    [
        ("text-classification", "text-classification"),
        ("token-classification", "token-classification"),
        ("causal-lm", "text-generation"),
        ("seq2seq", "text2text-generation"),
        ("image-classification", "image-classification"),
    ],
)
def test_the_card_names_the_task_as_the_hub_does(tmp_path: Path, kind: str, tag: str) -> None:
    trainer = {"kind": kind, "model": "tiny", "data": {"train": "dataset://a/b.csv"}}
    objective = {"metric": "validation/loss", "direction": "minimize"}
    assignment = an_assignment(tmp_path, until=1, trainer=trainer, objective=objective)
    (tmp_path / "model").mkdir()
    write_card(tmp_path / "model", assignment, a_report(), {})
    card = (tmp_path / "model" / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["pipeline_tag"] == tag


@pytest.mark.parametrize("lora", [None, {"rank": 4}])
def test_the_card_tells_of_the_adapter_beside_merged_weights(tmp_path: Path, lora: dict[str, Any] | None) -> None:
    trainer = {**a_document()["trainer"], "lora": lora}
    run(an_assignment(tmp_path, until=1, trainer=trainer), FakeTrainer([0.1, 0.2, 0.3]))
    assert ("`adapter/`" in card_of(tmp_path, 1)) is (lora is not None)


def test_the_analysis_of_each_best_report_is_kept_with_its_export(tmp_path: Path) -> None:
    run(an_assignment(tmp_path), FakeTrainer([0.1, 0.9, 0.3]))
    store = LocalCheckpointStore(tmp_path / "checkpoints")
    assert store.analysis("intents-abc123", 0, 2)["metrics"] == {"accuracy": 0.9}
    assert "analysis.json" not in [file.path for file in store.manifest("intents-abc123", 0, 2).files]


@pytest.mark.parametrize(("gpus", "device", "processes"), [(0, "cpu", 1), (0.5, "cuda", 1), (1, "cuda", 1), (4, "cuda", 4)])
def test_a_trainer_knows_its_goal_and_what_it_holds(tmp_path: Path, gpus: float, device: str, processes: int) -> None:
    seen: list[TrialContext] = []

    def make(config: TrainerConfig, context: TrialContext) -> FakeTrainer:
        seen.append(context)
        return FakeTrainer([0.1, 0.2, 0.3])

    assignment = an_assignment(tmp_path, resources={"gpus_per_trial": gpus})
    AttemptRun(assignment, "host:1", FakeClock(), make).advance()
    (context,) = seen
    assert context.goal == Goal("validation/accuracy", "maximize")
    assert (context.device, context.processes) == (device, processes)


def test_a_worker_that_runs_out_of_memory_says_what_to_do(tmp_path: Path) -> None:
    class Large(FakeTrainer):
        def export(self, directory: Path) -> None:
            raise MemoryError

    last = run(an_assignment(tmp_path), Large([0.5]))[-1]
    assert (last.outcome, last.reason) == ("failed", "out_of_memory")
    assert "`micro_batch_size`" in (last.detail or "")


def test_a_finished_trial_keeps_no_state_to_resume_from(tmp_path: Path) -> None:
    run(an_assignment(tmp_path), FakeTrainer([0.1, 0.2, 0.3]))
    assert not list((tmp_path / "checkpoints").rglob("state.json"))


def a_copy(root: Path, until: int, attempt: int = 1) -> Assignment:
    """An attempt of trial 5, which began as a copy of trial 0 at its report 2."""
    trial = a_trial(5, until=until, attempts=attempt, parent=0, parent_report=2, reports=2)
    sources = LocalSources(models={"tiny-encoder": root / "model"}, sources={})
    return assign(a_study(), trial, sources, root / "checkpoints", root / "cache")


def exports_of_copy(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "checkpoints").glob("intents-abc123/000005/export-*"))


def test_a_copy_goes_on_from_its_parents_report_and_its_best_is_its_own(tmp_path: Path) -> None:
    trained: list[int] = []
    run(an_assignment(tmp_path, until=2), FakeTrainer([0.1, 0.9, 0.3], trained))
    LocalCheckpointStore(tmp_path / "checkpoints").fork("intents-abc123", 0, 5, 2)
    steps = run(a_copy(tmp_path, until=3), FakeTrainer([0.1, 0.9, 0.3], trained))
    assert trained == [1, 2, 3]
    assert [report.number for step in steps for report in step.reports] == [1, 2, 3], "those of the parent are told again"
    assert exports_of_copy(tmp_path) == ["export-000003-a1"], "though the parent's second was better"
    with LocalCheckpointStore(tmp_path / "checkpoints").open("intents-abc123", 5, 3, "README.md") as file:
        assert b"The trial began with the weights of trial 0 at report 2" in file.read()


def test_a_copy_whose_parents_state_is_gone_trains_again_and_exports_nothing_of_that(tmp_path: Path) -> None:
    trained: list[int] = []
    steps = run(a_copy(tmp_path, until=3), FakeTrainer([0.1, 0.9, 0.3], trained))
    assert trained == [1, 2, 3]
    assert steps[-1].outcome == "done"
    assert exports_of_copy(tmp_path) == ["export-000003-a1"]


def test_a_report_that_breaks_an_outcome_is_not_exported_however_good_it_is(tmp_path: Path) -> None:
    assignment = an_assignment(tmp_path, outcomes=["validation/accuracy <= 0.5"])
    run(assignment, FakeTrainer([0.9, 0.4, 0.3]))
    assert exported_after(tmp_path, 2) == 2


def test_a_trial_whose_reports_all_break_an_outcome_leaves_no_export_and_is_not_tested(tmp_path: Path) -> None:
    assignment = an_assignment(tmp_path, outcomes=["validation/accuracy <= 0.5"])
    steps = run(assignment, FakeTrainer([0.9, 0.8, 0.7], tested=0.5))
    assert exports(tmp_path) == []
    assert not any(name.startswith("test/") for step in steps for report in step.reports for name in report.metrics)
