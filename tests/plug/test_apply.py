"""`apply` and `remove` on tiny stock models of every family: off is off, and pruned runs equal slow masked ones."""

from __future__ import annotations

import warnings

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from tests.plug.stock import BUILDERS, clips, inputs, stock_model, text_config
from videoprune.config import PruneConfig
from videoprune.plug.apply import apply, remove
from videoprune.plug.current_pass import trace
from videoprune.plug.llm_pass import Prefill

KINDS = sorted(BUILDERS)
EVO = {"method": "evoprune", "keep": 0.5}
FIXED = {"method": "fixed", "keep": 0.6, "layers": [0.2, 0.6]}
ADAPTIVE = {"method": "adaptive", "lambda_": 6.0, "layers": [0.2, 0.6], "top_heads": 2}
QUESTIONS = [[7, 8, 9], [10, 11], [12], [13, 14, 15, 16, 17]]


def config(**parts: dict) -> PruneConfig:
    return PruneConfig.from_dict(parts)


def batch_for(kind: str, rows: int = 2, frames: int = 3):
    made = clips(kind, rows, frames)
    return inputs(kind, made, QUESTIONS[:rows]), made


@torch.no_grad()
def run(model, batch, new: int = 0):
    if new:
        return model.generate(**batch, max_new_tokens=new, do_sample=False)
    return model(**batch).logits


def traced(model, batch):
    """The logits, and a trace for each row."""
    with trace() as found:
        logits = run(model, batch)
    return logits, found


def parts_of(model):
    """What the model and every module in it hold of their own, hooks included."""
    return [
        (sorted(m.__dict__), len(m._forward_hooks), len(m._forward_pre_hooks), getattr(m, "config", None))
        for m in model.modules()
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_keep_all_is_the_stock_model_and_remove_restores_every_bit(kind, attention):
    model, (batch, _) = stock_model(kind, attention), batch_for(kind)
    before, text = run(model, batch), run(model, batch, 5)
    state = parts_of(model)
    apply(model, "none")
    real = batch["attention_mask"].bool()
    assert torch.allclose(run(model, batch)[real], before[real], atol=1e-5)
    assert torch.equal(run(model, batch, 5), text)
    apply(model, config(encoder=EVO, llm=FIXED))
    assert not torch.allclose(run(model, batch)[:, -1], before[:, -1], atol=1e-3)
    remove(model)
    assert torch.equal(run(model, batch), before)
    assert torch.equal(run(model, batch, 5), text)
    assert parts_of(model) == state


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("llm", [FIXED, ADAPTIVE], ids=["fixed", "adaptive"])
def test_a_batch_equals_its_rows_alone(kind, llm):
    model, (batch, made) = stock_model(kind), batch_for(kind, 4)
    if llm is ADAPTIVE:
        llm = {**llm, "lambda_": 9.0 if kind.startswith("qwen") else 6.0}
    apply(model, config(encoder=EVO, llm=llm))
    (together, traces), text = traced(model, batch), run(model, batch, 4)
    layers = [t.llm_layers for t in traces]
    if llm["method"] == "adaptive":
        assert len(set(layers)) > 1, "rows should keep different counts"
    for i, clip in enumerate(made):
        alone = inputs(kind, [clip], [QUESTIONS[i]])
        logits, (one,) = traced(model, alone)
        assert torch.allclose(logits[0, -1], together[i, -1], atol=1e-5)
        assert one.as_dict() == traces[i].as_dict()
        new = run(model, alone, 4)[0, -4:]
        assert torch.equal(new, text[i, -4:])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["evoprune", "tome", "meteor", "random", "uniform"])
