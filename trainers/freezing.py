"""Which parts of a pretrained model keep their weights, and how deep in it each weight is."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from trainers.configs import TrainingConfig
from trainers.contract import TrainerError

_EMBEDDINGS = (
    "embeddings",
    "embedder",
    "wte",
    "wpe",
    "embed_tokens",
    "embed_positions",
    "shared",
    "word_embeddings",
    "patch_embed",
    "conv_stem",
    "embeddings_project",
    "embedding_hidden_mapping_in",
    "project_in",
    "layernorm_embedding",
    "word_embeddings_layernorm",
    "relative_attention_bias",
    "relative_position_bias",
    "rel_embeddings",
)
"""What the models of transformers call what stands before their first layer, or is used by all of them."""


class Freezing:
    """Which layers train in which epoch. Frozen parts get no gradient and no dropout."""

    def __init__(self, model: Any, settings: TrainingConfig) -> None:
        """Freeze what is frozen in the first epoch. Raises TrainerError for more layers than there are, and for nothing left."""
        self._model = model
        self._settings = settings
        self._layers = layers_of(model) if settings.frozen_layers or settings.unfreeze_per_epoch else []
        wanted = settings.frozen_layers
        if isinstance(wanted, int) and wanted > len(self._layers):
            detail = f"`frozen_layers` is {wanted}, but {type(model).__name__} has {len(self._layers)} layers: lower it."
            raise TrainerError("trainer_error", detail)
        self._lowest = len(self._layers) if wanted == "all" else int(wanted)
        self._always = self._everything_but_the_head() if wanted == "all" else []
        self._frozen: list[nn.Module] = []
        self._fixed = [parameter for parameter in model.parameters() if not parameter.requires_grad]
        # An optimizer needs all that will ever train, so look at the last epoch first.
        self._freeze(self._lowest)
        self.trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
        if not self.trained:
            detail = "Nothing is left to train: freeze less, the model has no head with weights of its own."
            raise TrainerError("trainer_error", detail)
        self.enter(0)

    @property
    def count(self) -> int:
        """Layers that are frozen now."""
        return self._now

    @property
    def is_gradual(self) -> bool:
        """Whether epochs differ."""
        return bool(self._settings.unfreeze_per_epoch)

    def enter(self, epoch: int) -> None:
        """Freeze what is frozen in this epoch, counted from 0."""
        thawed = epoch * self._settings.unfreeze_per_epoch
        self._freeze(max(self._lowest, len(self._layers) - thawed) if self.is_gradual else self._lowest)

    def train(self) -> None:
        """Put the model into training mode, its frozen parts into evaluation mode."""
        self._model.train()
        for part in self._frozen:
            part.eval()

    def _freeze(self, count: int) -> None:
        self._now = count
        parts: list[nn.Module] = [*self._layers[:count], *self._always]
        if count or self._settings.freeze_embeddings:
            parts += embeddings_of(self._model)
        for parameter in self._model.parameters():
            parameter.requires_grad_(requires_grad=True)
        for part in parts:
            part.requires_grad_(requires_grad=False)
        for parameter in self._fixed:
            parameter.requires_grad_(requires_grad=False)
        self._frozen = parts

    def _everything_but_the_head(self) -> list[nn.Module]:
        """The parts of the pretrained network but its pooler, which belongs to a head, and its output layer."""
        parts = self._model.base_model.named_children()
        return [part for name, part in parts if "pooler" not in name and part is not output_of(self._model)]


def layers_of(model: Any) -> list[nn.Module]:
    """The layers from the input on; of an encoder-decoder those of its encoder, of a convolutional network its stages.

    Raises TrainerError for a model without a list of them.
    """
    lists = [(name, list(module)) for name, module in _network(model).named_modules() if isinstance(module, nn.ModuleList)]
    # A list inside of another is a part of a layer.
    outer = [found for name, found in lists if not any(name.startswith(f"{other}.") for other, _ in lists if other)]
    if not outer:
        raise TrainerError("trainer_error", f"{type(model).__name__} has no list of layers: set `frozen_layers` to 0.")
    return max(outer, key=len)


def embeddings_of(model: Any) -> list[nn.Module]:
    """What stands before the first layer, or is used by all of them."""
    networks = [model.base_model, _network(model), *_children(_network(model), ("transformer", "encoder", "decoder", "model"))]
    found = [part for network in networks for part in _children(network, _EMBEDDINGS)]
    # DeBERTa's norm of its relative positions; others call their last one so.
    found += [part for network in networks if hasattr(network, "rel_embeddings") for part in _children(network, ("LayerNorm",))]
    return list(dict.fromkeys(found)) or [model.get_input_embeddings()]


def output_of(model: Any) -> nn.Module | None:
    """The output layer of a model that is its own base model, as T5 is; None where the base model has none."""
    output: nn.Module | None = model.get_output_embeddings() if model.base_model is model else None
    return output


def in_backbone(model: Any, name: str) -> bool:
    """Whether a weight belongs to the pretrained network, and neither to its pooler nor to a head."""
    if "pooler" in name:
        return False
    if model.base_model is not model:
        return name.startswith(f"{model.base_model_prefix}.")
    output = output_of(model)
    return output is None or model.get_submodule(name.rpartition(".")[0]) is not output


def depths(model: Any) -> tuple[Mapping[str, int], int]:
    """How many layers lie below each parameter, by name, and the head's depth: embeddings 0, the first layer 1."""
    depth_of: dict[int, int] = {}
    layers = layers_of(model)
    for depth, part in [(0, part) for part in embeddings_of(model)] + list(enumerate(layers, start=1)):
        for parameter in part.parameters():
            depth_of.setdefault(id(parameter), depth)
    top = len(layers) + 1
    return {name: depth_of.get(id(parameter), top) for name, parameter in model.named_parameters()}, top


def _network(model: Any) -> Any:
    return model.get_encoder() if getattr(model.config, "is_encoder_decoder", False) else model.base_model


def _children(network: nn.Module, names: Iterable[str]) -> list[nn.Module]:
    found = [getattr(network, name, None) for name in names]
    return [part for part in found if isinstance(part, nn.Module)]
