"""Units of several patches are compared by their patches, not by the mean of them."""

from __future__ import annotations

import pytest
import torch

from tests.plug.stock import EVERYWHERE, KINDS, clips, inputs, stock_model
from videoprune import apply
from videoprune.plug.packing import side_by_side, unit_means
from videoprune.prune.evoprune import EvoPrune, bipartite_plan

PATCHES = dict.fromkeys(KINDS, 4) | {"llava_onevision": 1}


def test_a_cosine_is_that_of_corresponding_patches():
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = torch.nn.functional.normalize(side_by_side(x), dim=-1)
    for frame in range(2):
        for a in range(3):
            for b in range(3):
                dots = sum(float(x[frame, a, p] @ x[frame, b, p]) for p in range(4))
                lengths = [
                    sum(float(x[frame, i, p] @ x[frame, i, p]) for p in range(4)) ** 0.5 for i in (a, b)
                ]
                assert float(found[frame, a] @ found[frame, b]) == pytest.approx(
                    dots / lengths[0] / lengths[1]
                )


def test_an_object_on_one_patch_keeps_its_unit():
    """Another source is a little unlike its neighbours in all its patches: by means it would stay instead."""
    ground, thing, other = torch.eye(3)
    dim = ground + 0.4 * other
    units = torch.stack([ground.repeat(4, 1), ground.repeat(4, 1), dim.repeat(4, 1), ground.repeat(4, 1)])
    units[0, 3] = thing  # sources are units 0 and 2, of which one merges
    x = units[None]
    assert 0 in bipartite_plan(side_by_side(x), 1, lambda_div=0.0).keep[0]
    assert 0 not in bipartite_plan(unit_means(x), 1, lambda_div=0.0).keep[0]


@pytest.mark.parametrize("kind", KINDS)
def test_every_family_compares_whole_units(kind, monkeypatch):
    seen, decide = [], EvoPrune.decide

    def spy(self, tokens, remove, config):
        seen.append(tokens.x.shape[-1])
        return decide(self, tokens, remove, config)

    monkeypatch.setattr(EvoPrune, "decide", spy)
    model = apply(stock_model(kind), EVERYWHERE)
    with torch.no_grad():
        model(**inputs(kind, clips(kind, 1, 2), [[5, 6]]))
    patches = {width // 32 for width in seen}
    assert patches == {PATCHES[kind]}
