"""EarlyTom (arXiv 2605.30010): whole frames merge inside the encoder, then tokens are selected in space.

Known from the paper: the clip is cut in segments by a streaming similarity; a segment's first and last frame
stay, adjacent frames between them merge where their similarity is a local maximum; afterwards the frames that
bound segments (dynamic) keep their most attended tokens over the whole frame, those between (static) the most
attended token of each local window, because attention alone falls for sinks. From the authors' program: the
running mean, its defaults and the longest segment. Inferred here: the greedy order that makes the number of
frames exact (the program merges above a threshold, at three blocks, and takes what comes), plain size-weighted
means instead of weights from similarities, and the attention of a merged frame as the mean of its frames'.

Shapes: T frames, F merged frames, n tokens of a frame, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from videoprune.prune.merge import apply_plan
from videoprune.prune.rivals.choose import even_counts, top_mask
from videoprune.prune.rivals.tokens import ClipTokens, given, over_clip, plan_of
from videoprune.prune.similarity import unit
from videoprune.types import KeepPlan


def earlytom_frames(
    x: Tensor, keep_frames: int, *, tau: float = 0.6, ema: float = 0.9, max_length: int = 8
) -> KeepPlan:
    """Which adjacent whole frames merge, so that `keep_frames` stay: a plan over the T frames, (1, T).

    x: (T, n, D), at an early block. tau, ema, max_length: of `frame_segments`. The similarity of two frames is
    the mean over places of the cosine. Again and again the most similar adjacent pair merges, of equals the
    earlier: first among the frames between a segment's ends, then within segments, then any. A merged
    frame is compared by its mean and stands at its first frame's place.
    Raises ValueError if `keep_frames` is not in 1..T, ema not in 0..1 (0 excluded) or max_length below 1.
    """
    if not 1 <= keep_frames <= x.shape[0]:
        raise ValueError(f"keep_frames={keep_frames}; allowed: 1..{x.shape[0]}, the number of frames")
    with torch.no_grad():
        segment, inner = _roles(frame_segments(x, tau=tau, ema=ema, max_length=max_length))
        return _merge_frames(x, keep_frames, segment, inner)


def frame_segments(x: Tensor, *, tau: float, ema: float, max_length: int) -> list[tuple[int, int]]:
    """Segments (first, last), found in one pass: x (T, n, D).

    s, from 1 at a segment's start, becomes ema * (similarity to the segment's first frame) + (1 - ema) * s with
    each frame. A frame with s below `tau`, or the one that would make `max_length` frames, starts a new segment.
    """
    if not 0 < ema <= 1:
        raise ValueError(f"ema={ema}; allowed: above 0 and at most 1")
    if max_length < 1:
        raise ValueError(f"max_length={max_length}; allowed: 1 or more frames")
    u = unit(x)
    starts, running = [0], 1.0
    for t in range(1, x.shape[0]):
        alike = float((u[starts[-1]] * u[t]).sum(dim=1).mean())
        running = ema * alike + (1 - ema) * running
        if running < tau or t - starts[-1] + 1 > max_length:
            starts.append(t)
            running = 1.0
    return list(zip(starts, [*(s - 1 for s in starts[1:]), x.shape[0] - 1], strict=True))


@over_clip("EarlyTom, arXiv 2605.30010 (a variant: frames merge at the encoder's end)", needs=("attention",))
def earlytom(
    clip: ClipTokens,
    keep: int,
    *,
    frame_share: float = 0.5,
    tau: float = 0.6,
    ema: float = 0.9,
    max_length: int = 8,
    generator: torch.Generator | None = None,
) -> KeepPlan:
    """EarlyTom at the encoder's end, a variant: `earlytom_frames`, then a selection in each merged frame.

    F = round(frame_share * T) frames stay, at least one, more if `keep` needs them; each has an even share of
    `keep`. A frame between a segment's ends that merged with no end keeps the most attended token of each of its
    equal windows, row by row; every other its most attended tokens. A token merges with the same place of
    the frames that merged; what is not selected is dropped. `generator` is not used.
    The method itself merges frames at early blocks, to save the encoder's work: use `earlytom_frames` there.
    Raises ValueError if `frame_share` is not in 0..1 (0 excluded), or as `earlytom_frames` does.
    """
    if not 0 < frame_share <= 1:
        raise ValueError(f"frame_share={frame_share}; allowed: above 0 and at most 1")
    wanted = max(-(-keep // clip.per_frame), round(frame_share * clip.frames), 1)
    segment, inner = _roles(frame_segments(clip.x, tau=tau, ema=ema, max_length=max_length))
    frames = _merge_frames(clip.x, wanted, segment, inner)
    into = frames.into[0]  # (T,)
    attention = apply_plan(given(clip.attention)[None], frames)[0]  # (F, n)
    ends = torch.tensor([not i for i in inner], device=into.device)
    dynamic = torch.zeros(wanted, dtype=torch.bool, device=into.device).index_put(
        (into[ends],), torch.tensor(True, device=into.device)
    )
    counts = torch.tensor(even_counts(keep, wanted), device=into.device)
    best = top_mask(attention, counts)
    kept = best.where(dynamic[:, None], _top_of_windows(attention, counts))  # (F, n)
    own = torch.arange(clip.per_frame, device=into.device)
    place = frames.keep[0][:, None] * clip.per_frame + own  # (F, n): where a survivor stands in the clip
    return plan_of(place.where(kept, -1)[into])


def _roles(parts: list[tuple[int, int]]) -> tuple[list[int], list[bool]]:
    """Of each frame: its segment, and whether it lies between the segment's ends."""
    segment = [s for s, (start, end) in enumerate(parts) for _ in range(start, end + 1)]
    inner = [start < t < end for start, end in parts for t in range(start, end + 1)]
    return segment, inner


