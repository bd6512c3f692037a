"""WUPS: its arithmetic with a made-up similarity, and the published way of counting with the real word data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.eval.benchmarks import made
from videoprune.eval import wups
from videoprune.eval.benchmarks.registry import benchmark

NEAR = {("dog", "cat"): 0.8, ("boy", "girl"): 0.95, ("run", "jump"): 0.5}


class FakeWords:
    """Blanks between words, no lemmas, a table of similarities."""

    sentences = True
    source = "made up"

    def __init__(self, stopwords: Sequence[str] = ()) -> None:
        self.stopwords = set(stopwords)

    def lemmas(self, text: str) -> list[str]:
        return [w for w in text.lower().split() if w not in self.stopwords]

    def tokens(self, text: str) -> list[str]:
        return text.split()

    def wup(self, a: str, b: str) -> float:
        return 1.0 if a == b else NEAR.get((a, b), NEAR.get((b, a), 0.0))


def score(prediction: str, *references: str, threshold: float = 0.0, exact: bool = False) -> float:
    words: Any = FakeWords(("the", "a"))
    return wups.score(words, prediction, references, threshold, exact=exact)


def test_by_hand() -> None:
    assert score("the dog", "a dog") == 1.0
    assert score("dog", "cat") == pytest.approx(0.8)
    assert score("dog run", "cat jump") == pytest.approx(0.8 * 0.5)
    # dog finds cat 0.8; girl finds nothing and is left out: the other direction is lower or equal
    assert score("dog tree", "cat") == pytest.approx(0.8)
    assert score("boy dog", "girl") == pytest.approx(0.95)
    assert score("dog", "dog cat") == pytest.approx(min(1.0, 1.0 * 0.8))
    assert score("tree", "water") == 0.0
    assert score("", "water") == 0.0
    assert score("the", "a") == 0.0  # nothing but stopwords
    assert score("tree", "water", "tree") == 1.0  # the better of two references


def test_threshold() -> None:
    assert score("dog", "cat", threshold=0.9) == pytest.approx(0.08)
    assert score("boy", "girl", threshold=0.9) == pytest.approx(0.95)
    assert score("dog run", "cat jump", threshold=0.9) == pytest.approx(0.08 * 0.05)


def test_exact() -> None:
    assert score("the dog", "dog", exact=True) == 1.0
    assert score("dog", "cat", exact=True) == 0.0
    # Both are empty once stopwords are gone: equal, as the script says.
    assert score("the", "a", exact=True) == 1.0


def row(number: int, text: str, answer: str, kind: str, **meta: str) -> dict[str, Any]:
    return {
        "question_id": f"v_{number}",
        "video_id": "v",
        "category": kind,
        "answer": answer,
        "text": text,
    } | {
        "outcome": "complete",
        "reason": "",
        "meta": {"index": str(number)} | meta,
    }


def test_groups_and_the_fault_of_lmms_eval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wups, "Words", FakeWords)
    folder = made.write_nextoe(tmp_path, made.nextoe_rows(9))
    rows = [
        row(0, "dog", "cat", "TP"),
        row(1, "dog", "tree", "TN", second_answer="cat"),
        row(2, "dog", "cat", "DB"),
        row(3, "boy", "boy", "DC"),
        row(4, "boy", "boy", "CW") | {"outcome": "failed", "reason": "missing: x"},
    ]
    found = benchmark("nextoe").score(rows, split="test", protocol="lmms-eval", folder=folder).as_dict()
    zero, nine, faulty = (found["metrics"][m] for m in ("WUPS@0", "WUPS@0.9", "lmms-eval WUPS@0.9"))
    assert zero["TN"] == {"value": 80.0, "n": 2, "sum": 1.6}
    assert {g: zero[g]["value"] for g in ("DB", "DC", "CW", "D", "all")} == {
        "DB": 0.0,
        "DC": 100.0,
        "CW": 0.0,
        "D": 50.0,
        "all": 52.0,
    }
    assert nine["TN"]["value"] == 8.0
    assert faulty["TN"]["value"] == 44.0  # (0.08 + 0.8) / 2: threshold 0 for the second reference
    assert zero["TC"] == {"value": None, "n": 0, "sum": 0}
    with pytest.raises(ValueError, match="need its folder"):
        benchmark("nextoe").score(rows, split="test", protocol="official")


def test_without_nltk_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wups, "find_spec", lambda name: None)
    wups._wordnet.cache_clear()
    with pytest.raises(ValueError, match=r"nltk is not installed.*videoprune\[benchmarks\].*wordnet.*punkt"):
        wups.Words(())


@pytest.fixture(scope="module")
def words() -> wups.Words:
    pytest.importorskip("nltk")
    wups._wordnet.cache_clear()
    try:
        return wups.Words(made.STOPWORDS)
    except ValueError as error:
        pytest.skip(str(error))


def test_old_root_handling(words: wups.Words) -> None:
    noun, verb, adjective = (words.wordnet.synsets(w)[0] for w in ("dog", "sleep", "red"))
    run = words.wordnet.synset("run.v.01")
    assert run.pos() == "v"
    assert wups.wup_similarity(noun, run) == 0.0  # NLTK 3.6 and later: not 0
    assert wups.wup_similarity(run, noun) > 0.0  # a verb first: an artificial root over both
    assert noun.wup_similarity(run) == pytest.approx(wups.wup_similarity(run, noun))
    assert wups.wup_similarity(noun, words.wordnet.synset("cat.n.01")) == pytest.approx(
        noun.wup_similarity(words.wordnet.synset("cat.n.01"))
    )
    happy, sad = (words.wordnet.synset(f"{w}.a.01") for w in ("happy", "sad"))
    assert wups.wup_similarity(happy, sad) == 0.0  # adjectives have no hypernyms and got no root
    assert {verb.pos(), adjective.pos()} <= {"n", "v", "a", "s"}


def test_lemmas(words: wups.Words) -> None:
    assert words.lemmas("The dogs are running to the boxes") == ["dog", "be", "run", "box"]
    assert words.lemmas("xqzzt") == ["xqzzt"]
    assert words.lemmas("") == []
