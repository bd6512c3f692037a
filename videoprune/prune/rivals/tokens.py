"""What every method over a clip takes, one clip's visual tokens, and how it hands back its plan.

A method gives each token a target: the token of the clip that it ends in (itself if it survives), or -1 if
it is dropped. `plan_of` turns the targets into a `KeepPlan` over the T * n tokens, frame after frame.

Shapes: T frames, n tokens of a frame, N = T * n, D width, d key width.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from einops import rearrange
from torch import Tensor

from videoprune.prune.kinds import Product
from videoprune.prune.merge import concatenate, drop_others, identity_plan
from videoprune.types import KeepPlan

Need = Literal["attention", "keys"]
_COMMON = ("clip", "keep", "generator")


@dataclass(frozen=True)
class ClipTokens:
    """One clip's visual tokens at one place of the model.

    x: floating (T, n, D). attention: (T, n), importance of each token in the encoder's last block (CLS-to-patch
    attention, or attention received where there is no CLS), or None. keys: (T, n, d), head-mean keys of that
    block, or None. grid: (rows, columns) of a frame's tokens, row by row, or None. segments: (T,), ascending, the
    segment of each frame where `FrameMerging` found them on the way, and then attention is of its last block; or None.
    """

    x: Tensor
    attention: Tensor | None = None
    keys: Tensor | None = None
    grid: tuple[int, int] | None = None
    segments: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.x.ndim != 3 or not self.x.is_floating_point() or self.x.shape[0] * self.x.shape[1] == 0:
            raise ValueError(
                f"x: {self.x.dtype} {tuple(self.x.shape)}; allowed: floating (T, n, D), at least one token"
            )
        lead = tuple(self.x.shape[:2])
        if self.attention is not None and tuple(self.attention.shape) != lead:
            raise ValueError(f"attention: shape {tuple(self.attention.shape)}; allowed: {lead}, as x has")
        if self.keys is not None and (self.keys.ndim != 3 or tuple(self.keys.shape[:2]) != lead):
            raise ValueError(f"keys: shape {tuple(self.keys.shape)}; allowed: {(*lead, 'd')}, as x has")
        if self.grid is not None and self.grid[0] * self.grid[1] != lead[1]:
            raise ValueError(f"grid={self.grid}; allowed: rows * columns = {lead[1]}, the tokens of a frame")
        if self.segments is not None and len(self.segments) != lead[0]:
            raise ValueError(f"segments={self.segments}; allowed: {lead[0]}, one for each frame")

    @property
    def frames(self) -> int:
        return self.x.shape[0]

    @property
    def per_frame(self) -> int:
        return self.x.shape[1]

    @property
    def num_tokens(self) -> int:
        return self.frames * self.per_frame


@dataclass(frozen=True)
class ClipSize:
    """Sizes of one clip's `ClipTokens`: frames, tokens of a frame, widths of x and of the keys."""

    frames: int
    tokens: int
    width: int
    key_width: int


class FrameMerging(ABC):
    """Merges whole frames between blocks of the encoder, for a method that then chooses at its end."""

    @abstractmethod
    def blocks(self, num_blocks: int) -> tuple[int, ...]:
        """The blocks behind which frames merge, ascending, of those that the LLM's features come through."""

    @abstractmethod
    def plan(self, x: Tensor) -> KeepPlan:
        """Which frames of one clip, x (T, p, D) with its p patches a frame, stay or merge: one row over T frames."""

    @abstractmethod
    def segments(self, x: Tensor) -> tuple[int, ...]:
        """(T,), ascending: the segment of each frame that is left behind the last merging, x (T, p, D)."""

    @abstractmethod
    def left(self, frames: int) -> int:
        """How many of `frames` frames `plan` leaves of a clip that stands still, for costs."""


def _no_products(size: ClipSize, keep: int) -> list[Product]:
    return []


def _as_wanted(frames: int, tokens: int, keep: int) -> int:
    return min(keep, frames * tokens)


