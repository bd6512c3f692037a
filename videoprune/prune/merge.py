"""Apply a `KeepPlan`: the one place where tokens are dropped, merged and put back.

A method decides which tokens stay and which merge; these functions carry the decision out on hidden states,
sizes, origins and rotary rows alike.

Shapes: B rows, N tokens before, K tokens kept, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from videoprune.types import KeepPlan

_SPARE = 64  # bins of a row for what is dropped
_AT_ONCE = 2**24  # numbers of what survivors take besides: 64 MiB in float32


def identity_plan(batch: int, num_tokens: int, device: torch.device | str | None = None) -> KeepPlan:
    """The plan that keeps all `num_tokens` tokens of `batch` rows."""
    every = torch.arange(num_tokens, device=device).expand(batch, num_tokens)  # (B, N)
    return KeepPlan(keep=every, into=every, drops=False, merges=False)


def plan_from_keep(keep: Tensor, num_tokens: int) -> KeepPlan:
    """The plan that keeps the tokens at `keep` and drops all others.

    keep: int64 (B, K), strictly ascending positions in 0..num_tokens - 1.
    Raises ValueError if `keep` is not that.
    """
    if keep.ndim != 2 or keep.dtype != torch.int64:
        raise ValueError(f"keep: {keep.dtype} {tuple(keep.shape)}; allowed: int64 (B, K)")
    if keep.numel():
        low, high = int(keep.min()), int(keep.max())
        if low < 0 or high >= num_tokens:
            raise ValueError(f"keep: positions {low}..{high}; allowed: 0..{num_tokens - 1}")
        if bool((keep[:, 1:] <= keep[:, :-1]).any()):
            raise ValueError("keep: positions out of order or twice; allowed: strictly ascending in each row")
    return drop_others(keep, num_tokens)


def drop_others(keep: Tensor, num_tokens: int) -> KeepPlan:
    """`plan_from_keep` without its checks: they would make a GPU wait. For positions known to be in order."""
    batch, kept = keep.shape
    into = torch.full((batch, num_tokens), -1, dtype=torch.int64, device=keep.device)
    into = into.scatter_(1, keep, torch.arange(kept, device=keep.device).expand(batch, kept))
    return KeepPlan(keep, into, merges=False)


def gather(x: Tensor, plan: KeepPlan) -> Tensor:
    """The survivors' own rows: x (B, N, ...) of any dtype -> (B, K, ...). For origins and positions."""
    _check_tokens("x", x, plan.into)
    if plan.num_kept == plan.num_tokens:
        return x
    return rows_at(x, plan.keep)


def rows_at(x: Tensor, index: Tensor) -> Tensor:
    """What of each row of x (B, N, ...) lies at index, int64 (B, K): (B, K, ...)."""
    return x.index_select(1, index[0]) if len(x) == 1 else x[_rows(index), index]


def apply_plan(x: Tensor, plan: KeepPlan, size: Tensor | None = None) -> Tensor:
    """Each survivor becomes the mean of itself and the tokens merged into it, weighted by their sizes.

    x: floating (B, N, ...). size: (B, N), how many dense tokens each token stands for; None: one each.
    -> (B, K, ...), accumulated in at least float32, of x's dtype. Dropped tokens have no part in it. A
    survivor that nothing merged into keeps its value, and a plan that keeps all returns x itself. A plan with weights
    makes weighted sums instead, whatever the sizes are.
    Raises ValueError if the shapes disagree or x holds no floating numbers.
    """
    return apply_sized([x], plan, _ones(x, plan) if size is None else size)[0][0]


def apply_sized(xs: Sequence[Tensor], plan: KeepPlan, size: Tensor) -> tuple[list[Tensor], Tensor]:
    """`apply_plan` for several tensors of the same tokens, of one dtype, and `merged_size`."""
    for x in xs:
        _check_tokens("x", x, plan.into)
        if not x.is_floating_point():
            raise ValueError(f"x: {x.dtype}; allowed: a floating dtype (`gather` takes any)")
    _check_tokens("size", size, plan.into, ndim=2)
    if plan.weight is None and (not plan.merges or plan.num_kept == plan.num_tokens):
        return [gather(x, plan) for x in xs], gather(size, plan)
    return _applied(xs, plan, size)


