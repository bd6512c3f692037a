"""Clips taken apart into time steps and put together, against the clips as they were: stock models of every family."""

from __future__ import annotations

import pytest
import torch

from tests.models.test_clips_together import CONFIGS, _encode, _made, _model, _tensors
from tests.plug.stock import KINDS
from videoprune.models.inputs import Clip
from videoprune.models.time_steps import clip_of_steps, time_steps


def newline(model) -> bool:
    return model.hooks.family.newline


@pytest.mark.parametrize("name", ["none", "inside", "fused", "over time", "rival"])
@pytest.mark.parametrize("kind", KINDS)
def test_taken_apart_and_put_together(kind, name):
    model, made = _model(kind), _made(kind)[1:2]
    clip = _encode(model, made, CONFIGS[name], at_once=True)[0].features
    steps = time_steps(clip, [0.5 * i for i in range(3)], newline=newline(model))
    assert len(steps) == 3
    assert sum(s.dense - len(s) for s in steps) == clip.marked
    assert [s.pts_seconds for s in steps] == [(0.0,), (0.5,), (1.0,)]
    again = clip_of_steps(steps, clip, clip.clip, newline=newline(model))
    assert (again.kind, again.marked, again.frames) == (clip.kind, clip.marked, clip.frames)
    assert type(again.output) is type(clip.output)
    for one, other in zip(
        _tensors(again.output.pooler_output), _tensors(clip.output.pooler_output), strict=True
    ):
        assert torch.equal(one.nan_to_num(7.0), other.nan_to_num(7.0))
    kept = ~torch.cat(list(_tensors(clip.output.pooler_output)))[:, 0].isnan()
    levels = zip(
        again.output.get("deepstack_features") or (), clip.output.get("deepstack_features") or (), strict=True
    )
    for mine, own in levels:
        one, other = (torch.cat(list(_tensors([level]))) for level in (mine, own))
        assert torch.equal(one[kept], other[kept])


@pytest.mark.parametrize("kind", KINDS)
def test_steps_encoded_alone_are_those_of_the_clip(kind):
    """No frame sees another, so what arrives one by one makes the same clip."""
    model, whole = _model(kind), _made(kind)[1]
    clip = _encode(model, [whole], CONFIGS["none"], at_once=True)[0].features
    together = time_steps(clip, [0.0, 1.0, 2.0], newline=newline(model))
    for i, one in enumerate(_alone(whole)):
        alone = _encode(model, [one], CONFIGS["none"], at_once=True)[0].features
        (step,) = time_steps(alone, [float(i)], newline=newline(model))
        assert torch.allclose(step.x, together[i].x, atol=1e-5)
        assert torch.equal(step.place, together[i].place)
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(step.deep, together[i].deep, strict=True))


def _alone(clip: Clip) -> list[Clip]:
    """Each of its steps as a clip; ids as many as there are visual tokens, which is all that encoding reads."""
    count, found = clip.frames, []
    for i in range(count):
        tensors = {}
        for name, value in clip.tensors.items():
            if name.endswith("grid_thw"):
                tensors[name] = torch.cat([torch.ones(1, 1, dtype=value.dtype), value[:, 1:]], 1)
            elif name.endswith("merge_sizes"):
                tensors[name] = value
            else:
                stack = value[0] if value.shape[0] == 1 and value.ndim == 5 else value
                part = stack.unflatten(0, (count, -1))[i]
                tensors[name] = part[None] if value.ndim == 5 else part
        visual = [j for j in clip.ids if j in (60, 61)]
        tail = len(visual) % count
        found.append(Clip(tensors, visual[: (len(visual) - tail) // count + tail]))
    return found
