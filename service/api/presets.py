"""Presets: search spaces to start from. A study names one as `space: {preset: TASK/METHOD}`."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field

from search_spaces import Parameter
from search_spaces.presets import Preset, presets
from service.api.problems import documented
from service.domain import errors
from service.domain.presets import preset_named

router = APIRouter(tags=["studies"])

_WORD = {"pattern": r"^[a-z0-9-]{1,100}$"}
Task = Annotated[str, Path(description="The kind of trainer.", examples=["text-classification"], json_schema_extra=_WORD)]
Method = Annotated[
    str, Path(description="What of the model is trained, and from where.", examples=["full"], json_schema_extra=_WORD)
]


class PresetView(BaseModel):
    """A search space to start from, and where its ranges come from."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str = Field(description="What a study calls it: `space: {preset: NAME}`.", examples=["text-classification/full"])
    task: str = Field(description="The kind of trainer it is for.", examples=["text-classification"])
    method: str = Field(description="What of the model is trained, and from where.", examples=["full"])
    description: str = Field(description="What it is for.", examples=["Train all weights of an encoder and a new head."])
    trainer: Mapping[str, Any] = Field(
        description="Settings of the trainer where a study sets none itself.", examples=[{"epochs": 9, "warmup_fraction": 0.1}]
    )
    space: Mapping[str, Parameter] = Field(
        description="What varies; a study's own keys come before it, and null takes one out.",
        examples=[{"batch_size": {"kind": "categorical", "choices": [16, 32]}}],
    )
    sources: Mapping[str, tuple[str, ...]] = Field(
        description="The literature behind each parameter.",
        examples=[{"batch_size": ["Devlin et al. 2019 (BERT), appendix A.3"]}],
    )

    @classmethod
    def of(cls, preset: Preset) -> "PresetView":
        return cls(
            name=preset.name, task=preset.task, method=preset.method, description=preset.description, trainer=preset.trainer,
            space=preset.space, sources=preset.sources,
        )  # fmt: skip


class PresetsView(BaseModel):
    """All presets there are."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    presets: Sequence[PresetView] = Field(description="Presets, by name.")


@router.get("/v1/presets", operation_id="listPresets", summary="List presets", response_description="All presets.")
def list_presets() -> PresetsView:
    """Search spaces to start from, for each kind of trainer and each method of training."""
    return PresetsView(presets=[PresetView.of(preset) for preset in presets().values()])


@router.get(
    "/v1/presets/{task}/{method}",
    operation_id="getPreset",
    summary="Get a preset",
    response_description="The preset.",
    responses=documented(errors.NotFound),
)
def get_preset(task: Task, method: Method) -> PresetView:
    """One preset, with the literature behind each of its ranges."""
    return PresetView.of(preset_named(task, method))
