"""Positions that visual tokens move on by less than one, against loops and against the model asked token by token."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.models.test_multi_encoder import CONFIGS, text
from tests.models.tiny import random_clip, tiny_model
from videoprune.config import PruneConfig
from videoprune.models.multi_encoder import MultiEncoderVLM
from videoprune.models.multi_encoder_config import MultiEncoderConfig

MODELS = {step: tiny_model() for step in (0.25, 0.3, 1.0)}
for step, model in MODELS.items():
    model.config.visual_step = step


@given(
    step=st.sampled_from(list(MODELS)),
    row=st.lists(st.booleans(), min_size=1, max_size=12),
    padding=st.integers(0, 3),
)
def test_positions_are_counted_one_by_one(step: float, row: list[bool], padding: int) -> None:
    """row: whether each token is visual."""
    mask = torch.tensor([[False] * padding + [True] * len(row)])
    visual = torch.tensor([[False] * padding + row])
    found = MODELS[step].positions(mask, visual)[0, padding:].tolist()
    expected = [0.0]
    for is_visual in row[1:]:
        expected.append(expected[-1] + (step if is_visual else 1))
    assert found == pytest.approx(expected, abs=1e-5)


def test_a_step_of_one_counts_as_ever() -> None:
    mask = torch.tensor([[False, True, True, True]])
    found = MODELS[1.0].positions(mask, torch.tensor([[False, True, True, False]]))
    assert found.dtype == torch.int64  # as `generate` makes them
    assert found.tolist() == [[0, 0, 1, 2]]


@torch.no_grad()
def token_by_token(model: MultiEncoderVLM, tokens, ids: torch.Tensor, new: int) -> list[int]:
    """Greedy ids of one prompt (1, L), the whole forward pass again for each."""
    out: list[int] = []
    for _ in range(new):
        so_far = torch.cat([ids, torch.tensor([out], dtype=ids.dtype)], 1)
        out.append(int(model(so_far, torch.ones_like(so_far), tokens).logits[0, -1].argmax()))
    return out


@pytest.mark.parametrize("step", [0.25, 0.3])
def test_generating_moves_on_as_a_whole_pass_does(step: float) -> None:
    model = MODELS[step]
    tokens, (ids, mask) = model.encode([random_clip(3)], PruneConfig()), text(3)
    both = model.generate(ids, mask, tokens, max_new_tokens=6)
    for row in range(3):
        assert both[row].tolist() == token_by_token(model, tokens, ids[row : row + 1, row % 3 :], 6)


@pytest.mark.parametrize("name", ["none", "all three"])
def test_a_shared_beginning_has_the_same_positions(name: str) -> None:
    model, prune = MODELS[0.25], CONFIGS[name]
    settings = model.settings(prune)
    tokens, (ids, mask) = model.encode([random_clip(3)], prune), text(2)
    alone = model.generate(ids, mask, tokens, settings=settings, max_new_tokens=5)
    prefix = model.beginnings(tokens, settings)
    shared = model.generate(ids, mask, tokens, settings=settings, prefix=prefix, max_new_tokens=5)
    assert torch.equal(alone, shared)


def test_the_step_changes_what_the_model_sees() -> None:
    tokens, (ids, mask) = MODELS[1.0].encode([random_clip(3)], PruneConfig()), text(1)
    with torch.no_grad():
        a, b = (MODELS[step](ids, mask, tokens).logits for step in (0.25, 1.0))
    assert (a - b).abs().max() > 1e-3


@pytest.mark.parametrize("step", [0.0, -1.0, 1.5])
def test_a_step_out_of_range_is_named(step: float) -> None:
    with pytest.raises(ValueError, match=rf"visual_step={step}; allowed: above 0, up to 1"):
        MultiEncoderConfig(visual_step=step)
