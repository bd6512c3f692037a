"""The demo model's tokenizer: byte-level BPE over the benchmark's own sentences, so any other text works too."""

from __future__ import annotations

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from demo_training.data import TRAIN_SEED
from videoprune.eval.benchmarks.moving_shapes.questions import LETTERS, questions
from videoprune.eval.benchmarks.moving_shapes.scene import CHARACTERS, COLORS, SHAPES, sample_scene

PAD, EOS = "<|pad|>", "<|end|>"
# An option's marker and the answer's are a token each; otherwise words with their space, digits, signs.
_SPLIT = r"\n[A-Z]\.|\nAnswer:| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+"


def build_tokenizer(vocab_size: int = 512) -> PreTrainedTokenizerFast:
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
        for q in questions(sample_scene(rng), rng):
            texts += [mc_prompt(q.text, [q.answer, *q.wrong[:3]]), f" {q.answer}"]
    return texts
