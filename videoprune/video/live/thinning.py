"""Which frames of a stream to keep for a number of frames per second. Pure."""

from __future__ import annotations

import math

# Times such as 0.1 + 0.2 must still open the span at 0.3, as in `sample`.
_SLACK = 1e-6


class Thinning:
    """Keeps the first frame in each span of 1 / fps seconds, counted from second 0; all of them for None.

    after: seconds of the last frame kept before, if this goes on from there.
    """

    def __init__(self, fps: float | None, after: float | None = None) -> None:
        if fps is not None and not (math.isfinite(fps) and fps > 0):
            raise ValueError(f"fps={fps}; allowed: None or a finite number above 0")
        self._fps = fps
        self._last = -math.inf if after is None else self._span(after)

    def wants(self, seconds: float) -> bool:
        """Whether the span of `seconds` has no frame yet, nor one after it."""
        return self._span(seconds) > self._last

    def keep(self, seconds: float) -> None:
        """The frame at `seconds` is kept."""
        self._last = max(self._last, self._span(seconds))

    def _span(self, seconds: float) -> float:
        return seconds if self._fps is None else math.floor((seconds + _SLACK) * self._fps)
