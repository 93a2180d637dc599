"""What a node's health check asks of its raylet, as bytes; tests/cluster asks a real one."""

import struct

import pytest

from service.execution.alive import question


def frames(sent: bytes) -> list[tuple[int, int, int, bytes]]:
    """Kind, flags, stream and payload of each frame of HTTP/2 after the preface."""
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    assert sent.startswith(preface)
    rest, found = sent[len(preface) :], []
    while rest:
        length = int.from_bytes(rest[:3], "big")
        kind, flags, stream = struct.unpack(">BBI", rest[3:9])
        found.append((kind, flags, stream, rest[9 : 9 + length]))
        rest = rest[9 + length :]
    return found


def headers(block: bytes) -> dict[str, str]:
    """The fields of a header block without compression."""
    found = {}
    while block:
        assert block[0] == 0, "a literal, with a new name, that nobody remembers"
        name, block = string(block[1:])
        found[name], block = string(block)
    return found


def string(block: bytes) -> tuple[str, bytes]:
    """The string at its begin, and what comes after it: lengths from 127 on take several bytes of seven bits each."""
    size, at = block[0], 1
    while size >= 127 and (at == 1 or block[at - 1] >= 128):
        size += (block[at] % 128) << (7 * (at - 1))
        at += 1
    return block[at : at + size].decode(), block[at + size :]


def test_the_question_is_one_call_without_arguments_on_one_stream() -> None:
    settings, begun, data = frames(question("127.0.0.1:6380", "t" * 64))
    assert settings == (4, 0, 0, b"")
    assert begun[:3] == (1, 4, 1)
    assert data == (0, 1, 1, bytes(5)), "an empty message, and the end of the stream"
    sent = headers(begun[3])
    assert list(sent)[:3] == [":method", ":scheme", ":path"], "these come first"
    assert (sent["te"], sent["content-type"]) == ("trailers", "application/grpc")
    assert sent["authorization"] == f"Bearer {'t' * 64}"


def test_without_a_token_none_is_sent() -> None:
    assert "authorization" not in headers(frames(question("127.0.0.1:6380", ""))[1][3])


@pytest.mark.parametrize("length", [1, 119, 120, 247, 248, 5000])
def test_a_token_of_any_length_is_sent_whole(length: int) -> None:
    assert headers(frames(question("127.0.0.1:6380", "t" * length))[1][3])["authorization"] == f"Bearer {'t' * length}"
