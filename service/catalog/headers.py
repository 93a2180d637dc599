"""What a model's files say about it, read without loading it: the configuration, the weights' headers, the tokenizer."""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.domain.errors import UnusableModel

ENCODERS = frozenset(
    {
        "albert", "bert", "camembert", "data2vec-text", "deberta", "deberta-v2", "distilbert", "electra", "ernie",
        "ibert", "megatron-bert", "mobilebert", "modernbert", "mpnet", "rembert", "roberta",
        "roberta-prelayernorm", "roformer", "squeezebert", "xlm-roberta", "xlm-roberta-xl",
    }
)  # fmt: skip
"""Values of `model_type` that can be fine-tuned: one stack of layers over embeddings, with a head in transformers."""

_POSITIONS_AFTER_PADDING = frozenset(
    {"camembert", "data2vec-text", "ibert", "mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl"}
)
"""These count positions from the padding token's number on, so the first ones are never used."""

_TOKENIZERS = (
    frozenset({"tokenizer.json"}),
    frozenset({"vocab.txt"}),
    frozenset({"vocab.json", "merges.txt"}),
    frozenset({"tokenizer.model"}),
    frozenset({"sentencepiece.bpe.model"}),
    frozenset({"spiece.model"}),
    frozenset({"spm.model"}),
)
"""Files that make a tokenizer, any of these sets."""

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_SHARD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors")
_LENGTH_BYTES = 8
_LONGEST_HEADER = 100_000_000
"""What the safetensors library accepts, in bytes."""


@dataclass(frozen=True)
class ModelHeader:
    """What a study has to respect of its base model; None where the model does not say.

    `layers` counts those that can be frozen, `longest` the tokens of the longest text.
    """

    model_type: str
    layers: int | None
    longest: int | None


def read_header(name: str, folder: Path) -> ModelHeader:
    """The header of the model `name` in a folder. Raises UnusableModel for one that cannot be fine-tuned."""
    try:
        files = {path.name for path in folder.iterdir() if path.is_file()}
        config = read_json(name, folder / "config.json") if "config.json" in files else None
        header = header_of(name, config, files)
        for shard in _shards(name, folder, files):
            _check_weights(name, folder / shard)
    except OSError as error:
        raise UnusableModel(f"the files of {name!r} cannot be read: {error.strerror or error}") from error
    return header


def header_of(name: str, config: Mapping[str, Any] | None, files: Collection[str]) -> ModelHeader:
    """The same from its configuration and the names of its files. Raises UnusableModel."""
    if config is None:
        raise UnusableModel(f"{name!r} has no config.json: name a model that transformers can load")
    _check_code(name, config)
    _check_files(name, frozenset(files))
    return ModelHeader(model_type=config["model_type"], layers=_layers(config), longest=_longest(config))


def _check_code(name: str, config: Mapping[str, Any]) -> None:
    model_type = config.get("model_type")
    if config.get("auto_map"):
        raise UnusableModel(f"{name!r} brings code of its own (`auto_map`), which is never run here: name another model")
    if config.get("quantization_config"):
        raise UnusableModel(f"the weights of {name!r} are quantised: name the model that they were made from")
    if not isinstance(model_type, str) or model_type not in ENCODERS:
        listed = ", ".join(sorted(ENCODERS))
        raise UnusableModel(f"{name!r} is of the type {model_type!r}: name an encoder, one of {listed}")


def _check_files(name: str, files: frozenset[str]) -> None:
    if not files & {_WEIGHTS, _INDEX}:
        pickled = any(file.endswith((".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack")) for file in files)
        if pickled:
            raise UnusableModel(f"{name!r} has no {_WEIGHTS}: only safetensors are read, so convert its weights")
        raise UnusableModel(f"{name!r} has no weights: it needs {_WEIGHTS}")
    if not any(needed <= files for needed in _TOKENIZERS):
        raise UnusableModel(f"{name!r} has no tokenizer: it needs tokenizer.json, or vocab.txt, or vocab.json and merges.txt")


def _layers(config: Mapping[str, Any]) -> int | None:
    if config.get("model_type") == "albert":
        # All layers of a group share their weights, so groups are what can be frozen.
        return _whole(config.get("num_hidden_groups", 1))
    return next((_whole(config[key]) for key in ("num_hidden_layers", "n_layers", "num_layers") if key in config), None)


def _longest(config: Mapping[str, Any]) -> int | None:
    positions = _whole(config.get("max_position_embeddings"))
    if positions is None or positions < 1:  # some with relative positions say -1
        return None
    if config.get("model_type") in _POSITIONS_AFTER_PADDING:
        padding = _whole(config.get("pad_token_id"))
        return positions - (1 if padding is None else padding) - 1
    return positions


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def read_json(name: str, path: Path) -> dict[str, Any]:
    """A JSON object among the files of the model `name`. Raises UnusableModel, OSError."""
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UnusableModel(f"{path.name} of {name!r} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise UnusableModel(f"{path.name} of {name!r} is no JSON object")
    return value


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


def _check_weights(name: str, path: Path) -> None:
    """A safetensors file: a header's length (8 bytes, little end first), the header (JSON), the tensors."""
    size = path.stat().st_size
    cut_short = UnusableModel(f"{path.name} of {name!r} is cut short or no safetensors file: download the model again")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if size < _LENGTH_BYTES or not 1 < length <= min(size - _LENGTH_BYTES, _LONGEST_HEADER):
            raise cut_short
        raw = file.read(length)
    try:
        tensors = json.loads(raw)
        ends = [tensor["data_offsets"][1] for key, tensor in tensors.items() if key != "__metadata__"]
        whole = bool(ends) and max(ends) == size - _LENGTH_BYTES - length
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError, IndexError) as error:
        raise cut_short from error
    if not whole:
        raise cut_short
