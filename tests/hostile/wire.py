"""Bytes that two readers may read as two things, that never end, or that are no HTTP/1.1 at all."""

import socket
from collections.abc import Iterator

from tests.hostile.attack import Act, Attack, asking, attack
from tests.hostile.target import CLOSED, Answer, Target

_MEGABYTE = 1024**2
_GIGABYTE = 1024**3
_SMUGGLED = "GET /v1/tokens HTTP/1.1\r\nHost: a\r\n\r\n"
_CONNECTIONS = 60


def attacks() -> Iterator[Attack]:
    for name, head, rest in _HEADS:
        yield attack(name, _raw(head, rest), CLOSED, 400, 401, 404, 405, 411, 413, 501, 505)
    for method in ("TRACE", "CONNECT", "PROPFIND", "LOCK", "PURGE", "BREW"):
        yield attack(f"the method {method}", asking(method, "/v1/studies", "operator"), CLOSED, 400, 405)
    for header in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"):
        yield attack(f"a method by {header}", _overridden(header), 200)
    for path in ("/v1/studies", "/v1/datasets/a/files/a.csv", "/v1/login-links", "/mlflow/graphql", "/v1/studies:preview"):
        method = "PUT" if path.endswith(".csv") else "POST"
        for who in (None, "viewer", "editor"):
            yield attack(
                f"a gigabyte that is announced: {who} at {path}", _announced(method, path, who), 400, 401, 403, 405, 413, 415
            )
            if not path.endswith(".csv"):
                yield attack(
                    f"a body in chunks without end: {who} at {path}", _endless(method, path, who), CLOSED, 400, 401, 403, 413, 415
                )
    yield attack(
        "a body in chunks without end, of a stranger's upload", _endless("PUT", "/v1/datasets/a/files/a.csv", None), CLOSED, 401
    )
    yield attack("X-Forwarded-For of sixty thousand letters", _forwarded, 401)


def _raw(head: str, rest: bytes) -> Act:
    def act(target: Target) -> Answer:
        text = head.replace("{host}", target.host).replace("{token}", target.service.token)
        answer = target.send([text.encode("latin-1") + rest])
        assert answer.raw.count(b"HTTP/1.1 200") == 0, answer.raw[:500]
        return answer

    return act


def _overridden(header: str) -> Act:
    def act(target: Target) -> Answer:
        path = f"/v1/studies/{target.studies['own']}"
        target.ask("GET", path, "editor", headers={header: "DELETE"})
        return target.ask("GET", path, "editor")

    return act


def _announced(method: str, path: str, who: str | None) -> Act:
    def act(target: Target) -> Answer:
        headers = {"Content-Length": str(10 * _GIGABYTE), "Content-Type": "application/json"}
        return target.ask(method, path, who, b"x" * 1000, headers)

    return act


def _endless(method: str, path: str, who: str | None) -> Act:
    def act(target: Target) -> Answer:
        token = f"Authorization: Bearer {target.tokens[who]}\r\n" if who else ""
        head = f"{method} {path} HTTP/1.1\r\nHost: {target.host}\r\n{token}Content-Type: application/json\r\n"
        chunk = b"100000\r\n" + b" " * _MEGABYTE + b"\r\n"
        return target.send([f"{head}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n".encode(), *[chunk] * 40])

    return act


def _forwarded(target: Target) -> Answer:
    return target.ask(
        "GET", "/v1/studies", "wrong", headers={"X-Forwarded-For": "x" * 60_000, "X-Forwarded-Host": "evil.example"}
    )


class Drips:
    """Connections that bring nothing, or a byte now and then: heads, and bodies of somebody without a token."""

    def __init__(self, target: Target) -> None:
        self._lines = [socket.create_connection(target.address, timeout=60) for _ in range(_CONNECTIONS)]
        for at, line in enumerate(self._lines):
            line.sendall(_DRIPPED[at % len(_DRIPPED)])

    @property
    def connections(self) -> int:
        """Those that were not closed when it was last looked."""
        return len(self._lines)

    def all_are_closed(self) -> bool:
        """Whether the service has got rid of all of them. Each is sent a byte more, as a slow client would."""
        left = []
        for line in self._lines:
            try:
                line.sendall(b"x")
                line.setblocking(False)
                while line.recv(2**16):
                    pass
                line.close()
            except BlockingIOError:
                line.setblocking(True)
                left.append(line)
            except OSError:
                line.close()
        self._lines = left
        return not left


