"""How requests are read off the wire: with httptools, which is fast and knows no limits, within limits."""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES = 64 * 1024
"""The longest head, and the most of anything else around a body: the trailers, what stands beside a chunk's length."""
_MOST_AHEAD = 100
"""Requests of one connection that wait until those before them are answered; the parser makes them as fast as they are sent."""
_PIECE_BYTES = 4 * 1024
"""Given to the parser at once. Where in a piece a head ended it does not say: the head after it may be longer by as much."""


class BoundedProtocol(HttpToolsProtocol):
    """Refuses a head that is too long, or too many requests at once, before the parser gets to see it. Speaks no WebSockets.

    A connection that brings nothing, or drips, is closed: there are only so many.
    """

    head_seconds = 20.0
    """From a connection's first moment, or a request's first byte, to the end of its head."""
    body_seconds = 30.0
    """How often it is looked whether a body comes on."""
    slowest_bytes = 3000
    """Of a body in that time."""
    lingering_seconds = 10.0
    """For a body that nobody waits for any more, as the answer was sent: a client that still sends has not read it yet."""

    _unfinished_bytes = 0
    """Read since the parser last came to something: the end of a head, a part of a body, the end of a request."""
    _is_in_head = True
    _is_in_request = False
    """After a head, and before the body's end."""
    _body_bytes = 0
    """Since it was last looked."""
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]  # uvicorn's own signature
        self._expect(self.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._is_in_request and self._deadline is None:
            self._expect(self.head_seconds)
        self._body_bytes += len(data)
        begin = 0
        while begin < len(data) and not self.transport.is_closing():
            room = HEAD_BYTES - self._unfinished_bytes
            if not room:
                self.send_400_response(f"The head of a request may have {HEAD_BYTES} bytes: send fewer or shorter headers.")
            elif len(self.pipeline) > _MOST_AHEAD:
                self.send_400_response("Too many requests at once: wait for the answers to those before.")
            else:
                piece = data[begin : begin + min(room, _PIECE_BYTES)]
                begin += len(piece)
                self._unfinished_bytes += len(piece)
                super().data_received(piece)

    def on_message_begin(self) -> None:
        self._is_in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_in_head:  # a trailer is no header: it could pass for one that was checked before it came
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._is_in_head, self._unfinished_bytes = False, 0
        self._is_in_request = True
        self._expect(self.body_seconds)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unfinished_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unfinished_bytes = 0
        self._is_in_request = False
        self._expect(None)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._is_in_request and self.cycle.response_complete:
            self._expect(self.lingering_seconds)

    def _expect(self, seconds: float | None) -> None:
        """Look again then, and not at what was to be looked at before; None for never."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._body_bytes = 0
        self._deadline = None if seconds is None else self.loop.call_later(seconds, self._look)

    def _look(self) -> None:
        self._deadline = None
        if self.transport.is_closing():
            return
        is_awaited = self._is_in_request and not self.cycle.response_complete
        if is_awaited and (self._body_bytes >= self.slowest_bytes or self.flow.read_paused):
            self._expect(self.body_seconds)  # it comes on, or waits for us
        else:
            self.transport.close()
