"""The cost of a prompt under a pruning configuration, without running anything."""

from __future__ import annotations

from collections.abc import Sequence

from videoprune.config import PruneConfig
from videoprune.cost.operations import Cost, cost
from videoprune.cost.shapes import ModelShape
from videoprune.cost.token_flow import token_flow


def predict(
    shape: ModelShape,
    frames: int,
    prompt_tokens: int,
    config: PruneConfig,
    *,
    size: tuple[int, int] | None = None,
    question_tokens: int | None = None,
    visual_by_layer: Sequence[float] | None = None,
    bytes_per_value: int = 2,
    causal: bool = False,
) -> Cost:
    """Operations and cache of one prompt with one clip: see `token_flow` and `cost`, whose arguments these are."""
    flow = token_flow(
        shape,
        config,
        frames,
        prompt_tokens=prompt_tokens,
        size=size,
        question_tokens=question_tokens,
        visual_by_layer=visual_by_layer,
    )
    return cost(shape, flow, bytes_per_value=bytes_per_value, causal=causal)
