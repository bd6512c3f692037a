"""Flash attention, with the kernels replaced by loops: everything around them is transformers' own code."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
import transformers.modeling_flash_attention_utils as utils

from pipelines.measure.launches import launches
from tests.plug.stock import stock_model
from tests.plug.test_apply import ADAPTIVE, EVO, FIXED, KINDS, batch_for, config, run, traced
from videoprune.plug.apply import apply, remove
from videoprune.plug.attention import KeyBias, attend, biased, sdpa

CALLS: Counter[str] = Counter()


def flash_attn_func(q, k, v, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1)):
    """q, k, v (B, n, H, d): causal from the lower right corner."""
    rows = zip(q, k, v, strict=True)
    return torch.stack([_row(*row, softmax_scale, causal) for row in rows])


def flash_attn_varlen_func(
    q,
    k,
    v,
    cu_seqlens_q,
    cu_seqlens_k,
    max_seqlen_q,
    max_seqlen_k,
    dropout_p=0.0,
    softmax_scale=None,
    causal=False,
):
    """q, k, v (N, H, d), stretches by their edges."""
    assert max_seqlen_q == cu_seqlens_q.diff().max()
    assert max_seqlen_k == cu_seqlens_k.diff().max()
    stretches = zip(
        q.split(cu_seqlens_q.diff().tolist()),
        k.split(cu_seqlens_k.diff().tolist()),
        v.split(cu_seqlens_k.diff().tolist()),
        strict=True,
    )
    return torch.cat([_row(*one, softmax_scale, causal) for one in stretches])


def _row(q, k, v, scale, causal):
    """One prompt, (n, H, d): every query by itself."""
    CALLS["LLM" if causal else "encoder"] += 1
    assert q.shape[-1] == v.shape[-1]
    repeat = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
    out = torch.empty_like(q)
    for i in range(len(q)):
        seen = len(k) - len(q) + i + 1 if causal else len(k)
        logits = torch.einsum("hd,nhd->hn", q[i].double(), k[:seen].double()) * scale
        out[i] = torch.einsum("hn,nhd->hd", logits.softmax(1), v[:seen].double()).to(q)
    return out


@pytest.fixture(autouse=True)
def kernels(monkeypatch):
    CALLS.clear()
    found = (flash_attn_func, flash_attn_varlen_func, None, utils._pad_input, utils._unpad_input)
    monkeypatch.setattr(utils, "_lazy_imports", lambda *args, **kwargs: found)
    for name in ("_loaded_implementation", "_flash_fn", "_flash_varlen_fn", "_pad_fn", "_unpad_fn"):
        monkeypatch.setattr(utils, name, None)
    monkeypatch.setattr(utils, "_process_flash_kwargs_fn", None)
    monkeypatch.setattr(utils, "_process_with_kvcache_kwargs_fn", None, raising=False)  # not in 5.18
    monkeypatch.setattr(utils, "_flash_with_kvcache_fn", None)


@pytest.mark.parametrize("lengths", [[5], [4, 4, 4], [3, 7, 1]])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("width", [6, 8, 16])
def test_equals_the_padded_form(lengths, biased, width):
    generator = torch.Generator().manual_seed(0)
    n = sum(lengths)
    q, k, v = (torch.randn(2, n, width, generator=generator) for _ in range(3))
    bias = KeyBias(torch.rand(n, generator=generator) * 4) if biased else None
    flash = attend(q, k, v, lengths, scale=0.3, bias=bias, kind="flash_attention_2")
    for kind in ("sdpa", "eager"):
        torch.testing.assert_close(flash, attend(q, k, v, lengths, scale=0.3, bias=bias, kind=kind))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_bias_in_the_width_is_a_mask(dtype):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 9, 12, generator=generator).to(dtype) for _ in range(3))
    bias = torch.arange(1, 10).log()
    wide = biased(q, k, v, KeyBias(bias), 0.3)
    assert {t.shape for t in wide} == {(2, 9, 16)}
    exact = (q.double() @ k.double().mT) * 0.3 + bias
    torch.testing.assert_close(0.3 * wide[0].double() @ wide[1].double().mT, exact, atol=1e-4, rtol=1e-4)
    out = sdpa(*(t[None] for t in wide), None, 0.3)[0, ..., :12]
    expected = (exact.softmax(-1) @ v.double()).to(dtype)
    torch.testing.assert_close(out, expected, atol=1e-5 if dtype == torch.float32 else 1e-2, rtol=0)


def test_blocks_that_share_a_bias_make_its_forms_once():
    q = torch.randn(2, 9, 12)
    bias = KeyBias(torch.arange(1, 10).log())
    biased(q, q, q, bias, 0.3)
    with launches() as found:
        biased(q, q, q, bias, 0.3)
    assert found.kernels == {"aten::cat": 2, "aten::constant_pad_nd": 1}
    assert bias.mask(torch.bfloat16) is bias.mask(torch.bfloat16)
    assert bias.mask(torch.float16).dtype == torch.float16


PRUNED = {
    "none": config(),
    "encoder": config(encoder=EVO),
    "fixed": config(encoder=EVO, llm=FIXED),
    "adaptive": config(llm=ADAPTIVE),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prune", PRUNED)
@pytest.mark.parametrize("rows", [1, 3])
def test_flash_equals_sdpa(kind, prune, rows):
    """Prompts of other lengths, padded on the left; the prefill, and steps with a cache."""
    batch, _ = batch_for(kind, rows)
    real = batch["attention_mask"].bool()
    found = {}
    for attention in ("sdpa", "flash_attention_2"):
        model = stock_model(kind, "sdpa")
        model.config._attn_implementation = attention
        stock = run(model, batch)
        apply(model, PRUNED[prune])
        logits, traces = traced(model, batch)
        found[attention] = logits, [t.as_dict() for t in traces], run(model, batch, 4)
        remove(model)
        assert torch.equal(run(model, batch), stock)
    assert CALLS["LLM"] > 0
    assert CALLS["encoder"] > 0
    sdpa, flash = found.values()
    assert torch.allclose(flash[0][real], sdpa[0][real], atol=1e-4)
    assert flash[1] == sdpa[1]
    assert torch.equal(flash[2], sdpa[2])
