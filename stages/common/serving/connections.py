"""HTTP connections that wait for nobody for ever: who is slow is hung up on, and slow ones take no
place but each other's.
"""

from collections import OrderedDict
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 10.0
"""Within which a request's headers have to come, from its first byte on (of the first request, from
the connection on).
"""
KEEP_ALIVE_SECONDS = 60
"""How long a connection without a request stays open: clients keep theirs as long, and more."""
WRITE_SECONDS = 30.0
"""How long a client may leave what it was sent unread, once buffers are full."""
SLOW_AT_MOST = 256
"""Connections that may wait for their client at once: for the end of headers or body, for the next
request, or for their answer to be read.
"""


class Patient(H11Protocol):
    """A connection; of too many that wait for their clients the one that waits longest is closed.
    Answers under way count among none.
    """

    waiting: "OrderedDict[Patient, None]" = OrderedDict()
    """Those that wait for their client, longest first; all of this process."""

    def connection_made(self, transport: Any) -> None:
        """Wait for the first headers."""
        super().connection_made(transport)
        self._headers_due = self.loop.call_later(HEADER_SECONDS, self._hang_up)
        self._write_due: Any = None
        self._waits()

    def data_received(self, data: bytes) -> None:
        """Read, and see whether a whole request is there now."""
        begins = self.cycle is None or self.cycle.response_complete
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._headers_due.cancel()
            if self.cycle.more_body:
                self._waits()
            else:
                self.waiting.pop(self, None)
        elif begins and self._headers_due.cancelled():  # the beginning of the next request's headers
            self._headers_due = self.loop.call_later(HEADER_SECONDS, self._hang_up)

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self._waits()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Wait until the client reads on."""
        super().pause_writing()
        self._write_due = self._write_due or self.loop.call_later(WRITE_SECONDS, self._hang_up)
        self._waits()

    def resume_writing(self) -> None:
        """Go on."""
        super().resume_writing()
        if self._write_due:
            self._write_due.cancel()
        self._write_due = None
        if self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body:
            self.waiting.pop(self, None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Count no more."""
        self.waiting.pop(self, None)
        for due in (self._headers_due, self._write_due):
            if due:
                due.cancel()
        super().connection_lost(exc)

    def _waits(self) -> None:
        """Count among those that wait; the one that has waited longest goes where they are too
        many.
        """
        self.waiting.setdefault(self)
        while len(self.waiting) > SLOW_AT_MOST:
            longest, _ = self.waiting.popitem(last=False)
            longest._hang_up()

    def _hang_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.abort()
