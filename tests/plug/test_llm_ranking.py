"""Which visual tokens FastV and AIM keep, against the attention that the stock model itself reports."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.plug.stock import clips, inputs, stock_model
from tests.plug.test_llm_pass import CONFIGS, LAYERS, language_model, prompt, pruning
from videoprune.config import LLMPrune, PruneConfig, preset
from videoprune.plug.apply import apply, remove
from videoprune.plug.current_pass import trace
from videoprune.plug.llm_pass import Prefill
from videoprune.prune.counts import cut_layers, cut_ratios
from videoprune.prune.llm import Fixed
from videoprune.prune.registry import LLM

CUT = 3
FASTV = LLMPrune(
    method="fixed", layers=(0.5,), ratios=(0.4,), heads="all", queries="last", attention="previous"
)
AIM = LLMPrune(method="aim", layers=(0.5,), ratios=(0.4,), attention="previous")
QUESTIONS = [[7, 8, 9], [10, 11], [12], [13, 14, 15, 16, 17]]


def last_row(attention: Tensor, mask: Tensor) -> Tensor:
    """FastV's score: the head mean of the last row of (B, H, S, S) -> (B, S)."""
    return attention.mean(1)[:, -1]


def page_rank(attention: Tensor, mask: Tensor) -> Tensor:
    """AIM's score, in float64: the logarithm of a softmax is its logits, but for a constant of the row."""
    sharp = (attention.double().log() / 0.1).softmax(-1).nan_to_num()  # padding sees nothing
    sharp = sharp * mask[:, None, None] * mask[:, None, :, None]
    score = (mask.double() / mask.sum(1, keepdim=True))[:, None].expand(-1, attention.shape[1], -1)
    for _ in range(5):
        score = torch.einsum("bhj,bhji->bhi", score, sharp)
    return score.square().mean(1).sqrt()


SCORES = {"fastv": (FASTV, last_row), "aim": (AIM, page_rank)}


def best(score: Tensor, visual: Tensor, share: float) -> list[list[int]]:
    """By row, the ranks among the visual tokens of those that stay, half of a token rounded as Python does."""
    found = []
    for row, seen in zip(score, visual, strict=True):
        values = row[seen].tolist()
        order = sorted(range(len(values)), key=lambda t: (-values[t], t))
        found.append(sorted(order[: round(share * len(values))]))
    return found


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("kind", list(CONFIGS))
@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_a_language_model_keeps_what_the_layer_before_the_cut_ranks_highest(name, kind, kernel):
    """Four rows of other lengths, padded on the left, two query heads to a key head."""
    config, score = SCORES[name]
    x, mask, visual, positions = prompt([20, 7, 31, 12], [5, 9, 3, 6])
    given = {"inputs_embeds": x, "attention_mask": mask, "position_ids": positions}
    with torch.no_grad():
        stock = language_model(kind, "eager")(**given, output_attentions=True).attentions
    expected = best(score(stock[CUT - 1], mask), visual, 0.4)
    model = language_model(kind, kernel)
    assert cut_layers(config, LAYERS) == (CUT,)
    with pruning(model, config, visual, places=True) as traces:
        model(**given)
    assert [list(t.places.last) for t in traces] == expected
    assert [list(t.places.fused) for t in traces] == [list(range(n)) for n in (20, 7, 31, 12)]
    assert best(score(stock[CUT], mask), visual, 0.4) != expected, "any layer would do: the test says nothing"


