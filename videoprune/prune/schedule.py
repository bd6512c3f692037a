"""How many tokens to remove after each encoder block: the six allocations of EvoPrune (arXiv 2603.03681), and ToMe's.

Blocks are counted from 0. A merge "after block b" shortens what block b + 1 computes on, so none of EvoPrune's falls
after the last block: the last one falls before it. ToMe (arXiv 2210.09461) merges in every block, the last included.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import get_args

from videoprune.config import Schedule


def merge_counts(
    num_blocks: int,
    num_tokens: int,
    final: int,
    schedule: Schedule,
    *,
    protected: int = 0,
    merges: int = 0,
) -> tuple[int, ...]:
    """Tokens to remove after each of `num_blocks` blocks: they sum to exactly num_tokens - final.

    num_tokens, final: tokens of one frame before the first block and at the end, `protected` ones included.
    protected: leading tokens (CLS) that never take part. Critical tokens are not meant: they go too, last.
    merges: take so many of the schedule's places, the middle ones of as many equal stretches; 0 or more than there are:
    all.

    With M = num_blocks - 1 places for a merge (after blocks 0..M - 1) the merges fall after
    - `mean`: every block; `skip`: every other block, ending at block M - 1;
    - `first`: the first ceil(M / 2) blocks; `last`: the last ceil(M / 2) of those M;
    - `increasing`, `decreasing`: every block.
    EvoPrune tells the six names only; the forms are this project's. Let n go from n_0 to n_T in T merges.
    After merge t, n_t = n_0 * (n_T / n_0) ** (W_t / W_T), W_t = w_1 + ... + w_t, rounded. The first four have
    w = 1: each step removes the same share. `increasing` has w_t = t and `decreasing` w_t = T + 1 - t: the
    share 1 - (n_T / n_0) ** (w_t / W_T) grows or falls with depth. Bipartite matching removes at most half of
    the tokens in one step, rounded down; where the formula asks for more, the rest moves to the other steps.

    `constant` is ToMe's: r tokens after every one of the num_blocks blocks, or half of what is there if that is less.
    A total that no r gives is reached with r - 1 after the last blocks: r is the smallest that suffices.

    Raises ValueError if the counts make no sense, or if `final` is below what those T steps can reach, which
    is ceil(n_0 / 2 ** T) and the protected ones (T = num_blocks for `constant`, which has all places always).
    """
    if schedule not in get_args(Schedule):
        raise ValueError(f"schedule={schedule!r}; allowed: {', '.join(get_args(Schedule))}")
    if num_blocks < 1:
        raise ValueError(f"num_blocks={num_blocks}; allowed: 1 or more")
    if not 0 <= protected <= num_tokens:
        raise ValueError(f"protected={protected}; allowed: 0..{num_tokens}, the number of tokens")
    start, end = num_tokens - protected, final - protected
    if not min(start, 1) <= end <= start:
        raise ValueError(f"final={final}; allowed: {protected + min(start, 1)}..{num_tokens}")
    places = _places(num_blocks, schedule, merges)
    smallest = smallest_count(num_blocks, start, schedule, merges)
    if end < smallest:
        raise ValueError(
            f"final={final} cannot be reached from {num_tokens} tokens with num_blocks={num_blocks} and "
            f"schedule={schedule!r}: {len(places)} merges, each of at most half of the tokens; "
            f"smallest count reachable: {smallest + protected}"
        )
    if schedule == "constant":
        return _constant(start, end, num_blocks)
    removed = [0] * num_blocks
    for place, count in zip(places, _steps(start, end, _weights(len(places), schedule)), strict=True):
        removed[place] = count
    assert sum(removed) == num_tokens - final
    return tuple(removed)


def smallest_count(num_blocks: int, num_tokens: int, schedule: Schedule, merges: int = 0) -> int:
    """The fewest of `num_tokens` unprotected tokens that the merges of a schedule can leave."""
    return -(-num_tokens // 2 ** len(_places(num_blocks, schedule, merges)))


def _places(num_blocks: int, schedule: Schedule, merges: int = 0) -> list[int]:
    """Blocks after which `schedule` merges, ascending; of all of them `merges` spread ones."""
    found = _all_places(num_blocks, schedule)
    if schedule == "constant" or not 0 < merges < len(found):
        return found
    return [found[(2 * i + 1) * len(found) // (2 * merges)] for i in range(merges)]


def _all_places(num_blocks: int, schedule: Schedule) -> list[int]:
    last = num_blocks - 1
    half = -(-last // 2)
    if schedule == "skip":
        return [b for b in range(last) if (last - 1 - b) % 2 == 0]
    if schedule == "first":
        return list(range(half))
    if schedule == "last":
        return list(range(last - half, last))
    return list(range(num_blocks if schedule == "constant" else last))


def _weights(steps: int, schedule: Schedule) -> list[int]:
    if schedule == "increasing":
        return list(range(1, steps + 1))
    if schedule == "decreasing":
        return list(range(steps, 0, -1))
    return [1] * steps


def _steps(start: int, end: int, weights: list[int]) -> list[int]:
    """Removals of each step on the way from `start` to `end`, none above half of the tokens it finds."""
    if start == end:
        return [0] * len(weights)
    total, removed, count = sum(weights), [], start
    for step, done in enumerate(accumulate(weights), start=1):
        ideal = round(start * (end / start) ** (done / total))
        lowest = -(-count // 2)  # a bipartite match leaves at least half
        # From more than this the steps that are left could not reach `end`.
        highest = min(count, end * 2 ** (len(weights) - step))
        after = min(max(ideal, lowest, end), highest)
        removed.append(count - after)
        count = after
    return removed


def _constant(start: int, end: int, blocks: int) -> tuple[int, ...]:
    """r after each of the first blocks, r - 1 after the others, never more than half of the tokens there.

    One block more with r leaves the same count or one less, so some number of them leaves exactly `end`.
    """
    r = next(r for r in range(start + 1) if sum(_halving(start, [r] * blocks)) >= start - end)
    rows = (_halving(start, [r] * full + [r - 1] * (blocks - full)) for full in range(blocks, -1, -1))
    return next(row for row in rows if sum(row) == start - end)


def _halving(count: int, wanted: Sequence[int]) -> tuple[int, ...]:
    """Removals of `wanted` tokens at a time, as far as a bipartite match can."""
    removed = []
    for one in wanted:
        removed.append(max(0, min(one, count // 2)))
        count -= removed[-1]
    return tuple(removed)
