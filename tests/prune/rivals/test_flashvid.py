"""FlashVID: segments, selection, trees and what is left of them, against loops."""

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
    sums,
    targets,
)
from tests.prune.rivals.test_holitom import Parts, peaks_oracle
from tests.prune.rivals.test_whole_clip import max_min_oracle
from videoprune.prune.registry import OVER_CLIP
from videoprune.prune.rivals.flashvid import flashvid
from videoprune.prune.rivals.scenes import cut, fewest
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


def links_oracle(
    clip: ClipTokens, selected: set[int], part: tuple[int, int], threshold: float, budget: int
) -> dict[int, int]:
    """token -> the token of the frame before that it links to, within one segment."""
    n, x, (start, end) = clip.per_frame, clip.x.flatten(0, 1).tolist(), part
    links: dict[int, tuple[float, int]] = {}
    for i in range((start + 1) * n, (end + 1) * n):
        before = [j for j in range(i // n * n - n, i // n * n) if j not in selected]
        if i in selected or not before:
            continue
        partner = max(before, key=lambda j, i=i: (cosine(x[i], x[j]), -j))
        if cosine(x[i], x[partner]) > threshold:
            links[i] = (cosine(x[i], x[partner]), partner)
    most = (n - budget) * (end - start + 1)
    if len(links) > most:  # as many as leave one root more than the budget
        links = {i: links[i] for i in sorted(links, key=lambda i: -links[i][0])[: max(most - 1, 0)]}
    return {i: partner for i, (_, partner) in links.items()}


Sums = dict[int, list[float]]


def still_oracle(clip: ClipTokens, frame: int, selected: set[int], wanted: int) -> Sums:
    """The clusters of all tokens of a segment's only frame, by the place where each stands."""
    n, x = clip.per_frame, clip.x[frame].tolist()
    mine = {i - frame * n for i in selected if i // n == frame}
    centre = peaks_oracle(x, min(math.ceil(n * (wanted / n)), n - len(mine)), 7)
    free = [i for i in range(n) if i not in mine and centre[i] != i]
    found: Sums = {}
    for c in sorted(set(centre)):
        members = [i for i in range(n) if centre[i] == c]
        place = c
        if c in mine:
            among = [i for i in free if i in members] or free
            place = min(among, key=lambda i, c=c: (math.dist(x[i], x[c]), i))
            free.remove(place)
        row = [0.0] * clip.num_tokens
        for i in members:
            row[frame * n + i] = 1 / len(members)
        found[frame * n + place] = row
    return found


def thinned_oracle(
    clip: ClipTokens, selected: set[int], part: tuple[int, int], links: dict[int, int], wanted: int
) -> Sums:
    n, flat = clip.per_frame, clip.x.flatten(0, 1).tolist()
    frames = range(part[0], part[1] + 1)
    root = {i: i for i in range(part[0] * n, (part[1] + 1) * n)}
    for i in sorted(links):
        root[i] = root[links[i]]

    def row_of(i: int) -> list[float]:
        counted = 1 + list(links.values()).count(i)  # those that link to it directly
        return [1 / counted if root.get(j) == i else 0.0 for j in range(clip.num_tokens)]

    roots = [[i for i in range(t * n, t * n + n) if root[i] == i and i not in selected] for t in frames]
    ratio = wanted / sum(map(len, roots))
    found: Sums = {}
    for mine in roots:
        count = min(len(mine), math.ceil(len(mine) * ratio))
        if not count:
            continue
        rows = [row_of(i) for i in mine]
        tokens = [
            [sum(w * v[k] for w, v in zip(r, flat, strict=True)) for k in range(len(flat[0]))] for r in rows
        ]
        centres = peaks_oracle(tokens, count, 7) if count < len(mine) else list(range(len(mine)))
        for c in set(centres):
            found[mine[c]] = mean([rows[i] for i, other in enumerate(centres) if other == c])
    return found


def flashvid_oracle(
    clip: ClipTokens,
    keep: int,
    alpha: float,
    threshold: float,
    min_segments: int | None,
    relevance: bool,
    segment_threshold: float = 0.9,
) -> Sums:
    n, x, total = clip.per_frame, clip.x.tolist(), clip.num_tokens
    parts = cut_oracle(x, segment_threshold, min_segments or max(1, min(8, clip.frames // 4)))
    budget = math.ceil(keep / clip.frames)
    chosen = math.ceil(alpha * budget)
    selected = set()
    for start, end in parts:
        middle = mean([mean(frame) for frame in x[start : end + 1]])
        for t in range(start, end + 1):
            weight = list(clip.attention[t].tolist())
            if relevance:
                near = [max(0.0, sum(a * b for a, b in zip(v, middle, strict=True))) for v in x[t]]
                weight = [a * b for a, b in zip(weight, near, strict=True)]
            selected |= {t * n + i for i in max_min_oracle(x[t], chosen, weight)}
    found: Sums = {i: [float(j == i) for j in range(total)] for i in selected}
    for start, end in parts if budget > chosen else []:
        wanted = (budget - chosen) * (end - start + 1)
        if start == end:
            found |= still_oracle(clip, start, selected, wanted)
        else:
            links = links_oracle(clip, selected, (start, end), threshold, budget)
            found |= thinned_oracle(clip, selected, (start, end), links, wanted)
    return found


def same_sums(found: Sums, wanted: Sums) -> bool:
    return sorted(found) == sorted(wanted) and all(found[i] == pytest.approx(wanted[i]) for i in found)


@FEW
@given(
    clips_and_counts(max_frames=5),
    st.sampled_from([0.7, 0.0, 1.0]),
    st.sampled_from([0.8, 0.2, -1.1]),
    st.sampled_from([None, 8, 1, 2]),
    st.booleans(),
)
def test_flashvid(
    case: tuple[ClipTokens, int], alpha: float, threshold: float, min_segments: int | None, relevance: bool
) -> None:
    clip, keep = case
    knobs = {"alpha": alpha, "threshold": threshold, "min_segments": min_segments, "relevance": relevance}
    plan = flashvid(clip, keep, **knobs)
    if keep < clip.num_tokens:
        assert same_sums(sums(plan), flashvid_oracle(clip, keep, **knobs))
        if clip.frames > 1:
            least = min_segments or 1
            assert cut(clip.x, 0.9, least) == cut_oracle(clip.x.tolist(), 0.9, least)


@pytest.mark.parametrize("threshold", [-1.1, 0.5])
def test_flashvid_keeps_the_strongest_links(threshold: float) -> None:
    """Everything is linked through the whole clip, so most counts need more roots than there are."""
    clip = make_clip(4, 9, still=0.8)
    for keep in range(1, clip.num_tokens):
        plan = flashvid(clip, keep, threshold=threshold, min_segments=1, segment_threshold=-1.0)
        expected = flashvid_oracle(clip, keep, 0.7, threshold, 1, True, segment_threshold=-1.0)
        assert same_sums(sums(plan), expected)


def test_flashvid_follows_a_token_that_moves() -> None:
    kinds = torch.eye(4, dtype=torch.float64)
    x = torch.stack([kinds[[(p - t) % 4 for p in range(4)]] for t in range(4)])
    plan = flashvid(ClipTokens(x, torch.ones(4, 4)), 4, alpha=0.0, min_segments=1)
    assert targets(plan) == [(p - t) % 4 for t in range(4) for p in range(4)]
    # Four frames deep: the sum of four over two, as the authors' program counts what is linked directly.
    assert sums(plan)[0] == [0.5 * (i in (0, 5, 10, 15)) for i in range(16)]


def test_a_frame_of_its_own_has_no_place_twice() -> None:
    """A centre that was selected already lends its cluster another place: all budgets are met."""
    lent = 0
    for seed in range(20):
        clip = make_clip(1, 12, seed=seed)
        for keep in range(4, 12):
            plan = flashvid(clip, keep)
            assert plan.num_kept == keep
            lent += plan.also is not None
    assert lent > 20


def test_segments_of_short_and_long_clips() -> None:
    assert [fewest(t) for t in (1, 4, 7, 8, 16, 31, 32, 64)] == [1, 1, 1, 2, 4, 7, 8, 8]


def test_v1_is_without_relevance() -> None:
    clip = make_clip(6, 12, still=0.8)
    v1 = sums(OVER_CLIP["flashvid_v1"](clip, 30))
    assert v1 == sums(flashvid(clip, 30, relevance=False))
    assert v1 != sums(flashvid(clip, 30))


def test_wrong_knobs() -> None:
    clip = make_clip(2, 4)
    with pytest.raises(ValueError, match="alpha=2"):
        flashvid(clip, 2, alpha=2)
    with pytest.raises(ValueError, match="min_segments=0, neighbors=7"):
        flashvid(clip, 2, min_segments=0)
    with pytest.raises(ValueError, match="neighbors=0"):
        flashvid(clip, 2, neighbors=0)
