"""Data sets: uploaded files, and those the service makes itself."""

from tempfile import SpooledTemporaryFile
from typing import Annotated, BinaryIO, cast

from anyio.to_thread import run_sync
from fastapi import APIRouter, Path, Request, Response, status

from service.api.dependencies import ApiParts, Parts, parts_of
from service.api.problems import InvalidParameters, documented
from service.api.schemas import BuiltinDatasetView, DatasetFileView, DatasetsView
from service.domain import errors
from service.domain.datasets import DatasetFile, check_dataset_name

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
_WRITE_BYTES = 1024 * 1024
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
        **documented(errors.UploadTooLarge, errors.TooManyFiles, errors.UnreadableDataset, errors.UnsafePath, InvalidParameters),
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
    most = parts.settings.max_upload_bytes
    declared = request.headers.get("Content-Length", "")
    if declared.isdecimal() and int(declared[:20]) > most:
        raise _too_large(most)
    # On disk, beside other things that may be deleted: /tmp is memory on many machines.
    folder = parts.settings.layout.cache
    await run_sync(lambda: folder.mkdir(parents=True, exist_ok=True, mode=0o700))
    with SpooledTemporaryFile(_IN_MEMORY_BYTES, dir=str(folder)) as spool:
        content = cast("BinaryIO", spool)
        await _receive(request, content, most)
        stored, is_new = await run_sync(_put, parts, name, file, content)
    response.status_code = status.HTTP_201_CREATED if is_new else status.HTTP_200_OK
    return DatasetFileView.of(stored)


@router.get(
    "/v1/datasets", operation_id="listDatasets", summary="List data sets", response_description="All data sets."
)  # fmt: skip
def list_datasets(parts: Parts) -> DatasetsView:
    """Uploaded files, and the data sets that are always there."""
    return DatasetsView(uploads=[DatasetFileView.of(file) for file in parts.datasets.all()], builtins=BUILTINS)


async def _receive(request: Request, content: BinaryIO, most: int) -> None:
    """Write the request's body to `content` and go back to its start. Raises UploadTooLarge."""
    received, waiting = 0, bytearray()
    async for chunk in request.stream():
        received += len(chunk)
        if received > most:
            raise _too_large(most)
        waiting += chunk
        if len(waiting) >= _WRITE_BYTES:
            await run_sync(content.write, bytes(waiting))
            waiting.clear()
    await run_sync(content.write, bytes(waiting))
    content.seek(0)


def _put(parts: ApiParts, name: str, file: str, content: BinaryIO) -> tuple[DatasetFile, bool]:
    most = parts.settings.max_uploaded_files
    files = {(one.dataset, one.file) for one in parts.datasets.all()}
    is_new = (name, file) not in files
    if is_new and len(files) >= most:
        raise errors.TooManyFiles(f"Project {parts.project!r} has {len(files)} files, and may have {most}: replace one of them.")
    return parts.datasets.put(name, file, content, parts.clock.now()), is_new


def _too_large(most: int) -> errors.UploadTooLarge:
    return errors.UploadTooLarge(f"A file has at most {most} bytes: upload it in parts, as several files.")
