"""LLaVA-PruMerge+ (arXiv 2403.15388): the most attended tokens, a spatial sample beside them, sums over neighbours.

Shapes: T frames, n tokens of a frame, d key width, M neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from videoprune.prune.rivals.choose import even_counts, nearest, nearest_others, spread_mask
from videoprune.prune.rivals.tokens import (
    ClipTokens,
    given,
    in_clip,
    nearest_products,
    over_clip,
    plan_of,
    plan_of_sums,
    positions,
)
from videoprune.prune.select import top_mask
from videoprune.types import KeepPlan


@over_clip(
    "LLaVA-PruMerge, arXiv 2403.15388", needs=("attention", "keys"), products=nearest_products, exact=False
)
def prumerge_plus(
    clip: ClipTokens,
    keep: int,
    *,
    adaptive: bool = False,
    neighbors: int = 32,
    generator: torch.Generator | None = None,
) -> KeepPlan:
    """PruMerge+ as its authors' program has it (github.com/42Shawn/LLaVA-PruMerge), each frame for itself.

    With m of a frame's n tokens, the m most attended stay, and besides them every s-th of the first n - 1 places from
    the first on, s = floor(floor(n / m) / 3): about 4 m tokens. Each of them becomes itself plus the sum of its
    `neighbors` nearest tokens, kept or not, by the cosine of their keys, each times its share of the frame's attention.
    One token more is the sum of all others times their shares; it stands at the place of the last token that did not
    stay. A frame of which all tokens stay has none.
    adaptive: m is the number of outliers, above Q3 + 1.5 (Q3 - Q1) of the frame's attention, as the authors' default
    has it, and `keep` is not looked at. Else (ours, so that methods meet at a count) m is the number that comes
    nearest to an even share of `keep`; since s is a whole number, a half comes to 56 % and no count lies between 59 %
    and all. Without any outlier, where their program divides by 0, place 0 stays.
    There attention is that of CLS in one head over all channels of the last block, and keys are whole; here both are
    what the clip has, and the attention of a frame adds up to 1 without CLS. There the sample and the further token
    come behind the attended ones; here all keep their places. `generator` is not used.
    Raises ValueError if `neighbors` is below 1.
    """
    if neighbors < 1:
        raise ValueError(f"neighbors={neighbors}; allowed: 1 or more")
    if adaptive:
        most_attended = _outliers(given(clip.attention)).tolist()
    else:
        most_attended = _wanted(keep, clip.frames, clip.per_frame)
    return sums_over_neighbors(clip, most_attended, neighbors)


def sums_over_neighbors(clip: ClipTokens, most_attended: list[int], neighbors: int) -> KeepPlan:
    """The plan of `prumerge_plus` with most_attended[t] of frame t's tokens, m above, whatever count it leads to."""
    attention, keys = given(clip.attention), given(clip.keys)
    n, own = clip.per_frame, positions(clip)  # (T, n)
    kept = _chosen(attention, most_attended)
    seat = n - 1 - (~kept).flip(1).int().argmax(dim=1, keepdim=True)  # of the further token, (T, 1)
    share = attention / attention.sum(dim=1, keepdim=True).clamp(min=torch.finfo(attention.dtype).tiny)
    near = nearest_others(keys, min(neighbors, n - 1))  # (T, n, M)
    around = share[:, :, None].expand(-1, -1, near.shape[2]).gather(1, near)[kept]  # (kept, M)
    takers = own[kept][:, None].expand_as(around), (near + own[:, :1, None])[kept]
    rest = in_clip(seat.expand(-1, n))[~kept]  # the further token takes all others
    every = torch.ones_like(own[kept], dtype=share.dtype)
    return plan_of_sums(
        kept.scatter(1, seat, True),
        torch.cat([own[kept], rest, takers[0].flatten()]),
        torch.cat([own[kept], own[~kept], takers[1].flatten()]),
        torch.cat([every, share[~kept], around.flatten()]),
    )


def _chosen(attention: Tensor, counts: list[int]) -> Tensor:
    """The counts[t] most attended tokens of each frame, and its sample: bool (T, n)."""
    n = attention.shape[1]
    # As the authors round: m comes back from m / n, which is below m in float64 for some m.
    top = torch.tensor([int(n * (m / n)) for m in counts], device=attention.device)
    step = torch.tensor([_step(n, m) for m in counts], device=attention.device)[:, None]
    place = torch.arange(n, device=attention.device)
    return top_mask(attention, top) | ((place % step == 0) & (place < max(1, n - 1)))


def _step(tokens: int, most_attended: int) -> int:
    """Between the places of the sample; one that leaves place 0 alone where nothing stands out."""
    return max(1, int(1 / (most_attended / tokens)) // 3) if most_attended else tokens


def _outliers(attention: Tensor) -> Tensor:
    """How many tokens of each frame stand out of its attention (T, n): (T,)."""
    low, high = attention.quantile(attention.new_tensor([0.25, 0.75]), dim=1)  # each (T,)
    return (attention > (high + 1.5 * (high - low))[:, None]).sum(dim=1)


def _wanted(keep: int, frames: int, tokens: int) -> list[int]:
    """For each frame the m whose count comes nearest to its share of `keep`, if attention does not know the sample."""

    def expected(m: int) -> float:
        sample = -(-max(1, tokens - 1) // _step(tokens, m))
        return m + sample - m * sample / tokens + 1

    shares = even_counts(keep, frames)
    best = {c: min(range(tokens // 3 + 1), key=lambda m: abs(expected(m) - c)) for c in set(shares)}
    return [best[count] for count in shares]


@over_clip(
    "cluster means on PruMerge+'s choice; LLaVA-PruMerge, arXiv 2403.15388",
    needs=("attention", "keys"),
    products=nearest_products,
)
def prumerge_plus_means(
    clip: ClipTokens, keep: int, *, whisker: float = 1.5, generator: torch.Generator | None = None
) -> KeepPlan:
    """This project's variant of PruMerge+: outliers of attention, evenly spaced tokens between them, cluster means.

    A token is an outlier if its attention is above Q3 + whisker * (Q3 - Q1) of its frame. A frame keeps its
    outliers, strongest first, and fills its count with tokens evenly spaced, row by row, among the rest.
    The other tokens merge once, by a plain mean, into the kept token of their frame whose key has the highest cosine.
    Counts are exact, an even share of `keep` for each frame. `generator` is not used.
    Raises ValueError if `whisker` is below 0.
    """
    if not whisker >= 0:
        raise ValueError(f"whisker={whisker}; allowed: 0 or more, in interquartile ranges")
    attention, keys = given(clip.attention), given(clip.keys)
    counts = torch.tensor(even_counts(keep, clip.frames), device=clip.x.device)
    low, high = attention.quantile(attention.new_tensor([0.25, 0.75]), dim=1)  # each (T,)
    outlier = attention > (high + whisker * (high - low))[:, None]
    strong = top_mask(attention, counts.minimum(outlier.sum(dim=1)))  # the outliers have the top attention
    kept = strong | spread_mask(~strong, counts - strong.sum(dim=1))
    return plan_of(in_clip(nearest(keys, kept)))
