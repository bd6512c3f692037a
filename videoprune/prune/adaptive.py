"""METEOR, stage 3 (arXiv 2507.20842): how many visual tokens the LLM keeps, by the text's attention to them.

Shapes: B rows, H query heads, S keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor


@torch.no_grad()
def adaptive_counts(
    attention: Tensor,
    visual_mask: Tensor,
    lambda_: float,
    *,
    top_heads: int,
    heads: Literal["top", "all"] = "top",
    minimum: int = 1,
) -> tuple[Tensor, Tensor]:
    """Tokens to keep in each row, and every token's score.

    VAV_h = sum over visual tokens of the attention that text pays them in head h. Of the `top_heads` heads
    with the largest VAV, chosen for each row (`all`: of all heads): K = round(lambda_ * sum of their VAV),
    and a token's score is their attention to it.
    attention: (B, H, S) from `text_to_visual_attention`. visual_mask: bool (B, S). With fewer heads than
    `top_heads`, all count. -> counts int64 (B,), at least `minimum` and at most the row's visual tokens;
    scores (B, S), zero outside visual tokens.
    """
    if not lambda_ >= 0:
        raise ValueError(f"lambda_={lambda_}; allowed: 0 or more")
    visual, vav = _asked_heads(attention, visual_mask, top_heads, heads)
    available = visual_mask.sum(dim=1)
    wanted = (lambda_ * vav.double().sum(dim=1)).round().clamp(max=float(visual_mask.shape[1])).long()
    return wanted.clamp(min=minimum).minimum(available), visual.sum(dim=1)


@torch.no_grad()
def text_scores(
    attention: Tensor, visual_mask: Tensor, *, top_heads: int, heads: Literal["top", "all"] = "top"
) -> Tensor:
    """The scores of `adaptive_counts` alone, (B, S), zero outside visual tokens."""
    if heads == "all":  # nobody asks for the sum of each
        _check_heads(attention, visual_mask, top_heads, heads)
        return attention.sum(dim=1) * visual_mask
    return _asked_heads(attention, visual_mask, top_heads, heads)[0].sum(dim=1)


def _asked_heads(attention: Tensor, visual_mask: Tensor, top_heads: int, heads: str) -> tuple[Tensor, Tensor]:
    """Attention of the heads that count, zero outside visual tokens (B, H', S), and the sum of each (B, H')."""
    _check_heads(attention, visual_mask, top_heads, heads)
    visual = attention * visual_mask[:, None]  # (B, H, S)
    vav = visual.sum(dim=2)  # (B, H)
    if heads == "top":
        chosen = vav.argsort(dim=1, descending=True, stable=True)[:, :top_heads]
        visual = visual.gather(1, chosen[..., None].expand(-1, -1, visual.shape[2]))
        vav = vav.gather(1, chosen)
    return visual, vav


def _check_heads(attention: Tensor, visual_mask: Tensor, top_heads: int, heads: str) -> None:
    if heads not in ("top", "all"):
        raise ValueError(f"heads={heads!r}; allowed: top, all")
    if top_heads < 1:
        raise ValueError(f"top_heads={top_heads}; allowed: 1 or more")
    if attention.ndim != 3 or attention[:, 0].shape != visual_mask.shape:
        raise ValueError(
            f"attention {tuple(attention.shape)}, visual_mask {tuple(visual_mask.shape)}; "
            f"allowed: (B, H, S) and (B, S)"
        )


def geometric_ratios(average: float, layers: Sequence[int], num_layers: int) -> tuple[float, ...]:
    """Shares of the visual tokens kept at each cut: q, q^2, ..., whose average over all layers is `average`.

    layers: before which layer, counted from 0, each cut falls; ascending. Before the first, the share is 1.
    Raises ValueError if `average` is above 1, or not above the share that the layers before the first cut
    need alone.
    """
    if num_layers < 1 or any(not 0 <= b < num_layers for b in layers) or list(layers) != sorted(layers):
        raise ValueError(f"layers={tuple(layers)}; allowed: ascending, in 0..{num_layers - 1}")
    bounds = [*layers, num_layers]
    smallest = bounds[0] / num_layers
    if not smallest < average <= 1.0 and average != 1.0:
        raise ValueError(
            f"average={average}; allowed: above {smallest:.4g} and at most 1, for cuts before layers "
            f"{tuple(layers)} of {num_layers}: the smallest average reachable is {smallest:.4g}"
        )

    def reached(q: float) -> float:
        spans = (after - before for before, after in pairwise(bounds))
        return (bounds[0] + sum(q ** (i + 1) * span for i, span in enumerate(spans))) / num_layers

    low, high = 0.0, 1.0  # reached(high) >= average, always
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (low, middle) if reached(middle) >= average else (middle, high)
    return tuple(high ** (i + 1) for i in range(len(layers)))


def solve_lambda(
    measure: Callable[[float], float],
    wanted: float,
    *,
    low: float,
    high: float,
    tolerance: float,
    max_steps: int = 30,
) -> float:
    """The lambda in [low, high] at which `measure` gives `wanted` within `tolerance`, by bisection.

    measure: the average token count that a lambda leads to; it must not fall as lambda grows.
    Raises ValueError if `wanted` lies outside measure(low)..measure(high), or if `max_steps` steps do not
    come close enough (the count moves in steps); the message names the nearest lambda seen.
    """
    if not 0 <= low <= high:
        raise ValueError(f"low={low}, high={high}; allowed: 0 <= low <= high")
    seen = {low: measure(low), high: measure(high)}
    if not seen[low] - tolerance <= wanted <= seen[high] + tolerance:
        raise ValueError(
            f"wanted={wanted}; allowed: {seen[low]:.4g} (at low={low}) to {seen[high]:.4g} (at high={high})"
        )
    for _ in range(max_steps):
        if abs(seen[_nearest(seen, wanted)] - wanted) <= tolerance:
            break
        middle = (low + high) / 2
        seen[middle] = measure(middle)
        low, high = (middle, high) if seen[middle] < wanted else (low, middle)
    best = _nearest(seen, wanted)
    if abs(seen[best] - wanted) > tolerance:
        raise ValueError(
            f"wanted={wanted} not reached within tolerance={tolerance} in max_steps={max_steps} steps; "
            f"nearest: {seen[best]:.6g} at lambda {best:.6g}"
        )
    return best


def _nearest(seen: dict[float, float], wanted: float) -> float:
    return min(seen, key=lambda at: (abs(seen[at] - wanted), at))
