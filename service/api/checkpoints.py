"""Exported checkpoints: a manifest, its files one by one, or all of them as one tar stream. Only safetensors, JSON and text."""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, Header, Path, Query, Request, Response, status

from service.api.dependencies import ApiParts, Parts
from service.api.downloads import Download, etag_matches, file_response, media_type_of, streamed, tar_chunks, tar_headers
from service.api.final import best_of
from service.api.paths import STUDY, TRIAL, StudyId, TrialNumber
from service.api.problems import InvalidParameters, PreconditionFailed, RangeNotSatisfiable, documented
from service.api.schemas import AnalysisView, ManifestView
from service.domain import errors
from service.domain.checkpoint import CheckpointFile, Manifest, may_leave
from service.domain.trial import Trial

router = APIRouter(tags=["checkpoints"])

_BEST = STUDY + "/best/checkpoint"
_OF_TRIAL = TRIAL + "/checkpoint"
_TRIES = 5
"""Of opening files while better exports replace them."""

FilePath = Annotated[
    str,
    Path(
        description="The file's path inside the checkpoint.", examples=["model.safetensors"],
        json_schema_extra={"pattern": r"^[A-Za-z0-9_][A-Za-z0-9_./-]{0,199}$"},
    ),
]  # fmt: skip
IfMatch = Annotated[
    str | None,
    Header(max_length=4000, description="Only if the file has one of these ETags; otherwise 412.", examples=["*"]),
]
Redirect = Annotated[
    bool,
    Query(
        examples=[True],
        description="Answer 307 with an address at which the object storage itself hands out the file for five minutes, to "
        "whoever knows it. Where checkpoints are not in one, or it signs no addresses, the file is answered as without it.",
    ),
]

_NO_BEST = documented(errors.StudyNotFound, errors.NoBestTrial, errors.NoSingleBest, errors.CheckpointNotFound)
_NO_TRIAL = documented(errors.StudyNotFound, errors.TrialNotFound, errors.CheckpointNotFound)
_NO_BEST_FILE = documented(
    errors.StudyNotFound, errors.NoBestTrial, errors.NoSingleBest, errors.CheckpointNotFound, errors.FileNotInCheckpoint
)  # fmt: skip
_NO_TRIAL_FILE = documented(errors.StudyNotFound, errors.TrialNotFound, errors.CheckpointNotFound, errors.FileNotInCheckpoint)
_REFUSED = documented(PreconditionFailed, RangeNotSatisfiable, InvalidParameters)
_BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_ETAG = {"description": "Names this content, and no other.", "schema": {"type": "string"}, "example": '"53aa51172d"'}
_LOCATION = {"description": "An address that needs no token.", "schema": {"type": "string", "format": "uri"}}
_FILE_CONTENT = {
    "application/octet-stream": _BINARY,
    "application/json": {"schema": {}},
    "text/plain": {"schema": {"type": "string"}},
    "text/markdown": {"schema": {"type": "string"}},
}
_UNCHANGED: dict[int | str, dict[str, Any]] = {
    304: {"description": "The content is the one that `If-None-Match` names.", "headers": {"ETag": _ETAG}}
}
_FILE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file.", "content": _FILE_CONTENT, "headers": {"ETag": _ETAG}},
    206: {"description": "The part of the file that `Range` asks for.", "content": _FILE_CONTENT, "headers": {"ETag": _ETAG}},
    307: {"description": "With `redirect`: where the storage hands out the file.", "headers": {"Location": _LOCATION}},
    **_UNCHANGED,
    **_REFUSED,
}
_ARCHIVE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A folder with the files, uncompressed, as a tar archive.",
        "content": {"application/x-tar": _BINARY},
        "headers": {"ETag": _ETAG},
    },
    **_UNCHANGED,
}


@router.get(
    _BEST,
    operation_id="getBestCheckpoint",
    summary="Get the best checkpoint's manifest",
    response_description="The files of the checkpoint.",
    responses=_NO_BEST,
)
def get_best_checkpoint(study_id: StudyId, parts: Parts) -> ManifestView:
    """The files of the best trial's export, at its best report.

    The links lead to that very trial: they stay right when another trial becomes the best while files are fetched.
    """
    return ManifestView.of(_manifest(parts, study_id, _best(parts, study_id)))


@router.get(
    _OF_TRIAL,
    operation_id="getTrialCheckpoint",
    summary="Get a trial's checkpoint's manifest",
    response_description="The files of the checkpoint.",
    responses=_NO_TRIAL,
)
def get_trial_checkpoint(study_id: StudyId, number: TrialNumber, parts: Parts) -> ManifestView:
    """The files of a trial's export, at its best report. Only those of the best trials and of the front are kept."""
    return ManifestView.of(_manifest(parts, study_id, number))


