"""Connections that give nothing for what they take: uvicorn alone would wait for them without end.

The other guards see requests whose head (request line and headers) is complete. What is slow, large or broken before
that ends here, and so does a client that does not read what it asked for.
"""

import asyncio
from typing import Any

from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from query.service.guards.headers import EVERYWHERE
from query.service.problems import problem

PATIENCE_S = 10.0
"""Seconds in which a head has to be complete, and for which a client may read nothing of what was sent."""
MOST_HEAD_BYTES = 64_000
MOST_PIPELINED = 16
"""Requests that a connection may send before the first is answered."""
MOST_UNREAD_BYTES = 500_000_000
"""That all connections together may hold. Responses wait there after their requests have left their places."""
MOST_CONNECTIONS = 800
"""Fewer than the files that a process may open by default."""


class GuardedConnection(HttpToolsProtocol):
    """One connection. It is closed if a head is slow or large, if nobody reads, or if there are too many of them."""

    def __init__(self, *args: Any, patience_s: float = PATIENCE_S, **kwargs: Any) -> None:
        """Wait for a head.

        Args:
            args: Of uvicorn.
            patience_s: As `PATIENCE_S`.
            kwargs: Of uvicorn.
        """
        super().__init__(*args, **kwargs)
        self._patience_s = patience_s
        self._head_timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None
        self._is_in_head = True
        self._num_bytes = 0  # received since the last whole head, and the last byte of a body
        self._num_unread = 0  # sent, when they were last counted
        self._refusal: tuple[int, str] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # noqa: D102
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
        self._head_timer = self.loop.call_later(self._patience_s, self._end_slow_head)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102
        for timer in (self._head_timer, self._unread_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:  # noqa: D102
        # by pieces, because a body may end early in what was read, and what follows it counts
        for start in range(0, len(data), MOST_HEAD_BYTES):
            if not self.transport.is_closing():
                self._piece_received(data[start : start + MOST_HEAD_BYTES])

    def _piece_received(self, data: bytes) -> None:
        self._num_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._num_bytes > MOST_HEAD_BYTES:
            self._refuse_large_head()
            self.send_400_response("")
        elif self._head_timer is None and not self._is_answering:
            # any byte ends uvicorn's wait for the next request, even the rest of a body that was answered before its
            # end; only a whole head or body ends ours
            self._head_timer = self.loop.call_later(self._patience_s, self._end_slow_head)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a header. What follows a body (trailers) is none: the guards have already looked at the headers."""
        if self._is_in_head:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:  # noqa: D102
        super().on_body(body)
        self._num_bytes = 0

    def on_headers_complete(self) -> None:
        """Let the head of a request pass, unless it is too large or the client is too far ahead.

        Raises:
            ValueError: Otherwise. The parser stops, and uvicorn calls `send_400_response`.
        """
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > MOST_HEAD_BYTES:
            self._refuse_large_head()
            raise ValueError
        if len(self.pipeline) >= MOST_PIPELINED:
            raise ValueError
        super().on_headers_complete()
        self._note_progress(is_in_head=False)

    def on_message_complete(self) -> None:  # noqa: D102
        super().on_message_complete()
        self._note_progress(is_in_head=True)

    def send_400_response(self, msg: str) -> None:
        """End the connection with a problem, after the requests before it are answered."""
        if self._is_in_head and self._is_answering:
            self.cycle.keep_alive = False
        elif not self._is_in_head and self.cycle.response_started:
            self.transport.close()
        else:
            self._end(*(self._refusal or (400, msg)))

    def timeout_keep_alive_handler(self) -> None:  # noqa: D102
        super().timeout_keep_alive_handler()
        self._watch_reader()  # the connection closes when all is read

    def pause_writing(self) -> None:  # noqa: D102
        super().pause_writing()
        if sum(one.transport.get_write_buffer_size() for one in self.connections) > MOST_UNREAD_BYTES:
            self.transport.abort()
        self._watch_reader()

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _note_progress(self, is_in_head: bool) -> None:
        self._is_in_head, self._num_bytes = is_in_head, 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse_large_head(self) -> None:
        part = "the line and the headers of the request" if self._is_in_head else "the trailers of the request"
        self._refusal = (431, f"{part} have more than {MOST_HEAD_BYTES} bytes")

    def _end_slow_head(self) -> None:
        self._head_timer = None
        if self._is_in_head and self._num_bytes and not self.transport.is_closing():
            self._end(408, f"the line and the headers of the request did not arrive within {self._patience_s:g} s")
        self.transport.close()

    def _watch_reader(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
        self._num_unread = self.transport.get_write_buffer_size()
        if self._num_unread:
            self._unread_timer = self.loop.call_later(self._patience_s, self._end_unread)

    def _end_unread(self) -> None:
        if self.transport.get_write_buffer_size() >= self._num_unread:
            self.transport.abort()
        self._watch_reader()  # a large image over a slow line may take its time

    def _end(self, status: int, detail: str) -> None:
        headers = {**EVERYWHERE, "Cross-Origin-Resource-Policy": "same-origin", "Cache-Control": "no-store"}
        response: Response = problem(status, detail, {**headers, "Connection": "close"})
        lines = [name + b": " + value + b"\r\n" for name, value in response.raw_headers]
        self.transport.write(b"".join([STATUS_LINE[status], *lines, b"\r\n", response.body]))
        self.transport.close()
