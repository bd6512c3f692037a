"""Every setting does something, or is refused by its name: on every family of stock models.

A table says, for each field, a configuration and another value of that field. A field without an entry fails.
"""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import pytest
import torch

from tests.plug.stock import KINDS, clips, inputs, stock_model
from videoprune import apply, trace
from videoprune.config import EncoderPrune, FusionPrune, LLMPrune, PruneConfig
from videoprune.config import preset as preset_of
from videoprune.prune.registry import names

EVO = {"encoder.method": "evoprune", "encoder.keep": 0.5, "encoder.schedule": "mean"}
FUSION = {"fusion.method": "cooperative", "fusion.keep": 0.5}
FIXED = {"llm.method": "fixed", "llm.keep": 0.5, "llm.layers": [0.2, 0.6]}
ADAPTIVE = {"llm.method": "adaptive", "llm.lambda_": 6.0, "llm.layers": [0.2, 0.6], "llm.top_heads": 2}
# field -> [(the rest, one value, another one)]: the two must not give the same.
FIELDS: dict[str, list[tuple[dict[str, Any], Any, Any]]] = {
    "encoder.method": [({"encoder.keep": 0.5, "encoder.schedule": "mean"}, "none", "evoprune")],
    "encoder.keep": [
        (EVO, 0.5, 0.75),
        ({"encoder.method": "random"}, 0.5, 0.75),
        ({"encoder.method": "divprune"}, 0.5, 0.75),
    ],
    "encoder.budget": [
        ({"encoder.method": "meteor", "encoder.keep": 0.5}, "equal", "rank"),
        (EVO, "equal", "rank"),
    ],
    "encoder.schedule": [(EVO, "mean", "last")],
    "encoder.merges": [(EVO, 0, 2)],
    "encoder.metric": [(EVO, "hidden", "keys")],
    "encoder.lambda_div": [(EVO, 0.0, 2.0)],
    "encoder.lambda_att": [(EVO, 0.0, 0.5)],
    "encoder.critical_ratio": [(EVO, 0.0, 0.4)],
    "encoder.neighbors": [({**EVO, "encoder.lambda_div": 2.0}, 1, 3)],
    "encoder.proportional_attention": [(EVO, True, False)],
    "encoder.frames": [(EVO, "equal", "novelty")],
    "encoder.temporal": [({**EVO, "encoder.still": -0.9}, 0.0, 0.7)],
    "encoder.still": [({**EVO, "encoder.temporal": 0.7}, -0.9, 0.999)],
    "fusion.method": [
        ({"fusion.keep": 0.5}, "none", "cooperative"),
        ({"fusion.keep": 0.5}, "random", "uniform"),
    ],
    "fusion.keep": [(FUSION, 0.5, 0.75), ({**EVO, **FUSION}, 0.5, 0.75)],
    "fusion.redundancy": [(FUSION, "mean", "sum")],
    "fusion.scope": [(FUSION, "frame", "clip")],
    "llm.method": [(FIXED, "none", "fixed"), (FIXED, "random", "uniform"), ({**FIXED, **EVO}, "none", "aim")],
    "llm.keep": [(FIXED, 0.5, 0.8)],
    "llm.layers": [(FIXED, [0.2, 0.6], [0.4, 0.8])],
    "llm.ratios": [(FIXED, [], [0.9, 0.2])],
    "llm.lambda_": [(ADAPTIVE, 1.0, 20.0)],
    "llm.heads": [(ADAPTIVE, "top", "all"), ({**FIXED, "llm.top_heads": 1}, "top", "all")],
    "llm.top_heads": [(ADAPTIVE, 1, 4), (FIXED, 1, 4)],
    "llm.queries": [(FIXED, "text", "last")],
    "llm.attention": [(FIXED, "next", "previous")],
    "llm.rounding": [({**FIXED, "llm.ratios": [0.62, 0.28]}, "up", "down")],
    "seed": [
        ({"encoder.method": "random", "encoder.keep": 0.5}, 0, 1),
        ({"fusion.method": "random", "fusion.keep": 0.5}, 0, 1),
        ({"llm.method": "random", "llm.keep": 0.5}, 0, 1),
    ],
}
# Fields that are about several encoders: presets that set them run on any model, and a warning names them.
SEVERAL = {"encoder.budget", "fusion.redundancy", "fusion.scope"}
PARTS = {"encoder": EncoderPrune, "fusion": FusionPrune, "llm": LLMPrune}
CASES = [
    pytest.param(field, rest, one, other, id=f"{field}-{i}")
    for field, tries in FIELDS.items()
    for i, (rest, one, other) in enumerate(tries)
]


