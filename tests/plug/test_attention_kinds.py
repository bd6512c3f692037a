"""Attention implementations chosen after `apply`, gradients switched on, and numbers that are none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.plug.stock import EVERYWHERE, GREEDY, KINDS, clips, inputs, stock_model
from videoprune import apply, remove

pytestmark = pytest.mark.filterwarnings("ignore:llm.lambda_")
PRESETS = ("light", "balanced", "aggressive")


def batch_of(kind: str, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    made = inputs(kind, clips(kind, 2, 2), [[7, 8, 9], [10]])
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in made.items()}


@torch.no_grad()
def logits(model: Any, batch: dict[str, Tensor]) -> Tensor:
    return model(**batch).logits


def vision_of(model: Any) -> Any:
    return next(
        getattr(model.model, n) for n in ("visual", "vision_tower", "vision_model") if hasattr(model.model, n)
    )


def language_of(model: Any) -> Any:
    return model.model.text_model if hasattr(model.model, "text_model") else model.model.language_model


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("before", "after"), [("sdpa", "eager"), ("eager", "sdpa")])
@pytest.mark.parametrize("prune", ["none", EVERYWHERE], ids=["none", "everywhere"])
def test_attention_chosen_after_apply_equals_before(kind, before, after, prune):
    batch = batch_of(kind)
    first = apply(stock_model(kind, after), prune)
    then = apply(stock_model(kind, before), prune)
    logits(then, batch)
    then.set_attn_implementation(after)
    assert torch.equal(logits(then, batch), logits(first, batch))
    assert torch.equal(
        then.generate(**batch, **GREEDY, max_new_tokens=3),
        first.generate(**batch, **GREEDY, max_new_tokens=3),
    )
    remove(then)
    chosen = [then.config, vision_of(then).config, language_of(then).config]
    assert {c._attn_implementation for c in chosen} == {after}, (
        "remove brought back what the user had changed"
    )
    assert torch.equal(logits(then, batch), logits(stock_model(kind, after), batch))


@pytest.mark.parametrize("kind", KINDS)
def test_attention_set_again_to_what_it_was_goes_on_pruning(kind):
    batch, model = batch_of(kind), apply(stock_model(kind), EVERYWHERE)
    pruned = logits(model, batch)
    model.set_attn_implementation("sdpa")
    assert torch.equal(logits(model, batch), pruned)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prune", ["none", *PRESETS])
def test_gradients_switched_on_change_nothing(kind, prune):
    batch, model = batch_of(kind), apply(stock_model(kind), prune)
    expected = logits(model, batch)
    assert torch.is_grad_enabled()
    found = model(**batch).logits
    assert found.requires_grad
    assert torch.allclose(found.detach(), expected, atol=1e-6)


def broken(model: Any, value: float) -> Any:
    """One channel of the first patch of the encoder's last block but one overflows."""
    vision = vision_of(model)
    blocks = vision.blocks if hasattr(vision, "blocks") else vision.encoder
    blocks = next((getattr(blocks, n) for n in ("layers", "layer") if hasattr(blocks, n)), blocks)

    def overflow(module: Any, args: Any, out: Any) -> Any:
        hidden = (out[0] if isinstance(out, tuple) else out).clone()
        hidden[..., -1:, 3] = value
        return (hidden, *out[1:]) if isinstance(out, tuple) else hidden

    blocks[len(blocks) - 3].register_forward_hook(overflow)
    return model


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32], ids=["fp16", "bf16", "fp32"]
)
def test_an_encoder_that_overflows_is_named_or_left_to_the_stock_model(kind, value, dtype):
    """NaN must never pass for the mark of a dropped token."""
    batch = batch_of(kind, dtype)
    stock = logits(broken(stock_model(kind).to(dtype), value), batch)[:, -1]
    assert stock.isnan().any(), "nothing broke: the test would say nothing"
    off = apply(broken(stock_model(kind).to(dtype), value), "none")
    assert torch.equal(logits(off, batch)[:, -1].isnan(), stock.isnan())
    off.generate(**batch, **GREEDY, max_new_tokens=2)  # as the stock model, whatever it says
    on = apply(broken(stock_model(kind).to(dtype), value), EVERYWHERE)
    for call in (lambda: logits(on, batch), lambda: on.generate(**batch, **GREEDY, max_new_tokens=2)):
        with pytest.raises(ValueError, match=r"(?i)nan|not finite|inf"):
            call()
    clean = apply(stock_model(kind).to(dtype), EVERYWHERE)
    assert logits(clean, batch)[:, -1].isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_an_overflow_in_one_row_of_two_is_named_too(kind):
    batch = batch_of(kind)
    name = "pixel_values" if "pixel_values" in batch else "pixel_values_videos"
    batch[name][-1].flatten()[-1] = float("nan")
    stock = logits(stock_model(kind), batch)[:, -1].isnan().any(-1)
    assert stock.tolist() == [False, True]
    off = logits(apply(stock_model(kind), "none"), batch)[:, -1].isnan().any(-1)
    assert off.tolist() == [False, True]
    with pytest.raises(ValueError, match=r"(?i)nan|not finite|inf"):
        logits(apply(stock_model(kind), EVERYWHERE), batch)


@pytest.mark.parametrize("kind", KINDS)
def test_an_overflow_in_the_llm_alone_is_the_stock_models_own(kind):
    """With `none`: NaN logits, not a refusal that blames the encoder."""
    batch, model = batch_of(kind), apply(stock_model(kind), "none")
    language_of(model).layers[1].register_forward_hook(
        lambda m, a, out: (out[0] * float("nan"), *out[1:]) if isinstance(out, tuple) else out * float("nan")
    )
    assert logits(model, batch)[:, -1].isnan().all()
