"""Pruning between the layers of a stock causal LM, against full runs with masks."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

from videoprune.config import LLMPrune, PruneConfig
from videoprune.plug.current_pass import Pass, passing, trace
from videoprune.plug.joints import text_joints
from videoprune.plug.llm_door import LlmDoor
from videoprune.plug.settings import Settings
from videoprune.prune.counts import cut_layers
from videoprune.types import Trace

LAYERS = 6
CONFIGS = {"qwen3": Qwen3Config, "qwen2": Qwen2Config, "llama": LlamaConfig}
METHODS = {
    "adaptive": LLMPrune(method="adaptive", lambda_=6.0, top_heads=2),
    "all_heads": LLMPrune(method="adaptive", lambda_=3.0, heads="all"),
    "last": LLMPrune(method="adaptive", lambda_=6.0, top_heads=2, queries="last"),
    "fixed": LLMPrune(method="fixed", keep=0.5),
    "ratios": LLMPrune(method="fixed", ratios=(0.8, 0.5, 0.2)),
    "previous": LLMPrune(
        method="fixed", ratios=(0.7, 0.4, 0.2), heads="all", queries="last", attention="previous"
    ),
    "aim": LLMPrune(method="aim", ratios=(0.7, 0.4, 0.0), attention="previous"),
    "aim_next": LLMPrune(method="aim", keep=0.5),
    "uniform": LLMPrune(method="uniform", keep=0.5),
}


def language_model(kind: str = "qwen3", attention: str = "sdpa", layers: int = LAYERS):
    torch.manual_seed(2)
    config = CONFIGS[kind](
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        pad_token_id=0,
        eos_token_id=None,
        bos_token_id=None,
    )
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    for p in model.parameters():
        p.data += torch.randn_like(p) * 0.08
    return model


def prompt(visual: list[int], text: list[int], seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows of [padding, visual, text]: embeddings (B, S, 32), attention mask, visual mask, positions."""
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randn(v + t, 32, generator=generator) for v, t in zip(visual, text, strict=True)]
    length = max(len(r) for r in rows)
    x = torch.zeros(len(rows), length, 32)
    mask = torch.zeros(len(rows), length, dtype=torch.bool)
    seen = torch.zeros_like(mask)
    for i, (row, v) in enumerate(zip(rows, visual, strict=True)):
        start = length - len(row)
        x[i, start:], mask[i, start:], seen[i, start : start + v] = row, True, True
    return x, mask, seen, (mask.long().cumsum(1) - 1).clamp(min=0)


@contextmanager
def pruning(model, config: LLMPrune, seen: Tensor, *, seed: int = 0, places: bool = False):
    """One call of the model is pruned within: the visual tokens `seen` of its prompts. -> a trace for each of them."""
    decoder, settings = model.base_model, Settings(PruneConfig(llm=config, seed=seed))
    door = LlmDoor(model, decoder, text_joints(decoder))
    try:
        with torch.no_grad(), passing(Pass(model, settings, visual=seen)), trace(places=places) as traces:
            yield traces
    finally:
        door.remove()


def pruned_logits(model, config: LLMPrune, x, mask, seen, positions) -> tuple[Tensor, list[Trace]]:
    with pruning(model, config, seen) as traces:
        out = model(inputs_embeds=x, attention_mask=mask, position_ids=positions)
    return out.logits, traces


def generate(model, config: LLMPrune, x, mask, seen, steps: int = 6) -> Tensor:
    with pruning(model, config, seen):
        return model.generate(inputs_embeds=x, attention_mask=mask, max_new_tokens=steps, do_sample=False)


