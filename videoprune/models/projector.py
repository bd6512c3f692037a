"""Behind each of several encoders: its tokens into the LLM's width.

Shapes: F frames, K tokens of a frame, D encoder width, W width of the LLM.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from videoprune.models.multi_encoder_config import FREQUENCIES


class Projector(nn.Module):
    """Tokens of one encoder into the LLM's width, with where and when they are: x (F, K, D) -> (F, K, W)."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.position = nn.Linear(3 * (2 * FREQUENCIES + 1), out)
        self.inner = nn.Linear(width, out)
        self.outer = nn.Linear(out, out)

    def forward(self, x: Tensor, where: Tensor) -> Tensor:
        return self.outer(F.gelu(self.inner(self.norm(x)))) + self.placed(where).to(x.dtype)

    def placed(self, where: Tensor) -> Tensor:
        """What where and when adds to a token: where (..., 3) -> (..., W)."""
        return self.position(_fourier(where).to(self.position.weight.dtype))


def _fourier(where: Tensor) -> Tensor:
    """Coordinates in [0, 1], (..., 3) -> (..., 3 * (2 * frequencies + 1))."""
    waves = torch.pi * 2.0 ** torch.arange(FREQUENCIES, device=where.device)
    angles = where[..., None] * waves  # (..., 3, frequencies)
    return torch.cat([where[..., None], angles.sin(), angles.cos()], -1).flatten(-2)
