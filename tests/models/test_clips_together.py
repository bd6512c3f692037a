"""Clips that are encoded in one call, against each alone: stock models of every family."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from tests.plug.stock import KINDS, clips, stock_model
from videoprune.config import PruneConfig
from videoprune.models.clip_features import dropped, joined, split
from videoprune.models.inputs import Clip, groups_of
from videoprune.models.stock_model import TOKENS_AT_ONCE, StockVideoModel
from videoprune.prune.registry import draws
from videoprune.types import Encoded, VideoFrames

FRAMES = (2, 3, 2, 2)
CONFIGS = {
    "none": PruneConfig(),
    "inside": PruneConfig.from_dict({"encoder": {"method": "evoprune", "keep": 0.5}}),
    "fused": PruneConfig.from_dict(
        {"encoder": {"method": "evoprune", "keep": 0.6}, "fusion": {"method": "cooperative", "keep": 0.5}}
    ),
    "novelty": PruneConfig.from_dict({"encoder": {"method": "evoprune", "keep": 0.5, "frames": "novelty"}}),
    "over time": PruneConfig.from_dict(
        {"encoder": {"method": "evoprune", "keep": 0.5, "temporal": 0.5, "still": -0.9}}
    ),
    "rival": PruneConfig.from_dict({"encoder": {"method": "divprune", "keep": 0.4}}),
    "random": PruneConfig.from_dict({"encoder": {"method": "random", "keep": 0.4}}),
    "drawn behind": PruneConfig.from_dict({"fusion": {"method": "random", "keep": 0.4}}),
}


class _Given:
    """Instead of a processor: the clips that were made, in their order."""

    def __init__(self, made: list[Clip]) -> None:
        self.left = list(made)

    def clip(self, frames: VideoFrames) -> Clip:
        return self.left.pop(0)


def _made(kind: str) -> list[Clip]:
    found = [clips(kind, 1, n, seed=i)[0] for i, n in enumerate(FRAMES)]
    return [Clip({k: v for k, v in c.items() if k != "ids"}, c["ids"]) for c in found]


def _model(kind: str) -> StockVideoModel:
    model = StockVideoModel.__new__(StockVideoModel)
    model.model = model.module = stock_model(kind)
    model.device = torch.device("cpu")
    return model


def _encode(model: StockVideoModel, made: list[Clip], prune: PruneConfig, at_once: bool) -> list[Encoded]:
    none = VideoFrames(torch.zeros(1, 2, 2, 3, dtype=torch.uint8), (0.0,), 1.0, "", "none")
    settings = model.settings(prune)
    groups = [made] if at_once else [[c] for c in made]
    found = []
    for group in groups:
        model.inputs = _Given(group)  # type: ignore[assignment]
        found += model.encode([none] * len(group), settings)
    return found


def _tensors(found: object) -> Iterator[Tensor]:
    """All tensors of features, whatever they are nested in."""
    if isinstance(found, Tensor):
        yield found.flatten(0, -2)
    elif found is not None:
        for part in found:  # type: ignore[attr-defined]
            yield from _tensors(part)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("kind", KINDS)
def test_together_as_alone(kind, name):
    model, made, calls = _model(kind), _made(kind), []
    handle = model.hooks.family.vision.register_forward_pre_hook(lambda *_: calls.append(1))
    together = _encode(model, made, CONFIGS[name], at_once=True)
    handle.remove()
    alone = _encode(model, made, CONFIGS[name], at_once=False)
    apart = draws(CONFIGS[name])
    grouped = len(list(groups_of(made, [1] * len(made), TOKENS_AT_ONCE)))
    assert grouped < len(made)
    assert len(calls) == (len(made) if apart else grouped)
    for one, other in zip(together, alone, strict=True):
        assert one.trace.as_dict() == other.trace.as_dict()
        assert one.features.marked == other.features.marked
        assert one.features.frames == other.features.frames
        mine, its = one.features.output, other.features.output
        assert int(dropped(mine)) == int(dropped(its))
        for key in ("pooler_output", "deepstack_features"):
            for a, b in zip(_tensors(mine.get(key)), _tensors(its.get(key)), strict=True):
                torch.testing.assert_close(a, b, equal_nan=True, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_split_can_be_joined(kind):
    model, made = _model(kind), _made(kind)
    alike = [made[0], made[2], made[3]]
    encoded = _encode(model, alike, CONFIGS["none"], at_once=True)
    outputs = [e.features.output for e in encoded]
    whole = joined(outputs)
    again = split(whole, [e.trace.dense for e in encoded], [c.frames for c in alike])
    for one, other in zip(outputs, again, strict=True):
        for a, b in zip(_tensors(one.pooler_output), _tensors(other.pooler_output), strict=True):
            assert torch.equal(a, b)


def test_groups():
    """Neighbours of one shape up to the budget; what is larger stands alone."""

    def clip(frames: int, side: int = 4) -> Clip:
        return Clip({"pixel_values_videos": torch.zeros(1, frames, 3, side, side)}, [])

    made = [clip(2), clip(2), clip(2), clip(3), clip(2, 8), clip(2, 8), clip(2, 8)]
    tokens = [4, 4, 4, 5, 20, 6, 4]
    groups = list(groups_of(made, tokens, 10))
    number = {id(c): i for i, c in enumerate(made)}
    assert [[number[id(c)] for c in g] for g in groups] == [[0, 1], [2], [3], [4], [5, 6]]
    assert list(groups_of([], [], 10)) == []


def test_overflow_is_told_whichever_clip_it_is_in():
    model, made = _model("qwen3_vl"), _made("qwen3_vl")
    made[1].tensors["pixel_values_videos"][0] = float("nan")
    with pytest.raises(ValueError, match="overflowed"):
        _encode(model, made, CONFIGS["fused"], at_once=True)
