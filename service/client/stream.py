"""Server-sent events: lines to messages (WHATWG HTML, section 9.2.6)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Message:
    """One event of the stream. `id` is None where the server gave none."""

    event: str
    data: str
    id: str | None


def lines_of(chunks: Iterable[bytes]) -> Iterator[str]:
    """Whole lines of a byte stream, split at line feeds alone: `str.splitlines` would also split inside a message's text."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.removesuffix(b"\r").decode("utf-8", errors="replace")


def messages(lines: Iterable[str]) -> Iterator[Message | None]:
    """The messages in a stream's lines, and None for each comment: the service is alive, but has nothing to tell.

    A message that its end cut off, before the empty line, is dropped.
    """
    event, parts, identifier = "message", list[str](), None
    for line in lines:
        if line.startswith(":"):
            yield None
            continue
        if not line:
            if parts:
                yield Message(event, "\n".join(parts), identifier)
            event, parts, identifier = "message", [], None
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "event":
                event = value
            case "data":
                parts.append(value)
            case "id":
                identifier = value
            case _:
                pass
