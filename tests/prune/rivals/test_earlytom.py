"""EarlyTom: segments, whole-frame merging and the selection afterwards, against loops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.prune.rivals.clips import FEW, best, clips_and_counts, cosine, even, make_clip, mean, targets
from videoprune.prune.rivals.earlytom import earlytom, earlytom_frames, frame_segments
from videoprune.prune.rivals.tokens import ClipTokens

Frame = list[list[float]]
KNOBS = {"tau": 0.6, "ema": 0.9, "max_length": 8}


def alike(a: Frame, b: Frame) -> float:
    return sum(cosine(p, q) for p, q in zip(a, b, strict=True)) / len(a)


def segments_oracle(x: list[Frame], tau: float, ema: float, max_length: int) -> list[int]:
    """The segment of each frame."""
    found, start, running = [0], 0, 1.0
    for t in range(1, len(x)):
        running = ema * alike(x[start], x[t]) + (1 - ema) * running
        new = running < tau or t - start == max_length
        if new:
            start, running = t, 1.0
        found.append(found[-1] + new)
    return found


def inner_frames(segment: list[int]) -> set[int]:
    last = len(segment) - 1
    return {t for t in range(1, last) if segment[t - 1] == segment[t] == segment[t + 1]}


def frames_oracle(x: list[Frame], keep: int, segment: list[int]) -> list[list[int]]:
    groups, inner = [[t] for t in range(len(x))], inner_frames(segment)
    while len(groups) > keep:

        def rank(a: int) -> tuple[int, float]:
            both = groups[a] + groups[a + 1]
            one_segment = len({segment[t] for t in both}) == 1
            tier = 2 if set(both) <= inner else 1 if one_segment else 0
            left, right = (
                [mean([x[t][p] for t in g]) for p in range(len(x[0]))] for g in (groups[a], groups[a + 1])
            )
            return tier, alike(left, right)

        a = max(range(len(groups) - 1), key=lambda a: (*rank(a), -a))
        groups[a : a + 2] = [groups[a] + groups[a + 1]]
    return groups


@FEW
@given(clips_and_counts(max_frames=9, max_tokens=3), st.sampled_from([0.6, 0.95]), st.sampled_from([8, 4, 1]))
def test_frames(case: tuple[ClipTokens, int], tau: float, max_length: int) -> None:
    clip, number = case
    keep = 1 + number % clip.frames
    x = clip.x.tolist()
    segment = segments_oracle(x, tau, 0.9, max_length)
    parts = frame_segments(clip.x, tau=tau, ema=0.9, max_length=max_length)
    assert [s for s, (start, end) in enumerate(parts) for _ in range(start, end + 1)] == segment
    plan = earlytom_frames(clip.x, keep, tau=tau, max_length=max_length)
    assert plan.num_kept == keep
    assert targets(plan) == [g[0] for g in frames_oracle(x, keep, segment) for _ in g]


def clip_oracle(clip: ClipTokens, keep: int, frame_share: float) -> list[int]:
    n, x = clip.per_frame, clip.x.tolist()
    segment = segments_oracle(x, **KNOBS)
    wanted = max(1, -(-keep // n), round(frame_share * clip.frames))
    groups, inner = frames_oracle(x, wanted, segment), inner_frames(segment)
    out = [-1] * clip.num_tokens
    for group, count in zip(groups, even(keep, wanted), strict=True):
        attention = mean([clip.attention[t].tolist() for t in group])
        if set(group) <= inner:
            windows = [[p for p in range(n) if p * count // n == w] for w in range(count)]
            kept = [best(w, attention.__getitem__, 1)[0] for w in windows]
        else:
            kept = best(range(n), attention.__getitem__, count)
        for p in kept:
            for t in group:
                out[t * n + p] = group[0] * n + p
    return out


@FEW
@given(clips_and_counts(max_frames=7), st.sampled_from([0.5, 0.1, 1.0]))
def test_clip(case: tuple[ClipTokens, int], frame_share: float) -> None:
    clip, keep = case
    plan = earlytom(clip, keep, frame_share=frame_share)
    assert plan.num_kept == keep
    if keep < clip.num_tokens:
        assert targets(plan) == clip_oracle(clip, keep, frame_share)


def test_still_scenes_become_one_frame_each() -> None:
    one, two = torch.eye(2).repeat_interleave(3, dim=0).view(2, 3, 2)
    x = torch.stack([one, one, one, one, two, two, two])
    assert targets(earlytom_frames(x, 2)) == [0, 0, 0, 0, 4, 4, 4]
    assert targets(earlytom_frames(x, 6)) == [0, 1, 1, 3, 4, 5, 6]  # between the ends first
    assert targets(earlytom_frames(x, 1)) == [0] * 7


def test_between_ends_every_window_keeps_one() -> None:
    attention = torch.arange(8.0).repeat(4, 1)  # the end of each frame gets it all
    plan = earlytom(ClipTokens(torch.ones(4, 8, 2), attention), 6, frame_share=0.75)
    assert targets(plan)[:8] == [-1] * 6 + [6, 7]
    assert targets(plan)[8:16] == [-1, -1, -1, 11, -1, -1, -1, 15] == targets(plan)[16:24]


def test_wrong_knobs() -> None:
    clip = make_clip(3, 4)
    with pytest.raises(ValueError, match=r"keep_frames=4; allowed: 1\.\.3"):
        earlytom_frames(clip.x, 4)
    with pytest.raises(ValueError, match="frame_share=0"):
        earlytom(clip, 2, frame_share=0)
    with pytest.raises(ValueError, match="ema=0"):
        earlytom(clip, 2, ema=0)
    with pytest.raises(ValueError, match="max_length=0"):
        earlytom(clip, 2, max_length=0)
