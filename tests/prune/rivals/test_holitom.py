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
    targets,
)
from videoprune.prune.rivals.density_peaks import density_peaks
from videoprune.prune.rivals.holitom import holitom, segments
from videoprune.prune.rivals.tokens import ClipTokens

Parts = list[tuple[int, int]]


def distances(x: list[list[float]]) -> list[list[float]]:
    return [[math.dist(a, b) / math.sqrt(len(x[0])) for b in x] for a in x]


def scores_oracle(d: list[list[float]], neighbors: int) -> list[float]:
    density = []
    for row in d:
        near = sorted(row)[:neighbors]  # 0, itself, is the first
        density.append(math.exp(-sum(v * v for v in near) / len(near)))
    score = []
    for i, row in enumerate(d):
        denser = [row[j] for j in range(len(d)) if (density[j], -j) > (density[i], -i)]
        score.append(density[i] * (min(denser) if denser else max(map(max, d))))
    return score


def peaks_oracle(x: list[list[float]], count: int, neighbors: int) -> list[int]:
    if count == 1:
        return [0] * len(x)
    m = len(x)
    d = distances(x)
    score = scores_oracle(d, min(neighbors, count))
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


def holitom_oracle(
    clip: ClipTokens, keep: int, tau: float, max_length: int, beta: float
) -> tuple[list[int], list[float]]:
    """Where each token ends, and what it counts there."""
    x, n, frames = clip.x.tolist(), clip.per_frame, clip.frames
    attention = clip.attention.tolist()
    same = [[cosine(x[t][p], x[t + 1][p]) > tau for p in range(n)] for t in range(frames - 1)]
    parts: Parts = segments_oracle(same, max_length) if same else [(0, 0)]
    resting = [[p for p in range(n) if e > s and all(same[t][p] for t in range(s, e))] for s, e in parts]
    moving = [
        [p for p in range(n) if p not in rest]
        for (s, e), rest in zip(parts, resting, strict=True)
        for _ in range(s, e + 1)
    ]
    left = sum(map(len, moving)) + sum(map(len, resting))
    share = min(keep / clip.num_tokens / (left / clip.num_tokens), 1)
    counts = [round(len(rest) * share) for rest in resting]
    if not any(moving) and not any(counts):
        counts[0] = 1
    out, weight = [-1] * (frames * n), [1.0] * (frames * n)
    for t in range(frames):
        for p in best(moving[t], attention[t].__getitem__, math.ceil(len(moving[t]) * share)):
            out[t * n + p] = t * n + p
    for (start, end), rest, count in zip(parts, resting, counts, strict=True):
        if not count:
            continue
        centres = peaks_oracle([mean([x[t][p] for t in range(start, end + 1)]) for p in rest], count, 7)
        for i, (p, centre) in enumerate(zip(rest, centres, strict=True)):
            joined = centres.count(centre) - 1
            share_of = (beta if joined else 1.0) if centre == i else (1 - beta) / joined
            for t in range(start, end + 1):
                out[t * n + p] = start * n + rest[centre]
                weight[t * n + p] = share_of / (end - start + 1)
    return out, weight


@FEW
@given(
    clips_and_counts(max_frames=5),
    st.sampled_from([0.8, 0.3, -1.1]),
    st.sampled_from([2, 1024]),
    st.sampled_from([0.6, 0.0, 1.0]),
)
def test_holitom(case: tuple[ClipTokens, int], tau: float, max_length: int, beta: float) -> None:
    clip, keep = case
    plan = holitom(clip, keep, tau=tau, max_length=max_length, beta=beta)
    if keep < clip.num_tokens:
        out, weight = holitom_oracle(clip, keep, tau, max_length, beta)
        assert targets(plan) == out
        inside = plan.into[0] >= 0
        assert plan.weight[0, inside].tolist() == pytest.approx(torch.tensor(weight)[inside].tolist())


def test_holitom_is_laxer_at_a_tenth() -> None:
    clip = make_clip(4, 10, still=0.75, seed=3)
    for keep, tau in ((4, 0.65), (5, 0.8), (10, 0.8)):
        wanted = targets(holitom(clip, keep, tau=tau))
        assert targets(holitom(clip, keep)) == wanted
        assert targets(holitom(clip, keep, tau=1.45 - tau)) != wanted


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
    with pytest.raises(ValueError, match=r"beta=1\.5"):
        holitom(clip, 2, beta=1.5)
