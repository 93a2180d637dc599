"""Is it alive, can it work, and how much does it do?"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Request, Response, status
from fastapi.responses import PlainTextResponse
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client import Counter as CounterMetric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from service.api.dependencies import ApiParts, Parts
from service.api.schemas import HealthView, ReadinessView
from service.domain.errors import StorageAway
from service.domain.leadership import Leader, leader_seen_from
from service.domain.paging import pages_of
from service.domain.ports import StudyQuery
from service.domain.study import StudyState
from service.domain.trial import TrialState

open_router = APIRouter(tags=["health"])
"""What needs no token: it tells no more than that the service is there."""
router = APIRouter(tags=["health"])

_LOG = logging.getLogger("tuneyard.api")
_PROBE_SECONDS = 2.0
_FRESH_SECONDS = 1.0
_PAGE = 500


@open_router.get(
    "/healthz", operation_id="getHealth", summary="Is the process alive?", response_description="It is."
)  # fmt: skip
async def get_health() -> HealthView:
    """Answers as long as the process does, whatever else is down. Needs no token."""
    return HealthView(status="ok")


@open_router.get(
    "/readyz",
    operation_id="getReadiness",
    summary="Can the service work?",
    response_description="Every part is up.",
    responses={503: {"model": ReadinessView, "description": "A part is not up; ask again in a few seconds."}},
)
def get_readiness(request: Request, response: Response) -> ReadinessView:
    """Whether the store, MLflow and an object storage can be reached, and which controller leads. Needs no token."""
    readiness: Readiness = request.app.state.readiness
    view = readiness.look()
    if view.status != "ready":
        response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
        response.headers["Retry-After"] = "2"
    return view


@router.get(
    "/metrics",
    operation_id="getMetrics",
    summary="Metrics for Prometheus",
    response_class=PlainTextResponse,
    response_description="Metrics in Prometheus' text format.",
)
def get_metrics(request: Request, parts: Parts) -> Response:
    """Requests by route and status, how long answers took, and studies and trials by state."""
    metrics: Metrics = request.app.state.metrics
    return Response(metrics.exposition(parts), media_type=CONTENT_TYPE_PLAIN_0_0_4)


class Readiness:
    """Looks at the parts behind the API, at most once a second however often strangers ask."""

    def __init__(self, parts: ApiParts) -> None:
        self._parts = parts
        self._lock = threading.Lock()
        self._view: ReadinessView | None = None
        self._looked_at = 0.0

    def look(self) -> ReadinessView:
        with self._lock:
            now = time.monotonic()
            if self._view is None or now - self._looked_at > _FRESH_SECONDS:
                up = {"store": self._store_is_up()}
                if self._parts.mlflow_url is not None:
                    up["mlflow"] = _mlflow_is_up(self._parts.mlflow_url)
                if self._parts.look_at_storage is not None:
                    up["storage"] = _answers(self._parts.look_at_storage)
                status = "ready" if all(up.values()) else "not ready"
                self._view = ReadinessView(status=status, parts=up, leader=leader_of(self._parts))
                self._looked_at = now
            return self._view

    def _store_is_up(self) -> bool:
        try:
            self._parts.store.studies.find(StudyQuery(limit=1))
        except Exception:
            return False  # the cause is the store's to log; strangers are not told
        return True


def _answers(look_at_storage: Callable[[], None]) -> bool:
    try:
        look_at_storage()
    except StorageAway as error:
        _LOG.warning("%s", error.cause)  # strangers are not told
        return False
    return True


def leader_of(parts: ApiParts) -> Leader:
    """Where the controller is that leads."""
    try:
        holder = parts.store.leadership.holder(parts.clock.now())
    except Exception:
        return Leader.UNKNOWN  # as above
    return leader_seen_from(parts.name, holder)


def _mlflow_is_up(url: str) -> bool:
    """Whether the tracking server on this machine answers."""
    address = urlsplit(url)
    connection = HTTPConnection(address.hostname or "127.0.0.1", address.port, timeout=_PROBE_SECONDS)
    try:
        connection.request("GET", f"{address.path}/health")
        return connection.getresponse().status == status.HTTP_200_OK
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


class Metrics:
    """What this process counts, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = CounterMetric(
            "tuneyard_http_requests", "Answers, by route and status.", ["method", "route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "tuneyard_http_answer_seconds",
            "Seconds from a request to the start of its answer.",
            ["method", "route"],
            registry=self._registry,
        )

    def count(self, method: str, route: str, status_code: int, seconds: float) -> None:
        self._requests.labels(method, route, str(status_code)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def exposition(self, parts: ApiParts) -> bytes:
        """All metrics in Prometheus' text format."""
        at_this_moment = CollectorRegistry()
        at_this_moment.register(_StoreCollector(parts))
        return generate_latest(self._registry) + generate_latest(at_this_moment)


class _StoreCollector:
    """Studies and trials by state, counted when asked."""

    def __init__(self, parts: ApiParts) -> None:
        self._parts = parts

    def collect(self) -> Iterator[Any]:
        studies: Counter[StudyState] = Counter()
        trials: Counter[TrialState] = Counter()
        store = self._parts.store
        for page in pages_of(store.studies.find, StudyQuery(limit=_PAGE, order="created_at")):
            studies.update(study.state for study in page)
            for counts in store.trials.counts([study.id for study in page]).values():
                trials.update(counts)
        yield _by_state("tuneyard_studies", "Studies, by state.", {state.value: studies[state] for state in StudyState})
        yield _by_state("tuneyard_trials", "Trials, by state.", {state.value: trials[state] for state in TrialState})
        is_here = leader_of(self._parts) is Leader.HERE
        yield GaugeMetricFamily("tuneyard_leads", "1 where the controller of this service leads, else 0.", value=int(is_here))


def _by_state(name: str, help_text: str, counts: dict[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, help_text, labels=["state"])
    for state, count in counts.items():
        family.add_metric([state], count)
    return family
