"""What only a GPU shows: memory that is taken and given back, number formats, and trials side by side. See `make test-gpu`."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import make_tiny_encoder, write_intents
from tests.trainers.cases import CASES, Case, a_trainer
from tests.trainers.test_contract import said, same, weights
from trainers.configs import TextClassificationConfig
from trainers.contract import Report, Trainer, TrainerError, TrialContext, make_trainer

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]

MEGABYTE = 2**20
TRIAL = """
import json, sys
from pathlib import Path
from tests.trainers.test_gpu import a_trial
for report in a_trial(Path(sys.argv[1]), **json.loads(sys.argv[2])).reports():
    print(json.dumps([report.metrics, report.gpu_memory.peak_bytes]), flush=True)
"""


@pytest.fixture(scope="session")
def case() -> Case:
    return CASES[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows, and a network that is wide enough for its activations to be felt."""
    found = tmp_path_factory.mktemp("gpu")
    (found / "model").mkdir()
    make_tiny_encoder(found / "model", layers=6, width=768)
    write_intents(found, train=960, validation=160)
    return found


def a_trial(folder: Path, **changes: Any) -> Trainer:
    document = {
        "kind": "text-classification",
        "model": str(folder / "model"),
        "data": {name: str(folder / f"{name}.csv") for name in ("train", "validation")},
        "batch_size": 32,
        "learning_rate": 1e-4,
        "max_length": 64,
        **changes,
    }
    config = TextClassificationConfig.model_validate(document)
    return make_trainer(config, TrialContext(cache=folder / "cache", device="cuda"))


class Process:
    """A trial in a process of its own."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", TRIAL, str(folder), json.dumps(changes)], stdout=subprocess.PIPE, text=True
        )

    def reports(self) -> Iterator[tuple[dict[str, float], int]]:
        """Metrics and peak bytes of each report, as it comes."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            metrics, peak = json.loads(line)
            yield metrics, peak
        assert self._process.wait() == 0

    def kill(self) -> None:
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def last_loss(folder: Path, **changes: Any) -> float:
    return list(a_trial(folder, epochs=2, dropout=0.0, **changes).reports())[-1].metrics["train/loss"]


def free_bytes() -> int:
    return int(torch.cuda.mem_get_info()[0])


def within(seconds: float, holds: Callable[[], bool]) -> bool:
    until = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture
def limited() -> Iterator[Callable[[int], None]]:
    """Lets this process have so many bytes of the GPU."""

    def limit(count: int) -> None:
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(count / torch.cuda.mem_get_info()[1])

    yield limit
    torch.cuda.set_per_process_memory_fraction(1.0)


def test_auto_is_bf16(folder: Path) -> None:
    trial = a_trial(folder, epochs=1)
    report = next(trial.reports())
    assert trial.facts["training_precision"] == "bf16"
    assert trial.facts["device"] == torch.cuda.get_device_name()
    assert report.gpu_memory is not None
    assert report.gpu_memory.total_bytes == torch.cuda.mem_get_info()[1]


def test_the_formats_learn_alike(folder: Path) -> None:
    found = {precision: last_loss(folder, precision=precision) for precision in ("fp32", "bf16", "fp16")}
    assert found["bf16"] == pytest.approx(found["fp32"], rel=0.1)
    assert found["fp16"] == pytest.approx(found["fp32"], rel=0.1)


def test_a_paused_trial_in_fp16_goes_on_as_if_it_had_not(case: Case, places: Callable[[int], Path], tmp_path: Path) -> None:
    place = places(0)
    whole = a_trainer(case, place, precision="fp16")
    wanted = said(list(whole.reports()))
    first = a_trainer(case, place, interrupted_at=wanted[0].step + 1, precision="fp16")
    reports: list[Report] = list(first.reports())
    first.save(tmp_path)
    second = a_trainer(case, place, precision="fp16")
    second.load(tmp_path)
    reports += list(second.reports())
    assert said(reports) == wanted
    assert same(weights(whole), weights(second))


def test_what_is_reported_is_what_the_process_takes(folder: Path) -> None:
    before, least = free_bytes(), free_bytes()
    process = Process(folder, epochs=6)
    peak = 0
    for _, now in process.reports():
        least, peak = min(least, free_bytes()), now
    taken = before - least
    assert 0 <= (peak - taken) / MEGABYTE < 700, "trials that share a GPU are packed by what is reported"


def test_a_killed_trial_holds_no_memory(folder: Path) -> None:
    before = free_bytes()
    process = Process(folder, epochs=400)
    next(process.reports())
    assert free_bytes() < before - 200 * MEGABYTE
    process.kill()
    assert within(5, lambda: free_bytes() >= before)


def test_trials_side_by_side_learn_what_they_learn_alone(folder: Path) -> None:
    changes: dict[str, Any] = {"epochs": 3, "dropout": 0.1}
    alone = [metrics for metrics, _ in Process(folder, **changes).reports()]
    beside = [Process(folder, **changes) for _ in range(3)]
    assert [[metrics for metrics, _ in process.reports()] for process in beside] == [alone] * 3


def test_a_batch_that_does_not_fit_is_computed_in_parts(folder: Path, limited: Callable[[int], None]) -> None:
    changes: dict[str, Any] = {"epochs": 1, "batch_size": 480, "dropout": 0.0, "precision": "fp32"}
    roomy = next(a_trial(folder, **changes).reports())
    assert roomy.gpu_memory is not None
    needs = torch.cuda.max_memory_reserved()
    limited(int(0.7 * needs))
    trial = a_trial(folder, **changes)
    cramped = next(trial.reports())
    assert trial.facts["micro_batch_size"] < 480
    assert cramped.gpu_memory is not None
    assert cramped.gpu_memory.refusals > 0
    assert cramped.metrics["train/loss"] == pytest.approx(roomy.metrics["train/loss"], rel=1e-3)


def test_a_trial_that_does_not_fit_at_all_leaves_room_for_the_next(folder: Path, limited: Callable[[int], None]) -> None:
    limited(300 * MEGABYTE)
    with pytest.raises(TrainerError, match=r"does not fit|Not even one row") as raised:
        list(a_trial(folder, epochs=1, batch_size=480, precision="fp32").reports())
    assert raised.value.reason == "out_of_memory"
    limited(torch.cuda.mem_get_info()[1] // 2)
    report = next(a_trial(folder, epochs=1).reports())
    assert report.gpu_memory is not None
    assert report.gpu_memory.refusals == 0
    assert report.gpu_memory.peak_bytes < 4000 * MEGABYTE


@pytest.mark.timeout(600)
def test_a_compiled_trial_learns_alike(folder: Path) -> None:
    assert last_loss(folder, compile=True) == pytest.approx(last_loss(folder), rel=0.1)
