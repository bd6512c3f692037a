"""What questions about a clip share, against prompts that are computed whole: the same logits, traces and caches.

Shapes: B rows.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.plug.stock import EVERYWHERE, KINDS, clips, inputs, stock_model
from videoprune import apply
from videoprune.config import PruneConfig
from videoprune.models.inputs import TEXT, beginnings
from videoprune.plug.current_pass import Pass, passing, trace
from videoprune.plug.installed import installed_on
from videoprune.plug.prefix import Prefix

QUESTIONS = [[7, 8, 9], [10, 11, 12, 13, 14], [9, 9, 7, 6], [15]]
CLIP_OF = [0, 0, 1, 1]


def llm(**settings: Any) -> PruneConfig:
    return PruneConfig.from_dict({"llm": {"keep": 0.6, "layers": [0.4, 0.6], **settings}})


CONFIGS = {
    "none": PruneConfig(),
    "encoder": PruneConfig.from_dict({"encoder": {"method": "evoprune", "keep": 0.5}}),
    "everywhere": EVERYWHERE,
    "fixed": llm(method="fixed"),
    "fixed by the layer before": llm(method="fixed", attention="previous", queries="last", heads="all"),
    "adaptive": llm(method="adaptive", lambda_=3.0),
    "merging": llm(method="holitom"),
    "recycling": llm(method="sparsevlm", attention="previous"),
    "random": llm(method="random"),
}


def prefix_of(model: Any, begin: dict[str, Tensor], tensors: dict[str, Tensor]) -> Prefix:
    """What the model makes of beginnings of prompts."""
    installed = installed_on(model)
    with torch.no_grad():
        return installed.door.begin(Pass(installed, installed.default), model.model, **begin, **tensors)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_shared_as_whole(kind, name, attention):
    if attention == "eager" and name not in ("everywhere", "fixed by the layer before"):
        pytest.skip("sdpa covers it")
    model = stock_model(kind, attention)
    apply(model, CONFIGS[name])
    made = clips(kind, 2, 2)
    batch = inputs(kind, [made[c] for c in CLIP_OF], QUESTIONS)
    alone = inputs(kind, made, [QUESTIONS[0], QUESTIONS[2]])
    placeholders = installed_on(model).family.placeholders
    text, rest = ({k: v for k, v in alone.items() if (k in TEXT) == flag} for flag in (True, False))
    prefix = prefix_of(model, beginnings(text, placeholders), rest)
    how = {"max_new_tokens": 4, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    with torch.no_grad(), trace(places=True) as expected:
        whole = model.generate(**batch, **how)
    installed = installed_on(model)
    shared = Pass(installed, installed.default, prefix=prefix.rows(torch.tensor(CLIP_OF)))
    with torch.no_grad(), passing(shared), trace(places=True) as found:
        again = model.generate(**batch, **how)
    for a, b in zip(again.logits, whole.logits, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    assert torch.equal(again.sequences, whole.sequences)
    for one, other in zip(found, expected, strict=True):
        assert one.as_dict() == other.as_dict()
        assert one.places == other.places


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("kind", KINDS)
def test_grown_as_whole(kind, name):
    """A beginning of which two thirds are known already: the same as the one that is computed at once."""
    model = stock_model(kind)
    apply(model, CONFIGS[name])
    installed = installed_on(model)
    batch = inputs(kind, clips(kind, 1, 3), [QUESTIONS[0]])
    text, rest = ({k: v for k, v in batch.items() if (k in TEXT) == flag} for flag in (True, False))
    begin = beginnings(text, installed.family.placeholders)
    whole = prefix_of(model, begin, rest)
    known = whole.until(begin["input_ids"].shape[1] * 2 // 3)
    assert 0 < known.length < whole.length
    seen: list[int] = []
    watch = installed.door.layers[0].register_forward_hook(lambda m, args, out: seen.append(args[0].shape[1]))
    call = Pass(installed, installed.default, prefix=known)
    with watch, torch.no_grad():
        grown = installed.door.begin(call, model.model, **begin, **rest)
    assert seen == [whole.length - known.length]
    assert whole.until(0) is None
    for field in fields(Prefix):
        one, other = getattr(grown, field.name), getattr(whole, field.name)
        assert type(one) is type(other)
        if _numbers(one):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def _numbers(x: Any) -> bool:
    return isinstance(x, Tensor) or (isinstance(x, tuple) and isinstance(x[0], Tensor))


def test_clips_apart_and_joined_again():
    """Beginnings of two lengths; without padding, then padded to the longest."""
    model = stock_model("qwen3_vl")
    apply(model, CONFIGS["fixed by the layer before"])
    made = [clips("qwen3_vl", 1, n, seed=n)[0] for n in (3, 1)]
    batch = inputs("qwen3_vl", made, [[7], [8, 9]])
    text, rest = ({k: v for k, v in batch.items() if (k in TEXT) == flag} for flag in (True, False))
    prefix = prefix_of(model, beginnings(text, installed_on(model).family.placeholders), rest)
    parts = [prefix.one(i) for i in (0, 1)]
    assert parts[0].length > parts[1].length
    assert all(bool(part.valid.all()) for part in parts)
    again = Prefix.joined(parts)
    assert again.made_with == prefix.made_with
    for name in ("visual", "valid", "places", "embeds", "cos", "sin", "arrived", "before"):
        one, other = getattr(again, name), getattr(prefix, name)
        there = prefix.valid
        assert torch.equal(one[there], other[there]), name
    for name in ("keys", "values"):
        for one, other in zip(getattr(again, name), getattr(prefix, name), strict=True):
            assert torch.equal(one.transpose(1, 2)[prefix.valid], other.transpose(1, 2)[prefix.valid])
    assert len(prefix.keys) == 2  # of five layers, the first cut is before the third
