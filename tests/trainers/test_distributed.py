"""One trial in two processes on the CPU. They take seconds to start, so tests share what they can."""

import gc
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.trainers.cases import CASES, Case, a_config, sources_of
from trainers.contract import Interruption, Report, Trainer, TrainerError, TrialContext, make_trainer
from trainers.distributed import Distributed

in_processes = pytest.mark.integration


@pytest.fixture(scope="session")
def case() -> Case:
    return CASES[0]


@pytest.fixture
def made() -> Iterator[list[Distributed]]:
    """Trainers that end with the test."""
    trainers: list[Distributed] = []
    yield trainers
    for trainer in trainers:
        trainer.close()


def context(case: Case, place: Path, **changes: Any) -> TrialContext:
    sources = sources_of(a_config(case), place)
    return TrialContext(**{"cache": place / "cache", "sources": sources, "models": {"tiny": place / "tiny"}, **changes})


def in_two(
    made: list[Distributed], case: Case, place: Path, changes: dict[str, Any] | None = None, **surroundings: Any
) -> Distributed:
    trainer = make_trainer(a_config(case, **(changes or {})), context(case, place, processes=2, **surroundings))
    assert isinstance(trainer, Distributed)
    made.append(trainer)
    return trainer


def said(reports: list[Report]) -> list[Report]:
    return [replace(report, seconds=0.0) for report in reports]


@in_processes
@pytest.mark.timeout(300)
def test_two_processes_train_as_one_does(made: list[Distributed], case: Case, place: Path, tmp_path: Path) -> None:
    changes = {"dropout": 0.0, "batch_size": 7, "epochs": 2}  # an odd number: one process has a row more
    alone: Trainer = make_trainer(a_config(case, **changes), context(case, place))
    one = list(alone.reports())
    trainer = in_two(made, case, place, changes, threads=3)
    two = list(trainer.reports())
    assert [(report.number, report.step, report.last) for report in two] == [
        (report.number, report.step, report.last) for report in one
    ]
    for first, second in zip(one, two, strict=True):
        assert second.metrics == pytest.approx(first.metrics, rel=1e-3)
    assert (trainer.facts["processes"], trainer.facts["threads"]) == (2, 1), "they divide the trial's threads"
    trainer.export(tmp_path)
    assert case.measure(tmp_path, place, "validation")["loss"] == pytest.approx(two[-1].metrics["validation/loss"], abs=1e-5)
    assert trainer.test(tmp_path)["test/loss"] == pytest.approx(case.measure(tmp_path, place, "test")["loss"], abs=1e-5)
    assert trainer.analysis()["rows"] == trainer.facts["rows"]["validation"]


@in_processes
@pytest.mark.timeout(300)
def test_a_paused_trial_goes_on_as_if_it_had_not_and_ends_when_a_process_is_killed(
    made: list[Distributed], case: Case, place: Path, tmp_path: Path
) -> None:
    begin, middle = tmp_path / "begin", tmp_path / "middle"
    begin.mkdir()
    middle.mkdir()
    asked: list[Interruption] = []
    first = in_two(made, case, place, interruption=lambda: asked[0] if asked else None)
    running = first.reports()
    next(running)
    first.save(begin)
    wanted = said(list(running))
    first.load(begin)
    asked.append(Interruption.PAUSE)
    reports = list(first.reports())
    assert len(reports) < len(wanted)
    first.save(middle)
    second = in_two(made, case, place)
    second.load(middle)
    assert said(reports + list(second.reports())) == wanted
    second.load(begin)
    running = second.reports()
    next(running)
    processes = [psutil.Process(process.pid) for process in second._processes]
    processes[1].kill()
    with pytest.raises(RuntimeError, match="process"):
        list(running)
    _, left = psutil.wait_procs(processes, timeout=60)
    assert not left


@in_processes
@pytest.mark.timeout(300)
def test_what_is_wrong_with_the_rows_is_said(made: list[Distributed], case: Case, place: Path) -> None:
    with pytest.raises(TrainerError, match="no column 'nothing'"):
        in_two(made, case, place, {"data": {**case.document["data"], "label": "nothing"}})


def test_a_folder_that_cannot_be_made_is_the_only_error(case: Case, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: Any) -> str:
        raise OSError("no space left")

    unraisable: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    monkeypatch.setattr(tempfile, "mkdtemp", full)
    with pytest.raises(OSError, match="no space left") as raised:
        make_trainer(a_config(case), context(case, place, processes=2))
    raised.value.__traceback__ = None
    del raised
    gc.collect()
    assert not unraisable


@in_processes
@pytest.mark.timeout(300)
@pytest.mark.slow
def test_the_processes_die_with_their_parent(case: Case, place: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from tests.trainers.cases import CASES; "
        "from tests.trainers.test_distributed import a_config, context, make_trainer; place = Path(sys.argv[1]); "
        "trainer = make_trainer(a_config(CASES[0], epochs=1000), context(CASES[0], place, processes=2)); "
        "Path(sys.argv[2]).write_text(' '.join(str(one.pid) for one in trainer._processes)); list(trainer.reports())"
    )
    pids = tmp_path / "pids"
    parent = subprocess.Popen([sys.executable, "-c", program, str(place), str(pids)])
    try:
        until = time.monotonic() + 180  # three processes that import torch, on a machine that may be busy
        while not pids.is_file() or len(pids.read_text().split()) < 2:
            assert parent.poll() is None, "it ended by itself"
            assert time.monotonic() < until
            time.sleep(0.05)
        ranks = [psutil.Process(int(pid)) for pid in pids.read_text().split()]
        os.kill(parent.pid, signal.SIGKILL)
        gone, alive = psutil.wait_procs(ranks, timeout=60)
        assert len(gone) == 2, alive
    finally:
        parent.kill()
        parent.wait()
