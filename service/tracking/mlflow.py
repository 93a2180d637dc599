"""The tracker over MLflow's REST API (3.17), without MLflow's client.

The client would cost the controller a second and a hundred megabytes, and it retries for minutes by itself when the server is
down. These few calls are all the mirror needs; `service.proto` and `model_registry.proto` of MLflow describe them.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, BinaryIO
from urllib.parse import quote

import httpx

from service.domain.access import PROJECT_TAG
from service.domain.deletion import Forgotten
from service.tracking.tracker import (
    CHAMPION,
    REPORT_TAG,
    STUDY,
    STUDY_TAG,
    TRIAL_TAG,
    Batch,
    Champion,
    Metric,
    NewRun,
    RunStatus,
    TrackerAway,
    TrackerForgot,
    TrackerRefused,
)

_TIMEOUT = httpx.Timeout(30.0, connect=2.0)
_UPLOAD_TIMEOUT = httpx.Timeout(120.0, connect=2.0)
_CHUNK_BYTES = 1024 * 1024
_MAX_METRICS = 800
_MAX_PARAMS = 100
"""Limits of one batch: 1000 things in all, 1000 metrics, 100 parameters, 100 tags (`mlflow/utils/validation.py`)."""
_PAGE = 1000
_AWAY = frozenset({429, 502, 503, 504})
_ARTIFACTS = "mlflow-artifacts:/"
_EXISTS = "RESOURCE_ALREADY_EXISTS"
_MISSING = "RESOURCE_DOES_NOT_EXIST"
_INVALID = "INVALID_PARAMETER_VALUE"
_DELETED = "must be in the 'active' state"
"""What MLflow says of a run or an experiment that was deleted: it keeps both, marked as that, and has no code for it."""


class _Answer(TrackerRefused):
    """A refusal with MLflow's own error code."""

    def __init__(self, detail: str, code: str) -> None:
        super().__init__(detail)
        self.code = code


