"""Muon (kellerjordan.github.io/posts/muon) in float32, matrices of one shape together.

torch.optim.Muon multiplies in bfloat16, which on a CPU took ten times as long here, several seconds a step.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

_A, _B, _C = 3.4445, -4.7750, 2.0315  # of the iteration, as published
_STEPS, _EPS = 5, 1e-7


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised, of matrices; the weights decay apart from it."""

    def __init__(
        self, params: Sequence[Tensor], lr: float, *, weight_decay: float, momentum: float = 0.95
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        assert closure is None
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    by_shape[p.shape].append(p)
            for shape, params in by_shape.items():
                updates = orthogonal(torch.stack([self._direction(p, group["momentum"]) for p in params]))
                rate = group["lr"] * max(1, shape[0] / shape[1]) ** 0.5
                for p, update in zip(params, updates, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-rate)

    def _direction(self, p: Tensor, momentum: float) -> Tensor:
        held = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
        assert p.grad is not None
        held.lerp_(p.grad, 1 - momentum)
        return p.grad.lerp(held, momentum)


def orthogonal(x: Tensor) -> Tensor:
    """Matrices x (k, m, n) with their singular values brought near 1, by Newton and Schulz' iteration."""
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / x.flatten(1).norm(dim=1).clamp(min=_EPS)[:, None, None]
    for _ in range(_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return x.mT if tall else x
