"""What a model's files say about it, read without loading it: the configuration, the weights' headers, the tokenizer."""

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from service.domain.base_models import ModelHeader
from service.domain.errors import UnusableModel

__all__ = [
    "DECODERS", "ENCODERS", "ENCODER_DECODERS", "IMAGE_MODELS", "MODEL_TYPES", "ModelHeader", "Weights", "check_json_size",
    "header_of", "kinds_of", "read_header", "read_json",
]  # fmt: skip

ENCODERS = frozenset(
    {
        "albert", "bert", "camembert", "convbert", "data2vec-text", "deberta", "deberta-v2", "distilbert", "electra", "ernie",
        "eurobert", "ibert", "megatron-bert", "mobilebert", "modernbert", "mpnet", "nomic_bert", "rembert", "roberta",
        "roberta-prelayernorm", "roformer", "squeezebert", "xlm-roberta", "xlm-roberta-xl",
    }
)  # fmt: skip
"""Values of `model_type` with one stack of layers over embeddings, and heads for whole texts and for words in transformers."""

DECODERS = frozenset(
    {
        "arcee", "biogpt", "bloom", "cohere", "cohere2", "ernie4_5", "exaone4", "falcon", "gemma", "gemma2", "gemma3_text", "glm",
        "glm4", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gptj", "granite", "helium", "llama", "ministral", "mistral", "mpt",
        "nemotron", "olmo", "olmo2", "olmo3", "openai-gpt", "opt", "persimmon", "phi", "phi3", "qwen2", "qwen3", "seed_oss",
        "smollm3", "stablelm", "starcoder2", "xglm",
    }
)  # fmt: skip
"""Those that write text from left to right."""

ENCODER_DECODERS = frozenset(
    {
        "bart", "blenderbot", "blenderbot-small", "longt5", "m2m_100", "marian", "mbart", "mt5", "mvp", "pegasus", "pegasus_x",
        "plbart", "t5", "umt5",
    }
)  # fmt: skip
"""Those that read one text and write another."""

IMAGE_MODELS = frozenset(
    {
        "beit", "bit", "convnext", "convnextv2", "cvt", "data2vec-vision", "deit", "dinov2", "dinov2_with_registers",
        "efficientnet", "focalnet", "ijepa", "mobilenet_v1", "mobilenet_v2", "mobilevit", "mobilevitv2", "poolformer", "pvt_v2",
        "regnet", "resnet", "segformer", "swin", "swinv2", "vit", "vit_msn",
    }
)  # fmt: skip
"""Those that look at images, and need neither torchvision nor timm."""

MODEL_TYPES: Mapping[str, frozenset[str]] = {
    "text-classification": ENCODERS,
    "token-classification": ENCODERS,
    "causal-lm": DECODERS,
    "seq2seq": ENCODER_DECODERS,
    "image-classification": IMAGE_MODELS,
}
"""What each kind of trainer can train."""

_POSITIONS_AFTER_PADDING = frozenset(
    {"camembert", "data2vec-text", "ibert", "mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl"}
)
"""These count positions from the padding token's number on, so the first ones are never used."""

_ANY_LENGTH = frozenset({"t5", "mt5", "umt5", "longt5", "bloom"})
"""Their positions are relative; what their configurations say of a length is that of pretraining."""

_TOKENIZERS = (
    frozenset({"tokenizer.json"}),
    frozenset({"vocab.txt"}),
    frozenset({"vocab.json", "merges.txt"}),
    frozenset({"tokenizer.model"}),
    frozenset({"sentencepiece.bpe.model"}),
    frozenset({"spiece.model"}),
    frozenset({"spm.model"}),
    frozenset({"vocab.json", "source.spm", "target.spm"}),
)
"""Files that make a tokenizer, any of these sets."""

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_ADAPTER = "adapter_config.json"
_SHARD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors")
_KERNELS = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal", "experts_implementation")
"""Keys of a configuration that may name a repository of compiled code."""
_LENGTH_BYTES = 8
_LONGEST_HEADER = 25_000_000
"""In bytes: four times that of the largest models there are, and in memory it takes ten times as much."""
_LARGEST_CONFIG_BYTES = 10_000_000
_LARGEST_NUMBER = 2**40
_MOST_SIDES = 16
_SHORTEST = 4
"""Tokens; what is said to take fewer says nothing."""
_MOST_STAGES = 20
_SHOWN_TYPES = 4
_DEFAULT_IMAGE_SIZE = 224
_FIRST_STRIDE = 4
"""By how much the first stage of a network in stages makes an image smaller; each further one halves it."""