class Own(Fixed):
    """So many times the cut's share."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def rank(self, tokens, config):
        wanted, scores = super().rank(tokens, config)
        return (self.factor * wanted).long(), scores


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_a_method_may_count_for_itself(kernel, monkeypatch):
    """Each row as if it were alone, where the method leaves less than the cut's share."""
    x, mask, visual, positions = prompt([20, 7, 31, 12], [5, 9, 3, 6])
    model = language_model(next(iter(CONFIGS)), kernel)
    monkeypatch.setitem(LLM, "fixed", Own(0.5))
    with pruning(model, FASTV, visual) as traces, torch.no_grad():
        found = model(inputs_embeds=x, attention_mask=mask, position_ids=positions).logits
    assert [t.llm_layers[-1] for t in traces] == [round(0.4 * n) // 2 for n in (20, 7, 31, 12)]
    for row, valid in enumerate(mask.bool()):
        one = {"inputs_embeds": x[row, valid][None], "position_ids": positions[row, valid][None]}
        with pruning(model, FASTV, visual[row, valid][None]), torch.no_grad():
            alone = model(**one).logits[0, -1]
        torch.testing.assert_close(found[row, -1], alone, atol=1e-5, rtol=1e-4)
    monkeypatch.setitem(LLM, "fixed", Own(3.0))
    with pruning(model, FASTV, visual), pytest.raises(ValueError, match=r"counts=.*allowed: 0 up to"):
        model(inputs_embeds=x, attention_mask=mask, position_ids=positions)


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("kind", ["llava_onevision", "llava_next_video", "qwen2_5_vl", "qwen3_vl"])
def test_a_stock_model_keeps_what_the_layer_before_the_cut_ranks_highest(name, kind):
    config, score = SCORES[name]
    config = PruneConfig(llm=config)
    batch = inputs(kind, clips(kind, 4, 3), QUESTIONS)
    cut = cut_layers(config.llm, 5)[0]
    model = stock_model(kind, "eager")
    with torch.no_grad():
        stock = model(**batch, output_attentions=True)
    visual = torch.isin(batch["input_ids"], torch.tensor([60, 61]))
    mask = batch["attention_mask"].bool()
    expected = best(score(stock.attentions[cut - 1], mask), visual, 0.4)
    apply(model, config)
    with torch.no_grad(), trace(places=True) as traces:
        pruned = model(**batch).logits
    assert [list(t.places.last) for t in traces] == expected
    assert not torch.allclose(pruned[:, -1], stock.logits[:, -1], atol=1e-3)
    remove(model)
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, stock.logits)


def test_the_input_of_the_layer_before_is_held_only_between_it_and_the_cut(monkeypatch):
    held = []
    before_layer = Prefill.before_layer

    def noted(self, index, module, args, kwargs):
        out = before_layer(self, index, module, args, kwargs)
        held.append(self.before is not None)
        return out

    monkeypatch.setattr(Prefill, "before_layer", noted)
    x, mask, visual, positions = prompt([20], [5])
    model = language_model()
    for config, layers in ((FASTV, {CUT - 1}), (LLMPrune(method="fixed", keep=0.5), set())):
        held.clear()
        with pruning(model, config, visual):
            model(inputs_embeds=x, attention_mask=mask, position_ids=positions)
        assert held == [i in layers for i in range(LAYERS)]


def aim_schedule(layers: int, start: int, end: int) -> list[float]:
    """All up to layer `start`, then falling in equal steps to none at `end`."""
    return [min(1.0, max(0.0, (end - layer) / (end - start))) for layer in range(layers)]


def test_pyramiddrop_halves_at_each_quarter_and_fastv_behind_layer_two():
    x, mask, visual, positions = prompt([47], [5])
    for name, layers, expected in (
        ("pyramiddrop", 28, [47] * 7 + [23] * 7 + [11] * 7 + [5] * 7),
        ("fastv", 32, [47] * 2 + [24] * 30),
        ("flashvid", 28, [47] * 20 + [15] * 8),
    ):
        model = language_model(layers=layers)
        with pruning(model, preset(name).llm, visual) as traces:
            model(inputs_embeds=x, attention_mask=mask, position_ids=positions)
        assert list(traces[0].llm_layers) == expected


def test_the_preset_falls_as_aims_schedule_says():
    """28 layers: all tokens up to layer 14, an eighth less at each layer behind it, none from layer 22 on."""
    model = language_model(layers=28)
    x, mask, visual, positions = prompt([40, 24], [5, 9])
    with pruning(model, preset("aim").llm, visual) as traces:
        model(inputs_embeds=x, attention_mask=mask, position_ids=positions)
    for row, dense in enumerate((40, 24)):
        assert traces[row].llm_layers == tuple(round(dense * share) for share in aim_schedule(28, 14, 22))
    assert sum(aim_schedule(28, 14, 22)) / 28 == pytest.approx(preset("aim").llm.keep, abs=1e-4)


def test_cuts_that_fall_on_one_layer_keep_the_last_ratio():
    config = LLMPrune(method="aim", layers=(0.5, 0.52, 0.9), ratios=(0.8, 0.6, 0.0))
    assert cut_layers(config, 6) == (3, 5)
    assert cut_ratios(config, 6) == (0.6, 0.0)
    assert cut_ratios(config, 50) == (0.8, 0.6, 0.0)
