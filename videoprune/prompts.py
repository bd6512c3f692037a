"""The prompt of a question. Shared by the multiple-choice benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_uppercase

from videoprune.types import Sample

LETTERS = ascii_uppercase


def prompt(sample: Sample) -> str:
    """`sample.prompt`, or the question, its options one per line as "A. red", and "Answer:".

    `sample.options` hold no letters.
    """
    if sample.prompt:
        return whole_characters(sample.prompt)
    lines = [sample.question]
    lines += [f"{letter}. {text}" for letter, text in zip(LETTERS, sample.options, strict=False)]
    return whole_characters("\n".join([*lines, "Answer:"]))


def whole_characters(text: str) -> str:
    """`text` with U+FFFD for each half of a surrogate pair that stands alone: no tokenizer takes those."""
    return text.encode("utf-16-le", errors="surrogatepass").decode("utf-16-le", errors="replace")


def check_positions(tokens: int, positions: int) -> None:
    """Raises ValueError for more tokens of text than the LLM has positions: they would take hours and mean nothing."""
    if tokens > positions:
        raise ValueError(f"question: {tokens} tokens; allowed: at most {positions}, the positions of the LLM")


def option_texts(options: Sequence[str]) -> tuple[str, ...]:
    """Options without their letters: ("A. red", "B. blue") -> ("red", "blue").

    Only if every option starts with its own letter; else they come back as they are.
    """
    own = [f"{letter}. " for letter in LETTERS[: len(options)]]
    if len(own) == len(options) and all(o.startswith(p) for o, p in zip(options, own, strict=True)):
        return tuple(o[len(p) :].strip() for o, p in zip(options, own, strict=True))
    return tuple(options)
