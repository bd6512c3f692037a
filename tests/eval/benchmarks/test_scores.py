"""Scores against numbers worked out by hand, the faults of the official scripts among them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.eval.benchmarks import made
from videoprune.eval.benchmarks.registry import BENCHMARKS, benchmark

OPTIONS = "A. red.\nB. green.\nC. blue.\nD. white."


def row(number: int, text: str, answer: str, category: str, **more: Any) -> dict[str, Any]:
    return {
        "question_id": f"q{number}",
        "video_id": f"v{number // 2}",
        "duration": "",
        "category": category,
        "question": "what?",
        "answer": answer,
        "text": text,
        "outcome": "complete",
        "reason": "",
        "meta": {"index": str(number)},
    } | more


def mme(number: int, text: str, answer: str, duration: str, sub: str = "Law") -> dict[str, Any]:
    meta = {"domain": "Knowledge", "sub_category": sub, "options": OPTIONS, "index": str(number)}
    return row(number, text, answer, "Counting Problem", duration=duration, meta=meta, video_id=f"v{number}")


MME_ROWS = [
    mme(0, "A", "A", "short"),
    mme(1, "Best answer: C", "C", "short"),  # official reads B, so wrong; clearly right
    mme(2, "A man walks", "A", "short", "Geography"),  # official reads A, so right; clearly no letter
    mme(3, "i cannot say", "D", "long"),  # leaves the official denominator
    mme(4, "D.", "D", "long"),
    mme(5, "", "B", "long") | {"outcome": "failed", "reason": "missing: no made_1", "text": "B"},
]


def value(scores: dict[str, Any], metric: str, group: str = "all") -> tuple[float | None, int]:
    figure = scores["metrics"][metric][group]
    return figure["value"], figure["n"]


def test_videomme_official_and_corrected() -> None:
    scores = benchmark("videomme").score(MME_ROWS, split="test", protocol="official").as_dict()
    assert value(scores, "official") == (75.0, 4)  # 3 of the 4 that have a letter
    assert value(scores, "official", "short") == (pytest.approx(66.6667), 3)
    assert value(scores, "official", "long") == (100.0, 1)
    assert value(scores, "official", "sub-category: Law") == (pytest.approx(66.6667), 3)
    assert value(scores, "official", "short · sub-category: Law") == (50.0, 2)
    assert value(scores, "official", "domain: Multilingual") == (0.0, 0)
    assert value(scores, "official", "sub-category: Multilingual") == (0.0, 0)
    assert value(scores, "official", "task: Counting Problem") == (75.0, 4)
    assert value(scores, "corrected") == (50.0, 6)  # A, C and D over all six
    assert value(scores, "corrected", "long") == (pytest.approx(33.3333), 3)
    low, high = scores["metrics"]["corrected"]["all"]["ci95"]
    assert 0 <= low <= 50 <= high <= 100
    assert scores["headline"] == {"metric": "official", "value": 75.0, "n": 4, "sum": 3}
    assert (scores["split"], scores["complete"]) == ("test", False)
    notes = " | ".join(scores["notes"])
    for said in (
        "6 of the 2700",
        "1 without an answer (missing)",
        "2 without a letter leave the denominator",
    ):
        assert said in notes
    assert "stops at 3 short videos, it wants 300" in notes


def test_videomme_pools_counts_not_means() -> None:
    rows = [mme(0, "A", "A", "short"), *(mme(i, "A", "B", "long") for i in range(1, 4))]
    scores = benchmark("videomme").score(rows, split="test", protocol="official").as_dict()
    assert value(scores, "official") == (25.0, 4)


def test_videomme_lmms_eval_keeps_all_questions() -> None:
    scores = benchmark("videomme").score(MME_ROWS, split="test", protocol="lmms-eval").as_dict()
    # "A man" is an answer to it: a letter with a blank after it.
    assert value(scores, "lmms-eval") == (pytest.approx(66.6667), 6)
    assert "official" not in scores["metrics"]


def next_row(
    number: int, text: str, answer: str, kind: str, options: str = "p\nq\nr\ns\nt"
) -> dict[str, Any]:
    return row(number, text, answer, kind, meta={"options": options, "index": str(number), "qid": "0"})


def test_nextqa_groups() -> None:
    rows = [
        next_row(0, "A", "A", "CW"),
        next_row(1, "B", "A", "CH"),
        next_row(2, "C", "C", "TP"),
        next_row(3, "C", "D", "TN"),
        next_row(4, "E", "E", "TC"),
        next_row(5, "E", "E", "DO") | {"outcome": "failed", "reason": "missing: x"},
    ]
    scores = benchmark("nextqa").score(rows, split="val", protocol="official").as_dict()
    assert {g: value(scores, "official", g) for g in ("CW", "CH", "TN", "TC", "DO", "C")} == {
        "CW": (100.0, 1),
        "CH": (0.0, 1),
        "TN": (50.0, 2),  # TP is in it
        "TC": (100.0, 1),
        "DO": (0.0, 1),
        "C": (50.0, 2),
    }
    assert value(scores, "official", "T") == (pytest.approx(66.6667), 3)
    assert value(scores, "official", "DL") == (None, 0)  # the script divides by zero here
    assert value(scores, "official") == (50.0, 6)
    assert "TP" not in scores["metrics"]["official"]


def test_nextqa_ig_vlm_compares_texts() -> None:
    same = "p\nq\np\ns\nt"
    rows = [next_row(0, "C", "A", "CW", same), next_row(1, "none", "A", "CW", same)]
    scores = benchmark("nextqa").score(rows, split="val", protocol="ig-vlm").as_dict()
    assert value(scores, "ig-vlm") == (50.0, 2)
    assert value(scores, "corrected") == (0.0, 2)


def test_nextqa_lmms_eval_counts_its_guesses() -> None:
    rows = [next_row(i, "**B**", "B", "CW") for i in range(400)]
    scores = benchmark("nextqa").score(rows, split="test", protocol="lmms-eval").as_dict()
    share, _ = value(scores, "lmms-eval")
    assert share is not None
    assert 10 < share < 30  # one in five
    assert value(scores, "corrected") == (100.0, 400)
    assert "lmms-eval: 400 answers could not be read and are guesses" in scores["notes"]


def test_activitynet_free_is_over_the_wrong_types() -> None:
    kinds = ["yes/no"] * 3 + ["color", "motion", "spatial", "other"]
    rows = [row(i, "x", "x", kind) for i, kind in enumerate(kinds)]
    scores = benchmark("activitynet").score(rows[::-1], split="test", protocol="official").as_dict()
    # By first appearance: yes/no 3, color 1, motion 1, spatial 1, other 1; the script divides by the last two.
    assert value(scores, "exact match", "free") == (250.0, 2)
    assert value(scores, "exact match, free corrected", "free") == (100.0, 5)
    assert value(scores, "exact match") == (100.0, 7)


def test_exact_match_is_a_matter_of_every_character() -> None:
    rows = [
        row(0, "man", "man", "who"),
        row(1, " man\n", "man", "who"),
        row(2, "Man.", "man", "what"),
        row(3, "a man", "man", "what"),
        row(4, "man", "man", "where") | {"outcome": "failed", "reason": "missing: x"},
    ]
    scores = benchmark("msvd").score(rows, split="val", protocol="official").as_dict()
    assert value(scores, "exact match") == (40.0, 5)
    assert value(scores, "exact match, case and punctuation ignored") == (60.0, 5)
    assert value(scores, "exact match", "who") == (100.0, 2)
    assert value(scores, "exact match", "when") == (None, 0)


@pytest.mark.parametrize("name", ["videomme", "nextqa", "msvd", "activitynet"])
def test_no_rows(name: str) -> None:
    scores = BENCHMARKS[name].score([], split="test", protocol="official").as_dict()
    assert scores["headline"]["value"] is None
    assert scores["questions"] == 0


def test_bad_rows_are_no_questions() -> None:
    bad = row(9, "", "", "") | {"outcome": "failed", "reason": "bad row: test.jsonl, row 2: answer='E'"}
    for name in ("videomme", "nextqa", "msvd", "activitynet"):
        assert BENCHMARKS[name].score([bad], split="test", protocol="official").questions == 0


def test_submissions_are_read_back(tmp_path: Path) -> None:
    found = benchmark("videomme")
    (content,) = found.submission(MME_ROWS, "test").values()
    again = [{"outcome": "complete", "reason": "", **r} for r in found.predictions(content)]
    first, second = (found.score(r, split="test", protocol="official").metrics for r in (MME_ROWS, again))
    assert first == second
    old = [
        {"duration_category": v.pop("duration"), "video_category": v.pop("domain")}
        | {"video_subcategory": v.pop("sub_category"), **v}
        for v in content
    ]
    assert found.predictions(old) == found.predictions(
        benchmark("videomme").submission(MME_ROWS, "test").popitem()[1]
    )

    rows = [next_row(0, "A", "A", "CW"), next_row(1, "no idea", "B", "CH")]
    (content,) = benchmark("nextqa").submission(rows, "val").values()
    assert content == {"q0": {"prediction": 0, "answer": 0}, "q1": {"prediction": -1, "answer": 1}}
    assert benchmark("nextqa").predictions(content) == [
        {"question_id": "q0", "text": "A"},
        {"question_id": "q1", "text": ""},
    ]

    rows = [row(0, "two dogs", "dogs", "CW", meta={"qid": "7"}, video_id="12")]
    (content,) = benchmark("nextoe").submission(rows, "val").values()
    assert content == {"12": {"7": "two dogs"}}
    assert benchmark("nextoe").predictions(content) == [{"question_id": "12_7", "text": "two dogs"}]

    rows = [row(0, "x ", "y", "motion"), row(1, "", "y", "motion") | {"outcome": "failed"}]
    files = benchmark("activitynet").submission(rows, "val")
    assert files["activitynet_val_pred.json"] == [{"question_id": "q0", "answer": "x"}]
    assert files["activitynet_val.jsonl"][1] == {"id": "q1", "question": "what?", "answer": "y", "pred": ""}
    assert benchmark("activitynet").predictions(files["activitynet_val_pred.json"]) == [
        {"question_id": "q0", "text": "x"}
    ]


def test_forms_of_other_tools() -> None:
    found = benchmark("msvd").predictions
    assert found([{"id": 5, "question": "who is it?", "answer": "man", "pred": "a man"}]) == [
        {"question_id": "5", "text": "a man", "answer": "man", "question": "who is it?", "category": "who"}
    ]
    assert (
        found([{"question_id": "5", "Q": "what?", "A": "cat", "pred": "x", "video_name": "v"}])[0]["answer"]
        == "cat"
    )
    assert found({"5": "dog"}) == [{"question_id": "5", "text": "dog"}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("videomme", {"001": "A"}),
        ("videomme", [{"question_id": "001-1"}]),
        ("nextqa", [1]),
        ("nextqa", {"1_2": {"answer": 1}}),
        ("nextoe", {"1": "text"}),
        ("msvd", "text"),
        ("activitynet", [{"question_id": "x"}]),
        ("activitynet", ["x"]),
        ("moving-stream", [{"question_id": "x"}]),
        ("ovobench", {"backward": []}),
        ("streamingbench", ["x"]),
    ],
)
def test_other_forms_are_refused(name: str, content: Any) -> None:
    with pytest.raises(ValueError, match=f"allowed for {name}: "):
        BENCHMARKS[name].predictions(content)


def test_scores_of_a_full_size_run_that_is_all_right(tmp_path: Path) -> None:
    found = benchmark("videomme")
    samples = found.load(made.write_videomme(tmp_path, made.videomme_rows(300)), split="test")
    rows = [
        row(i, s.answer, s.answer, s.meta["category"], duration=s.meta["duration"], meta=s.meta)
        | {"video_id": s.meta["video_id"]}
        for i, s in enumerate(samples)
    ]
    scores = found.score(rows, split="test", protocol="official").as_dict()
    assert {f["value"] for m in scores["metrics"].values() for f in m.values()} == {100.0}
    assert (scores["complete"], scores["notes"]) == (True, [])
    assert len(scores["metrics"]["official"]) == 1 + 3 + 48 + 3 * 48


@pytest.mark.parametrize(("name", "protocol"), [(n, p) for n, b in BENCHMARKS.items() for p in b.recipes])
def test_what_each_question_counts_adds_up_to_the_score(name: str, protocol: str, tmp_path: Path) -> None:
    found = benchmark(name)
    if name == "videomme":
        rows = MME_ROWS
    elif name in ("nextqa", "nextoe"):
        options = "red\ngreen\nblue\nwhite\nblack"
        meta = {"options": options, "index": "0", "qid": "0"}
        texts = ("A", "green", "(C)", "cat", "")
        rows = [row(i, text, "A", "TN", meta=meta) for i, text in enumerate(texts)]
        (tmp_path / "stopwords.txt").write_text("a\nthe\n")
    else:
        kind = {"activitynet": "color", "ovobench": "EPM"}.get(name, "what")
        rows = [row(i, text, "cat", kind) for i, text in enumerate(("cat", "Cat.", "dog", ""))]
    split = "real" if name == "streamingbench" else "test"
    try:
        scores = found.score(rows, split=split, protocol=protocol, folder=tmp_path).as_dict()
    except ValueError as error:
        pytest.skip(str(error))  # its word data is not there
    each = found.each(rows, protocol=protocol, folder=tmp_path)
    assert found.compared(protocol) in each
    assert None not in each[found.compared(protocol)]
    for metric, counts in each.items():
        counted = [c for c in counts if c is not None]
        figure = scores["metrics"][metric]["all"]
        assert figure["n"] == len(counted)
        assert figure["value"] == pytest.approx(100 * sum(counted) / len(counted), abs=1e-3)
