"""Path parameters that several routes share. What cannot be an id is simply not found."""

import re
from collections.abc import Callable
from typing import Annotated

from fastapi import Path
from pydantic import AfterValidator
from starlette.convertors import Convertor, register_url_convertor

from service.domain.access import PROJECT_PATTERN
from service.domain.errors import NotFound, ProjectNotFound, StudyNotFound, TokenNotFound

_STUDY_ID = r"^[a-z0-9-]{1,60}$"
_TOKENS_ID = r"^[a-z0-9]{1,40}$"
_MOST_SHOWN = 80
"""Characters of what somebody sent, where the answer repeats it."""
MAX_TRIAL_NUMBER = 999_999_999


class _StudyIdConvertor(Convertor[str]):
    """One segment without a colon, which parts an id from a verb: `/v1/studies/intents-abc123:stop`."""

    regex = "[^/:]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


class _TrialNumberConvertor(Convertor[int]):
    """As many digits as any trial number can have."""

    regex = "[0-9]{1,9}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


def _of_form(pattern: str, not_found: Callable[[str], NotFound]) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise not_found(value[:_MOST_SHOWN])
        return value

    return AfterValidator(check)


register_url_convertor("study_id", _StudyIdConvertor())
register_url_convertor("trial_number", _TrialNumberConvertor())

STUDY = "/v1/studies/{study_id:study_id}"
TRIAL = STUDY + "/trials/{number:trial_number}"

StudyId = Annotated[
    str,
    _of_form(_STUDY_ID, StudyNotFound),
    Path(description="The study's id.", examples=["intents-abc123"], json_schema_extra={"pattern": _STUDY_ID}),
]
TokenId = Annotated[
    str,
    _of_form(_TOKENS_ID, TokenNotFound),
    Path(description="The token's id.", examples=["k3v9x2ab"], json_schema_extra={"pattern": _TOKENS_ID}),
]
ProjectName = Annotated[
    str,
    _of_form(PROJECT_PATTERN, ProjectNotFound),
    Path(description="The project's name.", examples=["vision"], json_schema_extra={"pattern": PROJECT_PATTERN}),
]
TrialNumber = Annotated[
    int,
    Path(
        description="The trial's number within the study.", examples=[7],
        json_schema_extra={"minimum": 0, "maximum": MAX_TRIAL_NUMBER},
    ),
]  # fmt: skip
