"""Means of figures that come one by one against means of all at once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videoprune.eval.mean import Mean

NUMBERS = st.integers(-1000, 1000) | st.floats(-1000, 1000)


def mean_of(values: list[Any]) -> Any:
    """The slow way: all of them in hand."""
    if isinstance(values[0], dict):
        keys = dict.fromkeys(key for v in values for key in v)
        return {key: mean_of([v[key] for v in values if key in v]) for key in keys}
    if isinstance(values[0], list):
        return [mean_of([v[i] for v in values]) for i in range(len(values[0]))]
    return pytest.approx(sum(values) / len(values), abs=1e-6)


@st.composite
def records(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Records of one form, in which any key may be missing."""
    lengths = {name: draw(st.integers(0, 3)) for name in "ab"}

    def record() -> dict[str, Any]:
        lists = {n: [draw(NUMBERS) for _ in range(k)] for n, k in lengths.items()}
        whole = {**lists, "number": draw(NUMBERS), "deep": {"x": draw(NUMBERS), "y": [lists["a"]]}}
        return {k: v for k, v in whole.items() if draw(st.booleans())}

    return [record() for _ in range(draw(st.integers(1, 5)))]


@given(records())
def test_one_by_one_equals_all_at_once(values: list[dict[str, Any]]) -> None:
    mean = Mean("tokens")
    for value in values:
        mean.add(value)
    assert mean.value() == mean_of(values)
    assert mean.count == len(values)


@pytest.mark.parametrize(
    ("first", "second", "name"),
    [
        ({"a": 1}, {"a": [1]}, r"tokens\.a=\[1\]"),
        ({"a": {"b": 1}}, {"a": {"b": "one"}}, r"tokens\.a\.b='one'"),
        ({"a": [1, 2]}, {"a": [1, None]}, r"tokens\.a\[1\]=None"),
        ({"a": [1, 2]}, {"a": [1]}, r"tokens\.a: lists of lengths \[1, 2\]"),
    ],
)
def test_what_does_not_fit_is_named(first: Any, second: Any, name: str) -> None:
    mean = Mean("tokens")
    mean.add(first)
    with pytest.raises(ValueError, match=name):
        mean.add(second)
