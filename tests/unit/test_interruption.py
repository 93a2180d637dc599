"""Leaving in the middle of an epoch: the sign, those who look for it, and an attempt that goes on where another one left."""

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from service.checkpoints.local import LocalCheckpointStore, TrialFolder
from service.domain.errors import StorageAway
from service.domain.ports import LocalSources
from service.domain.study import Study, StudyReason
from service.execution.assignment import Assignment, Progress, assign
from service.execution.attempt import AttemptRun
from service.execution.interruption import Listener, ListenerAfar, Sign, SignAfar, Wish, wish_of
from tests.builders import NOW, a_study, a_trial
from tests.fakes import FakeClock
from tests.tiny import make_tiny_encoder, write_intents

STUDY = "intents-abc123"
RUNNING = a_study().running(NOW)


@pytest.mark.parametrize(
    ("study", "wish"),
    [
        (RUNNING, None),
        (RUNNING.pausing(StudyReason.PAUSE_REQUESTED, NOW), None),
        (RUNNING.pausing(StudyReason.PAUSE_REQUESTED, NOW, is_urgent=True), Wish.PAUSE),
        (RUNNING.pausing(StudyReason.PAUSE_REQUESTED, NOW, is_urgent=True).resumed(NOW), None),
        (RUNNING.stopping(StudyReason.STOP_REQUESTED), None),
        (RUNNING.stopping(StudyReason.CANCEL_REQUESTED), Wish.CANCEL),
        (RUNNING.stopping(StudyReason.CANCEL_REQUESTED).ended(NOW), None),
    ],
)
def test_only_an_urgent_pause_and_a_cancel_are_worth_leaving_an_epoch_for(study: Study, wish: Wish | None) -> None:
    assert wish_of(study) is wish


def test_all_who_look_see_the_sign_until_it_is_taken_down(tmp_path: Path) -> None:
    seconds = [0.0]
    listeners = [Listener(tmp_path, STUDY, lambda: seconds[0]) for _ in range(2)]
    sign = Sign(tmp_path, STUDY)
    for wish in (None, Wish.PAUSE, Wish.CANCEL, None):
        sign.show(wish)
        seconds[0] += 1
        assert [listener() for listener in listeners] == [wish, wish]


def test_who_asks_at_every_step_does_not_read_the_disk_at_each(tmp_path: Path) -> None:
    seconds = [0.0]
    listener, sign = Listener(tmp_path, STUDY, lambda: seconds[0]), Sign(tmp_path, STUDY)
    assert listener() is None
    sign.show(Wish.PAUSE)
    seconds[0] = 0.19
    assert listener() is None
    seconds[0] = 0.21
    assert listener() is Wish.PAUSE


def test_the_sign_of_a_driver_that_was_killed_is_taken_down_by_the_next(tmp_path: Path) -> None:
    Sign(tmp_path, STUDY).show(Wish.PAUSE)
    Sign(tmp_path, STUDY)
    assert Listener(tmp_path, STUDY)() is None


def test_a_sign_that_cannot_be_read_does_not_fail_the_trial_that_looks_for_it(tmp_path: Path) -> None:
    (tmp_path / STUDY / ".interrupt").mkdir(parents=True)
    assert Listener(tmp_path, STUDY)() is None


def test_the_sign_of_one_study_is_none_of_another(tmp_path: Path) -> None:
    Sign(tmp_path, STUDY).show(Wish.PAUSE)
    assert Listener(tmp_path, "other-abc123")() is None


class FakeSigns:
    """One word, as long as the storage is not away; `writes` counts how often it was asked to take one."""

    def __init__(self) -> None:
        self.word: str | None = None
        self.is_away = False
        self.writes = 0

    def read(self) -> str | None:
        if self.is_away:
            raise StorageAway("s3://models", "no answer", "nobody listens")
        return self.word

    def write(self, word: str | None) -> None:
        self.writes += 1
        self.read()
        self.word = word


def test_who_shares_no_disk_hears_at_the_next_look_what_the_driver_says() -> None:
    signs = FakeSigns()
    listener, sign = ListenerAfar(signs), SignAfar(signs)
    for wish in (None, Wish.PAUSE, Wish.CANCEL, None):
        sign.show(wish)
        listener.look()
        assert listener() is wish


def test_what_a_killed_driver_said_in_storage_is_taken_back_by_the_next() -> None:
    signs = FakeSigns()
    SignAfar(signs).show(Wish.PAUSE)
    sign = SignAfar(signs)
    sign.show(None)
    sign.show(None)
    assert (signs.word, signs.writes) == (None, 2)


def test_while_the_storage_is_away_what_was_heard_holds_and_that_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    signs = FakeSigns()
    listener = ListenerAfar(signs)
    signs.word = "pause"
    listener.look()
    signs.is_away = True
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            listener.look()
    assert (listener(), len(caplog.records)) == (Wish.PAUSE, 1)
    signs.is_away, signs.word = False, "no word that is known"
    listener.look()
    assert listener() is None


def test_a_driver_whose_storage_is_away_says_it_later_and_does_not_ask_at_every_turn() -> None:
    signs, seconds = FakeSigns(), [0.0]
    sign = SignAfar(signs, lambda: seconds[0])
    signs.is_away = True
    with pytest.raises(StorageAway):
        sign.show(Wish.PAUSE)
    sign.show(Wish.PAUSE)
    assert signs.writes == 1
    signs.is_away, seconds[0] = False, 2.5
    sign.show(Wish.PAUSE)
    assert signs.word == "pause"


class After:
    """Asks for this from the n-th question on."""

    def __init__(self, questions: int, wish: Wish = Wish.PAUSE) -> None:
        self.left = questions
        self._wish = wish

    def __call__(self) -> Wish | None:
        self.left -= 1
        return self._wish if self.left < 0 else None


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "model").mkdir()
    make_tiny_encoder(folder / "model")
    write_intents(folder, train=64, validation=16)
    return folder


