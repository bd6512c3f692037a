"""EarlyTom (arXiv 2605.30010): whole frames merge inside the encoder, then tokens are selected in space.

As in the authors' program, at the settings of its published example (Video-MME, a fifth): behind blocks 8, 21 and 23
of SigLIP's 26 the clip is cut in segments of at most five frames by a running similarity; a segment's ends stay, and
frames between them merge in pairs. Behind the encoder the frames that bound a segment (dynamic) keep their most
attended tokens, those between (static) the most attended token of each of their windows. Its LLM part, half of the
tokens gone before layer 18 of 28, is the preset's.

Shapes: T frames, n tokens of a frame, p patches of a frame, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from videoprune.prune.rivals.tokens import ClipTokens, FrameMerging, given, over_clip, plan_of, plan_of_kept
from videoprune.prune.select import top_mask
from videoprune.prune.similarity import unit
from videoprune.types import KeepPlan

_DEPTHS = (9 / 26, 22 / 26, 24 / 26)  # shares of the blocks that are done before frames merge


@dataclass(frozen=True)
class PairsOfFrames(FrameMerging):
    """Adjacent frames within a segment merge in pairs.

    The similarity of two frames is the mean over places of the cosine. s, from 1 at a segment's start, becomes
    ema * (similarity to the segment's first frame) + (1 - ema) * s with each frame; a frame with s below `tau`, or the
    one that would be number `max_length`, starts a new segment. Of the frames between a segment's ends, in order: one
    merges with the next if they are more alike than the segment's ends are, and more than the next is like the one
    after it; the first's weight is its similarity over the sum of both (1 at the last pair, where the second is only
    dropped), the second's the rest. A last frame that merged with none is dropped, as in the program, unless it is the
    only one. A merged frame stands at its first frame's place.
    """

    depths: tuple[float, ...] = _DEPTHS
    tau: float = 0.5
    ema: float = 0.9
    max_length: int = 6

    def __post_init__(self) -> None:
        if not 0 < self.ema <= 1:
            raise ValueError(f"ema={self.ema}; allowed: above 0 and at most 1")
        if self.max_length < 2:
            raise ValueError(f"max_length={self.max_length}; allowed: 2 or more frames")

    def blocks(self, num_blocks: int) -> tuple[int, ...]:
        return tuple(sorted({max(1, round(depth * num_blocks)) - 1 for depth in self.depths}))

    def plan(self, x: Tensor) -> KeepPlan:
        """x: (T, p, D)."""
        alike, target = self._alike(x), list(range(len(x)))
        weight = [1.0] * len(x)
        for first, last in self._segments(alike):
            near = alike[0][first + 2 : last]
            if near:
                _pair(target, weight, near, first + 1, alike[last - first - 1][last])
        weights = torch.tensor([weight], dtype=torch.float32, device=x.device)
        return plan_of(torch.tensor([target], device=x.device), weights)

    def segments(self, x: Tensor) -> tuple[int, ...]:
        parts = self._segments(self._alike(x))
        return tuple(s for s, (first, last) in enumerate(parts) for _ in range(first, last + 1))

    def left(self, frames: int) -> int:
        """Of equal frames no pair is more alike than the ends, so segments of more than three lose one."""
        whole, rest = divmod(frames, self.max_length - 1)
        return whole * _left_of_still(self.max_length - 1) + _left_of_still(rest)

    def _alike(self, x: Tensor) -> list[list[float]]:
        """Similarities of the frames of x (T, p, D): at [i][t] of frame t and the one i + 1 before it, which is as far
        back as a segment goes; 1 where there is none. All at once: a GPU is waited for once."""
        u = unit(x)
        found = u.new_ones(self.max_length - 1, len(u))
        for back in range(1, min(self.max_length, len(u))):
            found[back - 1, back:] = (u[back:] * u[:-back]).sum(dim=-1).mean(dim=-1)
        rows: list[list[float]] = found.tolist()
        return rows

    def _segments(self, alike: list[list[float]]) -> list[tuple[int, int]]:
        """(first, last) of each segment."""
        starts, running, frames = [0], 1.0, len(alike[0])
        for t in range(1, frames):
            running = self.ema * alike[t - starts[-1] - 1][t] + (1 - self.ema) * running
            if running < self.tau or t - starts[-1] + 1 >= self.max_length:
                starts.append(t)
                running = 1.0
        return list(zip(starts, [*(s - 1 for s in starts[1:]), frames - 1], strict=True))


def _pair(target: list[int], weight: list[float], near: list[float], first: int, threshold: float) -> None:
    """Set target and weight of the frames from `first` on; near[i]: similarity of the i-th and the next of them."""
    i = 0
    while i < len(near):
        after = near[i + 1] if i + 1 < len(near) else None
        if near[i] > threshold and (after is None or near[i] > after):
            mine = near[i] / (near[i] + after) if after else 1.0
            target[first + i + 1] = first + i
            weight[first + i : first + i + 2] = mine, 1 - mine
            i += 1
        i += 1
    if i == len(near):
        target[first + i] = -1


def _left_of_still(frames: int) -> int:
    """What `PairsOfFrames.plan` leaves of a segment of equal frames: the last one between its ends is dropped."""
    return frames - (frames > 3)


@over_clip("EarlyTom, arXiv 2605.30010", needs=("attention",), exact=False, merging=PairsOfFrames())
def earlytom(clip: ClipTokens, keep: int, *, generator: torch.Generator | None = None) -> KeepPlan:
    """The selection in space, in the frames that `PairsOfFrames` left inside the encoder.

    Each frame has the same share of `keep`. The ends of a segment, and all frames of one of two or less, keep their
    most attended tokens, the share rounded up; those between the ends keep the most attended token of each of as many
    equal windows of the row as the share, rounded to the nearest, at least one. Nothing merges here. Attention is that
    of the last block behind which frames merged. Without `clip.segments` they are found on clip.x. `generator` is not
    used.
    """
    segment, attention = clip.segments or PairsOfFrames().segments(clip.x), given(clip.attention)
    inner = [s in segment[:t] and s in segment[t + 1 :] for t, s in enumerate(segment)]
    most = torch.full((clip.frames,), -(-keep // clip.frames), device=attention.device)
    static = torch.tensor(inner, device=attention.device)[:, None]  # (T, 1)
    windows = _top_of_windows(attention, max(1, round(keep / clip.frames)))
    return plan_of_kept(windows.where(static, top_mask(attention, most)))


def _top_of_windows(attention: Tensor, windows: int) -> Tensor:
    """True at the most attended token of each of a frame's equal windows, the first ones longer: bool (T, n)."""
    size, more = divmod(attention.shape[1], windows)
    kept = torch.zeros_like(attention, dtype=torch.bool)
    for first, each, count in ((0, size + 1, more), (more * (size + 1), size, windows - more)):
        if count:
            part = attention[:, first : first + each * count].unflatten(1, (count, each))
            best = part.argmax(dim=2) + first + each * torch.arange(count, device=attention.device)
            kept.scatter_(1, best, True)
    return kept
