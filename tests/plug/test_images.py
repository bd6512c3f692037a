"""Images on pruned stock models: alone, several, beside a video; in `generate` as in `forward`, counts exact."""

from __future__ import annotations

import pytest
import torch

from tests.plug.stock import (
    EVERYWHERE,
    GREEDY,
    IMAGE,
    KINDS,
    VIDEO,
    beside,
    clips,
    images,
    inputs,
    stock_model,
)
from videoprune import apply, remove, trace

pytestmark = pytest.mark.filterwarnings("ignore:llm.lambda_")
PRUNES = ["none", "light", "balanced", "aggressive", EVERYWHERE]
SHOWN = ("image", "two images", "image, video", "video, two images")
CASES = [(p, w) for p in PRUNES for w in SHOWN if p in ("balanced", EVERYWHERE) or w == "image, video"]


def shown(kind: str, what: str, seed: int = 0):
    """Two images differ in size where the family has sizes."""
    parts = []
    for word in what.split(", "):
        clip = word == "video"
        parts.append(
            clips(kind, 1, 2, seed=seed)[0] if clip else images(kind, [1, 2] if "two" in word else [1], seed)
        )
    return beside(kind, *parts)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("prune", "what"), CASES, ids=lambda p: p if isinstance(p, str) else "everywhere")
def test_generate_says_what_forward_does(kind, what, prune):
    """One token at a time by whole calls would prune anew; so the first token, by its logits."""
    model, batch = stock_model(kind), inputs(kind, [shown(kind, what)], [[7, 8, 9]])
    with torch.no_grad():
        before = model(**batch).logits
        apply(model, prune)
        logits = model(**batch).logits
    assert logits.shape == before.shape
    assert logits[:, -1].isfinite().all()
    if prune == "none":
        assert torch.allclose(logits, before, atol=1e-5)
    else:
        assert not torch.allclose(logits[:, -1], before[:, -1], atol=1e-4)
    out = model.generate(
        **batch, **GREEDY, max_new_tokens=4, return_dict_in_generate=True, output_logits=True
    )
    assert torch.allclose(out.logits[0], logits[:, -1], atol=1e-5)
    remove(model)
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["image", "image, video", "two images"])
def test_prompts_in_a_batch_equal_prompts_alone(kind, what):
    made = [shown(kind, what, seed) for seed in (0, 1)]
    model = apply(stock_model(kind), EVERYWHERE)
    how = {**GREEDY, "max_new_tokens": 3}
    with torch.no_grad():
        batch = inputs(kind, made, [[7, 8, 9], [10]])
        together, text = model(**batch).logits[:, -1], model.generate(**batch, **how)[:, -3:]
        for i, one in enumerate(made):
            alone = inputs(kind, [one], [[7, 8, 9] if i == 0 else [10]])
            assert torch.allclose(model(**alone).logits[0, -1], together[i], atol=1e-4)
            assert torch.equal(model.generate(**alone, **how)[0, -3:], text[i])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", SHOWN)
@pytest.mark.parametrize("call", ["forward", "generate"])
def test_counts(kind, what, call):
    """Every picture loses tokens, and `trace` tells of all of them."""
    batch = inputs(kind, [shown(kind, what)], [[7, 8, 9]])
    dense = int(torch.isin(batch["input_ids"], torch.tensor([IMAGE, VIDEO])).sum())
    found = []
    for prune in ("none", EVERYWHERE):
        model = apply(stock_model(kind), prune)
        with torch.no_grad(), trace() as traces:
            model(**batch) if call == "forward" else model.generate(**batch, **GREEDY, max_new_tokens=2)
        assert len(traces) == 1
        found += traces
    off, on = found
    assert off.dense == on.dense == off.fused == dense
    assert set(off.llm_layers) == {dense}
    assert on.llm_layers[0] == on.fused
    assert on.llm_layers[-1] < on.fused < dense
    # Half, then three quarters; ends of rows of LLaVA's pictures stay, and each part rounds by itself.
    marks = 7 if kind == "llava_onevision" else 6
    rows = (("two" in what) + 1) * marks if kind.startswith("llava") and "image" in what else 0
    assert on.fused == pytest.approx(0.375 * dense, abs=1.5 + 0.625 * rows)
