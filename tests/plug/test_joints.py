"""What transformers must have is looked up when pruning is put on: what is missing is named, and nothing changes."""

from __future__ import annotations

import inspect
import re
import warnings
from typing import Any

import pytest
import torch
import transformers

from tests.plug.stock import BUILDERS, stock_model
from tests.plug.test_apply import EVO, FIXED, batch_for, config, parts_of, run
from tests.plug.test_llm_pass import language_model
from videoprune.plug import joints
from videoprune.plug.apply import apply, remove
from videoprune.plug.joints import decoder_layers, text_joints
from videoprune.tested_versions import TRANSFORMERS

KINDS = sorted(BUILDERS)
WORKS = re.escape(f"allowed: transformers {TRANSFORMERS[0]} to {TRANSFORMERS[1]}")
PRUNE = config(encoder=EVO, llm=FIXED)


def refused(model: Any, name: str) -> None:
    """`apply` names what is missing and the versions that work, and leaves the model as it is."""
    state = parts_of(model)
    said = rf"transformers {re.escape(transformers.__version__)}: \w+ has no {re.escape(name)}; {WORKS}"
    with pytest.raises(ValueError, match=said):
        apply(model, PRUNE)
    assert parts_of(model) == state


def other_forward(module: Any, monkeypatch, dropped: tuple[str, ...]) -> None:
    """A release whose `forward` lacks some parameters; it works as before."""
    cls, stock = type(module), type(module).forward

    def forward(self, *args, **kwargs):
        return stock(self, *args, **kwargs)

    kept = [
        p
        for n, p in inspect.signature(stock).parameters.items()
        if n not in dropped and p.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    forward.__signature__ = inspect.Signature(kept)
    monkeypatch.setattr(cls, "forward", forward)


def text_of(model: Any) -> Any:
    return model.model.text_model if hasattr(model.model, "text_model") else model.model.language_model


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_model_without_a_cache_is_refused(kind, monkeypatch):
    model, (batch, _) = stock_model(kind), batch_for(kind, 1)
    before = run(model, batch)
    with monkeypatch.context() as patched:
        other_forward(text_of(model), patched, ("cache", "past_key_values"))
        refused(model, "forward(cache=)")
    assert torch.equal(run(model, batch), before)


@pytest.mark.parametrize("kind", KINDS)
def test_a_core_that_takes_no_features_is_refused(kind, monkeypatch):
    model, (batch, _) = stock_model(kind), batch_for(kind, 1)
    before = run(model, batch)
    with monkeypatch.context() as patched:
        other_forward(model.model, patched, ("mm_encoder_outputs",))
        refused(model, "forward(mm_encoder_outputs=)")
    assert torch.equal(run(model, batch), before)


def test_a_core_without_features_of_its_own_is_refused(monkeypatch):
    model = stock_model("internvl")
    for cls in type(model.model).__mro__:
        for name in ("get_image_features", "get_video_features"):
            if name in cls.__dict__:
                monkeypatch.delattr(cls, name)
    refused(model, "get_image_features or get_video_features")


def vision_attention(model: Any) -> Any:
    """The attention module of the encoder's last block."""
    names = [
        n for n, m in model.named_modules() if hasattr(m, "config") and type(m).__name__.endswith("Attention")
    ]
    language = text_of(model)
    inside = {id(m) for m in language.modules()}
    return [m for n in names if id(m := model.get_submodule(n)) not in inside][-1]


@pytest.mark.parametrize("kind", KINDS)
def test_an_attention_without_a_configuration_is_refused(kind):
    """The last block's: those before it must not be left with ours."""
    model = stock_model(kind)
    del vision_attention(model).config
    refused(model, "config")


@pytest.mark.parametrize("kind", KINDS)
def test_an_attention_that_is_not_chosen_by_name_is_refused(kind):
    model = stock_model(kind)
    vision_attention(model).config = object()
    refused(model, "config._attn_implementation")


@pytest.mark.parametrize("part", ["q_proj", "k_proj", "head_dim"])
def test_a_layer_without_its_parts_is_refused(part):
    model = stock_model("qwen3_vl")
    delattr(text_of(model).layers[-1].self_attn, part)
    refused(model, part)


@pytest.mark.parametrize("part", ["self_attn", "input_layernorm"])
def test_a_layer_of_another_make_is_refused(part):
    model = stock_model("llava_onevision")
    delattr(text_of(model).layers[-1], part)
    refused(model, part)


def test_a_text_model_without_layers_is_refused():
    with pytest.raises(ValueError, match=rf"Linear has no model.layers or .* or layers; {WORKS}"):
        decoder_layers(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_a_cache_is_found_under_either_name(name):
    found = text_joints(language_model().base_model)
    assert found.cache({name: "kept", "use_cache": True}) == "kept"
    assert found.cache({"cache": None, "past_key_values": None}) is None
    assert set(found.cache_names) == {"cache", "past_key_values"}


def test_a_refused_change_leaves_the_old_pruning_on(monkeypatch):
    model, (batch, _) = stock_model("internvl"), batch_for("internvl", 1)
    before = run(model, batch)
    pruned = run(apply(model, PRUNE), batch)
    with pytest.raises(ValueError, match="preset='fast'"):
        apply(model, "fast")
    assert torch.equal(run(model, batch), pruned)
    assert torch.equal(run(remove(model), batch), before)


@pytest.mark.parametrize("version", ["5.99.0", "6.0.0", "6.0.0.dev0", "10.1"])
def test_an_untested_newer_release_warns_and_goes_on(version, monkeypatch):
    model, (batch, _) = stock_model("internvl"), batch_for("internvl", 1)
    monkeypatch.setattr(joints.transformers, "__version__", version)
    with pytest.warns(UserWarning, match=rf"transformers {version} is newer than what was tested \(up to"):
        apply(model, PRUNE)
    run(model, batch)


@pytest.mark.parametrize("version", [*TRANSFORMERS, f"{TRANSFORMERS[1]}.7"])
def test_a_tested_release_is_silent(version, monkeypatch):
    monkeypatch.setattr(joints.transformers, "__version__", version)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        apply(stock_model("internvl"), PRUNE)
