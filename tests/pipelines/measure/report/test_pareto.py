"""Fronts against a slow comparison of all pairs."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.measure.report.pareto import pareto

POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=14)


def beaten(p, q):
    return q[0] <= p[0] and q[1] >= p[1] and q != p


@given(POINTS)
def test_front_is_what_no_other_beats(points):
    found = pareto(points)
    assert sorted(found) == [i for i, p in enumerate(points) if not any(beaten(p, q) for q in points)]
    assert [points[i][0] for i in found] == sorted(points[i][0] for i in found)


def test_front_by_hand():
    #        fast, bad   dominated   middle     slow, best  twin
    assert pareto([(1, 0.2), (2, 0.1), (2, 0.5), (3, 0.9), (3, 0.9)]) == [0, 2, 3, 4]
    assert pareto([]) == []
    assert pareto([(math.inf, 1.0), (1.0, 1.0)]) == [1]
    with pytest.raises(ValueError, match="NaN"):
        pareto([(1.0, math.nan)])
