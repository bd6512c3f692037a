"""Rivals at the encoder's end, on tiny stock models and on several encoders: exact, the clip's own business, undone."""

from __future__ import annotations

import pytest
import torch

from tests.models.tiny import tiny_model
from tests.plug.stock import BUILDERS, clips, inputs, stock_model
from videoprune.config import EncoderPrune, PruneConfig
from videoprune.plug.apply import apply, remove
from videoprune.plug.current_pass import trace
from videoprune.prune.registry import OVER_CLIP, ClipTokens
from videoprune.types import VideoFrames

KINDS = sorted(BUILDERS)
RIVALS = list(OVER_CLIP)
FRAMES = 3
QUESTIONS = [[7, 8, 9], [10, 11]]


def config(**parts: dict) -> PruneConfig:
    return PruneConfig.from_dict(parts)


@torch.no_grad()
def run(model, batch, new: int = 0):
    if new:
        return model.generate(**batch, max_new_tokens=new, do_sample=False)
    return model(**batch).logits


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", RIVALS)
def test_counts_are_met_and_a_batch_equals_its_rows(kind, method):
    model, made = stock_model(kind), clips(kind, 2, FRAMES)
    batch = inputs(kind, made, QUESTIONS[:2])
    before = run(model, batch)
    apply(model, config(encoder={"method": method, "keep": 0.5}))
    with trace() as seen:
        together = run(model, batch)
    per_frame = {"llava_onevision": 16, "llava_next_video": 9, "internvl": 9, "smolvlm": 9}.get(kind, 12)
    newline = kind == "llava_onevision"
    expected = OVER_CLIP[method].count(FRAMES, per_frame, round(0.5 * FRAMES * per_frame)) + newline
    for one in seen:
        assert abs(one.llm_layers[0] - expected) <= (0 if OVER_CLIP[method].exact else 3 * FRAMES)
    assert not together.isnan().any()
    text = run(model, batch, 3)
    for i, clip in enumerate(made):
        one = inputs(kind, [clip], [QUESTIONS[i]])
        assert torch.allclose(run(model, one)[0, -1], together[i, -1], atol=1e-5)
        assert torch.equal(run(model, one, 3)[0, -3:], text[i, -3:])
    assert torch.equal(run(remove(model), batch), before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fusion", ["cooperative", "random", "uniform"])
@pytest.mark.parametrize("method", ["none", "evoprune", "random"])
def test_fusion_keeps_its_share_of_what_left_the_encoder(kind, method, fusion):
    model, made = stock_model(kind), clips(kind, 2, FRAMES)
    batch = inputs(kind, made, QUESTIONS[:2])
    parts = {"fusion": {"method": fusion, "keep": 0.5}}
    if method != "none":
        parts["encoder"] = {"method": method, "keep": 0.5}
    apply(model, config(**parts))
    with trace() as seen:
        together = run(model, batch)
    share = 0.5 if method == "none" else 0.25
    per_frame = {"llava_onevision": 16, "llava_next_video": 9, "internvl": 9, "smolvlm": 9}.get(kind, 12)
    expected = round(share * FRAMES * per_frame) + (kind == "llava_onevision")
    assert [one.llm_layers[0] for one in seen] == [expected] * 2
    if "random" in (method, fusion):
        return
    for i, clip in enumerate(made):
        alone = run(model, inputs(kind, [clip], [QUESTIONS[i]]))
        assert torch.allclose(alone[0, -1], together[i, -1], atol=1e-5)


def test_choose_keeps_clips_apart():
    x = torch.randn(5, 4, 8, generator=torch.Generator().manual_seed(1))
    choose = OVER_CLIP["divprune"].choose
    both = choose(ClipTokens(x), [3, 5], [2, 3])
    first, second = choose(ClipTokens(x[:2]), [3], [2]), choose(ClipTokens(x[2:]), [5], [3])
    assert both.keep[0].tolist() == first.keep[0].tolist() + [8 + k for k in second.keep[0].tolist()]
    into = [i if i < 0 else i + 3 for i in second.into[0].tolist()]
    assert both.into[0].tolist() == first.into[0].tolist() + into


@pytest.mark.parametrize("method", RIVALS)
def test_several_encoders_take_what_needs_no_attention(method):
    keep = 0.6 if method == "evs" else 0.4  # a whole frame of two at least
    model, prune = tiny_model(), PruneConfig(encoder=EncoderPrune(method=method, keep=keep))
    if OVER_CLIP[method].needs:
        with pytest.raises(ValueError, match=f"encoder.method='{method}' needs the attention of one encoder"):
            model.settings(prune)
        return
    tokens = model.encode([clip_of(3), clip_of(2, seed=1)], prune)
    per_frame = sum(t.dense for t in model.towers)
    wanted = torch.tensor(
        [OVER_CLIP[method].count(t, per_frame, round(keep * t * per_frame)) for t in (3, 2)]
    )
    near = 0 if OVER_CLIP[method].exact else 3
    assert (tokens.mask.sum(1) - wanted).abs().max() <= near
    alone = model.encode([clip_of(2, seed=1)], prune)
    n = alone.num_tokens
    assert torch.allclose(alone.x[0], tokens.x[1, :n], atol=1e-5)
    assert torch.equal(alone.origin[0], tokens.origin[1, :n])
    assert torch.equal(alone.size[0], tokens.size[1, :n])
    assert alone.size.sum() <= 2 * per_frame


def test_several_encoders_refuse_what_looks_into_one():
    with pytest.raises(ValueError, match=r"encoder.temporal=0.5, encoder.frames='equal'"):
        tiny_model().settings(config(encoder={"method": "evoprune", "keep": 0.5, "temporal": 0.5}))


def clip_of(frames: int, seed: int = 0) -> VideoFrames:
    pixels = torch.randint(
        256, (frames, 24, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )
    return VideoFrames(pixels, tuple(map(float, range(frames))), float(frames), "x", "test")
