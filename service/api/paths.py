"""Path parameters that several routes share. What cannot be an id is simply not found."""

import re
from typing import Annotated

from fastapi import Path
from pydantic import AfterValidator
from starlette.convertors import Convertor, register_url_convertor

from service.domain.errors import StudyNotFound

_STUDY_ID = r"^[a-z0-9-]{1,60}$"
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


def _known_form(study_id: str) -> str:
    if not re.fullmatch(_STUDY_ID, study_id):
        raise StudyNotFound(study_id)
    return study_id


register_url_convertor("study_id", _StudyIdConvertor())
register_url_convertor("trial_number", _TrialNumberConvertor())

STUDY = "/v1/studies/{study_id:study_id}"
TRIAL = STUDY + "/trials/{number:trial_number}"

StudyId = Annotated[
    str,
    AfterValidator(_known_form),
    Path(description="The study's id.", examples=["intents-abc123"], json_schema_extra={"pattern": _STUDY_ID}),
]
TrialNumber = Annotated[
    int,
    Path(
        description="The trial's number within the study.", examples=[7],
        json_schema_extra={"minimum": 0, "maximum": MAX_TRIAL_NUMBER},
    ),
]  # fmt: skip
