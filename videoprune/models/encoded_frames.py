"""What several encoders make of the frames of a clip, and stage 2 over all of them.

Shapes: B clips, T frames of a clip, F frames of all clips, K tokens kept of a frame, N tokens of a clip, D width of an
encoder, W width of the LLM.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from videoprune.config import PruneConfig
from videoprune.prune.fusion import fuse_plan
from videoprune.prune.merge import apply_sized, gather
from videoprune.prune.registry import OVER_CLIP, ClipTokens
from videoprune.resizing import resized
from videoprune.types import KeepPlan, VideoFrames, VisualTokens


@dataclass(frozen=True)
class EncodedFrames:
    """One encoder's tokens of all frames: x (F, K, D), size (F, K), and the plan (F, dense) from the dense patches."""

    name: str
    grid: tuple[int, int]
    x: Tensor
    size: Tensor
    plan: KeepPlan

    def places(self) -> Tensor:
        """Row and column of each token, (F, K, 2)."""
        kept, columns = self.plan.keep, self.grid[1]
        return torch.stack([torch.div(kept, columns, rounding_mode="floor"), kept % columns], -1)

    def coordinates(self, when: Tensor) -> Tensor:
        """Time, row and column of each token in [0, 1], (F, K, 3). when: (F,), relative times of the frames."""
        middle = (self.places() + 0.5) / torch.tensor(self.grid, device=when.device)
        return torch.cat([when[:, None, None].expand(*middle.shape[:2], 1), middle], -1)


def fuse_clips_of(
    clips: Sequence[VideoFrames],
    encoded: Sequence[EncodedFrames],
    projected: Sequence[Tensor],
    config: PruneConfig,
    generator: torch.Generator,
) -> VisualTokens:
    """Stage 2: lay the projected tokens (F, K, W) of all encoders out frame by frame, prune encoders against each
    other, pad the rows."""
    lengths = [len(c) for c in clips]
    z = torch.cat(list(projected), 1)
    size = torch.cat([e.size for e in encoded], 1)
    place = torch.cat([e.places() for e in encoded], 1)  # (F, K, 2)
    owner = torch.cat([torch.full((e.x.shape[1],), i) for i, e in enumerate(encoded)]).to(z.device)
    rows = [
        _fuse_clip(one, owner, config, generator)
        for one in zip(z.split(lengths), size.split(lengths), place.split(lengths), strict=True)
    ]
    names, grids = tuple(e.name for e in encoded), tuple(e.grid for e in encoded)
    return _padded(clips, rows, names, grids)


_Row = tuple[Tensor, Tensor, Tensor, Tensor]  # x (N, W), size (N,), origin (N, 3), encoder (N,)


def _padded(
    clips: Sequence[VideoFrames],
    rows: Sequence[_Row],
    names: tuple[str, ...],
    grids: tuple[tuple[int, int], ...],
) -> VisualTokens:
    padded = [nn.utils.rnn.pad_sequence(list(part), batch_first=True) for part in zip(*rows, strict=True)]
    counts = torch.tensor([r[0].shape[0] for r in rows], device=padded[0].device)
    mask = torch.arange(padded[0].shape[1], device=padded[0].device) < counts[:, None]
    times = [torch.tensor(c.pts_seconds, dtype=torch.float64) for c in clips]
    pts = nn.utils.rnn.pad_sequence(times, batch_first=True, padding_value=math.nan)
    return VisualTokens(padded[0], padded[1], padded[2], padded[3], names, grids, pts, mask)


def _fuse_clip(
    parts: tuple[Tensor, Tensor, Tensor], owner: Tensor, config: PruneConfig, generator: torch.Generator
) -> _Row:
    """One clip's tokens (T, K, W), sizes (T, K) and places (T, K, 2), by encoder owner (K,) -> the fused ones."""
    z, size, place = parts
    frames, kept = z.shape[:2]
    frame = torch.arange(frames, device=z.device).repeat_interleave(kept)  # (T * K,)
    row: _Row = (
        z.flatten(0, 1),
        size.flatten(),
        torch.cat([frame[:, None], place.flatten(0, 1)], 1),
        owner.repeat(frames),
    )
    method = OVER_CLIP.get(config.encoder.method)
    if method is not None:
        count = max(1, round(config.encoder.keep * frames * kept))
        plan = method(ClipTokens(z), count, generator=generator)
        (x,), total = apply_sized([row[0][None]], plan, row[1][None])
        row = (x[0], total[0], gather(row[2][None], plan)[0], gather(row[3][None], plan)[0])
        frame = frame[plan.keep[0]]
    fusion, arrived = config.fusion, len(row[0])
    keep = arrived if fusion.method == "none" else max(1, round(fusion.keep * arrived))
    if keep == arrived:
        return row
    plan = fuse_plan(
        row[0][None],
        row[3],
        keep,
        method=fusion.method,
        redundancy=fusion.redundancy,
        group=frame if fusion.scope == "frame" else None,
        generator=generator,
    )
    x, s, o, e = (gather(p[None], plan)[0] for p in row)
    return x, s, o, e


def clip_of(tokens: VisualTokens, row: int) -> VisualTokens:
    """One clip of a batch, without padding."""
    n, frames = int(tokens.mask[row].sum()), tokens.num_frames(row)
    return VisualTokens(
        x=tokens.x[row : row + 1, :n],
        size=tokens.size[row : row + 1, :n],
        origin=tokens.origin[row : row + 1, :n],
        encoder=tokens.encoder[row : row + 1, :n],
        encoder_names=tokens.encoder_names,
        grids=tokens.grids,
        pts_seconds=tokens.pts_seconds[row : row + 1, :frames],
        mask=tokens.mask[row : row + 1, :n],
    )


def batch_of(clips: Sequence[VisualTokens]) -> VisualTokens:
    """Clips of one row each as a batch, rows padded at the end."""
    if len(clips) == 1:
        return clips[0]

    def padded(name: str, value: float = 0) -> Tensor:
        rows = [getattr(c, name)[0] for c in clips]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)

    return VisualTokens(
        x=padded("x"),
        size=padded("size"),
        origin=padded("origin"),
        encoder=padded("encoder"),
        encoder_names=clips[0].encoder_names,
        grids=clips[0].grids,
        pts_seconds=padded("pts_seconds", math.nan),
        mask=padded("mask"),
    )


def stack_frames(clips: Sequence[VideoFrames], size: int) -> Tensor:
    """All frames of all clips, uint8 (F, H, W, 3); clips of other shapes are resized to size x size."""
    if len({tuple(c.pixels.shape[1:]) for c in clips}) == 1:
        return torch.cat([c.pixels for c in clips])
    return torch.cat([resized(c.pixels, (size, size)) for c in clips])


def relative_times(pts: Sequence[float]) -> Tensor:
    """Times as shares of the clip's sampled span, (T,): 0 is the first frame, 1 the last."""
    t = torch.tensor(pts, dtype=torch.float64)
    span = float(t[-1] - t[0])
    return ((t - t[0]) / span if span > 0 else torch.zeros_like(t)).float()
