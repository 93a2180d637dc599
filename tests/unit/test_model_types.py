"""The lists of architectures against the installed transformers, which the light processes never import."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
)
from transformers.models.auto import modeling_auto

from service.catalog.architectures import ARCHITECTURES, SCHEME, architecture_header
from service.catalog.headers import DECODERS, ENCODER_DECODERS, ENCODERS, IMAGE_MODELS, MODEL_TYPES, header_of
from trainers.configs import CONFIGS
from trainers.freezing import layers_of

NOT_WHOLE_BY_DEFAULT: Mapping[str, Mapping[str, Any]] = {
    "deit": {"architectures": ["DeiTForImageClassification"]},
    "ministral": {"head_dim": 128},
    "nemotron": {"num_key_value_heads": 48},
}
"""What published configurations say and the defaults leave out."""


@pytest.mark.parametrize(
    ("types", "mapping"),
    [
        (ENCODERS, modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES),
        (ENCODERS, modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES),
        (DECODERS, modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
        (ENCODER_DECODERS, modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES),
        (IMAGE_MODELS, modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES),
    ],
)
def test_every_architecture_has_the_head_that_its_trainer_needs(types: frozenset[str], mapping: Mapping[str, str]) -> None:
    assert sorted(types - set(mapping)) == []


def test_every_trainer_has_its_architectures() -> None:
    assert set(MODEL_TYPES) == {kind for kind, config in CONFIGS.items() if "model" in config.model_fields}


@pytest.mark.parametrize(
    ("model_type", "head"),
    [
        *((one, AutoModelForSequenceClassification) for one in sorted(ENCODERS)),
        *((one, AutoModelForCausalLM) for one in sorted(DECODERS)),
        *((one, AutoModelForSeq2SeqLM) for one in sorted(ENCODER_DECODERS)),
        *((one, AutoModelForImageClassification) for one in sorted(IMAGE_MODELS)),
    ],
)
def test_every_architecture_is_made_with_what_is_installed_and_has_as_many_layers_as_its_header_says(
    model_type: str, head: Any
) -> None:
    config: Any = AutoConfig.for_model(model_type, **NOT_WHOLE_BY_DEFAULT.get(model_type, {}))
    with torch.device("meta"):
        model = head.from_config(config)
    said = header_of(model_type, {**config.to_dict(), "model_type": model_type}, {"model.safetensors", "tokenizer.json"})
    assert said.layers in {None, len(layers_of(model))}


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_a_built_in_architecture_has_the_parameters_and_layers_it_says(name: str) -> None:
    architecture = ARCHITECTURES[name]
    settings = dict(architecture.config)
    model = AutoModelForImageClassification.from_config(AutoConfig.for_model(settings.pop("model_type"), **settings))
    assert sum(parameter.numel() for parameter in model.parameters()) == architecture.parameters
    assert architecture_header(f"{SCHEME}{name}").layers == len(layers_of(model))
    side = architecture.image_size
    assert model(pixel_values=torch.rand(2, 3, side, side)).logits.shape == (2, 2)
