"""LLaVA-NeXT-Video (CLIP, average pooling over whole squares) and LLaVA-OneVision (SigLIP, pooling between patches).

Shapes: F frames, n pooled tokens of a frame, W width of the LLM.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from videoprune.config import EncoderPrune
from videoprune.models.families.base import NAN, Batched
from videoprune.models.vision_run import VisionRun, kept_units
from videoprune.prune.controls import random_plan, uniform_plan
from videoprune.prune.evoprune import bipartite_plan
from videoprune.prune.merge import apply_plan, compose, identity_plan, merged_size
from videoprune.types import KeepPlan


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
    """Its pooling needs the full grid: merged patches get their survivor's value back, the grid is pooled, and what
    became alike is merged to the exact count."""

    model_types = ("llava_onevision",)
    methods = ("evoprune", "random", "uniform")
    fill = None

    def wrap(
        self, config: EncoderPrune, keep: float, run: Callable[[], VisionRun | None]
    ) -> dict[str, Callable[..., Any]]:
        pool, pack = self.core.apply_pooling, self.core.pack_image_features
        generator = torch.Generator()

        def apply_pooling(image_features: Tensor) -> Tensor:
            x = pool(image_features)
            generator.manual_seed(0)
            current = run()
            if current is not None and current.compared is not None:
                return _reduce_clips(x, current.clips, config, keep)
            return reduce_alike(x, kept_units(x.shape[1], keep), config, generator)

        def pack_image_features(*args: Any, **kwargs: Any) -> tuple[list[Tensor], Tensor]:
            features, lengths = pack(*args, **kwargs)
            newline = kwargs.get("image_newline")
            generator.manual_seed(0)
            return [_reduce_image(f, newline, config, keep, generator) for f in features], lengths

        return {"apply_pooling": apply_pooling, "pack_image_features": pack_image_features}


def _reduce_image(
    x: Tensor, newline: Tensor | None, config: EncoderPrune, keep: float, generator: torch.Generator
) -> Tensor:
    """One packed image (n, W): patches are reduced, the ends of rows stay."""
    patch = torch.ones(len(x), dtype=torch.bool, device=x.device)
    if newline is not None:
        patch = (x != newline.to(x)).any(-1)
    count = int(patch.sum())
    out = x.clone()
    out[patch] = reduce_alike(x[patch][None], kept_units(count, keep), config, generator)[0]
    return out


def _reduce_clips(x: Tensor, clips: Sequence[int], config: EncoderPrune, keep: float) -> Tensor:
    """As `reduce_alike`, x (F, n, W), with budgets over each clip: the machinery of the encoder, on pooled tokens."""
    frames, tokens = x.shape[:2]
    plain = dataclasses.replace(config, metric="hidden", critical_ratio=0.0, lambda_att=0.0, schedule="mean")
    rounds = 2 * math.ceil(math.log2(tokens)) + 4  # enough halvings, wherever frames are compared
    pooled = VisionRun(plain, keep, rounds, [tokens] * frames, unit=1, prefix=0, seed=0, clips=clips)
    rows = x.flatten(0, 1)
    for block in range(rounds):
        rows, _ = pooled.after(block, rows)
    return pooled.expand(rows, fill=NAN).unflatten(0, (frames, tokens))


def reduce_alike(x: Tensor, keep: int, config: EncoderPrune, generator: torch.Generator) -> Tensor:
    """Reduce each row of x (F, n, W) to `keep` tokens at their own places, NaN at the others.

    EvoPrune's pair score without attention, halving at most in a round: duplicates have cosine 1 and go first.
    """
    frames, tokens = x.shape[:2]
    if keep == tokens:
        return x
    y = x
    if config.method == "random":
        plan = random_plan(frames, tokens, keep, generator=generator, device=x.device)
    elif config.method == "uniform":
        plan = uniform_plan(frames, tokens, keep, device=x.device)
    else:
        y, plan = _merge_alike(x, keep)
        return torch.full_like(x, NAN).scatter(1, plan.keep[..., None].expand_as(y), y)
    kept = torch.zeros(frames, tokens, dtype=torch.bool, device=x.device).scatter(1, plan.keep, True)
    return x.masked_fill(~kept[..., None], NAN)


def _merge_alike(x: Tensor, keep: int) -> tuple[Tensor, KeepPlan]:
    size = x.new_ones(x.shape[:2], dtype=torch.float32)
    plan = identity_plan(x.shape[0], x.shape[1], x.device)
    while x.shape[1] > keep:
        step = bipartite_plan(x, min(x.shape[1] - keep, x.shape[1] // 2), lambda_div=0.0)
        x, size, plan = apply_plan(x, step, size), merged_size(size, step), compose(plan, step)
    return x, plan
