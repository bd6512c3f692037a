"""The model of several encoders that is trained: put together, or taken over from one that was trained before."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from demo_training.data import NUM_FRAMES
from demo_training.encoders import encoder_configs
from demo_training.shapes import checkpoint
from demo_training.text import moved_table
from videoprune.models.multi_encoder import MultiEncoderConfig, MultiEncoderVLM

VISUAL_STEP = 0.25  # 162 tokens of a frame span about as many positions as 16 and the words of llava-demo


def build_model(
    checkpoints: Path,
    tokenizer: PreTrainedTokenizerFast,
    start: Path | None = None,
    llm: Path | None = None,
) -> MultiEncoderVLM:
    """Encoders of `checkpoints`, or those that come with the script, and a new LLM. start: a trained model that all
    else is taken from. llm: a stock model whose LLM is taken instead."""
    text = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=160,
        intermediate_size=448,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=20,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    entries = [
        {"name": name, "model_type": c.model_type, **c.to_diff_dict()}
        for name, c in encoder_configs().items()
    ]
    torch.manual_seed(1)
    model = MultiEncoderVLM(
        MultiEncoderConfig(
            encoders=entries,
            text_config={"model_type": text.model_type, **text.to_diff_dict()},
            num_frames=NUM_FRAMES,
            visual_step=VISUAL_STEP,
        )
    )
    for name, encoder in model.encoders.items():
        encoder.load_state_dict(checkpoint(checkpoints, f"{name}.pt"))
    if start is not None:
        _go_on(model, start, tokenizer)
    if llm is not None:
        _take_llm(model, llm, tokenizer)
    model.encoders.requires_grad_(False)
    return model


def _go_on(model: MultiEncoderVLM, start: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Take over a trained model but for its encoders; tokens that are new start from their parts."""
    state = MultiEncoderVLM.from_pretrained(start, dtype=torch.float32).state_dict()
    state = {k: v for k, v in state.items() if not k.startswith("encoders.")}
    old = PreTrainedTokenizerFast.from_pretrained(start)
    for name in [k for k in state if k.endswith(("embed_tokens.weight", "lm_head.weight"))]:
        state[name] = moved_table(state[name], old, tokenizer)
    model.load_state_dict(state, strict=False)


def _take_llm(model: MultiEncoderVLM, folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """The LLM of a stock model of no more layers and the same widths. Layers that it has not pass everything through at
    first: what they add is 0."""
    source = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).model.language_model
    state, core = source.state_dict(), model.language_model.model
    old = AutoTokenizer.from_pretrained(folder)
    state["embed_tokens.weight"] = moved_table(state["embed_tokens.weight"], old, tokenizer)
    missing, unexpected = core.load_state_dict(state, strict=False)
    assert not unexpected, unexpected
    for layer in core.layers[len(source.layers) :]:
        for last in (layer.self_attn.o_proj, layer.mlp.down_proj):
            last.weight.data.zero_()
    assert {int(k.split(".")[1]) for k in missing} == set(range(len(source.layers), len(core.layers))), (
        missing
    )
    model.language_model.tie_weights()
