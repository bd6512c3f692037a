"""HoliTom and FlashVID, and the clustering that both use, against loops."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.prune.baselines.clips import (
    FEW,
    best,
    clips_and_counts,
    cosine,
    even,
    make_clip,
    mean,
    numbers,
    shares,
    targets,
)
from tests.prune.baselines.test_whole_clip import max_min_oracle
from videoprune.prune.baselines.clip import ClipTokens
from videoprune.prune.baselines.density_peaks import density_peaks
from videoprune.prune.baselines.flashvid import cut, flashvid
from videoprune.prune.baselines.holitom import holitom, segments

Parts = list[tuple[int, int]]


def peaks_oracle(x: list[list[float]], count: int, neighbors: int) -> list[int]:
    m, scale = len(x), math.sqrt(len(x[0]))
    d = [[math.dist(a, b) / scale for b in x] for a in x]
    if m == 1:
        return [0]
    density = []
    for i in range(m):
        near = sorted(d[i][j] for j in range(m) if j != i)[:neighbors]
        density.append(math.exp(-sum(v * v for v in near) / len(near)))
    score = []
    for i in range(m):
        denser = [j for j in range(m) if (density[j], -j) > (density[i], -i)]
        score.append(density[i] * (min(d[i][j] for j in denser) if denser else max(d[i])))
    centres = sorted(best(range(m), score.__getitem__, count))
    return [i if i in centres else min(centres, key=lambda c, i=i: (d[i][c], c)) for i in range(m)]


@FEW
@given(st.integers(1, 12), st.data())
def test_density_peaks(tokens: int, data: st.DataObject) -> None:
    x = numbers(tokens, 3, seed=data.draw(st.integers(0, 10**6)))
    count, neighbors = data.draw(st.integers(1, tokens)), data.draw(st.integers(1, 8))
    assert density_peaks(x, count, neighbors).tolist() == peaks_oracle(x.tolist(), count, neighbors)


def test_density_peaks_finds_the_clumps() -> None:
    clumps = 10 * torch.eye(3)[[0, 1, 0, 2, 1, 0, 2]] + 0.01 * numbers(7, 3).float()
    found = density_peaks(clumps, 3, 1).tolist()
    for i, j in itertools.combinations(range(7), 2):
        assert (found[i] == found[j]) == (clumps[i].argmax() == clumps[j].argmax())
    assert density_peaks(torch.ones(4, 2), 2).tolist() == [0, 1, 0, 0]


def segments_oracle(same: list[list[bool]], max_length: int) -> Parts:
    """All ways to cut, the one that saves most; of equals the shortest last segment, then the one before."""
    frames = len(same) + 1
    ways = []
    for cuts in itertools.product((False, True), repeat=frames - 1):
        starts = [0, *(t + 1 for t in range(frames - 1) if cuts[t])]
        parts = list(zip(starts, [*(s - 1 for s in starts[1:]), frames - 1], strict=True))
        if any(end - start >= max_length for start, end in parts):
            continue
        saved = sum(
            (end - start) * sum(all(same[t][p] for t in range(start, end)) for p in range(len(same[0])))
            for start, end in parts
            if end > start
        )
        ways.append((-saved, [end - start for start, end in parts[::-1]], parts))
    return min(ways)[2]


@FEW
@given(st.integers(2, 7), st.integers(1, 4), st.integers(1, 8), st.floats(0, 1), st.integers(0, 10**6))
def test_segments_are_the_best_of_all(
    frames: int, tokens: int, max_length: int, share: float, seed: int
) -> None:
    same = torch.rand(frames - 1, tokens, generator=torch.Generator().manual_seed(seed)) < share
    assert segments(same, max_length) == segments_oracle(same.tolist(), max_length)


def still_oracle(x: list[list[list[float]]], parts: Parts, tau: float, keep: int) -> set[tuple[int, int]]:
    """(segment, place) that merge over time."""
    weakest = {}
    for s, (start, end) in enumerate(parts):
        for p in range(len(x[0])):
            links = [cosine(x[t][p], x[t + 1][p]) for t in range(start, end)]
            if links and min(links) > tau:
                weakest[s, p] = min(links)
    left = len(x) * len(x[0]) - sum(parts[s][1] - parts[s][0] for s, _ in weakest)
    for run in sorted(weakest, key=lambda r: (weakest[r], r)):
        if left >= keep:
            break
        left += parts[run[0]][1] - parts[run[0]][0]
        del weakest[run]
    return set(weakest)


def holitom_oracle(clip: ClipTokens, keep: int, tau: float, max_length: int) -> list[int]:
    x, n, frames = clip.x.tolist(), clip.per_frame, clip.frames
    attention = clip.attention.tolist()
    parts: Parts = [(0, 0)]
    if frames > 1:
        same = [[cosine(x[t][p], x[t + 1][p]) > tau for p in range(n)] for t in range(frames - 1)]
        parts = segments_oracle(same, max_length)
    still = still_oracle(x, parts, tau, keep)
    segment = [s for s, (start, end) in enumerate(parts) for _ in range(start, end + 1)]
    moving = [[p for p in range(n) if (segment[t], p) not in still] for t in range(frames)]
    resting = [[p for p in range(n) if (s, p) in still] for s in range(len(parts))]
    counts = shares(keep, [len(m) for m in (*moving, *resting)])
    out = [-1] * (frames * n)
    for t in range(frames):
        for p in best(moving[t], attention[t].__getitem__, counts[t]):
            out[t * n + p] = t * n + p
    for s, (start, end) in enumerate(parts):
        if counts[frames + s]:
            tokens = [mean([x[t][p] for t in range(start, end + 1)]) for p in resting[s]]
            for p, centre in zip(resting[s], peaks_oracle(tokens, counts[frames + s], 7), strict=True):
                for t in range(start, end + 1):
                    out[t * n + p] = start * n + resting[s][centre]
    return out


@FEW
@given(clips_and_counts(max_frames=5), st.sampled_from([0.8, 0.3, -1.1]), st.sampled_from([2, 1024]))
def test_holitom(case: tuple[ClipTokens, int], tau: float, max_length: int) -> None:
    clip, keep = case
    plan = holitom(clip, keep, tau=tau, max_length=max_length)
    assert plan.num_kept == keep
    if keep < clip.num_tokens:
        assert targets(plan) == holitom_oracle(clip, keep, tau, max_length)


def test_holitom_merges_a_still_clip_into_its_first_frame() -> None:
    x = numbers(1, 6, 4).expand(5, 6, 4)
    clip = ClipTokens(x, torch.ones(5, 6))
    assert targets(holitom(clip, 6)) == [0, 1, 2, 3, 4, 5] * 5
    assert max(targets(holitom(clip, 3))) < 6
    assert min(targets(holitom(clip, 3))) >= 0


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
    with pytest.raises(ValueError, match="max_length=0"):
        holitom(clip, 2, max_length=0)
    with pytest.raises(ValueError, match="neighbors=0"):
        holitom(clip, 2, neighbors=0)
    with pytest.raises(ValueError, match="alpha=2"):
        flashvid(clip, 2, alpha=2)
    with pytest.raises(ValueError, match="min_segments=0, neighbors=7"):
        flashvid(clip, 2, min_segments=0)
