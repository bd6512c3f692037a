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

_AT_ONCE = 2**24  # numbers of what survivors take besides: 64 MiB in float32


def identity_plan(batch: int, num_tokens: int, device: torch.device | str | None = None) -> KeepPlan:
    """The plan that keeps all `num_tokens` tokens of `batch` rows."""
    every = torch.arange(num_tokens, device=device).expand(batch, num_tokens)  # (B, N)
    return KeepPlan(keep=every, into=every)


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
    return KeepPlan(keep, into.scatter(1, keep, torch.arange(kept, device=keep.device).expand(batch, kept)))


def gather(x: Tensor, plan: KeepPlan) -> Tensor:
    """The survivors' own rows: x (B, N, ...) of any dtype -> (B, K, ...). For origins and positions."""
    _check_tokens("x", x, plan.into)
    if plan.num_kept == plan.num_tokens:
        return x
    return x[_rows(plan.keep), plan.keep]  # (B, K, ...)


def apply_plan(x: Tensor, plan: KeepPlan, size: Tensor | None = None) -> Tensor:
    """Each survivor becomes the mean of itself and the tokens merged into it, weighted by their sizes.

    x: floating (B, N, ...). size: (B, N), how many dense tokens each token stands for; None: one each.
    -> (B, K, ...), accumulated in at least float32, of x's dtype. Dropped tokens have no part in it. A
    survivor that nothing merged into keeps its value, and a plan that keeps all returns x itself. A plan with weights
    makes weighted sums instead, whatever the sizes are.
    Raises ValueError if the shapes disagree or x holds no floating numbers.
    """
    _check_tokens("x", x, plan.into)
    if not x.is_floating_point():
        raise ValueError(f"x: {x.dtype}; allowed: a floating dtype (`gather` takes any)")
    if size is not None:
        _check_tokens("size", size, plan.into, ndim=2)
    dtype = torch.promote_types(x.dtype, torch.float32)
    if plan.weight is not None:
        weight = plan.weight.to(dtype).view(*plan.into.shape, *[1] * (x.ndim - 2))
        return _add_also(_sum_into(x.to(dtype) * weight, plan), x, plan).to(x.dtype)
    if plan.num_kept == plan.num_tokens:
        return x
    sources, target = _merging(plan)
    y = gather(x, plan).flatten(0, 1)  # (B * K, ...)
    kept_size = (
        x.new_ones(y.shape[:1], dtype=dtype) if size is None else gather(size, plan).flatten().to(dtype)
    )
    added = x.new_ones(sources.shape, dtype=dtype) if size is None else size.flatten()[sources].to(dtype)
    total = kept_size.index_add(0, target, added)[target]  # (M,)
    # Only the tokens that merge and those that take them in are touched, in as many rows as there are of the first:
    # of several that merge into one survivor the row of one, whichever it is, takes the sum.
    place = torch.arange(target.shape[0], device=target.device)
    row = target.new_zeros(y.shape[0]).scatter(0, target, place)[target]
    tail = [1] * (x.ndim - 2)
    mine = y[target].to(dtype) * (kept_size[target] / total).view(-1, *tail)
    theirs = x.flatten(0, 1)[sources].to(dtype) * (added / total).view(-1, *tail)
    merged = mine.index_add(0, row, theirs).where((row == place).view(-1, *tail), 0).to(x.dtype)
    return y.index_fill(0, target, 0).index_add(0, target, merged).unflatten(0, plan.keep.shape)


