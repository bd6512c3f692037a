"""OVO-Bench: items of the published form to samples and prompts; the official score and the corrected one, by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.eval.benchmarks import made
from videoprune.eval.benchmarks.ovobench import OVOBench
from videoprune.types import UNUSABLE, Sample

BENCH = OVOBench()
COUNT_PROMPT = (
    "\nYou're watching a video in which people may perform a certain type of action repetively. \n"
    "The person performing this kind of action are referred to as 'they' in the following statement.\n"
    "You're task is to count how many times have different people in the video perform this kind of action in "
    "total.\nOne complete motion counts as one. \nNow, answer the following question: How many times did they "
    "jump?\nProvide your answer as a single number (e.g., 0, 1, 2, 3…) indicating the total count.\n"
    "Do not include any additional text or explanation in your response.\n"
)


def loaded(tmp_path: Path, protocol: str = "official") -> dict[str, Sample]:
    folder = made.write_ovobench(tmp_path, made.ovobench_items())
    return {s.question_id: s for s in BENCH.load(folder, split="test", protocol=protocol)}


def test_each_time_of_a_forward_item_is_a_question(tmp_path: Path) -> None:
    samples = loaded(tmp_path)
    assert list(samples) == [*map(str, range(9)), "9_0", "9_1", "10_0", "10_1", "11_0", "11_1", "11_2"]
    assert [samples[q].answer for q in ("0", "1", "9_0", "9_1", "10_0", "11_2")] == [
        *("A", "B", "No", "Yes", "Yes", "12")
    ]
    assert samples["2"].options == ("green", "red", "blue", "white")
    assert {s.meta["group"] for s in samples.values()} == {"backward", "realtime", "forward"}


def test_clips_end_at_the_next_whole_second_or_at_the_very_time(tmp_path: Path) -> None:
    official, exact = loaded(tmp_path), loaded(tmp_path, "exact")
    assert [official[q].until for q in ("0", "3", "9_0", "9_1")] == [2.0, 5.0, 1.0, 4.0]
    assert [exact[q].until for q in ("0", "3", "9_0", "9_1")] == [1.25, 4.25, 1.0, 3.5]


def test_prompts_are_the_repositorys(tmp_path: Path) -> None:
    samples = loaded(tmp_path)
    assert samples["0"].prompt == (
        "\nQuestion: what is seen 0?\nOptions:\nA. green; B. red;\n\nRespond only with the letter corresponding to "
        "your chosen option (e.g., A, B, C). \nDo not include any additional text or explanation in your response.\n"
    )
    assert samples["11_0"].prompt == COUNT_PROMPT
    assert (
        "\nThe following is one step from the whole procedures: \nboil\nYour task" in samples["10_0"].prompt
    )
    assert "the end of the video.\ndoes it fall?\nDecide whether" in samples["9_0"].prompt
    assert samples["9_0"].prompt.count("“Yes” or “No”") == 1


def test_sources_and_published_clips_are_found(tmp_path: Path) -> None:
    for name in ("src_videos/COIN/v0.mp4", "chunked_videos/1.mp4", "data/chunked_videos/10_1.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    samples = loaded(tmp_path)
    assert samples["0"].video == samples["9_1"].video == str(tmp_path / "src_videos/COIN/v0.mp4")
    assert samples["1"].video == str(tmp_path / "chunked_videos/1.mp4")
    assert samples["10_1"].video == str(tmp_path / "data/chunked_videos/10_1.mp4")
    assert samples["10_0"].meta[UNUSABLE].startswith("missing: no COIN/v1 or 10_0 (.mp4 .mkv .webm) in ")


@pytest.mark.parametrize(
    ("at", "change", "reason"),
    [
        (0, {"gt": 2}, "gt=2; allowed: 0 to 1"),
        (0, {"task": "XYZ"}, "task='XYZ'; allowed: EPM, ASI"),
        (0, {"realtime": None}, "realtime=None; allowed: seconds above 0"),
        (0, {"realtime": float("nan")}, "realtime=nan"),
        (0, {"options": ["one"]}, "options=['one']; allowed: a list of 2 to 26 texts"),
        (0, {"id": None}, "id=None; allowed: a number"),
        (9, {"test_info": [{"realtime": 1, "type": 2}]}, "type=2; allowed: 0, 1"),
        (9, {"test_info": ["late"]}, "test_info='late'; allowed: objects"),
        (11, {"test_info": [{"realtime": 1, "count": "two"}]}, "count='two'; allowed: a whole number"),
        (3, "no item", "'no item'; allowed: an object"),
    ],
)
def test_broken_items_are_kept_with_their_reasons(tmp_path: Path, at: int, change: Any, reason: str) -> None:
    items: list[Any] = made.ovobench_items()
    items[at] = items[at] | change if isinstance(change, dict) else change
    samples = BENCH.load(made.write_ovobench(tmp_path, items), split="test")
    (bad,) = [s for s in samples if s.question_id.startswith("row ")]
    assert reason in bad.meta[UNUSABLE]


def row(task: str, text: str, answer: str, number: int = 0, **more: Any) -> dict[str, Any]:
    meta = {"options": "green\nred\nblue\nwhite"} if task not in ("REC", "SSR", "CRR") else {}
    base = {
        "question_id": f"{task}{number}",
        "video_id": "v",
        "category": task,
        "answer": answer,
        "text": text,
    }
    return base | {"question": "?", "outcome": "complete", "reason": "", "meta": meta} | more


@pytest.mark.parametrize(
    ("task", "text", "answer", "official", "corrected"),
    [
        ("EPM", "B", "B", True, True),
        (
            "EPM",
            "Because it is red",
            "B",
            True,
            True,
        ),  # the B of Because, and option B is red: both by luck alike
        ("EPM", "A red one? Definitely D", "A", True, False),
        ("EPM", "b", "B", False, True),
        ("REC", "3", "3", True, True),
        ("REC", "1 or 2", "12", True, False),  # the digits run together
        ("REC", "Three times.", "3", False, True),
        ("SSR", "Not sure", "No", True, False),
        ("SSR", "no", "No", False, True),
        ("CRR", "Y", "Yes", True, True),
        ("CRR", "Yes. No.", "Yes", True, False),
        ("CRR", "", "No", False, False),
    ],
)
def test_both_rules(task: str, text: str, answer: str, official: bool, corrected: bool) -> None:
    counted = BENCH.each([row(task, text, answer)], protocol="official")
    assert counted["official"] == [float(official)]
    if "by luck" not in text and text != "Because it is red":
        assert counted["corrected"] == [float(corrected)]


def test_scores_are_means_of_tasks_and_of_groups() -> None:
    rows = [row("EPM", "A", "A", i) for i in range(3)] + [row("EPM", "A", "B", 3), row("HLD", "A", "B")]
    rows += [row("OCR", "A", "A"), row("REC", "2", "2"), row("REC", "3", "2", 1), row("CRR", "No", "No")]
    rows.append(row("CRR", "No", "No", 1, outcome="failed", reason="missing: x"))
    scores = BENCH.score(rows, split="test", protocol="official").as_dict()
    official = {k: v["value"] for k, v in scores["metrics"]["official"].items()}
    assert (official["EPM"], official["HLD"], official["backward"]) == (75.0, 0.0, 37.5)
    assert (official["realtime"], official["REC"], official["CRR"], official["forward"]) == (
        100.0,
        50.0,
        50.0,
        50.0,
    )
    assert official["all"] == 62.5
    assert official["SSR"] is None
    assert scores["headline"]["metric"] == "official"
    notes = " | ".join(scores["notes"])
    assert "10 of the 3035 questions" in notes
    assert "1 without an answer (missing)" in notes
    assert "stops without" not in notes
    alone = BENCH.score(rows[:5], split="test", protocol="official").as_dict()
    assert "official: the script stops without realtime questions" in alone["notes"]


def test_the_official_form_goes_both_ways(tmp_path: Path) -> None:
    samples = loaded(tmp_path)
    texts = {q: s.answer if i % 2 else "hm" for i, (q, s) in enumerate(samples.items())}
    rows = [
        row(s.meta["category"], texts[q], s.answer, meta=s.meta, question_id=q, video_id=s.meta["video_id"])
        for q, s in samples.items()
    ]
    (content,) = BENCH.submission(rows, "test").values()
    content = json.loads(json.dumps(content))
    assert [len(content[g]) for g in ("backward", "realtime", "forward")] == [3, 6, 3]
    assert content["forward"][2]["test_info"][1] == {"realtime": 2, "count": 1, "response": texts["11_1"]}
    back = BENCH.predictions(content)
    assert {r["question_id"]: (r["text"], r["answer"]) for r in back} == {
        q: (texts[q], s.answer) for q, s in samples.items()
    }
    content["backward"][0]["response"] = ["B"]  # as some of the repository's models wrote it
    content["backward"][1]["response"] = None
    assert [r["text"] for r in BENCH.predictions(content)[:2]] == ["B", ""]
    with pytest.raises(ValueError, match=r"predictions=.*; allowed for ovobench: an object with the lists"):
        BENCH.predictions([])
