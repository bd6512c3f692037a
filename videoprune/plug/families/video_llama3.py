"""VideoLLaMA3: packed frames of any size, averaged over merge_size x merge_size patches behind the encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from videoprune.plug.encoder_pass import VisionRun
from videoprune.plug.families.base import NAN, Hook, Packed


class VideoLlama3(Packed):
    model_types = ("video_llama_3",)

    @property
    def vision(self) -> nn.Module:
        return self.core.vision_model

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return list(self.core.vision_model.encoder.layers)

    def new_run(
        self, start: Callable[..., VisionRun], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> VisionRun:
        sides = set(kwargs["merge_sizes"].tolist())
        if len(sides) > 1:
            raise ValueError(f"merge_sizes={sorted(sides)}; allowed in one call with pruning: one value")
        grid, side = kwargs["grid_thw"], sides.pop()
        return start(
            self.frame_lengths(grid),
            unit=side**2,
            clips=grid[:, 0].tolist(),
            grid=self.grid(grid, side),
        )

    def hooks(self, run: Callable[[], VisionRun | None]) -> list[Hook]:
        """The averaging sees zeros at dropped patches, and never mixes units; the projected rows carry the mark."""

        def fill(module: nn.Module, args: Any, kwargs: Any, out: Any) -> Any:
            current = run()
            if current is None:
                return None
            x, _ = current.after(current.last_block, out.last_hidden_state)
            units = x.unflatten(0, (-1, current.unit))
            out.last_hidden_state = current.expand(units, fill=0.0, end=True).flatten(0, 1)
            return out

        def mark(module: nn.Module, args: Any, kwargs: Any, out: Any) -> Any:
            current = run()
            if current is None:
                return None
            return out.masked_fill(~current.left(out.device)[:, None], NAN)

        return [(self.core.vision_model.encoder, "post", fill), (self.core.projector, "post", mark)]