@pytest.mark.parametrize("kind", list(CONFIGS))
@pytest.mark.parametrize("name", list(METHODS))
def test_dropping_equals_a_full_run_with_those_keys_masked(kind: str, name: str) -> None:
    """Oracle: nothing leaves; from each cut on, the keys that the method dropped are masked."""
    model, config = language_model(kind), METHODS[name]
    x, mask, seen, positions = prompt([20], [5])
    logits, (traced,) = pruned_logits(model, config, x, mask, seen, positions)
    assert any(c < 20 for c in traced.llm_layers), "nothing was pruned: the test would say nothing"

    # The same choice, layer by layer, by an independent full-length run.
    cuts = cut_layers(config, LAYERS)
    dropped = torch.zeros(25, dtype=torch.bool)
    hidden = x
    rope = model.model.rotary_emb(x, positions)
    causal = torch.ones(25, 25, dtype=torch.bool).tril()
    before = None
    with torch.no_grad():
        for i, layer in enumerate(model.model.layers):
            if i in cuts:
                count = traced.llm_layers[i]
                at = before if config.attention == "previous" else (layer, hidden)
                dropped = _drop_by_oracle(*at, rope, dropped, count, config)
            before = layer, hidden
            allowed = causal & ~dropped[None]
            bias = torch.zeros(25, 25).masked_fill(~allowed, torch.finfo(torch.float32).min)
            hidden = layer(hidden, attention_mask=bias[None, None], position_embeddings=rope)
            assert int((~dropped[:20]).sum()) == traced.llm_layers[i]
        full = model.lm_head(model.model.norm(hidden))
    torch.testing.assert_close(logits[:, -5:], full[:, -5:], atol=2e-5, rtol=1e-4)


