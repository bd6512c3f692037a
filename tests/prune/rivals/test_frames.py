"""Methods that treat each frame for itself, VisionZip and PruMerge+, against loops; and choosing by frame."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.prune.rivals.clips import FEW, best, clips_and_counts, cosine, even, make_clip, middles, targets
from videoprune.prune.merge import apply_plan
from videoprune.prune.rivals.choose import even_counts, nearest, spread_mask
from videoprune.prune.rivals.prumerge import prumerge_plus, prumerge_plus_means, sums_over_neighbors
from videoprune.prune.rivals.tokens import ClipTokens
from videoprune.prune.rivals.visionzip import visionzip
from videoprune.prune.select import top_mask


def visionzip_oracle(clip: ClipTokens, keep: int, dominant: float) -> list[int]:
    n, out = clip.per_frame, []
    for t, count in enumerate(even(keep, clip.frames)):
        attention, keys = clip.attention[t].tolist(), clip.keys[t].tolist()
        first = best(range(n), attention.__getitem__, round(dominant * count))
        rest = [i for i in range(n) if i not in first]
        contextual = count - len(first)
        centres = rest[:: max(1, len(rest) // max(1, contextual))][:contextual]
        for i in range(n):
            if i in first or i in centres:
                out.append(t * n + i)
            elif centres:
                out.append(t * n + max(centres, key=lambda j, i=i: (cosine(keys[i], keys[j]), -j)))
            else:
                out.append(-1)
    return out


def quantile(values: list[float], share: float) -> float:
    values, place = sorted(values), share * (len(values) - 1)
    low = math.floor(place)
    high = min(low + 1, len(values) - 1)
    return values[low] + (place - low) * (values[high] - values[low])


def prumerge_oracle(clip: ClipTokens, keep: int, whisker: float) -> list[int]:
    n, out = clip.per_frame, []
    for t, count in enumerate(even(keep, clip.frames)):
        attention, keys = clip.attention[t].tolist(), clip.keys[t].tolist()
        q1, q3 = quantile(attention, 0.25), quantile(attention, 0.75)
        outliers = [i for i in range(n) if attention[i] > q3 + whisker * (q3 - q1)]
        kept = best(outliers, attention.__getitem__, count)
        rest = [i for i in range(n) if i not in kept]
        kept += [rest[m] for m in middles(len(rest), count - len(kept))]
        for i in range(n):
            near = [i] if i in kept else sorted(kept, key=lambda j, i=i: (-cosine(keys[i], keys[j]), j))
            out.append(t * n + near[0] if near else -1)
    return out


@FEW
@given(clips_and_counts(max_tokens=14), st.sampled_from([54 / 64, 0.5, 0.0, 1.0]))
def test_visionzip(case: tuple[ClipTokens, int], dominant: float) -> None:
    clip, keep = case
    plan = visionzip(clip, keep, dominant=dominant)
    assert plan.num_kept == keep
    assert targets(plan) == (
        visionzip_oracle(clip, keep, dominant) if keep < clip.num_tokens else list(range(keep))
    )


@FEW
@given(clips_and_counts(max_tokens=14), st.sampled_from([1.5, 0.0, 0.3]))
def test_prumerge_plus_means(case: tuple[ClipTokens, int], whisker: float) -> None:
    clip, keep = case
    plan = prumerge_plus_means(clip, keep, whisker=whisker)
    assert plan.num_kept == keep
    assert targets(plan) == prumerge_oracle(clip, keep, whisker)


def test_visionzip_merges_the_rest_and_leaves_dominant_tokens_alone() -> None:
    keys = torch.eye(2, dtype=torch.float64)[[0, 0, 1, 1, 1, 1]][None]
    clip = ClipTokens(torch.ones(1, 6, 3), torch.tensor([[9.0, 1, 1, 1, 1, 8]]), keys)
    # 0 and 5 are dominant; of 1, 2, 3, 4 the first and third are contextual.
    plan = visionzip(clip, 4, dominant=0.5)
    assert targets(plan) == [0, 1, 3, 3, 3, 5]
    assert plan.weight is not None
    assert plan.weight.tolist() == [[1, 1, 0.5, 1, 0.5, 1]]


@FEW
@given(st.integers(1, 3), st.integers(2, 12), st.integers(1, 6), st.integers(0, 10**6), st.data())
def test_prumerge_plus_sums_over_neighbours(
    frames: int, tokens: int, neighbors: int, seed: int, data: st.DataObject
) -> None:
    clip = make_clip(frames, tokens, seed=seed)
    assert clip.attention is not None
    assert clip.keys is not None
    most = [data.draw(st.integers(0, tokens)) for _ in range(frames)]
    plan = sums_over_neighbors(clip, most, neighbors)
    expected, places = [], []
    for t, m in enumerate(most):
        x, keys = clip.x[t].tolist(), clip.keys[t].tolist()
        attention = (clip.attention[t] / clip.attention[t].sum()).tolist()
        step = max(1, int(1 / (m / tokens)) // 3) if m else tokens
        kept = {*best(range(tokens), attention.__getitem__, int(tokens * (m / tokens)))}
        kept |= set(range(0, max(1, tokens - 1), step))
        others = [i for i in range(tokens) if i not in kept]
        for i in range(tokens):
            if i not in kept and i != max(others):
                continue
            near = sorted((j for j in range(tokens) if j != i), key=lambda j, i=i: -cosine(keys[i], keys[j]))
            into = {i: 1.0} | {j: attention[j] for j in near[:neighbors]}
            if i not in kept:
                into = {j: attention[j] for j in others}
            places.append(t * tokens + i)
            expected.append([sum(w * x[j][d] for j, w in into.items()) for d in range(len(x[0]))])
    assert plan.keep[0].tolist() == places
    found = apply_plan(clip.x.flatten(0, 1)[None], plan)[0]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("tokens", [36, 49, 169, 196, 576])
@pytest.mark.parametrize("share", [0.5, 0.25, 0.1])
def test_prumerge_plus_comes_near_its_share(tokens: int, share: float) -> None:
    keep = round(share * 4 * tokens)
    kept = prumerge_plus(make_clip(4, tokens), keep).num_kept
    assert abs(kept - keep) <= max(4 * 2, 0.13 * keep)  # 56 % for a half: the sample is every second place


def test_prumerge_plus_takes_as_many_as_stand_out() -> None:
    clip = make_clip(1, 40)
    attention = torch.linspace(0.9, 1.1, 40, dtype=torch.float64)[None].clone()
    attention[0, [3, 17, 30, 38]] = 9.0
    clip = ClipTokens(clip.x, attention, clip.keys)
    plan = prumerge_plus(
        clip, 1, adaptive=True
    )  # 4 of 40, so every third of the first 39, and one token more
    assert plan.keep[0].tolist() == sorted({3, 17, 30, 38, *range(0, 39, 3), 39})
    flat = ClipTokens(clip.x, torch.full((1, 40), 0.5), clip.keys)
    assert prumerge_plus(flat, 20, adaptive=True).keep[0].tolist() == [0, 39]


def test_prumerge_keeps_an_outlier_wherever_it_is() -> None:
    for place in range(12):
        attention = torch.full((1, 12), 0.01)
        attention[0, place] = 1.0
        clip = ClipTokens(torch.ones(1, 12, 2), attention, make_clip(1, 12).keys)
        assert place in targets(prumerge_plus_means(clip, 3))
        assert place in targets(prumerge_plus(clip, 5))


def test_wrong_knobs() -> None:
    clip = make_clip(1, 4)
    with pytest.raises(ValueError, match=r"dominant=1\.5; allowed: 0\.\.1"):
        visionzip(clip, 2, dominant=1.5)
    with pytest.raises(ValueError, match="whisker=-1"):
        prumerge_plus_means(clip, 2, whisker=-1)
    with pytest.raises(ValueError, match="neighbors=0; allowed: 1 or more"):
        prumerge_plus(clip, 2, neighbors=0)


@FEW
@given(st.integers(1, 12), st.integers(1, 3), st.data())
def test_spread_and_top_masks(tokens: int, frames: int, data: st.DataObject) -> None:
    bits = st.lists(st.booleans(), min_size=tokens, max_size=tokens)
    among = data.draw(st.lists(bits, min_size=frames, max_size=frames))
    counts = [data.draw(st.integers(0, sum(row))) for row in among]
    values = st.lists(st.integers(0, 3), min_size=tokens, max_size=tokens)
    scores = data.draw(st.lists(values, min_size=frames, max_size=frames))
    spread = spread_mask(torch.tensor(among), torch.tensor(counts))
    top = top_mask(torch.tensor(scores).double(), torch.tensor(counts), torch.tensor(among))
    for t in range(frames):
        true = [i for i in range(tokens) if among[t][i]]
        assert spread[t].nonzero().flatten().tolist() == [true[m] for m in middles(len(true), counts[t])]
        assert top[t].nonzero().flatten().tolist() == sorted(best(true, scores[t].__getitem__, counts[t]))


def test_even_counts() -> None:
    for frames in range(1, 9):
        for keep in range(40):
            counts = even_counts(keep, frames)
            assert counts == even(keep, frames)
            assert sum(counts) == keep
            assert max(counts) - min(counts) <= 1


def test_nearest_takes_the_earlier_of_equals_and_works_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    metric = torch.ones(3, 4, 2)
    centres = torch.tensor([[False, True, True, False], [False] * 4, [True] * 4])
    expected = [[1, 1, 2, 1], [-1] * 4, [0, 1, 2, 3]]
    assert nearest(metric, centres).tolist() == expected
    monkeypatch.setattr("videoprune.prune.rivals.choose._ENTRIES", 1)
    assert nearest(metric, centres).tolist() == expected
