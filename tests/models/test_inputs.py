"""Inputs made with torch alone: whole prompts that every family takes, and the numbers a processor would give."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.plug.stock import BUILDERS, stock_model
from videoprune.models.inputs import PlainInputs, plain_size
from videoprune.models.random_weights import random_config, random_inputs, shape_names
from videoprune.types import VideoFrames

SIZES = {"qwen2_5_vl": (24, 32), "qwen3_vl": (24, 32), "video_llama_3": (24, 32)}


def frames(count: int, size: tuple[int, int] = (40, 56), seed: int = 0) -> VideoFrames:
    pixels = torch.randint(
        256, (count, *size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )
    return VideoFrames(pixels, tuple(float(i) for i in range(count)), float(count), "x", "test")


def plain(kind: str) -> tuple[PlainInputs, object]:
    model = stock_model(kind)
    return PlainInputs(model.config, size=SIZES.get(kind)), model


@pytest.mark.parametrize("kind", sorted(BUILDERS))
def test_every_family_takes_a_batch_and_it_equals_its_rows(kind):
    make, model = plain(kind)
    clips = [frames(4, seed=0), frames(4, seed=1)]
    batch = make([make.clip(c) for c in clips], ["what is it", "where"])
    with torch.no_grad():
        together = model(**batch).logits[:, -1]
    for i, clip in enumerate(clips):
        one = make([make.clip(clip)], [["what is it", "where"][i]])
        with torch.no_grad():
            alone = model(**one).logits[:, -1]
        assert torch.allclose(alone[0], together[i], atol=1e-5)


def test_packed_patches_are_where_they_were():
    """Qwen: row r of a unit is the patch that a slow loop over time, units and patches finds."""
    make, model = plain("qwen3_vl")
    clip = make.clip(frames(3, (24, 32)))
    rows = clip.tensors["pixel_values_videos"].view(2, -1, 3, 2, 4, 4)
    x = (frames(3, (24, 32)).pixels.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    x = torch.cat([x, x[-1:]])  # an odd frame at the end stands twice
    place = 0
    for unit_row in range(3):
        for unit_column in range(4):
            for r in range(2):
                for c in range(2):
                    top, left = (2 * unit_row + r) * 4, (2 * unit_column + c) * 4
                    for step in range(2):
                        for t in range(2):
                            expected = x[2 * step + t, :, top : top + 4, left : left + 4]
                            assert torch.allclose(rows[step, place, :, t], expected)
                    place += 1
    assert clip.tensors["video_grid_thw"].tolist() == [[2, 6, 8]]
    assert clip.ids.count(model.config.video_token_id) == 2 * 12


def test_frames_are_resized_and_normalised():
    make, _ = plain("llava_onevision")
    x = make.clip(frames(2, (28, 28))).tensors["pixel_values_videos"]
    expected = frames(2, (28, 28)).pixels.numpy().transpose(0, 3, 1, 2) / 127.5 - 1
    np.testing.assert_allclose(x[0].numpy(), expected, atol=1e-5)
    assert make.clip(frames(2)).tensors["pixel_values_videos"].shape == (1, 2, 3, 28, 28)


def test_mistakes_are_named():
    _make, model = plain("qwen3_vl")
    with pytest.raises(ValueError, match=r"size=\(24, 30\); allowed: multiples of 8 pixels"):
        PlainInputs(model.config, size=(24, 30)).clip(frames(2))
    with pytest.raises(ValueError, match="model_type='qwen2'"):
        PlainInputs(type("Config", (), {"model_type": "qwen2"})())
    with pytest.raises(ValueError, match="shape='llava'; allowed: a YAML file, or internvl3-1b"):
        random_config("llava")


@pytest.mark.parametrize("kind", sorted(BUILDERS))
def test_random_inputs_run(kind):
    model = stock_model(kind)
    batch = random_inputs(model, 2, text_tokens=3, size=(24, 32))
    assert batch["input_ids"].shape[0] == 1


@pytest.mark.parametrize("shape", shape_names())
def test_true_shapes_say_what_their_encoders_look_at(shape):
    config = random_config(shape)
    assert all(side >= 224 for side in plain_size(config))
