"""The memory of a stream: what it promises of any stream, and one that was followed by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from videoprune.stream.memory import Held, StreamConfig, StreamMemory
from videoprune.types import TimeStep

WIDTH = 6


def step(at: float, count: int = 8, *, dense: int = 8, seed: int | None = None, levels: int = 1) -> TimeStep:
    made = torch.Generator().manual_seed(round(at * 10) if seed is None else seed)
    place = torch.randperm(dense, generator=made)[:count].sort().values
    deep = tuple(torch.randn(count, WIDTH, generator=made) for _ in range(levels))
    return TimeStep(
        torch.randn(count, WIDTH, generator=made), place, torch.ones(count), dense, (at, at + 0.5), deep, 32
    )


def config(**changes: float) -> StreamConfig:
    return StreamConfig(**{"max_visual_tokens": 40, "max_steps": 8, "window": 3, "sinks": 1, **changes})


@settings(max_examples=60)
@given(
    counts=st.lists(st.integers(0, 8), min_size=1, max_size=40),
    tokens=st.integers(16, 64),
    window=st.integers(1, 4),
    sinks=st.integers(0, 2),
    spare=st.sampled_from([0.0, 0.2, 0.9]),
    above=st.sampled_from([-1.0, 0.5]),
)
def test_whatever_comes_the_bounds_hold(counts, tokens, window, sinks, spare, above):
    chosen = StreamConfig(tokens, 2**20, window + sinks + 3, sinks, window, spare, above)
    memory, given_steps = StreamMemory(chosen), []
    for i, count in enumerate(counts):
        given_steps.append(step(float(i), count))
        memory.add(given_steps[-1])
        held = memory.held()
        assert memory.num_tokens == sum(len(h.step) for h in held) <= tokens
        assert len(held) <= chosen.max_steps
        assert held[-1].step is given_steps[-1]
        firsts = [h.first for h in held]
        assert firsts == sorted(set(firsts))
        assert all(h.first <= h.step.pts_seconds[0] <= h.step.pts_seconds[-1] <= h.last for h in held)
        for h in held:
            assert h.step.place.tolist() == sorted(set(h.step.place.tolist()))
            assert all(len(level) == len(h.step) for level in h.step.deep)
    total = sum(float(h.step.size.sum()) for h in memory.held())
    assert total <= sum(counts) + 1e-3
    if above == -1.0:  # all merge, none is dropped: only the last token of a step that was empty is missing
        assert total == pytest.approx(sum(counts), abs=1e-3)
    assert memory.arrived == sum(counts)


def test_the_newest_and_the_first_stay_as_they_came():
    memory, steps = StreamMemory(config()), [step(float(i)) for i in range(30)]
    for one in steps:
        memory.add(one)
    held = [h.step for h in memory.held()]
    assert held[0] is steps[0]
    # Of three in the window two fit in half of 40 tokens.
    assert [h is s for h, s in zip(held[-3:], steps[-3:], strict=True)] == [False, True, True]


def test_sinks_have_a_quarter_of_the_budget_at_most():
    for tokens, sinks in ((31, 0), (32, 1), (63, 1), (64, 2)):
        memory = StreamMemory(config(max_visual_tokens=tokens, sinks=2, max_steps=9))
        steps = [step(float(i)) for i in range(25)]
        for one in steps:
            memory.add(one)
        held = [h.step for h in memory.held()]
        kept = [any(h is s for h in held) for s in steps[:3]]
        assert kept == [True] * sinks + [False] * (3 - sinks), tokens


def test_nothing_is_forgotten_while_there_is_room():
    memory, steps = StreamMemory(config(max_visual_tokens=80)), [step(float(i)) for i in range(8)]
    for one in steps:
        memory.add(one)
    assert all(h.step is s for h, s in zip(memory.held(), steps, strict=True))


def test_bytes_bound_it_too():
    each = step(0.0).num_bytes // 8
    memory = StreamMemory(config(max_visual_tokens=10_000, max_bytes=40 * each))
    for i in range(30):
        memory.add(step(float(i)))
        assert memory.num_bytes <= 40 * each
    assert memory.num_tokens > 20


def test_a_still_frame_lengthens_the_last():
    memory = StreamMemory(config())
    memory.add(step(0.0))
    memory.add(step(1.0))
    before = memory.version
    memory.stay(9.0)
    assert memory.version > before
    assert [(h.first, h.last) for h in memory.held()] == [(0.0, 0.5), (1.0, 9.0)]
    with pytest.raises(ValueError, match=r"pts_seconds=\(9.0, 9.5\); allowed: later than 9.0"):
        memory.add(step(9.0))
    with pytest.raises(ValueError, match=r"seconds=9\.0; allowed: later than the last step, 9.0"):
        memory.stay(9.0)


def test_what_is_held_is_a_value():
    memory = StreamMemory(config())
    for i in range(4):
        memory.add(step(float(i)))
    held = memory.held()
    copy = [h.step.x.clone() for h in held]
    for i in range(4, 30):
        memory.add(step(float(i)))
    assert len(held) == 4
    assert all(torch.equal(h.step.x, x) for h, x in zip(held, copy, strict=True))


def test_neighbours_become_one_step_where_there_are_too_many():
    """Of places that both have the mean by size; the time is that of the larger."""
    memory = StreamMemory(config(max_visual_tokens=64, max_steps=5, window=1, sinks=0))
    one, other = (
        TimeStep(torch.full((2, 1), v), torch.tensor(p), torch.tensor(s), 8, (t,))
        for v, p, s, t in ((1.0, [0, 1], [1.0, 1.0], 0.0), (4.0, [1, 5], [2.0, 1.0], 1.0))
    )
    more = [
        TimeStep(torch.full((4, 1), 9.0), torch.arange(4), torch.ones(4), 8, (float(t),)) for t in range(2, 6)
    ]
    for s in (one, other, *more):
        memory.add(s)
    first: Held = memory.held()[0]
    assert (first.first, first.last) == (0.0, 1.0)
    assert first.step.place.tolist() == [0, 1, 5]
    assert first.step.size.tolist() == [1.0, 3.0, 1.0]
    assert first.step.x[:, 0].tolist() == [1.0, 3.0, 4.0]


def test_a_step_that_does_not_fit_is_named():
    memory = StreamMemory(config(max_visual_tokens=15))
    with pytest.raises(ValueError, match=r"max_visual_tokens=15.*allowed: 16 or more"):
        memory.add(step(0.0))


@pytest.mark.parametrize(
    "changes",
    [
        {"max_visual_tokens": 0},
        {"max_bytes": 0},
        {"sinks": -1},
        {"window": 0},
        {"max_steps": 5},
        {"spare": 1.0},
        {"merge_above": 2.0},
        {"still": -1.0},
    ],
)
def test_mistakes_are_named(changes):
    (name, value), *_ = changes.items()
    with pytest.raises(ValueError, match=f"{name}={value}.*allowed"):
        config(**changes)
