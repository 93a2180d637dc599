"""How requests are read off the wire: with httptools, which is fast and knows no limits, within limits."""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES = 64 * 1024
"""The longest head, and the most of anything else around a body: the trailers, what stands beside a chunk's length."""
_MOST_AHEAD = 100
"""Requests of one connection that wait until those before them are answered; the parser makes them as fast as they are sent."""
_PIECE_BYTES = 4 * 1024
"""Given to the parser at once. Where in a piece a head ended it does not say: the head after it may be longer by as much."""


class BoundedProtocol(HttpToolsProtocol):
    """Refuses a head that is too long, or too many requests at once, before the parser gets to see it. Speaks no WebSockets."""

    _unfinished_bytes = 0
    """Read since the parser last came to something: the end of a head, a part of a body, the end of a request."""
    _is_in_head = True

    def data_received(self, data: bytes) -> None:
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
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unfinished_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unfinished_bytes = 0
        super().on_message_complete()