def apply_rows(x: Tensor, into: Tensor, weight: Tensor | None = None) -> Tensor:
    """Rows that keep different counts: what merges is carried out, and nobody moves.

    x: floating (B, N, ...). into: int64 (B, N), the place in its row of the token that each one ends in, itself if it
    survives, or -1: dropped. weight: (B, N), as in `KeepPlan`.
    -> (B, N, ...): survivors hold what they have become; at all other places x. Raises ValueError as `apply_plan`.
    """
    _check_tokens("x", x, into)
    flat = (into + into.shape[1] * _rows(into)).where(into >= 0, -1).flatten()
    own = (flat == torch.arange(flat.shape[0], device=flat.device)).nonzero()[:, 0]  # (K,) of all rows
    slot = torch.zeros_like(flat).index_put((own,), torch.arange(own.shape[0], device=own.device))
    plan = KeepPlan(
        own[None],
        slot[flat.clamp(min=0)].where(flat >= 0, -1)[None],
        None if weight is None else weight.flatten()[None],
    )
    merged = apply_plan(x.flatten(0, 1)[None], plan)[0]
    return x.flatten(0, 1).index_put((own,), merged).unflatten(0, into.shape)


def merged_size(size: Tensor, plan: KeepPlan) -> Tensor:
    """Sizes after the plan, size (B, N) -> (B, K): each survivor's own and all that merged into it."""
    _check_tokens("size", size, plan.into, ndim=2)
    if plan.num_kept == plan.num_tokens:
        return size
    if plan.pairs is None:
        return _sum_into(size, plan)
    sources, target = _merging(plan)
    kept = gather(size, plan)
    return kept.flatten().index_add(0, target, size.flatten()[sources]).view(kept.shape)


def compose(first: KeepPlan, second: KeepPlan) -> KeepPlan:
    """The one plan from the tokens before `first` to those after `second`, which acts on `first`'s survivors: where
    each token ends, without weights.

    Raises ValueError if `second` does not take as many rows and tokens as `first` keeps.
    """
    if second.into.shape != first.keep.shape:
        raise ValueError(
            f"second takes {tuple(second.into.shape)} tokens; allowed: {tuple(first.keep.shape)}"
        )
    return KeepPlan(keep=gather(first.keep, second), into=_pick(second.into, first, fill=-1))


def concatenate(plans: Sequence[KeepPlan]) -> KeepPlan:
    """Plans of one row each, for stretches that follow each other -> one row over all of them. Raises ValueError if
    some have weights and others merge by means."""
    keeps, intos = [], []
    tokens = kept = 0
    for plan in plans:
        keeps.append(plan.keep + tokens)
        intos.append((plan.into + kept).where(plan.into >= 0, -1))
        tokens, kept = tokens + plan.num_tokens, kept + plan.num_kept
    return KeepPlan(torch.cat(keeps, 1), torch.cat(intos, 1), _weights(plans), _also(plans))


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
    spare = y.new_full((y.shape[0], 1, *y.shape[2:]), fill)
    index = plan.into.where(plan.into >= 0, plan.num_kept)
    return torch.cat((y, spare), dim=1)[_rows(index), index]


def _merging(plan: KeepPlan) -> tuple[Tensor, Tensor]:
    """The tokens that merge, and the survivors that take them in, int64 (M,) both, numbered through the rows."""
    if plan.pairs is not None:
        source, survivor = plan.pairs
        row = _rows(plan.into) if plan.into.shape[0] > 1 else 0
        return (source + plan.num_tokens * row).flatten(), (survivor + plan.num_kept * row).flatten()
    own = torch.zeros_like(plan.into, dtype=torch.bool).scatter(1, plan.keep, True)
    row, source = ((plan.into >= 0) & ~own).nonzero(as_tuple=True)
    return source + plan.num_tokens * row, plan.into[row, source] + plan.num_kept * row


def _sum_into(x: Tensor, plan: KeepPlan) -> Tensor:
    """x (B, N, ...) -> (B, K, ...): sums over each survivor's group."""
    # The last bin takes what is dropped, so that it touches nothing.
    batch, bins = x.shape[0], plan.num_kept + 1
    index = plan.into.where(plan.into >= 0, plan.num_kept) + bins * _rows(plan.into)
    total = x.new_zeros((batch * bins, *x.shape[2:])).index_add(0, index.flatten(), x.flatten(0, 1))
    return total.unflatten(0, (batch, bins))[:, :-1]


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
