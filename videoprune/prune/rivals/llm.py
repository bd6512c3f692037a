"""Rivals inside the LLM, as pure functions on attention: FastV, PyramidDrop, AIM.

Shapes: B rows, H heads, Q queries, V visual tokens, S keys, d head width.
"""

from __future__ import annotations

import torch
from torch import Tensor

AIM_ITERATIONS = 5
AIM_TEMPERATURE = 0.1


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


def aim_pagerank(attention: Tensor, valid: Tensor, *, iterations: int = AIM_ITERATIONS) -> Tensor:
    """AIM (arXiv 2412.03248): tokens' importance by PageRank on the attention of one head.

    s_i <- sum over j of A_ji * s_j, from the same s for all: a token matters that is attended to by tokens that
    matter. No damping; 5 steps, as in the authors' code (github.com/LaVi-Lab/AIM, get_importance).
    attention: (B, S, S), rows are queries, each of which sums to 1. valid: bool (B, S), False at padding, which
    starts with nothing. -> (B, S), at least float32, which sums to 1. A causal matrix drains towards the first
    tokens with many steps. Raises ValueError for a matrix that is not square or iterations below 1.
    """
    if (
        attention.ndim != 3
        or attention.shape[1] != attention.shape[2]
        or attention[:, 0].shape != valid.shape
    ):
        raise ValueError(
            f"attention {tuple(attention.shape)}, valid {tuple(valid.shape)}; allowed: (B, S, S) and (B, S)"
        )
    if iterations < 1:
        raise ValueError(f"iterations={iterations}; allowed: 1 or more")
    attention = attention.to(torch.promote_types(attention.dtype, torch.float32))
    score = valid.to(attention) / valid.sum(1, keepdim=True).clamp(min=1)  # (B, S)
    for _ in range(iterations):
        score = (score[:, None] @ attention).squeeze(1)
    return score


@torch.no_grad()
def aim_scores(q: Tensor, k: Tensor, *, scale: float, valid: Tensor) -> Tensor:
    """AIM: importance of every token of a layer: `aim_pagerank` in each head, then the root mean square over heads.

    q: (B, H, S, d), k: (B, Hk, S, d), rotated; Hk divides H (grouped heads). scale: of the layer's logits. valid: bool
    (B, S), False at padding. -> (B, S). As in the authors' code the causal softmax is sharpened, by a temperature of
    0.1, and runs over all tokens, text too. There a dropped token still pays attention, being only masked; here it
    has left. Costs 2 S^2 H (d + iterations) operations, head by head: memory grows with B * S^2, in float32.
    Raises ValueError if Hk does not divide H.
    """
    heads, groups = q.shape[1], k.shape[1]
    if groups == 0 or heads % groups:
        raise ValueError(f"k has {groups} heads; allowed: a divisor of the queries' {heads}")
    dtype = torch.promote_types(q.dtype, torch.float32)
    causal = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool, device=q.device).tril()
    unseen = ~(causal & valid[:, None])  # (B, S, S)
    squares = torch.zeros(valid.shape, dtype=dtype, device=q.device)
    for head in range(heads):
        keys = k[:, head * groups // heads].to(dtype).transpose(1, 2)  # (B, d, S)
        logits = (q[:, head].to(dtype) * (scale / AIM_TEMPERATURE)) @ keys
        logits.masked_fill_(unseen, torch.finfo(dtype).min)
        squares += aim_pagerank(logits.softmax(-1), valid).square()
    return (squares / heads).sqrt()


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
