"""Letters read from short answers, with and without the options' texts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videoprune.choice import parse_choice

COLORS = ("red", "blue", "dark green", "cyan")


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        (" B", "B"),
        ("b", "B"),
        ("B.", "B"),
        ("(B)", "B"),
        ("**B**", "B"),
        ("[B]\n", "B"),
        ('"B"', "B"),
        ("B\nbecause it is blue", "B"),
        ("B. red", "B"),
        ("B) x", "B"),
        ("(B) blue", "B"),
        ("**B.** blue", "B"),
        ("B, I think", "B"),
        ("A: red", "A"),
        ("Answer: B", "B"),
        ("answer is (C).", "C"),
        ("The answer is B", "B"),
        ("The answer is B.", "B"),
        ("The correct answer is: **D**", "D"),
        ("The answer is A because the circle is red", "A"),
        ("Option A is wrong, so the answer is B", "B"),
        ("The answer is option C.", "C"),
        ("I choose option D", "D"),
        ("My choice: C", "C"),
        ("Best answer: C", "C"),
        ("red", "A"),
        ("Blue.", "B"),
        ("Answer: dark  green", "C"),
        ("The answer is cyan.", "D"),
        ("", ""),
        ("  \n", ""),
        ("E", ""),
        ("Z.", ""),
        ("A man walks", ""),
        ("Answer: A man walks", ""),
        ("Based on the video", ""),
        ("A.M. or P.M.", ""),
        ("Option A or option B", ""),
        ("The answer is B or C", ""),
        ("Option A is right", "A"),
        ("green", ""),
        ("red or blue", ""),
        ("Don't know", ""),
        ("The answer is", ""),
        ("I cannot answer.", ""),
    ],
)
def test_forms(text: str, letter: str) -> None:
    assert parse_choice(text, 4, COLORS) == letter


def test_option_text_needs_the_options_and_must_be_the_only_one() -> None:
    assert parse_choice("red", 4) == ""
    assert parse_choice("red", 3, ("red", "Red", "blue")) == ""
    assert parse_choice("blue", 3, ("red", "Red", "blue")) == "C"


def test_a_letter_out_of_range_may_still_be_an_option() -> None:
    assert parse_choice("E", 4, ("H", "E", "2", "T")) == "B"
    assert parse_choice("The answer is E.", 4, ("H", "E", "2", "T")) == "B"
    assert parse_choice("2", 4, ("H", "E", "2", "T")) == "C"
    assert parse_choice("E", 5) == "E"


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="num_options=1; allowed: 2 to 26"):
        parse_choice("A", 1)
    with pytest.raises(ValueError, match="options has 2 entries"):
        parse_choice("A", 4, ("a", "b"))


@settings(max_examples=60)
@given(
    st.integers(2, 26).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1))),
    st.sampled_from(["{}", " {}\n", "({})", "{}.", "**{}**", "Answer: {}", "The answer is {}."]),
)
def test_every_letter_in_every_dress(pair: tuple[int, int], dress: str) -> None:
    count, index = pair
    letter = chr(ord("A") + index)
    assert parse_choice(dress.format(letter), count) == letter
