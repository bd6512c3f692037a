"""HoliTom, and the clustering that it shares with FlashVID, against loops."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.prune.rivals.clips import (
    FEW,
    best,
    clips_and_counts,
    cosine,
    make_clip,
    mean,
    numbers,
    shares,
    targets,
)
from videoprune.prune.rivals.density_peaks import density_peaks
from videoprune.prune.rivals.holitom import holitom, segments
from videoprune.prune.rivals.tokens import ClipTokens

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


def test_wrong_knobs() -> None:
    clip = make_clip(2, 4)
    with pytest.raises(ValueError, match="max_length=0"):
        holitom(clip, 2, max_length=0)
    with pytest.raises(ValueError, match="neighbors=0"):
        holitom(clip, 2, neighbors=0)
