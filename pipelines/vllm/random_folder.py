"""A folder that vLLM loads as a Qwen-VL of true shape with random weights: to measure speed without a download."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from videoprune.models.loading import model_folder
from videoprune.models.random_weights import random_config

_LIKE = "qwen-demo"  # whose tokenizer and processor are taken along
_TOKENS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
_PIXELS = 2**24  # of a clip, which no frame is made smaller for


def random_folder(shape: str, out: Path) -> Path:
    """Write the folder `out` for `shape`, as `random_config` takes it: load_format="dummy" makes weights for it.

    Ids of special tokens are those of the demo's tokenizer. Raises ValueError for another family than Qwen3-VL."""
    config: Any = random_config(shape)
    if config.model_type != "qwen3_vl":
        raise ValueError(f"shape={shape!r}: model_type={config.model_type!r}; allowed: qwen3_vl")
    like = model_folder(_LIKE)
    out.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(like / name, out / name)
    known = json.loads((like / "config.json").read_text())
    made = config.to_dict() | {name: known[name] for name in _TOKENS}
    made["architectures"] = known["architectures"]
    (out / "config.json").write_text(json.dumps(made, indent=2) + "\n")
    processor = json.loads((like / "processor_config.json").read_text())
    for part in ("image_processor", "video_processor"):
        processor[part] |= {
            "patch_size": config.vision_config.patch_size,
            "merge_size": config.vision_config.spatial_merge_size,
            "temporal_patch_size": config.vision_config.temporal_patch_size,
            "size": {"longest_edge": _PIXELS, "shortest_edge": 1},
        }
    (out / "processor_config.json").write_text(json.dumps(processor, indent=2) + "\n")
    return out
