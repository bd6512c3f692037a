"""Wider heads compute the same, with M-RoPE and without, and in greedy text."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText

from pipelines.vllm.padded_heads import pad_heads
from videoprune.models.loading import model_folder


@pytest.mark.parametrize("name", ["qwen-demo", "llava-demo"])
@pytest.mark.parametrize("width", [32, 64])
def test_logits_stay(name: str, width: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    before = AutoModelForImageTextToText.from_pretrained(model_folder(name), dtype=torch.float32).eval()
    after = AutoModelForImageTextToText.from_pretrained(pad_heads(model_folder(name), tmp_path, width)).eval()
    assert after.config.get_text_config().head_dim == width
    ids = torch.randint(5, 470, (2, 40))
    given = {"input_ids": ids}
    if name == "qwen-demo":  # rows of their own for time, height and width
        given["position_ids"] = torch.randint(0, 90, (3, 2, 40))
    with torch.no_grad():
        torch.testing.assert_close(after(**given).logits, before(**given).logits, atol=1e-4, rtol=1e-5)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        p.name for p in model_folder(name).iterdir() if p.is_file()
    )


def test_what_cannot_be_padded_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="width=16; allowed: even numbers from 20 on"):
        pad_heads(model_folder("qwen-demo"), tmp_path, 16)
    with pytest.raises(ValueError, match="width=33"):
        pad_heads(model_folder("qwen-demo"), tmp_path, 33)
