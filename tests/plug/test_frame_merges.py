"""EarlyTom inside stock encoders: whole frames merge between blocks, each clip for itself; later blocks see fewer."""

from __future__ import annotations

import pytest
import torch

from tests.cost.test_cost import SIZE, WITHIN, counted, wide_windows
from tests.plug.stock import BUILDERS, clips, encoder_passes, inputs, stock_model
from tests.plug.test_apply import QUESTIONS, config, run, traced
from videoprune.cost.operations import cost
from videoprune.cost.token_flow import token_flow
from videoprune.models.shapes import model_shape
from videoprune.plug.apply import apply, remove
from videoprune.plug.current_pass import trace
from videoprune.plug.encoder_pass import EncoderPass
from videoprune.plug.frame_merges import FrameMerges, over_units
from videoprune.prune.merge import apply_plan, compose
from videoprune.prune.registry import OVER_CLIP
from videoprune.types import KeepPlan

KINDS = sorted(BUILDERS)
FRAMES = 7
EARLYTOM = {"method": "earlytom", "keep": 0.3}
MERGING = OVER_CLIP["earlytom"].merging
PER_FRAME = {"llava_onevision": 16, "llava_next_video": 9, "internvl": 9, "smolvlm": 9}


def still_clips(kind: str, rows: int):
    """Clips whose frames are alike, with two shots in every second one."""
    made = clips(kind, rows, FRAMES)
    for row, clip in enumerate(made):
        name = "pixel_values" if "pixel_values" in clip else "pixel_values_videos"
        x = clip[name]
        frames = x[0] if x.ndim == 5 else x if kind == "internvl" else x.view(FRAMES, -1, x.shape[-1])
        noise = frames.clone()
        for t in range(FRAMES):
            frames[t] = noise[3 * (row % 2 and t > 2)] + 0.1 * noise[t]
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_fewer_frames_behind_the_blocks_and_a_batch_equals_its_rows(kind, monkeypatch):
    seen = {}

    def noting(attend):
        def call(self, *args, **kwargs):
            seen.setdefault(id(self), []).append(len(self.rows.units.lengths))
            return attend(self, *args, **kwargs)

        return call

    for name in ("attend", "attend_frames"):
        monkeypatch.setattr(EncoderPass, name, noting(getattr(EncoderPass, name)))
    model, made = stock_model(kind), still_clips(kind, 3)
    batch = inputs(kind, made, QUESTIONS[:3])
    before = run(model, batch)
    prune = config(encoder=EARLYTOM, llm={"method": "fixed", "keep": 0.6, "layers": [0.4]})
    apply(model, prune)
    with encoder_passes(model) as passes:
        together, traces = traced(model, batch)
    left = passes[0].frames.clips
    assert left[0] < FRAMES
    by_block = seen[id(passes[0])]  # each block attends once
    assert by_block[0] == 3 * FRAMES > by_block[3] >= by_block[-1] >= sum(left)
    assert not together.isnan().any()
    per_frame = PER_FRAME.get(kind, 12)
    wanted = round(0.3 * FRAMES * per_frame) + (kind == "llava_onevision")
    for one in traces:
        assert abs(one.fused - wanted) <= FRAMES
    eager = run(apply(stock_model(kind, "eager"), prune), batch)
    assert torch.allclose(together[:, -1], eager[:, -1], atol=1e-4)
    text = run(model, batch, 3)
    for i, clip in enumerate(made):
        alone = inputs(kind, [clip], [QUESTIONS[i]])
        logits, (one,) = traced(model, alone)
        assert torch.allclose(logits[0, -1], together[i, -1], atol=1e-5)
        assert one.as_dict() == traces[i].as_dict()
        assert torch.equal(run(model, alone, 3)[0, -3:], text[i, -3:])
    assert torch.equal(run(remove(model), batch), before)


