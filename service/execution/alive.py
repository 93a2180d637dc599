"""Whether the Ray node of this machine answers: what the health check of a container asks, a few times a minute, without Ray.

    python -m service.execution.alive PORT

`ray health-check` asks the head: a worker that hangs looks well then, and all workers look ill with a head that hangs. This asks
the node's own raylet on its port (`--node-manager-port`) for something that its main loop has to answer. Ray's wheel brings no
gRPC for Python, and one call without arguments is a few lines of HTTP/2.
"""

import os
import socket
import ssl
import struct
import sys
import time
from collections.abc import Mapping
from pathlib import Path

_METHOD = "/ray.rpc.NodeManagerService/GetWorkerPIDs"
_FINE = b"grpc-status\x010"
"""A header is its name's length, its name, its value's length, its value: gRPC's servers do not compress them."""
_SECONDS = 5.0
_DATA, _HEADERS, _SETTINGS = 0, 1, 4
_LONG = 127
"""Lengths from there on take several bytes."""
_END_STREAM, _END_HEADERS = 1, 4


def main() -> int:
    try:
        fine = is_alive(int(sys.argv[1]), os.environ, _SECONDS)
    except OSError as error:
        sys.stderr.write(f"The raylet does not answer: {error}\n")
        return 1
    return 0 if fine else 1


def is_alive(port: int, environment: Mapping[str, str], seconds: float) -> bool:
    """Whether the raylet at `port` of this machine answers well. Raises OSError when it does not answer in time."""
    until = time.monotonic() + seconds
    with _connected(port, environment, seconds) as line:
        line.sendall(question(f"127.0.0.1:{port}", _token(environment)))
        answer = b""
        while _FINE not in answer:
            line.settimeout(max(0.001, until - time.monotonic()))
            received = line.recv(65536)
            if not received:
                return False
            answer += received
    return True


def question(authority: str, token: str) -> bytes:
    """A call without arguments, as HTTP/2."""
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": _METHOD,
        ":authority": authority,
        "content-type": "application/grpc",
        "te": "trailers",
        **({"authorization": f"Bearer {token}"} if token else {}),
    }
    block = b"".join(b"\0" + _counted(name) + _counted(value) for name, value in headers.items())
    begin = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(_SETTINGS, 0, 0, b"")
    return begin + _frame(_HEADERS, _END_HEADERS, 1, block) + _frame(_DATA, _END_STREAM, 1, bytes(5))


def _counted(text: str) -> bytes:
    """A string of HPACK, not compressed, behind its length (RFC 7541, 5.1 and 5.2)."""
    encoded = text.encode()
    length, rest = bytes([min(len(encoded), _LONG)]), len(encoded) - _LONG
    while rest >= 0:
        length += bytes([rest % 128 + (128 if rest >= 128 else 0)])  # noqa: PLR2004 - seven bits each, and whether more come
        rest = rest // 128 or -1
    return length + encoded


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _connected(port: int, environment: Mapping[str, str], seconds: float) -> socket.socket:
    line = socket.create_connection(("127.0.0.1", port), seconds)
    if environment.get("RAY_USE_TLS", "0").lower() not in {"1", "true"}:
        return line
    tls = ssl.create_default_context(cafile=environment["RAY_TLS_CA_CERT"])
    tls.check_hostname = False  # it is made out to the node's address among the others
    tls.load_cert_chain(environment["RAY_TLS_SERVER_CERT"], environment["RAY_TLS_SERVER_KEY"])
    tls.set_alpn_protocols(["h2"])
    return tls.wrap_socket(line)


def _token(environment: Mapping[str, str]) -> str:
    given, file = environment.get("RAY_AUTH_TOKEN"), environment.get("RAY_AUTH_TOKEN_PATH")
    return given or (Path(file).read_text().strip() if file else "")


if __name__ == "__main__":
    sys.exit(main())
