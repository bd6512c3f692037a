"""The letter that a model's answer to a multiple-choice question names."""

from videoprune.choice.read import parse_choice

__all__ = ["parse_choice"]