def test_the_blocks_by_hand():
    """LLaVA-OneVision's SigLIP: the same merges between its stock blocks, the attention of the last of them."""
    model, (made,) = stock_model("llava_onevision"), still_clips("llava_onevision", 1)
    tower = model.model.vision_tower
    x = made["pixel_values_videos"][0]
    frames = None
    with torch.no_grad():
        h = tower.embeddings(x)
        for i, block in enumerate(tower.encoder.layers):
            attention = block.self_attn
            normed = block.layer_norm1(h)
            q, k = (
                p(normed).unflatten(2, (attention.num_heads, -1)).transpose(1, 2)
                for p in (attention.q_proj, attention.k_proj)
            )
            received = (q @ k.transpose(2, 3) * attention.scale).softmax(-1).mean((1, 2)) * h.shape[1]
            h = block(h, None)
            h = h[0] if isinstance(h, tuple) else h
            if i in MERGING.blocks(6):
                plan = MERGING.plan(h)
                h, received = apply_plan(h[None], plan)[0], apply_plan(received[None], plan)[0]
                frames = plan if frames is None else compose(frames, plan)
                last = received
    assert frames is not None
    assert len(h) < FRAMES
    apply(model, config(encoder=EARLYTOM))
    with encoder_passes(model) as passes:
        run(model, inputs("llava_onevision", [made], [QUESTIONS[0]]))
    found = passes[0].frames
    assert torch.equal(found.plan.keep, frames.keep)
    assert torch.equal(found.plan.into, frames.into)
    torch.testing.assert_close(found.attention.unflatten(0, last.shape), last, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_its_cost(kind, monkeypatch):
    """Reckoned with the frames and tokens that were left, against counted operations."""
    counts, merge = [], FrameMerges.merge

    def noting(self, *args):
        out = merge(self, *args)
        counts.append(sum(self.clips))
        return out

    monkeypatch.setattr(FrameMerges, "merge", noting)
    prune, made = config(encoder=EARLYTOM), still_clips(kind, 1)
    model = wide_windows() if kind == "qwen2_5_vl" else stock_model(kind)
    batch = inputs(kind, made, [QUESTIONS[0]])
    apply(model, prune)
    with counted() as counter, trace() as found:
        model(**batch, logits_to_keep=1)
    assert counts[-1] < FRAMES
    shape, frames = model_shape(model.config), FRAMES * (2 if kind.startswith("qwen") else 1)
    sizes = {"prompt_tokens": batch["input_ids"].shape[1], "size": SIZE}
    flow = token_flow(shape, prune, frames, **sizes, visual_by_layer=found[0].llm_layers, frames_left=counts)
    assert cost(shape, flow, bytes_per_value=2).first_token == pytest.approx(
        counter.get_total_flops(), rel=WITHIN
    )
    still = token_flow(shape, prune, frames, **sizes).encoders[0]
    assert len(still.stretches[0]) > len(still.stretches[-1])
    with pytest.raises(ValueError, match=r"frames_left=\(3,\); allowed: 3 counts"):
        token_flow(shape, prune, frames, **sizes, frames_left=[3])


def test_a_plan_over_frames_of_several_sizes():
    """Frames of 2, 2, 3, 3 and 3 units: the second merges into the first, the fourth is gone."""
    frames = KeepPlan(
        torch.tensor([[0, 2, 4]]), torch.tensor([[0, 0, 1, -1, 2]]), torch.tensor([[0.75, 0.25, 1, 1, 1]])
    )
    plan, lengths = over_units(frames, [2, 2, 3, 3, 3])
    assert lengths == [2, 3, 3]
    assert plan.keep.tolist() == [[0, 1, 4, 5, 6, 10, 11, 12]]
    assert plan.into.tolist() == [[0, 1, 0, 1, 2, 3, 4, -1, -1, -1, 5, 6, 7]]
    assert plan.weight is not None
    assert plan.weight.tolist() == [[0.75, 0.75, 0.25, 0.25, *[1.0] * 9]]
