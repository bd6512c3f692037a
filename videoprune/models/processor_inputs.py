"""Prompts of trained stock models, made by the processor that was saved with them.

A processor fills the clip's placeholder of a prompt with as many tokens as its pixels need, times between them. That
is done once for a clip; prompts of other questions get the same tokens at the same place, and no pixels are prepared
again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AutoProcessor
from transformers.video_utils import VideoMetadata

from videoprune.models.inputs import TEXT, Clip, joined_tensors, left_padded
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

    def __call__(self, clips: Sequence[Clip], texts: Sequence[str]) -> dict[str, Tensor]:
        """Prompts about clips that `clip` prepared."""
        rows, types = [], []
        for clip, text in zip(clips, texts, strict=True):
            plain, end = self.plain_ids(text), clip.at + len(clip.instead_of)
            assert tuple(plain[clip.at : end]) == clip.instead_of, (
                "the prompt begins otherwise with this text"
            )
            rows.append([*plain[: clip.at], *clip.ids, *plain[end:]])
            types.append([*[0] * clip.at, *(clip.types or ()), *[0] * (len(plain) - end)])
        ids, mask = left_padded(rows, self.processor.tokenizer.pad_token_id)
        batch = {"input_ids": ids, "attention_mask": mask} | joined_tensors(clips)
        if clips[0].types is not None:
            batch["mm_token_type_ids"] = left_padded(types, 0)[0].int()
        return batch

    def clip(self, frames: VideoFrames) -> Clip:
        """Everything of the clip that the processor makes, by one prompt without a question."""
        pixels = frames.pixels.permute(0, 3, 1, 2)
        return self._made(pixels, video_metadata(frames.pts_seconds, frames.duration_seconds))

    def layout(self, pts_seconds: Sequence[float], like: Clip) -> Clip:
        """What prompts say of a clip of frames at these times, as large as those of `like`: `clip` without pixels.
        Black frames go through the processor: it alone knows."""
        grid = like.tensors.get("video_grid_thw")
        if grid is None:  # it resizes to one size
            pixels = torch.zeros(len(pts_seconds), 3, 32, 32, dtype=torch.uint8)
            return self._made(pixels, video_metadata(pts_seconds)).without_pixels()
        # A longer clip might be resized to smaller frames.
        height, width = (int(n) * self.processor.video_processor.patch_size for n in grid[0, 1:])
        pixels = torch.zeros(len(pts_seconds), 3, height, width, dtype=torch.uint8)
        return self._made(pixels, video_metadata(pts_seconds), do_resize=False).without_pixels()

    def _made(self, pixels: Tensor, metadata: VideoMetadata, **settings: bool) -> Clip:
        """pixels: uint8 (T, 3, H, W)."""
        made = self.processor(
            text=[self._prompt("")],
            videos=[pixels],
            video_metadata=[metadata],
            do_sample_frames=False,
            return_tensors="pt",
            **settings,
        )
        tensors = {k: v for k, v in made.items() if isinstance(v, Tensor)}
        types = tensors["mm_token_type_ids"][0].tolist() if "mm_token_type_ids" in tensors else None
        filled, plain = tensors["input_ids"][0].tolist(), self.plain_ids("")
        at, behind = _common(plain, filled, types)
        stop = len(filled) - behind
        return Clip(
            {k: v for k, v in tensors.items() if k not in TEXT},
            filled[at:stop],
            None if types is None else types[at:stop],
            at,
            tuple(plain[at : len(plain) - behind]),
        )

    def decode(self, ids: Tensor) -> list[str]:
        """New ids (B, n) as text."""
        found: list[str] = self.processor.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return found

    def plain_ids(self, text: str) -> list[int]:
        """A prompt in which the clip's placeholder is not filled in."""
        found: list[int] = self.processor.tokenizer(self._prompt(text))["input_ids"]
        return found

    def _prompt(self, text: str) -> str:
        message = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": text}]}]
        found: str = self.processor.apply_chat_template(message, add_generation_prompt=True)
        return found


def _common(plain: Sequence[int], filled: Sequence[int], types: Sequence[int] | None) -> tuple[int, int]:
    """Ids that two prompts have in common, at their beginning and at their end, one at least of `plain` between.

    types: of `filled`; all that are not text (0) stay between. A placeholder that stands in both may count to either
    side. It goes to the end: what is left between must not reach behind it, where the question begins.
    """
    shorter = min(len(plain), len(filled))
    same, tail = (_equal(a, b) for a, b in ((plain, filled), (plain[::-1], filled[::-1])))
    if types is not None:
        same, tail = (min(n, _equal(t, [0] * len(t))) for n, t in ((same, types), (tail, types[::-1])))
    at = max(0, min(same, shorter - tail - 1))
    return at, min(tail, shorter - at - 1)


def _equal(a: Sequence[int], b: Sequence[int]) -> int:
    """How many numbers at the beginning of both are the same."""
    n = min(len(a), len(b))
    return int((torch.tensor(a[:n]) == torch.tensor(b[:n])).int().cumprod(0).sum())


def video_metadata(
    pts_seconds: Sequence[float], duration: float | None = None, *, rate: float = 1000.0
) -> VideoMetadata:
    """Times of the frames as the processors want them: indices at a rate that gives back the seconds. duration: of the
    video, seconds; None: to the last frame. rate: a second's indices."""
    duration = pts_seconds[-1] if duration is None else duration
    return VideoMetadata(
        total_num_frames=max(1, round(duration * rate)),
        fps=rate,
        duration=duration,
        frames_indices=[round(t * rate) for t in pts_seconds],
    )