def tiny(place: Path, root: Path, attempt: int) -> Assignment:
    """An attempt of a real trainer with 4 steps to each of 3 epochs."""
    data = {"train": "dataset://intents/train.csv", "validation": "dataset://intents/validation.csv"}
    trainer = {"kind": "text-classification", "model": "tiny", "data": {**data, "text": "text", "label": "label"}, "epochs": 3}
    study = a_study(trainer={**trainer, "batch_size": 16, "max_length": 32, "dropout": 0.1})
    rows = {"dataset://intents/train.csv": place / "train.csv", "dataset://intents/validation.csv": place / "validation.csv"}
    sources = LocalSources(models={"tiny": place / "model"}, sources=rows)
    return assign(study, a_trial(until=3, attempts=attempt), sources, root / "checkpoints", place / "cache")


def simulated(root: Path, attempt: int) -> Assignment:
    trainer = {"kind": "simulated", "epochs": 3, "steps_per_epoch": 4, "noise": 0.1}
    metrics = {"validation/accuracy": "1 - 1 / (1 + epoch)"}
    study = a_study(trainer={**trainer, "metrics": metrics}, space={"values.rate": {"kind": "float", "low": 0.0, "high": 1.0}})
    trial = a_trial(until=3, attempts=attempt, parameters={"values.rate": 0.5})
    return assign(study, trial, LocalSources(models={}, sources={}), root / "checkpoints", root / "cache")


def run(assignment: Assignment, wish: Callable[[], Wish | None] = lambda: None) -> list[Progress]:
    """All steps of an attempt, through the JSON they travel in."""
    attempt = AttemptRun(Assignment.from_json(assignment.to_json()), "host:1", FakeClock(), wish=wish)
    steps = [attempt.advance()]
    while steps[-1].outcome is None:
        steps.append(attempt.advance())
    return [Progress.from_json(step.to_json()) for step in steps]


def told(steps: Sequence[Progress]) -> list[tuple[int, float, int, Any]]:
    """What the reports of some attempts say, but for how long they took; each once."""
    found = {
        report.number: (report.number, report.epoch, report.step, report.metrics) for step in steps for report in step.reports
    }
    return [found[number] for number in sorted(found)]


def states(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "checkpoints").glob(f"{STUDY}/000000/resume-*"))


@pytest.mark.parametrize("questions", [2, 6, 9])
@pytest.mark.parametrize("kind", ["text-classification", "simulated"])
def test_a_trial_that_left_in_the_middle_of_an_epoch_goes_on_there_and_reports_the_same(
    tmp_path: Path, place: Path, kind: str, questions: int
) -> None:
    def attempt_in(root: Path, number: int) -> Assignment:
        return simulated(root, number) if kind == "simulated" else tiny(place, root, number)

    whole = run(attempt_in(tmp_path / "whole", 1))
    asked = After(questions)
    first = run(attempt_in(tmp_path / "parts", 1), asked)
    assert (first[-1].outcome, first[-1].reports) == ("interrupted", [])
    assert first[-1].seconds > 0
    position = next((tmp_path / "parts" / "checkpoints").glob(f"{STUDY}/000000/resume-*-1/state/position.json"))
    assert json.loads(position.read_text())["step"] == questions - 1, "one question comes before anything is read"
    second = run(attempt_in(tmp_path / "parts", 2))
    assert second[-1].outcome == "done"
    assert told([*first, *second]) == told(whole)


def test_a_trial_may_leave_an_epoch_more_than_once_and_never_loses_what_it_has(tmp_path: Path) -> None:
    steps = run(simulated(tmp_path, 1), After(6))
    assert states(tmp_path) == ["resume-000001-1"]
    steps += run(simulated(tmp_path, 2), After(2))
    assert states(tmp_path) == ["resume-000001-2"]
    steps += run(simulated(tmp_path, 3))
    assert told(steps) == told(run(simulated(tmp_path / "whole", 1)))


def test_an_attempt_that_is_asked_before_it_begins_loads_nothing(tmp_path: Path) -> None:
    (only,) = run(simulated(tmp_path, 1), After(0))
    assert (only.outcome, only.seconds, states(tmp_path)) == ("interrupted", 0.0, [])


def test_a_cancelled_attempt_leaves_without_saving(tmp_path: Path) -> None:
    assert run(simulated(tmp_path, 1), After(6, Wish.CANCEL))[-1].outcome == "interrupted"
    assert states(tmp_path) == ["resume-000001-a1"]


def test_a_state_that_cannot_be_saved_leaves_the_one_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any, **given: Any) -> None:
        if given.get("midway"):
            raise OSError("no space left on device")
        save(*_, **given)

    save = TrialFolder.save_resume
    monkeypatch.setattr(TrialFolder, "save_resume", full)
    with caplog.at_level(logging.ERROR):
        assert run(simulated(tmp_path, 1), After(6))[-1].outcome == "interrupted"
    assert "goes on from its last report" in caplog.text
    assert states(tmp_path) == ["resume-000001-a1"]
    monkeypatch.undo()
    assert run(simulated(tmp_path, 2))[-1].outcome == "done"


def test_what_was_saved_in_an_epoch_is_no_state_to_copy_and_counts_as_one_to_go_on_from(tmp_path: Path) -> None:
    run(simulated(tmp_path, 1), After(6))
    store = LocalCheckpointStore(tmp_path / "checkpoints")
    assert store.can_resume(STUDY, 0)
    assert store.fork(STUDY, 0, 1, 1) == 0
    assert [(one.kind, one.report) for one in store.stored(STUDY) if one.kind == "resume"] == [("resume", 1)]
