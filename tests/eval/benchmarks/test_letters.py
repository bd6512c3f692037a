"""Each tool's letter rule against cases worked out by hand, its faults among them."""

from __future__ import annotations

import pytest

from videoprune.eval.benchmarks import letters

OPTIONS = {"A": "roll the handle", "B": "tap their feet", "C": "strum", "D": "hit", "E": "pat"}


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("C", "C"),
        (" (B) ", "B"),
        ("The best answer is C", "C"),
        ("The correct answer is: D.", "D"),
        ("The answer: B", "B"),
        ("Best answer: C", "B"),  # the missing comma: the B of "Best" is read
        ("Best option: D", "B"),
        ("Based on the video, the answer is D", "B"),
        ("A man walks to the door", "A"),
        ("The best option is C", "C"),  # no capital A to D before it, so the fault does not show
        ("The Correct option is A", "C"),
        ("it is the second of the four things that were shown there", ""),
        ("c", ""),
        ("", ""),
        ("E", ""),
    ],
)
def test_video_mme(text: str, letter: str) -> None:
    assert letters.video_mme(text) == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("B. a dog", "B"),
        ("(A) or (C), but I think the answer is D", "D"),  # starts/ends rank above a phrase
        ("A dog. So the answer is C because it barks", "A"),  # "A" alone at the start ranks first
        ("It shows C: a car, and D) a door", "C"),  # the colon ranks above the bracket
        ("seen are (B) and later (D) there", "D"),  # of one rank the last place
        ("Cats and Dogs", "D"),  # inside words, nothing else found: the last capital
        ("no idea", ""),
        (" ...", ""),
        ("Best answer: C", "C"),
    ],
)
def test_lmms_eval(text: str, letter: str) -> None:
    assert letters.lmms_eval(text) == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("C", "C"),
        ("C.", "C"),
        ("(B) tap, not (D)", "D"),  # the last in brackets
        ("B or C then", "C"),
        ("they seem to tap their feet all the time", "B"),  # more than five words: an option's text
        ("tap their feet", ""),  # five words or fewer: not looked up
        ("C\n", ""),  # a line break is no blank
        ("B) x", ""),
        ("**B**", ""),
        ("option E.x", "E"),
    ],
)
def test_mmmu(text: str, letter: str) -> None:
    assert letters.mmmu(text, OPTIONS) == letter


def test_mmmu_guesses_the_same_letter_every_time() -> None:
    guesses = {seed: letters.mmmu("**B**", OPTIONS, guess_seed=seed) for seed in map(str, range(200))}
    assert set(guesses.values()) == set("ABCDE")
    assert guesses == {s: letters.mmmu("B) x", OPTIONS, guess_seed=s) for s in guesses}
    assert letters.mmmu("C", OPTIONS, guess_seed="0") == "C"


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("Because of the cat", "B"),
        ("The answer is C) strum", "C"),
        ("A is wrong, the answer is D: hit", "D"),
        ("Each: B: no", "B"),
        ("A) and E) fit", "A"),
        ("F", ""),
        ("", ""),
        ("nothing", ""),
        ("A: no; the answer is none", "A"),  # the first character stays
    ],
)
def test_ig_vlm(text: str, letter: str) -> None:
    assert letters.ig_vlm(text) == letter
