"""What a model said, as the answer to a question."""

from __future__ import annotations

from videoprune.choice.read import parse_choice
from videoprune.types import Answer, Sample, Trace


def answer_of(said: str, sample: Sample, trace: Trace) -> Answer:
    """The text without blanks around it and, where options were given, the letter that it names."""
    choice = parse_choice(said, len(sample.options), options=sample.options) if sample.options else ""
    return Answer(said.strip(), choice, trace)