def test_counts_are_exact_and_sdpa_equals_eager(kind, method):
    if kind == "llava_onevision" and method == "meteor":
        pytest.skip("refused by name, see below")
    prune = config(encoder={"method": method, "keep": 0.4}, llm=FIXED)
    batch, _ = batch_for(kind)
    found = []
    for attention in ("sdpa", "eager"):
        model = apply(stock_model(kind, attention), prune)
        logits, traces = traced(model, batch)
        found.append(logits)
        units = {t.encoder["vision"][0] // 3 for t in traces}  # of a frame
        assert len(units) == 1
        kept = 3 * max(1, round(0.4 * units.pop()))
        assert [t.encoder["vision"][1] for t in traces] == [kept] * 2
        expected = kept
        if kind == "llava_onevision":
            expected = (
                round(0.4 * 3 * 16) + 1
            )  # pooled to 16 a frame, one budget for the clip, and the newline
        assert [t.fused for t in traces] == [t.llm_layers[0] for t in traces] == [expected] * 2
        assert traces[0].llm_layers[-1] < expected
    assert torch.allclose(found[0][:, -1], found[1][:, -1], atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["evoprune", "tome", "uniform"])
def test_dropping_equals_a_full_run_with_those_keys_masked(kind, method, monkeypatch):
    """The stock text model on the whole prompt, with a mask per layer that hides what had left by then."""
    model, (batch, _) = stock_model(kind), batch_for(kind)
    language, seen, orders = apply_parts(model), {}, []
    language.register_forward_pre_hook(lambda m, a, k: seen.update(k), with_kwargs=True)  # before ours
    before_layer = Prefill.before_layer

    def noted(self, index, module, args, kwargs):
        out = before_layer(self, index, module, args, kwargs)
        orders.append((self.order.clone(), self.valid.clone()))
        return out

    monkeypatch.setattr(Prefill, "before_layer", noted)
    apply(model, config(encoder={"method": method, "keep": 0.5}, llm=FIXED))
    with torch.no_grad():
        pruned = model(**batch).logits
    full = {k: v for k, v in seen.items() if k not in ("cache", "past_key_values")}
    remove(model)
    entered = batch["attention_mask"].bool() & ~full["inputs_embeds"][..., 0].isnan()
    most = int(entered.sum(1).max())
    # Each row's own places at the right end; what stands in front of a shorter row is no token.
    rows = [torch.where(row)[0] for row in entered]
    places = torch.stack([torch.cat([row.new_zeros(most - len(row)), row]) for row in rows])
    hooks = []
    for layer, (order, valid) in zip(language.layers, orders, strict=True):
        left = torch.zeros(full["inputs_embeds"].shape[:2], dtype=torch.bool)
        left.scatter_(1, places.gather(1, order), valid)
        n = left.shape[1]
        allowed = torch.ones(n, n, dtype=torch.bool).tril() & left[:, None, :]
        bias = torch.zeros(allowed.shape).masked_fill_(~allowed, torch.finfo(torch.float32).min)[:, None]
        hooks.append(
            layer.register_forward_pre_hook(
                lambda m, a, k, b=bias: (a, {**k, "attention_mask": b}), with_kwargs=True
            )
        )
    full["inputs_embeds"] = full["inputs_embeds"].nan_to_num()
    if full.get("deepstack_visual_embeds"):
        full["deepstack_visual_embeds"] = [x.nan_to_num() for x in full["deepstack_visual_embeds"]]
    with torch.no_grad():
        hidden = language(**{**full, "use_cache": False}).last_hidden_state
        masked = model.lm_head(hidden)
    at_end = places.gather(1, orders[-1][0])
    for row in range(2):
        real = at_end[row][orders[-1][1][row]]
        assert len(real) < full["inputs_embeds"].shape[1]
        assert torch.allclose(pruned[row, real], masked[row, real], atol=1e-5)


def apply_parts(model):
    return model.model.text_model if hasattr(model.model, "text_model") else model.model.language_model


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_turn_continues_the_first(kind):
    """Two calls with one cache: the first tokens stay, the second turn sees what was kept, at the same positions."""
    model, (batch, _) = stock_model(kind), batch_for(kind, 1)
    apply(model, config(encoder=EVO, llm=FIXED))
    ids, second = two_turns(model, batch)
    assert second.shape[1] == ids.shape[1] + 3
    assert torch.equal(second[:, : ids.shape[1]], ids)
    # The LLM's choice of tokens depends on the text, the encoder's does not: there both turns equal one prompt.
    apply(model, config(encoder=EVO))
    ids, second = two_turns(model, batch)
    assert torch.equal(second, run(model, {**batch, **prompt_of(batch, ids)}, 3))


def two_turns(model, batch):
    """The prompt of the second turn, and what came out with the first one's cache."""
    with torch.no_grad():
        first = model.generate(**batch, max_new_tokens=3, do_sample=False, return_dict_in_generate=True)
        ids = torch.cat([first.sequences, torch.tensor([[21, 22, 23]])], 1)
        again = prompt_of(batch, ids)
        return ids, model.generate(
            **again, past_key_values=first.past_key_values, max_new_tokens=3, do_sample=False
        )


def prompt_of(batch, ids):
    """What a model needs of a longer prompt that begins as that of `batch`."""
    found = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if "mm_token_type_ids" in batch:
        types = torch.zeros_like(ids)
        types[:, : batch["input_ids"].shape[1]] = batch["mm_token_type_ids"]
        found["mm_token_type_ids"] = types.int()
    return found


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl", "video_llama_3"])
def test_clips_of_other_lengths_and_sizes_in_one_batch(kind):
    model = apply(stock_model(kind), config(encoder=EVO, llm=FIXED))
    made = clips(kind, 1, 2) + clips(kind, 1, 4, seed=1)
    together = run(model, inputs(kind, made, QUESTIONS[:2]))
    for i, clip in enumerate(made):
        alone = run(model, inputs(kind, [clip], [QUESTIONS[i]]))
        assert torch.allclose(alone[0, -1], together[i, -1], atol=1e-5)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="model_type='qwen2'"):
        apply(Qwen2ForCausalLM(Qwen2Config(**text_config())), "none")
    model = stock_model("llava_onevision")
    with pytest.raises(ValueError, match=r"encoder.method='meteor'; allowed for llava_onevision"):
        apply(model, config(encoder={"method": "meteor", "keep": 0.5}))
    with pytest.raises(ValueError, match="preset='fast'"):
        apply(model, "fast")


