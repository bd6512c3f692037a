"""HTTP connections that must say what they want in time: a client that sends a byte now and then is let go."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


def protocol(seconds: float) -> type[H11Protocol]:
    """For `uvicorn.Config(http=...)`. seconds: from the connection, or the answer before, to the end of the headers."""

    class Timely(H11Protocol):
        _late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._late = self.loop.call_later(seconds, transport.abort)

        def handle_events(self) -> None:
            super().handle_events()
            if self.conn.their_state is not h11.IDLE:
                self._on_time()
            elif self._late is None:
                self._late = self.loop.call_later(seconds, self.transport.abort)

        def handle_websocket_upgrade(self, event: Any) -> None:
            self._on_time()
            super().handle_websocket_upgrade(event)

        def connection_lost(self, exc: Exception | None) -> None:
            self._on_time()
            super().connection_lost(exc)

        def _on_time(self) -> None:
            if self._late is not None:
                self._late.cancel()
                self._late = None

    return Timely
