"""Requests as bytes on a socket, long and odd ones: what the parser is spared, and what it has to take."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPResponse

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.protocol import HEAD_BYTES, BoundedProtocol
from service.app import configure

pytestmark = pytest.mark.integration

Address = tuple[str, int]
LONG = 70 * 1024
_GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
_POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
_LAST = b"Connection: close\r\n\r\n"
_CHUNKED = b"Transfer-Encoding: chunked\r\n"


async def _tells_what_it_got(scope: Scope, receive: Receive, send: Send) -> None:
    size, more = 0, scope["type"] == "http"
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    told = b"%d bytes; %s" % (size, b" ".join(name for name, _ in scope["headers"]))
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(told))]})
    await send({"type": "http.response.body", "body": told})


async def _answers_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    """Without a look at the body."""
    await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


@contextmanager
def serving(app: ASGIApp, protocol: type[BoundedProtocol] = BoundedProtocol) -> Iterator[Address]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = configure(app, listening.fileno())
        config.http, config.lifespan = protocol, "off"
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            yield listening.getsockname()
        finally:
            server.should_exit = True
            thread.join(60)


@pytest.fixture(scope="module")
def address() -> Iterator[Address]:
    with serving(_tells_what_it_got) as address:
        yield address


class _Hasty(BoundedProtocol):
    """Waits for nobody."""

    head_seconds = 0.3
    body_seconds = 0.3
    lingering_seconds = 0.3
    slowest_bytes = 100


@pytest.fixture(scope="module")
def hasty() -> Iterator[Address]:
    with serving(_tells_what_it_got, _Hasty) as address:
        yield address


def is_let_go(address: Address, begun: bytes, dripped: bytes = b"") -> bool:
    """Whether a connection that begins like this, and goes on a byte at a time, is closed by the other side."""
    with socket.create_connection(address, timeout=60) as line, contextlib.suppress(ConnectionError):
        line.sendall(begun)
        until = time.monotonic() + 30
        while time.monotonic() < until:
            line.settimeout(0.1)
            try:
                if not line.recv(2**16):
                    return True
            except TimeoutError:
                line.sendall(dripped)
        return False
    return True


def heard(address: Address, *pieces: bytes) -> bytes:
    """All that comes back on a connection before it is closed."""
    with socket.create_connection(address, timeout=60) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(ConnectionError):  # what is refused is not read to its end
            for piece in pieces:
                line.sendall(piece)
        return to_the_end(line)


def to_the_end(line: socket.socket) -> bytes:
    """All that comes until the other side closes the connection."""
    answer = b""
    with contextlib.suppress(ConnectionError):
        while more := line.recv(2**16):
            answer += more
    return answer


def answered(line: socket.socket) -> int:
    """The status of the next answer, once it is there with its body, which may come after its head."""
    answer = HTTPResponse(line)
    answer.begin()
    answer.read()
    return answer.status


def in_pieces(request: bytes, size: int) -> Sequence[bytes]:
    return [request[begin : begin + size] for begin in range(0, len(request), size)]


_ONE_LINE = _GET + b"X: " + b"x" * LONG + b"\r\n" + _LAST
_MANY_LINES = _GET + b"X: 1\r\n" * (LONG // 6) + _LAST
_ADDRESS = b"GET /" + b"x" * LONG + b" HTTP/1.1\r\nHost: a\r\n" + _LAST
_UNFINISHED = _GET + b"X: " + b"x" * LONG
_TRAILER = _POST + _CHUNKED + b"\r\n1\r\nx\r\n0\r\nX: " + b"x" * LONG + b"\r\n\r\n"
_TRAILERS = _POST + _CHUNKED + b"\r\n1\r\nx\r\n0\r\n" + b"X: 1\r\n" * (LONG // 6) + b"\r\n"
_EXTENSION = _POST + _CHUNKED + b"\r\n1;x=" + b"x" * LONG + b"\r\nx\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    "request_bytes",
    [_ONE_LINE, _MANY_LINES, _ADDRESS, _UNFINISHED, _TRAILER, _TRAILERS, _EXTENSION, b"\r\n" * LONG],
    ids=["one line", "many lines", "address", "unfinished", "trailer", "trailers", "chunk extension", "blank lines"],
)
@pytest.mark.parametrize("size", [10 * LONG, 1000], ids=["at once", "in pieces"])
def test_a_head_or_a_trailer_that_is_too_long_is_refused(address: Address, request_bytes: bytes, size: int) -> None:
    answer = heard(address, *in_pieces(request_bytes, size))
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n"), answer[:200]
    assert b"send fewer or shorter headers" in answer
    assert b"200 OK" not in answer


def test_a_second_request_on_a_connection_is_measured_by_itself(address: Address) -> None:
    padded = _GET + b"X: " + b"x" * (HEAD_BYTES - 1000) + b"\r\n"
    assert heard(address, padded + b"\r\n", padded + b"\r\n", padded + _LAST).count(b"HTTP/1.1 200 OK") == 3


@pytest.mark.parametrize("first", [_GET + b"\r\n", _POST + b"Content-Length: 5000\r\n\r\n" + b"x" * 5000], ids=["GET", "POST"])
def test_a_second_request_that_is_too_long_is_refused_as_a_first_one_is(address: Address, first: bytes) -> None:
    with socket.create_connection(address, timeout=60) as line:
        line.sendall(first)
        assert answered(line) == 200
        line.sendall(_ONE_LINE)
        assert to_the_end(line).startswith(b"HTTP/1.1 400 Bad Request")
    assert heard(address, first + _ONE_LINE).count(b"HTTP/1.1 400 Bad Request") == 1


def test_a_head_just_below_the_limit_is_read_and_the_body_after_it_counts_for_nothing(address: Address) -> None:
    rest = b"\r\nContent-Length: 100000\r\n" + _LAST
    begun = _POST + b"X: "
    head = begun + b"x" * (HEAD_BYTES - len(begun) - len(rest)) + rest
    assert len(head) == HEAD_BYTES
    for size in (10 * LONG, 1000):
        assert b"100000 bytes; host x" in heard(address, *in_pieces(head + b"y" * 100_000, size))


@pytest.mark.parametrize("chunk", [0, 10, 200_000], ids=["with its length", "in small chunks", "in large chunks"])
def test_a_large_body_is_read(address: Address, chunk: int) -> None:
    body, length = b"x" * 2_000_000, b"Content-Length: 2000000\r\n"
    if chunk:
        body, length = b"%x\r\n%s\r\n" % (chunk, b"x" * chunk) * (2_000_000 // chunk) + b"0\r\n\r\n", _CHUNKED
    assert b"2000000 bytes" in heard(address, _POST + length + _LAST + body)


def test_a_trailer_is_no_header(address: Address) -> None:
    answer = heard(address, _POST + _CHUNKED + _LAST + b"1\r\nx\r\n0\r\nAuthorization: late\r\n\r\n")
    assert answer.endswith(b"1 bytes; host transfer-encoding connection")


def test_requests_sent_ahead_are_answered_in_turn_but_not_any_number_of_them(address: Address) -> None:
    assert heard(address, (_GET + b"\r\n") * 50 + _GET + _LAST).count(b"HTTP/1.1 200 OK") == 51
    answer = heard(address, (_GET + b"\r\n") * 2000)
    assert b"wait for the answers to those before" in answer
    assert answer.count(b"HTTP/1.1 200 OK") < 2000


@pytest.mark.parametrize(
    ("begun", "dripped"),
    [
        (b"", b""),
        (b"GET /", b"x"),
        (b"", b"\r\n"),
        (_GET + b"X: ", b"x"),
        (_GET + b"\r\n", b"\r\n"),
        (_GET + b"\r\n" + b"GET /", b"x"),
        (_POST + b"Content-Length: 1000000\r\n\r\n", b"x"),
        (_POST + _CHUNKED + b"\r\n", b"1\r\nx\r\n"),
    ],
    ids=["nothing", "a first line", "blank lines", "a header", "after an answer", "a second head", "a body", "chunks"],
)
def test_a_connection_that_drips_is_let_go(hasty: Address, begun: bytes, dripped: bytes) -> None:
    assert is_let_go(hasty, begun, dripped)


def test_a_body_that_comes_on_is_waited_for(hasty: Address) -> None:
    with socket.create_connection(hasty, timeout=60) as line:
        line.sendall(_POST + b"Content-Length: 20000\r\nConnection: close\r\n\r\n" + b"x" * 1000)
        for _ in range(19):
            time.sleep(0.05)
            line.sendall(b"x" * 1000)
        assert b"20000 bytes" in to_the_end(line)


def is_broken_off(line: socket.socket) -> bool:
    """Whether the other side stops to take what is sent."""
    for _ in range(200):
        try:
            line.sendall(b"x" * 10_000)
        except ConnectionError:
            return True
        time.sleep(0.02)
    return False


def test_a_body_that_nobody_waits_for_is_not_read_for_ever() -> None:
    with serving(_answers_at_once, _Hasty) as address, socket.create_connection(address, timeout=60) as line:
        line.sendall(_POST + b"Content-Length: 10000000000\r\n\r\n")
        assert line.recv(2**16).startswith(b"HTTP/1.1 401")
        assert is_broken_off(line)


def test_an_answer_that_takes_its_time_is_not_cut_off() -> None:
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(1)
        await _tells_what_it_got(scope, receive, send)

    with serving(slow, _Hasty) as address:
        assert b"200 OK" in heard(address, _GET + _LAST)
