"""Base models: what each is like, and which does best on one's own rows."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query

from service.api.dependencies import Parts
from service.api.model_views import CandidatesView, CandidateView, MemoryView, ModelView
from service.api.problems import InvalidParameters, documented
from service.api.schemas import ViolationView
from service.domain import errors
from service.domain.base_models import FoundModel, Place, Probed, ProbeRows
from service.domain.memory import Method, memory_need

router = APIRouter(tags=["models"])

Task = Literal["text-classification", "token-classification", "causal-lm", "seq2seq", "image-classification"]

_MOST_NAMES = 50
_LONGEST_NAME = 300
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
_ROWS = rf"^(dataset://{_NAME}/{_NAME}|builtin://{_NAME}(/{_NAME})?)$"


@dataclass(frozen=True)
class _Ranking:
    """How models for a task are ranked: by which metric, in which order, and what its columns are called by default."""

    metric: str
    highest_first: bool
    columns: Mapping[str, str]


_RANKINGS: Mapping[str, _Ranking] = {
    "text-classification": _Ranking("accuracy", highest_first=True, columns={"text": "text", "label": "label"}),
    "token-classification": _Ranking("f1", highest_first=True, columns={"text": "tokens", "label": "tags"}),
    "causal-lm": _Ranking("bits_per_byte", highest_first=False, columns={"text": "text"}),
    "seq2seq": _Ranking("bits_per_byte", highest_first=False, columns={"text": "source", "label": "target"}),
    "image-classification": _Ranking("accuracy", highest_first=True, columns={"text": "image", "label": "label"}),
}


@router.get(
    "/v1/models",
    operation_id="listModels",
    summary="List and rank base models",
    response_description="The models.",
    responses=documented(
        errors.DatasetNotFound, errors.InvalidQuery, errors.UnreadableDataset, errors.ModelNotFound, errors.UnusableModel,
        InvalidParameters, errors.NotReady,
    ),
)  # fmt: skip
def list_models(
    parts: Parts,
    task: Annotated[
        Task | None, Query(description="Only models that this kind of trainer can train.", examples=["text-classification"])
    ] = None,
    dataset: Annotated[
        str | None,
        Query(
            max_length=300, json_schema_extra={"pattern": _ROWS}, examples=["dataset://banking77/train.csv"],
            description="Rows to try the models on: an uploaded file, or a split of a built-in data set, whose name alone means "
            "its training rows.",
        ),
    ] = None,
    text: Annotated[
        str | None,
        Query(
            min_length=1, max_length=200, examples=["text"],
            description="Column to read: the text, the words (`tokens` when left out), the source or the image.",
        ),
    ] = None,
    label: Annotated[
        str | None,
        Query(
            min_length=1, max_length=200, examples=["category"],
            description="Column to predict: the label, the words' tags (`tags` when left out) or the target.",
        ),
    ] = None,
    models: Annotated[
        list[str] | None,
        Query(
            max_length=_MOST_NAMES, examples=[["sentence-transformers/all-MiniLM-L6-v2"]],
            description="Only these; may be repeated. Left out, all that are on this machine.",
        ),
    ] = None,
) -> CandidatesView:  # fmt: skip
    """Base models on this machine: nothing is downloaded. With rows, each is tried on up to 1,000 of them as it is.

    For classification a linear model is fitted to what the frozen network makes of the rows, and scored on a fifth of them (or
    in five folds where there are fewer than 500). Language models are ranked by bits per byte of up to 200 rows. That takes
    seconds for each model; meanwhile the answer is 503 with `Retry-After`, and once it is known it comes at once.
    """
    found = _chosen(parts.models.here(), models, task)
    if dataset is None:
        if text is not None or label is not None:
            raise errors.InvalidQuery("`text` and `label` name columns of a data set: name the data set too, as `dataset`.")
        return CandidatesView(task=task, dataset=None, metric=None, models=[CandidateView.of(one) for one in found])
    rows = _rows(dataset)
    if task is None:
        raise errors.InvalidQuery("What the rows are for is not said: name a kind of trainer as `task`.")
    ranking = _RANKINGS[task]
    given = {role: column for role, column in (("text", text), ("label", label)) if column is not None}
    if not given.keys() <= ranking.columns.keys():
        raise errors.InvalidQuery(f"`{task}` reads plain texts and predicts no column: leave out `label`.")
    tried = [one.name for one in found if one.place is not Place.BUILTIN]
    probed = parts.models.probe(task, ProbeRows(rows, {**ranking.columns, **given}), tried)
    return CandidatesView(task=task, dataset=rows, metric=ranking.metric, models=_ranked(found, probed, ranking))


@router.get(
    "/v1/models/{name:path}",
    operation_id="getModel",
    summary="Get a base model",
    response_description="The model.",
    responses=documented(errors.NotFound, errors.UnusableModel, InvalidParameters),
)
def get_model(
    name: Annotated[
        str,
        Path(
            description="What a study calls it: a name on the Hugging Face hub, a folder under a model root, or `builtin://NAME`.",
            examples=["sentence-transformers/all-MiniLM-L6-v2"], json_schema_extra={"minLength": 1, "maxLength": _LONGEST_NAME},
        ),
    ],
    parts: Parts,
    batch_size: Annotated[
        int, Query(ge=1, le=4096, description="Rows that are computed at once, for the estimate of memory.", examples=[32])
    ] = 32,
    max_length: Annotated[
        int, Query(ge=1, le=131_072, description="Tokens per row, for the estimate of memory.", examples=[128])
    ] = 128,
    method: Annotated[
        Method, Query(description="What is trained, for the estimate of memory.", examples=["full"])
    ] = "full",
) -> ModelView:  # fmt: skip
    """What its configuration, its weights and its card say, and the memory that training it takes, roughly.

    A model that is not on this machine is looked up on the Hugging Face hub, unless the service is offline.
    """
    if not 1 <= len(name) <= _LONGEST_NAME:
        raise errors.NotFound(
            f"A model's name has between 1 and {_LONGEST_NAME} characters: `GET /v1/models` lists those there are."
        )
    try:
        found = parts.models.describe(name)
    except errors.ModelNotFound as error:
        raise errors.NotFound(error.detail) from error
    need = memory_need(found.header, batch_size=batch_size, max_length=max_length, method=method)
    return ModelView.of(found, None if need is None else MemoryView.of(need, method, batch_size, max_length))


def _rows(dataset: str) -> str:
    """The rows that are named; of a built-in data set alone those to train on, as in a study. Raises InvalidParameters."""
    if not re.fullmatch(_ROWS, dataset):
        detail = "query parameter `dataset`: name rows as `dataset://NAME/FILE`, `builtin://NAME` or `builtin://NAME/SPLIT`"
        raise InvalidParameters([ViolationView(pointer="dataset", detail=detail)])
    is_whole = dataset.startswith("builtin://") and "/" not in dataset.removeprefix("builtin://")
    return f"{dataset}/train" if is_whole else dataset


def _chosen(here: Sequence[FoundModel], names: Sequence[str] | None, task: str | None) -> list[FoundModel]:
    """The models that were named, or all that fit the task. Raises ModelNotFound, UnusableModel."""
    if names is None:
        return [one for one in here if task is None or task in one.header.kinds]
    by_name = {one.name: one for one in here}
    for name in names:
        if name not in by_name:
            detail = f"{name!r} is not on this machine with its weights: `GET /v1/models` lists those that are."
            raise errors.ModelNotFound(detail)
        if task is not None and task not in by_name[name].header.kinds:
            fitting = " and ".join(f"`{kind}`" for kind in sorted(by_name[name].header.kinds))
            raise errors.UnusableModel(f"{name!r} cannot be trained for `{task}`: it fits {fitting}.")
    return [by_name[name] for name in dict.fromkeys(names)]


def _ranked(found: Sequence[FoundModel], probed: Mapping[str, Probed], ranking: _Ranking) -> list[CandidateView]:
    """The best first, then those without a result; equals by fewer parameters."""
    scored = [one for one in found if ranking.metric in probed.get(one.name, Probed()).metrics]
    sign = -1 if ranking.highest_first else 1
    scored.sort(key=lambda one: (sign * probed[one.name].metrics[ranking.metric], one.header.parameters or 0))
    ranked = [CandidateView.of(one, probed[one.name], rank) for rank, one in enumerate(scored, start=1)]
    return [*ranked, *(CandidateView.of(one, probed.get(one.name)) for one in found if one not in scored)]