def _drop_by_oracle(layer, hidden, rope, dropped: Tensor, count: int, config: LLMPrune) -> Tensor:
    left = [t for t in range(20) if not dropped[t]]
    if config.method == "uniform":
        n = len(left)
        keep = [left[r] for r in range(n) if ((r + 1) * count) // n > (r * count) // n]
    else:
        score = (_pagerank_by_loops if config.method == "aim" else _text_attention_by_loops)(
            layer, hidden[0], rope, dropped, config
        )
        keep = sorted(left, key=lambda t: (-score[t], t))[:count]
    out = dropped.clone()
    out[[t for t in left if t not in keep]] = True
    return out


def _text_attention_by_loops(layer, hidden: Tensor, rope, dropped: Tensor, config: LLMPrune) -> list[float]:
    """Attention of the chosen heads that each visual token gets from the text rows: plain loops, float64."""
    rows = [24] if config.queries == "last" else list(range(20, 25))
    paid = _attention_by_loops(layer, hidden, rope, dropped, rows, 1.0)
    share = paid[..., :20].mean(1)  # (H, 20)
    heads = range(4)
    if config.heads == "top":
        # Float32 attention may order nearly equal heads otherwise; these weights leave clear gaps.
        heads = share.sum(1).argsort(descending=True)[: config.top_heads].tolist()
    return share[list(heads)].sum(0).tolist()


def _pagerank_by_loops(layer, hidden: Tensor, rope, dropped: Tensor, config: LLMPrune) -> list[float]:
    """Five steps from equal shares of all that is there, in each head; root mean square over the heads."""
    there = [t for t in range(25) if not dropped[t]]
    links = _attention_by_loops(layer, hidden, rope, dropped, list(range(25)), 0.1)
    squares = torch.zeros(25, dtype=torch.float64)
    for head in range(4):
        score = {t: 1 / len(there) for t in there}
        for _ in range(5):
            score = {t: sum(score[s] * float(links[head, s, t]) for s in there) for t in there}
        squares[there] += torch.tensor([score[t] ** 2 for t in there], dtype=torch.float64)
    return (squares / 4).sqrt().tolist()


def _attention_by_loops(layer, hidden: Tensor, rope, dropped, rows: list[int], temperature: float) -> Tensor:
    """(H, rows, 25), float64: what each row pays to the keys that are there."""
    attention = layer.self_attn
    x = layer.input_layernorm(hidden)
    q, k = attention.q_proj(x).view(25, 4, 8), attention.k_proj(x).view(25, 2, 8)
    if hasattr(attention, "q_norm"):
        q, k = attention.q_norm(q), attention.k_norm(k)
    cos, sin = rope[0][0].double(), rope[1][0].double()

    def turn(v: Tensor, t: int) -> Tensor:
        v = v.double()
        return v * cos[t] + torch.cat([-v[4:], v[:4]]) * sin[t]

    paid = torch.zeros(4, len(rows), 25, dtype=torch.float64)
    for head in range(4):
        turned = torch.stack([turn(k[t, head // 2], t) for t in range(25)])
        for r, row in enumerate(rows):
            keys = [t for t in range(row + 1) if not dropped[t]]
            if keys:
                logits = turned[keys] @ turn(q[row, head], row) * 8**-0.5
                paid[head, r, keys] = (logits / temperature).softmax(0)
    return paid


@pytest.mark.parametrize("name", list(METHODS))
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_batch_equals_the_rows_alone(name: str, attention: str) -> None:
    """Rows of other lengths, other counts kept, padding on the left: prefill and six steps of decoding."""
    model, config = language_model(attention=attention), METHODS[name]
    visual, text = [20, 7, 31, 12], [5, 9, 3, 6]
    x, mask, seen, positions = prompt(visual, text)
    logits, traces = pruned_logits(model, config, x, mask, seen, positions)
    ids = generate(model, config, x, mask, seen)
    if config.method == "adaptive":
        assert len({t.llm_layers[-1] for t in traces}) > 1, (
            "all rows kept the same: the test would say little"
        )
    for i in range(4):
        start = x.shape[1] - visual[i] - text[i]
        own = (x[i : i + 1, start:], mask[i : i + 1, start:], seen[i : i + 1, start:])
        alone, (one,) = pruned_logits(model, config, *own, positions[i : i + 1, start:])
        torch.testing.assert_close(logits[i, -text[i] :], alone[0, -text[i] :], atol=2e-5, rtol=1e-4)
        assert one.llm_layers == traces[i].llm_layers
        assert torch.equal(generate(model, config, *own)[0], ids[i])


@pytest.mark.parametrize("name", list(METHODS))
def test_sdpa_and_eager_agree(name: str) -> None:
    rows = prompt([20, 11], [5, 7])
    a, _ = pruned_logits(language_model(attention="sdpa"), METHODS[name], *rows)
    b, _ = pruned_logits(language_model(attention="eager"), METHODS[name], *rows)
    torch.testing.assert_close(a[:, -5:], b[:, -5:], atol=2e-5, rtol=1e-4)


def test_keep_all_is_the_stock_model_and_leaving_restores_it() -> None:
    model = language_model()
    x, mask, seen, positions = prompt([20], [5])
    with torch.no_grad():
        stock = model(inputs_embeds=x, attention_mask=mask, position_ids=positions).logits
    for config in (LLMPrune(), LLMPrune(method="fixed", keep=1.0), LLMPrune(method="adaptive", lambda_=1e6)):
        logits, (traced,) = pruned_logits(model, config, x, mask, seen, positions)
        torch.testing.assert_close(logits, stock, atol=1e-5, rtol=1e-5)
        assert traced.llm_layers == (20,) * LAYERS
    assert torch.equal(pruned_logits(model, LLMPrune(), x, mask, seen, positions)[0], stock)
    pruned_logits(model, METHODS["fixed"], x, mask, seen, positions)
    with torch.no_grad():
        assert torch.equal(model(inputs_embeds=x, attention_mask=mask, position_ids=positions).logits, stock)
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())


def test_decoding_with_all_kept_is_the_stock_generation() -> None:
    """With all kept, the hooks' own masks and caches must lead to the stock model's text."""
    model = language_model()
    config = LLMPrune(method="adaptive", lambda_=1e6)
    x, mask, seen, _ = prompt([9], [4])
    ids = generate(model, config, x, mask, seen, steps=5)
    with torch.no_grad():
        stock = model.generate(inputs_embeds=x, attention_mask=mask, max_new_tokens=5, do_sample=False)
    assert torch.equal(ids, stock)


def test_the_average_of_fixed_ratios_is_what_was_asked() -> None:
    for keep in (0.9, 0.6, 0.5, 0.35):
        config = LLMPrune(method="fixed", keep=keep)
        _, (traced,) = pruned_logits(language_model(), config, *prompt([200], [5]))
        assert traced.retention == pytest.approx(keep, abs=0.01)


def test_more_lambda_keeps_more() -> None:
    counts = []
    for lambda_ in (0.0, 5.0, 20.0, 80.0):
        config = LLMPrune(method="adaptive", lambda_=lambda_, top_heads=2)
        counts.append(sum(pruned_logits(language_model(), config, *prompt([60], [5]))[1][0].llm_layers))
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


def test_random_depends_on_the_seed_alone() -> None:
    model, config = language_model(), LLMPrune(method="random", keep=0.4)
    x, mask, seen, positions = prompt([30], [5])
    outs = []
    for seed in (1, 1, 2):
        with pruning(model, config, seen, seed=seed):
            outs.append(model(inputs_embeds=x, attention_mask=mask, position_ids=positions).logits)
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])


def test_cuts_are_meteors_and_never_layer_zero() -> None:
    assert cut_layers(LLMPrune(), 32) == (4, 12, 20)
    assert cut_layers(LLMPrune(layers=(0.0, 0.1)), 4) == (1,)


def test_an_attention_without_masks_by_layer_is_refused() -> None:
    model = language_model()
    x, mask, seen, positions = prompt([9], [4])
    model.config._attn_implementation = "flex_attention"
    with pytest.raises(ValueError, match="attn_implementation='flex_attention'"):
        pruned_logits(model, METHODS["fixed"], x, mask, seen, positions)


def test_the_door_is_shut_outside_a_pass_and_to_the_passes_of_others() -> None:
    model, other = language_model(), language_model()
    x, mask, seen, positions = prompt([20], [5])
    given = {"inputs_embeds": x, "attention_mask": mask, "position_ids": positions}
    with torch.no_grad():
        stock = model(**given).logits
    door = LlmDoor(model, model.base_model, text_joints(model.base_model))
    with torch.no_grad():
        assert torch.equal(model(**given).logits, stock)
    with pruning(other, METHODS["fixed"], seen) as traces:
        assert torch.equal(model(**given).logits, stock)
    assert traces == []
    door.remove()


@pytest.mark.parametrize("name", ["adaptive", "fixed", "uniform"])
def test_a_pass_is_one_prefill_and_its_steps_however_many_tokens_come_at_once(name: str) -> None:
    """Tokens behind the prompt, one by one or many together, longer than what was kept: the same logits."""
    model, config = language_model(), METHODS[name]
    visual, text = [20, 12], [5, 6]
    x, mask, seen, positions = prompt(visual, text)
    later = torch.randn(2, 30, 32, generator=torch.Generator().manual_seed(4))
    found = []
    for parts in ([30], [1] * 30, [1, 17, 12]):
        with pruning(model, config, seen) as traces:
            cache = model(inputs_embeds=x, attention_mask=mask, position_ids=positions, use_cache=True)
            cache, logits, whole, at = cache.past_key_values, [], mask, positions[:, -1:]
            for one in later.split(parts, 1):
                whole = torch.cat([whole, whole.new_ones(2, one.shape[1])], 1)
                at = at[:, -1:] + 1 + torch.arange(one.shape[1])
                given = {"inputs_embeds": one, "attention_mask": whole, "position_ids": at}
                logits.append(model(**given, past_key_values=cache).logits)
        assert len(traces) == 2
        found.append(torch.cat(logits, 1))
    torch.testing.assert_close(found[1], found[0], atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(found[2], found[0], atol=2e-5, rtol=1e-4)
