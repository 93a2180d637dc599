"""An uploaded data set: a name and the files under it, and how much of them a project may have."""

import re
from dataclasses import dataclass
from datetime import datetime

from service.domain.errors import QuotaSpent, UnsafePath

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
FORMATS = ("csv", "jsonl", "parquet", "conll", "bio", "zip")
"""Endings of the files that can be uploaded; a zip holds a folder of images for each label."""


@dataclass(frozen=True)
class DatasetFile:
    """One uploaded file. `rows` and `columns` were counted when it came in: sentences of a CoNLL file, images of a zip."""

    dataset: str
    file: str
    bytes: int
    sha256: str
    rows: int
    columns: tuple[str, ...]
    uploaded_at: datetime

    @property
    def uri(self) -> str:
        """What a study definition calls this file."""
        return f"dataset://{self.dataset}/{self.file}"


@dataclass(frozen=True)
class Allowance:
    """What the uploads of a project may come to together; None is not limited."""

    files: int | None = None
    bytes: int | None = None


NO_LIMITS = Allowance()


def over_allowance(held: int, most: int) -> QuotaSpent:
    """What to say of uploads that would come to so many bytes."""
    return QuotaSpent(
        f"With this file the project's uploads would have {held:,} bytes, and its checkpoints leave {max(0, most):,} for them "
        "(max_stored_gb): delete data sets, or studies that have ended."
    )


def check_dataset_name(name: str) -> str:
    """`name` if it can be the name of a data set or of a file in one; raises `UnsafePath`."""
    if not _NAME.fullmatch(name) or ".." in name:
        detail = f"{name!r} cannot be a data set's or file's name: use letters, digits, dot, dash and underscore, at most 100."
        raise UnsafePath(detail)
    return name
