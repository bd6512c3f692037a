"""AIM's merging before the LLM: means of means against a loop, counts near what is asked for."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.prune.rivals.clips import FEW, cosine, make_clip, mean, targets
from videoprune.prune.merge import apply_plan
from videoprune.prune.rivals.aim import aim
from videoprune.prune.rivals.tokens import ClipTokens


def halved(tokens: list[list[float]]) -> list[list[float]]:
    """One whole round over a frame: every first token into the second most like it; one left over goes in front."""
    first, second = list(range(0, len(tokens), 2)), list(range(1, len(tokens), 2))
    best = {i: max(second, key=lambda j, i=i: cosine(tokens[i], tokens[j])) for i in first}
    ranked = sorted(first, key=lambda i: -cosine(tokens[i], tokens[best[i]]))[: len(tokens) // 2]
    left = [tokens[i] for i in first if i not in ranked]
    return left + [mean([tokens[j], *(tokens[i] for i in ranked if best[i] == j)]) for j in second]


@FEW
@given(st.integers(1, 3), st.sampled_from([8, 16, 24]), st.sampled_from([1, 2, 3]), st.integers(0, 10**6))
def test_whole_rounds_make_means_of_means(frames: int, tokens: int, rounds: int, seed: int) -> None:
    clip = make_clip(frames, tokens, seed=seed)
    expected = clip.x.tolist()
    for _ in range(rounds):
        expected = [halved(frame) for frame in expected]
    keep = frames * tokens // 2**rounds
    plan = aim(clip, keep)
    assert plan.num_kept == keep
    found = apply_plan(clip.x.flatten(0, 1)[None], plan)
    torch.testing.assert_close(found[0], torch.tensor(expected, dtype=torch.float64).flatten(0, 1))


@FEW
@given(st.integers(1, 4), st.integers(1, 21), st.data())
def test_counts_come_near(frames: int, tokens: int, data: st.DataObject) -> None:
    keep = data.draw(st.integers(1, frames * tokens))
    plan = aim(make_clip(frames, tokens), keep)
    targets(plan)
    assert -0.5 <= (plan.num_kept - keep) / frames < 2
    assert len({sum(k // tokens == t for k in plan.keep[0].tolist()) for t in range(frames)}) in (1, 2)
    if keep < frames * tokens:
        assert plan.num_kept % frames == 0


def test_alike_neighbours_merge_first_and_ties_go_to_the_earlier() -> None:
    kinds = torch.eye(3)[[0, 0, 1, 1, 2, 2]][None]
    assert targets(aim(ClipTokens(kinds), 3)) == [1, 1, 3, 3, 5, 5]
    assert targets(aim(ClipTokens(kinds), 4)) == [1, 1, 3, 3, 4, 5]


def test_a_group_weighs_as_much_as_the_token_that_it_meets() -> None:
    x = torch.tensor(
        [[1.0, 0.0], [1.0, 0.1], [1.0, 0.2], [1.0, 0.15], [0.0, 1.0], [0.1, 1.0], [0.2, 1.0], [0.3, 1.0]]
    )
    plan = aim(ClipTokens(x[None]), 2)
    assert targets(plan) == [3, 3, 3, 3, 7, 7, 7, 7]
    assert plan.weight is not None
    assert plan.weight.tolist() == [[0.25] * 8]
