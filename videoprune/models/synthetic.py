"""Models of true shape with random weights, and prompts for them: to measure speed without a download.

What such a model answers means nothing; what it computes on is exactly what the trained one would.

Shapes: T frames, H x W pixels, S tokens of the prompt.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModelForImageTextToText, PreTrainedModel

from videoprune.config import config_dir
from videoprune.models.families import FAMILIES

_TEXT_BEFORE = 14  # a chat header


def shape_names() -> tuple[str, ...]:
    """Names of the shapes in configs/models."""
    return tuple(sorted(p.stem for p in (config_dir() / "models").glob("*.yaml")))


def random_model(shape: str, *, dtype: torch.dtype = torch.bfloat16, seed: int = 0) -> PreTrainedModel:
    """A stock model with random weights. shape: a name from configs/models, or a YAML file's path.

    Raises ValueError for an unknown shape, with the known ones.
    """
    path = Path(shape) if shape.endswith(".yaml") else config_dir() / "models" / f"{shape}.yaml"
    if not path.is_file():
        raise ValueError(f"shape={shape!r}; allowed: a YAML file, or {', '.join(shape_names())}")
    data = yaml.safe_load(path.read_text())
    kind = data.pop("model_type")
    if kind not in FAMILIES:
        raise ValueError(f"{path}: model_type={kind!r}; allowed: {', '.join(sorted(FAMILIES))}")
    config = CONFIG_MAPPING[kind](**data)
    torch.manual_seed(seed)
    return AutoModelForImageTextToText.from_config(config, dtype=dtype).eval()


def random_inputs(
    model: PreTrainedModel,
    num_frames: int,
    *,
    text_tokens: int = 40,
    size: tuple[int, int] = (448, 448),
    seed: int = 0,
) -> dict[str, Tensor]:
    """One prompt: some text, a clip of noise, `text_tokens` tokens of question; what the processor would give.

    size: height and width of frames, for models that take any (Qwen-VL, VideoLLaMA3). Raises ValueError if it is
    not a multiple of what the encoder joins.
    """
    generator = torch.Generator().manual_seed(seed)
    made, ids = _CLIPS[model.config.model_type](model, num_frames, size, generator)
    prompt = torch.tensor([[5] * _TEXT_BEFORE + ids + [7] * text_tokens])
    batch = {"input_ids": prompt, "attention_mask": torch.ones_like(prompt), **made}
    if model.config.model_type.startswith("qwen"):
        batch["mm_token_type_ids"] = (prompt == model.config.video_token_id).int() * 2
    return {
        k: v.to(model.device, model.dtype if v.is_floating_point() else v.dtype) for k, v in batch.items()
    }


Clip = tuple[dict[str, Tensor], list[int]]


def _noise(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator)


def _llava_onevision(model: Any, frames: int, size: Any, generator: torch.Generator) -> Clip:
    vision = model.config.vision_config
    grid = vision.image_size // vision.patch_size
    pixels = _noise(generator, 1, frames, 3, vision.image_size, vision.image_size)
    count = frames * (-(-grid // 2)) ** 2 + 1
    return {"pixel_values_videos": pixels}, [model.config.video_token_id] * count


def _llava_next_video(model: Any, frames: int, size: Any, generator: torch.Generator) -> Clip:
    vision = model.config.vision_config
    grid = vision.image_size // vision.patch_size // model.config.spatial_pool_stride
    pixels = _noise(generator, 1, frames, 3, vision.image_size, vision.image_size)
    return {"pixel_values_videos": pixels}, [model.config.video_token_id] * (frames * grid**2)


def _internvl(model: Any, frames: int, size: Any, generator: torch.Generator) -> Clip:
    vision = model.config.vision_config
    side, patch = vision.image_size[0], vision.patch_size[0]
    count = round((side // patch * model.config.downsample_ratio) ** 2)
    return {"pixel_values": _noise(generator, frames, 3, side, side)}, [model.config.image_token_id] * (
        frames * count
    )


def _smolvlm(model: Any, frames: int, size: Any, generator: torch.Generator) -> Clip:
    vision = model.config.vision_config
    side = vision.image_size
    count = (side // vision.patch_size // model.config.scale_factor) ** 2
    pixels = _noise(generator, 1, frames, 3, side, side)
    return {"pixel_values": pixels}, [model.config.image_token_id] * (frames * count)


def _packed(model: Any, frames: int, size: tuple[int, int], generator: torch.Generator) -> Clip:
    vision = model.config.vision_config
    temporal, merge = getattr(vision, "temporal_patch_size", 1), getattr(vision, "spatial_merge_size", 2)
    unit = vision.patch_size * merge
    if size[0] % unit or size[1] % unit or frames % temporal:
        raise ValueError(
            f"size={size}, num_frames={frames}; allowed: multiples of {unit} pixels and {temporal} frames"
        )
    t, h, w = frames // temporal, size[0] // vision.patch_size, size[1] // vision.patch_size
    clip = {
        "pixel_values_videos": _noise(generator, t * h * w, 3 * temporal * vision.patch_size**2),
        "video_grid_thw": torch.tensor([[t, h, w]]),
    }
    each = [model.config.video_token_id] * (h * w // merge**2)
    if model.config.model_type == "video_llama_3":
        clip["video_merge_sizes"] = torch.tensor([merge])
    if model.config.model_type == "qwen3_vl":  # a timestamp and two markers around every frame
        start = model.config.vision_start_token_id
        each = [9, 10, 11, start, *each, start + 1]
    return clip, each * t


_CLIPS = {
    "llava_onevision": _llava_onevision,
    "llava_next_video": _llava_next_video,
    "internvl": _internvl,
    "smolvlm": _smolvlm,
    "qwen2_5_vl": _packed,
    "qwen3_vl": _packed,
    "video_llama_3": _packed,
}
