"""Small architectures that come with the service, as `builtin://NAME` models: configurations without weights.

They are for `initialisation: random` alone. Each becomes a folder of the cache when a study first needs it.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from service.catalog.headers import Weights, header_of, with_weights
from service.catalog.locking import only_writer
from service.domain.base_models import FoundModel, ModelCard, ModelHeader, Place
from service.domain.errors import ModelNotFound

SCHEME = "builtin://"

_PREPROCESSOR: Mapping[str, Any] = {
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "ViTImageProcessor",
    "image_std": [0.5, 0.5, 0.5],
    "resample": 2,
    "rescale_factor": 1 / 255,
}


@dataclass(frozen=True)
class Architecture:
    """A configuration. `parameters` counts them with a head for two labels, `image_size` is the side of an image in pixels."""

    config: Mapping[str, Any]
    parameters: int
    image_size: int
    card: str

    @property
    def files(self) -> Mapping[str, str]:
        """The files of the model, by name."""
        size = {"height": self.image_size, "width": self.image_size}
        return {
            "config.json": json.dumps(self.config, indent=1),
            "preprocessor_config.json": json.dumps({**_PREPROCESSOR, "size": size}, indent=1),
        }


ARCHITECTURES: Mapping[str, Architecture] = {
    "resnet-small": Architecture(
        config={
            "model_type": "resnet", "architectures": ["ResNetForImageClassification"], "num_channels": 3, "embedding_size": 32,
            "hidden_sizes": [32, 64, 128, 128], "depths": [2, 2, 2, 1], "layer_type": "basic", "hidden_act": "relu",
            "image_size": 32,
        },
        parameters=1_011_490,
        image_size=32,
        card="A residual network of four stages (He et al. 2016) for images of 32 to 64 pixels.",
    ),
    "vit-small": Architecture(
        config={
            "model_type": "vit", "architectures": ["ViTForImageClassification"], "num_channels": 3, "image_size": 32,
            "patch_size": 4, "hidden_size": 128, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 384,
            "hidden_act": "gelu", "qkv_bias": True,
        },
        parameters=1_007_490,
        image_size=32,
        card="A vision transformer of six layers (Dosovitskiy et al. 2021) over patches of 4 by 4 pixels, for 32-pixel images.",
    ),
}  # fmt: skip
"""By name."""


def is_builtin(name: str) -> bool:
    """Whether the name is meant to be one of these."""
    return name.startswith(SCHEME)


def find_architecture(name: str) -> Architecture:
    """The architecture of `builtin://NAME`. Raises ModelNotFound."""
    found = ARCHITECTURES.get(name.removeprefix(SCHEME))
    if found is None:
        listed = " and ".join(f"{SCHEME}{one}" for one in ARCHITECTURES)
        raise ModelNotFound(f"there is no built-in model {name!r}: there are {listed}")
    return found


def architecture_header(name: str) -> ModelHeader:
    """Its header. Raises ModelNotFound."""
    architecture = find_architecture(name)
    header = header_of(name, architecture.config, architecture.files, weights=False)
    return with_weights(header, Weights(parameters=architecture.parameters))


def described_architecture(name: str) -> FoundModel:
    """What there is to say of it. Raises ModelNotFound."""
    card = find_architecture(name).card
    return FoundModel(name, Place.BUILTIN, architecture_header(name), ModelCard(licence="apache-2.0", characters=len(card)))


def write_architecture(name: str, cache: Path) -> Path:
    """Its folder, made at first use. Raises ModelNotFound."""
    files = find_architecture(name).files
    key = sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:12]
    folder = cache / f"{name.removeprefix(SCHEME)}-{key}"
    if not folder.is_dir():
        with only_writer(cache):
            if not folder.is_dir():
                temporary = folder.with_name(f".{folder.name}")
                shutil.rmtree(temporary, ignore_errors=True)
                temporary.mkdir()
                for file, content in files.items():
                    (temporary / file).write_text(content)
                temporary.rename(folder)
    return folder