def _applied(xs: Sequence[Tensor], plan: KeepPlan, size: Tensor) -> tuple[list[Tensor], Tensor]:
    dtype = torch.promote_types(xs[0].dtype, torch.float32)
    index = _index(plan)
    sums = _binned(size, index, plan)
    # Of means, 1 where a token is alone.
    part = plan.weight
    if part is None:
        part = size.to(dtype) / sums[index].to(dtype).view(size.shape)
    found = []
    for x in xs:
        weight = part.to(dtype).view(*part.shape, *[1] * (x.ndim - 2))
        y = _survivors(_binned(x * weight, index, plan), plan)
        found.append(_add_also(y, x, plan).to(x.dtype))
    return found, _survivors(sums, plan)


def apply_rows(x: Tensor, into: Tensor, weight: Tensor | None = None) -> Tensor:
    """Rows that keep different counts: what merges is carried out, and nobody moves.

    x: floating (B, N, ...). into: int64 (B, N), the place in its row of the token that each one ends in, itself if it
    survives, or -1: dropped. weight: (B, N), as in `KeepPlan`.
    -> (B, N, ...): survivors hold what they have become; at all other places x. Raises ValueError as `apply_plan`.
    """
    _check_tokens("x", x, into)
    every = torch.arange(into.shape[1], device=into.device).expand_as(into)
    plan = KeepPlan(every, into, weight)
    merged = _applied([x], plan, _ones(x, plan))[0][0]
    stays = (into == every).view(*into.shape, *[1] * (x.ndim - 2))
    return merged.where(stays, x)


def merged_size(size: Tensor, plan: KeepPlan) -> Tensor:
    """Sizes after the plan, size (B, N) -> (B, K): each survivor's own and all that merged into it."""
    _check_tokens("size", size, plan.into, ndim=2)
    if not plan.merges or plan.num_kept == plan.num_tokens:
        return gather(size, plan)
    return _survivors(_binned(size, _index(plan), plan), plan)


def compose(first: KeepPlan, second: KeepPlan) -> KeepPlan:
    """The one plan from the tokens before `first` to those after `second`, which acts on `first`'s survivors: where
    each token ends, without weights.

    Raises ValueError if `second` does not take as many rows and tokens as `first` keeps.
    """
    if second.into.shape != first.keep.shape:
        raise ValueError(
            f"second takes {tuple(second.into.shape)} tokens; allowed: {tuple(first.keep.shape)}"
        )
    keep = first.keep.gather(1, second.keep)
    into = _pick(second.into, first, fill=-1) if first.drops else second.into.gather(1, first.into)
    drops, merges = first.drops or second.drops, first.merges or second.merges
    return KeepPlan(keep, into, drops=drops, merges=merges)


def concatenate(plans: Sequence[KeepPlan]) -> KeepPlan:
    """Plans of one row each, for stretches that follow each other -> one row over all of them. Raises ValueError if
    some have weights and others merge by means."""
    if len(plans) == 1:
        return plans[0]
    keeps, intos = [], []
    tokens = kept = 0
    for plan in plans:
        keeps.append(plan.keep + tokens)
        intos.append((plan.into + kept).where(plan.into >= 0, -1) if plan.drops else plan.into + kept)
        tokens, kept = tokens + plan.num_tokens, kept + plan.num_kept
    drops, merges = any(plan.drops for plan in plans), any(plan.merges for plan in plans)
    return KeepPlan(torch.cat(keeps, 1), torch.cat(intos, 1), _weights(plans), _also(plans), drops, merges)


def _also(plans: Sequence[KeepPlan]) -> tuple[Tensor, Tensor, Tensor] | None:
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    tokens = kept = 0
    for plan in plans:
        if plan.also is not None:
            survivor, token, weight = plan.also
            found.append((survivor + kept, token + tokens, weight))
        tokens, kept = tokens + plan.num_tokens, kept + plan.num_kept
    if not found:
        return None
    survivor, token, weight = (torch.cat(part) for part in zip(*found, strict=True))
    return survivor, token, weight


