"""Merge schedules: exact totals under the cap of bipartite matching."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videoprune.config import Schedule
from videoprune.prune.schedule import merge_counts

SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)


def places_oracle(num_blocks: int, schedule: Schedule) -> list[int]:
    if schedule == "constant":
        return list(range(num_blocks))
    before_last = list(range(num_blocks))[:-1]
    half = (len(before_last) + 1) // 2
    if schedule == "skip":
        return before_last[::-1][::2][::-1]
    return {"first": before_last[:half], "last": before_last[len(before_last) - half :]}.get(
        schedule, before_last
    )


def smallest_oracle(tokens: int, merges: int) -> int:
    for _ in range(merges):
        tokens -= tokens // 2
    return tokens


@settings(max_examples=300)
@given(st.integers(1, 30), st.integers(1, 800), st.integers(1, 800), st.integers(0, 5), st.data())
def test_total_cap_and_places(
    blocks: int, tokens: int, final: int, protected: int, data: st.DataObject
) -> None:
    schedule = data.draw(st.sampled_from(SCHEDULES))
    final = min(final, tokens)
    places = places_oracle(blocks, schedule)
    smallest = smallest_oracle(tokens, len(places))
    if final < smallest:
        with pytest.raises(
            ValueError, match=rf"final={final + protected} .*reachable: {smallest + protected}$"
        ):
            merge_counts(blocks, tokens + protected, final + protected, schedule, protected=protected)
        return
    counts = merge_counts(blocks, tokens + protected, final + protected, schedule, protected=protected)
    assert len(counts) == blocks
    assert sum(counts) == tokens - final
    assert all(counts[b] == 0 for b in range(blocks) if b not in places)
    left = tokens
    for count in counts:
        assert 0 <= count <= left // 2
        left -= count


@given(st.integers(2, 40), st.integers(1, 50), st.sampled_from([s for s in SCHEDULES if s != "constant"]))
def test_fewer_merges_are_spread_over_the_places(blocks: int, merges: int, schedule: Schedule) -> None:
    places, tokens = places_oracle(blocks, schedule), 2**20
    left = tokens - tokens // 3
    counts = merge_counts(blocks, tokens, left, schedule, merges=merges)
    used = [b for b, count in enumerate(counts) if count]
    assert sum(counts) == tokens - left
    assert len(used) == min(merges, len(places))
    if merges < len(places):
        stretch = len(places) / merges
        for i, b in enumerate(used):  # each in the middle of its stretch
            assert places.index(b) == pytest.approx((i + 0.5) * stretch, abs=1)
    else:
        assert used == places


def test_one_merge_leaves_half_at_least() -> None:
    assert merge_counts(12, 100, 50, "first", merges=1) == (0, 0, 0, 50, *[0] * 8)
    with pytest.raises(ValueError, match=r"1 merges.*reachable: 50$"):
        merge_counts(12, 100, 49, "first", merges=1)
    assert merge_counts(4, 100, 60, "constant", merges=1) == merge_counts(4, 100, 60, "constant")


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_smallest_reachable_is_reached(schedule: Schedule) -> None:
    merges = len(places_oracle(5, schedule))
    smallest = smallest_oracle(37, merges)
    assert sum(merge_counts(5, 37, smallest, schedule)) == 37 - smallest
    with pytest.raises(ValueError, match="num_blocks=5"):
        merge_counts(5, 37, smallest - 1, schedule)


@pytest.mark.parametrize("schedule", ["mean", "skip", "first", "last"])
def test_geometric_schedules_keep_one_ratio(schedule: Schedule) -> None:
    tokens, final = 100_000, 5_000
    removed = [c for c in merge_counts(24, tokens, final, schedule) if c]
    ratio = (final / tokens) ** (1 / len(removed))
    for count in removed:
        assert (tokens - count) / tokens == pytest.approx(ratio, abs=1e-3)
        tokens -= count


def test_increasing_and_decreasing_follow_their_formula() -> None:
    tokens, final, merges = 100_000, 5_000, 11
    for schedule in ("increasing", "decreasing"):
        left, shares = tokens, []
        for count in merge_counts(merges + 1, tokens, final, schedule)[:-1]:
            shares.append(count / left)
            left -= count
        for step, share in enumerate(shares, start=1):
            weight = step if schedule == "increasing" else merges + 1 - step
            assert share == pytest.approx(1 - (final / tokens) ** (weight / 66), abs=1e-3)
        assert shares == sorted(shares, reverse=schedule == "decreasing")


@settings(max_examples=200)
@given(st.integers(1, 12), st.integers(1, 300), st.integers(1, 300))
def test_constant_is_one_r_under_the_cap_and_one_less_in_the_last_blocks(
    blocks: int, tokens: int, final: int
) -> None:
    final = min(final, tokens)
    if final < smallest_oracle(tokens, blocks):
        return
    counts, left, wanted = merge_counts(blocks, tokens, final, "constant"), tokens, []
    for count in counts:
        if count < left // 2:  # below the cap: all that was wanted
            wanted.append(count)
        left -= count
    r = max(wanted, default=0)
    assert wanted == sorted(wanted, reverse=True)
    assert set(wanted) <= {r, r - 1}
    if final >= -(-tokens // (blocks + 1)) and (tokens - final) % blocks == 0:  # no cap is in the way
        assert counts == ((tokens - final) // blocks,) * blocks


def test_known_rows() -> None:
    assert merge_counts(12, 197, 11, "constant", protected=1) == (*(16,) * 11, 10)  # ToMe's ViT-B at r = 16
    assert merge_counts(24, 197, 7, "constant", protected=1) == (*(8,) * 23, 6)  # and ViT-L at r = 8
    assert merge_counts(8, 81, 8, "constant") == (10, 10, 10, 9, 9, 9, 9, 7)
    assert merge_counts(3, 8, 1, "constant") == (4, 2, 1)
    assert merge_counts(24, 576, 32, "skip")[0::2].count(0) == 0
    assert sum(1 for c in merge_counts(24, 576, 32, "skip") if c) == 12
    assert merge_counts(4, 64, 8, "mean") == (32, 16, 8, 0)
    assert merge_counts(4, 64, 8, "decreasing") == (32, 16, 8, 0)  # nothing else is possible
    assert merge_counts(5, 64, 16, "skip") == (0, 32, 0, 16, 0)
    assert merge_counts(5, 64, 16, "first") == (32, 16, 0, 0, 0)
    assert merge_counts(5, 64, 16, "last") == (0, 0, 32, 16, 0)
    assert merge_counts(3, 65, 17, "mean", protected=1) == (32, 16, 0)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_keep_all_removes_nothing(schedule: Schedule) -> None:
    assert merge_counts(6, 50, 50, schedule) == (0,) * 6
    assert merge_counts(1, 50, 50, schedule) == (0,)


def test_impossible_requests() -> None:
    with pytest.raises(ValueError, match=r"final=1 .*num_blocks=4.*smallest count reachable: 8"):
        merge_counts(4, 64, 1, "mean")
    with pytest.raises(ValueError, match=r"final=0; allowed: 1\.\.64"):
        merge_counts(4, 64, 0, "mean")
    with pytest.raises(ValueError, match="final=65"):
        merge_counts(4, 64, 65, "mean")
    with pytest.raises(ValueError, match="num_blocks=0"):
        merge_counts(0, 64, 64, "mean")
    with pytest.raises(ValueError, match="protected=65"):
        merge_counts(4, 64, 64, "mean", protected=65)
    with pytest.raises(ValueError, match=r"schedule='sudden'.*allowed: mean, skip"):
        merge_counts(4, 64, 32, "sudden")  # type: ignore[arg-type]
