"""EarlyTom: its authors' numbers, segments and pairs of frames against loops, the selection in space."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scripts.original_numbers import earlytom as program
from tests.prune.rivals.clips import FEW, best, clips_and_counts, cosine, kept_only, make_clip, targets
from videoprune.prune.merge import apply_plan
from videoprune.prune.rivals.earlytom import PairsOfFrames, earlytom
from videoprune.prune.rivals.tokens import ClipTokens

THEIRS = np.load(Path(__file__).parent / "originals" / "earlytom.npz")
Frame = list[list[float]]


@pytest.mark.parametrize("case", range(len(program.CASES)))
def test_the_authors_frames_segments_and_tokens(case: int) -> None:
    """Three mergings with something between them, the attention that goes along, and what is chosen at the end."""
    _, n, _, tau, _, _ = program.CASES[case]
    merging = PairsOfFrames(tau=tau)
    x, mix, left = torch.from_numpy(program.tokens(case)), torch.from_numpy(program.between(case)), []
    for step in range(3):
        plan = merging.plan(x)
        attention = apply_plan(torch.from_numpy(program.attention(case, len(x)))[None], plan)[0]
        x = apply_plan(x[None], plan)[0]
        left.append(len(x))
        if step < 2:
            x = x @ mix[step]
    assert left == THEIRS[f"left_{case}"].tolist()
    torch.testing.assert_close(x.mean(1), torch.from_numpy(THEIRS[f"frames_{case}"]), atol=1e-4, rtol=1e-4)
    theirs = torch.from_numpy(THEIRS[f"attention_{case}"])
    torch.testing.assert_close(attention.mean(1), theirs, atol=1e-4, rtol=1e-4)
    segments = merging.segments(x)
    groups = THEIRS[f"groups_{case}"].tolist()
    assert segments == tuple(s for s, (a, b) in enumerate(groups) for _ in range(a, b + 1))
    keep = min(program.wanted(case), len(x) * n)
    plan = earlytom(ClipTokens(x, attention, segments=segments), keep)
    assert plan.keep[0].tolist() == sorted(THEIRS[f"kept_{case}"].tolist())


def test_the_authors_blocks() -> None:
    merging = PairsOfFrames()
    assert merging.blocks(26) == (8, 21, 23)
    assert merging.blocks(8) == (2, 6)
    assert merging.blocks(1) == (0,)
    assert [len(merging.blocks(n)) for n in (12, 24, 32)] == [3, 3, 3]


def alike(a: Frame, b: Frame) -> float:
    return sum(cosine(p, q) for p, q in zip(a, b, strict=True)) / len(a)


def segments_oracle(x: list[Frame], tau: float, ema: float, max_length: int) -> list[int]:
    """The segment of each frame."""
    found, start, running = [0], 0, 1.0
    for t in range(1, len(x)):
        running = ema * alike(x[start], x[t]) + (1 - ema) * running
        new = running < tau or t - start == max_length - 1
        if new:
            start, running = t, 1.0
        found.append(found[-1] + new)
    return found


def pairs_oracle(x: list[Frame], segment: list[int]) -> tuple[list[int], list[float]]:
    """Where each frame ends, -1 for dropped, and what it counts there."""
    target, weight = list(range(len(x))), [1.0] * len(x)
    for s in set(segment):
        whole = [t for t, one in enumerate(segment) if one == s]
        middle, ends = whole[1:-1], alike(x[whole[0]], x[whole[-1]])
        while len(middle) > 1 and len(whole) > 3:
            a, b = middle[:2]
            now = alike(x[a], x[b])
            after = alike(x[b], x[middle[2]]) if len(middle) > 2 else 0.0
            if now > ends and (len(middle) == 2 or now > after):
                target[b] = a
                weight[a] = now / (now + after)
                weight[b] = 1 - weight[a]
                middle = middle[2:]
            else:
                middle = middle[1:]
                if len(middle) == 1:
                    target[middle[0]] = -1
            if target[b] == a and len(middle) == 1:
                target[middle[0]] = -1
    return target, weight


@FEW
@given(
    clips_and_counts(max_frames=12, max_tokens=3), st.sampled_from([0.3, 0.95]), st.sampled_from([8, 4, 2])
)
def test_frames(case: tuple[ClipTokens, int], tau: float, max_length: int) -> None:
    x = case[0].x
    merging = PairsOfFrames(tau=tau, max_length=max_length)
    segment = segments_oracle(x.tolist(), tau, 0.9, max_length)
    assert list(merging.segments(x)) == segment
    plan = merging.plan(x)
    target, weight = pairs_oracle(x.tolist(), segment)
    assert targets(plan) == target
    assert plan.weight is not None
    merged = [t for t, end in enumerate(target) if end >= 0]
    assert plan.weight[0][merged].tolist() == pytest.approx([weight[t] for t in merged], abs=1e-5)


def test_a_still_clip_loses_what_its_cost_says() -> None:
    for frames in range(1, 14):
        merging = PairsOfFrames()
        plan = merging.plan(torch.ones(frames, 2, 3))
        assert plan.num_kept == merging.left(frames)
    assert PairsOfFrames().left(32) == 6 * 4 + 2


@FEW
@given(clips_and_counts(max_frames=9))
def test_the_selection_in_space(case: tuple[ClipTokens, int]) -> None:
    clip, keep = case
    plan = earlytom(clip, keep)
    if keep == clip.num_tokens:
        return
    n = clip.per_frame
    assert clip.attention is not None
    segment = segments_oracle(clip.x.tolist(), 0.5, 0.9, 6)
    kept = set()
    for t, row in enumerate(clip.attention.tolist()):
        if 0 < t < clip.frames - 1 and segment[t - 1] == segment[t] == segment[t + 1]:
            count = max(1, round(keep / clip.frames))
            sizes = [n // count + (w < n % count) for w in range(count)]
            windows = [range(sum(sizes[:w]), sum(sizes[: w + 1])) for w in range(count)]
            kept |= {t * n + best(w, row.__getitem__, 1)[0] for w in windows}
        else:
            kept |= {t * n + p for p in best(range(n), row.__getitem__, -(-keep // clip.frames))}
    assert targets(plan) == kept_only(kept, clip.num_tokens)


def test_segments_that_were_found_before_decide() -> None:
    clip = make_clip(4, 8)
    attention = torch.arange(8.0).repeat(4, 1)  # the end of each frame gets it all
    given_before = ClipTokens(clip.x, attention, segments=(0, 0, 0, 1))
    assert earlytom(given_before, 8).keep[0].tolist() == [6, 7, 11, 15, 22, 23, 30, 31]


def test_wrong_knobs() -> None:
    with pytest.raises(ValueError, match="ema=0"):
        PairsOfFrames(ema=0)
    with pytest.raises(ValueError, match="max_length=1"):
        PairsOfFrames(max_length=1)
    with pytest.raises(ValueError, match=r"segments=\(0, 0\); allowed: 4"):
        ClipTokens(make_clip(4, 2).x, segments=(0, 0))
