"""Merging over time and budgets by novelty inside stock encoders: exact over the clip, and one clip's business."""

from __future__ import annotations

import pytest
import torch

from tests.plug.stock import BUILDERS, clips, encoder_passes, inputs, stock_model
from tests.plug.test_apply import FIXED, QUESTIONS, config, run, traced
from videoprune.config import EncoderPrune
from videoprune.plug.apply import apply, remove
from videoprune.plug.encoder_goal import EncoderGoal, Layout
from videoprune.plug.encoder_pass import EncoderPass
from videoprune.plug.packing import PackedUnits, plan_by_frame
from videoprune.prune.merge import identity_plan
from videoprune.types import KeepPlan

KINDS = sorted(BUILDERS)
OVER = [
    {"temporal": 0.6, "still": 0.2},
    {"temporal": 1.0, "still": 0.9},
    {"frames": "novelty"},
    {"temporal": 0.5, "still": 0.2, "metric": "keys", "critical_ratio": 0.2},
]
FRAMES = 4


def still_batch(kind: str, rows: int = 3):
    """Clips of which the second frame nearly repeats the first (exactly would leave ties to the last bit)."""
    made, g = clips(kind, rows, FRAMES), torch.Generator().manual_seed(5)
    for clip in made:
        name = "pixel_values" if "pixel_values" in clip else "pixel_values_videos"
        x = clip[name]
        frames = x[0] if x.ndim == 5 else x if kind == "internvl" else x.view(FRAMES, -1, x.shape[-1])
        frames[1] = frames[0] + 0.2 * torch.randn(frames[0].shape, generator=g)
    return inputs(kind, made, QUESTIONS[:rows]), made


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("over", OVER, ids=lambda o: "-".join(map(str, o.values())))
def test_totals_are_exact_and_a_batch_equals_its_rows(kind, over):
    model, (batch, made) = stock_model(kind), still_batch(kind)
    prune = config(encoder={"method": "evoprune", "keep": 0.5, **over}, llm=FIXED)
    apply(model, prune)
    with encoder_passes(model) as passes:
        together, traces = traced(model, batch)
    units = passes[0].units()
    assert len(passes) == 1
    per_frame = units[0][0]
    dense = FRAMES * {"llava_onevision": 16}.get(kind, per_frame)
    newline = kind == "llava_onevision"
    expected = round(0.5 * dense) + newline
    assert [t.llm_layers[0] for t in traces] == [expected] * 3
    by_clip = [units[at : at + FRAMES] for at in range(0, 3 * FRAMES, FRAMES)]
    assert passes[0].units_by_clip() == by_clip
    assert [t.encoder["vision"][1] for t in traces] == [sum(n for _, n in clip) for clip in by_clip]
    kept = [n for _, n in by_clip[0]]
    assert sum(kept) == round(0.5 * FRAMES * per_frame)
    assert len(set(kept)) > 1
    assert kept[0] == max(kept)
    if over.get("frames") == "novelty":
        assert kept[1] == min(kept), "the frame that repeats another should keep least"
    other = apply(stock_model(kind, "eager"), prune)
    with encoder_passes(other) as eager_passes:
        eager = run(other, batch)
    assert torch.equal(passes[0].plan.keep, eager_passes[0].plan.keep)
    if kind != "llava_onevision":  # behind its pooling, places that one token stands for are alike to a bit
        assert torch.allclose(together[:, -1], eager[:, -1], atol=1e-4)
    text = run(model, batch, 3)  # `generate` encodes in another place
    for i, clip in enumerate(made):
        one = inputs(kind, [clip], [QUESTIONS[i]])
        assert torch.allclose(run(model, one)[0, -1], together[i, -1], atol=1e-5)
        assert torch.equal(run(model, one, 3)[0, -3:], text[i, -3:])
    remove(model)
    before = run(stock_model(kind), batch)
    assert torch.equal(run(model, batch), before)


