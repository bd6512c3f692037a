"""A film that begins anew when it ends, as one stream whose seconds only ascend."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from videoprune.video.live import LiveFrame, LiveSource, SourceStats

_GAP = 0.5  # seconds between the last frame and the first


class LoopedFrames:
    """open: the source from its beginning. A source that gives no frame is not opened again."""

    def __init__(self, open: Callable[[], LiveSource]) -> None:
        self._open = open
        self._lock = threading.Lock()
        self._source, self._closed = open(), False
        self._before = SourceStats()  # of the rounds that are over
        self._shift, self._last = 0.0, 0.0

    def next(self, timeout: float) -> LiveFrame | None:
        frame = self._source.next(timeout)
        if frame is not None:
            self._last = frame.seconds + self._shift
            return replace(frame, seconds=self._last)
        with self._lock:
            stats = self._source.stats()
            if stats.state == "ended" and stats.taken and not self._closed and self._source.ended:
                self._before = self._all(stats)
                self._source.close()
                self._source, self._shift = self._open(), self._last + _GAP
        return None

    @property
    def ended(self) -> bool:
        stats = self._source.stats()
        return self._source.ended and not (stats.state == "ended" and stats.taken)

    def stats(self) -> SourceStats:
        with self._lock:
            return self._all(self._source.stats())

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._source.close()

    def _all(self, now: SourceStats) -> SourceStats:
        names = ("received", "taken", "dropped", "thinned", "broken")
        sums = {name: getattr(self._before, name) + getattr(now, name) for name in names}
        return replace(now, **sums)
