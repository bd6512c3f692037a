"""What a stream forgets: of the tokens of old frames those that differ most from each other stay, the others merge.

The choice is that of stage 2 over a clip (`farthest`), with the time between tokens: over all of the past scenes thin
out, and none vanishes at once. A clock that runs slower the longer ago it is kept less of what is asked about
(docs/live.md). The form is this project's.

Shapes: N tokens, K that stay, D width.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from videoprune.prune.farthest import farthest_plan
from videoprune.prune.fusion import TIME_WEIGHT
from videoprune.prune.similarity import unit
from videoprune.types import KeepPlan

_TICKS = 1000  # in a second: what is compared are whole numbers
_AT_ONCE = 2**24  # similarities held at once: 64 MiB in float32


@torch.no_grad()
def fade_plan(
    x: Tensor,
    seconds: np.ndarray,
    keep: int,
    *,
    time_weight: float = TIME_WEIGHT,
    merge_above: float = -1.0,
) -> KeepPlan:
    """`keep` of the tokens x (N, D) stay, each other one merges into the survivor most like it: one row.

    seconds: (N,), ascending, when each was seen. time_weight: what all the time from first to last weighs beside
    1 - cosine. merge_above: a token is dropped instead where its cosine with that survivor is below.
    Raises ValueError for a `keep` that is not in 1..N, or times that are not in order.
    """
    if not 1 <= keep <= len(x):
        raise ValueError(f"keep={keep}; allowed: 1..{len(x)}, the number of tokens")
    if (np.diff(seconds) < 0).any():
        raise ValueError(f"seconds={seconds}; allowed: ascending")
    ticks = np.round((seconds - seconds[0]) * _TICKS).astype(np.int64)
    plan = farthest_plan(x, keep, frame=ticks, time_weight=time_weight)
    kept = plan.keep[0]
    alike, nearest = _nearest(unit(x), kept)
    into = torch.where(plan.into[0] >= 0, plan.into[0], torch.where(alike >= merge_above, nearest, -1))
    return KeepPlan(plan.keep, into[None])


def _nearest(u: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """The largest cosine of each token u (N, D), of length 1, with a survivor, and which one: (N,) both."""
    rows = max(1, _AT_ONCE // len(kept))
    found = [(part @ u[kept].T).max(1) for part in u.split(rows)]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])
