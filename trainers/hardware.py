"""What a trial computes on: device, threads and number format."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal, assert_never

import torch

from trainers.contract import TrainerError, TrialContext

Precision = Literal["auto", "fp32", "bf16"]


def open_device(context: TrialContext) -> torch.device:
    """The trial's device, with the process's threads set. Raises TrainerError when there is no such device."""
    # More threads than CPUs slow everybody down: two trials of two threads each on two cores took more than twice as long.
    torch.set_num_threads(context.threads)
    device = torch.device(context.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise TrainerError("trainer_error", "The trial asks for a GPU, but torch finds none: install torch's build for it.")
    return device


def computes_in_bf16(precision: Precision, device: torch.device) -> bool:
    """Whether training steps run in bf16: asked for, or `auto` on a processor that is known to be faster with it."""
    match precision:
        case "fp32":
            return False
        case "bf16":
            return True
        case "auto":
            if device.type == "cuda":
                return bool(torch.cuda.is_bf16_supported(including_emulation=False))
            # AVX-512's own bf16 instructions do not count: where they were measured, a step took 1.5 times as long as in fp32.
            return bool(torch.cpu.get_capabilities().get("amx_bf16"))
        case _:
            assert_never(precision)


@contextmanager
def memory_errors_named(what: str) -> Iterator[None]:
    """Say of a GPU that is full which trial it was too small for: TrainerError with reason `out_of_memory`."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainerError("out_of_memory", f"{what} does not fit into the GPU's memory: {error}") from error


def autocast(device: torch.device, *, bf16: bool) -> AbstractContextManager[object]:
    """The context a forward pass runs in. bf16 has the range of fp32, so gradients need no scaling."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if bf16 else nullcontext()