class MlflowTracker:
    """A tracking server at `url`, without a trailing slash. Nothing is sent before the first call."""

    def __init__(self, url: str, transport: httpx.BaseTransport | None = None) -> None:
        self._url = httpx.URL(url)
        self._client = httpx.Client(timeout=_TIMEOUT, trust_env=False, transport=transport)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def experiments(self) -> Mapping[str, str]:
        query = {"filter": f"tags.`{STUDY_TAG}` LIKE '%'", "max_results": _PAGE, "view_type": "ACTIVE_ONLY"}
        found = self._pages("experiments/search", query, "experiments")
        return {_tags(one)[STUDY_TAG]: one["experiment_id"] for one in found}

    def open_experiment(self, study_id: str, tags: Mapping[str, str]) -> str:
        try:
            created = self._post("experiments/create", {"name": study_id, "tags": _pairs(tags)})
        except _Answer as error:
            if error.code != _EXISTS:
                raise
        else:
            return str(created["experiment_id"])
        experiment = self._get("experiments/get-by-name", {"experiment_name": study_id})["experiment"]
        if experiment["lifecycle_stage"] != "active":
            self._post("experiments/restore", {"experiment_id": experiment["experiment_id"]})
        return str(experiment["experiment_id"])

    def runs(self, experiment_id: str) -> Mapping[int, str]:
        query = {"experiment_ids": [experiment_id], "max_results": _PAGE, "run_view_type": "ACTIVE_ONLY"}
        found: dict[int, str] = {}
        for run in self._pages("runs/search", query, "runs"):
            tags = _tags(run["data"])
            if STUDY_TAG in tags:
                found.setdefault(_number(tags), run["info"]["run_id"])
        return found

    def create_run(self, experiment_id: str, run: NewRun) -> str:
        body = {
            "experiment_id": experiment_id,
            "run_name": run.name,
            "start_time": _milliseconds(run.started_at),
            "tags": _pairs(run.tags),
        }
        return str(self._post("runs/create", body)["run"]["info"]["run_id"])

    def log(self, run_id: str, batch: Batch) -> None:
        for params in _parts(_pairs(batch.params), _MAX_PARAMS)[1:]:
            self._post("runs/log-batch", {"run_id": run_id, "params": params})
        first = {"params": _pairs(batch.params)[:_MAX_PARAMS], "tags": _pairs(batch.tags)}
        for metrics in _parts([_point(metric) for metric in batch.metrics], _MAX_METRICS):
            self._post("runs/log-batch", {"run_id": run_id, "metrics": metrics, **first})
            first = {}

    def end_run(self, run_id: str, status: RunStatus, ended_at: datetime) -> None:
        self._post("runs/update", {"run_id": run_id, "status": status.value, "end_time": _milliseconds(ended_at)})

    def reopen_run(self, run_id: str) -> None:
        # MLflow keeps the time at which it had ended, until it ends anew.
        self._post("runs/update", {"run_id": run_id, "status": RunStatus.RUNNING.value})

    def upload(self, run_id: str, path: str, content: BinaryIO, size: int) -> None:
        # Under the prefix the server reads a whole upload into memory first; its streaming route is at the root only.
        url = self._artifact_url(f"{self._artifact_root(run_id)}/{path}")
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        self._ask("PUT", url, headers=headers, content=_chunks(content), timeout=_UPLOAD_TIMEOUT)

    def champion(self, name: str) -> tuple[str, int] | None:
        try:
            version = self._get("registered-models/alias", {"name": name, "alias": CHAMPION})["model_version"]
        except TrackerForgot:
            return None
        except _Answer as error:
            # A model without this alias is a bad request to MLflow, not something missing.
            if error.code == _INVALID:
                return None
            raise
        report = _tags(version).get(REPORT_TAG)
        return None if report is None else (str(version.get("run_id")), int(report))

    def register(self, champion: Champion) -> None:
        model = {"name": champion.name, "description": champion.description, "tags": _pairs(champion.tags)}
        try:
            self._post("registered-models/create", model)
        except _Answer as error:
            if error.code != _EXISTS:
                raise
        found = self._versions(f"name='{champion.name}' and run_id='{champion.run_id}'")
        report = str(champion.report)  # a trial that went on with its study may have had another one as its best before
        known = next((one for one in found if _tags(one).get(REPORT_TAG) == report), None)
        version = known or self._new_version(champion)
        self._post("registered-models/alias", {"name": champion.name, "alias": CHAMPION, "version": version["version"]})

    def running(self) -> Sequence[tuple[str, int]]:
        of_study = {experiment_id: study_id for study_id, experiment_id in self.experiments().items()}
        if not of_study:
            return []
        query = {
            "experiment_ids": list(of_study), "max_results": _PAGE, "run_view_type": "ACTIVE_ONLY",
            "filter": "attributes.status = 'RUNNING'",
        }  # fmt: skip
        found = list(self._pages("runs/search", query, "runs"))
        tagged = [(of_study[run["info"]["experiment_id"]], _tags(run["data"])) for run in found]
        return [(study_id, _number(tags)) for study_id, tags in tagged if STUDY_TAG in tags]

    def unowned(self) -> Mapping[str, str]:
        clauses = f"tags.`{STUDY_TAG}` LIKE '%' AND tags.`{PROJECT_TAG}` IS NULL"
        query = {"filter": clauses, "max_results": _PAGE, "view_type": "ACTIVE_ONLY"}
        found = self._pages("experiments/search", query, "experiments")
        return {_tags(one)[STUDY_TAG]: one["experiment_id"] for one in found}

    def own(self, study_id: str, experiment_id: str, project: str) -> None:
        tag = {"key": PROJECT_TAG, "value": project}
        with suppress(TrackerForgot):  # it may not have one
            self._post("registered-models/set-tag", {"name": study_id, **tag})
        for version in self._versions(f"name='{study_id}'"):
            self._post("model-versions/set-tag", {"name": study_id, "version": version["version"], **tag})
        self._post("experiments/set-experiment-tag", {"experiment_id": experiment_id, **tag})

    def forget(self, study_id: str, experiment_id: str) -> Forgotten:
        runs = self.runs(experiment_id)
        location = str(self._get("experiments/get", {"experiment_id": experiment_id})["experiment"]["artifact_location"])
        # MLflow only marks an experiment as deleted: its files would stay for ever.
        folder = self._served(location, f"experiment {experiment_id}")
        self._ask("DELETE", self._url.copy_with(path=f"{self._url.path}/api/2.0/mlflow-artifacts/artifacts/{folder}"))
        had_model = True
        try:
            self._ask("DELETE", self._api("registered-models/delete"), json={"name": study_id})
        except TrackerForgot:  # it may never have had one
            had_model = False
        self._post("experiments/delete", {"experiment_id": experiment_id})
        return Forgotten(experiment_id, len(runs), had_model)

    def _versions(self, clauses: str) -> Sequence[Mapping[str, Any]]:
        found: Sequence[Mapping[str, Any]] = self._get("model-versions/search", {"filter": clauses}).get("model_versions", [])
        return found

    def _new_version(self, champion: Champion) -> Mapping[str, Any]:
        body = {
            "name": champion.name,
            "source": f"runs:/{champion.run_id}/{champion.folder}",
            "run_id": champion.run_id,
            "description": champion.description,
            "tags": _pairs(champion.tags),
        }
        version: Mapping[str, Any] = self._post("model-versions/create", body)["model_version"]
        return version

    def _artifact_root(self, run_id: str) -> str:
        """Where the server keeps a run's files, below its artifact destination."""
        return self._served(str(self._get("runs/get", {"run_id": run_id})["run"]["info"]["artifact_uri"]), f"run {run_id}")

    def _served(self, uri: str, owner: str) -> str:
        folder = uri.removeprefix(_ARTIFACTS).strip("/")
        if not uri.startswith(_ARTIFACTS) or not folder:
            raise TrackerRefused(f"MLflow keeps the files of {owner} at {uri}, which it does not serve.")
        return folder

    def _artifact_url(self, path: str) -> httpx.URL:
        return self._url.copy_with(raw_path=b"/api/2.0/mlflow-artifacts/artifacts/" + quote(path).encode())

    def _pages(self, path: str, query: Mapping[str, Any], key: str) -> Iterator[Any]:
        token: str | None = None
        while True:
            page = self._post(path, {**query, "page_token": token} if token else query)
            yield from page.get(key, [])
            token = page.get("next_page_token")
            if not token:
                return

    def _get(self, path: str, query: Mapping[str, str]) -> Mapping[str, Any]:
        return self._json(self._ask("GET", self._api(path), params=query))

    def _post(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        return self._json(self._ask("POST", self._api(path), json=body))

    def _api(self, path: str) -> httpx.URL:
        return self._url.copy_with(path=f"{self._url.path}/api/2.0/mlflow/{path}")

    def _json(self, response: httpx.Response) -> Mapping[str, Any]:
        answer: Mapping[str, Any] = response.json()
        return answer

    def _ask(self, method: str, url: httpx.URL, **request: Any) -> httpx.Response:
        try:
            response = self._client.request(method, url, **request)
        except httpx.HTTPError as error:
            raise TrackerAway(f"MLflow does not answer ({error!r}).") from error
        if response.is_success:
            return response
        if response.status_code in _AWAY:
            raise TrackerAway(f"MLflow is busy: it answered {response.status_code} to {method} {url.path}.")
        code, message = _error_of(response)
        detail = f"MLflow refused {method} {url.path} with {response.status_code} {code}: {message[:500]}"
        is_gone = code == _MISSING or (code == _INVALID and _DELETED in message)
        raise TrackerForgot(detail) if is_gone else _Answer(detail, code)


def _error_of(response: httpx.Response) -> tuple[str, str]:
    try:
        answer = response.json()
        return str(answer["error_code"]), str(answer["message"])
    except (ValueError, KeyError, TypeError):
        return "", response.text


def _pairs(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in values.items()]


def _tags(holder: Mapping[str, Any]) -> Mapping[str, str]:
    return {tag["key"]: tag["value"] for tag in holder.get("tags", [])}


def _number(tags: Mapping[str, str]) -> int:
    """Which trial's a run with these tags is."""
    return int(tags[TRIAL_TAG].rpartition("/")[2]) if TRIAL_TAG in tags else STUDY


def _point(metric: Metric) -> Mapping[str, Any]:
    # Protocol buffers write what is no number as a string.
    value: float | str = metric.value
    if not math.isfinite(metric.value):
        value = "NaN" if math.isnan(metric.value) else "Infinity" if metric.value > 0 else "-Infinity"
    return {"key": metric.key, "value": value, "timestamp": _milliseconds(metric.at), "step": metric.step}


def _parts(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """At least one part, which may be empty."""
    return [items[start : start + size] for start in range(0, max(1, len(items)), size)]


def _milliseconds(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def _chunks(content: BinaryIO) -> Iterator[bytes]:
    while chunk := content.read(_CHUNK_BYTES):
        yield chunk
