"""Prompts for vLLM's own pruning of Qwen3-VL, without the pair of tokens around a clip.

Within a clip each frame has such a pair of its own. vLLM 0.32 works positions out from the first `vision_start`, as if
the clip's first timestamp stood before it: with transformers from 5.10 on it stands behind that of the whole clip, and
vLLM fails, or shifts the clip. Without the outer pair it is right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from videoprune.types import VideoFrames

Make = Callable[[VideoFrames, str], dict[str, Any]]
LEFT_OUT = "left_out"  # key of an answer of the worker: tokens of a prompt


class BareClips:
    """make: prompts with the pair, or without: then nothing changes. config: of the model."""

    def __init__(self, make: Make, config: Any) -> None:
        self.make = make
        self.pair = (config.vision_start_token_id, config.video_token_id, config.vision_end_token_id)

    def __call__(self, frames: VideoFrames, text: str) -> dict[str, Any]:
        made = self.make(frames, text)
        return made | {"prompt_token_ids": self.bare(made["prompt_token_ids"])}

    def bare(self, ids: list[int]) -> list[int]:
        """The prompt without the tokens on both sides of the clip's placeholder."""
        at = ids.index(self.pair[1])
        if at == 0 or tuple(ids[at - 1 : at + 2]) != self.pair:
            return ids
        return [*ids[: at - 1], self.pair[1], *ids[at + 2 :]]
