"""LLaVA-NeXT-Video (CLIP, average pooling over whole squares) and LLaVA-OneVision (SigLIP, pooling between patches).

Shapes: F frames, n pooled tokens of a frame, W width of the LLM.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from videoprune.plug.encoder_pass import VisionRun, kept_of_clip
from videoprune.plug.families.base import NAN, Batched
from videoprune.prune.merge import apply_plan
from videoprune.prune.over_clip import choose, fuse_clips
from videoprune.prune.rivals import CLIP_METHODS


class LlavaNextVideo(Batched):
    """The last block but one; pooling joins squares of patches, images keep each patch, so squares go whole."""

    model_types = ("llava_next_video",)

    @property
    def prefix(self) -> int:  # type: ignore[override]
        return 1

    @property
    def unit_side(self) -> int:  # type: ignore[override]
        return self.core.config.spatial_pool_stride


class LlavaOnevision(Batched):
    """Its pooling needs the full grid: merged patches get their survivor's value back, the grid is pooled, and the most
    different tokens of the clip stay, to the exact count (`fuse_clips`). Merging alike tokens of a frame instead was
    far worse at a tenth (docs/methods.md)."""

    model_types = ("llava_onevision",)
    methods = ("evoprune", *CLIP_METHODS)
    fill = None
    pools = True

    def wrap(self, run: Callable[[], VisionRun | None]) -> dict[str, Callable[..., Any]]:
        pool, pack = self.core.apply_pooling, self.core.pack_image_features

        def apply_pooling(image_features: Tensor) -> Tensor:
            x, current = pool(image_features), run()
            assert current is not None
            with current.clock.on(x.device):
                return _reduce(x, current, current.clips)

        def pack_image_features(*args: Any, **kwargs: Any) -> tuple[list[Tensor], Tensor]:
            features, lengths = pack(*args, **kwargs)
            current, newline = run(), kwargs.get("image_newline")
            assert current is not None
            with current.clock.on(features[0].device):
                return [_reduce_image(f, newline, current) for f in features], lengths

        return {"apply_pooling": apply_pooling, "pack_image_features": pack_image_features}


def _reduce_image(x: Tensor, newline: Tensor | None, run: VisionRun) -> Tensor:
    """One packed image (n, W): patches are reduced, the ends of rows stay."""
    patch = torch.ones(len(x), dtype=torch.bool, device=x.device)
    if newline is not None:
        patch = (x != newline.to(x)).any(-1)
    out = x.clone()
    out[patch] = _reduce(x[patch][None], run, [1], image=True)[0]
    return out


def _reduce(x: Tensor, run: VisionRun, clips: Sequence[int], *, image: bool = False) -> Tensor:
    """Reduce pooled tokens x (F, n, W) of clips to their counts, at their own places, NaN at the others.

    image: x is one packed image, whose patches are no grid and carry no attention.
    """
    frames, tokens = x.shape[:2]
    keep = [kept_of_clip(f, tokens, run.keep * run.fuse) for f in clips]
    flat, method = x.flatten(0, 1), run.config.method
    if sum(keep) == frames * tokens:
        return x
    if run.at_end:
        side = round(tokens**0.5)
        attention, keys = (None, None) if image else run.last_heads()
        plan = choose(
            method,
            x,
            keep,
            clips,
            attention=None if attention is None else _pooled(attention[..., None], side)[..., 0],
            keys=None if keys is None else _pooled(keys, side),
            grid=(side, side) if side * side == tokens else None,
            generator=run.generator,
        )
        flat = apply_plan(flat[None], plan)[0]
    else:
        how = method if method in ("random", "uniform") else run.fusion
        plan = fuse_clips(how, flat, keep, [f * tokens for f in clips], run.generator)
        flat = flat[plan.keep[0]]
    out = torch.full((frames * tokens, x.shape[2]), NAN, dtype=x.dtype, device=x.device)
    out[plan.keep[0]] = flat
    return out.unflatten(0, (frames, tokens))


def _pooled(t: Tensor, side: int) -> Tensor:
    """Rows by patch (F, N, d) on a square grid -> (F, side * side, d)."""
    grid = t.transpose(1, 2).unflatten(2, (round(t.shape[1] ** 0.5), -1)).float()
    return F.interpolate(grid, (side, side), mode="bilinear").flatten(2).transpose(1, 2)
