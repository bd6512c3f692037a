"""Find and load a multi-encoder model with its tokenizer."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from videoprune.models.multi_encoder import MultiEncoderConfig, MultiEncoderVLM

DEMO = Path(__file__).parent / "demo"


def model_folder(name: str) -> Path:
    """`demo`, or a local folder with config.json. Raises ValueError with what was looked for."""
    folder = DEMO if name == "demo" else Path(name)
    if not (folder / "config.json").is_file():
        raise ValueError(f"model={name!r}; allowed: demo, or a folder with config.json (looked in {folder})")
    return folder


def load_multi_encoder(
    name: str, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[MultiEncoderVLM, PreTrainedTokenizerBase]:
    """Load weights and tokenizer, for inference. The weights may be stored in half precision."""
    folder = model_folder(name)
    AutoConfig.register(MultiEncoderConfig.model_type, MultiEncoderConfig, exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = MultiEncoderVLM.from_pretrained(folder, dtype=dtype).eval()
    model.to(torch.device(device))
    return model, tokenizer
