"""Pruning holds hardly more bytes at once than the unpruned model: counted on blocks of true width.

The block behind a merge still sees the hidden states before it, which the encoder holds until that block is done.
"""

from __future__ import annotations

import torch
from transformers import AutoModelForImageTextToText

from pipelines.measure.live_bytes import LiveBytes
from videoprune import apply, remove
from videoprune.config import PruneConfig, preset
from videoprune.models.random_weights import random_config, random_inputs
from videoprune.prune.counts import with_fixed_shares


def llava_onevision_of_true_width():
    """Four of 27 blocks, which merge what the first half of them does; behind them a narrow LLM."""
    config = random_config("llava-onevision-0.5b")
    config.vision_config.num_hidden_layers = 4
    text = config.get_text_config()
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = 64, 352, 6
    text.layer_types = text.layer_types[:6]
    text.num_attention_heads, text.num_key_value_heads = 4, 2
    torch.manual_seed(0)
    return AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16).eval()


def test_hardly_more_than_unpruned():
    model = llava_onevision_of_true_width()
    inputs = random_inputs(model, 1)
    peaks = []
    for prune in (PruneConfig(), with_fixed_shares(preset("balanced"))):
        apply(model, prune)
        with torch.no_grad(), LiveBytes() as found:
            model(**inputs, logits_to_keep=1)
        peaks.append(found.peak)
        remove(model)
    unpruned, pruned = peaks
    assert 0 < pruned <= 1.01 * unpruned