@router.get(
    TRIAL + "/analysis",
    operation_id="getTrialAnalysis",
    summary="Get the analysis of a trial's best report",
    response_description="The analysis.",
    responses=_NO_TRIAL,
)
def get_trial_analysis(study_id: StudyId, number: TrialNumber, parts: Parts) -> AnalysisView:
    """Where the trial's best report went wrong on the validation rows. It is kept as long as the trial's checkpoint is."""
    report = _best_report(parts, study_id, number)
    return AnalysisView.of(study_id, number, report, parts.checkpoints.analysis(study_id, number, report))


@router.head(
    _BEST + "/files/{path:path}",
    operation_id="headBestFile",
    summary="Ask about a file of the best checkpoint",
    response_class=Response,
    responses={**_FILE_RESPONSES, **_NO_BEST_FILE},
)
@router.get(
    _BEST + "/files/{path:path}",
    operation_id="getBestFile",
    summary="Get a file of the best checkpoint",
    response_class=Response,
    responses={**_FILE_RESPONSES, **_NO_BEST_FILE},
)
def get_best_file(
    study_id: StudyId, path: FilePath, request: Request, parts: Parts, if_match: IfMatch = None, *, redirect: Redirect = False
) -> Response:
    """One file of the best trial's export. Send the manifest's SHA-256 as `If-Match` to be sure to get that one."""
    return _file(parts, request, _Wanted(study_id, _best(parts, study_id), path, if_match, redirect))


@router.head(
    _OF_TRIAL + "/files/{path:path}",
    operation_id="headTrialFile",
    summary="Ask about a file of a trial's checkpoint",
    response_class=Response,
    responses={**_FILE_RESPONSES, **_NO_TRIAL_FILE},
)
@router.get(
    _OF_TRIAL + "/files/{path:path}",
    operation_id="getTrialFile",
    summary="Get a file of a trial's checkpoint",
    response_class=Response,
    responses={**_FILE_RESPONSES, **_NO_TRIAL_FILE},
)
def get_trial_file(  # noqa: PLR0913 - each is a part of the request
    study_id: StudyId,
    number: TrialNumber,
    path: FilePath,
    request: Request,
    parts: Parts,
    if_match: IfMatch = None,
    *,
    redirect: Redirect = False,
) -> Response:
    """One file of a trial's export; `Range` asks for a part of it."""
    return _file(parts, request, _Wanted(study_id, number, path, if_match, redirect))


@router.head(
    _BEST + "/archive",
    operation_id="headBestArchive",
    summary="Ask about the archive of the best checkpoint",
    response_class=Response,
    responses={**_ARCHIVE_RESPONSES, **_NO_BEST},
)
@router.get(
    _BEST + "/archive",
    operation_id="getBestArchive",
    summary="Get the best checkpoint as a tar stream",
    response_class=Response,
    responses={**_ARCHIVE_RESPONSES, **_NO_BEST},
)
def get_best_archive(study_id: StudyId, request: Request, parts: Parts) -> Response:
    """All files of the best trial's export in one folder, which is named by study and trial; `from_pretrained` loads it."""
    return _archive(parts, request, study_id, _best(parts, study_id))


@router.head(
    _OF_TRIAL + "/archive",
    operation_id="headTrialArchive",
    summary="Ask about the archive of a trial's checkpoint",
    response_class=Response,
    responses={**_ARCHIVE_RESPONSES, **_NO_TRIAL},
)
@router.get(
    _OF_TRIAL + "/archive",
    operation_id="getTrialArchive",
    summary="Get a trial's checkpoint as a tar stream",
    response_class=Response,
    responses={**_ARCHIVE_RESPONSES, **_NO_TRIAL},
)
def get_trial_archive(study_id: StudyId, number: TrialNumber, request: Request, parts: Parts) -> Response:
    """All files of a trial's export in one folder, which is named by study and trial, as one uncompressed tar stream."""
    return _archive(parts, request, study_id, number)


def _best(parts: ApiParts, study_id: str) -> int:
    best = best_of(parts, parts.store.studies.get(study_id))
    if best is None:
        raise errors.NoBestTrial(study_id)
    return best.number


def _manifest(parts: ApiParts, study_id: str, number: int) -> Manifest:
    return parts.checkpoints.manifest(study_id, number, _best_report(parts, study_id, number))


def _best_report(parts: ApiParts, study_id: str, number: int) -> int:
    """The report that the store has as the trial's best: a worker may have exported a later one already."""
    report = parts.store.trials.get(study_id, number).best_report
    if report is None:
        raise errors.CheckpointNotFound(f"Trial {number} of study {study_id!r} has no checkpoint: it has not reported yet.")
    return report


def has_checkpoint(parts: ApiParts, trial: Trial) -> bool | None:
    """Whether the trial's best export is there to be pulled; None while nobody can tell."""
    try:
        return trial.best_report is not None and bool(parts.checkpoints.manifest(trial.study_id, trial.number, trial.best_report))
    except errors.CheckpointNotFound:
        return False
    except errors.StorageAway:
        return None


