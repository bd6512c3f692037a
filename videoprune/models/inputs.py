"""What a processor would hand to a stock model, made with torch alone: for the demo models and for random weights.

Trained models from elsewhere keep their own processors (`processor_inputs`): their prompts and their resizing are part
of what they learned. Frames are resized with antialiased bilinear interpolation and normalised as the family does it.

Shapes: T frames, H x W pixels, S tokens of the prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from videoprune.neighbours import neighbours
from videoprune.plug.llm_door import visual_places
from videoprune.plug.settings import own_settings
from videoprune.types import VideoFrames

_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_SHOWN = 8  # ids of an answer that means nothing
_BEFORE = 14  # tokens of a chat header, where there is no tokenizer


TEXT = ("input_ids", "attention_mask", "mm_token_type_ids")
PIXELS = ("pixel_values_videos", "pixel_values", "pixel_attention_mask")


@dataclass(frozen=True)
class Clip:
    """One clip, ready for the model: its tensors, and the ids of its part of a prompt.

    types: `mm_token_type_ids` of those ids, where the model wants them. at, instead_of: where in the prompt that is not
    filled in yet, and instead of which ids, they come; used by processors alone.
    """

    tensors: dict[str, Tensor]
    ids: list[int]
    types: list[int] | None = None
    at: int = 0
    instead_of: tuple[int, ...] = ()

    @property
    def frames(self) -> int:
        """Frames of the encoder, before pixels are gone."""
        grids = [grid for name, grid in self.tensors.items() if name.endswith("grid_thw")]
        if grids:
            return sum(int(grid[:, 0].sum()) for grid in grids)
        # (F, 3, H, W) or (1, F, 3, H, W)
        pixels = next(self.tensors[name] for name in PIXELS if name in self.tensors)
        return pixels.shape[:-3].numel()

    def fits(self, other: Clip) -> bool:
        """Whether the model can take both in one call."""
        shapes, others = ({k: v.shape[1:] for k, v in c.tensors.items()} for c in (self, other))
        return shapes == others

    def without_pixels(self) -> Clip:
        """What prompts about the clip need once it is encoded."""
        return replace(self, tensors={k: v for k, v in self.tensors.items() if k not in PIXELS})


def left_padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Rows of ids at the right end of (B, S), and which places hold one: int64 both."""
    longest = max(map(len, rows))
    ids = torch.tensor([[pad] * (longest - len(r)) + list(r) for r in rows])
    lengths = torch.tensor([len(r) for r in rows])
    return ids, (torch.arange(longest) >= longest - lengths[:, None]).long()


def beginnings(inputs: dict[str, Tensor], placeholders: Sequence[int]) -> dict[str, Tensor]:
    """`TEXT` of prompts up to the last visual token of each, padded on the left. placeholders: ids of visual tokens."""
    ids = inputs["input_ids"]
    end = ids.shape[1] - visual_places(ids, placeholders).flip(1).int().argmax(1)  # (B,)
    start = inputs["attention_mask"].int().argmax(1)
    place = torch.arange(-int((end - start).max()), 0, device=ids.device) + end[:, None]  # (B, S')
    padding = place < start[:, None]
    texts = {k: v for k, v in inputs.items() if k in TEXT}
    return {k: v.gather(1, place.clamp(min=0)).masked_fill(padding, 0) for k, v in texts.items()}


def joined_tensors(clips: Sequence[Clip]) -> dict[str, Tensor]:
    """The tensors of several clips as the model takes them."""
    return {k: torch.cat([c.tensors[k] for c in clips]) for k in clips[0].tensors}


def groups_of(clips: Sequence[Clip], tokens: Sequence[int], at_once: int) -> Iterator[list[Clip]]:
    """Neighbours that fit together, up to `at_once` tokens, or one with more. tokens: of each clip."""

    def fits(group: list[tuple[Clip, int]], one: tuple[Clip, int]) -> bool:
        return sum(count for _, count in group) + one[1] <= at_once and group[0][0].fits(one[0])

    for group in neighbours(zip(clips, tokens, strict=True), fits):
        yield [clip for clip, _ in group]


