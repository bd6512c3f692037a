"""One place for one frame: the newest wins, and what it replaces is counted."""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from typing import Self

from videoprune.video.live.frame import FINAL, LiveFrame, SourceStats, State


class NewestFrame:
    """The taker's side of every source. A context manager.

    keep_all: a frame waits until the one before it was taken, so none is dropped (for recordings).
    """

    def __init__(self, *, keep_all: bool = False) -> None:
        self._keep_all = keep_all
        self._changed = threading.Condition()
        self._slot: LiveFrame | None = None
        self._stats = SourceStats()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def next(self, timeout: float) -> LiveFrame | None:
        """The newest frame not taken yet; None: none came within `timeout` seconds, or none will."""
        if not (math.isfinite(timeout) and timeout >= 0):
            raise ValueError(f"timeout={timeout}; allowed: finite seconds from 0 on")
        with self._changed:
            self._changed.wait_for(lambda: self._slot is not None or self._final, timeout)
            frame, self._slot = self._slot, None
            if frame is not None:
                self._stats = replace(self._stats, taken=self._stats.taken + 1)
                self._changed.notify_all()
            return frame

    @property
    def ended(self) -> bool:
        """No frame will come any more."""
        with self._changed:
            return self._final and self._slot is None

    def stats(self) -> SourceStats:
        with self._changed:
            return replace(self._stats, waiting=int(self._slot is not None))

    def close(self) -> None:
        """Give up the frame that waits; `next` returns None from now on. More than once is allowed."""
        with self._changed:
            if self._slot is not None:
                self._slot = None
                self._stats = replace(self._stats, dropped=self._stats.dropped + 1)
            if not self._final:
                self._stats = replace(self._stats, state="closed")
            self._changed.notify_all()

    @property
    def _final(self) -> bool:
        return self._stats.state in FINAL

    def _put(self, frame: LiveFrame) -> bool:
        """Offer a frame; False where it comes after the end."""
        with self._changed:
            if self._keep_all:
                self._changed.wait_for(lambda: self._slot is None or self._final)
            if self._final:
                return False
            self._stats = replace(
                self._stats,
                state="live",
                received=self._stats.received + 1,
                dropped=self._stats.dropped + (self._slot is not None),
            )
            self._slot = frame
            self._changed.notify_all()
            return True

    def _count(self, *, broken: int = 0, thinned: int = 0, reconnects: int = 0) -> None:
        with self._changed:
            s = self._stats
            self._stats = replace(
                s,
                broken=s.broken + broken,
                thinned=s.thinned + thinned,
                reconnects=s.reconnects + reconnects,
            )

    def _become(self, state: State | None = None, reason: str | None = None) -> None:
        """Note a new state, unless the source has ended, and why."""
        with self._changed:
            if self._final:
                return
            self._stats = replace(
                self._stats,
                state=state or self._stats.state,
                reason=self._stats.reason if reason is None else reason,
            )
            self._changed.notify_all()
