"""Models of true shape: made where they are wanted, with prompts for as many clips as wanted."""

from __future__ import annotations

import pytest
import torch

from videoprune.models.random_weights import random_inputs, random_model, shape_names

SHAPE = """
model_type: qwen2_5_vl
image_token_id: 60
video_token_id: 61
vision_start_token_id: 62
vision_config: {depth: 2, hidden_size: 32, intermediate_size: 48, num_heads: 4, patch_size: 4, out_hidden_size: 32,
  fullatt_block_indexes: [1], window_size: 16}
text_config: {hidden_size: 32, intermediate_size: 48, num_hidden_layers: 2, num_attention_heads: 4,
  num_key_value_heads: 2, vocab_size: 64,
  rope_parameters: {rope_type: default, rope_theta: 10000.0, mrope_section: [2, 1, 1]}}
"""


@pytest.fixture
def shape(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(SHAPE)
    return str(path)


@pytest.mark.parametrize("name", shape_names())
def test_every_tensor_is_made_on_the_wanted_device(name):
    """`meta` holds no weights: anything that is made elsewhere first would show."""
    model = random_model(name, device="meta")
    assert {p.device.type for p in (*model.parameters(), *model.buffers())} == {"meta"}
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_a_device_does_not_change_the_weights_of_a_seed(shape):
    one, other = random_model(shape), random_model(shape, device="cpu")
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_prompt_for_each_clip(shape):
    model = random_model(shape, dtype=torch.float32)
    one = random_inputs(model, 4, text_tokens=8, size=(16, 24))
    three = random_inputs(model, 4, text_tokens=8, size=(16, 24), clips=3)
    assert three["input_ids"].shape == (3, one["input_ids"].shape[1])
    assert three["video_grid_thw"].tolist() == [[2, 4, 6]] * 3
    pixels = three["pixel_values_videos"].unflatten(0, (3, -1))
    assert torch.equal(pixels[0], one["pixel_values_videos"])  # the same seed
    assert not torch.equal(pixels[0], pixels[1])  # a clip of its own
