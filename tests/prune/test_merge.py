"""Applying plans, against loops over single tokens."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipelines.measure.launches import launches
from videoprune.prune.merge import (
    apply_plan,
    apply_rows,
    apply_sized,
    compose,
    concatenate,
    gather,
    identity_plan,
    merged_size,
    plan_from_keep,
    unmerge,
)
from videoprune.types import KeepPlan

FEW = settings(max_examples=40)


def make_plan(batch: int, tokens: int, kept: int, *, drop: bool, seed: int) -> KeepPlan:
    """Any valid plan: random survivors; each other token goes to a random survivor, or nowhere."""
    g = torch.Generator().manual_seed(seed)
    keep = torch.stack([torch.randperm(tokens, generator=g)[:kept].sort().values for _ in range(batch)])
    low = -1 if drop or kept == 0 else 0
    into = torch.randint(low, max(kept, low + 1), (batch, tokens), generator=g)
    return KeepPlan(keep, into.scatter(1, keep, torch.arange(kept).expand(batch, kept)))


@st.composite
def plans(draw: st.DrawFn, *, drop: bool | None = None) -> KeepPlan:
    batch, tokens = draw(st.integers(1, 3)), draw(st.integers(1, 9))
    may_drop = draw(st.booleans()) if drop is None else drop
    kept = draw(st.integers(0 if may_drop else 1, tokens))
    return make_plan(batch, tokens, kept, drop=may_drop, seed=draw(st.integers(0, 10**6)))


def mean_oracle(x: Tensor, plan: KeepPlan, size: Tensor) -> Tensor:
    out = torch.zeros(x.shape[0], plan.num_kept, x.shape[2], dtype=torch.float64)
    for b in range(x.shape[0]):
        for j in range(plan.num_kept):
            group = [i for i in range(plan.num_tokens) if plan.into[b, i] == j]
            weight = sum(float(size[b, i]) for i in group)
            for d in range(x.shape[2]):
                out[b, j, d] = sum(float(size[b, i]) * float(x[b, i, d]) for i in group) / weight
    return out


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@FEW
@given(plans())
def test_apply_is_the_size_weighted_mean(plan: KeepPlan) -> None:
    x = numbers(plan.keep.shape[0], plan.num_tokens, 3)
    size = numbers(*plan.into.shape, seed=1).abs() + 0.5
    torch.testing.assert_close(apply_plan(x, plan, size), mean_oracle(x, plan, size))
    torch.testing.assert_close(apply_plan(x, plan), mean_oracle(x, plan, torch.ones_like(size)))


@FEW
@given(plans(drop=False))
def test_merging_conserves_sizes_and_weighted_sums(plan: KeepPlan) -> None:
    x = numbers(plan.keep.shape[0], plan.num_tokens, 2)
    size = numbers(*plan.into.shape, seed=1).abs() + 0.5
    after = merged_size(size, plan)
    torch.testing.assert_close(after.sum(1), size.sum(1))
    total = (apply_plan(x, plan, size) * after[..., None]).sum(1)
    torch.testing.assert_close(total, (x * size[..., None]).sum(1))


@FEW
@given(plans(), st.data())
def test_compose_equals_applying_twice(first: KeepPlan, data: st.DataObject) -> None:
    batch, kept = first.keep.shape
    wanted = data.draw(st.integers(0, kept))
    second = make_plan(batch, kept, wanted, drop=data.draw(st.booleans()), seed=data.draw(st.integers(0, 99)))
    both = compose(first, second)
    x, size = numbers(batch, first.num_tokens, 3), numbers(*first.into.shape, seed=1).abs() + 0.5
    middle_size = merged_size(size, first)
    torch.testing.assert_close(merged_size(size, both), merged_size(middle_size, second))
    twice = apply_plan(apply_plan(x, first, size), second, middle_size)
    torch.testing.assert_close(apply_plan(x, both, size), twice)
    assert torch.equal(gather(x, both), gather(gather(x, first), second))
    assert torch.equal(both.into.gather(1, both.keep), torch.arange(wanted).expand(batch, wanted))
    y = numbers(batch, wanted, 2, seed=2)
    assert torch.equal(unmerge(y, both, fill=7.0), unmerge(unmerge(y, second, fill=7.0), first, fill=7.0))


@FEW
@given(plans())
def test_unmerge_gives_each_token_its_groups_mean(plan: KeepPlan) -> None:
    x = numbers(plan.keep.shape[0], plan.num_tokens, 2)
    mean = mean_oracle(x, plan, torch.ones(plan.into.shape))
    back = unmerge(apply_plan(x, plan), plan, fill=-3.0)
    for b in range(x.shape[0]):
        for i in range(plan.num_tokens):
            j = int(plan.into[b, i])
            expected = mean[b, j] if j >= 0 else torch.full((2,), -3.0, dtype=torch.float64)
            torch.testing.assert_close(back[b, i], expected)


@FEW
@given(plans())
def test_batch_equals_single(plan: KeepPlan) -> None:
    x = numbers(plan.keep.shape[0], plan.num_tokens, 2)
    size = numbers(*plan.into.shape, seed=1).abs() + 0.5
    for b in range(x.shape[0]):
        one = KeepPlan(plan.keep[b : b + 1], plan.into[b : b + 1])
        assert torch.equal(apply_plan(x, plan, size)[b], apply_plan(x[b : b + 1], one, size[b : b + 1])[0])


def test_keep_all_returns_the_very_tensor() -> None:
    plan = identity_plan(2, 5)
    x = numbers(2, 5, 3).to(torch.bfloat16)
    size = torch.full((2, 5), 3.0)
    assert apply_plan(x, plan, size) is x
    assert gather(x, plan) is x
    assert merged_size(size, plan) is size
    assert unmerge(x, plan) is x
    other = make_plan(2, 5, 2, drop=True, seed=0)
    for both in (compose(plan, other), compose(other, identity_plan(2, 2))):
        assert torch.equal(both.keep, other.keep)
        assert torch.equal(both.into, other.into)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_is_kept_and_lone_survivors_are_exact(dtype: torch.dtype) -> None:
    x = numbers(1, 4, 6).to(dtype)
    plan = KeepPlan(torch.tensor([[0, 2]]), torch.tensor([[0, -1, 1, 0]]))
    size = torch.tensor([[1.0, 5.0, 3.0, 2.0]])
    y = apply_plan(x, plan, size)
    assert y.dtype == dtype
    assert torch.equal(y[0, 1], x[0, 2])
    expected = (x[0, 0].double() + 2 * x[0, 3].double()) / 3
    torch.testing.assert_close(y[0, 0], expected.to(dtype))


def test_half_precision_accumulates_in_float32() -> None:
    x = torch.full((1, 4096, 1), 1.0, dtype=torch.bfloat16)  # bfloat16 would stop counting at 256
    plan = KeepPlan(torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, 4096, dtype=torch.int64))
    assert apply_plan(x, plan).item() == 1.0


def test_dropped_tokens_touch_nothing() -> None:
    x = torch.tensor([[[1.0], [float("nan")], [float("inf")], [2.0]]])
    plan = plan_from_keep(torch.tensor([[0, 3]]), 4)
    assert apply_plan(x, plan).flatten().tolist() == [1.0, 2.0]


def test_more_dimensions_and_integers() -> None:
    plan = KeepPlan(torch.tensor([[1, 2]]), torch.tensor([[1, 0, 1]]))
    x = numbers(1, 3, 2, 4)
    y = apply_plan(x, plan)
    torch.testing.assert_close(y, torch.stack((x[0, 1], (x[0, 0] + x[0, 2]) / 2))[None])
    origin = torch.arange(9).reshape(1, 3, 3)
    assert gather(origin, plan).tolist() == [[[3, 4, 5], [6, 7, 8]]]
    assert unmerge(y, plan)[0, 0].equal(y[0, 1])
    assert gather(torch.tensor([[5, 6, 7]]), plan).tolist() == [[6, 7]]


@FEW
@given(plans(), st.sampled_from([torch.float32, torch.bfloat16]), st.data())
def test_what_a_plan_promises_changes_nothing_and_nothing_asks(
    plan: KeepPlan, dtype: torch.dtype, data: st.DataObject
) -> None:
    alone = all(len(set(i) - {-1}) == len([j for j in i if j >= 0]) for i in plan.into.tolist())
    drops, merges = bool((plan.into < 0).any()), not alone
    known = replace(plan, drops=drops or data.draw(st.booleans()), merges=merges or data.draw(st.booleans()))
    x, y = numbers(*plan.into.shape, 3).to(dtype), numbers(*plan.into.shape, 2, 2).to(dtype)
    size = numbers(*plan.into.shape, seed=1).abs().float() + 0.5
    with launches() as found:
        (mine, others), total = apply_sized([x, y], known, size)
    assert not found.waits
    assert torch.equal(mine, apply_plan(x, plan, size))
    assert torch.equal(others, apply_plan(y, plan, size))
    assert total is not None
    torch.testing.assert_close(total, merged_size(size, plan).to(total))
    torch.testing.assert_close(merged_size(size, known), merged_size(size, plan))
    for first, second in ((known, identity_plan(*plan.keep.shape)), (identity_plan(*plan.into.shape), known)):
        both = compose(first, second)
        assert torch.equal(both.into, plan.into)
        assert (both.drops, both.merges) == (known.drops, known.merges)


def test_gradients_are_those_of_the_mean() -> None:
    """Three tokens in one survivor, two in another."""
    plan = KeepPlan(torch.tensor([[0, 4]]), torch.tensor([[0, 0, 0, 1, 1, -1]]))
    x, size = numbers(1, 6, 2).requires_grad_(), torch.tensor([[1.0, 2.0, 3.0, 1.0, 1.0, 5.0]])
    (apply_plan(x, plan, size) * torch.tensor([1.0, 10.0])[:, None]).sum().backward()
    expected = [1 / 6, 2 / 6, 3 / 6, 5.0, 5.0, 0.0]
    assert x.grad is not None
    torch.testing.assert_close(x.grad[0, :, 0], torch.tensor(expected, dtype=torch.float64))


def test_gradients_flow_through_merging() -> None:
    plan = KeepPlan(torch.tensor([[0]]), torch.tensor([[0, 0, -1]]))
    x = torch.ones(1, 3, 1, requires_grad=True)
    apply_plan(x, plan, torch.tensor([[1.0, 3.0, 1.0]])).sum().backward()
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [0.25, 0.75, 0.0]


def test_plan_from_keep_drops_the_others() -> None:
    plan = plan_from_keep(torch.tensor([[0, 2], [1, 3]]), 4)
    assert plan.into.tolist() == [[0, -1, 1, -1], [-1, 0, -1, 1]]
    empty = plan_from_keep(torch.zeros(2, 0, dtype=torch.int64), 3)
    assert empty.into.tolist() == [[-1] * 3] * 2
    assert apply_plan(numbers(2, 3, 5), empty).shape == (2, 0, 5)
    assert unmerge(numbers(2, 0, 5), empty, fill=1.0).eq(1.0).all()


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        (torch.tensor([[1, 1]]), "ascending"),
        (torch.tensor([[2, 1]]), "ascending"),
        (torch.tensor([[0, 4]]), r"0\.\.3"),
        (torch.tensor([[-1, 2]]), r"0\.\.3"),
        (torch.tensor([[0.0, 2.0]]), "int64"),
        (torch.tensor([0, 2]), "int64"),
    ],
)
def test_plan_from_keep_refuses(keep: Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        plan_from_keep(keep, 4)


def test_wrong_shapes_are_refused_by_name() -> None:
    plan = plan_from_keep(torch.tensor([[0, 2]]), 4)
    with pytest.raises(ValueError, match="x: shape"):
        apply_plan(torch.zeros(1, 5, 2), plan)
    with pytest.raises(ValueError, match="size: shape"):
        apply_plan(torch.zeros(1, 4, 2), plan, torch.ones(1, 3))
    with pytest.raises(ValueError, match="floating"):
        apply_plan(torch.zeros(1, 4, 2, dtype=torch.int64), plan)
    with pytest.raises(ValueError, match="y: shape"):
        unmerge(torch.zeros(1, 4, 2), plan)
    with pytest.raises(ValueError, match="second takes"):
        compose(plan, plan)


@FEW
@given(plans())
def test_weights_make_sums(plan: KeepPlan) -> None:
    rng = torch.Generator().manual_seed(plan.num_tokens)
    x = torch.randn(*plan.into.shape, 3, generator=rng)
    weight = torch.randn(plan.into.shape, generator=rng)
    y = apply_plan(x, KeepPlan(plan.keep, plan.into, weight), torch.rand(plan.into.shape, generator=rng))
    want = torch.zeros(*plan.keep.shape, 3, dtype=torch.float64)
    for b in range(len(x)):
        for i in range(plan.num_tokens):
            if plan.into[b, i] >= 0:
                want[b, plan.into[b, i]] += weight[b, i].double() * x[b, i].double()
    torch.testing.assert_close(y.double(), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("at_once", [1, 7, 2**24])
def test_a_token_may_count_in_several_sums(at_once: int) -> None:
    rng = torch.Generator().manual_seed(at_once)
    plan = make_plan(2, 6, 3, drop=True, seed=0)
    weight = torch.randn(2, 6, generator=rng)
    also = torch.tensor([0, 5, 5, 2]), torch.tensor([3, 8, 11, 3]), torch.tensor([0.5, -1.0, 2.0, 0.25])
    x = torch.randn(2, 6, 3, generator=rng, requires_grad=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("videoprune.prune.merge._AT_ONCE", at_once)
        y = apply_plan(x, KeepPlan(plan.keep, plan.into, weight, also))
    want = apply_plan(x, KeepPlan(plan.keep, plan.into, weight)).flatten(0, 1).clone()
    for survivor, token, w in zip(*(part.tolist() for part in also), strict=True):
        want[survivor] += w * x.flatten(0, 1)[token]
    torch.testing.assert_close(y.flatten(0, 1), want)
    y.sum().backward()
    assert x.grad is not None
    inside = (weight * (plan.into >= 0)).sum() + also[2].sum()
    assert x.grad.sum() == pytest.approx(3 * float(inside), rel=1e-5)


def test_concatenated_plans_keep_what_counts_in_several_sums() -> None:
    plan = make_plan(1, 4, 2, drop=True, seed=0)
    weighted = KeepPlan(plan.keep, plan.into, torch.arange(4.0)[None])
    also = torch.tensor([1]), torch.tensor([0]), torch.tensor([0.5])
    both = concatenate([weighted, KeepPlan(plan.keep, plan.into, weighted.weight, also), weighted])
    assert both.also is not None
    assert [part.tolist() for part in both.also] == [[3], [4], [0.5]]
    assert concatenate([weighted, weighted]).also is None
    for wrong in (also[:2], (*also[:2], torch.ones(2))):
        with pytest.raises(ValueError, match="also "):
            KeepPlan(plan.keep, plan.into, weighted.weight, wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="beside weight"):
        KeepPlan(plan.keep, plan.into, None, also)


def test_concatenated_plans_keep_weights_or_have_none() -> None:
    plan = make_plan(1, 4, 2, drop=True, seed=0)
    weighted = KeepPlan(plan.keep, plan.into, torch.arange(4.0)[None])
    both = concatenate([weighted, identity_plan(1, 2), weighted])
    assert both.weight is not None
    assert both.weight.tolist() == [[0, 1, 2, 3, 1, 1, 0, 1, 2, 3]]
    with pytest.raises(ValueError, match="weight"):
        concatenate([weighted, plan])
    with pytest.raises(ValueError, match="weight"):
        KeepPlan(plan.keep, plan.into, torch.ones(1, 3))


@FEW
@given(st.lists(plans(), min_size=1, max_size=3), st.booleans(), st.integers(0, 10**6))
def test_rows_that_keep_other_counts_merge_each_for_itself(
    made: list[KeepPlan], weighted: bool, seed: int
) -> None:
    """Against each row's own plan; nobody moves, and what did not stay is untouched."""
    tokens = max(p.num_tokens for p in made)
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(len(made), tokens, 3, generator=g)
    weight = torch.rand(len(made), tokens, generator=g) if weighted else None
    into = torch.full((len(made), tokens), -1)
    expected = x.clone()
    for row, plan in enumerate(made):  # the first row of each plan, dropped tokens behind it
        n = plan.num_tokens
        slots = plan.into[0]
        if plan.num_kept:
            into[row, :n] = plan.keep[0][slots.clamp(min=0)].where(slots >= 0, -1)
        own = KeepPlan(plan.keep[:1], plan.into[:1], None if weight is None else weight[row : row + 1, :n])
        expected[row, plan.keep[0]] = apply_plan(x[row : row + 1, :n], own)[0]
    torch.testing.assert_close(apply_rows(x, into, weight), expected)
    with pytest.raises(ValueError, match="x: shape"):
        apply_rows(x, into[:, 1:])
