"""METEOR, stage 2 (arXiv 2507.20842): prune the tokens of all encoders together, after projection.

Shapes: B rows, N tokens of all encoders, D width of the LLM, C encoders, G groups (frames).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from videoprune.prune.budget import allocate
from videoprune.prune.controls import evenly_spaced
from videoprune.prune.select import top_k_per_group
from videoprune.prune.similarity import cross_encoder_redundancy, own_redundancy
from videoprune.types import KeepPlan

Method = Literal["cooperative", "separate", "random", "uniform"]


def fuse_plan(
    z: Tensor,
    encoder: Tensor,
    keep: int,
    *,
    method: Method,
    redundancy: Literal["mean", "sum"] = "mean",
    group: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> KeepPlan:
    """Keep `keep` of the tokens z (B, N, D); the others are dropped.

    encoder: int64 (N,), 0..C - 1. group: int64 (N,), 0..G - 1, the frame of each token, or None for one
    group: comparisons stay within a group, and `keep` is split exactly, in proportion to the groups' tokens.
    `cooperative`: the tokens that the other encoders say least, over all encoders together (METEOR);
    `redundancy` is the `reduce` of `cross_encoder_redundancy`. `separate`: within each encoder the tokens
    least like its others, each encoder in proportion to its tokens. `random`: drawn from `generator`, on its
    own device. `uniform`: evenly spaced in the order given.
    Raises ValueError for an unknown method or a `keep` that is not in 0..N.
    """
    batch, tokens = z.shape[:2]
    if method not in get_args(Method):
        raise ValueError(f"method={method!r}; allowed: {', '.join(get_args(Method))}")
    if not 0 <= keep <= tokens:
        raise ValueError(f"keep={keep}; allowed: 0..{tokens}, the number of tokens")
    for name, label in (("encoder", encoder), ("group", group)):
        if label is not None and tuple(label.shape) != (tokens,):
            raise ValueError(f"{name}: shape {tuple(label.shape)}; allowed: {(tokens,)}")
    frame = torch.zeros_like(encoder) if group is None else group
    sizes = torch.bincount(frame).tolist()
    counts = _split(keep, sizes)
    if method == "separate":
        return _separate(z, encoder, frame, counts)
    if method == "cooperative":
        scores = -cross_encoder_redundancy(z, encoder, reduce=redundancy, group=frame)
    elif method == "random":
        drawn = torch.rand(batch, tokens, generator=generator, device=generator.device if generator else None)
        scores = drawn.to(z.device)
    else:
        scores = _even_scores(frame, sizes, counts).expand(batch, tokens)
    return top_k_per_group(scores, frame, counts)


def _split(keep: int, sizes: list[int]) -> tuple[int, ...]:
    """`keep` in proportion to the sizes, at least one for each while that is possible."""
    minimum = 1 if keep >= sum(s > 0 for s in sizes) else 0
    return allocate(keep, sizes, sizes, minimum=minimum)


def _separate(z: Tensor, encoder: Tensor, frame: Tensor, counts: tuple[int, ...]) -> KeepPlan:
    encoders = int(encoder.max()) + 1 if encoder.numel() else 1
    cell = frame * encoders + encoder
    sizes = torch.bincount(cell, minlength=len(counts) * encoders).tolist()
    quota = [
        q for g, count in enumerate(counts) for q in _split(count, sizes[g * encoders : (g + 1) * encoders])
    ]
    return top_k_per_group(-own_redundancy(z, encoder, group=frame), cell, quota)


def _even_scores(frame: Tensor, sizes: list[int], counts: tuple[int, ...]) -> Tensor:
    """1 at evenly spaced tokens of every group, 0 elsewhere: (N,)."""
    scores = torch.zeros(frame.shape[0], device=frame.device)
    for g, (size, count) in enumerate(zip(sizes, counts, strict=True)):
        members = (frame == g).nonzero()[:, 0]
        scores[members[evenly_spaced(size, count)]] = 1.0
    return scores
