"""A model's folder with random weights and a tokenizer, small enough to answer in milliseconds."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPVisionConfig,
    ConvNextV2Config,
    PreTrainedTokenizerFast,
    Qwen3Config,
    SiglipVisionConfig,
)

from videoprune.config import preset, preset_names
from videoprune.models.multi_encoder import MultiEncoderVLM
from videoprune.models.multi_encoder_config import MultiEncoderConfig
from videoprune.plug.settings import calibration_key

PAD, EOS = "<|pad|>", "<|end|>"
NUM_FRAMES, SIZE, LAYERS = 4, 32, 8


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, and nothing else; an answer's letter with its space is one token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", letter) for letter in string.ascii_uppercase[:4]]
    vocab = {token: i for i, token in enumerate([PAD, EOS, *alphabet, *(a + b for a, b in merges)])}
    tokenizer = Tokenizer(models.BPE(vocab, merges))
    tokenizer.add_special_tokens([PAD, EOS])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS, padding_side="left"
    )


def tiny_config(tokenizer: PreTrainedTokenizerFast) -> MultiEncoderConfig:
    vit: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_attention_heads": 2,
        "num_hidden_layers": 4,
        "patch_size": 8,
    }
    encoders: dict[str, Any] = {
        "siglip": SiglipVisionConfig(**vit, image_size=SIZE, vision_use_head=False),
        "clip": CLIPVisionConfig(**vit, image_size=24, projection_dim=32),
        "convnext": ConvNextV2Config(
            num_stages=2, hidden_sizes=[16, 32], depths=[1, 1], patch_size=4, image_size=SIZE
        ),
    }
    text = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    presets = [preset(name) for name in preset_names()]
    return MultiEncoderConfig(
        encoders=[{"name": n, "model_type": c.model_type, **c.to_diff_dict()} for n, c in encoders.items()],
        text_config={"model_type": text.model_type, **text.to_diff_dict()},
        num_frames=NUM_FRAMES,
        encoder_ranks={name: [4.0, 3.0, 2.0] for name in encoders},
        lambdas={calibration_key(p): 200.0 * p.llm.keep for p in presets if p.llm.method == "adaptive"},
    )


def write_tiny_model(folder: Path, *, seed: int = 3) -> Path:
    """Random weights, so large that clips and questions lead to different answers, letters first."""
    tokenizer = tiny_tokenizer()
    torch.manual_seed(seed)
    model = MultiEncoderVLM(tiny_config(tokenizer)).eval()
    for p in model.parameters():
        p.data += torch.randn_like(p) * 0.15
    letters = tokenizer.convert_tokens_to_ids([f"Ġ{letter}" for letter in "ABCD"])
    model.get_submodule("language_model").get_input_embeddings().weight.data[letters] *= 12
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
