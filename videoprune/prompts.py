"""The prompt of a question, and the letter of an answer. Shared by the multiple-choice benchmarks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase

from videoprune.types import Sample

LETTERS = ascii_uppercase

_LETTER = r"[\s(\[*\"']*([A-Z])(?![\w'])"  # a capital alone, perhaps in brackets, quotes or stars
# "A" before a small word is an article, unless a reason follows: "the answer is A because". "A or B" is none.
_NO_ARTICLE = r"(?!(?<=A)\s+(?!because\b|since\b|as\b)[a-z])(?!\W+(?:or|and)\W+[A-Z]\b)"
_AFTER_ANSWER = re.compile(r"(?i:\banswer)\s*(?i:is)?\s*:?\s*(?i:option\b)?" + _LETTER + _NO_ARTICLE)
_AFTER_OPTION = re.compile(r"(?i:\boption|\bchoice)\s*(?i:is)?\s*:?" + _LETTER)
_WHOLE = re.compile(r"[(\[*\"']*([A-Za-z])[)\].:,*\"']*")
_LEADING = re.compile(r"[(\[*\"']*([A-Z])(?:[)\]:*\"]|[.,](?!\w\.)|\s*\n)")  # not "A.M."


def prompt(sample: Sample) -> str:
    """`sample.prompt`, or the question, its options one per line as "A. red", and "Answer:".

    `sample.options` hold no letters.
    """
    if sample.prompt:
        return sample.prompt
    lines = [sample.question]
    lines += [f"{letter}. {text}" for letter, text in zip(LETTERS, sample.options, strict=False)]
    return "\n".join([*lines, "Answer:"])


def option_texts(options: Sequence[str]) -> tuple[str, ...]:
    """Options without their letters: ("A. red", "B. blue") -> ("red", "blue").

    Only if every option starts with its own letter; else they come back as they are.
    """
    own = [f"{letter}. " for letter in LETTERS[: len(options)]]
    if len(own) == len(options) and all(o.startswith(p) for o, p in zip(options, own, strict=True)):
        return tuple(o[len(p) :].strip() for o, p in zip(options, own, strict=True))
    return tuple(options)


def parse_choice(text: str, num_options: int, options: Sequence[str] = ()) -> str:
    """The letter that `text` chooses, or "" if it chooses none, or none for certain.

    In this order: the whole text is a letter ("B", " b.", "(B)", "**B**"); it starts with one ("B. red",
    "B) red", or "B" alone on the first line); it names one ("The answer is B", "Answer: (B)", "Option B").
    A letter that is out of range, or none: the text, or what follows "answer is", equals exactly one of
    `options`, which hold no letters. "A man walks" is no choice of A.
    Raises ValueError unless 2 <= num_options <= 26, and `options` is empty or has that many.
    """
    if not 2 <= num_options <= len(LETTERS):
        raise ValueError(f"num_options={num_options}; allowed: 2 to {len(LETTERS)}")
    if options and len(options) != num_options:
        raise ValueError(f"options has {len(options)} entries; allowed: none, or num_options={num_options}")
    text = text.strip()
    letter = _letter(text)
    return letter if letter and letter in LETTERS[:num_options] else _by_text(text, options)


def _letter(text: str) -> str:
    if found := _WHOLE.fullmatch(text):
        return found[1].upper()
    if found := _LEADING.match(text):
        return found[1]
    if answers := _AFTER_ANSWER.findall(text):
        return str(answers[-1])
    others = set(_AFTER_OPTION.findall(text))
    return str(others.pop()) if len(others) == 1 else ""


def _by_text(text: str, options: Sequence[str]) -> str:
    """The letter of the one option that equals the text, or what follows "answer is" in it."""
    after = re.sub(r"^.*?\banswer\b\s*(?:is\b)?\s*:?", "", text, flags=re.IGNORECASE | re.DOTALL)
    said = {_plain(text), _plain(after)} - {""}
    same = [i for i, option in enumerate(options) if _plain(option) in said]
    return LETTERS[same[0]] if len(same) == 1 else ""


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .,:;!\"'*()")