_DRIPPED = (
    b"",
    b"GET /v1/stu",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: ",
    b"\r\n",
    b"POST /v1/studies HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n",
    b"PUT /v1/datasets/a/files/a.csv HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1000\r\n",
)
_GET = "GET /v1/tokens HTTP/1.1\r\nHost: {host}\r\n"
_POST = "POST /v1/studies HTTP/1.1\r\nHost: {host}\r\n"
_HEADS: tuple[tuple[str, str, bytes], ...] = (
    (
        "a length and chunks",
        _POST + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n" + _SMUGGLED,
        b"",
    ),
    (
        "chunks and a length",
        _POST + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\nConnection: close\r\n\r\n0\r\n\r\n" + _SMUGGLED,
        b"",
    ),
    ("chunks with a space", _POST + "Transfer-Encoding : chunked\r\nConnection: close\r\n\r\n0\r\n\r\n", b""),
    ("chunks that are none", _POST + "Transfer-Encoding: xchunked\r\nConnection: close\r\n\r\n0\r\n\r\n", b""),
    (
        "chunks twice",
        _POST + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\nConnection: close\r\n\r\n0\r\n\r\n",
        b"",
    ),
    ("two lengths", _POST + "Content-Length: 5\r\nContent-Length: 60\r\nConnection: close\r\n\r\nabcde" + _SMUGGLED, b""),
    ("a negative length", _POST + "Content-Length: -1\r\nConnection: close\r\n\r\n", b""),
    ("a length with a sign", _POST + "Content-Length: +5\r\nConnection: close\r\n\r\nabcde", b""),
    ("a length of many digits", _POST + "Content-Length: " + "9" * 400 + "\r\nConnection: close\r\n\r\n", b""),
    ("a chunk of many digits", _POST + "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + "f" * 40 + "\r\nx", b""),
    ("a negative chunk", _POST + "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n-1\r\nx\r\n0\r\n\r\n", b""),
    ("a folded header", _GET + "X: a\r\n b\r\nConnection: close\r\n\r\n", b""),
    ("a folded token", _GET + "Authorization:\r\n Bearer wrong\r\nConnection: close\r\n\r\n", b""),
    ("a header without a name", _GET + ": x\r\nConnection: close\r\n\r\n", b""),
    ("a name with a space", _GET + "Authorization : Bearer {token}\r\nConnection: close\r\n\r\n", b""),
    ("a name with NUL", _GET + "X\0: a\r\nConnection: close\r\n\r\n", b""),
    (
        "line feeds alone",
        "GET /v1/tokens HTTP/1.1\nHost: {host}\nX: y\rAuthorization: Bearer {token}\nConnection: close\n\n",
        b"",
    ),
    ("a huge header", _GET + "X: " + "x" * 100_000 + "\r\nConnection: close\r\n\r\n", b""),
    ("thousands of headers", _GET + "X: 1\r\n" * 20_000 + "Connection: close\r\n\r\n", b""),
    ("no host", "GET /v1/tokens HTTP/1.1\r\nConnection: close\r\n\r\n", b""),
    ("two hosts", _GET + "Host: evil.example\r\nConnection: close\r\n\r\n", b""),
    ("an absolute address", "GET http://evil.example/v1/tokens HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n", b""),
    ("an authority for a path", "CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n", b""),
    ("an asterisk for a path", "OPTIONS * HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n", b""),
    ("HTTP/0.9", "GET /v1/tokens\r\n\r\n", b""),
    ("HTTP/1.0", "GET /v1/tokens HTTP/1.0\r\n\r\n", b""),
    ("HTTP/9.9", "GET /v1/tokens HTTP/9.9\r\nHost: a\r\nConnection: close\r\n\r\n", b""),
    ("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0\0\0\4\0\0\0\0\0"),
    ("TLS", "", b"\x16\x03\x01\x02\0\1\0\1\xfc\3\3" + b"x" * 200),
    (
        "WebSocket",
        _GET + "Connection: upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n\r\n",
        b"",
    ),
    ("h2c", _GET + "Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n", b""),
    ("nothing that is text", "", b"\xff" * 70_000),
)
