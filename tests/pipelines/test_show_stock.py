"""`videoprune show` with stock models, whose prompts are made here instead of by a processor."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipelines.show import pictures, survivors
from tests.plug.stock import clips, inputs, stock_model
from videoprune.config import PruneConfig
from videoprune.stock_engine import StockEngine
from videoprune.types import VideoFrames

PRUNE = PruneConfig.from_dict(
    {"encoder": {"method": "evoprune", "keep": 0.5}, "llm": {"method": "fixed", "keep": 0.7}}
)


class Prepared(StockEngine):
    """An engine without files: a tiny model of a family, and one clip's ready inputs."""

    def __init__(self, kind: str, prune: PruneConfig) -> None:
        self.kind, self.device, self.model = kind, "cpu", stock_model(kind)
        self.inputs = SimpleNamespace(decode=lambda ids: ["said"] * len(ids))
        self.set_prune(prune)

    def _inputs(self, clips_, texts):
        return inputs(self.kind, clips(self.kind, 1, 3), [[7, 8, 9]])


def video(frames: int) -> VideoFrames:
    pixels = torch.randint(0, 256, (frames, 24, 32, 3), dtype=torch.uint8)
    return VideoFrames(pixels, tuple(float(i) for i in range(frames)), float(frames), "clip", "none")


@pytest.mark.parametrize(
    ("kind", "frames", "grid"),
    [("llava_onevision", 3, (4, 4)), ("qwen2_5_vl", 6, (3, 4)), ("internvl", 3, (3, 3))],
)
@pytest.mark.parametrize("prune", [PRUNE, PruneConfig()], ids=["pruned", "none"])
def test_marks_are_the_tokens_of_the_trace(kind, frames, grid, prune):
    engine, n = Prepared(kind, prune), grid[0] * grid[1]
    found = survivors(engine, video(frames), "why")
    trace = engine.answer(engine.encode([video(frames)])[0], ["why"])[0].trace
    newline, seen = int(kind == "llava_onevision"), frames // 3
    assert (found.encoders, found.grids, found.answer) == (("vision",), (grid,), "said")
    fused, last = found.stages["encoder"][0], found.stages["llm"][0]
    assert fused.shape == last.shape == found.owner[0].shape == (frames, n)
    assert int(fused.sum()) == seen * (trace.fused - newline)
    assert int(last.sum()) in (seen * trace.llm_layers[-1], seen * (trace.llm_layers[-1] - newline))
    assert np.array_equal(fused[::seen], fused[seen - 1 :: seen])
    assert len(list(pictures(video(frames), found))) == frames
    assert fused.all() == (prune == PruneConfig())
