"""LLaVA-NeXT-Video (CLIP, average pooling over whole squares) and LLaVA-OneVision (SigLIP, pooling between patches).

Shapes: F frames, n pooled tokens of a frame, W width of the LLM.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from videoprune.plug.encoder_pass import EncoderPass
from videoprune.plug.families.base import NAN, Around, Batched, StockModel
from videoprune.prune.counts import kept_of_clip
from videoprune.prune.fusion import fuse_clips
from videoprune.prune.merge import apply_plan
from videoprune.prune.registry import BY_FRAME, OVER_CLIP, ClipTokens
from videoprune.prune.rivals.choose import even_counts
from videoprune.prune.rivals.tokens import plan_of_kept
from videoprune.types import KeepPlan


class LlavaNextVideo(StockModel, Batched):
    """The last block but one; pooling joins squares of patches, images keep each patch, so squares go whole."""

    model_types = ("llava_next_video",)
    images_differ = True
    prefix = 1

    @property
    def unit_side(self) -> int:  # type: ignore[override]
        return self.core.config.spatial_pool_stride


class LlavaOnevision(StockModel, Batched):
    """Its pooling needs the full grid: merged patches get their survivor's value back, the grid is pooled, and the most
    different tokens of the clip stay, to the exact count (`fuse_clips`). Merging alike tokens of a frame instead was
    far worse at a tenth (docs/methods.md)."""

    model_types = ("llava_onevision",)
    fill = None
    pools = True
    newline = True

    def replaced(self) -> list[Around]:
        return [
            (self.core, "apply_pooling", self.pool_and_reduce),
            (self.core, "pack_image_features", self.pack_and_reduce),
        ]

    def pool_and_reduce(self, stock: Callable[..., Tensor], image_features: Tensor) -> Tensor:
        x, run = stock(image_features), self.run()
        if run is None:
            return x
        with run.clock.on(x.device):
            return reduce_pooled(x, run, run.clips)

    def pack_and_reduce(self, stock: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        features, lengths = stock(*args, **kwargs)
        run, newline = self.run(), kwargs.get("image_newline")
        if run is None:
            return features, lengths
        with run.clock.on(features[0].device):
            return [_reduce_image(f, newline, run) for f in features], lengths


def _reduce_image(x: Tensor, newline: Tensor | None, run: EncoderPass) -> Tensor:
    """One packed image (n, W): patches are reduced, the ends of rows stay."""
    patch = torch.ones(len(x), dtype=torch.bool, device=x.device)
    if newline is not None:
        patch = (x != newline.to(x)).any(-1)
    out = x.clone()
    out[patch] = reduce_pooled(x[patch][None], run, [1], image=True)[0]
    return out


def reduce_pooled(x: Tensor, run: EncoderPass, clips: Sequence[int], *, image: bool = False) -> Tensor:
    """Reduce pooled tokens x (F, n, W) of clips to their counts, at their own places, NaN at the others.

    image: x is one packed image, whose patches are no grid and carry no attention. Where whole frames merged on the
    way, x has those that are left, and what comes back has all of them.
    """
    merges = None if image else run.frames
    left = clips if merges is None else merges.clips
    tokens, frames = x.shape[1], sum(clips)
    wanted = [kept_of_clip(f, tokens, run.goal.keep * run.end.fusing) for f in clips]
    keep = [min(k, f * tokens) for k, f in zip(wanted, left, strict=True)]
    if sum(keep) == frames * tokens:
        return x
    with torch.no_grad():
        plan = _chosen(x, run, left, keep, image=image)
    places = plan.keep[0]
    if merges is not None:
        places = merges.places(x.device)[places // tokens] * tokens + places % tokens
    out = torch.full((frames * tokens, x.shape[2]), NAN, dtype=x.dtype, device=x.device)
    out[places] = apply_plan(x.flatten(0, 1)[None], plan)[0]
    run.marked += frames * tokens - plan.num_kept
    return out.unflatten(0, (frames, tokens))


def _chosen(
    x: Tensor, run: EncoderPass, clips: Sequence[int], keep: Sequence[int], *, image: bool
) -> KeepPlan:
    """What stays of pooled tokens x (F, n, W), keep[i] of clip i: one row over all of them."""
    frames, tokens = x.shape[:2]
    method, side = run.config.method, round(tokens**0.5)
    grid = (side, side) if side * side == tokens and not image else None
    if run.end.chooses:
        attention, keys = (None, None) if image else run.last_heads()
        pooled = ClipTokens(
            x,
            None if attention is None else _pooled(attention[..., None], side)[..., 0],
            None if keys is None else _pooled(keys, side),
            grid,
            None if image or run.frames is None else run.frames.segments,
        )
        return OVER_CLIP[method].choose(pooled, keep, clips, run.generator)
    if method in BY_FRAME:  # it takes stage 2's place, with an even share for each frame
        counts = [c for f, k in zip(clips, keep, strict=True) for c in even_counts(k, f)]
        grids = None if grid is None else [grid] * frames
        kept = BY_FRAME[method].kept([tokens] * frames, counts, grids, generator=run.generator)
        return plan_of_kept(kept[None].to(x.device))
    # Merged places hold copies: alike ones are what this choice leaves out, with or without fusion.
    how = "cooperative" if run.goal.fusion.method == "none" else run.goal.fusion.method
    return fuse_clips(how, x.flatten(0, 1), keep, [[tokens] * f for f in clips], run.generator)


def _pooled(t: Tensor, side: int) -> Tensor:
    """Rows by patch (F, N, d) on a square grid -> (F, side * side, d)."""
    grid = t.transpose(1, 2).unflatten(2, (round(t.shape[1] ** 0.5), -1)).float()
    return F.interpolate(grid, (side, side), mode="bilinear").flatten(2).transpose(1, 2)
