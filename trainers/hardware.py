"""What a trial computes on: device, threads, memory and number format."""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from trainers.contract import GpuMemory, TrainerError, TrialContext

T = TypeVar("T")

_NO_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
"""What errors say that torch has no class for: those of the CPU, and of libraries that take memory for themselves."""

_CONTEXT_BYTES = 512 * 2**20
"""What a process takes of a GPU beside what torch counts: CUDA's context and the kernels of its libraries."""

NumberFormat = Literal["fp32", "bf16", "fp16"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]


def open_device(context: TrialContext) -> torch.device:
    """The trial's device, with the process's threads set. Raises TrainerError when there is no such device."""
    # More threads than CPUs slow everybody down: two trials of two threads each on two cores took more than twice as long.
    torch.set_num_threads(context.threads)
    device = torch.device(context.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise TrainerError("trainer_error", "The trial asks for a GPU, but torch finds none: install torch's build for it.")
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # convolutions too: fp32 is fp32, and who wants speed has bf16
        begin_measuring(torch.cuda)
    return device


def begin_measuring(cuda: Any) -> None:
    """Let go of what an earlier trial of this process has left on the GPU, and count memory from here. `cuda` is `torch.cuda`."""
    gc.collect()
    cuda.empty_cache()
    cuda.reset_peak_memory_stats()
    cuda.reset_accumulated_memory_stats()


def measured_memory(cuda: Any) -> GpuMemory:
    """What this process has taken of its GPU since `begin_measuring`, with all that torch keeps for later."""
    _, total = cuda.mem_get_info()
    refusals = cuda.memory_stats().get("num_ooms", 0)
    return GpuMemory(cuda.max_memory_reserved() + _CONTEXT_BYTES, total, refusals)


def number_format(precision: Precision, device: torch.device) -> NumberFormat:
    """What training steps run in: what was asked for, or for `auto` bf16 on a processor that is known to be faster with it."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    # AVX-512's own bf16 instructions do not count: where they were measured, a step took 1.5 times as long as in fp32.
    return "bf16" if torch.cpu.get_capabilities().get("amx_bf16") else "fp32"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is short."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)
    )


@contextmanager
def memory_errors_named(what: str) -> Iterator[None]:
    """Say of a device that is full which trial it was too small for: TrainerError with reason `out_of_memory`."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise TrainerError("out_of_memory", f"{what} does not fit into the memory of the device: {error}") from error


def in_batches(rows: Sequence[int], size: int, compute: Callable[[Sequence[int]], T]) -> Iterator[tuple[Sequence[int], T]]:
    """What `compute` makes of the rows, in batches of `size`, smaller ones where memory is short.

    Raises TrainerError with reason `out_of_memory` when not even one row fits.
    """
    at = 0
    while at < len(rows):
        batch = rows[at : at + size]
        try:
            yield batch, compute(batch)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                raise TrainerError("out_of_memory", "Not even one validation row fits into the memory of the device.") from error
            size = max(1, len(batch) // 2)
        else:
            at += len(batch)


def random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Of torch's generators, of the CPU and of the device."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def restore_random_state(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    """Put back what `random_state` answered."""
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)


def autocast(device: torch.device, number_format: NumberFormat) -> AbstractContextManager[object]:
    """The context a forward pass runs in. bf16 has the range of fp32, so gradients need no scaling; fp16 has not."""
    if number_format == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16 if number_format == "bf16" else torch.float16)
