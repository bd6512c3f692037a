"""Clips of several encoders taken apart into time steps and put together, against the clips as they were."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.models.test_multi_encoder import CONFIGS
from tests.models.tiny import random_clip, tiny_model
from videoprune.models.token_steps import steps_of_tokens, tokens_of_steps

MODEL = tiny_model()


@torch.no_grad()
@pytest.mark.parametrize("name", CONFIGS)
def test_taken_apart_and_put_together(name):
    clip = random_clip(4)
    tokens = MODEL.encode([clip], CONFIGS[name])
    steps = steps_of_tokens(tokens, MODEL.projectors, clip.pts_seconds)
    assert [s.pts_seconds for s in steps] == [(t,) for t in clip.pts_seconds]
    assert {s.dense for s in steps} == {sum(t.dense for t in MODEL.towers)}
    again = tokens_of_steps(steps, MODEL.projectors, tokens)
    for part in ("size", "origin", "encoder", "pts_seconds", "mask"):
        assert torch.equal(getattr(again, part), getattr(tokens, part))
    assert torch.allclose(again.x, tokens.x, atol=1e-5)


@torch.no_grad()
def test_frames_that_arrive_alone_make_the_clip():
    """Within their own clips all are at time 0; in the whole one each has its own."""
    clip = random_clip(4)
    whole = MODEL.encode([clip], CONFIGS["none"])
    steps = []
    for i in range(4):
        one = replace(clip, pixels=clip.pixels[i : i + 1], pts_seconds=clip.pts_seconds[i : i + 1])
        steps += steps_of_tokens(MODEL.encode([one], CONFIGS["none"]), MODEL.projectors, one.pts_seconds)
    again = tokens_of_steps(steps, MODEL.projectors, whole)
    assert torch.equal(again.origin, whole.origin)
    assert torch.allclose(again.x, whole.x, atol=1e-5)
    assert not torch.allclose(again.x, torch.cat([s.x for s in steps])[None], atol=1e-2)  # time matters


def test_what_was_given_is_as_before():
    clip = random_clip(2)
    with torch.no_grad():
        tokens = MODEL.encode([clip], CONFIGS["none"])
        steps = steps_of_tokens(tokens, MODEL.projectors, clip.pts_seconds)
        before = [s.x.clone() for s in steps]
        tokens_of_steps(steps, MODEL.projectors, tokens)
    assert all(torch.equal(s.x, x) for s, x in zip(steps, before, strict=True))