class PlainInputs:
    """Prompts [clip, question] of a batch, padded on the left.

    config: of the stock model. tokenizer: None for random weights; then every word is some token, and answers are
    written as their ids. size: height and width of frames for models that take any (Qwen-VL, VideoLLaMA3).
    Raises ValueError for a size, or a number of frames, that the encoder cannot join to whole units.
    """

    def __init__(self, config: Any, tokenizer: Any = None, *, size: tuple[int, int] | None = None) -> None:
        if config.model_type not in _MAKERS:
            raise ValueError(f"model_type={config.model_type!r}; allowed: {', '.join(sorted(_MAKERS))}")
        self.config, self.tokenizer = config, tokenizer
        self.size = size or plain_size(config)
        names = ("image_token_id", "video_token_id", "vision_start_token_id")
        special = [i for n in names if isinstance(i := getattr(config, n, None), int)]
        self._spare = min(1000, *[i - 7 for i in special])  # made-up ids of words stay below the special ones

    def __call__(self, clips: Sequence[Clip], texts: Sequence[str]) -> dict[str, Tensor]:
        """Prompts about clips that `clip` prepared."""
        rows = [[*self._before(), *c.ids, *self.text_ids(t)] for c, t in zip(clips, texts, strict=True)]
        ids, mask = left_padded(rows, self.tokenizer.pad_token_id if self.tokenizer is not None else 0)
        batch = {"input_ids": ids, "attention_mask": mask} | joined_tensors(clips)
        if self.config.model_type.startswith("qwen"):
            batch["mm_token_type_ids"] = (ids == self.config.video_token_id).int() * 2
        return batch

    def clip(self, frames: VideoFrames) -> Clip:
        """Pixels as the encoder takes them, and the placeholders of the prompt."""
        mean, std = _LOOKS.get(self.config.model_type, _HALF)
        x = _resized(frames.pixels, self.size)
        x = (x - x.new_tensor(mean).view(3, 1, 1)) / x.new_tensor(std).view(3, 1, 1)
        return _MAKERS[self.config.model_type](self, x, frames.pts_seconds)

    def layout(self, pts_seconds: Sequence[float], like: Clip) -> Clip:
        """What prompts say of a clip of frames at these times, as large as those of `like`: `clip` without pixels."""
        nothing = torch.empty(len(pts_seconds), 3, *self.size, device="meta")
        return _MAKERS[self.config.model_type](self, nothing, pts_seconds).without_pixels()

    def text_ids(self, text: str) -> list[int]:
        if self.tokenizer is not None:
            return self.tokenizer.encode(text, add_special_tokens=False)
        return [7 + sum(word.encode()) % self._spare for word in text.split()]

    def decode(self, ids: Tensor) -> list[str]:
        """New ids (B, n) as text."""
        if self.tokenizer is not None:
            return self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [" ".join(f"<{i}>" for i in row[:_SHOWN]) for row in ids.tolist()]

    def _before(self) -> list[int]:
        return [] if self.tokenizer is not None else [5] * _BEFORE

    def stamp(self, seconds: float) -> list[int]:
        """Qwen3-VL writes the time of every time step into the prompt."""
        return self.text_ids(f"<{seconds:.1f} seconds>") if self.tokenizer is not None else [9, 10, 11]


def plain_size(config: Any) -> tuple[int, int]:
    """Height and width that the encoder looks at; 448 x 448 for one that takes any."""
    side = getattr(config.vision_config, "image_size", None)
    if side is None:
        side = own_settings(config).get("image_size", 448)
    return (side[0], side[1]) if isinstance(side, list | tuple) else (side, side)


