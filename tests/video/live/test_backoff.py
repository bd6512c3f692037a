from __future__ import annotations

import math
import random

import pytest

from videoprune.video.live.backoff import Backoff


def test_waits_double_up_to_the_longest_less_up_to_a_half() -> None:
    backoff, whole = Backoff(0.5, 30.0, chance=random.Random(0)), 0.5
    seen = set()
    for _ in range(2000):  # 2 to the power of so much would be no float
        wait = backoff.wait()
        assert whole / 2 <= wait <= whole
        seen.add(wait / whole)
        whole = min(2 * whole, 30.0)
    assert len(seen) > 1000  # by chance, not a fixed share
    assert min(seen) < 0.55
    assert max(seen) > 0.95


def test_only_a_connection_that_outlived_the_next_wait_begins_anew() -> None:
    backoff = Backoff(1.0, 100.0, chance=random.Random(0))
    waits = []
    for lived in (0.0, 0.5, 3.0, 15.9, 32.1, 0.0):
        waits.append(backoff.wait())
        backoff.worked(lived)
    wholes = [1, 2, 4, 8, 16, 1]
    assert all(w / 2 <= wait <= w for w, wait in zip(wholes, waits, strict=True))


@pytest.mark.parametrize(
    ("first", "longest"), [(0, 1), (-1, 1), (2, 1), (1, math.inf), (math.nan, 1), (1, math.nan)]
)
def test_impossible_waits_are_named(first: float, longest: float) -> None:
    with pytest.raises(ValueError, match="allowed: finite seconds, 0 < first <= longest"):
        Backoff(first, longest)
