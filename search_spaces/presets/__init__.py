"""Search spaces to start from, one file for each task and method: `text-classification/full.yaml` and so on.

A preset never searches `epochs`: hyperband decides how long a trial runs, and would refuse it. What fits stands in `trainer`.
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, computed_field

from search_spaces.parameters import Parameter


class Preset(BaseModel):
    """A search space with the settings of the trainer that it belongs to, and where both come from."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    task: str = Field(description="The kind of trainer it is for.", examples=["text-classification"])
    method: str = Field(description="What of the model is trained, and from where.", examples=["full"])
    description: str = Field(min_length=1, description="What it is for.", examples=["Train all weights of an encoder."])
    trainer: Mapping[str, Any] = Field(
        description="Settings of the trainer where a study sets none itself.", examples=[{"epochs": 9, "lora": {"alpha": 16.0}}]
    )
    space: Mapping[str, Parameter] = Field(
        min_length=1,
        description="What varies, as in a study.",
        examples=[{"batch_size": {"kind": "categorical", "choices": [16, 32]}}],
    )
    sources: Mapping[str, tuple[str, ...]] = Field(
        description="The literature behind each parameter of `space`.",
        examples=[{"batch_size": ["Devlin et al. 2019 (BERT), appendix A.3"]}],
    )

    @computed_field(description="What a study calls it.", examples=["text-classification/full"])  # type: ignore[prop-decorator]
    @property
    def name(self) -> str:
        """Its task and its method."""
        return f"{self.task}/{self.method}"


@cache
def presets() -> Mapping[str, Preset]:
    """All presets by name, in the order of their names."""
    texts = [
        file.read_text(encoding="utf-8")
        for folder in files(__name__).iterdir()
        if folder.is_dir()
        for file in folder.iterdir()
        if file.name.endswith(".yaml")
    ]
    found = [_read(text) for text in texts]
    return {preset.name: preset for preset in sorted(found, key=lambda preset: preset.name)}


def _read(text: str) -> Preset:
    # By JSON's rules a list is a tuple where one is asked for; Python's strict ones refuse it.
    return Preset.model_validate_json(json.dumps(yaml.safe_load(text)))
