"""When standing questions are asked, and what ends them: against a slow list of what was shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videoprune.stream import Standing, StandingQuestions, StreamAnswer
from videoprune.types import Trace

COLOURS = ("red", "blue")


def said(text: str, choice: str = "", at: float = 1.0) -> StreamAnswer:
    return StreamAnswer(text, choice, at, (), {}, {}, Trace(1, {}, 1))


def test_it_is_asked_when_something_new_was_shown_and_fires_once():
    questions = StandingQuestions()
    one = questions.set("Which colour?", COLOURS, "red", last=4.0)
    assert questions.due() is None  # nothing was shown since
    assert questions.shown()
    assert questions.due() == one
    assert questions.due() is None  # asked, and nothing new
    assert questions.answered(one, said("B", "B")) is None
    questions.shown()
    fired = questions.answered(one, said("A", "A", at=7.5))
    assert fired is not None
    assert (fired.standing, fired.seconds) == (one, 7.5)
    assert questions.waiting() == ()
    assert questions.fired() == (fired,)
    assert questions.due() is None  # though it was due
    assert not questions.shown()
    assert questions.answered(one, said("A", "A")) is None


def test_only_about_what_comes_after_it_was_set():
    questions = StandingQuestions()
    assert questions.set("Is it red?", last=None).since is None
    since = questions.set("Is it red?", last=4.0).since
    assert since is not None
    assert 4.0 < since < 4.0001


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("Tell me when the circle turns red", "Is this so: the circle turns red?"),
        ("let me know when it rains.", "Is this so: it rains?"),
        ("Is there a dog?", "Is this so: Is there a dog?"),
    ],
)
def test_free_text_is_asked_for_yes_or_no(text, asked):
    standing = Standing(1, text)
    sample = standing.sample()
    assert (sample.question, sample.options) == (asked, ("yes", "no"))
    assert [
        standing.says(said(*a)) for a in (("A. yes", "A"), ("Yes.",), ("no", "B"), ("yesterday",), ("",))
    ] == [
        True,
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("options", "fires", "message"),
    [
        (("red",), "red", "options="),
        (("red", "red"), "red", "options="),
        (COLOURS, "green", "fires='green'; allowed: one of red, blue"),
        ((), "red", "fires='red' without options"),
    ],
)
def test_mistakes_are_named(options, fires, message):
    with pytest.raises(ValueError, match=message):
        StandingQuestions().set("Which colour?", options, fires, last=None)
    with pytest.raises(ValueError, match="text=''"):
        StandingQuestions().set("  ", last=None)


def test_no_more_than_allowed_wait_at_a_time():
    questions = StandingQuestions(most=2)
    one = questions.set("a", last=None)
    questions.set("b", last=None)
    with pytest.raises(ValueError, match="standing: 2 wait; allowed: 2 at a time"):
        questions.set("c", last=None)
    assert questions.drop(one.number)
    assert not questions.drop(one.number)
    assert questions.set("c", last=None).number == 3


@given(st.lists(st.sampled_from(["set", "shown", "ask", "fire", "drop"]), max_size=40))
def test_each_piece_of_news_is_asked_about_at_most_once(steps):
    """Oracle: for each question, the number of the news that it was last asked about."""
    questions, asked, news = StandingQuestions(most=99), dict[int, int](), 0
    for step in steps:
        if step == "set":
            asked[questions.set("x", last=None).number] = news
        elif step == "shown":
            news += 1
            assert questions.shown() == bool(asked)
        elif step == "drop" and asked:
            assert questions.drop(min(asked))
            del asked[min(asked)]
        elif step in ("ask", "fire"):
            due = questions.due()
            behind = {number for number, at in asked.items() if at < news}
            assert (due is None) == (not behind)
            if due is None:
                continue
            assert due.number in behind
            asked[due.number] = news
            fired = questions.answered(due, said("yes" if step == "fire" else "no"))
            assert (fired is not None) == (step == "fire")
            if fired:
                del asked[due.number]
    assert {s.number for s in questions.waiting()} == set(asked)
