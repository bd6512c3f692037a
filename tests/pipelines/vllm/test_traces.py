"""What a run says of tokens where vLLM answers is what it says where transformers does."""

from __future__ import annotations

import pytest
import torch

from pipelines.vllm.prompts import clip_trace
from videoprune.config import PruneConfig, preset
from videoprune.engine import Engine
from videoprune.models.loading import model_config
from videoprune.types import VideoFrames

SETTINGS = ("none", "balanced-serve", "aggressive-serve", "light-serve", "evoprune", "uniform")


@pytest.mark.parametrize("name", ["qwen-demo", "llava-demo"])
def test_traces_are_those_of_the_engine(name: str) -> None:
    engine, config = Engine(name, PruneConfig(), device="cpu"), model_config(name)
    for frames in (8, 5):  # Qwen joins two, and repeats the last one of an odd number
        pixels = torch.randint(256, (frames, 96, 96, 3), dtype=torch.uint8)
        clip = VideoFrames(pixels, tuple(map(float, range(frames))), float(frames), "", "none")
        for setting in SETTINGS:
            pruned = engine.with_prune(preset(setting))
            (encoded,) = pruned.encode([clip])
            (answer,) = pruned.answer([encoded], ["What?"], max_new_tokens=1)
            found = clip_trace(config, preset(setting), frames, (96, 96))
            assert found.as_dict() == answer.trace.as_dict(), (frames, setting)
