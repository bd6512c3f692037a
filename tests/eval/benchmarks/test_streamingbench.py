"""StreamingBench: both published forms to samples and prompts; the official counts, by hand; standing questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.eval.benchmarks import made
from videoprune.eval.benchmarks.stream_times import in_time, is_standing, seconds_of, time_stamp
from videoprune.eval.benchmarks.streamingbench import StreamingBench
from videoprune.types import UNUSABLE

BENCH = StreamingBench()
HEAD = (
    "You are an advanced video question-answering AI assistant. You have been provided with some frames from the "
    "video and a multiple-choice question related to the video. Your task is to carefully analyze the video and "
    "provide the best answer to question, choosing from the four options provided. Respond with only the letter (A, "
    "B, C, or D) of the correct option.\n\n"
)


def test_real_questions_end_at_their_time(tmp_path: Path) -> None:
    samples = BENCH.load(made.write_streamingbench(tmp_path), split="real")
    assert [s.until for s in samples] == [1.0, 2.0, 3.0, 60.0, 2.0, 600.0]
    assert [s.question_id for s in samples[:4]] == [
        f"sample_{i}_real_{k}" for i, k in ((0, 1), (0, 2), (0, 3), (1, 1))
    ]
    assert samples[0].prompt == HEAD + (
        "Question: What is 0?\n\nOptions:\nA. cat.\nB. dog.\nC. boy.\nD. girl.\n\nThe best option is:"
    )
    assert samples[1].prompt.endswith("Options:\nA. cat\nB. dog\nC. boy\nD. girl\n\nThe best option is:")
    assert samples[1].options == ("cat", "dog", "boy", "girl")


def test_sequential_questions_are_told_what_came_before(tmp_path: Path) -> None:
    samples = BENCH.load(made.write_streamingbench(tmp_path), split="sqa")
    assert "provided context to answer the question" in samples[0].prompt
    assert "correct option.\n\n\n\nHere is the question. Answer it and" in samples[0].prompt
    context = (
        "Here are the contextual information related to the video. Please answer the questions based on the "
        "contextual information: At timestamp 00:00:01, the following question and answer occurred: Question: What "
        "is 0?; Options: A. cat., B. dog., C. boy., D. girl.; Answer: A; "
    )
    assert f"\n\n{context}\n\nHere is the question." in samples[1].prompt
    assert "Question: What is 1?; Options: A. cat, B. dog, C. boy, D. girl; Answer: B; " in samples[2].prompt
    assert "At timestamp" not in samples[3].prompt  # another video


def test_parts_of_the_omni_file(tmp_path: Path) -> None:
    folder = made.write_streamingbench(tmp_path)
    omni, contextual = (BENCH.load(folder, split=split) for split in ("omni", "contextual"))
    assert {s.meta["category"] for s in omni} == {"Emotion Recognition"}
    assert {s.meta["sound"] for s in omni} == {"not given"}
    assert len(contextual) == 4
    assert not any("sound" in s.meta for s in contextual)


def test_proactive_questions_stand(tmp_path: Path) -> None:
    samples = BENCH.load(made.write_streamingbench(tmp_path), split="proactive")
    first = samples[0]
    assert all(map(is_standing, samples))
    assert (first.answer, first.until, first.meta["asked_at"], first.meta["due"]) == ("Goal", 13.0, "2", "9")
    assert first.prompt.endswith("\n\nQuestion: What is 0?\n\nThe answer is:\n")
    wanted = 'Question: What is 0? Is it the right time to output "Goal"? You can only answer yes or no.'
    assert first.meta["poll"].endswith(f"{wanted}\n\nThe answer is:\n")


def test_csv_as_on_hugging_face(tmp_path: Path) -> None:
    rows = [
        {
            "question_id": f"Scene Understanding_sample_{n}_1",
            "task_type": "Scene Understanding",
            "question": "what?",
        }
        | {"time_stamp": "00:00:05", "answer": "D", "options": options, "frames_required": "single"}
        for n, options in (
            (26, "['p', 'q', 'r', 's']"),
            (2, "['A. p', 'B. q', 'C. r', 'D. s', 'E. t']"),
            (3, "no list"),
        )
    ]
    made.write_csv(tmp_path / "StreamingBench" / "Omni_Source_Understanding.csv", rows)
    (tmp_path / "videos").mkdir()
    video = tmp_path / "videos" / "sample_26_Scene_Understanding_26-50.mp4"
    video.write_bytes(b"x")
    first, second, third = BENCH.load(tmp_path, split="omni")
    assert (first.video, first.question_id) == (str(video), "Scene Understanding_sample_26_1")
    assert "A. p\nB. q\nC. r\nD. s\n\nThe best" in first.prompt
    assert "D. s\n\nThe best" in second.prompt  # the script shows the first four
    assert second.meta[UNUSABLE].startswith("missing: no sample_2_Scene_Understanding or ")
    assert "options='no list'; allowed: a list of texts" in third.meta[UNUSABLE]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"time_stamp": "soon"}, "time='soon'; allowed: hours:minutes:seconds"),
        ({"time_stamp": "00:00:00"}, "until=0.0; allowed"),
        ({"answer": "E"}, "answer='E'; allowed: A, B, C, D"),
        ({"options": ["A. x"]}, "options=['A. x']; allowed: a list of four texts"),
        ({"question": " "}, "question=' '; allowed"),
    ],
)
def test_broken_questions_are_kept_with_their_reasons(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    entries = made.streamingbench_entries("real")
    entries[1]["questions"][0] |= change
    made.write_json(tmp_path / "questions_real.json", entries)
    samples = BENCH.load(tmp_path, split="real")
    assert len(samples) == 6
    assert reason in samples[1].meta[UNUSABLE]


def row(text: str, answer: str, number: int = 0, **meta: str) -> dict[str, Any]:
    base = {
        "question_id": f"sample_{number}_real_1",
        "video_id": f"sample_{number}_real",
        "category": "Counting",
    }
    options = {} if meta else {"options": "A. one\nB. two\nC. three\nD. four"}
    said = {"answer": answer, "text": text, "question": "?", "outcome": "complete", "reason": ""}
    return base | said | {"meta": meta or options}


def test_the_first_character_counts_and_silence_leaves_the_denominator() -> None:
    rows = [
        row("A", "A"),
        row("The answer is B", "B", 1),
        row(" C", "C", 2),
        row("", "D", 3),
        row("Dog", "D", 4),
    ]
    scores = BENCH.score(rows, split="real", protocol="official").as_dict()
    figure = scores["metrics"]["official"]["all"]
    assert (figure["sum"], figure["n"]) == (2, 4)  # A, and the D of Dog
    clear = scores["metrics"]["corrected"]["all"]
    assert (clear["sum"], clear["n"]) == (3, 5)  # A, B and C
    assert "official: 1 without a text leave the denominator" in scores["notes"]


def standing(text: str, answered: str, number: int = 0, due: str = "9") -> dict[str, Any]:
    return row(text, "Goal", number, due=due, asked_at="2", answered_at=answered)


def test_standing_questions_are_right_within_two_seconds() -> None:
    rows = [
        standing("Goal!", "7.0"),
        standing("Goal", "11.5", 1),
        standing("goal", "9", 2),
        standing("", "", 3),
    ]
    rows.append(standing("Goal", "9", 4) | {"outcome": "failed", "reason": "no prediction"})
    scores = BENCH.score(rows, split="proactive", protocol="official").as_dict()
    assert {m: f["all"]["sum"] for m, f in scores["metrics"].items()} == {
        "official, time": 2,
        "official": 1,
        "corrected": 2,
    }
    assert scores["metrics"]["official"]["all"]["n"] == 4
    assert "1 of 4 standing questions were never answered" in scores["notes"]
    assert "1 standing questions were not asked and do not count" in scores["notes"]
    assert in_time(standing("", "", due=""))  # what never comes is right in silence
    assert not in_time(standing("Goal", "5", due=""))


def test_the_form_that_the_counting_script_reads_goes_both_ways() -> None:
    rows = [row("A", "A"), row("hm", "B", 1)]
    (content,) = BENCH.submission(rows, "real").values()
    back = BENCH.predictions(json.loads(json.dumps(content)))
    assert [(r["question_id"], r["text"], r["answer"]) for r in back] == [
        ("sample_0_real_1", "A", "A"),
        ("sample_1_real_1", "hm", "B"),
    ]
    asked = [standing("Goal", "8.0"), standing("", "", 1)]
    (content,) = BENCH.submission(asked, "proactive").values()
    assert content[0]["questions"][0]["videoprune"]["dialog_history"][-1]["time"] == 8.0
    assert (
        content[1]["questions"][0]["videoprune"]["dialog_history"][-1]["time"] == 13.0
    )  # the last time it is asked
    again = [{"outcome": "complete", **r} for r in BENCH.predictions(json.loads(json.dumps(content)))]
    assert BENCH.each(again, protocol="official")["official"] == [1.0, 0.0]
    (groups,) = BENCH.submission(rows, "sqa").values()
    assert [len(g) for g in groups] == [1, 1]
    with pytest.raises(ValueError, match="allowed for streamingbench: a list of videos"):
        BENCH.predictions([{"questions": [{"question": "no response"}], "video_path": "a.mp4"}])
    with pytest.raises(ValueError, match="allowed for streamingbench: a list of videos"):
        BENCH.predictions({"a": 1})


def test_times_are_read_as_the_script_reads_them() -> None:
    assert [seconds_of(t) for t in ("00:03:10", "0:00:05", "00:24", "00:00:8", "00:12450", "7")] == [
        *(190, 5, 24, 8, 12450, 7)
    ]
    assert [time_stamp(s) for s in (0, 190, 3723)] == ["00:00:00", "00:03:10", "01:02:03"]
    for text in ("", "a:b", "1:-2", "١:00"):
        with pytest.raises(ValueError, match="allowed: hours:minutes:seconds"):
            seconds_of(text)
