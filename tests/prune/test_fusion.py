"""METEOR's second stage, against loops over frames and encoders."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from videoprune.prune.budget import allocate
from videoprune.prune.fusion import FUSION, fuse_plan

METHODS = tuple(FUSION)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(
        sum(x * x for x in a) * sum(y * y for y in b)
    )


def split_oracle(keep: int, sizes: list[int]) -> tuple[int, ...]:
    return allocate(keep, sizes, sizes, minimum=1 if keep >= sum(s > 0 for s in sizes) else 0)


def redundancy_oracle(
    z: list[list[float]], encoder: list[int], members: list[int], reduce: str
) -> list[float]:
    """Redundancy of each member of one frame with the frame's other encoders."""
    out = []
    for i in members:
        total = 0.0
        for other in {encoder[m] for m in members} - {encoder[i]}:
            near = [cosine(z[i], z[m]) for m in members if encoder[m] == other]
            total += sum(near) / (len(near) if reduce == "mean" else 1)
        out.append(total)
    return out


def own_oracle(z: list[list[float]], members: list[int]) -> list[float]:
    """Mean cosine of each member of one frame and encoder with the others."""
    return [sum(cosine(z[i], z[m]) for m in members if m != i) / max(len(members) - 1, 1) for i in members]


def check_lowest(values: list[float], members: list[int], row: list[int], count: int) -> None:
    """`count` members are kept, those of the lowest values. Equal values may be equal up to rounding only."""
    kept = sorted(v for v, i in zip(values, members, strict=True) if i in row)
    assert kept == pytest.approx(sorted(values)[:count], abs=1e-9)


@settings(max_examples=60)
@given(
    tokens=st.integers(1, 12),
    encoders=st.integers(1, 3),
    groups=st.integers(1, 3),
    grouped=st.booleans(),
    method=st.sampled_from(["cooperative", "separate"]),
    reduce=st.sampled_from(["mean", "sum"]),
    share=st.floats(0, 1),
    seed=st.integers(0, 10**6),
)
def test_scored_methods(
    tokens: int,
    encoders: int,
    groups: int,
    grouped: bool,
    method: str,
    reduce: Literal["mean", "sum"],
    share: float,
    seed: int,
) -> None:
    g = torch.Generator().manual_seed(seed)
    z = numbers(2, tokens, 5, seed=seed)
    encoder = torch.randint(encoders, (tokens,), generator=g)
    group = torch.randint(groups, (tokens,), generator=g)
    keep = round(share * tokens)
    plan = fuse_plan(z, encoder, keep, method=method, redundancy=reduce, group=group if grouped else None)
    frames = group.tolist() if grouped else [0] * tokens
    members = [[i for i in range(tokens) if frames[i] == f] for f in range(max(frames) + 1)]
    counts = split_oracle(keep, [len(m) for m in members])
    e = encoder.tolist()
    for b in range(2):
        row, rows = plan.keep[b].tolist(), z[b].tolist()
        assert row == sorted(set(row))
        for part, count in zip(members, counts, strict=True):
            if method == "cooperative":
                check_lowest(redundancy_oracle(rows, e, part, reduce), part, row, count)
                continue
            cells = [[m for m in part if e[m] == c] for c in range(max(e) + 1)]
            for cell, quota in zip(cells, split_oracle(count, [len(c) for c in cells]), strict=True):
                check_lowest(own_oracle(rows, cell), cell, row, quota)


@pytest.mark.parametrize("method", METHODS)
def test_counts_are_exact_over_frames(method: str) -> None:
    encoder = torch.tensor([0, 0, 0, 0, 1, 1] * 3)
    group = torch.tensor([0] * 6 + [1] * 6 + [2] * 6)
    z = numbers(2, 18, 4)
    for keep in range(19):
        plan = fuse_plan(z, encoder, keep, method=method, group=group, generator=torch.Generator())
        assert plan.num_kept == keep
        for row in plan.keep.tolist():
            assert row == sorted(set(row))
            per_frame = [sum(group[i] == f for i in row) for f in range(3)]
            assert max(per_frame) - min(per_frame) <= 1


@pytest.mark.parametrize("method", METHODS)
def test_keep_all_is_the_identity(method: str) -> None:
    plan = fuse_plan(numbers(2, 5, 3), torch.tensor([0, 1, 0, 1, 1]), 5, method=method)
    assert plan.keep.tolist() == plan.into.tolist() == [[0, 1, 2, 3, 4]] * 2


@pytest.mark.parametrize("method", ["cooperative", "separate", "uniform"])
def test_batch_equals_single(method: str) -> None:
    z, encoder = numbers(3, 9, 4), torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2])
    plan = fuse_plan(z, encoder, 5, method=method)
    for b in range(3):
        assert torch.equal(fuse_plan(z[b : b + 1], encoder, 5, method=method).keep[0], plan.keep[b])


def test_sum_weighs_big_encoders_more_than_mean() -> None:
    a, c = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]
    like_a, like_c = [0.4, 0.0, math.sqrt(0.84)], [0.0, 0.6, -0.8]
    z = torch.tensor([[like_a, like_c, a, a, a, c]])
    encoder = torch.tensor([0, 0, 1, 1, 1, 2])
    # like_a: sum 1.2, mean 0.4. like_c: 0.6 either way. All others are lower than the higher of these two.
    by_sum = fuse_plan(z, encoder, 5, method="cooperative", redundancy="sum")
    by_mean = fuse_plan(z, encoder, 5, method="cooperative", redundancy="mean")
    assert by_sum.keep.tolist() == [[1, 2, 3, 4, 5]]
    assert by_mean.keep.tolist() == [[0, 2, 3, 4, 5]]


def test_equal_redundancy_goes_to_the_earlier_token() -> None:
    plan = fuse_plan(torch.eye(6)[None], torch.tensor([0, 0, 0, 1, 1, 1]), 4, method="cooperative")
    assert plan.keep.tolist() == [[0, 1, 2, 3]]


def test_random_repeats_with_its_generator_and_differs_between_rows() -> None:
    z, encoder = numbers(4, 40, 2), torch.zeros(40).long()
    one = fuse_plan(z, encoder, 20, method="random", generator=torch.Generator().manual_seed(3))
    two = fuse_plan(z, encoder, 20, method="random", generator=torch.Generator().manual_seed(3))
    three = fuse_plan(z, encoder, 20, method="random", generator=torch.Generator().manual_seed(4))
    assert torch.equal(one.keep, two.keep)
    assert not torch.equal(one.keep, three.keep)
    assert not torch.equal(one.keep[0], one.keep[1])


def test_uniform_is_evenly_spaced_in_each_frame() -> None:
    group = torch.tensor([0] * 8 + [1] * 4)
    plan = fuse_plan(numbers(2, 12, 2), torch.zeros(12).long(), 6, method="uniform", group=group)
    assert plan.keep.tolist() == [[1, 3, 5, 7, 9, 11]] * 2


def test_refusals() -> None:
    z, encoder = numbers(2, 4, 3), torch.tensor([0, 0, 1, 1])
    for keep in (-1, 5):
        with pytest.raises(ValueError, match=rf"keep={keep}; allowed: 0\.\.4"):
            fuse_plan(z, encoder, keep, method="cooperative")
    with pytest.raises(ValueError, match=r"method='best'; allowed: cooperative, separate"):
        fuse_plan(z, encoder, 2, method="best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="encoder: shape"):
        fuse_plan(z, encoder[:3], 2, method="uniform")
    with pytest.raises(ValueError, match="group: shape"):
        fuse_plan(z, encoder, 2, method="uniform", group=encoder[:3])
