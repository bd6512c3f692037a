"""FlashVID: segments, selection, trees and the exact count, against loops."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.prune.rivals.clips import (
    FEW,
    best,
    clips_and_counts,
    cosine,
    even,
    make_clip,
    mean,
    shares,
    targets,
)
from tests.prune.rivals.test_holitom import Parts, peaks_oracle
from tests.prune.rivals.test_whole_clip import max_min_oracle
from videoprune.prune.rivals.flashvid import cut, flashvid
from videoprune.prune.rivals.tokens import ClipTokens


def cut_oracle(x: list[list[list[float]]], threshold: float, min_segments: int) -> Parts:
    middle = [mean(frame) for frame in x]
    like = [cosine(a, b) for a, b in itertools.pairwise(middle)]
    cuts = {t for t, c in enumerate(like) if c < threshold}
    for t in best(range(len(like)), lambda t: -like[t], len(like)):
        if len(cuts) + 1 < min_segments:
            cuts.add(t)
    starts = [0, *(t + 1 for t in sorted(cuts))]
    return list(zip(starts, [*(s - 1 for s in starts[1:]), len(x) - 1], strict=True))


def trees_oracle(
    clip: ClipTokens, selected: set[int], parts: Parts, threshold: float, least: int
) -> dict[int, int]:
    """token -> the token of the frame before that it links to."""
    n, x = clip.per_frame, clip.x.flatten(0, 1).tolist()
    links: dict[int, tuple[float, int]] = {}
    for start, end in parts:
        for i in range((start + 1) * n, (end + 1) * n):
            before = [j for j in range(i // n * n - n, i // n * n) if j not in selected]
            if i in selected or not before:
                continue
            partner = max(before, key=lambda j, i=i: (cosine(x[i], x[j]), -j))
            if cosine(x[i], x[partner]) > threshold:
                links[i] = (cosine(x[i], x[partner]), partner)
    for i in sorted(links, key=lambda i: (links[i][0], i)):
        if clip.num_tokens - len(selected) - len(links) < least:
            del links[i]
    return {i: partner for i, (_, partner) in links.items()}


def flashvid_oracle(
    clip: ClipTokens,
    keep: int,
    alpha: float,
    threshold: float,
    min_segments: int,
    relevance: bool,
    segment_threshold: float = 0.9,
) -> list[int]:
    n, x = clip.per_frame, clip.x.tolist()
    parts = cut_oracle(x, segment_threshold, min_segments)
    selected = set()
    for start, end in parts:
        means = [mean(frame) for frame in x[start : end + 1]]
        for t in range(start, end + 1):
            weight = list(clip.attention[t].tolist())
            if relevance:
                near = [max(0.0, sum(cosine(v, m) for m in means) / len(means)) for v in x[t]]
                weight = [a * b for a, b in zip(weight, near, strict=True)]
            count = round(alpha * even(keep, clip.frames)[t])
            selected |= {t * n + i for i in max_min_oracle(x[t], count, weight)}
    left = keep - len(selected)
    links = trees_oracle(clip, selected, parts, threshold, left) if left else {}
    root = list(range(clip.num_tokens))
    for i in sorted(links):
        root[i] = root[links[i]]
    out = [i if i in selected else -1 for i in range(clip.num_tokens)]
    flat = clip.x.flatten(0, 1).tolist()
    roots = [
        [i for i in range(t * n, t * n + n) if root[i] == i and i not in selected] for t in range(clip.frames)
    ]
    if not left:
        return out
    for mine, count in zip(roots, shares(left, [len(r) for r in roots]), strict=True):
        tokens = [mean([flat[j] for j in range(len(flat)) if root[j] == i]) for i in mine]
        centres = peaks_oracle(tokens, count, 7) if count else []
        ends = {i: mine[c] for i, c in zip(mine, centres, strict=bool(count))}
        for j in range(len(flat)):
            if root[j] in mine:
                out[j] = ends.get(root[j], -1)
    return out


@FEW
@given(
    clips_and_counts(),
    st.sampled_from([0.7, 0.0, 1.0]),
    st.sampled_from([0.8, 0.2, -1.1]),
    st.sampled_from([8, 1, 2]),
    st.booleans(),
)
def test_flashvid(
    case: tuple[ClipTokens, int], alpha: float, threshold: float, min_segments: int, relevance: bool
) -> None:
    clip, keep = case
    knobs = {"alpha": alpha, "threshold": threshold, "min_segments": min_segments, "relevance": relevance}
    plan = flashvid(clip, keep, **knobs)
    assert plan.num_kept == keep
    if keep < clip.num_tokens:
        assert targets(plan) == flashvid_oracle(clip, keep, **knobs)
        if clip.frames > 1:
            assert cut(clip.x, 0.9, min_segments) == cut_oracle(clip.x.tolist(), 0.9, min_segments)


@pytest.mark.parametrize("threshold", [-1.1, 0.5])
def test_flashvid_cuts_the_weakest_links(threshold: float) -> None:
    """Everything is linked through the whole clip, so most counts need more roots than there are."""
    clip = make_clip(4, 9, still=0.8)
    for keep in range(1, clip.num_tokens):
        plan = flashvid(clip, keep, threshold=threshold, min_segments=1, segment_threshold=-1.0)
        expected = flashvid_oracle(clip, keep, 0.7, threshold, 1, True, segment_threshold=-1.0)
        assert targets(plan) == expected


def test_flashvid_follows_a_token_that_moves() -> None:
    kinds = torch.eye(4, dtype=torch.float64)
    x = torch.stack([kinds[[(p - t) % 4 for p in range(4)]] for t in range(4)])
    plan = flashvid(ClipTokens(x, torch.ones(4, 4)), 4, alpha=0.0, min_segments=1)
    assert targets(plan) == [(p - t) % 4 for t in range(4) for p in range(4)]


def test_wrong_knobs() -> None:
    clip = make_clip(2, 4)
    with pytest.raises(ValueError, match="alpha=2"):
        flashvid(clip, 2, alpha=2)
    with pytest.raises(ValueError, match="min_segments=0, neighbors=7"):
        flashvid(clip, 2, min_segments=0)