@dataclass(frozen=True)
class Weights:
    """What is known of a model's weights."""

    parameters: int | None = None
    bytes: int | None = None
    dtype: str | None = None


def read_header(name: str, folder: Path, *, weights: bool = True) -> ModelHeader:
    """The header of the model `name` in a folder. Raises UnusableModel for one that cannot be fine-tuned.

    `weights` False needs none, which is enough for a training from random ones.
    """
    try:
        found = [(path.name, path.stat()) for path in folder.iterdir() if path.is_file()]
        seen = tuple((file, stat.st_size, stat.st_mtime_ns) for file, stat in found)
        return _read_header(name, folder, seen, weights=weights)
    except OSError as error:
        raise UnusableModel(f"the files of {name!r} cannot be read: {error.strerror or error}") from error


@lru_cache(maxsize=1000)
def _read_header(name: str, folder: Path, seen: tuple[tuple[str, int, int], ...], *, weights: bool) -> ModelHeader:
    """Once while the files, which are `seen` with their sizes and times, stay as they are."""
    files = {file for file, _, _ in seen}
    config = read_json(name, folder / "config.json") if "config.json" in files else None
    header = header_of(name, config, files, weights=weights)
    if not weights and not files & {_WEIGHTS, _INDEX}:
        return header
    return with_weights(header, _summed([_read_weights(name, folder / shard) for shard in _shards(name, folder, files)]))


def header_of(
    name: str, config: Mapping[str, Any] | None, files: Collection[str], *, weights: bool = True
) -> ModelHeader:  # fmt: skip
    """The same from its configuration and the names of its files. Raises UnusableModel."""
    if config is None:
        raise UnusableModel(f"{name!r} has no config.json: name a model that transformers can load")
    _check_code(name, config)
    if _ADAPTER in files:
        raise UnusableModel(
            f"{name!r} holds an adapter ({_ADAPTER}), which names another model: merge the two, and name the result"
        )
    model_type = config["model_type"]
    kinds = kinds_of(model_type)
    if weights:
        _check_weight_files(name, frozenset(files))
    if model_type not in IMAGE_MODELS and not any(needed <= frozenset(files) for needed in _TOKENIZERS):
        raise UnusableModel(f"{name!r} has no tokenizer: it needs tokenizer.json, or vocab.txt, or vocab.json and merges.txt")
    return ModelHeader(
        model_type=model_type,
        kinds=kinds,
        layers=_layers(config),
        longest=_longest(config),
        hidden_size=_hidden_size(config),
        heads=_first_whole(config, "num_attention_heads", "n_head", "num_heads", "n_heads", "encoder_attention_heads"),
        vocabulary=None if model_type in IMAGE_MODELS else _first_whole(config, "vocab_size"),
        image_size=_image_size(config) if model_type in IMAGE_MODELS else None,
        image_values=_image_values(config) if model_type in IMAGE_MODELS else None,
        dtype=_text(config.get("dtype")) or _text(config.get("torch_dtype")),
    )


def with_weights(header: ModelHeader, weights: Weights) -> ModelHeader:
    """The header with what is known of the weights."""
    return replace(
        header, parameters=weights.parameters, weights_bytes=weights.bytes, dtype=weights.dtype or header.dtype
    )  # fmt: skip


def kinds_of(model_type: str) -> frozenset[str]:
    """The trainers that can train models of this type."""
    return frozenset(kind for kind, types in MODEL_TYPES.items() if model_type in types)


