"""Memory of a GPU: what torch is asked, and what is simulated where there is none."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.trainers.test_simulated import a_config, refused
from trainers.contract import GpuMemory, TrainerError, TrialContext, make_trainer
from trainers.hardware import begin_measuring, measured_memory
from trainers.simulated_gpu import SimulatedMemory

MEBIBYTE = 2**20


class FakeCuda:
    """What of `torch.cuda` is used: a process that has reserved more than it has now."""

    def __init__(self) -> None:
        self.reserved, self.peak, self.ooms = 700 * MEBIBYTE, 900 * MEBIBYTE, 3

    def empty_cache(self) -> None:
        self.reserved = 0

    def reset_peak_memory_stats(self) -> None:
        self.peak = self.reserved

    def reset_accumulated_memory_stats(self) -> None:
        self.ooms = 0

    def max_memory_reserved(self) -> int:
        return self.peak

    def memory_stats(self) -> dict[str, Any]:
        return {"num_ooms": self.ooms} if self.ooms else {}

    def mem_get_info(self) -> tuple[int, int]:
        return 0, 80_000 * MEBIBYTE


def test_what_a_process_takes_of_a_gpu_is_all_that_torch_reserved_and_what_cuda_takes_itself() -> None:
    assert measured_memory(FakeCuda()) == GpuMemory((900 + 512) * MEBIBYTE, 80_000 * MEBIBYTE, 3)


def test_what_an_earlier_trial_took_is_not_counted() -> None:
    cuda = FakeCuda()
    begin_measuring(cuda)
    assert measured_memory(cuda) == GpuMemory(512 * MEBIBYTE, 80_000 * MEBIBYTE, 0)


def test_processes_share_the_memory_of_a_gpu(tmp_path: Path) -> None:
    mine, other = (SimulatedMemory(tmp_path, 100, process) for process in (os.getpid(), os.getppid()))
    assert mine.take(60) == GpuMemory(60, 100)
    assert other.take(40) == GpuMemory(40, 100)
    with pytest.raises(TrainerError, match="40 of 100 are free") as raised:
        other.take(41)
    assert raised.value.reason == "out_of_memory"
    assert mine.take(30) == GpuMemory(60, 100)
    assert other.take(70) == GpuMemory(70, 100)


def test_a_process_that_was_refused_has_nothing(tmp_path: Path) -> None:
    mine, other = (SimulatedMemory(tmp_path, 100, process) for process in (os.getpid(), os.getppid()))
    mine.take(60)
    with pytest.raises(TrainerError):
        mine.take(101)
    assert other.take(100).peak_bytes == 100


def test_what_a_process_had_that_has_ended_is_free(tmp_path: Path) -> None:
    took = "import sys; from pathlib import Path; from trainers.simulated_gpu import SimulatedMemory; "
    took += "SimulatedMemory(Path(sys.argv[1]), 100).take(90)"
    subprocess.run([sys.executable, "-c", took, str(tmp_path)], check=True)
    assert SimulatedMemory(tmp_path, 100).take(100).peak_bytes == 100


def test_a_simulated_trial_on_a_gpu_reports_what_it_took(tmp_path: Path) -> None:
    config = a_config(gpu_memory={"peak_megabytes": "width * 10 * epoch", "total_megabytes": 5000})
    found = [report.gpu_memory for report in make_trainer(config, TrialContext(cache=tmp_path, device="cuda")).reports()]
    assert found == [GpuMemory(640_000_000 * epoch, 5_000_000_000) for epoch in (1, 2, 3, 4)]


def test_a_simulated_trial_that_takes_too_much_runs_out_of_memory(tmp_path: Path) -> None:
    config = a_config(gpu_memory={"peak_megabytes": "width * 10 * epoch", "total_megabytes": 1000})
    reports = make_trainer(config, TrialContext(cache=tmp_path, device="cuda")).reports()
    next(reports)
    with pytest.raises(TrainerError) as raised:
        next(reports)
    assert raised.value.reason == "out_of_memory"


def test_a_simulated_trial_without_a_gpu_takes_none(tmp_path: Path) -> None:
    config = a_config(gpu_memory={"peak_megabytes": 10, "total_megabytes": 1})
    assert {report.gpu_memory for report in make_trainer(config, TrialContext(cache=tmp_path)).reports()} == {None}


def test_a_formula_of_memory_without_an_answer_is_refused() -> None:
    assert "`gpu_memory.peak_megabytes` names `depth`" in refused(gpu_memory={"peak_megabytes": "depth", "total_megabytes": 1})
