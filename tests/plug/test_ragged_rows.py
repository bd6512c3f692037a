"""Rows of different lengths without a mask of all pairs: against dense masks, and what memory it spares.

Shapes: B rows, H heads, n tokens, d head width.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from tests.plug.stock import KINDS, clips, inputs, stock_model
from videoprune import apply
from videoprune.config import PruneConfig
from videoprune.plug.attention import causal_mask
from videoprune.plug.installed import installed_on
from videoprune.plug.ragged_rows import RaggedRows


@pytest.mark.parametrize("kv_heads", [2, 4])
def test_rows_are_those_of_a_dense_mask(kv_heads):
    lengths, n = (7, 1, 5), 7
    g = torch.Generator().manual_seed(0)
    q = torch.randn(3, 4, n, 8, generator=g, dtype=torch.float64)
    k, v = (torch.randn(3, kv_heads, n, 8, generator=g, dtype=torch.float64) for _ in "kv")
    valid = torch.arange(n) >= n - torch.tensor(lengths)[:, None]
    found = F.scaled_dot_product_attention(
        q, k, v, attn_mask=RaggedRows(lengths), scale=0.3, enable_gqa=kv_heads < 4
    )
    k, v = (t.repeat_interleave(4 // kv_heads, 1) for t in (k, v))
    logits = 0.3 * q @ k.transpose(2, 3) + causal_mask(valid, torch.float64)
    expected = (logits.softmax(-1) @ v) * valid[:, None, :, None]
    torch.testing.assert_close(found, expected)
    assert type(found) is Tensor


def test_what_is_no_prefill_is_refused():
    q, k = torch.randn(2, 1, 3, 4), torch.randn(2, 1, 5, 4)
    with pytest.raises(ValueError, match=r"2 rows, as many queries as keys"):
        F.scaled_dot_product_attention(q, k, k, attn_mask=RaggedRows((3, 2)))


def test_it_goes_wherever_a_mask_goes():
    rows = RaggedRows((3, 2))
    assert rows.to("cpu", torch.float16) is rows


class Largest(TorchDispatchMode):
    """The most numbers in a tensor that was made."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(one, Tensor):
                self.numbers = max(self.numbers, one.numel())
        return out


def largest_in_the_llm(model: Any, batch: dict[str, Tensor]) -> int:
    """The most numbers in a tensor that the text model makes in a prefill."""
    text, largest = installed_on(model).family.language_model, Largest()
    handles = [
        text.register_forward_pre_hook(lambda *_: largest.__enter__() and None),
        text.register_forward_hook(lambda *_: largest.__exit__(None, None, None)),
    ]
    with torch.no_grad():
        model(**batch)
    for handle in handles:
        handle.remove()
    return largest.numbers


@pytest.mark.parametrize("kind", KINDS)
def test_no_prefill_makes_a_tensor_of_all_pairs(kind, monkeypatch):
    model, frames = stock_model(kind), 40
    apply(model, PruneConfig.from_dict({"llm": {"method": "fixed", "keep": 0.9, "layers": [0.6]}}))
    batch = inputs(kind, clips(kind, 3, frames), [[7], [8, 9, 7, 8], [9, 9]])
    tokens = batch["input_ids"].shape[1]
    assert largest_in_the_llm(model, batch) < tokens**2
    masks = []
    monkeypatch.setattr(
        "videoprune.plug.llm_pass.RaggedRows", lambda n: masks.append(dense_mask(n)) or masks[-1]
    )
    assert largest_in_the_llm(model, batch) >= 3 * tokens**2  # as it was with a mask
    assert masks


def dense_mask(lengths: list[int]) -> Tensor:
    longest = max(lengths)
    return causal_mask(torch.arange(longest) >= longest - torch.tensor(lengths)[:, None], torch.float32)