def read_json(name: str, path: Path) -> dict[str, Any]:
    """A JSON object among the files of the model `name`. Raises UnusableModel, OSError."""
    check_json_size(name, path.name, path.stat().st_size)
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UnusableModel(f"{path.name} of {name!r} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise UnusableModel(f"{path.name} of {name!r} is no JSON object")
    return value


def check_json_size(name: str, file: str, size: int) -> None:
    """Raise UnusableModel for a JSON file among those of the model `name` that is too large to be one."""
    if size > _LARGEST_CONFIG_BYTES:
        raise UnusableModel(f"{file} of {name!r} is too large to be one: download the model again")


def _check_code(name: str, config: Mapping[str, Any]) -> None:
    model_type = config.get("model_type")
    if config.get("auto_map"):
        raise UnusableModel(f"{name!r} brings code of its own (`auto_map`), which is never run here: name another model")
    foreign = [key for key in _KERNELS if "/" in json.dumps(config.get(key))]
    if foreign:
        raise UnusableModel(
            f"{name!r} asks for code of the hub (`{foreign[0]}`), which is never run here: take that out of its config.json"
        )
    if config.get("quantization_config"):
        raise UnusableModel(f"the weights of {name!r} are quantised: name the model that they were made from")
    if not isinstance(model_type, str) or not kinds_of(model_type):
        shown = "; ".join(
            f"`{kind}` takes {', '.join(sorted(types)[:_SHOWN_TYPES])} and {len(types) - _SHOWN_TYPES} more"
            for kind, types in MODEL_TYPES.items()
        )
        raise UnusableModel(f"{name!r} is of the type {model_type!r}, which no trainer here can train: {shown}")


def _check_weight_files(name: str, files: frozenset[str]) -> None:
    if files & {_WEIGHTS, _INDEX}:
        return
    pickled = any(file.endswith((".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack")) for file in files)
    if pickled:
        raise UnusableModel(f"{name!r} has no {_WEIGHTS}: only safetensors are read, so convert its weights")
    raise UnusableModel(
        f"{name!r} has no weights: it needs {_WEIGHTS}, or `initialisation: random` to train its architecture from the start"
    )


def _layers(config: Mapping[str, Any]) -> int | None:
    model_type = config["model_type"]
    if model_type == "albert":
        # All layers of a group share their weights, so groups are what can be frozen.
        return _whole(config.get("num_hidden_groups", 1))
    if model_type == "efficientnet":  # what it calls hidden layers is four times its blocks
        return None
    if model_type in IMAGE_MODELS:
        stages = _stages(config)
        return _first_whole(config, "num_hidden_layers") if stages is None else len(stages)
    names = ("num_hidden_layers", "n_layers", "num_layers", "n_layer")
    return _first_whole(config, *(("encoder_layers", "num_layers") if model_type in ENCODER_DECODERS else ()), *names)


def _stages(config: Mapping[str, Any]) -> list[int] | None:
    """How many layers each stage of a network in stages has."""
    found = config.get("depth") if config["model_type"] == "cvt" else config.get("depths")
    if not isinstance(found, list) or not 0 < len(found) <= _MOST_STAGES:
        return None
    depths = [_whole(depth) for depth in found]
    return [depth for depth in depths if depth is not None] if None not in depths else None


def _longest(config: Mapping[str, Any]) -> int | None:
    model_type = config["model_type"]
    if model_type in IMAGE_MODELS or model_type in _ANY_LENGTH:
        return None
    positions = _first_whole(config, "max_position_embeddings", "n_positions", "max_seq_len")
    if positions is not None and model_type in _POSITIONS_AFTER_PADDING:
        padding = config.get("pad_token_id")
        positions -= (padding if type(padding) is int and padding >= 0 else 1) + 1
    return positions if positions is not None and positions >= _SHORTEST else None


def _hidden_size(config: Mapping[str, Any]) -> int | None:
    widths = config.get("hidden_sizes")
    if isinstance(widths, list) and widths:
        return _whole(widths[-1])
    return _first_whole(config, "hidden_size", "d_model", "n_embd", "dim")


def _image_size(config: Mapping[str, Any]) -> int | None:
    size: Any = config.get("image_size")
    return _whole(size[0] if isinstance(size, list) and size else size)


def _image_values(config: Mapping[str, Any]) -> int | None:
    """The numbers that all layers together put out for one image; None where the configuration does not tell."""
    side = _image_size(config) or _DEFAULT_IMAGE_SIZE
    depths = _stages(config)
    if depths is None:
        layers, hidden, patch = (_first_whole(config, key) for key in ("num_hidden_layers", "hidden_size", "patch_size"))
        return layers * hidden * ((side // patch) ** 2 + 1) if layers and hidden and patch else None
    widths = config.get("hidden_sizes")
    first = _first_whole(config, "embed_dim")
    if first is not None:
        widths = [first << stage for stage in range(len(depths))]
    if not isinstance(widths, list) or len(widths) != len(depths) or any(_whole(width) is None for width in widths):
        return None
    sides = [max(1, side // (_FIRST_STRIDE << stage)) for stage in range(len(depths))]
    return sum(int(depth) * int(width) * at**2 for depth, width, at in zip(depths, widths, sides, strict=True))


def _first_whole(config: Mapping[str, Any], *names: str) -> int | None:
    return next((_whole(config[name]) for name in names if _whole(config.get(name)) is not None), None)


def _whole(value: Any) -> int | None:
    return value if type(value) is int and 1 <= value < _LARGEST_NUMBER else None  # some say -1 for what has no limit


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _shards(name: str, folder: Path, files: Collection[str]) -> list[str]:
    if _WEIGHTS in files:
        return [_WEIGHTS]
    parts = read_json(name, folder / _INDEX).get("weight_map")
    shards = sorted({str(shard) for shard in parts.values()}) if isinstance(parts, dict) else []
    if not shards:
        raise UnusableModel(f"{_INDEX} of {name!r} names no weights: download the model again")
    for shard in shards:
        if not _SHARD.fullmatch(shard) or shard not in files:
            raise UnusableModel(f"the weights of {name!r} lack {shard!r}: download the model again")
    return shards


def _read_weights(name: str, path: Path) -> tuple[Counter[str], int]:
    """A safetensors file: a header's length (8 bytes, little end first), the header (JSON), the tensors.

    Answers how many numbers there are of each number format, and the file's size.
    """
    size = path.stat().st_size
    cut_short = UnusableModel(f"{path.name} of {name!r} is cut short or no safetensors file: download the model again")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if size < _LENGTH_BYTES or not 1 < length <= min(size - _LENGTH_BYTES, _LONGEST_HEADER):
            raise cut_short
        raw = file.read(length)
    try:
        tensors = [tensor for key, tensor in json.loads(raw).items() if key != "__metadata__"]
        ends = [tensor["data_offsets"][1] for tensor in tensors]
        numbers = Counter[str]()
        for tensor in tensors:
            numbers[str(tensor["dtype"])] += _product(tensor["shape"], 2 * size)  # no number format takes less than half a byte
        is_whole = bool(ends) and max(ends) == size - _LENGTH_BYTES - length and numbers.total() <= 2 * size
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError, IndexError) as error:
        raise cut_short from error
    if not is_whole:
        raise cut_short
    return numbers, size


def _product(shape: Any, most: int) -> int:
    """The numbers in a tensor of this shape. Raises ValueError for what is no shape, or of more than `most`."""
    if not isinstance(shape, list) or len(shape) > _MOST_SIDES:
        raise ValueError(shape)
    product = 1
    for side in shape:
        if type(side) is not int or not 0 <= side <= most or product > most:
            raise ValueError(shape)
        product *= side
    return product


def _summed(shards: Collection[tuple[Counter[str], int]]) -> Weights:
    """All shards together. Whole numbers among them, such as the numbers of positions, are no parameters."""
    numbers = Counter[str]()
    for found, _ in shards:
        numbers += Counter({dtype: count for dtype, count in found.items() if "F" in dtype})
    dtype = numbers.most_common(1)[0][0] if numbers else None
    return Weights(numbers.total(), sum(size for _, size in shards), dtype)