def test_every_field_has_an_entry():
    """A new field, or one renamed, needs a line above."""
    found = {f"{part}.{f.name}" for part, kind in PARTS.items() for f in dataclasses.fields(kind)}
    found |= {f.name for f in dataclasses.fields(PruneConfig)} - PARTS.keys()
    assert set(FIELDS) == found


def batch_of(kind: str):
    """Text behind the clip that every head sees otherwise; frames of which one is nearly the one before."""
    made = clips(kind, 1, 4)
    name = "pixel_values" if "pixel_values" in made[0] else "pixel_values_videos"
    x = made[0][name]
    frames = x[0] if x.ndim == 5 else x if kind == "internvl" else x.view(4, -1, x.shape[-1])
    frames[1] = frames[0] + 0.2 * torch.randn(frames[0].shape, generator=torch.Generator().manual_seed(5))
    return inputs(kind, made, [[7, 8, 9, 10, 11]])


MODELS: dict[str, Any] = {}


def outcome(kind: str, changes: dict[str, Any]) -> tuple[torch.Tensor, str, str]:
    """Logits behind the prompt, what was kept where, and warnings; the model is made once for each family."""
    model = MODELS.setdefault(kind, stock_model(kind))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        apply(model, PruneConfig().replace(**changes))
    with torch.no_grad(), trace() as traces:
        logits = model(**batch_of(kind)).logits[:, -5:]
    said = " ".join(str(w.message) for w in warned)
    return logits, str([(t.encoder, t.fused, t.llm_layers) for t in traces]), said


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("field", "rest", "one", "other"), CASES)
def test_a_setting_has_an_effect_or_is_refused_by_name(kind, field, rest, one, other):
    found = []
    for value in (one, other):
        try:
            found.append(outcome(kind, {**rest, field: value}))
        except ValueError as error:
            said = str(error)
            assert "allowed" in said
            assert any(name in said for name in (field, *rest)), (
                "refused, but not by the name of what was set"
            )
            assert value == other or field not in said, "what the table starts from is refused"
            return
    if field in SEVERAL:
        assert any(f"{field}=" in said and "no effect" in said for *_, said in found)
        return
    same = torch.equal(found[0][0], found[1][0]) and found[0][1] == found[1][1]
    assert not same, f"{field}={one!r} and {other!r}: the same logits, the same counts"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("preset", ["light", "balanced", "aggressive", "aim"])
def test_llm_method_none_drops_nothing_in_the_llm(kind, preset):
    changes = preset_of(preset).replace(**{"llm.method": "none"})
    with torch.no_grad(), trace() as traces:
        apply(stock_model(kind), changes)(**batch_of(kind))
    (one,) = traces
    assert one.fused < one.dense
    assert set(one.llm_layers) == {one.fused}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", PARTS)
def test_method_none_drops_nothing_whatever_the_share(kind, part):
    """Beside pruning in the other parts. Runs without `trace`: logits alone tell."""
    model, batch, found = stock_model(kind), batch_of(kind), []
    whole = {**EVO, **FUSION, **FIXED}
    others = {key: value for key, value in whole.items() if not key.startswith(part)}
    for changes in (others, {**others, f"{part}.keep": 0.5}, {**whole, f"{part}.keep": 1.0}, whole):
        apply(model, PruneConfig().replace(**changes))
        with torch.no_grad():
            found.append(model(**batch).logits[:, -5:])
    assert torch.allclose(found[1], found[0], atol=1e-5), "none, and a share"
    assert torch.allclose(found[2], found[0], atol=1e-5), "a method that keeps all"
    assert not torch.allclose(found[3], found[0], atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", PARTS)
def test_every_method_prunes_or_is_refused_by_name(kind, part):
    """Every method of the registry, at a share of a half."""
    plain = outcome(kind, {})
    for name in names(part):
        changes = {f"{part}.method": name, f"{part}.keep": 0.5}
        if name == "evoprune":
            changes["encoder.schedule"] = "mean"
        try:
            (logits, kept, _), refusal = outcome(kind, changes), ""
        except ValueError as error:
            refusal = str(error)
        if refusal:
            assert f"{part}.method={name!r}" in refusal
            continue
        assert kept != plain[1], f"{name}: as many tokens as without"
        assert not torch.equal(logits, plain[0])
