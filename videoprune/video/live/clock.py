"""From presentation times (PTS), which may be missing, jump, wrap or start anew, to seconds that only ascend. Pure.

All times are seconds. now: since the source's start, on a clock that never runs backwards.
"""

from __future__ import annotations

# Between frames that would otherwise share a time.
STEP = 1e-6
# How fast the camera's clock may fall behind ours. Crystals are within 1e-4.
_DRIFT = 5e-4
# A frame that is later than this, against those before it, tells of a jump and not of a slow network.
_LATE = 3.0
# Frames of a recording that go back by less than this were shown already; by more: its times start anew.
_OVERLAP = 1.0


class ArrivalClock:
    """For cameras: a frame is as old as its PTS says, measured against the frame that came through quickest.

    So a frame that the network held back keeps its true time, a burst of old frames at the start lies in the past,
    and no frame lies in the future. Where the PTS jump, the time of arrival counts and the measure starts anew.
    after: the last time given by a clock before this one.
    """

    def __init__(self, after: float | None = None) -> None:
        self._last = after
        self._offset: float | None = None  # arrival minus PTS of the quickest frame
        self._pts = self._now = 0.0

    def at(self, pts: float | None, now: float) -> float:
        """Seconds of the frame that arrived at `now`: above all given before."""
        seconds = now if pts is None else self._shown(pts, now)
        if self._last is not None:
            seconds = max(seconds, self._last + STEP)
        self._last = seconds
        return seconds

    def _shown(self, pts: float, now: float) -> float:
        offset = now - pts
        known = None if self._offset is None else self._offset + _DRIFT * (now - self._now)
        if known is None or pts <= self._pts or not known < offset < known + _LATE:
            self._offset, self._pts, self._now = offset, pts, now
            return now
        self._offset, self._pts, self._now = known, pts, now
        return min(pts + known, now)


class PlayClock:
    """For recordings and playlists: a frame's time is its PTS less the first one's, whenever it arrives.

    origin: the PTS that is second 0; None: such that the first frame lies at `begin`. jump: a gap longer than this
    is none, but new times. interval: between frames, where their PTS do not say.
    """

    def __init__(
        self, *, begin: float = 0.0, origin: float | None = None, jump: float = 3600.0, interval: float = 0.04
    ) -> None:
        self.origin = origin
        self._begin, self._jump, self._interval = begin, jump, interval
        self._last: float | None = None

    def at(self, pts: float | None, now: float = 0.0) -> float | None:
        """Seconds of the next frame, above all given before; None for one that was shown already.

        now: of a playlist that grows, seconds since the source's start: it cannot be much later than its frames.
        """
        following = self._begin if self._last is None else max(self._last + self._interval, now)
        if pts is not None and self.origin is None:
            self.origin = pts - following
        seconds = following if pts is None or self.origin is None else pts - self.origin
        if self._last is not None:
            if self._last - _OVERLAP < seconds <= self._last:
                return None
            if not (self._last < seconds <= self._last + self._jump and seconds > now - _LATE):
                assert pts is not None
                self.origin, seconds = pts - following, following
        self._last = seconds
        return seconds
