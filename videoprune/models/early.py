"""Stage 1: run a vision encoder and let tokens merge (EvoPrune) or leave (METEOR) on the way.

Shapes: F frames, P prefix tokens, N dense patch tokens, K tokens kept, D width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from videoprune.clock import Stopwatch
from videoprune.config import EncoderPrune
from videoprune.models.encoders import CapturedHeads, VisionTower
from videoprune.prune.budget import encoder_budget, meteor_counts
from videoprune.prune.controls import random_plan, uniform_grid_plan
from videoprune.prune.evoprune import bipartite_plan
from videoprune.prune.importance import attention_received, cls_attention
from videoprune.prune.merge import apply_plan, compose, identity_plan, merged_size
from videoprune.prune.meteor import NUM_CUTS, cut_blocks, stage1_plan
from videoprune.prune.over_clip import is_clip_method
from videoprune.prune.schedule import merge_counts
from videoprune.types import KeepPlan


class Encoder(Protocol):
    """What the budget needs to know of an encoder."""

    @property
    def name(self) -> str: ...

    @property
    def dense(self) -> int: ...


def retained_counts(
    towers: Sequence[Encoder], config: EncoderPrune, ranks: dict[str, list[float]] | None
) -> dict[str, tuple[int, ...]]:
    """Patch tokens of a frame after each of METEOR's three cuts, by encoder; the last is what leaves the encoder.

    The total after each cut falls geometrically to `config.keep` of the dense tokens and is shared by
    `config.budget` (METEOR, section 3.2). Known before any pixel. ranks: by encoder, one per cut. Raises
    ValueError if `budget="rank"` or `"reverse"` and ranks are missing.
    """
    dense = [t.dense for t in towers]
    if config.method == "none" or config.keep == 1 or is_clip_method(config.method):
        return {t.name: (t.dense,) * NUM_CUTS for t in towers}
    final = max(round(config.keep * sum(dense)), len(towers))
    rows: list[tuple[int, ...]] = []
    capacity = tuple(dense)
    for cut, total in enumerate(meteor_counts(sum(dense), final, NUM_CUTS)):
        at_cut = None if ranks is None else [ranks[t.name][cut] for t in towers]
        capacity = encoder_budget(min(total, sum(capacity)), capacity, rule=config.budget, ranks=at_cut)
        rows.append(capacity)
    return {t.name: tuple(r[i] for r in rows) for i, t in enumerate(towers)}


def encode(
    tower: VisionTower,
    pixel_values: Tensor,
    config: EncoderPrune,
    counts: tuple[int, ...],
    generator: torch.Generator | None = None,
    clock: Stopwatch | None = None,
) -> tuple[Tensor, Tensor, KeepPlan]:
    """Run `tower` on (F, 3, S, S) and prune to counts[-1] patch tokens. clock: of choosing and merging.

    Returns tokens (F, K, D), sizes (F, K) and the plan from the dense patches to them.
    """
    if counts[-1] == tower.dense:
        x = tower.whole(pixel_values)
        return x, x.new_ones(x.shape[:2]), identity_plan(x.shape[0], x.shape[1], x.device)
    if config.method in ("random", "uniform") or tower.layout is None:
        return _prune_output(tower, tower.whole(pixel_values), config, counts[-1], generator)
    if config.method == "meteor":
        return _drop_at_cuts(tower, pixel_values, counts, clock or Stopwatch())
    return _merge_inside(tower, pixel_values, config, counts[-1], clock or Stopwatch())


def _merge_inside(
    tower: VisionTower, pixel_values: Tensor, config: EncoderPrune, final: int, clock: Stopwatch
) -> tuple[Tensor, Tensor, KeepPlan]:
    """EvoPrune: merge between blocks by `config.schedule`, attending in proportion to size afterwards."""
    prefix = tower.prefix
    remove = merge_counts(
        tower.num_blocks, tower.dense + prefix, final + prefix, config.schedule, protected=prefix
    )
    x = tower.embed(pixel_values)  # (F, P+N, D)
    size = x.new_ones(x.shape[:2])
    plan = identity_plan(x.shape[0], x.shape[1], x.device)
    bias = None
    for i, r in enumerate(remove):
        if not r:
            x = tower.block(i, x, bias)
            continue
        with tower.capture(i) as heads:
            x = tower.block(i, x, bias)
        with clock.on(x.device):
            step = _merge_step(tower, x, heads, bias, r, config)
            x, size, plan = apply_plan(x, step, size), merged_size(size, step), compose(plan, step)
        bias = size.log() if config.proportional_attention else None
    return tower.finish(x), size[:, prefix:], _without_prefix(plan, prefix)


def _merge_step(
    tower: VisionTower,
    x: Tensor,
    heads: CapturedHeads,
    bias: Tensor | None,
    remove: int,
    config: EncoderPrune,
) -> KeepPlan:
    assert heads.keys is not None
    metric = heads.keys.mean(1) if config.metric == "keys" else x  # (F, P+n, d or D)
    critical = math.floor(config.critical_ratio * (x.shape[1] - tower.prefix))
    importance = None
    if critical or config.lambda_att:
        importance = _importance(tower, heads, bias)
    return bipartite_plan(
        metric,
        remove,
        importance=importance,
        lambda_div=config.lambda_div,
        lambda_att=config.lambda_att,
        critical=critical,
        neighbors=config.neighbors,
        protect_first=tower.prefix,
    )


def _importance(tower: VisionTower, heads: CapturedHeads, bias: Tensor | None) -> Tensor:
    """Attention to each patch token, (F, n): from CLS where there is one, else received from all, times n.

    The factor n makes 1 the average, so weights mean the same at every depth.
    """
    assert heads.queries is not None
    assert heads.keys is not None
    if tower.prefix:
        a = cls_attention(heads.queries, heads.keys, scale=tower.scale, num_prefix=tower.prefix, bias=bias)
    else:
        a = attention_received(heads.queries, heads.keys, scale=tower.scale, bias=bias)
    return a * a.shape[1]


def _drop_at_cuts(
    tower: VisionTower, pixel_values: Tensor, counts: tuple[int, ...], clock: Stopwatch
) -> tuple[Tensor, Tensor, KeepPlan]:
    """METEOR, stage 1: at the end of each third; the first cut by closeness to the mean token, later by attention."""
    prefix = tower.prefix
    ends = cut_blocks(tower.num_blocks)
    x = tower.embed(pixel_values)
    plan = identity_plan(x.shape[0], x.shape[1], x.device)
    for i in range(tower.num_blocks):
        with tower.capture(i) as heads:
            x = tower.block(i, x)
        for cut, end in enumerate(ends):
            if i == end and counts[cut] < x.shape[1] - prefix:
                with clock.on(x.device):
                    attention = None if cut == 0 else _importance(tower, heads, None)
                    step = _with_prefix(stage1_plan(x[:, prefix:], counts[cut], attention=attention), prefix)
                    x, plan = apply_plan(x, step), compose(plan, step)
    size = x.new_ones(x.shape[:2])
    return tower.finish(x), size[:, prefix:], _without_prefix(plan, prefix)


def _prune_output(
    tower: VisionTower, x: Tensor, config: EncoderPrune, final: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor, KeepPlan]:
    """Prune what leaves the encoder: the controls, and encoders that cannot lose tokens inside (ConvNeXt)."""
    size = x.new_ones(x.shape[:2])
    frames, dense = x.shape[:2]
    if config.method == "random":
        plan = random_plan(frames, dense, final, generator=generator, device=x.device)
    elif config.method == "uniform":
        plan = uniform_grid_plan(frames, *tower.grid, final, device=x.device)
    elif config.method == "meteor":
        plan = stage1_plan(x, final)
    else:
        return _merge_output(x, size, config, final)
    return apply_plan(x, plan, size), merged_size(size, plan), plan


def _merge_output(
    x: Tensor, size: Tensor, config: EncoderPrune, final: int
) -> tuple[Tensor, Tensor, KeepPlan]:
    """EvoPrune's pair score on finished features, halving at most in each round; no attention to protect by."""
    plan = identity_plan(x.shape[0], x.shape[1], x.device)
    while x.shape[1] > final:
        r = min(x.shape[1] - final, x.shape[1] // 2)
        step = bipartite_plan(x, r, lambda_div=config.lambda_div, neighbors=config.neighbors)
        x, size, plan = apply_plan(x, step, size), merged_size(size, step), compose(plan, step)
    return x, size, plan


def _with_prefix(plan: KeepPlan, prefix: int) -> KeepPlan:
    """The same plan with `prefix` tokens in front that stay."""
    front = torch.arange(prefix, device=plan.keep.device).expand(plan.keep.shape[0], prefix)
    into = torch.where(plan.into >= 0, plan.into + prefix, plan.into)
    return KeepPlan(torch.cat([front, plan.keep + prefix], 1), torch.cat([front, into], 1))


def _without_prefix(plan: KeepPlan, prefix: int) -> KeepPlan:
    into = plan.into[:, prefix:]
    return KeepPlan(plan.keep[:, prefix:] - prefix, torch.where(into >= 0, into - prefix, into))


def stage_features(tower: VisionTower, pixel_values: Tensor) -> list[Tensor]:
    """Patch features (F, N, D) where METEOR's cuts fall, of the unpruned encoder: one tensor per cut.

    Their rank shares the budget among the encoders (METEOR, section 3.2). An encoder that cannot lose tokens
    inside (ConvNeXt) gives its output at every cut.
    """
    if tower.layout is None:
        return [tower.whole(pixel_values)] * NUM_CUTS
    x = tower.embed(pixel_values)  # (F, P+N, D)
    after = []
    for i in range(tower.num_blocks):
        x = tower.block(i, x)
        after.append(x[:, tower.prefix :])
    return [after[end] for end in cut_blocks(tower.num_blocks)]
