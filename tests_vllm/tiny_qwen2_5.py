"""A tiny Qwen2.5-VL with random weights, as a folder that both vLLM and transformers load."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from videoprune.models.loading import model_folder

_VISION = {
    "depth": 6,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_heads": 2,
    "patch_size": 8,
    "out_hidden_size": 128,
    "fullatt_block_indexes": [2, 5],
    "window_size": 32,  # 2 x 2 units
    "in_channels": 3,
    # With more, a clip takes more positions in time than in space: there text begins earlier in transformers.
    "tokens_per_second": 1,
}
_TEXT = {
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [6, 5, 5]},
    "tie_word_embeddings": True,
    "bos_token_id": None,
}
_TOKENS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")


def write_tiny(out: Path) -> Path:
    """Weights so large that clips and questions lead to different answers."""
    like = model_folder("qwen-demo")
    known = json.loads((like / "config.json").read_text())
    text = {**_TEXT, **{k: known["text_config"][k] for k in ("vocab_size", "eos_token_id", "pad_token_id")}}
    config = Qwen2_5_VLConfig(vision_config=_VISION, text_config=text, **{k: known[k] for k in _TOKENS})
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config).float().eval()
    for p in model.parameters():
        p.data += torch.randn_like(p) * 0.08
    model.save_pretrained(out)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(like / name, out / name)
    made = json.loads((like / "processor_config.json").read_text())
    made["processor_class"] = "Qwen2_5_VLProcessor"
    made["video_processor"]["video_processor_type"] = "Qwen2VLVideoProcessor"
    made["video_processor"] |= {"size": made["image_processor"]["size"], "do_sample_frames": False}
    (out / "processor_config.json").write_text(json.dumps(made))
    return out
