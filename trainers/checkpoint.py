"""What a trial resumes from, in safetensors and JSON: no pickle, and nothing that the pretrained model has already."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer


def save_state(folder: Path, model: nn.Module, optimizer: Optimizer, position: Mapping[str, Any]) -> None:
    """Write trained weights, buffers, the optimizer's moments, random states and `position` (JSON) into `folder`."""
    trained = _trained(model)
    names = {id(parameter): name for name, parameter in trained.items()}
    tensors = {f"model.{name}": parameter.detach() for name, parameter in trained.items()}
    for parameter, moments in optimizer.state.items():
        for key, value in moments.items():
            tensors[f"optimizer.{names[id(parameter)]}.{key}"] = value
    tensors |= {f"buffer.{name}": buffer for name, buffer in _buffers(model).items()}
    tensors |= _random_states()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "state.safetensors")
    (folder / "position.json").write_text(json.dumps(dict(position)))


def load_position(folder: Path) -> dict[str, Any]:
    """The `position` that `save_state` wrote."""
    position: dict[str, Any] = json.loads((folder / "position.json").read_text())
    return position


def load_state(folder: Path, model: nn.Module, optimizer: Optimizer) -> None:
    """Put back what `save_state` wrote, into a model and an optimizer made the same way.

    Raises KeyError when the weights are of another model.
    """
    tensors = load_file(folder / "state.safetensors")
    trained = _trained(model)
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(tensors[f"model.{name}"])
        for name, buffer in _buffers(model).items():
            buffer.copy_(tensors[f"buffer.{name}"])
    for name, parameter in trained.items():
        prefix = f"optimizer.{name}."
        # Copies: what was loaded is a view of the file. A step count stays where the optimizer keeps it.
        moments: dict[str, Tensor] = {
            key.removeprefix(prefix): tensor.clone() for key, tensor in tensors.items() if key.startswith(prefix)
        }
        if moments:
            optimizer.state[parameter] = {key: _placed(key, tensor, parameter) for key, tensor in moments.items()}
    _set_random_states(tensors)


def save_random_state(folder: Path, rank: int) -> None:
    """Write the random states of one of several processes beside what the first one writes."""
    save_file(_random_states(), folder / f"random-{rank}.safetensors")


def load_random_state(folder: Path, rank: int) -> None:
    """Put back what `save_random_state` wrote. Raises FileNotFoundError when there were fewer processes."""
    _set_random_states(load_file(folder / f"random-{rank}.safetensors"))


def _random_states() -> dict[str, Tensor]:
    states = {"random.cpu": torch.get_rng_state()}
    return {**states, "random.cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else states


def _set_random_states(tensors: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(tensors["random.cpu"].clone())
    if "random.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random.cuda"].clone())


def _placed(key: str, tensor: Tensor, parameter: nn.Parameter) -> Tensor:
    return tensor.to(parameter.device) if key != "step" or parameter.is_cuda else tensor


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _buffers(model: nn.Module) -> dict[str, Tensor]:
    """What is kept but not trained, such as the running means of batch normalisation."""
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return {name: value for name, value in model.state_dict().items() if name not in parameters}
