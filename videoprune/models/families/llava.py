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
from torch.nn import functional as F

from videoprune.config import EncoderPrune
from videoprune.models.clip_methods import choose
from videoprune.models.families.base import NAN, Batched
from videoprune.models.vision_run import VisionRun, kept_units
from videoprune.prune.baselines import CLIP_METHODS
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
    methods = ("evoprune", *CLIP_METHODS)
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
            if current is None:  # padded images
                return reduce_alike(x, kept_units(x.shape[1], keep), config, generator)
            with current.clock.on(x.device):
                if current.at_end:
                    return _choose_pooled(x, current, keep)
                if current.compared is not None:
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


def _choose_pooled(x: Tensor, run: VisionRun, keep: float) -> Tensor:
    """A rival's choice among pooled tokens x (F, n, W); attention and keys of the patches are pooled as well."""
    frames, tokens = x.shape[:2]
    side = round(tokens**0.5)
    attention, keys = run.last_heads()

    def pooled(t: Tensor) -> Tensor:
        grid = t.transpose(1, 2).unflatten(2, (round(t.shape[1] ** 0.5), -1)).float()
        return F.interpolate(grid, (side, side), mode="bilinear").flatten(2).transpose(1, 2)

    plan = choose(
        run.config.method,
        x,
        [n * kept_units(tokens, keep) for n in run.clips],
        run.clips,
        attention=None if attention is None else pooled(attention[..., None])[..., 0],
        keys=None if keys is None else pooled(keys),
        grid=(side, side),
        generator=run.generator,
    )
    y = apply_plan(x.flatten(0, 1)[None], plan)
    out = torch.full_like(x.flatten(0, 1), NAN)
    out[plan.keep[0]] = y[0]
    return out.unflatten(0, (frames, tokens))


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
