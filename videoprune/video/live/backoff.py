"""How long to wait before the next try: longer each time, and never all at once."""

from __future__ import annotations

import math
import random


class Backoff:
    """Waits of `first` seconds, doubled at each try up to `longest`, each shortened by up to a half at random.

    Chance keeps many that lost the same camera from coming back together. Raises ValueError for impossible waits.
    """

    def __init__(
        self, first: float = 0.5, longest: float = 30.0, *, chance: random.Random | None = None
    ) -> None:
        if not (math.isfinite(longest) and 0 < first <= longest):
            raise ValueError(
                f"first={first}, longest={longest}; allowed: finite seconds, 0 < first <= longest"
            )
        self._first, self._longest = first, longest
        self._chance = chance or random.Random()
        self._next = first

    def wait(self) -> float:
        """Seconds to wait now, at least half of `first`."""
        whole, self._next = self._next, min(2 * self._next, self._longest)
        return whole * self._chance.uniform(0.5, 1.0)

    def worked(self, seconds: float) -> None:
        """A connection gave frames for so long. Where that is no longer than the next wait, nothing changes."""
        if seconds > self._next:
            self._next = self._first
