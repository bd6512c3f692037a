"""AIM's merging, against a loop over single merges."""

from __future__ import annotations

import torch
from hypothesis import given

from tests.prune.rivals.clips import FEW, clips_and_counts, cosine, even, mean, targets
from videoprune.prune.rivals.aim import aim
from videoprune.prune.rivals.tokens import ClipTokens


def matching_oracle(metric: list[list[float]], count: int, step: int | None) -> list[int]:
    """Of one frame. A group stands at the place of the token that nothing of it has been merged away from."""
    if count == 0:
        return [-1] * len(metric)
    heads = {i: [i] for i in range(len(metric))}
    while len(heads) > count:
        order = sorted(heads)
        value = {h: mean([metric[i] for i in heads[h]]) for h in order}
        like = {(s, o): cosine(value[s], value[o]) for s in order[::2] for o in order[1::2]}
        partner = {s: min(order[1::2], key=lambda o, s=s, like=like: (-like[s, o], o)) for s in order[::2]}
        ranked = sorted((-like[pair], pair) for pair in partner.items())
        most = len(order) // 2 if step is None else min(step, len(order) // 2)
        for _, (source, other) in ranked[: min(most, len(order) - count)]:
            heads[other] += heads.pop(source)
    return [next(h for h in heads if i in heads[h]) for i in range(len(metric))]


@FEW
@given(clips_and_counts(max_tokens=13))
def test_aim(case: tuple[ClipTokens, int]) -> None:
    clip, keep = case
    expected = [
        t * clip.per_frame + i if i >= 0 else -1
        for t, count in enumerate(even(keep, clip.frames))
        for i in matching_oracle(clip.x[t].tolist(), count, None)
    ]
    assert targets(aim(clip, keep)) == expected


def test_alike_neighbours_merge_first_and_ties_go_to_the_earlier() -> None:
    kinds = torch.eye(3)[[0, 0, 1, 1, 2, 2]][None]
    assert targets(aim(ClipTokens(kinds), 3)) == [1, 1, 3, 3, 5, 5]
    assert targets(aim(ClipTokens(kinds), 4)) == [1, 1, 3, 3, 4, 5]
