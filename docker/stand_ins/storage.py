"""moto's S3 on port 7070, with the bucket and the health check that compose.yaml asks for; its arguments are the gateway's."""

from collections.abc import Callable, Iterable
from typing import Any

from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

_s3 = DomainDispatcherApplication(create_backend_app)


def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/health":
        start_response("200 OK", [])
        return [b"ok\n"]
    return _s3(environ, start_response)


s3_backends[DEFAULT_ACCOUNT_ID]["aws"].create_bucket("tuneyard", "us-east-1")
run_simple("0.0.0.0", 7070, answer, threaded=True)  # noqa: S104 - on the network of its container
