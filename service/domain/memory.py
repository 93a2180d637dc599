"""How much memory training a base model takes, roughly."""

from dataclasses import dataclass
from typing import Literal, assert_never

from service.domain.base_models import ModelHeader

Method = Literal["full", "lora", "frozen"]
"""All weights train; low-rank adapters of rank 8 train; the head alone trains."""

_FLOAT_BYTES = 4
_MOMENTS = 2
_LORA_RANK = 8
_ADAPTED = 2
"""Matrices of a layer that get an adapter, each of two factors."""
_HIDDEN_VALUES = 18.5
_SCORE_VALUES = 3
_IMAGE_VALUES = 19.0
_CONVOLUTION_VALUES = 8.0
_CONVOLUTIONS = frozenset({"resnet", "regnet"})
_LOGIT_COPIES = 2
_GENERATIVE = frozenset({"causal-lm", "seq2seq"})


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes, part by part; `activations` is None where the architecture does not tell."""

    weights: int
    gradients: int
    optimizer: int
    activations: int | None

    @property
    def total(self) -> int | None:
        """All of it."""
        return None if self.activations is None else self.weights + self.gradients + self.optimizer + self.activations


def memory_need(header: ModelHeader, *, batch_size: int, max_length: int, method: Method) -> MemoryNeed | None:
    """What one training step holds in fp32, or None for a model whose number of parameters is not known.

        weights      4 bytes x parameters
        gradients    4 bytes x trained parameters
        optimizer    8 bytes x trained parameters: AdamW's two moments
        activations  4 bytes x batch x length x layers x (18.5 x hidden + 3 x heads x length), and for language models
                     4 bytes x batch x length x vocabulary x 2 for the logits and their gradient

    The factors come from MiniLM (6 layers, hidden size 384, 12 heads) with dropout 0.1: the bytes of all tensors that autograd
    saved in one forward pass, without the weights, were 50.8, 288.0 and 401.2 MB for 8 x 32, 8 x 128 and 4 x 256 tokens, which
    the formula meets to a percent. Other architectures differ: counted in the same way, GPT-2 took 1.4 times as much, T5 1.6
    times over the layers of both its stacks, and Llama without dropout 0.7 times. Images count as
    4 bytes x batch x values x factor, where values are the numbers that all layers put out; the factor was 15 for ViT and
    ConvNeXt and 19 for Swin, of which the largest is used, and 8 for ResNets. A frozen network keeps the activations of
    one layer at a time. Buffers of libraries, and what the process holds anyway, come on top.
    """
    if header.parameters is None:
        return None
    trained = _trained(header, method)
    activations = _activations(header, batch_size, max_length)
    if activations is not None and method == "frozen":
        activations = activations // max(1, header.layers or 1)
    return MemoryNeed(
        weights=_FLOAT_BYTES * header.parameters,
        gradients=_FLOAT_BYTES * trained,
        optimizer=_FLOAT_BYTES * _MOMENTS * trained,
        activations=activations,
    )


def _trained(header: ModelHeader, method: Method) -> int:
    hidden, layers = header.hidden_size or 0, header.layers or 0
    match method:
        case "full":
            return header.parameters or 0
        case "lora":
            return layers * _ADAPTED * 2 * hidden * _LORA_RANK
        case "frozen":
            return hidden * hidden + hidden
        case _:
            assert_never(method)


def _activations(header: ModelHeader, batch_size: int, max_length: int) -> int | None:
    if header.image_values is not None:
        factor = _CONVOLUTION_VALUES if header.model_type in _CONVOLUTIONS else _IMAGE_VALUES
        return round(_FLOAT_BYTES * batch_size * header.image_values * factor)
    if header.layers is None or header.hidden_size is None or header.heads is None:
        return None
    layers = header.layers * (2 if "seq2seq" in header.kinds else 1)
    values = layers * (_HIDDEN_VALUES * header.hidden_size + _SCORE_VALUES * header.heads * max_length)
    if header.kinds & _GENERATIVE:
        values += _LOGIT_COPIES * (header.vocabulary or 0)
    return round(_FLOAT_BYTES * batch_size * max_length * values)
