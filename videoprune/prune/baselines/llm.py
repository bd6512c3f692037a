"""Rivals inside the LLM, as pure functions on attention: FastV, PyramidDrop, AIM.

Shapes: H heads, Q queries, V visual tokens, S keys.
"""

from __future__ import annotations

import torch
from torch import Tensor


def fastv_scores(attention: Tensor) -> Tensor:
    """FastV (arXiv 2403.06764): the attention that the last query pays to each visual token, mean over heads.

    attention: (H, Q, V), the rows of some queries, the last one of the prompt last; the columns of the visual
    tokens. -> (V,). FastV keeps the highest after layer K = 2, by the attention of that very layer. PyramidDrop ranks
    with the same score, the last instruction token being the last query, in the layer that follows the cut.
    """
    _check("attention", attention, attention.shape[-1] if attention.ndim else 0)
    return attention[:, -1].to(torch.promote_types(attention.dtype, torch.float32)).mean(dim=0)


def pyramiddrop_layers(num_layers: int, stages: int = 4) -> tuple[int, ...]:
    """PyramidDrop (arXiv 2410.17247): before which layers, counted from 0, tokens are dropped.

    The depth is cut in `stages` equal stages, and each but the last drops at its end: with the paper's 4,
    at 1/4, 1/2 and 3/4 of the depth, 8, 16 and 24 of 32. Fractions round down.
    Raises ValueError if there are fewer layers than stages.
    """
    if not 1 <= stages <= num_layers:
        raise ValueError(f"stages={stages}; allowed: 1..{num_layers}, the number of layers")
    return tuple(num_layers * stage // stages for stage in range(1, stages))


def pyramiddrop_ratios(stages: int = 4, lambda_: float = 0.5) -> tuple[float, ...]:
    """PyramidDrop: the share of all visual tokens that is left after each drop: lambda_, lambda_^2, ...

    Each stage keeps the share `lambda_` of what it found, 0.5 in the paper. One ratio for each of
    `pyramiddrop_layers`. Raises ValueError if lambda_ is not in 0..1 (0 excluded) or stages below 1.
    """
    if not 0 < lambda_ <= 1:
        raise ValueError(f"lambda_={lambda_}; allowed: above 0 and at most 1")
    if stages < 1:
        raise ValueError(f"stages={stages}; allowed: 1 or more")
    return tuple(lambda_**stage for stage in range(1, stages))


def pyramiddrop_counts(visual_tokens: int, stages: int = 4, lambda_: float = 0.5) -> tuple[int, ...]:
    """PyramidDrop: how many of the visual tokens are left after each drop, rounded down, at least one."""
    return tuple(max(1, int(visual_tokens * ratio)) for ratio in pyramiddrop_ratios(stages, lambda_))


def aim_pagerank(attention: Tensor, *, iterations: int = 1) -> Tensor:
    """AIM (arXiv 2412.03248): each token's importance by PageRank on the attention, mean over heads.

    s_i <- sum over j of A_ji * s_j, from s = 1 / S for all, scaled to sum 1: a token matters that is attended
    to by tokens that matter. No damping.
    attention: (H, S, S), rows are queries, of all tokens or of the visual ones alone; with all of them pass
    the scores of the visual tokens on, for text is never pruned. iterations: 1 gives the attention received;
    how many the paper runs is not known here. -> (S,). A causal matrix drains towards the first token with many.
    Raises ValueError for a matrix that is not square or iterations below 1.
    """
    _check("attention", attention, attention.shape[-2] if attention.ndim > 1 else 0)
    if attention.shape[1] != attention.shape[2]:
        raise ValueError(f"attention: shape {tuple(attention.shape)}; allowed: (H, S, S)")
    if iterations < 1:
        raise ValueError(f"iterations={iterations}; allowed: 1 or more")
    links = attention.to(torch.promote_types(attention.dtype, torch.float32)).mean(dim=0)  # (S, S)
    score = links.new_full((links.shape[0],), 1 / links.shape[0])
    for _ in range(iterations):
        score = score @ links
        score = score / score.sum().clamp(min=torch.finfo(score.dtype).tiny)
    return score


def aim_schedule(num_layers: int, start: int, end: int) -> tuple[float, ...]:
    """AIM: the share of visual tokens that each layer computes on: all up to `start`, then falling to none.

    Layers 0..start - 1 keep all; from `start` the share falls in equal steps, to 0 at layer `end` and after.
    Raises ValueError unless 0 <= start < end <= num_layers.
    """
    if not 0 <= start < end <= num_layers:
        raise ValueError(f"start={start}, end={end}; allowed: 0 <= start < end <= {num_layers}")
    return tuple(min(1.0, max(0.0, (end - layer) / (end - start))) for layer in range(num_layers))


def _check(name: str, attention: Tensor, size: int) -> None:
    if attention.ndim != 3 or size == 0 or attention.shape[1] == 0:
        raise ValueError(f"{name}: shape {tuple(attention.shape)}; allowed: (H, Q, V), none of them 0")
