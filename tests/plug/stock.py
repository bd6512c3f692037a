"""Tiny stock models of every family, with random weights from a fixed seed, and prompts for them.

Shapes: B rows, T frames.
"""

from __future__ import annotations

from collections.abc import Callable
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

PAD, IMAGE, VIDEO, START = 0, 60, 61, 62
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
        batch["mm_token_type_ids"] = (ids == VIDEO).int() * 2
    return batch
