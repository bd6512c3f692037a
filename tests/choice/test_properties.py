r"""What holds for every answer: what is put around a clean one changes nothing, and nothing comes from nothing."""

from __future__ import annotations

import re
from collections.abc import Callable

from hypothesis import example, given, settings
from hypothesis import strategies as st

from videoprune.choice import parse_choice
from videoprune.choice.clean import plain

OPTIONS = ("red", "blue", "dark green", "The man walks away.", "two", "three")
WIDE = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}
CLEAN = (
    "{0}",
    "({0})",
    "{0}.",
    "{0}. {1}",
    "{0}) {1}",
    "{0} {1}",
    "{1}",
    "The answer is {0}.",
    "Option {0}",
    "I choose {0}.",
)
WRAPPERS: list[Callable[[str], str]] = [
    r"\boxed{{{}}}".format,
    r"$\boxed{{\text{{{}}}}}$".format,
    "<answer>{}</answer>".format,
    "<answer>\n{}\n</answer>\n".format,
    "<think>Is it (A), or (B)? The answer is A.</think>{}".format,
    "Hm. I choose B.</think>\n\n{}".format,
    "**{}**".format,
    "`{}`".format,
    "```\n{}\n```".format,
    "{{{}}}".format,
    "[{}]".format,
    "“{}”".format,
    "  {}\n\n".format,
    "Answer: {}".format,
    "答案：{}".format,
    "The answer is: {}".format,
    lambda text: text.translate(WIDE),
]
# What a chat template leaves: outside of all else.
TURNS: list[Callable[[str], str]] = [
    "{}".format,
    "{}<|im_end|>".format,
    "{}</s>".format,
    "{}<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nA or C?".format,
    "<|im_start|>assistant\n{}<|im_end|>\n".format,
    "ASSISTANT: {}".format,
    "<start_of_turn>model\n{}<end_of_turn>".format,
]
# Words without a letter by itself, and without one that stands for an option or speaks of one.
WORDS = st.from_regex(r"[a-zA-Z][a-z]{1,8}", fullmatch=True).filter(lambda w: plain(w) not in OPTIONS)


@settings(max_examples=300)
@given(
    st.integers(0, 5),
    st.sampled_from(CLEAN),
    st.lists(st.sampled_from(WRAPPERS), max_size=2),
    st.sampled_from(TURNS),
)
@example(0, "{0}.", ["{{{}}}".format, r"$\boxed{{\text{{{}}}}}$".format], "{}".format)
def test_wrappers_change_nothing(
    index: int, form: str, wrappers: list[Callable[[str], str]], turn: Callable[[str], str]
) -> None:
    letter = "ABCDEF"[index]
    text = form.format(letter, OPTIONS[index])
    for wrapper in wrappers:
        text = wrapper(text)
    assert parse_choice(turn(text), 6, OPTIONS) == letter


@settings(max_examples=200)
@given(st.lists(st.tuples(WORDS, st.sampled_from([" ", ", ", ". ", "\n", ": ", " (", ") "])), max_size=30))
def test_no_letter_and_no_option_give_no_choice(words: list[tuple[str, str]]) -> None:
    text = "".join(word + separator for word, separator in words)
    lines = {plain(part) for part in re.split(r"[.,:()\n]", text)}
    if not lines & {plain(option) for option in OPTIONS}:
        assert parse_choice(text, 6, OPTIONS) == ""


@settings(max_examples=200)
@given(st.text(max_size=60), st.integers(2, 26))
def test_any_text_gives_a_letter_in_range_or_none(text: str, count: int) -> None:
    assert parse_choice(text, count) in ["", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ"[:count]]


@settings(max_examples=100)
@given(
    st.permutations("ABCD"),
    st.sampled_from(["{} or {}", "{} and {}", "({}) or ({})", "Both {} and {}", "{}/{}", "{}, {}"]),
)
def test_two_letters_are_no_choice(letters: list[str], form: str) -> None:
    assert parse_choice(form.format(*letters), 4) == ""
    assert parse_choice(f"The answer is {form.format(*letters)}.", 4) == ""
