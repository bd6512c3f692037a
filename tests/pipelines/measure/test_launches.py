"""Kernels and waits of small pieces of code whose numbers are known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pipelines.measure.launches import launches


def nothing(x: Tensor) -> object:
    return x.view(-1).unflatten(0, (2, 3)).transpose(0, 1)[:, :1].expand(3, 4), torch.empty(4), x.detach()


def two(x: Tensor) -> object:
    y = x + 1
    return y.mul_(2)


def product(x: Tensor) -> object:
    return x @ x.T


CASES: list[tuple[Callable[[Tensor], object], int, int]] = [
    (nothing, 0, 0),
    (two, 2, 0),
    (product, 1, 0),
    (lambda x: x.sum().item(), 2, 1),
    (lambda x: x.sum(1).tolist(), 1, 1),
    (lambda x: bool(x.any()), 2, 1),
    (lambda x: x.nonzero(), 1, 1),
    (lambda x: x[torch.ones_like(x, dtype=torch.bool)], 2, 1),
    (lambda x: x[torch.zeros(2, dtype=torch.int64)], 2, 0),
    (lambda x: torch.unique(x), 1, 1),
    (lambda x: x.repeat_interleave(torch.tensor([1, 2]), 0), 2, 1),
    (lambda x: x.cpu(), 0, 1),
]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_known_counts(case):
    run, kernels, waits = CASES[case]
    x = torch.arange(6.0).view(2, 3)
    with launches() as found:
        run(x)
    assert sum(found.waits.values()) == waits, found.waits
    assert sum(found.kernels.values()) == kernels, found.kernels


def test_nothing_is_counted_outside():
    with launches() as found:
        pass
    torch.ones(3).sum().item()
    assert not found.kernels
    assert not found.waits
