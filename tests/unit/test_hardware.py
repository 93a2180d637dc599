"""What a trial computes on."""

from pathlib import Path

import pytest
import torch

from trainers.contract import TrialContext
from trainers.hardware import autocast, computes_in_bf16, open_device

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capabilities", "bf16"),
    [({"amx_bf16": True, "avx512_bf16": True}, True), ({"amx_bf16": False, "avx512_bf16": True}, False), ({}, False)],
)
def test_a_cpu_computes_in_bf16_when_it_has_matrix_units(
    capabilities: dict[str, bool], *, bf16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert computes_in_bf16("auto", CPU) is bf16


@pytest.mark.parametrize("bf16", [True, False])
def test_a_gpu_computes_in_bf16_when_it_does_not_only_emulate_it(*, bf16: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16 and not including_emulation)
    assert computes_in_bf16("auto", torch.device("cuda")) is bf16


def test_what_is_asked_for_is_done() -> None:
    assert computes_in_bf16("bf16", CPU)
    assert not computes_in_bf16("fp32", CPU)


@pytest.mark.parametrize(("bf16", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_product_is_computed_in_the_chosen_format(*, bf16: bool, dtype: torch.dtype) -> None:
    with autocast(CPU, bf16=bf16):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is dtype


def test_the_process_gets_as_many_threads_as_the_trial_has_cpus(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        assert open_device(TrialContext(cache=tmp_path, threads=before + 1)) == CPU
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
