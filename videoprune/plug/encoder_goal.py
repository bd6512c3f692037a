"""What one pass of a vision encoder starts from: where frames and units lie, and what it has to reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from videoprune.config import EncoderPrune, FusionPrune


@dataclass(frozen=True)
class Layout:
    """Where frames and units lie in one call of an encoder.

    lengths: packed tokens of each frame, prefix included. unit: patches of a unit. windows: packed tokens of each
    attention window, for the blocks that attend in windows (Qwen2.5-VL). clips: frames of each clip, None: not known.
    grids: rows and columns of each frame's units. order: (all units,) the place, row by
    row, that each unit comes from; None: its own.
    """

    lengths: Sequence[int]
    unit: int = 1
    prefix: int = 0
    windows: Sequence[int] | None = None
    clips: Sequence[int] | None = None
    grids: Sequence[tuple[int, int]] | None = None
    order: Tensor | None = None

    @property
    def grid(self) -> tuple[int, int] | None:
        """Rows and columns of the first frame's units."""
        return self.grids[0] if self.grids else None


@dataclass(frozen=True)
class EncoderGoal:
    """What an encoder has to reach. blocks: how many the LLM's features come through. config, keep: of stage 1.
    fusion: what leaves is pruned once more, over the clip. cuts: units of a frame after each of METEOR's cuts, where
    several encoders share a budget; None: as `keep` wants. seed: of controls."""

    blocks: int
    config: EncoderPrune
    keep: float = 1.0
    fusion: FusionPrune = field(default_factory=FusionPrune)
    cuts: tuple[int, ...] | None = None
    seed: int = 0
