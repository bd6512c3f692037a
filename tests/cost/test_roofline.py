"""The bound by operations and bytes, against the parameters of real models and a loop over layers."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from pipelines.measure.cost import Prompt, predict, predict_steps
from pipelines.measure.machine import best_of, measured_machine
from tests.models.tiny import tiny_model
from tests.plug.stock import EVERYWHERE, KINDS, stock_model
from videoprune.config import PruneConfig
from videoprune.cost.roofline import Machine, Step, bound_seconds
from videoprune.models.shapes import model_shape
from videoprune.plug.families import FAMILIES

PROMPT = Prompt(8, 300, 3, (24, 24))


def matrices(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.ndim > 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prune", [PruneConfig(), EVERYWHERE], ids=["none", "everywhere"])
def test_operations_are_those_of_the_cost_and_weights_those_of_the_model(kind, prune):
    model = stock_model(kind)
    family, shape = FAMILIES[kind](model), model_shape(model.config)
    found = predict_steps(shape, PROMPT, prune)
    assert sum(s.flops for s in found) == predict(shape, PROMPT, prune).without_pruning
    layers, blocks = family.language_model.layers, family.blocks
    *rest, head = found
    assert head.weights == model.lm_head.weight.numel()
    assert [s.weights for s in rest[-len(layers) :]] == [matrices(one) for one in layers]
    assert [s.weights for s in rest[1 : 1 + len(blocks)]] == [matrices(one) for one in blocks]


@pytest.mark.parametrize("prune", [PruneConfig(), EVERYWHERE], ids=["none", "everywhere"])
def test_several_encoders(prune):
    shape = model_shape(tiny_model().config)
    prompt = Prompt(2, 2000, 3)
    found = predict_steps(shape, prompt, prune)
    assert sum(s.flops for s in found) == predict(shape, prompt, prune).without_pruning
    assert all(s.weights > 0 and s.moved > 0 for s in found)


def test_fewer_tokens_move_fewer_bytes_and_the_same_weights():
    shape = model_shape(stock_model("qwen3_vl").config)
    dense, pruned = (predict_steps(shape, PROMPT, p) for p in (PruneConfig(), EVERYWHERE))
    assert [s.weights for s in dense] == [s.weights for s in pruned]
    assert sum(s.moved for s in pruned) < sum(s.moved for s in dense)
    assert len(dense) == 1 + 6 + 3 * 2 + 5 + 1  # embedding, blocks, projector and two taps, layers, head


def test_a_bound_is_the_slower_of_the_two_step_by_step():
    one = (Step(100, 7, 3), Step(5, 50, 1), Step(40, 2, 2))
    other = (Step(60, 7, 1), Step(1, 50, 1), Step(10, 2, 1))
    machine = Machine(flops=10.0, bandwidth=4.0)
    expected = 0.0
    for i in range(3):
        flops = 2 * one[i].flops + other[i].flops
        moved = 2 * (one[i].weights + 2 * one[i].moved + other[i].moved)  # weights once; two bytes a number
        expected += max(flops / 10.0, moved / 4.0)
    assert bound_seconds(Counter({one: 2, other: 1}), machine, 2) == pytest.approx(expected)
    assert bound_seconds({one: 1}, Machine(10.0, 1e9), 2) == pytest.approx(14.5)
    assert bound_seconds({one: 1}, Machine(1e9, 4.0), 2) == pytest.approx(2 * (10 + 51 + 4) / 4.0)


@pytest.mark.parametrize("rates", [(0.0, 1.0), (1.0, -1.0)])
def test_a_machine_that_does_nothing_is_refused(rates):
    with pytest.raises(ValueError, match="allowed: above 0"):
        Machine(*rates)


def test_a_machine_is_measured(monkeypatch):
    monkeypatch.setattr("pipelines.measure.machine._LARGE", (64, 32, 48))
    monkeypatch.setattr("pipelines.measure.machine._READ", (1, 64, 512))
    # A product that warms up, and five: of many rows the best takes 2 seconds, of one row 4.
    lasting = [1, 3, 2, 5, 6, 7, 1, 9, 8, 4, 5, 5]
    times = iter([t for i, each in enumerate(lasting) for t in (100.0 * i, 100.0 * i + each)])
    monkeypatch.setattr("pipelines.measure.machine.now", lambda device: next(times))
    assert measured_machine("cpu", torch.bfloat16) == Machine(2 * 64 * 32 * 48 / 2, 64 * 512 * 2 / 4)
    assert best_of(Machine(1.0, 5.0), Machine(2.0, 3.0)) == Machine(2.0, 5.0)
