"""How varied a set of tokens is: the rank of its feature map in two forms, and what local density is made of.

Shapes: B rows, N tokens, D width; `...` any leading shape.
"""

from __future__ import annotations

import torch
from torch import Tensor


def mean_of_largest(values: Tensor, count: int) -> Tensor:
    """Mean of the `count` largest along the last dimension: (..., N) -> (...). 0 if `count` is 0 or less."""
    if count <= 0:
        return values.new_zeros(values.shape[:-1])
    return values.topk(count, dim=-1, sorted=False).values.mean(dim=-1)


def effective_rank(x: Tensor) -> Tensor:
    """exp(entropy) of the singular values of x (..., N, D), scaled to sum 1 -> (...), from 1 to min(N, D).

    Roy and Vetterli, "The effective rank", EUSIPCO 2007. It needs no threshold. 0 for a matrix of zeros.
    """
    s = _singular_values(x)
    total = s.sum(dim=-1, keepdim=True)
    p = s / total.where(total > 0, 1.0)
    return torch.special.entr(p).sum(dim=-1).exp().where(total[..., 0] > 0, 0.0)


def numerical_rank(x: Tensor, tol: float = 0.01) -> Tensor:
    """Singular values of x (..., N, D) above `tol` times the largest: int64 (...). 0 for a matrix of zeros.

    The default of 1 % is far above rounding errors: feature maps have full rank up to rounding, and a rank
    that is always full could not tell encoders apart.
    """
    if not 0 <= tol < 1:
        raise ValueError(f"tol={tol}; allowed: a share of the largest singular value, in [0, 1)")
    s = _singular_values(x)
    return (s > tol * s[..., :1]).sum(dim=-1)


def _singular_values(x: Tensor) -> Tensor:
    _check_not_empty(x)
    return torch.linalg.svdvals(x.to(torch.promote_types(x.dtype, torch.float32)))


def _check_not_empty(x: Tensor) -> None:
    if x.ndim < 2 or x.shape[-1] == 0 or x.shape[-2] == 0:
        raise ValueError(f"x: shape {tuple(x.shape)}; allowed: (..., N, D), at least one token of width 1")
