"""Tiny stock models of every family, with random weights from a fixed seed, and prompts for them.

Shapes: B rows, T frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    InternVLConfig,
    InternVLForConditionalGeneration,
    LlavaNextVideoConfig,
    LlavaNextVideoForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    SiglipVisionConfig,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    VideoLlama3Config,
    VideoLlama3ForConditionalGeneration,
)

from videoprune.config import PruneConfig
from videoprune.plug.current_pass import current
from videoprune.plug.encoder_pass import EncoderPass
from videoprune.plug.installed import installed_on

PAD, IMAGE, VIDEO, START = 0, 60, 61, 62
KINDS = (
    "internvl",
    "llava_next_video",
    "llava_onevision",
    "qwen2_5_vl",
    "qwen3_vl",
    "smolvlm",
    "video_llama_3",
)
# Greedy, and never a placeholder: untrained models choose them too, and the stock models then miss a picture.
GREEDY = {"do_sample": False, "suppress_tokens": [IMAGE, VIDEO, START, 63]}
# Tokens leave inside the encoder, behind it, and at two depths of the LLM.
EVERYWHERE = PruneConfig.from_dict(
    {
        "encoder": {"method": "evoprune", "keep": 0.5, "schedule": "mean"},
        "fusion": {"method": "cooperative", "keep": 0.75},
        "llm": {"method": "fixed", "keep": 0.6, "layers": [0.2, 0.6]},
    }
)
_TEXT = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": PAD,
    "eos_token_id": None,
    "bos_token_id": None,
}
_VIT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "patch_size": 4,
}
_IDS = {"image_token_id": IMAGE, "video_token_id": VIDEO}
MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}


def text_config() -> dict[str, Any]:
    return Qwen2Config(**_TEXT).to_dict()


def llava_onevision() -> Any:
    vision = SiglipVisionConfig(**_VIT, image_size=28, vision_use_head=False).to_dict()
    return LlavaOnevisionForConditionalGeneration(
        LlavaOnevisionConfig(
            vision_config=vision, text_config=text_config(), image_grid_pinpoints=[[28, 28], [28, 56]], **_IDS
        )
    )


def llava_next_video() -> Any:
    vision = CLIPVisionConfig(**_VIT, image_size=24, projection_dim=32).to_dict()
    return LlavaNextVideoForConditionalGeneration(
        LlavaNextVideoConfig(
            vision_config=vision,
            text_config=text_config(),
            image_grid_pinpoints=[[24, 24], [24, 48]],
            image_token_index=IMAGE,
            video_token_index=VIDEO,
        )
    )


def qwen2_5_vl() -> Any:
    vision = {
        "depth": 6,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 4,
        "patch_size": 4,
        "out_hidden_size": 32,
        "fullatt_block_indexes": [2, 5],
        "window_size": 16,
        "in_channels": 3,
    }
    text = {**_TEXT, "rope_parameters": MROPE}
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(vision_config=vision, text_config=text, vision_start_token_id=START, **_IDS)
    )


def qwen3_vl() -> Any:
    vision = {
        "depth": 6,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 4,
        "patch_size": 4,
        "out_hidden_size": 32,
        "deepstack_visual_indexes": [1, 3],
        "num_position_embeddings": 64,
    }
    text = {**_TEXT, "head_dim": 8, "rope_parameters": MROPE}
    return Qwen3VLForConditionalGeneration(
        Qwen3VLConfig(
            vision_config=vision,
            text_config=text,
            vision_start_token_id=START,
            vision_end_token_id=63,
            **_IDS,
        )
    )


def internvl() -> Any:
    vision = {**_VIT, "image_size": [24, 24], "patch_size": [4, 4], "use_qk_norm": True}
    return InternVLForConditionalGeneration(
        InternVLConfig(vision_config=vision, text_config=text_config(), image_token_id=IMAGE)
    )


def smolvlm() -> Any:
    vision = {**_VIT, "image_size": 24}
    text = {**text_config(), "model_type": "llama"}
    return SmolVLMForConditionalGeneration(
        SmolVLMConfig(vision_config=vision, text_config=text, image_token_id=IMAGE, scale_factor=2)
    )


def video_llama_3() -> Any:
    vision = dict(_VIT)
    return VideoLlama3ForConditionalGeneration(
        VideoLlama3Config(vision_config=vision, text_config=text_config(), **_IDS)
    )


BUILDERS: dict[str, Callable[[], Any]] = {
    f.__name__: f
    for f in (llava_onevision, llava_next_video, qwen2_5_vl, qwen3_vl, internvl, smolvlm, video_llama_3)
}


def stock_model(kind: str, attention: str = "sdpa") -> Any:
    torch.manual_seed(3)
    model = BUILDERS[kind]().eval()
    for p in model.parameters():  # small initial weights make every token alike; spread them
        p.data += torch.randn_like(p) * 0.08
    model.set_attn_implementation(attention)
    return model


def clips(kind: str, rows: int, frames: int, seed: int = 0) -> list[dict[str, Any]]:
    """One clip per row: its own tensors and the ids of its placeholders."""
    g = torch.Generator().manual_seed(seed)
    out = []
    for _ in range(rows):
        if kind == "llava_onevision":
            x = torch.randn(1, frames, 3, 28, 28, generator=g)
            out.append({"pixel_values_videos": x, "ids": [VIDEO] * (frames * 16 + 1)})
        elif kind == "llava_next_video":
            x = torch.randn(1, frames, 3, 24, 24, generator=g)
            out.append({"pixel_values_videos": x, "ids": [VIDEO] * (frames * 9)})
        elif kind in ("internvl", "smolvlm"):
            x = torch.randn(frames, 3, 24, 24, generator=g)
            x = x if kind == "internvl" else x[None]
            out.append({"pixel_values": x, "ids": [IMAGE] * (frames * 9)})
        else:
            out.append(_packed(kind, frames, g))
    return out


def _packed(kind: str, frames: int, g: torch.Generator) -> dict[str, Any]:
    """A video of 6 x 8 patches a frame, 2 x 2 joined: 12 tokens a frame."""
    temporal = 1 if kind == "video_llama_3" else 2
    x = torch.randn(frames * 48, 3 * temporal * 16, generator=g)
    clip: dict[str, Any] = {
        "pixel_values_videos": x,
        "video_grid_thw": torch.tensor([[frames, 6, 8]]),
        "ids": [VIDEO] * (frames * 12),
    }
    if kind == "video_llama_3":
        clip["video_merge_sizes"] = torch.tensor([2])
    if kind == "qwen3_vl":  # its frames stand apart, with timestamps between them
        clip["ids"] = [i for f in range(frames) for i in (50 + f % 9, START, *[VIDEO] * 12, 63)]
    return clip


def images(kind: str, sizes: Sequence[int], seed: int = 0) -> dict[str, Any]:
    """Images of one prompt, the i-th `sizes[i]` (1, 2) times as wide as the others where the family has sizes, and the
    ids of their placeholders."""
    g = torch.Generator().manual_seed(seed + 100)
    if kind.startswith("llava"):
        side = 28 if kind == "llava_onevision" else 24
        # The whole picture once, then its parts: a picture of one part has two squares of pixels.
        pixels = torch.randn(len(sizes), 1 + max(sizes), 3, side, side, generator=g)
        shapes = torch.tensor([[side, side * s] for s in sizes])
        n = side // 4
        ids = [
            i for s in sizes for i in [IMAGE] * (n * n + n * (n * s + 1))
        ]  # a mark ends each row of the parts
        return {"pixel_values": pixels, "image_sizes": shapes, "ids": ids}
    if kind in ("internvl", "smolvlm"):
        pixels = torch.randn(len(sizes), 3, 24, 24, generator=g)
        pixels = pixels if kind == "internvl" else pixels[None]
        return {"pixel_values": pixels, "ids": [IMAGE] * (9 * len(sizes))}
    temporal, joined = (1, 1) if kind == "video_llama_3" else (2, 4)
    grid = torch.tensor([[1, 4, 4 * s] for s in sizes])
    pixels = torch.randn(int(grid.prod(1).sum()), 3 * temporal * 16, generator=g)
    made: dict[str, Any] = {"pixel_values": pixels, "image_grid_thw": grid}
    made["ids"] = [i for s in sizes for i in (START, *[IMAGE] * (16 * s // joined), 63)]
    if kind == "video_llama_3":
        made["image_merge_sizes"] = torch.ones(len(sizes), dtype=torch.int64)
    return made


def beside(kind: str, *parts: dict[str, Any]) -> dict[str, Any]:
    """What one prompt holds that shows `parts`, images or clips, one after the other."""
    out: dict[str, Any] = {"ids": [i for part in parts for i in (8, *part["ids"])]}
    for part in parts:
        for key in part.keys() - {"ids"}:
            frames = 1 if key == "pixel_values" and kind == "smolvlm" else 0
            out[key] = torch.cat([out[key], part[key]], frames) if key in out else part[key]
    return out


def inputs(kind: str, made: list[dict[str, Any]], texts: list[list[int]]) -> dict[str, Tensor]:
    """Prompts [text start, clip, question] of a batch, padded on the left."""
    rows = [[5, 6, *c["ids"], *t] for c, t in zip(made, texts, strict=True)]
    longest = max(map(len, rows))
    ids = torch.tensor([[PAD] * (longest - len(r)) + r for r in rows])
    batch = {"input_ids": ids, "attention_mask": (ids != PAD).long()}
    for key in made[0]:
        if key != "ids":
            batch[key] = torch.cat([c[key] for c in made])
    if kind.startswith("qwen"):
        batch["mm_token_type_ids"] = _token_types(ids)
    return batch


def _token_types(ids: Tensor) -> Tensor:
    """1 at images, 2 at videos."""
    return (ids == IMAGE).int() + (ids == VIDEO).int() * 2


def longer(kind: str, batch: dict[str, Tensor], ids: Tensor) -> dict[str, Tensor]:
    """What a model needs, beside the pixels, of prompts `ids` that begin as those of `batch`, one row."""
    found = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if kind.startswith("qwen"):
        found["mm_token_type_ids"] = _token_types(ids)
    return found


@contextmanager
def encoder_passes(model: Any) -> Iterator[list[EncoderPass]]:
    """Every pruned pass of the encoder of an applied model within, frame by frame where a `Trace` has sums."""
    installed, found = installed_on(model), []

    def note(module: Any, args: Any, out: Any) -> None:
        run = current(installed).encoders.get("vision")
        found.extend([] if run is None else [run])

    handle = installed.family.vision.register_forward_hook(note)
    try:
        yield found
    finally:
        handle.remove()
