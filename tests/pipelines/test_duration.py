from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.duration import duration

SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        *(
            (0, "0.0 s"),
            (4.16, "4.2 s"),
            (99.4, "99.4 s"),
            (99.5, "2 min"),
            (725, "12 min"),
            (5969, "99 min"),
        ),
        *(
            (5970, "1 h 40 min"),
            (12_000, "3 h 20 min"),
            (10_800, "3 h 00 min"),
            (36_000_000, "10,000 h 00 min"),
        ),
    ],
)
def test_by_hand(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@given(st.floats(0, 1e8))
def test_what_is_said_is_what_it_takes(seconds: float) -> None:
    """To a tenth of a second below 100, to half a minute above."""
    said = duration(seconds)
    parts = re.findall(r"([\d,.]+) (s|min|h)", said)
    assert " ".join(f"{n} {unit}" for n, unit in parts) == said
    total = sum(float(n.replace(",", "")) * SECONDS[unit] for n, unit in parts)
    assert abs(total - seconds) <= (0.0501 if seconds < 99.5 else 30.001)