@dataclass(frozen=True)
class _Wanted:
    """A file that a request asks for."""

    study_id: str
    trial: int
    path: str
    if_match: str | None
    redirect: bool


def _file(parts: ApiParts, request: Request, wanted: _Wanted) -> Response:
    path = wanted.path
    if not may_leave(path):
        raise errors.FileNotInCheckpoint(f"The checkpoint has no file {path!r}: its manifest lists those it has.")
    if wanted.redirect and request.method == "GET":
        elsewhere = _redirect(parts, wanted)
        if elsewhere is not None:
            return elsewhere
    manifest, opened = _opened(parts, wanted.study_id, wanted.trial, path)
    file, content = opened[0]
    with ExitStack() as on_failure:
        on_failure.callback(content.close)
        _check_precondition(wanted, manifest, file)
        response = file_response(request, Download(content, file.bytes, file.sha256, media_type_of(path), _name(path)))
        on_failure.pop_all()
    return response


def _redirect(parts: ApiParts, wanted: _Wanted) -> Response | None:
    """The way to the file in the object storage, if it hands out any. It is in this answer alone: nothing logs it."""
    manifest = _manifest(parts, wanted.study_id, wanted.trial)
    link = parts.checkpoints.link(wanted.study_id, wanted.trial, manifest.report, wanted.path)
    file = manifest.file(wanted.path)
    if link is None or file is None:
        return None
    _check_precondition(wanted, manifest, file)
    headers = {"Location": link, "ETag": f'"{file.sha256}"', "Cache-Control": "no-store"}
    return Response(status_code=status.HTTP_307_TEMPORARY_REDIRECT, headers=headers)


def _check_precondition(wanted: _Wanted, manifest: Manifest, file: CheckpointFile) -> None:
    if wanted.if_match is not None and not etag_matches(wanted.if_match, file.sha256, weakly=False):
        raise PreconditionFailed(f"{wanted.path!r} is the one of report {manifest.report} now: read the manifest again.")


def _archive(parts: ApiParts, request: Request, study_id: str, trial: int) -> Response:
    manifest, opened = _opened(parts, study_id, trial)
    name = f"{study_id}-trial-{trial}"  # of a folder, so that nothing is overwritten where it is unpacked
    digest = hashlib.sha256("\n".join(f"{file.sha256} {name}/{file.path}" for file in manifest.files).encode()).hexdigest()
    headers = {
        "ETag": f'"{digest}"',
        "Cache-Control": "private, no-cache",
        "Content-Disposition": f'attachment; filename="{name}.tar"',
    }
    unchanged = etag_matches(request.headers.get("If-None-Match"), digest, weakly=True)
    if unchanged or request.method == "HEAD":
        _close(opened)
    if unchanged:
        return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers=headers)
    blocks, length = tar_headers(name, [file for file, _ in opened])
    headers["Content-Length"] = str(length)
    if request.method == "HEAD":
        return Response(headers=headers, media_type="application/x-tar")
    chunks: Iterator[bytes] = tar_chunks(list(zip(blocks, opened, strict=True)))
    return streamed(chunks, [content for _, content in opened], headers, "application/x-tar")


def _opened(
    parts: ApiParts, study_id: str, trial: int, path: str | None = None
) -> tuple[Manifest, list[tuple[CheckpointFile, BinaryIO]]]:
    """All files of one and the same export (or the one at `path`), open; the caller closes them.

    A better export may replace this one between reading its manifest and opening its last file: then all is opened anew.
    Once open, files can be read to their end, whatever replaces them. Raises CheckpointNotFound, FileNotInCheckpoint.
    """
    for _ in range(_TRIES):
        manifest = _manifest(parts, study_id, trial)
        wanted = manifest.files if path is None else [file for file in manifest.files if file.path == path]
        if not wanted:
            raise errors.FileNotInCheckpoint(f"The checkpoint has no file {path!r}: its manifest lists those it has.")
        with ExitStack() as on_failure:
            opened = []
            try:
                for file in wanted:
                    content = parts.checkpoints.open(study_id, trial, manifest.report, file.path)
                    on_failure.callback(content.close)
                    opened.append((file, content))
                # The same report may have been exported anew, by an attempt that had to train it again.
                if parts.checkpoints.manifest(study_id, trial, manifest.report) == manifest:
                    on_failure.pop_all()
                    return manifest, opened
            except errors.NotFound:
                continue
    raise errors.CheckpointNotFound("Better checkpoints keep replacing this one: read the manifest again.")


def _close(opened: list[tuple[CheckpointFile, BinaryIO]]) -> None:
    for _, content in opened:
        content.close()


def _name(path: str) -> str:
    return path.rpartition("/")[2]
