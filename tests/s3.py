"""A real S3 server as a child process, for tests that need one: moto's, which keeps everything in memory."""

import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from service.lifeline import end_with_parent

BUCKET = "models"
ADDRESS = f"s3://{BUCKET}/tuneyard"
_SERVER = """
import sys, threading
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(sys.argv[1], 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
threading.Event().wait()
"""
"""Takes a port that is free and says which: one that is chosen here may be another's by the time it listens."""


@contextmanager
def running_s3(host: str = "127.0.0.1") -> Iterator[Mapping[str, str]]:
    """The environment in which it is found, with an empty bucket in it; it listens at this address of the machine's."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER, host],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: end_with_parent(signal.SIGKILL),  # noqa: PLW1509 - no other thread is at work meanwhile
    )
    try:
        assert process.stdout is not None
        port = process.stdout.readline().decode().strip()
        assert port, "the S3 server did not start"
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
        process.communicate()


def empty_bucket(environment: Mapping[str, str], name: str) -> str:
    """Another bucket on it, by its address."""
    request = urllib.request.Request(f"{environment['AWS_ENDPOINT_URL']}/{name}", method="PUT")  # noqa: S310 - our own server
    urllib.request.urlopen(request).close()  # noqa: S310
    return f"s3://{name}/tuneyard"
