"""A real S3 server as a child process, for tests that need one: moto's, which keeps everything in memory."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from service.lifeline import end_with_parent
from service.serve import free_port
from tests.running import wait_until

BUCKET = "models"
ADDRESS = f"s3://{BUCKET}/tuneyard"


@contextmanager
def running_s3(host: str = "127.0.0.1") -> Iterator[Mapping[str, str]]:
    """The environment in which it is found, with an empty bucket in it; it listens at this address of the machine's."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", host, "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: end_with_parent(signal.SIGKILL),  # noqa: PLW1509 - no other thread is at work meanwhile
    )
    try:
        wait_until(lambda: process.poll() is not None or _listens(host, port), 120, "the S3 server did not start")
        assert process.poll() is None, "the S3 server ended at once"
        url = f"http://{host}:{port}"
        urllib.request.urlopen(urllib.request.Request(f"{url}/{BUCKET}", method="PUT")).close()  # noqa: S310 - our own server
        yield {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "key-for-tests",
            "AWS_SECRET_ACCESS_KEY": "secret-for-tests",
            "AWS_REGION": "us-east-1",
            "AWS_CHECKSUM_ALGORITHM": "SHA256",  # as Amazon's own has it
        }
    finally:
        process.kill()
        process.wait()


def empty_bucket(environment: Mapping[str, str], name: str) -> str:
    """Another bucket on it, by its address."""
    request = urllib.request.Request(f"{environment['AWS_ENDPOINT_URL']}/{name}", method="PUT")  # noqa: S310 - our own server
    urllib.request.urlopen(request).close()  # noqa: S310
    return f"s3://{name}/tuneyard"


def _listens(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == os.EX_OK