def test_a_still_clip_with_everything_merged_over_time_is_one_frame():
    """Qwen3-VL, all frames alike: what is left is the first frame, merged with its own copies."""
    model, (made,) = stock_model("qwen3_vl"), clips("qwen3_vl", 1, FRAMES)
    x = made["pixel_values_videos"].view(FRAMES, -1, made["pixel_values_videos"].shape[-1])
    x[1:] = x[0]
    batch = inputs("qwen3_vl", [made], [QUESTIONS[0]])
    prune = {"method": "evoprune", "keep": 0.25, "temporal": 1.0, "proportional_attention": False}
    apply(model, config(encoder=prune))
    with encoder_passes(model) as passes:
        run(model, batch)
    kept = [n for _, n in passes[0].units()]
    assert kept[0] > 0
    assert sum(kept) == FRAMES * round(12 * 0.25)
    assert kept[1:] == [1, 1, 1], "a frame always keeps one token, so that its place in time is known"


def test_frames_that_come_to_one_length_keep_their_own_removals():
    """15 and 16 units on their ways to 8: after one merge both have 13, and lose different counts in the next."""
    prune = EncoderPrune("evoprune", 0.5, schedule="first", merges=4, critical_ratio=0.0)
    goal = EncoderGoal(blocks=8, config=prune, keep=0.5)
    alone = {}
    x = {n: torch.randn(n, 6, generator=torch.Generator().manual_seed(n)) for n in (15, 16)}
    for n in (15, 16):
        alone[n] = _lengths(EncoderPass("vision", Layout([n]), goal), x[n])
    both = _lengths(EncoderPass("vision", Layout([15, 16]), goal), torch.cat([x[15], x[16]]))
    assert both == [(a[0], b[0]) for a, b in zip(alone[15], alone[16], strict=True)]
    assert both[-1] == (8, 8)


def _lengths(run: EncoderPass, x: torch.Tensor) -> list[tuple[int, ...]]:
    found = []
    for block in range(8):
        x, _ = run.after(block, x)
        found.append(run.rows.units.lengths)
    return found


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"encoder.frames='novelty' with encoder.temporal=0.5"):
        config(encoder={"method": "evoprune", "keep": 0.5, "frames": "novelty", "temporal": 0.5})
    with pytest.raises(ValueError, match=r"encoder.temporal=0.5 with encoder.method='random'"):
        config(encoder={"method": "random", "keep": 0.5, "temporal": 0.5})
    with pytest.raises(ValueError, match=r"encoder.frames='novelty' with encoder.method='meteor'"):
        config(encoder={"method": "meteor", "keep": 0.5, "frames": "novelty"})
    with pytest.raises(ValueError, match=r"encoder.temporal=2.0; allowed: a number in \[0.0, 1.0\]"):
        config(encoder={"method": "evoprune", "keep": 0.5, "temporal": 2})


@pytest.mark.parametrize("prefix", [0, 1, 2])
@pytest.mark.parametrize("units", [[3, 3], [2, 4, 2], [5]])
def test_packed_units_split_and_join_are_inverse(prefix, units):
    rows = PackedUnits(units, unit=2, prefix=prefix)
    x = torch.randn(sum(prefix + 2 * n for n in units), 3)
    front, body = rows.split(x)
    assert body.shape == (sum(units), 2, 3)
    assert torch.equal(rows.join(front, body), x)
    at = 0
    for f, n in enumerate(units):
        if prefix:
            assert torch.equal(front[f], x[at : at + prefix])
        first = body[sum(units[:f])]
        assert torch.equal(first, x[at + prefix : at + prefix + 2])
        at += prefix + 2 * n
    plans = [identity_plan(len(g), units[g[0]]) for g in rows.units.groups]
    assert rows.whole(plans)[0].keep.tolist() == [list(range(sum(units)))]


def test_a_plan_over_all_frames_is_one_of_each_again():
    keep, into = (
        torch.tensor([[0, 2], [1, 3], [2, 3]]),
        torch.tensor([[0, 0, 1, -1], [0, 0, -1, 1], [-1, 0, 0, 1]]),
    )
    rows = PackedUnits([4, 4, 4], unit=1, prefix=1)
    again = plan_by_frame(rows.whole([KeepPlan(keep, into)])[0], 3)
    assert torch.equal(again.keep, keep)
    assert torch.equal(again.into, into)
