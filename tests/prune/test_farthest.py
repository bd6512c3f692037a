"""Tokens far from each other, chosen in rounds: against loops, against the greedy search, and by counted operations."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pipelines.measure.launches import launches
from tests.prune.rivals.clips import FEW, clips_and_counts, cosine, kept_only, numbers, targets
from tests.prune.rivals.test_whole_clip import max_min_oracle
from videoprune.prune.budget import allocate
from videoprune.prune.farthest import ROUNDS, farthest_plan
from videoprune.prune.rivals.tokens import ClipTokens


def oracle(x: list[list[float]], when: list[float], count: int, rounds: int) -> list[int]:
    """Of one stretch."""
    chosen: list[int] = []

    def apart(i: int, j: int) -> float:
        return max(0.0, 1 - cosine(x[i], x[j])) + abs(when[i] - when[j])

    def to_nearest(i: int, others: list[int]) -> float:
        return min((apart(i, j) for j in others), default=9.0)

    for start, end in pairwise([0, *sorted({round(count * (r + 1) / rounds) for r in range(rounds)} - {0})]):
        free = [i for i in range(len(x)) if i not in chosen]
        gap = {i: to_nearest(i, chosen or [j for j in free if j != i]) for i in free}
        by_gap = sorted(free, key=lambda i: (-round(gap[i], 12), i))
        alone = {i: min(to_nearest(i, chosen), to_nearest(i, by_gap[:n])) for n, i in enumerate(by_gap)}
        chosen += sorted(free, key=lambda i: (-round(alone[i], 12), i))[: end - start]
    return chosen


def frames_of(clip: ClipTokens) -> np.ndarray:
    return np.repeat(np.arange(clip.frames), clip.per_frame)


@FEW
@given(
    clips_and_counts(), st.integers(1, 40), st.sampled_from([0.0, 0.5, 3.0]), st.sampled_from([1, 2, 4, 40])
)
def test_against_loops(case: tuple[ClipTokens, int], longest: int, time_weight: float, rounds: int) -> None:
    clip, keep = case
    x, frame = clip.x.flatten(0, 1), frames_of(clip)
    length = -(-len(x) // -(-len(x) // longest))
    lengths = [min(length, len(x) - start) for start in range(0, len(x), length)]
    counts = allocate(keep, lengths, lengths, minimum=0)
    expected, start = set(), 0
    for length, count in zip(lengths, counts, strict=True):
        when = frame[start : start + length]
        when = when * time_weight / (when[-1] - when[0] + 1)
        # Stretches take their shares together: each the first of what the one with the most takes.
        order = oracle(x[start : start + length].tolist(), when.tolist(), min(max(counts), length), rounds)
        expected |= {start + i for i in order[:count]}
        start += length
    plan = farthest_plan(x, keep, frame=frame, time_weight=time_weight, longest=longest, rounds=rounds)
    assert targets(plan) == kept_only(expected, len(x))
    assert plan.num_kept == keep


@FEW
@given(clips_and_counts())
def test_one_token_a_round_is_the_greedy_search(case: tuple[ClipTokens, int]) -> None:
    clip, keep = case
    x = clip.x.flatten(0, 1)
    greedy = max_min_oracle(x.tolist(), keep, [1.0] * len(x))
    assert targets(farthest_plan(x, keep, rounds=keep)) == kept_only(set(greedy), len(x))


def things(tokens: int, kinds: int) -> Tensor:
    """Tokens of a few kinds, of which some are common and some rare."""
    x = numbers(kinds, 16, seed=1)
    often = torch.arange(1, kinds + 1, dtype=torch.float64) ** 2
    drawn = torch.multinomial(often, tokens, replacement=True, generator=torch.Generator().manual_seed(2))
    return x[drawn] + 0.3 * numbers(tokens, 16, seed=3)


def farthest_left(x: Tensor, keep: list[int]) -> float:
    """How far the mean token is from the nearest kept one."""
    return 1 - torch.nn.functional.cosine_similarity(x[:, None], x[keep], dim=2).amax(1).mean().item()


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_a_few_rounds_cover_about_as_well_as_the_greedy_search(share: float) -> None:
    x = things(300, 40)
    keep = round(share * len(x))
    greedy = farthest_left(x, max_min_oracle(x.tolist(), keep, [1.0] * len(x)))
    drawn = farthest_left(x, torch.randperm(300, generator=torch.Generator().manual_seed(4))[:keep].tolist())
    found = farthest_left(x, farthest_plan(x, keep).keep[0].tolist())
    assert found < greedy + 0.3 * (drawn - greedy)
    assert found < 1.25 * greedy


def test_each_kind_is_taken_before_any_comes_twice() -> None:
    kinds = torch.eye(6)[[0, 0, 1, 1, 1, 2, 2, 0, 3, 4, 4, 5]]
    assert farthest_plan(kinds, 6).keep[0].tolist() == [0, 2, 5, 8, 9, 11]


def test_time_tells_what_features_cannot() -> None:
    still = torch.eye(2).repeat(6, 1)  # two things that stay as they are for six frames
    frame = np.arange(6).repeat(2)
    for weight, expected in ((0.0, [0, 1, 2, 3]), (0.5, [0, 1, 10, 11])):
        assert farthest_plan(still, 4, frame=frame, time_weight=weight).keep[0].tolist() == expected


def test_all_none_and_nothing() -> None:
    x = numbers(5, 3)
    assert farthest_plan(x, 5).keep.tolist() == [[0, 1, 2, 3, 4]]
    assert farthest_plan(x, 0).into.tolist() == [[-1] * 5]
    assert farthest_plan(x[:0], 0).keep.shape == (1, 0)
    assert farthest_plan(x[:1], 1, frame=np.zeros(1, int), time_weight=0.5).keep.tolist() == [[0]]
    zeros = farthest_plan(torch.zeros(5, 3), 3)
    assert zeros.keep.tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_compared_in_float32(dtype: torch.dtype) -> None:
    x = numbers(200, 8).to(dtype)
    assert torch.equal(farthest_plan(x, 30).keep, farthest_plan(x.float(), 30).keep)


def test_as_much_at_once_as_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    x = numbers(101, 4)
    whole = farthest_plan(x, 37, longest=9, frame=np.arange(101), time_weight=1.0)
    monkeypatch.setattr("videoprune.prune.farthest.ENTRIES", 250)  # three stretches
    assert torch.equal(
        farthest_plan(x, 37, longest=9, frame=np.arange(101), time_weight=1.0).keep, whole.keep
    )


@pytest.mark.parametrize("keep", [5, 600, 1990])
def test_as_many_operations_whatever_the_number_of_tokens(keep: int) -> None:
    counts = []
    for tokens in (2000, 6273):
        x = numbers(tokens, 8).float()
        with launches() as found:
            farthest_plan(x, keep, frame=np.arange(tokens), time_weight=0.5)
        assert not found.waits
        counts.append(sum(found.kernels.values()))
    assert max(counts) <= 31 + 10 * ROUNDS
    assert counts[1] - counts[0] <= 10  # a last stretch that is shorter


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: farthest_plan(x, 6), r"keep=6; allowed: 0\.\.5, the number of tokens"),
        (lambda x: farthest_plan(x, -1), "keep=-1"),
        (lambda x: farthest_plan(x, 2, rounds=0), "rounds=0; allowed: 1 or more"),
        (lambda x: farthest_plan(x, 2, longest=0), "longest=0; allowed: 1 or more"),
    ],
)
def test_mistakes(call: Callable[[Tensor], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(numbers(5, 3))
