"""A model whose LLM has wider heads and computes the same: for kernels that take some widths alone.

vLLM's attention on a CPU takes heads of 32, 64, 80 ... numbers; those of the demo models have 20. New ones are zero.
What depends on the width is made up for: the norms of queries and keys, which divide by the root mean square over a
head, the scale 1 / sqrt(width), and the frequencies of RoPE, which pairs number i with number i + width / 2.

Shapes: H heads, d their width, D the new one, W width of the LLM.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

_WEIGHTS = "model.safetensors"
_PROJECTION = re.compile(r"self_attn\.([qkvo])_(proj|norm)\.weight$")


def pad_heads(source: Path, out: Path, width: int) -> Path:
    """Write the model of folder `source` to `out`, with heads of `width` in its LLM, and weights in float32.

    -> out. Raises ValueError for an LLM whose queries and keys have no norms (all but Qwen3's), or wider heads.
    """
    config = json.loads((source / "config.json").read_text())
    text = config["text_config"]
    head: int = text["head_dim"]
    if not head <= width or width % 2:
        raise ValueError(f"width={width}; allowed: even numbers from {head} on, the heads of {source}")
    weights = load_file(source / _WEIGHTS)
    if not any(name.endswith("self_attn.q_norm.weight") for name in weights):
        raise ValueError(f"source={source}: no q_norm; allowed: models whose LLM is Qwen3's")
    out.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.is_file() and path.name not in ("config.json", _WEIGHTS):
            shutil.copy(path, out / path.name)
    places = _places(head, width)
    padded = {_older(name): _padded(name, w.float(), places, width) for name, w in weights.items()}
    save_file(padded, out / _WEIGHTS, metadata={"format": "pt"})
    text["head_dim"], config["dtype"] = width, "float32"
    _widen_rope(text["rope_parameters"], head, width)
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    return out


def _older(name: str) -> str:
    """As transformers called SigLIP's weights before 5: vLLM looks for that, and transformers takes both."""
    return re.sub(r"^vision_tower\.(?!vision_model\.)", "vision_tower.vision_model.", name)


def _places(head: int, width: int) -> Tensor:
    """Where the d numbers of a head go: each half to the front of its new half."""
    first = torch.arange(head // 2)
    return torch.cat([first, first + width // 2])


def _padded(name: str, w: Tensor, places: Tensor, width: int) -> Tensor:
    """One weight: of an attention with wider heads, any other as it is."""
    found = _PROJECTION.search(name)
    if found is None or "vision" in name or "visual" in name:
        return w.contiguous()
    head, (part, kind) = len(places), found.groups()
    if kind == "norm":
        # The root mean square is sqrt(d / D) of what it was. The scale is so too: queries make up for both.
        factor = 1.0 if part == "q" else (head / width) ** 0.5
        return w.new_zeros(width).index_copy(0, places, w * factor)
    rows = w.T if part == "o" else w  # (H * d, W)
    heads = rows.unflatten(0, (-1, head))  # (H, d, W)
    wide = heads.new_zeros(len(heads), width, heads.shape[2]).index_copy(1, places, heads).flatten(0, 1)
    return (wide.T if part == "o" else wide).contiguous()


def _widen_rope(rope: dict[str, Any], head: int, width: int) -> None:
    """Pair i turns by theta ** (-2 i / width): a larger theta gives the first d / 2 pairs their old frequencies.

    In M-RoPE new pairs are of time: height and width are interleaved among the first ones (Qwen3-VL)."""
    rope["rope_theta"] = rope["rope_theta"] ** (width / head)
    if "mrope_section" in rope:
        time, *space = rope["mrope_section"]
        rope["mrope_section"] = [time + (width - head) // 2, *space]
        rope["mrope_interleaved"] = True
