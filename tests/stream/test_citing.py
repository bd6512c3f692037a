"""Cited spans, by hand and against what they promise."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from videoprune.stream.citing import cited_spans


def test_neighbours_are_one_span_and_the_strongest_comes_first():
    steps = [(float(i), i + 0.5) for i in range(8)]
    assert cited_spans(steps, [0, 1, 0, 4, 5, 0, 6, 5]) == ((6.0, 7.5),)
    assert cited_spans(steps, [0, 1, 0, 7, 7, 0, 9, 1]) == ((6.0, 6.5), (4.0, 4.5))
    assert cited_spans(steps, [5, 5, 6, 0, 0, 0, 5, 5]) == ((6.0, 7.5), (2.0, 2.5))
    assert cited_spans(steps, [5, 5, 6, 0, 0, 0, 5, 5], most=1) == ((6.0, 7.5),)
    assert cited_spans(steps, [0, 1, 0, 1, 0, 0, 9, 1]) == ((6.0, 6.5),)


def test_of_equal_ones_the_later():
    assert cited_spans([(0.0, 1.0), (5.0, 6.0), (8.0, 9.0)], [3, 3, 0]) == ((5.0, 6.0),)


def test_nothing_rests_on_nothing():
    assert cited_spans([], []) == ()
    assert cited_spans([(0.0, 1.0)], [0]) == ()


@given(st.lists(st.integers(0, 9), max_size=20))
def test_the_fewest_steps_with_half_of_the_tokens(tokens):
    steps = [(float(i), i + 0.5) for i in range(len(tokens))]
    spans = cited_spans(steps, tokens, most=99)
    chosen = [i for i in range(len(tokens)) if any(a <= i <= b for a, b in spans)]
    assert 2 * sum(tokens[i] for i in chosen) >= sum(tokens)
    ordered = sorted(tokens, reverse=True)
    fewest = next(k for k in range(len(tokens) + 1) if 2 * sum(ordered[:k]) >= sum(tokens))
    assert len(chosen) == fewest