def _merge_frames(x: Tensor, keep_frames: int, segment: list[int], inner: list[bool]) -> KeepPlan:
    """Merge adjacent groups of frames, one pair at a time, until `keep_frames` are left."""
    groups = [[t] for t in range(x.shape[0])]
    mean = list(x.to(torch.promote_types(x.dtype, torch.float32)))  # of each group, (n, D)

    def alike(a: int) -> float:
        return float((unit(mean[a]) * unit(mean[a + 1])).sum(dim=1).mean())

    def tier(a: int) -> int:
        first, last = groups[a][0], groups[a + 1][-1]
        if segment[first] != segment[last]:
            return 0
        return 2 if all(inner[t] for t in range(first, last + 1)) else 1

    near = [alike(a) for a in range(len(groups) - 1)]
    while len(groups) > keep_frames:
        a = max(range(len(near)), key=lambda a: (tier(a), near[a], -a))
        left, right = len(groups[a]), len(groups[a + 1])
        mean[a] = (left * mean[a] + right * mean.pop(a + 1)) / (left + right)
        groups[a] += groups.pop(a + 1)
        near.pop(a)
        for b in (a - 1, a):
            if 0 <= b < len(near):
                near[b] = alike(b)
    target = [group[0] for group in groups for _ in group]
    return plan_of(torch.tensor([target], device=x.device))


def _top_of_windows(attention: Tensor, counts: Tensor) -> Tensor:
    """True at the most attended token of each of a frame's counts[f] equal windows: (F, n) -> bool (F, n)."""
    tokens = attention.shape[1]
    place = torch.arange(tokens, device=attention.device)
    window = place * counts[:, None] // tokens  # (F, n), 0..count - 1
    order = attention.argsort(dim=1, descending=True, stable=True)
    by_window = order.gather(1, window.gather(1, order).argsort(dim=1, stable=True))
    sorted_window = window.gather(1, by_window)
    first = torch.ones_like(sorted_window, dtype=torch.bool)
    first[:, 1:] = sorted_window[:, 1:] != sorted_window[:, :-1]
    first &= counts[:, None] > 0
    return torch.zeros_like(first).scatter(1, by_window, first)