@dataclass(frozen=True)
class OverClip:
    """A method that looks at a whole clip at the encoder's end: it keeps exactly `keep` of its tokens, called as
    entry(clip, keep, *, generator=None, and knobs of its own). `over_clip` makes one of a function.

    exact: False where it comes only near `keep`, as its authors' code does. needs: what it reads of the clip besides x.
    source: the paper. products: its matrix products, from the sizes of the
    clip and `keep`; what the pixels decide (clusters, segments) is left out. count: how many tokens stay of a clip of
    so many frames, with so many tokens each, where `keep` are wanted; as near as can be said before the pixels are
    seen. merging: what it does inside the encoder, before it is called with what is left. draws: by chance.
    """

    function: Callable[..., KeepPlan]
    source: str
    needs: frozenset[Need] = frozenset()
    products: Callable[[ClipSize, int], list[Product]] = _no_products
    exact: bool = True
    count: Callable[[int, int, int], int] = _as_wanted
    merging: FrameMerging | None = None
    draws: bool = False

    @property
    def knobs(self) -> tuple[str, ...]:
        """Names of its own settings."""
        return tuple(n for n in inspect.signature(self.function).parameters if n not in _COMMON)

    def __call__(
        self, clip: ClipTokens, keep: int, *, generator: torch.Generator | None = None, **knobs: Any
    ) -> KeepPlan:
        """One plan over the clip's T * n tokens, frame after frame, decided without gradients.

        Keeping all gives the identity. Raises ValueError if the clip lacks one of `needs` or `keep` is not in 1..N.
        """
        name = self.function.__name__
        for need in sorted(self.needs):
            if getattr(clip, need) is None:
                raise ValueError(f"{need}=None; {name} needs it")
        if not 1 <= keep <= clip.num_tokens:
            raise ValueError(f"keep={keep}; allowed: 1..{clip.num_tokens}, the tokens of the clip")
        if keep == clip.num_tokens:
            return identity_plan(1, keep, clip.x.device)
        with torch.no_grad():
            plan = self.function(clip, keep, generator=generator, **knobs)
        assert plan.num_kept == keep or not self.exact, f"{name} kept {plan.num_kept} of {keep}"
        return plan

    def choose(
        self,
        tokens: ClipTokens,
        keep: Sequence[int],
        clips: Sequence[int],
        generator: torch.Generator | None = None,
    ) -> KeepPlan:
        """Several clips in a row: keep[i] tokens of clip i, which has clips[i] of the frames in `tokens`.

        -> one plan over all tokens, one row. Raises ValueError as for one clip.
        """
        first, plans = 0, []
        for frames, count in zip(clips, keep, strict=True):
            part = slice(first, first + frames)
            attention, keys = (None if t is None else t[part] for t in (tokens.attention, tokens.keys))
            segments = None if tokens.segments is None else tokens.segments[part]
            clip = ClipTokens(tokens.x[part], attention, keys, tokens.grid, segments)
            plans.append(self(clip, count, generator=generator))
            first += frames
        return concatenate(plans)


def over_clip(
    source: str,
    needs: Sequence[Need] = (),
    products: Callable[[ClipSize, int], list[Product]] = _no_products,
    *,
    exact: bool = True,
    count: Callable[[int, int, int], int] = _as_wanted,
    merging: FrameMerging | None = None,
    draws: bool = False,
) -> Callable[[Callable[..., KeepPlan]], OverClip]:
    """Make an `OverClip` of function(clip, keep, *, generator=None, and its knobs), which may then trust its inputs."""
    return lambda function: OverClip(
        function, source, frozenset(needs), products, exact, count, merging, draws
    )


def nearest_products(size: ClipSize, keep: int) -> list[Product]:
    """Each token's key against all keys of its frame."""
    return [(size.frames, size.tokens, size.key_width, size.tokens)]


def given(tensor: Tensor | None) -> Tensor:
    """A part of the clip that `OverClip` has checked, in at least float32."""
    assert tensor is not None
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def positions(clip: ClipTokens) -> Tensor:
    """Each token's own place in the clip: int64 (T, n)."""
    return rearrange(torch.arange(clip.num_tokens, device=clip.x.device), "(t n) -> t n", t=clip.frames)


def in_clip(local: Tensor) -> Tensor:
    """Targets within a frame, int64 (T, n) of 0..n - 1 or -1 -> targets within the clip."""
    frames, tokens = local.shape
    start = tokens * torch.arange(frames, device=local.device)[:, None]
    return (local + start).where(local >= 0, -1)


def plan_of(target: Tensor, weight: Tensor | None = None) -> KeepPlan:
    """The plan in which each token ends in its target: int64 (T, n), places in the clip, -1 for dropped.

    A token that points at itself survives; every target must survive. weight: (T, n), see `KeepPlan`.
    """
    target = target.flatten()  # (N,)
    own = target == torch.arange(target.shape[0], device=target.device)
    index = own.cumsum(dim=0) - 1  # a survivor's place among the survivors
    into = index[target.clamp(min=0)].where(target >= 0, -1)
    return KeepPlan(own.nonzero().T, into[None], None if weight is None else weight.flatten()[None])


def plan_of_sums(kept: Tensor, taker: Tensor, token: Tensor, weight: Tensor) -> KeepPlan:
    """The plan in which each kept token becomes a weighted sum of any tokens of the clip.

    kept: bool (T, n). taker, token: int64 (M,), places in the clip, every taker kept; weight: (M,), those of one pair
    add up. A token may be in several sums: it ends in itself if it is kept, else in the earliest of its takers.
    """
    total = kept.numel()
    place = torch.arange(total, device=kept.device)
    first = torch.full_like(place, total).scatter_reduce(0, token, taker, "amin")
    target = place.where(kept.flatten(), first.where(first < total, -1))
    there = target[token] == taker
    plan = plan_of(target, weight.new_zeros(total).index_add(0, token[there], weight[there]))
    if bool(there.all()):
        return plan
    index = kept.flatten().cumsum(dim=0) - 1  # a survivor's place among the survivors
    also = index[taker[~there]], token[~there], weight[~there]
    return KeepPlan(plan.keep, plan.into, plan.weight, also)


def plan_of_kept(kept: Tensor) -> KeepPlan:
    """The plan that keeps the True tokens of bool (T, n) and drops the others."""
    return drop_others(kept.flatten().nonzero().T, kept.numel())
