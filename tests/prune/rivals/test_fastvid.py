"""FastVID against loops, and its costs."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from tests.prune.rivals.clips import FEW, best, clips_and_counts, cosine, make_clip, sums
from tests.prune.rivals.test_flashvid import Sums, cut_oracle, same_sums
from tests.prune.rivals.test_holitom import distances, scores_oracle
from videoprune.prune.registry import OVER_CLIP, ClipSize
from videoprune.prune.rivals.choose import even_counts
from videoprune.prune.rivals.fastvid import fastvid
from videoprune.prune.rivals.scenes import fewest
from videoprune.prune.rivals.tokens import ClipTokens


def fastvid_oracle(
    clip: ClipTokens, keep: int, context: float, spacing: int, beta: float, min_segments: int | None
) -> Sums:
    n, total, x, flat = clip.per_frame, clip.num_tokens, clip.x.tolist(), clip.x.flatten(0, 1).tolist()
    budget = max(1, keep // clip.frames)
    contextual = int(budget * context)
    found: Sums = {}
    rest = []
    for t in range(clip.frames):
        salient = best(range(n), clip.attention[t].tolist().__getitem__, budget - contextual)
        rest.append([i for i in range(n) if i not in salient])
        for i in salient:
            found[t * n + i] = [float(j == t * n + i) for j in range(total)]
    if not contextual:
        return found
    for start, end in cut_oracle(x, 0.9, min_segments or max(1, min(8, clip.frames // 4))):
        anchors = range(end, start - 1, -spacing)
        tokens = [t * n + i for t in range(start, end + 1) for i in rest[t]]
        for t in anchors:
            score = scores_oracle(distances([x[t][i] for i in rest[t]]), 4)
            wanted = contextual * (end - start + 1) // len(anchors)
            centres = [t * n + rest[t][c] for c in best(range(len(rest[t])), score.__getitem__, wanted)]
            joins = [max(centres, key=lambda c, i=i: cosine(flat[c], flat[i])) for i in tokens]
            for c in centres:
                joined = [i for i, own in zip(tokens, joins, strict=True) if own == c]
                row = [(1 - beta) / len(joined) if j in joined else 0.0 for j in range(total)]
                row[c] += beta
                found[c] = row
    return found


@FEW
@given(
    clips_and_counts(max_frames=6),
    st.sampled_from([0.4, 0.0, 1.0]),
    st.sampled_from([4, 1, 2]),
    st.sampled_from([0.6, 1.0]),
    st.sampled_from([None, 8, 2]),
)
def test_fastvid(
    case: tuple[ClipTokens, int], context: float, spacing: int, beta: float, min_segments: int | None
) -> None:
    clip, keep = case
    plan = fastvid(clip, keep, context=context, spacing=spacing, beta=beta, min_segments=min_segments)
    if keep < clip.num_tokens:
        wanted = fastvid_oracle(clip, keep, context, spacing, beta, min_segments)
        assert same_sums(sums(plan), wanted)


def test_a_token_counts_for_every_anchor() -> None:
    """Eight frames in one segment have two anchors, the last frame and the fourth; everything merges into both."""
    clip = make_clip(8, 12, still=0.99)
    plan = fastvid(clip, 48, min_segments=1, segment_threshold=-1.0)
    rows = sums(plan)
    salient = [i for i, row in rows.items() if row[i] == 1.0]
    anchors = {i // 12 for i in rows if i not in salient}
    assert anchors == {3, 7}
    for frame in anchors:
        of_frame = [row for i, row in rows.items() if i // 12 == frame and i not in salient]
        counted = {j for row in of_frame for j, w in enumerate(row) if w}
        assert counted == set(range(96)) - set(salient)
        assert all(math.isclose(sum(row), 1.0, rel_tol=1e-6) for row in of_frame)


def test_costs_are_those_of_segments_of_equal_length(monkeypatch: pytest.MonkeyPatch) -> None:
    def equal(x: torch.Tensor, threshold: float, least: int) -> list[tuple[int, int]]:
        ends = list(itertools.accumulate(even_counts(len(x), least)))
        return list(zip([0, *ends[:-1]], [e - 1 for e in ends], strict=True))

    monkeypatch.setattr("videoprune.prune.rivals.fastvid.cut", equal)
    for frames, tokens, keep in ((10, 12, 40), (3, 16, 30), (8, 30, 24), (17, 20, 300), (5, 9, 7)):
        clip = make_clip(frames, tokens)
        with FlopCounterMode(display=False) as counter:
            fastvid(clip, keep)
        products = OVER_CLIP["fastvid"].products(ClipSize(frames, tokens, clip.x.shape[2], 4), keep)
        assert counter.get_total_flops() == sum(2 * b * m * k * n for b, m, k, n in products)
        assert len(equal(clip.x, 0.9, fewest(frames))) == fewest(frames)


def test_wrong_knobs() -> None:
    clip = make_clip(2, 4)
    with pytest.raises(ValueError, match=r"context=1\.5; allowed: 0\.\.1"):
        fastvid(clip, 2, context=1.5)
    with pytest.raises(ValueError, match=r"beta=-1; allowed: 0\.\.1"):
        fastvid(clip, 2, beta=-1)
    with pytest.raises(ValueError, match="min_segments=0, spacing=4"):
        fastvid(clip, 2, min_segments=0)
    with pytest.raises(ValueError, match="spacing=0"):
        fastvid(clip, 2, spacing=0)
