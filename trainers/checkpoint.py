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
    """Write trained weights, the optimizer's moments, random states and `position` (JSON) into `folder`."""
    trained = _trained(model)
    names = {id(parameter): name for name, parameter in trained.items()}
    tensors = {f"model.{name}": parameter.detach() for name, parameter in trained.items()}
    for parameter, moments in optimizer.state.items():
        for key, value in moments.items():
            tensors[f"optimizer.{names[id(parameter)]}.{key}"] = value
    tensors["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "state.safetensors")
    (folder / "position.json").write_text(json.dumps(dict(position)))


def load_state(folder: Path, model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """Put back what `save_state` wrote, into a model and an optimizer made the same way; answers `position`.

    Raises KeyError when the weights are of another model.
    """
    tensors = load_file(folder / "state.safetensors")
    trained = _trained(model)
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(tensors[f"model.{name}"])
    for name, parameter in trained.items():
        prefix = f"optimizer.{name}."
        # Copies: what was loaded is a view of the file. A step count stays where the optimizer keeps it.
        moments: dict[str, Tensor] = {
            key.removeprefix(prefix): tensor.clone() for key, tensor in tensors.items() if key.startswith(prefix)
        }
        if moments:
            optimizer.state[parameter] = {key: _placed(key, tensor, parameter) for key, tensor in moments.items()}
    torch.set_rng_state(tensors["random.cpu"].clone())
    if "random.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random.cuda"].clone())
    position: dict[str, Any] = json.loads((folder / "position.json").read_text())
    return position


def _placed(key: str, tensor: Tensor, parameter: nn.Parameter) -> Tensor:
    return tensor.to(parameter.device) if key != "step" or parameter.is_cuda else tensor


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
