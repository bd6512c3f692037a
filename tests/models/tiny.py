"""Tiny models of every family, with random weights from a fixed seed."""

from __future__ import annotations

import torch
from transformers import (
    AutoModel,
    CLIPVisionConfig,
    ConvNextV2Config,
    Dinov2Config,
    PreTrainedConfig,
    Qwen3Config,
    SiglipVisionConfig,
)

from videoprune.models.multi_encoder import MultiEncoderVLM
from videoprune.models.multi_encoder_config import MultiEncoderConfig
from videoprune.types import VideoFrames

_VIT = {
    "hidden_size": 32,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "image_size": 24,
    "patch_size": 4,
}

ENCODERS: dict[str, PreTrainedConfig] = {
    "siglip": SiglipVisionConfig(**_VIT, intermediate_size=48, vision_use_head=False),
    "clip": CLIPVisionConfig(**_VIT, intermediate_size=48, projection_dim=32),
    "dinov2": Dinov2Config(**_VIT, mlp_ratio=2),
    "convnext": ConvNextV2Config(
        num_stages=2, hidden_sizes=[16, 32], depths=[1, 1], patch_size=2, image_size=24
    ),
}


def tiny_encoder(name: str):
    torch.manual_seed(5)
    model = AutoModel.from_config(ENCODERS[name]).eval()
    for p in model.parameters():  # small initial weights make every token alike; spread them
        p.data += torch.randn_like(p) * 0.08
    return model


def tiny_model(names: tuple[str, ...] = ("siglip", "clip", "convnext")) -> MultiEncoderVLM:
    torch.manual_seed(6)
    entries = [{"name": n, "model_type": ENCODERS[n].model_type, **ENCODERS[n].to_diff_dict()} for n in names]
    text = Qwen3Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        pad_token_id=0,
        eos_token_id=None,
        bos_token_id=None,
    )
    config = MultiEncoderConfig(
        encoders=entries,
        text_config={"model_type": text.model_type, **text.to_diff_dict()},
        encoder_ranks={n: [9.0 - i, 7.0 - i, 5.0 - i] for i, n in enumerate(names)},
    )
    model = MultiEncoderVLM(config).eval()
    for p in model.parameters():
        p.data += torch.randn_like(p) * 0.08
    return model


def random_clip(num_frames: int, *, size: int = 24, seed: int = 0, start: float = 0.0) -> VideoFrames:
    pixels = torch.randint(
        0, 256, (num_frames, size, size, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
    )
    return VideoFrames(
        pixels, tuple(start + 0.5 * i for i in range(num_frames)), 0.5 * num_frames, "clip", "test"
    )
