"""DyCoke's merging over time: the authors' numbers, and a loop over windows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given

from scripts.original_numbers import dycoke as program
from tests.prune.rivals.clips import FEW, best, clips_and_counts, cosine, kept_only, targets
from videoprune.config import preset
from videoprune.prune.counts import kept_of_clip
from videoprune.prune.rivals.dycoke import dycoke
from videoprune.prune.rivals.tokens import ClipTokens

THEIRS = np.load(Path(__file__).parent / "originals" / "dycoke.npz")


@pytest.mark.parametrize("case", range(len(program.CASES)))
def test_the_authors_kept_tokens(case: int) -> None:
    kept = THEIRS[f"kept_{case}"].tolist()
    plan = dycoke(ClipTokens(torch.from_numpy(program.tokens(case))), len(kept))
    assert plan.keep[0].tolist() == kept


def test_the_preset_keeps_what_the_authors_keep_of_their_clips() -> None:
    case = program.CASES.index((32, 196, 0.7))
    wanted = kept_of_clip(32, 196, preset("dycoke").encoder.keep)
    assert dycoke.count(32, 196, wanted) == len(THEIRS[f"kept_{case}"]) == 3098


def oracle(clip: ClipTokens, keep: int) -> set[int]:
    frames, n = clip.frames, clip.per_frame
    earlier: dict[int, int] = {}
    for start in range(0, frames, 4):
        pairs = [(start + 1, start), (start + 3, start + 2)]
        if start + 4 < frames:
            pairs.append((start + 2, start))
        earlier.update({t: e for t, e in pairs if t < frames})
    if not earlier:
        return set(range(frames * n))
    each = min(
        range(n + 1), key=lambda m: (abs((frames - len(earlier)) * n + len(earlier) * m - keep), m % 2)
    )
    kept = set()
    for t in range(frames):
        if t not in earlier:
            kept |= {t * n + i for i in range(n)}
            continue
        x, y = clip.x[t].tolist(), clip.x[earlier[t]].tolist()
        kept |= {t * n + i for i in best(range(n), lambda i, x=x, y=y: -cosine(x[i], y[i]), each)}
    return kept


@FEW
@given(clips_and_counts(max_frames=11))
def test_against_a_loop(case: tuple[ClipTokens, int]) -> None:
    clip, keep = case
    plan = dycoke(clip, keep)
    if keep < clip.num_tokens:
        assert targets(plan) == kept_only(oracle(clip, keep), clip.num_tokens)
    assert plan.num_kept == dycoke.count(clip.frames, clip.per_frame, keep)


def test_less_than_the_whole_frames_cannot_be_kept() -> None:
    clip = ClipTokens(torch.randn(8, 6, 3, generator=torch.Generator().manual_seed(0)))
    assert dycoke(clip, 5).keep[0].tolist() == [t * 6 + i for t in (0, 4, 6) for i in range(6)]
