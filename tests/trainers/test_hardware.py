"""What a trial computes on."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from trainers.contract import TrainerError, TrialContext
from trainers.hardware import (
    NumberFormat,
    autocast,
    in_batches,
    is_out_of_memory,
    memory_errors_named,
    number_format,
    open_device,
    random_state,
    restore_random_state,
)

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def with_room_for(rows: int, seen: list[int]) -> Callable[[Sequence[int]], list[int]]:
    """Answers its rows on a device that holds so many at once."""

    def compute(some: Sequence[int]) -> list[int]:
        seen.append(len(some))
        if len(some) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return list(some)

    return compute


@pytest.mark.parametrize(
    ("capabilities", "wanted"),
    [({"amx_bf16": True, "avx512_bf16": True}, "bf16"), ({"amx_bf16": False, "avx512_bf16": True}, "fp32"), ({}, "fp32")],
)
def test_a_cpu_computes_in_bf16_when_it_has_matrix_units(
    capabilities: dict[str, bool], wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert number_format("auto", CPU) == wanted


@pytest.mark.parametrize(("bf16", "wanted"), [(True, "bf16"), (False, "fp32")])
def test_a_gpu_computes_in_bf16_when_it_does_not_only_emulate_it(
    *, bf16: bool, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16 and not including_emulation)
    assert number_format("auto", GPU) == wanted


@pytest.mark.parametrize("asked", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("device", [CPU, GPU], ids=str)
def test_what_is_asked_for_is_done(asked: NumberFormat, device: torch.device) -> None:
    assert number_format(asked, device) == asked


@pytest.mark.parametrize(("asked", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_a_product_is_computed_in_the_chosen_format(asked: NumberFormat, dtype: torch.dtype) -> None:
    with autocast(CPU, asked):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is dtype


def test_rows_come_in_batches_in_their_order() -> None:
    seen: list[int] = []
    found = list(in_batches(range(10), 4, with_room_for(4, seen)))
    assert [rows for _, rows in found] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert [list(batch) for batch, _ in found] == [rows for _, rows in found]
    assert seen == [4, 4, 2]


def test_batches_are_halved_where_memory_is_short_and_stay_so() -> None:
    seen: list[int] = []
    found = list(in_batches(range(10), 8, with_room_for(3, seen)))
    assert [row for _, rows in found for row in rows] == list(range(10))
    assert seen == [8, 4, 2, 2, 2, 2, 2]


def test_not_even_one_row_that_fits_is_said() -> None:
    with pytest.raises(TrainerError, match="Not even one validation row fits") as raised:
        list(in_batches(range(3), 4, with_room_for(0, [])))
    assert raised.value.reason == "out_of_memory"


def test_another_error_is_left_as_it_is() -> None:
    def fail(_: Sequence[int]) -> None:
        raise RuntimeError("a wrong shape")

    with pytest.raises(RuntimeError, match="a wrong shape"):
        list(in_batches(range(3), 2, fail))


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (RuntimeError("a wrong shape"), False),
        (ValueError("can't allocate memory"), False),
    ],
    ids=repr,
)
def test_a_lack_of_memory_is_known_by_its_error(error: Exception, *, wanted: bool) -> None:
    assert is_out_of_memory(error) is wanted


def test_a_lack_of_memory_says_what_did_not_fit() -> None:
    wanted = "The optimizer's state does not fit into the memory of the device"
    with pytest.raises(TrainerError, match=wanted) as raised, memory_errors_named("The optimizer's state"):
        raise MemoryError
    assert raised.value.reason == "out_of_memory"
    with pytest.raises(RuntimeError, match="a wrong shape"), memory_errors_named("The model"):
        raise RuntimeError("a wrong shape")


def test_a_random_state_that_is_put_back_gives_the_same_numbers_again() -> None:
    state = random_state(CPU)
    first = torch.rand(3)
    restore_random_state(state, CPU)
    assert torch.equal(torch.rand(3), first)


def test_the_process_gets_as_many_threads_as_the_trial_has_cpus(tmp_path: Path) -> None:
    assert open_device(TrialContext(cache=tmp_path, threads=2)) == CPU
    assert torch.get_num_threads() == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="torch finds none"):
        open_device(TrialContext(cache=tmp_path, device="cuda"))
