"""AIM inside the LLM, as pure functions on attention.

Shapes: B rows, H heads, S keys, d head width.
"""

from __future__ import annotations

import torch
from torch import Tensor

AIM_ITERATIONS = 5
AIM_TEMPERATURE = 0.1


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
    0.1, and runs over all tokens, text too. There a dropped token is only masked, so it still pays attention in
    the first step; here it has left. Costs 2 S^2 H (d + iterations) operations, head by head: memory grows with
    B * S^2, in float32. Raises ValueError if Hk does not divide H.
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
