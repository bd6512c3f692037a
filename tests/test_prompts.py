"""Prompts."""

from __future__ import annotations

from videoprune.prompts import option_texts, prompt
from videoprune.types import Sample

COLORS = ("red", "blue", "dark green", "cyan")


def test_prompt() -> None:
    sample = Sample("1", "v.mp4", "What color is the circle?", COLORS, "B")
    assert prompt(sample) == "What color is the circle?\nA. red\nB. blue\nC. dark green\nD. cyan\nAnswer:"
    assert prompt(Sample("1", "v.mp4", "Why?")) == "Why?\nAnswer:"


def test_option_texts() -> None:
    assert option_texts(["A. red", "B.  blue "]) == ("red", "blue")
    assert option_texts(["A. Lincoln", "Washington"]) == ("A. Lincoln", "Washington")
    assert option_texts(["B. red", "A. blue"]) == ("B. red", "A. blue")
    assert option_texts([]) == ()