def _resized(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 (T, H, W, 3) -> float (T, 3, h, w) in [0, 1]."""
    x = pixels.permute(0, 3, 1, 2).float() / 255
    return x if x.shape[2:] == size else F.interpolate(x, size, mode="bilinear", antialias=True)


def _llava_onevision(made: PlainInputs, x: Tensor, pts: Sequence[float]) -> Clip:
    vision = made.config.vision_config
    pooled = -(-(vision.image_size // vision.patch_size) // 2)
    ids = [made.config.video_token_id] * (len(x) * pooled**2 + 1)  # and the newline behind the clip
    return Clip({"pixel_values_videos": x[None]}, ids)


def _llava_next_video(made: PlainInputs, x: Tensor, pts: Sequence[float]) -> Clip:
    vision = made.config.vision_config
    side = vision.image_size // vision.patch_size // made.config.spatial_pool_stride
    return Clip({"pixel_values_videos": x[None]}, [made.config.video_token_id] * (len(x) * side**2))


def _internvl(made: PlainInputs, x: Tensor, pts: Sequence[float]) -> Clip:
    rows = x.shape[2] // made.config.vision_config.patch_size[0]
    count = round((rows * made.config.downsample_ratio) ** 2)
    return Clip({"pixel_values": x}, [made.config.image_token_id] * (len(x) * count))


def _smolvlm(made: PlainInputs, x: Tensor, pts: Sequence[float]) -> Clip:
    rows = x.shape[2] // made.config.vision_config.patch_size
    count = (rows // made.config.scale_factor) ** 2
    return Clip({"pixel_values": x[None]}, [made.config.image_token_id] * (len(x) * count))


def _packed(made: PlainInputs, x: Tensor, pts: Sequence[float]) -> Clip:
    """Patches unit by unit, time steps of `temporal` frames (the last frame again where one is missing)."""
    config, vision = made.config, made.config.vision_config
    temporal = getattr(vision, "temporal_patch_size", 1)
    merge, patch = getattr(vision, "spatial_merge_size", 2), vision.patch_size
    unit = patch * merge
    if x.shape[2] % unit or x.shape[3] % unit:
        raise ValueError(f"size={tuple(x.shape[2:])}; allowed: multiples of {unit} pixels")
    missing = -len(x) % temporal
    x = torch.cat([x, x[-1:].expand(missing, -1, -1, -1)])
    pts = [*pts, *[pts[-1]] * missing]
    t, h, w = len(x) // temporal, x.shape[2] // patch, x.shape[3] // patch
    x = x.view(t, temporal, 3, h // merge, merge, patch, w // merge, merge, patch)
    rows = x.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(t * h * w, 3 * temporal * patch**2)
    tensors = {"pixel_values_videos": rows, "video_grid_thw": torch.tensor([[t, h, w]])}
    each = [config.video_token_id] * (h * w // merge**2)
    if config.model_type == "video_llama_3":
        tensors["video_merge_sizes"] = torch.tensor([merge])
    if config.model_type != "qwen3_vl":
        return Clip(tensors, each * t)
    ids: list[int] = []
    for step in range(t):
        seconds = sum(pts[step * temporal : (step + 1) * temporal]) / temporal
        ids += [*made.stamp(seconds), config.vision_start_token_id, *each, config.vision_end_token_id]
    return Clip(tensors, ids)


Maker = Callable[[PlainInputs, Tensor, Sequence[float]], Clip]
_MAKERS: dict[str, Maker] = {
    "llava_onevision": _llava_onevision,
    "llava_next_video": _llava_next_video,
    "internvl": _internvl,
    "smolvlm": _smolvlm,
    "qwen2_5_vl": _packed,
    "qwen3_vl": _packed,
    "video_llama_3": _packed,
}
_LOOKS = {
    "llava_next_video": _CLIP,
    "internvl": _IMAGENET,
    "qwen2_5_vl": _CLIP,
}
