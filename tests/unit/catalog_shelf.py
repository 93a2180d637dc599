"""Models to look at: the files of one, without tensors worth loading, a Hugging Face cache, and a hub that needs no network."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.catalog.cards import parse_card
from service.catalog.headers import Weights
from service.catalog.hub import RemoteModel
from service.domain.errors import ModelNotFound

CONFIG: Mapping[str, Any] = {"model_type": "bert", "num_hidden_layers": 6, "max_position_embeddings": 512}


def weights(tensors: int = 1) -> bytes:
    """A safetensors file of one float a tensor."""
    described = {f"t{at}": {"dtype": "F32", "shape": [1], "data_offsets": [4 * at, 4 * at + 4]} for at in range(tensors)}
    header = json.dumps(described).encode()
    return len(header).to_bytes(8, "little") + header + bytes(4 * tensors)


def write_model(folder: Path, **config: Any) -> Path:
    """The files of a model that can be used; `config` changes its configuration."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    (folder / "model.safetensors").write_bytes(weights())
    (folder / "tokenizer.json").write_text("{}")
    return folder


def write_cached_model(cache: Path, name: str, **config: Any) -> Path:
    """The same as a download from the hub leaves it."""
    repository = cache / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("c0ffee")
    return write_model(repository / "snapshots" / "c0ffee", **config)


@dataclass
class FakeHub:
    """A hub with the models it is given; `asked` and `downloaded` are the names it was asked for."""

    root: Path
    models: Mapping[str, RemoteModel] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    downloaded: list[str] = field(default_factory=list)

    def look(self, name: str) -> RemoteModel:
        self.asked.append(name)
        if name not in self.models:
            raise ModelNotFound(f"the hub could not be reached for {name!r}")
        return self.models[name]

    def download(self, name: str, *, weights: bool = True) -> Path:
        self.downloaded.append(name)
        return write_model(self.root / "downloaded" / name, **(self.look(name).config or {}))


def a_remote_model(*files: str, card: str | None = None, **config: Any) -> RemoteModel:
    there = frozenset({"config.json", "tokenizer.json", *(files or ("model.safetensors",))})
    weights = Weights(parameters=1000, bytes=4000)
    return RemoteModel({**CONFIG, **config}, there, weights, None if card is None else parse_card(card))
