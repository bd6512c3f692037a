"""Prompts of trained stock models, made by the processor that was saved with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from transformers import AutoProcessor
from transformers.video_utils import VideoMetadata

from videoprune.types import VideoFrames


class ProcessorInputs:
    """Chat prompts [clip, question] of a batch, padded on the left, as the model's own processor writes them.

    Raises ImportError that names the extra `stock` where the processor cannot be built.
    """

    def __init__(self, model: str) -> None:
        try:
            self.processor: Any = AutoProcessor.from_pretrained(model)
        except ImportError as error:
            raise ImportError(
                f"{model}: its processor needs pillow and torchvision: pip install 'videoprune[stock]'"
            ) from error
        self.processor.tokenizer.padding_side = "left"

    def __call__(self, clips: Sequence[VideoFrames], texts: Sequence[str]) -> dict[str, Tensor]:
        content = [{"type": "video"}, {"type": "text", "text": ""}]
        prompts = []
        for text in texts:
            content[1]["text"] = text
            message = [{"role": "user", "content": content}]
            prompts.append(self.processor.apply_chat_template(message, add_generation_prompt=True))
        inputs = self.processor(
            text=prompts,
            videos=[c.pixels.permute(0, 3, 1, 2) for c in clips],
            video_metadata=[_metadata(c) for c in clips],
            do_sample_frames=False,
            return_tensors="pt",
            padding=True,
        )
        return {k: v for k, v in inputs.items() if isinstance(v, Tensor)}

    def decode(self, ids: Tensor) -> list[str]:
        """New ids (B, n) as text."""
        return self.processor.tokenizer.batch_decode(ids, skip_special_tokens=True)


def _metadata(frames: VideoFrames) -> VideoMetadata:
    """Times of the frames as the processors want them: indices at a rate that gives back the seconds."""
    rate = 1000.0
    return VideoMetadata(
        total_num_frames=max(1, round(frames.duration_seconds * rate)),
        fps=rate,
        duration=frames.duration_seconds,
        frames_indices=[round(t * rate) for t in frames.pts_seconds],
    )
