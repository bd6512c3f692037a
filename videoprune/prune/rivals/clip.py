"""What every baseline takes, one clip's visual tokens, and how it hands back its plan.

A baseline gives each token a target: the token of the clip that it ends in (itself if it survives), or -1 if
it is dropped. `plan_of` turns the targets into a `KeepPlan` over the T * n tokens, frame after frame.

Shapes: T frames, n tokens of a frame, N = T * n, D width, d key width.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Concatenate, Literal, ParamSpec

import torch
from torch import Tensor

from videoprune.prune.merge import identity_plan
from videoprune.types import KeepPlan

Need = Literal["attention", "keys"]
P = ParamSpec("P")


@dataclass(frozen=True)
class ClipTokens:
    """One clip's visual tokens at one place of the model.

    x: floating (T, n, D). attention: (T, n), importance of each token in the encoder's last block (CLS-to-patch
    attention, or attention received where there is no CLS), or None. keys: (T, n, d), head-mean keys of that
    block, or None. grid: (rows, columns) of a frame's tokens, row by row, or None.
    """

    x: Tensor
    attention: Tensor | None = None
    keys: Tensor | None = None
    grid: tuple[int, int] | None = None

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

    @property
    def frames(self) -> int:
        return self.x.shape[0]

    @property
    def per_frame(self) -> int:
        return self.x.shape[1]

    @property
    def num_tokens(self) -> int:
        return self.frames * self.per_frame


def clip_method(
    *needs: Need,
) -> Callable[
    [Callable[Concatenate[ClipTokens, int, P], KeepPlan]], Callable[Concatenate[ClipTokens, int, P], KeepPlan]
]:
    """What all methods share: inputs are checked, keeping all gives the identity plan, no gradients.

    The method raises ValueError if the clip lacks one of `needs` or `keep` is not in 1..N.
    """

    def wrap(
        method: Callable[Concatenate[ClipTokens, int, P], KeepPlan],
    ) -> Callable[Concatenate[ClipTokens, int, P], KeepPlan]:
        @functools.wraps(method)
        def checked(clip: ClipTokens, keep: int, *args: P.args, **kwargs: P.kwargs) -> KeepPlan:
            for need in needs:
                if getattr(clip, need) is None:
                    raise ValueError(f"{need}=None; {method.__name__} needs it")
            if not 1 <= keep <= clip.num_tokens:
                raise ValueError(f"keep={keep}; allowed: 1..{clip.num_tokens}, the tokens of the clip")
            if keep == clip.num_tokens:
                return identity_plan(1, keep, clip.x.device)
            with torch.no_grad():
                plan = method(clip, keep, *args, **kwargs)
            assert plan.num_kept == keep, f"{method.__name__} kept {plan.num_kept} of {keep}"
            return plan

        return checked

    return wrap


def given(tensor: Tensor | None) -> Tensor:
    """A part of the clip that `clip_method` has checked, in at least float32."""
    assert tensor is not None
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def positions(clip: ClipTokens) -> Tensor:
    """Each token's own place in the clip: int64 (T, n)."""
    return torch.arange(clip.num_tokens, device=clip.x.device).view(clip.frames, clip.per_frame)


def in_clip(local: Tensor) -> Tensor:
    """Targets within a frame, int64 (T, n) of 0..n - 1 or -1 -> targets within the clip."""
    frames, tokens = local.shape
    start = tokens * torch.arange(frames, device=local.device)[:, None]
    return (local + start).where(local >= 0, -1)


def plan_of(target: Tensor) -> KeepPlan:
    """The plan in which each token ends in its target: int64 (T, n), places in the clip, -1 for dropped.

    A token that points at itself survives; every target must survive.
    """
    target = target.flatten()  # (N,)
    own = target == torch.arange(target.shape[0], device=target.device)
    index = own.cumsum(dim=0) - 1  # a survivor's place among the survivors
    into = index[target.clamp(min=0)].where(target >= 0, -1)
    return KeepPlan(keep=own.nonzero().T, into=into[None])


def plan_of_kept(kept: Tensor) -> KeepPlan:
    """The plan that keeps the True tokens of bool (T, n) and drops the others."""
    place = torch.arange(kept.numel(), device=kept.device).view_as(kept)
    return plan_of(place.where(kept, -1))
