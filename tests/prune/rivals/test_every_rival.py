"""What holds for every method: counts, the identity, missing inputs, the entry's own words."""

from __future__ import annotations

import dataclasses
import inspect
import re
from itertools import product

import pytest
import torch
from hypothesis import given

from tests.prune.rivals.clips import FEW, clips_and_counts, make_clip, targets
from videoprune.prune.merge import apply_plan
from videoprune.prune.registry import OVER_CLIP, ClipTokens

EVERY = pytest.mark.parametrize("name", OVER_CLIP)


@EVERY
def test_entries_are_documented(name: str) -> None:
    entry = OVER_CLIP[name]
    assert re.search(r"arXiv \d{4}\.\d{5}|^control: ", entry.source)
    assert inspect.getdoc(entry.function)
    parameters = list(inspect.signature(entry.function).parameters.values())
    assert [p.name for p in parameters] == ["clip", "keep", *entry.knobs, "generator"]
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in parameters[2:])


def test_all_that_was_promised_is_there() -> None:
    wanted = (
        "visionzip prumerge_plus prumerge_plus_means divprune evs aim vidcom2 holitom flashvid flashvid_v1"
    )
    assert set(OVER_CLIP) == {*wanted.split(), *["fastvid", "earlytom", "dycoke", "frames", "pool"]}


@EVERY
@FEW
@given(case=clips_and_counts())
def test_counts_are_exact(name: str, case: tuple[ClipTokens, int]) -> None:
    clip, keep = case
    keep = max(keep, clip.per_frame) if name == "evs" else keep  # never less than a frame
    plan = OVER_CLIP[name](clip, keep)
    assert 1 <= plan.num_kept <= clip.num_tokens
    assert plan.num_kept == keep or not OVER_CLIP[name].exact
    assert plan.num_tokens == clip.num_tokens
    targets(plan)
    everything = OVER_CLIP[name](clip, clip.num_tokens)
    assert targets(everything) == list(range(clip.num_tokens))


@EVERY
def test_needs_are_needed_and_enough(name: str) -> None:
    entry, clip = OVER_CLIP[name], make_clip(3, 6)
    for part in ("attention", "keys"):
        less = dataclasses.replace(clip, **{part: None})
        if part in entry.needs:
            with pytest.raises(ValueError, match=f"{part}=None"):
                entry(less, 7)
        else:
            assert targets(entry(less, 7)) == targets(entry(clip, 7))


@EVERY
def test_plain_clips(name: str) -> None:
    """Tokens that are all alike, or zero, or half precision, or without a grid: always the count, no error."""
    for (frames, tokens), value in product([(1, 1), (1, 5), (5, 1), (3, 4)], [0.0, 1.0]):
        for dtype in (torch.float16, torch.float32):
            clip = ClipTokens(
                torch.full((frames, tokens, 3), value, dtype=dtype),
                torch.full((frames, tokens), 1 / tokens, dtype=dtype),
                torch.full((frames, tokens, 2), value, dtype=dtype),
            )
            for keep in range(tokens if name == "evs" else 1, frames * tokens + 1):
                plan = OVER_CLIP[name](clip, keep)
                assert plan.num_kept == len({i for i in targets(plan) if i >= 0})
                assert plan.num_kept == keep or not OVER_CLIP[name].exact


@EVERY
def test_no_gradient_enters_the_choice_but_merging_passes_it(name: str) -> None:
    clip = make_clip(2, 6)
    x = clip.x.clone().requires_grad_()
    plan = OVER_CLIP[name](dataclasses.replace(clip, x=x), 7, generator=torch.Generator())
    again = OVER_CLIP[name](clip, 7, generator=torch.Generator())
    assert targets(plan) == targets(again)
    apply_plan(x.flatten(0, 1)[None], plan).sum().backward()
    assert x.grad is not None
    inside = float(plan.num_kept) if plan.weight is None else float(plan.weight[plan.into >= 0].sum())
    inside += 0.0 if plan.also is None else float(plan.also[2].sum())
    assert x.grad.sum() == pytest.approx(inside * x.shape[2], rel=1e-5)


@pytest.mark.parametrize("name", sorted(set(OVER_CLIP) - {"frames", "pool"}))
def test_all_tensors_are_made_where_the_clip_is(name: str) -> None:
    """The default device holds no data here, so a tensor that is made on it by mistake would raise."""
    for still, keep in product((0.0, 0.98), (12, 13, 30)):
        clip = make_clip(5, 12, still=still)
        expected = OVER_CLIP[name](clip, keep)
        with torch.device("meta"):
            plan = OVER_CLIP[name](clip, keep)
        assert torch.equal(plan.into, expected.into)


@EVERY
def test_impossible_counts(name: str) -> None:
    for keep in (0, -1, 13):
        with pytest.raises(ValueError, match=rf"keep={keep}; allowed: 1\.\.12"):
            OVER_CLIP[name](make_clip(2, 6), keep)


def test_a_clip_checks_itself() -> None:
    x = torch.zeros(2, 6, 3)
    for bad in (torch.zeros(6, 3), torch.zeros(0, 6, 3), torch.zeros(2, 6, 3).long()):
        with pytest.raises(ValueError, match="x: "):
            ClipTokens(bad)
    with pytest.raises(ValueError, match=r"attention: shape \(6,\); allowed: \(2, 6\)"):
        ClipTokens(x, attention=torch.zeros(6))
    with pytest.raises(ValueError, match="keys: shape"):
        ClipTokens(x, keys=torch.zeros(2, 5, 3))
    with pytest.raises(ValueError, match=r"grid=\(2, 2\); allowed: rows \* columns = 6"):
        ClipTokens(x, grid=(2, 2))
