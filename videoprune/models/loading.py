"""Find and load a multi-encoder model with its tokenizer."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from videoprune.models.multi_encoder import MultiEncoderConfig, MultiEncoderVLM

_SHIPPED = {"demo": "demo", "llava-demo": "llava_demo", "qwen-demo": "qwen_demo"}


def demo_names() -> tuple[str, ...]:
    """The models that come with the package: one of several encoders, and two of stock classes."""
    return tuple(_SHIPPED)


def model_folder(name: str) -> Path:
    """A model that comes with the package, or a local folder with config.json. Raises ValueError otherwise."""
    folder = Path(__file__).parent / _SHIPPED[name] if name in _SHIPPED else Path(name)
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"model={name!r}; allowed: {', '.join(_SHIPPED)}, or a folder with config.json (looked in {folder})"
        )
    return folder


def load_multi_encoder(
    name: str, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[MultiEncoderVLM, PreTrainedTokenizerBase]:
    """Load weights and tokenizer, for inference. The weights may be stored in half precision.

    Raises ValueError for a model of another kind.
    """
    folder = model_folder(name)
    AutoConfig.register(MultiEncoderConfig.model_type, MultiEncoderConfig, exist_ok=True)
    kind = AutoConfig.from_pretrained(folder).model_type
    if kind != MultiEncoderConfig.model_type:
        raise ValueError(
            f"model={name!r}: model_type={kind!r}; allowed here: {MultiEncoderConfig.model_type}, such as demo"
        )
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = MultiEncoderVLM.from_pretrained(folder, dtype=dtype).eval()
    model.to(torch.device(device))
    return model, tokenizer
