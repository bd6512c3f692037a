"""Tokens for every kind of method, and each method of the registry ready to choose among them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from tests.prune.rivals.clips import make_clip, numbers
from videoprune.config import EncoderPrune, LLMPrune
from videoprune.prune.fusion import fuse_clips, fuse_plan
from videoprune.prune.registry import (
    BY_FRAME,
    FUSION,
    INSIDE,
    LLM,
    OVER_CLIP,
    BlockTokens,
    LayerChoice,
    LayerTokens,
)
from videoprune.types import KeepPlan

FRAMES, UNITS, WIDTH = 3, 12, 6
ENCODER = EncoderPrune(keep=0.5, schedule="mean")
# What makes a method look at attention, at keys, or at neither.
VARIANTS = {
    "plain": replace(ENCODER, critical_ratio=0.0),
    "protected": replace(ENCODER, critical_ratio=0.3),
    "weighed": replace(ENCODER, critical_ratio=0.0, lambda_att=0.2),
    "keys": replace(ENCODER, critical_ratio=0.0, metric="keys"),
}


def check(plan: KeepPlan, rows: int, tokens: int, keep: int) -> None:
    assert plan.keep.shape == (rows, keep)
    assert plan.into.shape == (rows, tokens)
    for row, into in zip(plan.keep.tolist(), plan.into.tolist(), strict=True):
        assert row == sorted(set(row))
        assert [into[k] for k in row] == list(range(keep))
        assert all(-1 <= i < keep for i in into)


def block(*, first: bool = False, grad: bool = False, seed: int = 0) -> BlockTokens:
    x, keys = numbers(FRAMES, UNITS, WIDTH, seed=seed), numbers(FRAMES, UNITS, 3, seed=seed + 1)
    attention = numbers(FRAMES, UNITS, seed=seed + 2).softmax(1) * UNITS
    x, keys, attention = (t.requires_grad_(grad) for t in (x, keys, attention))
    return BlockTokens(x, first, lambda: attention, lambda: keys)


def layer(*, grad: bool = False, seed: int = 0) -> LayerTokens:
    visual = torch.zeros(2, 14, dtype=torch.bool)
    visual[0, 3:11] = visual[1, 2:12] = True
    valid = torch.ones_like(visual)
    valid[0, :2] = False
    attention = numbers(2, 4, 14, seed=seed).exp().requires_grad_(grad)
    q, k = (numbers(2, h, 14, 5, seed=seed + h).requires_grad_(grad) for h in (4, 2))
    generator = torch.Generator().manual_seed(seed)
    wanted = torch.tensor([4, 5])
    rank = visual.long().cumsum(1) - 1
    x = numbers(4, WIDTH, seed=seed + 9)[rank % 4] + 0.3 * numbers(2, 14, WIDTH, seed=seed + 10)
    x.requires_grad_(grad)
    return LayerTokens(
        visual,
        valid,
        wanted,
        None,
        generator,
        text_attention=lambda last: attention * (1 + last),
        queries_keys=lambda: (q, k, 0.4),
        hidden=lambda: x,
        in_frame=(rank % 4).where(visual, -1),
        before=[[8, 10]],
        num_layers=5,
    )


def llm_config(name: str, **more: object) -> LLMPrune:
    return LLMPrune(method=name, keep=0.6, lambda_=2.0, **more)  # type: ignore[arg-type]


def fusion_tokens(*, grad: bool = False, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    encoder = torch.tensor([0, 0, 0, 1, 1, 2] * FRAMES)
    frame = torch.arange(FRAMES).repeat_interleave(6)
    return numbers(1, 6 * FRAMES, WIDTH, seed=seed).requires_grad_(grad), encoder, frame


def choice(made: LayerChoice | None) -> list[Tensor]:
    assert made is not None
    return [t for t in (made.kept, made.into, made.weight) if t is not None]


def every_choice(*, grad: bool, seed: int = 0) -> dict[str, Callable[[], list[Tensor]]]:
    """Each method by name, ready to choose on tokens of its own: the tensors that it decides."""

    def pair(plan: KeepPlan) -> list[Tensor]:
        return [plan.keep, plan.into, *(() if plan.weight is None else (plan.weight,))]

    clip = make_clip(FRAMES, UNITS, seed=seed)
    for part in (clip.x, clip.attention, clip.keys):
        assert part is not None
        part.requires_grad_(grad)
    z, encoder, frame = fusion_tokens(grad=grad, seed=seed)
    found: dict[str, Callable[[], list[Tensor]]] = {}
    for name, inside in INSIDE.items():
        for label, config in VARIANTS.items():
            tokens = block(grad=grad, seed=seed)
            found[f"inside {name} {label}"] = lambda m=inside, c=config, t=tokens: pair(m.plan(t, 5, c))
        x = block(grad=grad, seed=seed).x
        found[f"end {name}"] = lambda m=inside, x=x: pair(m.at_end(x, 4, ENCODER)[2])
    for name, control in BY_FRAME.items():
        found[f"frame {name}"] = lambda m=control: pair(m.plan(2, 9, 4, generator=torch.Generator()))
    for name, over in OVER_CLIP.items():
        found[f"clip {name}"] = lambda m=over: pair(m(clip, 20))
    for name in FUSION:

        def across(name: str = name) -> list[Tensor]:
            g = torch.Generator().manual_seed(seed)
            return pair(fuse_plan(z, encoder, 7, method=name, group=frame, generator=g))

        def within(name: str = name) -> list[Tensor]:
            g = torch.Generator().manual_seed(seed)
            return pair(fuse_clips(name, z[0], [3, 4], [[3, 3, 2], [1, 3, 3, 3]], g))

        found[f"across {name}"], found[f"within {name}"] = across, within
    for name, method in LLM.items():
        found[f"llm {name}"] = lambda m=method, n=name: choice(
            m.choose(layer(grad=grad, seed=seed), llm_config(n))
        )
    return found