def test_a_refused_apply_changes_nothing():
    model, (batch, _) = stock_model("llava_onevision"), batch_for("llava_onevision")
    state = parts_of(model)
    with pytest.raises(ValueError, match="allowed for llava_onevision"):
        apply(model, config(encoder={"method": "meteor", "keep": 0.5}))
    assert parts_of(model) == state
    pruned = run(apply(model, config(encoder=EVO)), batch)
    with pytest.raises(ValueError, match="allowed for llava_onevision"):
        apply(model, config(encoder={"method": "meteor", "keep": 0.5}))
    assert torch.equal(run(model, batch), pruned)


def test_a_stock_model_leaves_no_trace():
    batch, _ = batch_for("internvl")
    assert traced(stock_model("internvl"), batch)[1] == []
    assert traced(remove(apply(stock_model("internvl"), "none")), batch)[1] == []


@pytest.mark.parametrize("kind", KINDS)
def test_each_prefill_has_its_traces_and_no_step_has_any(kind):
    model, (batch, _) = apply(stock_model(kind), config(encoder=EVO, llm=FIXED)), batch_for(kind)
    with trace() as found:
        run(model, batch, 4)
        generated = list(found)
        run(model, batch)
    assert len(generated) == 2
    assert len(found) == 4
    assert [t.as_dict() for t in found[2:]] == [t.as_dict() for t in generated]
    assert traced(model, batch)[1] is not found
    assert len(found) == 4, "a trace ends with its block"


def test_presets_warn_that_lambda_is_missing_and_keep_their_share():
    model, (batch, _) = stock_model("qwen3_vl"), batch_for("qwen3_vl")
    with pytest.warns(UserWarning, match="lambda_=null"):
        apply(model, "balanced")
    layers = traced(model, batch)[1][0].llm_layers
    assert layers[0] == round(3 * 12 * 0.5 * 0.75)
    remove(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        apply(model, config(encoder=EVO))
