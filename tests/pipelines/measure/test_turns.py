"""The harness: who is called when, and what becomes of those that refuse."""

from __future__ import annotations

import gc
import weakref

import pytest

from pipelines.measure.turns import explained, rotated, spread, take_turns


def test_everybody_is_warmed_up_then_takes_turns_in_another_order() -> None:
    called = []
    found = list(take_turns("abc", lambda label, n: called.append((label, n)) or n, runs=2))
    assert called == [("c", -1), ("a", -1), ("b", -1), *((x, 0) for x in "abc"), *((x, 1) for x in "bca")]
    assert [(t.label, t.number, t.value) for t in found] == [(*c, c[1]) for c in called[3:]]


def test_who_refuses_leaves_the_others_alone() -> None:
    def once(label: str, number: int) -> int:
        if (label, number) in {("a", -1), ("b", 1)}:
            raise RuntimeError(f"no room\nfor {label}")
        return number

    found = list(take_turns("abc", once, runs=3, refusals=(RuntimeError,)))
    assert [t.label for t in found if not t.reason] == ["b", "c", "c", "c"]
    assert [(t.label, t.number, t.reason) for t in found if t.reason] == [
        ("a", -1, "RuntimeError: no room"),
        ("b", 1, "RuntimeError: no room"),
    ]
    with pytest.raises(RuntimeError, match="no room"):
        list(take_turns("abc", once, runs=3))


def test_nothing_of_a_refused_call_is_held_when_it_is_told() -> None:
    held = []

    class Tensor:
        pass

    def once(label: str, number: int) -> None:
        tensor = Tensor()
        held.append(weakref.ref(tensor))
        raise RuntimeError("no room")

    for _ in take_turns("a", once, runs=1, refusals=(RuntimeError,)):
        gc.collect()
        assert held[-1]() is None


def test_the_time_may_be_over_after_a_round() -> None:
    over = iter([False, True])
    found = take_turns("ab", lambda label, n: n, runs=9, warmup=0, over=lambda: next(over))
    assert [t.number for t in found] == [0, 0, 1, 1]


def test_small_parts() -> None:
    assert rotated("abc", 4) == ["b", "c", "a"]
    assert rotated([], 3) == []
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "low": 1.0, "high": 3.0}
    assert explained(ValueError("x" * 999)) == ("ValueError: " + "x" * 999)[:300]
    assert explained(KeyError()) == "KeyError: "
