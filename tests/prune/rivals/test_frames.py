"""Methods that treat each frame for itself, VisionZip and PruMerge+, against loops; and choosing by frame."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.prune.rivals.clips import FEW, best, clips_and_counts, cosine, even, make_clip, middles, targets
from videoprune.prune.rivals.choose import even_counts, nearest, spread_mask, top_mask
from videoprune.prune.rivals.prumerge import prumerge_plus
from videoprune.prune.rivals.tokens import ClipTokens
from videoprune.prune.rivals.visionzip import visionzip


def visionzip_oracle(clip: ClipTokens, keep: int, dominant: float) -> list[int]:
    n, out = clip.per_frame, []
    for t, count in enumerate(even(keep, clip.frames)):
        attention, keys = clip.attention[t].tolist(), clip.keys[t].tolist()
        first = best(range(n), attention.__getitem__, round(dominant * count))
        rest = [i for i in range(n) if i not in first]
        centres = [rest[m] for m in middles(len(rest), count - len(first))]
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
def test_prumerge_plus(case: tuple[ClipTokens, int], whisker: float) -> None:
    clip, keep = case
    plan = prumerge_plus(clip, keep, whisker=whisker)
    assert plan.num_kept == keep
    assert targets(plan) == prumerge_oracle(clip, keep, whisker)


def test_visionzip_merges_the_rest_and_leaves_dominant_tokens_alone() -> None:
    keys = torch.eye(2, dtype=torch.float64)[[0, 0, 1, 1, 0, 1]][None]
    clip = ClipTokens(torch.ones(1, 6, 3), torch.tensor([[9.0, 1, 1, 1, 1, 8]]), keys)
    # 0 and 5 are dominant; of 1, 2, 3, 4 the second and last are contextual.
    assert targets(visionzip(clip, 4, dominant=0.5)) == [0, 4, 2, 2, 4, 5]


def test_prumerge_keeps_an_outlier_wherever_it_is() -> None:
    for place in range(12):
        attention = torch.full((1, 12), 0.01)
        attention[0, place] = 1.0
        clip = ClipTokens(torch.ones(1, 12, 2), attention, make_clip(1, 12).keys)
        assert place in targets(prumerge_plus(clip, 3))


def test_wrong_knobs() -> None:
    clip = make_clip(1, 4)
    with pytest.raises(ValueError, match=r"dominant=1\.5; allowed: 0\.\.1"):
        visionzip(clip, 2, dominant=1.5)
    with pytest.raises(ValueError, match="whisker=-1"):
        prumerge_plus(clip, 2, whisker=-1)


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
