"""Bipartite matching within each frame, again and again until the count is reached. For ToMe and AIM.

Shapes: T frames, n tokens of a frame, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from videoprune.prune.evoprune import bipartite_plan
from videoprune.prune.kinds import Product, pair_products
from videoprune.prune.merge import apply_plan, compose, identity_plan, merged_size
from videoprune.prune.rivals.choose import even_counts
from videoprune.prune.rivals.tokens import ClipSize, in_clip, plan_of
from videoprune.types import KeepPlan


def matching_products(size: ClipSize, width: int, keep: int, step: int | None) -> list[Product]:
    """The products of `repeated_matching` with an even share of `keep` for each frame, on tokens of `width`."""
    counts, found = even_counts(keep, size.frames), []
    for count in sorted(set(counts) - {0}):
        tokens, frames = size.tokens, counts.count(count)
        while tokens > count:
            found.append(pair_products(frames, tokens, width))
            tokens -= min(tokens - count, tokens // 2 if step is None else step, tokens // 2)
    return found


def repeated_matching(metric: Tensor, counts: list[int], step: int | None) -> KeepPlan:
    """Merge the most similar pairs of each frame until frame t has counts[t] tokens; one plan for the clip.

    Each round is ToMe's matching (`bipartite_plan` without diversity) on the cosine of `metric`, which
    merges along, as a size-weighted mean. A round removes `step` tokens, or half of them with None, and never
    more than half or than needed. A frame with count 0 is dropped. metric: (T, n, D).
    """
    tokens = metric.shape[1]
    target = torch.full(metric.shape[:2], -1, dtype=torch.int64, device=metric.device)
    for count in sorted(set(counts) - {0}):
        frames = [t for t, c in enumerate(counts) if c == count]
        plan = identity_plan(len(frames), tokens, metric.device)
        x = metric[frames]
        size = x.new_ones(x.shape[:2], dtype=torch.float32)
        while plan.num_kept > count:
            most = plan.num_kept // 2
            remove = min(plan.num_kept - count, most if step is None else min(step, most))
            latest = bipartite_plan(x, remove, lambda_div=0.0)
            x, size, plan = apply_plan(x, latest, size), merged_size(size, latest), compose(plan, latest)
        target[frames] = plan.keep.gather(1, plan.into)
    return plan_of(in_clip(target))
