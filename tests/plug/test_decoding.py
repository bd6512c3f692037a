"""Every way to decode with a pruned model: right by an oracle that decodes one token at a time, or refused in a
sentence. What the stock model of a family cannot do itself is skipped, with what it says.

Shapes: S tokens of the prompt, n new ones.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.cache_utils import Cache, QuantizedLayer

from tests.plug.stock import BUILDERS, EVERYWHERE, GREEDY, KINDS, clips, inputs, longer, stock_model
from videoprune import apply, remove
from videoprune.config import PruneConfig

BANNED = GREEDY["suppress_tokens"]
ENCODER = PruneConfig.from_dict({"encoder": {"method": "evoprune", "keep": 0.5}})
LLM = PruneConfig.from_dict({"llm": {"method": "fixed", "keep": 0.6, "layers": [0.2, 0.6]}})
# What may be applied, and must give the right answer with each.
SETTINGS = {"everywhere": EVERYWHERE, "encoder": ENCODER, "llm": LLM}
NEW = 6


class Forced(LogitsProcessor):
    """Makes `generate` say `tokens`, whatever the model thinks."""

    def __init__(self, tokens: list[int], start: int) -> None:
        self.tokens, self.start = tokens, start

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        at = input_ids.shape[1] - self.start
        return torch.full_like(scores, float("-inf")).index_fill(
            1, torch.tensor([self.tokens[at] if at < len(self.tokens) else 7]), 0.0
        )


def batch_of(kind: str, seed: int = 0) -> dict[str, Tensor]:
    return inputs(kind, clips(kind, 1, 2, seed=seed), [[7, 8, 9]])


def new_tokens(model: Any, batch: dict[str, Tensor], **how: Any) -> Tensor:
    """(rows, n)"""
    found = model.generate(**batch, **{**GREEDY, "max_new_tokens": NEW, **how})
    return found[:, batch["input_ids"].shape[1] :]


def forced_logits(model: Any, batch: dict[str, Tensor], tokens: list[int]) -> Tensor:
    """Logits after the prompt and after each of `tokens`, fed one at a time: (len(tokens) + 1, vocabulary)."""
    say = LogitsProcessorList([Forced(tokens, batch["input_ids"].shape[1])])
    out = model.generate(
        **batch,
        do_sample=False,
        max_new_tokens=len(tokens) + 1,
        logits_processor=say,
        return_dict_in_generate=True,
        output_logits=True,
    )
    return torch.cat(out.logits)


def beam_search(
    model: Any, batch: dict[str, Tensor], beams: int, steps: int
) -> list[tuple[list[int], float]]:
    """Plain beam search without an end token, every score from `forced_logits`: (tokens, mean log p), best first."""
    found: list[tuple[list[int], float]] = [([], 0.0)]
    for _ in range(steps):
        wider = []
        for tokens, score in found:
            log_p = forced_logits(model, batch, tokens)[-1].log_softmax(-1)
            log_p[BANNED] = float("-inf")
            best = log_p.topk(beams)
            wider += [
                ([*tokens, t], score + p)
                for t, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)
            ]
        found = sorted(wider, key=lambda one: -one[1])[:beams]
    return [(tokens, score / steps) for tokens, score in found]


_VERDICTS: dict[tuple, str] = {}


def unless_the_stock_model_cannot(kind: str, way: Any, work: Callable[[Any], bool]) -> None:
    """Skips where the stock model raises, or says something else than it should. way: names `work`, done once."""
    if (kind, way) not in _VERDICTS:
        try:
            right = work(stock_model(kind))
            _VERDICTS[kind, way] = "" if right else "gives another result this way"
        except Exception as error:
            _VERDICTS[kind, way] = f"{type(error).__name__}: {error}"
    if said := _VERDICTS[kind, way]:
        pytest.skip(f"the stock {kind} itself: {said}")


class Exact(QuantizedLayer):
    """A quantised layer of a cache that loses nothing."""

    def __init__(self) -> None:
        super().__init__(residual_length=4)

    def _quantize(self, tensor: Tensor, axis: int) -> Tensor:
        return tensor.clone()

    def _dequantize(self, tensor: Tensor) -> Tensor:
        return tensor


@pytest.mark.parametrize("kind", KINDS)
def test_beam_search_is_that_of_the_oracle(kind):
    batch, how = batch_of(kind), {"num_beams": 3, "num_return_sequences": 3, "max_new_tokens": 3}

    def right(model: Any) -> bool:
        out = model.generate(**batch, **{**GREEDY, **how}, return_dict_in_generate=True, output_scores=True)
        ids = out.sequences[:, batch["input_ids"].shape[1] :].tolist()
        oracle = beam_search(model, batch, 3, 3)
        scores = torch.tensor([score for _, score in oracle])
        return ids == [t for t, _ in oracle] and torch.allclose(out.sequences_scores, scores, atol=1e-4)

    unless_the_stock_model_cannot(kind, "beams", right)
    assert right(apply(stock_model(kind), EVERYWHERE))


@pytest.mark.parametrize("kind", KINDS)
def test_sampled_sequences_carry_the_probabilities_of_each_alone(kind):
    batch, how = batch_of(kind), {"do_sample": True, "num_return_sequences": 3, "top_k": 0}

    def right(model: Any) -> bool:
        torch.manual_seed(4)
        out = model.generate(
            **batch, **{**GREEDY, **how}, max_new_tokens=4, return_dict_in_generate=True, output_logits=True
        )
        ids = out.sequences[:, batch["input_ids"].shape[1] :].tolist()
        assert len({tuple(row) for row in ids}) == 3, "all alike: the test would say little"
        alone = torch.stack([forced_logits(model, batch, row[:-1]) for row in ids])
        return torch.allclose(torch.stack(out.logits, 1), alone, atol=1e-4)

    unless_the_stock_model_cannot(kind, "sampling", right)
    assert right(apply(stock_model(kind), EVERYWHERE))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["prompt_lookup", "assistant", "static", "chunks", "no_cache", "quantised"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_the_tokens_are_those_of_plain_greedy_decoding(kind, way, setting):
    """Or the way is refused with a ValueError that names it."""
    batch = batch_of(kind)
    hows: dict[str, dict[str, Any]] = {
        "prompt_lookup": {"prompt_lookup_num_tokens": 2},
        "assistant": {},
        "static": {"cache_implementation": "static"},
        "chunks": {"prefill_chunk_size": 5},
        "no_cache": {"use_cache": False},
        "quantised": {},
    }
    how = hows[way]
    if way == "assistant":
        torch.manual_seed(8)  # other weights: what it proposes is mostly rejected
        how = {"assistant_model": BUILDERS[kind]().eval()}
        for p in how["assistant_model"].parameters():
            p.data += torch.randn_like(p) * 0.08
        assert not torch.equal(
            new_tokens(how["assistant_model"], batch), new_tokens(stock_model(kind), batch)
        )

    def decode(model: Any) -> Tensor:
        cache = {"past_key_values": Cache(layers=[Exact() for _ in range(5)])} if way == "quantised" else {}
        return new_tokens(model, batch, **how, **cache)

    unless_the_stock_model_cannot(kind, way, lambda m: torch.equal(decode(m), new_tokens(m, batch)))
    model = apply(stock_model(kind), SETTINGS[setting])
    expected = new_tokens(model, batch)
    refusal = ""
    try:
        found = decode(model)
    except ValueError as error:
        refusal = str(error)
    if refusal:
        words = {
            "static": "static",
            "chunks": "prefill_chunk_size",
            "no_cache": "use_cache",
            "quantised": "cache",
        }
        assert words.get(way, "refused without a name") in refusal.lower()
        assert "allowed" in refusal
    else:
        assert torch.equal(found, expected)
    assert torch.equal(new_tokens(model, batch), expected), "a later call is another one's victim"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("length", [1, 3, 90])  # the last one is longer than the prompt
def test_a_second_turn_equals_its_tokens_one_at_a_time(kind, setting, length):
    model, batch = stock_model(kind), batch_of(kind)
    turn = [20 + i % 29 for i in range(length)]
    unless_the_stock_model_cannot(kind, ("turn", length), lambda m: second_turn(m, kind, batch, turn)[2])
    apply(model, SETTINGS[setting])
    ids, logits, right = second_turn(model, kind, batch, turn)
    assert right, "said one at a time, the same words lead elsewhere"
    if setting == "encoder":  # its choice does not depend on what the prompt says: one prompt of both turns
        whole = {**batch, **longer(kind, batch, ids)}
        with torch.no_grad():
            assert torch.allclose(model(**whole).logits[:, -1], logits[:1], atol=1e-4)


def second_turn(
    model: Any, kind: str, batch: dict[str, Tensor], turn: list[int]
) -> tuple[Tensor, Tensor, bool]:
    """The second turn's prompt, its logits from the first one's cache, and whether they are the oracle's."""
    how = {**GREEDY, "return_dict_in_generate": True, "output_logits": True, "max_new_tokens": 3}
    first = model.generate(**batch, **how)
    ids = torch.cat([first.sequences, torch.tensor([turn])], 1)
    again = model.generate(**longer(kind, batch, ids), past_key_values=first.past_key_values, **how)
    logits = torch.cat(again.logits)
    said = again.sequences[0, batch["input_ids"].shape[1] :].tolist()
    alone = forced_logits(model, batch, said[:-1])[-len(logits) :]
    return ids, logits, torch.allclose(logits, alone, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_copied_cache_continues_twice_as_one(kind, setting):
    model, batch = apply(stock_model(kind), SETTINGS[setting]), batch_of(kind)
    first = model.generate(**batch, **GREEDY, max_new_tokens=3, return_dict_in_generate=True)
    copies = [copy.deepcopy(first.past_key_values) for _ in range(2)]
    found = []
    for turn, cache in (([21], copies[0]), ([22, 23], copies[1]), ([21], first.past_key_values)):
        ids = torch.cat([first.sequences, torch.tensor([turn])], 1)
        say = longer(kind, batch, ids)
        found.append(model.generate(**say, past_key_values=cache, **GREEDY, max_new_tokens=4)[0].tolist())
    assert found[0] == found[2]
    for ids in found:
        said = ids[batch["input_ids"].shape[1] :]
        alone = forced_logits(model, batch, said[:-1])[-4:]
        alone[:, BANNED] = float("-inf")
        assert alone.argmax(-1).tolist() == said[-4:]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("setting", ["encoder", "llm"])
def test_a_pruned_cache_is_refused_by_another_model_than_the_one_that_made_it(kind, setting):
    """After `remove` the stock code would count positions by what is cached, and answer wrongly in silence."""
    model, batch = apply(stock_model(kind), SETTINGS[setting]), batch_of(kind)
    first = model.generate(**batch, **GREEDY, max_new_tokens=3, return_dict_in_generate=True)
    ids = torch.cat([first.sequences, torch.tensor([[21, 22]])], 1)
    remove(model)
    with pytest.raises(ValueError, match="allowed"):
        model.generate(
            **longer(kind, batch, ids), past_key_values=first.past_key_values, **GREEDY, max_new_tokens=2
        )
