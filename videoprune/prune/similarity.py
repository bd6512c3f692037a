"""Cosine similarity between tokens: to the mean token, to each other, and across encoders (METEOR, stage 2).

All results are at least float32. A token of zeros has similarity 0 to everything.

Shapes: B rows, N tokens, D width, C encoders, G groups (frames).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


def unit(x: Tensor) -> Tensor:
    """x (..., D) scaled to length 1, in at least float32. Zeros stay zeros."""
    return F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=-1)


def cosine_to_mean(x: Tensor) -> Tensor:
    """Cosine of each token with the mean token: x (B, N, D) -> (B, N)."""
    mean = x.mean(dim=1, keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))  # (B, 1, D)
    return (unit(x) * unit(mean)).sum(dim=-1)


@contextmanager
def products_of(dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """Within it, float32 matrix products of numbers that come from `dtype` run as fast as that allows, and stay exact.

    Two bfloat16 numbers multiply to a float32 number, so a CPU may read such operands as bfloat16 and sum in
    float32: four times as fast where it has instructions for it. A torch that cannot be told so goes on as ever. So
    does one with several threads of Python: torch has one such switch for all, and another's products may need float32.
    """
    alone = threading.active_count() == 1
    narrow = dtype == torch.bfloat16 and device.type == "cpu" and alone
    switch = getattr(torch.backends.mkldnn, "matmul", None) if narrow else None
    before = getattr(switch, "fp32_precision", None)
    if switch is None or before is None:
        yield
        return
    switch.fp32_precision = "bf16"
    try:
        yield
    finally:
        switch.fp32_precision = before


def pairwise_cosine(x: Tensor, y: Tensor | None = None) -> Tensor:
    """Cosine of every token of x (B, N, D) with every token of y (B, M, D), or of x -> (B, N, M)."""
    a = unit(x)
    return a @ (a if y is None else unit(y)).transpose(1, 2)


def cross_encoder_redundancy(
    z: Tensor, encoder: Tensor, *, reduce: Literal["sum", "mean"], group: Tensor | None = None
) -> Tensor:
    """How much of each token the other encoders say too (METEOR, arXiv 2507.20842, stage 2).

    R_i^j = sum over encoders l != j, over m of cos(z_i^j, z_m^l). `mean` takes the mean over m within each
    other encoder and sums over l, so that an encoder with more tokens does not weigh more (our variant).

    z: (B, N, D) tokens in the LLM's width. encoder: int64 (N,) or (B, N), 0..C - 1. group: int64, as encoder,
    0..G - 1, the frame of each token: comparisons then stay within it. -> (B, N); 0 where there is no
    other encoder. One dot product per token, with the others' sum of unit tokens: no N x N matrix.
    """
    u = unit(z)
    cell, groups, encoders = _cells(z, encoder, group)
    total, count = _cell_sums(u, cell, groups * encoders)
    if reduce == "mean":
        total = total / count.clamp(min=1)[..., None]
    elif reduce != "sum":
        raise ValueError(f"reduce={reduce!r}; allowed: sum, mean")
    # Sum the others instead of taking oneself from the whole: no cancellation, and exactly 0 for one encoder.
    others = 1.0 - torch.eye(encoders, dtype=u.dtype, device=u.device)
    by_group = rearrange(total, "b (g l) d -> b g l d", g=groups)
    facing = rearrange(torch.einsum("el,bgld->bged", others, by_group), "b g e d -> b (g e) d")
    return _dot_with_cell(u, facing, cell)


def own_redundancy(z: Tensor, encoder: Tensor, *, group: Tensor | None = None) -> Tensor:
    """Mean cosine of each token with the other tokens of its own encoder (and group): z (B, N, D) -> (B, N).

    0 for a token that is alone. Arguments as in `cross_encoder_redundancy`.
    """
    u = unit(z)
    cell, groups, encoders = _cells(z, encoder, group)
    total, count = _cell_sums(u, cell, groups * encoders)
    others = count.gather(1, cell) - 1
    itself = (u * u).sum(dim=-1)
    return (_dot_with_cell(u, total, cell) - itself).where(others > 0, 0.0) / others.clamp(min=1)


def _cells(z: Tensor, encoder: Tensor, group: Tensor | None) -> tuple[Tensor, int, int]:
    """One number for each pair of group and encoder: (B, N), and how many groups and encoders there are."""
    batch, tokens = z.shape[:2]
    for name, label in (("encoder", encoder), ("group", group)):
        if label is not None and tuple(label.shape) not in ((tokens,), (batch, tokens)):
            raise ValueError(f"{name}: shape {tuple(label.shape)}; allowed: {(tokens,)} or {(batch, tokens)}")
    encoders = int(encoder.max()) + 1 if encoder.numel() else 1
    if group is None:
        return encoder.expand(batch, tokens), 1, encoders
    groups = int(group.max()) + 1 if group.numel() else 1
    return (group * encoders + encoder).expand(batch, tokens), groups, encoders


def _cell_sums(u: Tensor, cell: Tensor, cells: int) -> tuple[Tensor, Tensor]:
    """Sum of the tokens in each cell (B, cells, D), and their number (B, cells)."""
    batch, _, width = u.shape
    index = (cell + cells * torch.arange(batch, device=u.device)[:, None]).flatten()
    total = u.new_zeros(batch * cells, width).index_add(0, index, u.flatten(0, 1))
    count = u.new_zeros(batch * cells).index_add(0, index, u.new_ones(index.shape))
    return total.view(batch, cells, width), count.view(batch, cells)


def _dot_with_cell(u: Tensor, vectors: Tensor, cell: Tensor) -> Tensor:
    """Dot product of each token (B, N, D) with the vector (B, cells, D) of its cell -> (B, N)."""
    rows = torch.arange(u.shape[0], device=u.device)[:, None]
    return (u * vectors[rows, cell]).sum(dim=-1)
