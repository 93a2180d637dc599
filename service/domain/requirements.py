"""What a study asks of its base model."""

from pydantic import BaseModel, ConfigDict, Field


class Requirements(BaseModel):
    """Limits on base models: one outside of them is refused when the study is POSTed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    licences: tuple[str, ...] = Field(
        default=(),
        max_length=100,
        description="Licences that a base model may have, as cards write them; left out, any. A model without one is refused.",
        examples=[["apache-2.0", "mit"]],
    )
    most_parameters: int | None = Field(
        default=None, ge=1, le=10**15, description="Most parameters of a base model.", examples=[50_000_000]
    )
    most_megabytes: float | None = Field(
        default=None, gt=0, le=1e12, description="Most megabytes (of 1,000,000 bytes) of its weights on disk.", examples=[200]
    )
