"""How fast this machine multiplies and reads at best: measured, for the bound by operations and bytes.

Shapes: n rows, k inputs, m outputs of one product.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from videoprune.clock import now
from videoprune.cost.roofline import Machine

_LARGE = (2048, 2048, 8192)  # n, k, m of a product that operations bind
_READ = (1, 4096, 65536)  # of one that reading binds, as in a decoding step; larger than what caches hold
_TRIES = 5


def measured_machine(device: torch.device | str, dtype: torch.dtype) -> Machine:
    """The best of some products of numbers of `dtype`: many rows for the operations, one row for the bytes."""
    n, k, m = _LARGE
    flops = 2 * n * k * m / _fastest(_LARGE, device, dtype)
    _, k, m = _READ
    return Machine(flops, k * m * dtype.itemsize / _fastest(_READ, device, dtype))


def best_of(one: Machine, other: Machine) -> Machine:
    """What the machine has shown that it can: measured before and after, since others may have been busy on it."""
    return Machine(max(one.flops, other.flops), max(one.bandwidth, other.bandwidth))


def _fastest(size: tuple[int, int, int], device: torch.device | str, dtype: torch.dtype) -> float:
    """Seconds of one product."""
    n, k, m = size
    x, weights = torch.ones(n, k, dtype=dtype, device=device), torch.ones(m, k, dtype=dtype, device=device)
    _product(x, weights, device)
    return min(_product(x, weights, device) for _ in range(_TRIES))


def _product(x: Tensor, weights: Tensor, device: torch.device | str) -> float:
    started = now(device)
    F.linear(x, weights)
    return now(device) - started
