"""DyCoke (arXiv 2411.15024), its token temporal merging before the LLM; its pruning of the cache is not here.

Shapes: T frames, n tokens of a frame, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from videoprune.prune.rivals.tokens import ClipTokens, over_clip, plan_of_kept
from videoprune.prune.select import top_mask
from videoprune.prune.similarity import unit
from videoprune.types import KeepPlan

_WINDOW = 4


def _compared(frames: int) -> list[int | None]:
    """The earlier frame that each one is thinned out by; None: it stays whole.

    In a window of four, the second is compared with the first, the fourth with the third, and the third with the
    first, which the authors' program leaves out in the clip's last window.
    """
    return [
        t - 1 if t % 2 else t - 2 if t % _WINDOW == 2 and t - 2 < frames - _WINDOW else None
        for t in range(frames)
    ]


def _kept_of_each(frames: int, tokens: int, keep: int) -> int:
    """Tokens that each frame that is not whole keeps, so that `keep` stay as nearly as can be."""
    thinned = sum(t is not None for t in _compared(frames))
    if not thinned:
        return tokens
    return min(tokens, max(0, round((keep - (frames - thinned) * tokens) / thinned)))


def _count(frames: int, tokens: int, keep: int) -> int:
    thinned = sum(t is not None for t in _compared(frames))
    return (frames - thinned) * tokens + thinned * _kept_of_each(frames, tokens, keep)


@over_clip("DyCoke, arXiv 2411.15024", exact=False, count=_count)
def dycoke(clip: ClipTokens, keep: int, *, generator: torch.Generator | None = None) -> KeepPlan:
    """In windows of four frames the first stays whole, the others keep what changed most at its place.

    A frame's tokens are compared by cosine with those at the same places of an earlier frame, unpruned: the second of
    a window with the first, the fourth with the third, the third with the first; the third of the last window stays
    whole, as in the authors' program. Each of the thinned frames keeps the same number of least similar tokens, in
    their places (the program puts the most changed first), ties to the earlier. `generator` is not used.

    The program keeps the share 0.3 of the thinned frames, 49.4 % of 32 frames of 196 tokens; here their share follows
    from `keep`. It cannot keep less than the whole frames, a quarter of the clip and one more: then they stay, and
    nothing else, whatever `keep` is. Where the number of frames is odd the last one stays whole (the program, made
    for even numbers above four, loses it).
    """
    compared = _compared(clip.frames)
    each = _kept_of_each(clip.frames, clip.per_frame, keep)
    u = unit(clip.x)
    changed = torch.stack([_change(u, t, earlier) for t, earlier in enumerate(compared)])  # (T, n)
    counts = [clip.per_frame if earlier is None else each for earlier in compared]
    return plan_of_kept(top_mask(changed, torch.tensor(counts, device=u.device)))


def _change(u: Tensor, frame: int, earlier: int | None) -> Tensor:
    """How little each token of a frame is like that of an earlier one at its place, (n,); 0 where there is none."""
    return u.new_zeros(u.shape[1]) if earlier is None else -(u[frame] * u[earlier]).sum(dim=-1)
