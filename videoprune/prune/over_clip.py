"""What looks at a whole clip at the encoder's end: rivals, and stage 2 of a model with one encoder.

Shapes: F frames of all clips, n tokens of a frame, D width, d key width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from videoprune.prune.controls import random_plan, uniform_plan
from videoprune.prune.merge import concatenate
from videoprune.prune.rivals import CLIP_METHODS, ClipTokens
from videoprune.prune.rivals.clip import plan_of_kept
from videoprune.prune.rivals.max_min import max_min_mask
from videoprune.types import KeepPlan


def is_clip_method(method: str) -> bool:
    """Whether `encoder.method` looks at a whole clip at the encoder's end. `random` and `uniform` go by frame."""
    return method in CLIP_METHODS and method not in ("random", "uniform")


def needs_heads(method: str) -> bool:
    """Whether it looks at the attention or the keys of the encoder's last block."""
    return bool(CLIP_METHODS[method].needs)


def choose(
    method: str,
    x: Tensor,
    keep: Sequence[int],
    clips: Sequence[int],
    *,
    attention: Tensor | None = None,
    keys: Tensor | None = None,
    grid: tuple[int, int] | None = None,
    generator: torch.Generator | None = None,
) -> KeepPlan:
    """x (F, n, D), attention (F, n), keys (F, n, d): `keep[i]` tokens of clip i, which has `clips[i]` frames.

    -> one plan over the F * n tokens, one row. Raises ValueError if the method needs what is missing.
    """
    function, first, plans = CLIP_METHODS[method].function, 0, []
    for frames, count in zip(clips, keep, strict=True):
        part = slice(first, first + frames)
        clip = ClipTokens(
            x[part],
            None if attention is None else attention[part],
            None if keys is None else keys[part],
            grid,
        )
        plans.append(function(clip, count, generator=generator))
        first += frames
    return concatenate(plans)


def fuse_clips(
    method: str,
    x: Tensor,
    keep: Sequence[int],
    tokens: Sequence[int],
    generator: torch.Generator | None = None,
) -> KeepPlan:
    """Stage 2 with one encoder: `keep[i]` of the `tokens[i]` tokens of clip i stay, x (sum of tokens, D).

    There is no other encoder to compare with (METEOR, stage 2), so the tokens that differ most from each other stay,
    over the whole clip: greedy max-min of the cosine distance (DivPrune, arXiv 2503.02175), in stretches where a
    clip has thousands of tokens (`max_min_mask`). `random` and `uniform` are controls. -> one plan over all tokens,
    one row; nothing merges.
    """
    first, plans = 0, []
    for count, n in zip(keep, tokens, strict=True):
        if method == "random":
            plans.append(random_plan(1, n, count, generator=generator, device=x.device))
        elif method == "uniform":
            plans.append(uniform_plan(1, n, count, device=x.device))
        else:
            plans.append(plan_of_kept(max_min_mask(x[first : first + n], count)[None]))
        first += n
    return concatenate(plans)
