"""The model that ships: its size, its tokenizer, and that it loads and answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from videoprune.engine import Engine
from videoprune.eval.benchmarks.moving_shapes.render import render
from videoprune.eval.benchmarks.moving_shapes.scene import COLORS, SHAPES, sample_scene
from videoprune.models.loading import clip_shape, model_folder
from videoprune.models.multi_encoder import MultiEncoderVLM
from videoprune.models.video_model import open_model
from videoprune.types import VideoFrames


def drawn_clip(seed: int) -> tuple[VideoFrames, tuple]:
    scene = sample_scene(np.random.default_rng(seed), staggered=False)
    times = (np.arange(8) + 0.5) / 8 * scene.duration
    pixels, _ = render(scene, times, 112)
    frames = VideoFrames(torch.from_numpy(pixels), tuple(times.tolist()), scene.duration, "drawn", "drawn")
    return frames, scene.objects


def test_the_weights_stay_small_and_every_parameter_is_there() -> None:
    assert sum(f.stat().st_size for f in model_folder("demo").glob("*.safetensors")) <= 16 * 2**20
    opened = open_model("demo", device="cpu")
    model, tokenizer = opened.module, opened.tokenizer
    assert isinstance(model, MultiEncoderVLM)
    assert (opened.num_frames, opened.frame_size) == clip_shape("demo") == (8, (112, 112))
    assert all(p.isfinite().all() for p in model.parameters())
    assert len(model.towers) >= 3
    assert model.num_layers >= 8
    assert all(len(t.blocks) >= 8 for t in model.towers if t.parts)
    assert sum(t.parts is not None for t in model.towers) >= 2
    text = "Which character is on the red star?\nA. 7\nB. K\nAnswer: naïve 日本"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_it_lists_the_objects_of_clips_it_never_saw() -> None:
    """Colours and shapes of every object, unpruned: nearly all of them, so the weights are the trained ones."""
    engine = Engine("demo", prune="none", device="cpu")
    found = total = 0
    for seed in range(5):
        frames, objects = drawn_clip(seed)
        said = engine.answer(engine.encode([frames]), ["List the objects."], max_new_tokens=40)[0].text
        total += len(objects)
        found += sum(f"{o.color} {o.shape}" in said for o in objects)
    assert len(COLORS) * len(SHAPES) == 48  # a guess would be right once in 48
    assert found >= 0.8 * total


@pytest.mark.parametrize("prune", ["light", "balanced", "aggressive", "meteor", "evoprune"])
def test_every_preset_runs_at_the_retention_it_names(prune: str) -> None:
    engine = Engine("demo", prune=prune, device="cpu")
    clips = [drawn_clip(seed)[0] for seed in range(3)]
    retention = []
    for frames in clips:
        answers = engine.answer(
            engine.encode([frames]), ["What shape is the red object?", "List the objects."]
        )
        retention += [a.trace.retention for a in answers]
        assert all(a.text for a in answers)
    wanted = {"light": 0.5, "balanced": 0.25, "aggressive": 0.1, "meteor": 0.125, "evoprune": 0.25}[prune]
    assert np.mean(retention) == pytest.approx(wanted, rel=0.25)
