"""Write the trained demo model as a folder that `videoprune` loads: half-precision weights and the tokenizer."""

from __future__ import annotations

from pathlib import Path

import torch

from demo_training.multi_encoder import build_model
from demo_training.text import build_tokenizer


def export(checkpoints: Path, folder: Path, name: str = "llm.pt", start: Path | None = None) -> None:
    """Join the encoders of `build_model` and `checkpoints`/`name` into `folder`."""
    tokenizer = build_tokenizer()
    model = build_model(checkpoints, tokenizer, start)
    state = torch.load(checkpoints / name, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"], strict=False)
    model.requires_grad_(True)
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    size = sum(f.stat().st_size for f in folder.glob("*.safetensors"))
    count = sum(p.numel() for p in model.parameters())
    print(f"{folder}: step {state['step']}, {count:,} parameters, {size / 2**20:.1f} MiB of weights")