def _weights(plans: Sequence[KeepPlan]) -> Tensor | None:
    if all(plan.weight is None for plan in plans):
        return None
    found = []
    for plan in plans:
        if plan.weight is None and plan.num_kept < plan.num_tokens:
            raise ValueError("weight: some plans have weights; allowed: all, or none")
        found.append(torch.ones_like(plan.into, dtype=torch.float32) if plan.weight is None else plan.weight)
    return torch.cat(found, 1)


def unmerge(y: Tensor, plan: KeepPlan, fill: float = 0.0) -> Tensor:
    """Undo the plan: each original token gets its survivor's value, dropped ones `fill`.

    y: (B, K, ...) -> (B, N, ...).
    """
    _check_tokens("y", y, plan.keep)
    return y if plan.num_kept == plan.num_tokens else _pick(y, plan, fill=fill)


def _pick(y: Tensor, plan: KeepPlan, fill: float) -> Tensor:
    """y (B, K, ...) -> (B, N, ...): the survivor's row for each token, `fill` for dropped ones."""
    if not plan.drops:
        return rows_at(y, plan.into)
    spare = y.new_full((y.shape[0], 1, *y.shape[2:]), fill)
    index = plan.into.masked_fill(plan.into < 0, plan.num_kept)
    return rows_at(torch.cat((y, spare), dim=1), index)


def _bins(plan: KeepPlan) -> int:
    """Of each row: one for each survivor, and behind them some for what is dropped, so that it touches nothing."""
    return plan.num_kept + (_SPARE if plan.drops else 0)


def _index(plan: KeepPlan) -> Tensor:
    """(B * N,): the bin of each token, numbered through the rows."""
    index = plan.into
    if plan.drops:  # one bin for all would make a GPU add them one after another
        spare = plan.num_kept + torch.arange(plan.num_tokens, device=index.device) % _SPARE
        index = index.where(index >= 0, spare)
    return (index if len(index) == 1 else index + _bins(plan) * _rows(index)).flatten()


def _ones(x: Tensor, plan: KeepPlan) -> Tensor:
    return x.new_ones(plan.into.shape, dtype=torch.promote_types(x.dtype, torch.float32))


def _survivors(sums: Tensor, plan: KeepPlan) -> Tensor:
    """Bins (B * bins, ...) -> those of the survivors (B, K, ...)."""
    return sums.unflatten(0, (len(plan.keep), -1))[:, : plan.num_kept]


def _binned(x: Tensor, index: Tensor, plan: KeepPlan) -> Tensor:
    """x (B, N, ...) -> (B * bins, ...): the sum of each bin."""
    total = x.new_zeros((len(x) * _bins(plan), *x.shape[2:]))
    return total.index_add_(0, index, x.flatten(0, 1))


def _add_also(total: Tensor, x: Tensor, plan: KeepPlan) -> Tensor:
    """total (B, K, ...) and what its survivors take besides of x (B, N, ...), so many at a time as memory allows."""
    if plan.also is None:
        return total
    found, source = total.flatten(0, 1), x.flatten(0, 1)
    step = max(1, _AT_ONCE // max(1, source[0].numel()))
    for survivor, token, weight in zip(*(part.split(step) for part in plan.also), strict=True):
        counts = weight.to(total.dtype).view(-1, *[1] * (x.ndim - 2))
        found = found.index_add(0, survivor, source[token].to(total.dtype) * counts)
    return found.unflatten(0, total.shape[:2])


def _rows(index: Tensor) -> Tensor:
    return torch.arange(index.shape[0], device=index.device)[:, None]  # (B, 1)


def _check_tokens(name: str, x: Tensor, like: Tensor, ndim: int | None = None) -> None:
    if x.shape[:2] != like.shape or (ndim is not None and x.ndim != ndim):
        raise ValueError(
            f"{name}: shape {tuple(x.shape)}; allowed: {tuple(like.shape)} rows and tokens, as the plan has"
        )
