"""What Qwen2.5-VL and Qwen3-VL share inside vLLM: clips are packed patches with a grid, and blocks are called alike.

Shapes: N patches of a clip.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from pipelines.vllm.model import PrunedVideos
from pipelines.vllm.placeholders import CountedVideos
from videoprune.plug.encoder_pass import EncoderPass


class CountedQwenVL(CountedVideos):
    def frames_of(self, clip: Any) -> int:
        return int(clip["video_grid_thw"].data[0])


class PrunedQwenVL(PrunedVideos):
    visual: Any

    def get_encoder_cudagraph_config(self) -> Any:
        """None: graphs of the encoder would not be pruned, and images need them least."""
        found = super().get_encoder_cudagraph_config()  # type: ignore[misc]
        found.modalities = []
        return found

    def each_clip(self, video_input: Any) -> list[tuple[Tensor, list[int]]]:
        """Pixels (N, inputs of a patch) and grid of each clip of a call. One clip a pass, so that what stays of a clip
        does not depend on who else asks."""
        grids = video_input["video_grid_thw"].tolist()
        pixels = video_input["pixel_values_videos"].split([t * h * w for t, h, w in grids])
        return list(zip(pixels, grids, strict=True))

    def through_blocks(
        self,
        run: EncoderPass,
        x: Tensor,
        known: dict[str, Any],
        *,
        lengths: str = "",
        seen: Callable[[int, Tensor], None] = lambda index, x: None,
    ) -> Tensor:
        """x (N, D) through the encoder's blocks, with the pass between them.

        known: vLLM's metadata of the clip, in which what is about the lengths of frames ends in `lengths`. seen: called
        with what each block gives.
        """
        rope: Sequence[Tensor] = [known["rotary_pos_emb_cos"], known["rotary_pos_emb_sin"]]
        for index, block in enumerate(self.visual.blocks):
            x = block(
                x[:, None],
                cu_seqlens=known["cu_seqlens"],
                rotary_pos_emb_cos=rope[0],
                rotary_pos_emb_sin=rope[1],
                max_seqlen=known[f"max_seqlen{lengths}"],
                sequence_lengths=known.get(f"sequence_lengths{lengths}"),
            )[:, 0]
            seen(index, x)
            x, rope = run.after(index, x, rope)
        return x
