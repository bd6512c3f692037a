"""The demo model's tokenizer: byte-level BPE over the benchmark's own sentences, so any other text works too."""

from __future__ import annotations

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from demo_training.data import TRAIN_SEED
from videoprune.eval.benchmarks.moving_shapes import hard_questions
from videoprune.eval.benchmarks.moving_shapes.hard_scene import sample_hard_scene
from videoprune.eval.benchmarks.moving_shapes.questions import LETTERS, questions
from videoprune.eval.benchmarks.moving_shapes.scene import CHARACTERS, COLORS, SHAPES, sample_scene

PAD, EOS = "<|pad|>", "<|end|>"
# An option's marker and the answer's are a token each; otherwise words with their space, digits, signs.
_SPLIT = r"\n[A-Z]\.|\nAnswer:| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+"


def build_tokenizer(vocab_size: int = 640) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS, padding_side="left"
    )


def mc_prompt(question: str, options: list[str]) -> str:
    lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=True)]
    return "\n".join([question, *lines, "Answer:"])


def open_prompt(question: str) -> str:
    return f"{question}\nAnswer:"


def _corpus() -> list[str]:
    rng = np.random.default_rng(TRAIN_SEED)
    texts = [f" {word}" for word in (*COLORS, *SHAPES, *CHARACTERS, *LETTERS, *"0123456789")] * 50
    for _ in range(500):
        pools = questions(sample_scene(rng), rng), hard_questions.questions(sample_hard_scene(rng), rng)
        for q in (*pools[0], *pools[1]):
            texts += [mc_prompt(q.text, [q.answer, *q.wrong[:3]]), f" {q.answer}"]
    for shot in ("first", "second"):
        texts += [open_prompt(f"List the objects that stay for the whole {shot} shot.")] * 50
    texts += [open_prompt("List the objects that are shown for a moment.")] * 50
    return texts


def moved_table(table: Tensor, old: PreTrainedTokenizerFast, new: PreTrainedTokenizerFast) -> Tensor:
    """Embeddings (V, W) of the old tokenizer's tokens -> of the new one's: a token that is new starts as the mean of
    those that its text was made of."""
    known = old.get_vocab()
    rows = []
    for token, _ in sorted(new.get_vocab().items(), key=lambda item: item[1]):
        if token in known:
            rows.append(table[known[token]])
        else:
            parts = old.encode(new.convert_tokens_to_string([token]))
            rows.append(table[parts].mean(0))
    return torch.stack(rows)
