"""Data sets: uploaded files, and those the service makes itself."""

from tempfile import SpooledTemporaryFile
from typing import Annotated, BinaryIO, cast

from anyio.to_thread import run_sync
from fastapi import APIRouter, Path, Request, Response, status

from service.api.dependencies import ApiParts, Parts, parts_of
from service.api.problems import InvalidParameters, documented
from service.api.schemas import BuiltinDatasetView, DatasetFileView, DatasetsView, DeletedFilesView
from service.api.uploads import Bounds, UploadsUnderWay, allowance_of, receive, replaced_by
from service.domain import errors
from service.domain.datasets import Allowance, DatasetFile, check_dataset_name
from service.domain.paging import active_studies
from service.domain.study import Study

router = APIRouter(tags=["datasets"])

BUILTINS = (
    BuiltinDatasetView(
        name="api-docs",
        uri="builtin://api-docs",
        detail="First sentences of public docstrings of the installed libraries, labelled by library (text, label).",
    ),
    BuiltinDatasetView(
        name="digits", uri="builtin://digits", detail="scikit-learn's handwritten digits: 8x8 grey values, labelled 0 to 9."
    ),
)
"""What `service.catalog` knows by the scheme `builtin://`; the API reads no data itself."""

_IN_MEMORY_BYTES = 1024 * 1024
_MOST_LISTED = 3
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"

DatasetName = Annotated[
    str, Path(description="The data set's name.", examples=["banking77"], json_schema_extra={"pattern": _NAME})
]
FileName = Annotated[
    str,
    Path(
        description="The file's name; its ending tells its format: .csv, .jsonl, .parquet, .conll, .bio or .zip.",
        examples=["train.csv"],
        json_schema_extra={"pattern": _NAME},
    ),
]  # fmt: skip
_BODY = {
    "required": True,
    "description": "The file's content as it is: CSV with a header, one JSON object a line, Parquet, CoNLL, or a zip with a "
    "folder of images for each label.",
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
}


@router.put(
    "/v1/datasets/{name}/files/{file}",
    operation_id="putDatasetFile",
    summary="Upload a file",
    status_code=status.HTTP_201_CREATED,
    response_description="The file is new.",
    responses={
        200: {"model": DatasetFileView, "description": "The file took the place of an earlier one."},
        **documented(
            errors.UploadTooLarge,
            errors.TooManyFiles,
            errors.QuotaSpent,
            errors.UnreadableDataset,
            errors.UnsafePath,
            InvalidParameters,
            errors.TooManyUploads,
            errors.NoSpace,
        ),
    },
    openapi_extra={"requestBody": _BODY},
)
async def put_dataset_file(name: DatasetName, file: FileName, request: Request, response: Response) -> DatasetFileView:
    """Store or replace one file of a data set, all or nothing; its rows and columns are counted on the way in.

    A study calls it `dataset://NAME/FILE`. Studies that run already keep the rows they started with.
    """
    parts = parts_of(request)
    check_dataset_name(name)
    check_dataset_name(file)
    uploads: UploadsUnderWay = request.app.state.uploads
    with uploads.one_more(parts.project):
        stored, is_new = await _store(request, parts, name, file)
    response.status_code = status.HTTP_201_CREATED if is_new else status.HTTP_200_OK
    return DatasetFileView.of(stored)


@router.get(
    "/v1/datasets", operation_id="listDatasets", summary="List data sets", response_description="All data sets."
)  # fmt: skip
def list_datasets(parts: Parts) -> DatasetsView:
    """Uploaded files, and the data sets that are always there."""
    return DatasetsView(uploads=[DatasetFileView.of(file) for file in parts.datasets.all()], builtins=BUILTINS)


@router.delete(
    "/v1/datasets/{name}",
    operation_id="deleteDataset",
    summary="Delete a data set",
    response_description="What was deleted.",
    responses=documented(errors.DatasetNotFound, errors.DatasetInUse),
)
def delete_dataset(name: DatasetName, parts: Parts) -> DeletedFilesView:
    """Delete all files of a data set that no study needs any more: one that has not ended and names it keeps it."""
    return _delete(parts, name, None)


@router.delete(
    "/v1/datasets/{name}/files/{file}",
    operation_id="deleteDatasetFile",
    summary="Delete a file",
    response_description="What was deleted.",
    responses=documented(errors.DatasetNotFound, errors.DatasetInUse),
)
def delete_dataset_file(name: DatasetName, file: FileName, parts: Parts) -> DeletedFilesView:
    """Delete one file of a data set, unless a study that has not ended names it."""
    return _delete(parts, name, file)


def _delete(parts: ApiParts, name: str, file: str | None) -> DeletedFilesView:
    users = [one.id for one in active_studies(parts.store.studies) if one.project == parts.project and _names(one, name, file)]
    if users:
        listed = ", ".join(repr(one) for one in users[:_MOST_LISTED]) + (" and others" if len(users) > _MOST_LISTED else "")
        raise errors.DatasetInUse(f"{_uri(name, file)} is used by {listed}: cancel that, or wait for its end.")
    gone = parts.datasets.delete(name, file)
    return DeletedFilesView(files=[DatasetFileView.of(one) for one in gone], bytes=sum(one.bytes for one in gone))


def _names(study: Study, name: str, file: str | None) -> bool:
    """Whether a text anywhere in its definition is that file, or one of the data set."""
    quote = '"' + _uri(name, file) + ("/" if file is None else '"')
    return quote in study.definition.model_dump_json()


def _uri(name: str, file: str | None) -> str:
    return f"dataset://{name}" + ("" if file is None else f"/{file}")


async def _store(request: Request, parts: ApiParts, name: str, file: str) -> tuple[DatasetFile, bool]:
    allowance = await run_sync(allowance_of, parts)
    bounds = await run_sync(Bounds.of, parts, allowance, name, file)
    # On disk, beside other things that may be deleted: /tmp is memory on many machines.
    folder = parts.settings.layout.cache
    await run_sync(lambda: folder.mkdir(parents=True, exist_ok=True, mode=0o700))
    with SpooledTemporaryFile(_IN_MEMORY_BYTES, dir=str(folder)) as spool:
        content = cast("BinaryIO", spool)
        await receive(request, content, bounds)
        return await run_sync(_put, parts, name, file, content, allowance)


def _put(parts: ApiParts, name: str, file: str, content: BinaryIO, allowance: Allowance) -> tuple[DatasetFile, bool]:
    is_new = replaced_by(parts, name, file) is None
    return parts.datasets.put(name, file, content, parts.clock.now(), allowance), is_new
