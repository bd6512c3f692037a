"""Stage 2, behind the projectors: tokens of all encoders together (METEOR, arXiv 2507.20842), or of a clip of one.

Shapes: B rows, N tokens of all encoders, D width of the LLM, C encoders, G groups (frames).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from videoprune.prune.budget import allocate
from videoprune.prune.controls import evenly_spaced, random_plan, uniform_plan
from videoprune.prune.farthest import farthest_plan, stretches
from videoprune.prune.kinds import Product
from videoprune.prune.merge import concatenate
from videoprune.prune.select import top_k_per_group
from videoprune.prune.similarity import cross_encoder_redundancy, own_redundancy
from videoprune.types import KeepPlan

# What the whole length of a clip weighs beside 1 - cosine; chosen on clips of seed 1 (docs/methods.md).
TIME_WEIGHT = 0.5


@dataclass(frozen=True)
class FusionTokens:
    """Tokens of several encoders: z (B, N, D). encoder: int64 (N,), 0..C - 1. group: int64 (N,), 0..G - 1, the frame of
    each token; all 0 where the whole clip is compared. counts: how many of each group stay. redundancy: as in
    `FusionPrune`. generator: of random methods."""

    z: Tensor
    encoder: Tensor
    group: Tensor
    counts: tuple[int, ...]
    redundancy: Literal["mean", "sum"] = "mean"
    generator: torch.Generator | None = None


class Fusion(ABC):
    """A method of stage 2. source: the paper. draws: by chance."""

    source: ClassVar[str]
    draws: ClassVar[bool] = False

    @abstractmethod
    def across(self, tokens: FusionTokens) -> KeepPlan:
        """Several encoders: counts[g] tokens of every group stay, the others are dropped."""

    def within(self, x: Tensor, keep: int, frame: np.ndarray, generator: torch.Generator | None) -> KeepPlan:
        """One encoder: `keep` of one clip's tokens x (N, D) of frames frame (N,), ascending, stay: one row.

        There is no other encoder to compare with, so the tokens that differ most from each other stay (as in DivPrune,
        arXiv 2503.02175), in stretches where there are thousands: `farthest_plan`.
        """
        return farthest_plan(x, keep)

    def across_operations(self, encoders: int, groups: int, width: int) -> list[Product]:
        """The matrix products of `across`."""
        return []

    def within_operations(self, tokens: int, width: int) -> list[Product]:
        """The matrix products of `within`."""
        count, length = stretches(tokens)
        return [(count, length, width, length)]


class Cooperative(Fusion):
    """The tokens that the other encoders say least, over all encoders together. Of one encoder those that differ most,
    in what they show or in when: without time an object that stays was left in whichever frame came out, often not
    where it appears."""

    source = "METEOR, arXiv 2507.20842"

    def across(self, tokens: FusionTokens) -> KeepPlan:
        alike = cross_encoder_redundancy(
            tokens.z, tokens.encoder, reduce=tokens.redundancy, group=tokens.group
        )
        return top_k_per_group(-alike, tokens.group, tokens.counts)

    def within(self, x: Tensor, keep: int, frame: np.ndarray, generator: torch.Generator | None) -> KeepPlan:
        return farthest_plan(x, keep, frame=frame, time_weight=TIME_WEIGHT)

    def across_operations(self, encoders: int, groups: int, width: int) -> list[Product]:
        return [(1, encoders, encoders, groups * width)]


class Separate(Fusion):
    """Within each encoder the tokens least like its others, each encoder in proportion to its tokens. Of one encoder
    those that differ most in what they show."""

    source = "METEOR, arXiv 2507.20842, its ablation"

    def across(self, tokens: FusionTokens) -> KeepPlan:
        encoders = int(tokens.encoder.max()) + 1 if tokens.encoder.numel() else 1
        cell = tokens.group * encoders + tokens.encoder
        sizes = torch.bincount(cell, minlength=len(tokens.counts) * encoders).tolist()
        rows = [sizes[start : start + encoders] for start in range(0, len(sizes), encoders)]
        quota = [q for count, row in zip(tokens.counts, rows, strict=True) for q in _split(count, row)]
        return top_k_per_group(-own_redundancy(tokens.z, tokens.encoder, group=tokens.group), cell, quota)


class RandomFusion(Fusion):
    """Drawn without replacement."""

    source = "control: drawn without replacement"
    draws = True

    def across(self, tokens: FusionTokens) -> KeepPlan:
        device = tokens.generator.device if tokens.generator else None
        drawn = torch.rand(tokens.z.shape[:2], generator=tokens.generator, device=device)
        return top_k_per_group(drawn.to(tokens.z.device), tokens.group, tokens.counts)

    def within(self, x: Tensor, keep: int, frame: np.ndarray, generator: torch.Generator | None) -> KeepPlan:
        return random_plan(1, len(x), keep, generator=generator, device=x.device)

    def within_operations(self, tokens: int, width: int) -> list[Product]:
        return []


class UniformFusion(Fusion):
    """Evenly spaced in the order given."""

    source = "control: evenly spaced"

    def across(self, tokens: FusionTokens) -> KeepPlan:
        scores = torch.zeros(
            tokens.z.shape[1], device=tokens.z.device
        )  # 1 at evenly spaced tokens of every group
        for g, count in enumerate(tokens.counts):
            members = (tokens.group == g).nonzero()[:, 0]
            scores[members[evenly_spaced(len(members), count)]] = 1.0
        return top_k_per_group(scores.expand(tokens.z.shape[:2]), tokens.group, tokens.counts)

    def within(self, x: Tensor, keep: int, frame: np.ndarray, generator: torch.Generator | None) -> KeepPlan:
        return uniform_plan(1, len(x), keep, device=x.device)

    def within_operations(self, tokens: int, width: int) -> list[Product]:
        return []


FUSION: dict[str, Fusion] = {
    "cooperative": Cooperative(),
    "separate": Separate(),
    "random": RandomFusion(),
    "uniform": UniformFusion(),
}


@torch.no_grad()
def fuse_plan(
    z: Tensor,
    encoder: Tensor,
    keep: int,
    *,
    method: str,
    redundancy: Literal["mean", "sum"] = "mean",
    group: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> KeepPlan:
    """Several encoders: keep `keep` of the tokens z (B, N, D) by `method`; the others are dropped.

    encoder: int64 (N,), 0..C - 1. group: int64 (N,), 0..G - 1, the frame of each token, or None for one
    group: comparisons stay within a group, and `keep` is split exactly, in proportion to the groups' tokens.
    redundancy: the `reduce` of `cross_encoder_redundancy`. generator: on its own device.
    Raises ValueError for an unknown method or a `keep` that is not in 0..N.
    """
    tokens = z.shape[1]
    _check_method(method)
    if not 0 <= keep <= tokens:
        raise ValueError(f"keep={keep}; allowed: 0..{tokens}, the number of tokens")
    for name, label in (("encoder", encoder), ("group", group)):
        if label is not None and tuple(label.shape) != (tokens,):
            raise ValueError(f"{name}: shape {tuple(label.shape)}; allowed: {(tokens,)}")
    frame = torch.zeros_like(encoder) if group is None else group
    counts = _split(keep, torch.bincount(frame).tolist())
    return FUSION[method].across(FusionTokens(z, encoder, frame, counts, redundancy, generator))


@torch.no_grad()
def fuse_clips(
    method: str,
    x: Tensor,
    keep: Sequence[int],
    frames: Sequence[Sequence[int]],
    generator: torch.Generator | None = None,
) -> KeepPlan:
    """One encoder: `keep[i]` of the tokens of clip i stay; its frame t has `frames[i][t]` of them.

    x: the tokens of all clips (sum of all, D).
    -> one plan over all tokens, one row; nothing merges. Raises ValueError for an unknown method.
    """
    _check_method(method)
    plans, parts = [], x.split([sum(counts) for counts in frames])
    for part, count, counts in zip(parts, keep, frames, strict=True):
        frame = np.repeat(np.arange(len(counts)), counts)
        plans.append(FUSION[method].within(part, count, frame, generator))
    return concatenate(plans)


def _check_method(method: str) -> None:
    if method not in FUSION:
        raise ValueError(f"method={method!r}; allowed: {', '.join(FUSION)}")


def _split(keep: int, sizes: list[int]) -> tuple[int, ...]:
    """`keep` in proportion to the sizes, at least one for each while that is possible."""
    minimum = 1 if keep >= sum(s > 0 for s in sizes) else 0
    return allocate(keep, sizes, sizes, minimum=minimum)
