"""What a model said to a question: as an answer, with the letter that it names of a multiple-choice question."""

from videoprune.choice.read import parse_choice
from videoprune.choice.said import answer_of

__all__ = ["answer_of", "parse_choice"]
