"""Loaders on made-up rows in the published formats: full-size files, wrong folders, missing and broken parts."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.eval.benchmarks import made
from videoprune.eval.benchmarks.registry import BENCHMARKS, benchmark
from videoprune.eval.benchmarks.subtitles import SUBTITLE_FILE
from videoprune.prompts import prompt
from videoprune.types import UNUSABLE


def test_full_size_videomme(tmp_path: Path) -> None:
    rows = made.videomme_rows(300)
    samples = benchmark("videomme").load(made.write_videomme(tmp_path, rows), split="test")
    assert len(samples) == 2700
    assert Counter(s.meta["duration"] for s in samples) == {"short": 900, "medium": 900, "long": 900}
    for sample, row in zip(samples, rows, strict=True):
        assert (sample.question_id, sample.answer) == (row["question_id"], row["answer"])
        assert [f"{c}. {o}" for c, o in zip("ABCD", sample.options, strict=True)] == row["options"]
        assert Path(sample.video).name == f"{row['videoID']}.mp4"
        assert sample.meta[UNUSABLE].startswith(f"missing: no {row['videoID']} (.mp4 .MP4 .mkv) in ")


def test_full_size_nextqa(tmp_path: Path) -> None:
    rows = made.nextqa_rows(8564)
    samples = benchmark("nextqa").load(made.write_nextqa(tmp_path, rows), split="test")
    assert len(samples) == 8564
    names = json.loads((tmp_path / "map_vid_vidorID.json").read_text())
    for sample, row in zip(samples, rows, strict=True):
        assert sample.question_id == f"{row['video']}_{row['qid']}"
        assert sample.options["ABCDE".index(sample.answer)] == row[f"a{row['answer']}"]
        assert sample.video.endswith(f"{names[str(row['video'])]}.mp4")


def test_full_size_msvd(tmp_path: Path) -> None:
    rows = made.msvd_rows(13157)
    samples = benchmark("msvd").load(made.write_msvd(tmp_path, rows), split="test")
    assert len(samples) == 13157
    assert [(s.question_id, s.answer) for s in samples] == [(str(r["id"]), r["answer"]) for r in rows]
    assert len({s.video for s in samples}) == 504


def test_full_size_activitynet(tmp_path: Path) -> None:
    samples = benchmark("activitynet").load(made.write_activitynet(tmp_path, 8000), split="test")
    asked, told = made.activitynet_rows(8000)
    assert [(s.question, s.answer) for s in samples] == [
        (q["question"], a["answer"]) for q, a in zip(asked, told, strict=True)
    ]
    assert len({s.video for s in samples}) == 800


def test_full_size_nextoe(tmp_path: Path) -> None:
    rows = made.nextoe_rows(9178)
    samples = benchmark("nextoe").load(made.write_nextoe(tmp_path, rows), split="test")
    assert len(samples) == 9178
    with_second = {s.meta["video_id"] for s in samples if "second_answer" in s.meta}
    assert len(with_second) == 510  # every other of 1,020 videos


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_wrong_folder_says_what_was_looked_for_where_and_what_is_there(name: str, tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("nothing")
    found = BENCHMARKS[name]
    split = next(reversed(found.sizes))
    with pytest.raises(ValueError, match=r"looked for .* in .*; found readme\.txt") as error:
        found.load(tmp_path, split=split)
    assert str(tmp_path) in str(error.value)
    with pytest.raises(ValueError, match="found no such folder"):
        found.load(tmp_path / "nowhere", split=split)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_splits_and_protocols_are_named(name: str, tmp_path: Path) -> None:
    found = BENCHMARKS[name]
    split = next(reversed(found.sizes))
    with pytest.raises(ValueError, match=f"split='dev'; allowed for {name}: .*{split}"):
        found.load(tmp_path, split="dev")
    with pytest.raises(ValueError, match=f"protocol='mine'; allowed for {name}: official"):
        found.load(tmp_path, split=split, protocol="mine")
    if not found.has_subtitles:
        with pytest.raises(ValueError, match="subtitles=True"):
            found.load(tmp_path, split=split, subtitles=True)


def test_an_unknown_benchmark() -> None:
    with pytest.raises(ValueError, match="benchmark='mvbench'; allowed: videomme, nextqa"):
        benchmark("mvbench")


def test_videos_under_each_published_name(tmp_path: Path) -> None:
    def put(name: str) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
        return str(path)

    made.write_videomme(tmp_path, made.videomme_rows(1))
    expected = [put("data/made_001.MP4"), put("data/made_002.mkv"), put("data/made_003.mp4")]
    found = benchmark("videomme").load(tmp_path, split="test")
    assert [s.video for s in found[::3]] == expected
    assert all(UNUSABLE not in s.meta for s in found)

    made.write_nextqa(tmp_path, made.nextqa_rows(18))
    expected = [put("NExTVideo/0000/2400000000.mp4"), put("NExTVideo/2400000001.mp4")]
    assert [s.video for s in benchmark("nextqa").load(tmp_path, split="test")[::9]] == expected

    made.write_msvd(tmp_path, made.msvd_rows(2))
    expected = [put("YouTubeClips/clip_1451_1_9.avi"), put("YouTubeClips/vid1452.avi")]
    made.write_json(
        tmp_path / "test_qa.json", [r | {"video_id": 1451 + i} for i, r in enumerate(made.msvd_rows(2))]
    )
    (tmp_path / "youtube_mapping.txt").write_text("clip_1451_1_9 vid1451\n")
    assert [s.video for s in benchmark("msvd").load(tmp_path, split="test")] == expected

    made.write_activitynet(tmp_path, 30)
    expected = [put(f"all_test/v_Aa_-000000{i}.{e}") for i, e in enumerate(("mp4", "webm", "mkv"))]
    assert [s.video for s in benchmark("activitynet").load(tmp_path, split="test")[::10]] == expected


def test_broken_rows_are_kept_with_their_reasons(tmp_path: Path) -> None:
    rows = made.videomme_rows(1)
    rows[1]["answer"] = "E"
    rows[2]["options"] = ["A. one"]
    rows[4]["question_id"] = rows[3]["question_id"]
    samples = benchmark("videomme").load(made.write_videomme(tmp_path, rows), split="test")
    assert len(samples) == 9
    reasons = [s.meta[UNUSABLE] for s in samples if s.question_id.startswith("row ")]
    assert [s.question_id for s in samples if s.question_id.startswith("row ")] == ["row 2", "row 3", "row 5"]
    assert reasons[0] == "bad row: test.jsonl, row 2: answer='E'; allowed: A, B, C, D"
    assert "options=['A. one']" in reasons[1]
    assert "appears twice" in reasons[2]
    asked = made.activitynet_rows(3)[0]
    made.write_json(tmp_path / "test_q.json", asked)
    made.write_json(tmp_path / "test_a.json", [{"question_id": "other", "answer": "x", "type": 1}])
    with pytest.raises(
        ValueError, match=r"none of the 3 rows can be read; bad row: test_q\.json, row 1: type=None"
    ):
        benchmark("activitynet").load(tmp_path, split="test")


def test_the_wrong_csv_is_noticed(tmp_path: Path) -> None:
    made.write_nextoe(tmp_path, made.nextoe_rows(9))
    with pytest.raises(ValueError, match=r"test\.csv: no column a0, a1, a2, a3, a4; found video, "):
        benchmark("nextqa").load(tmp_path, split="test")
    made.write_nextqa(tmp_path, made.nextqa_rows(9))
    with pytest.raises(ValueError, match="it is NExT-QA's"):
        benchmark("nextoe").load(tmp_path, split="test")


def test_the_template_with_its_trailing_commas(tmp_path: Path) -> None:
    row = made.videomme_rows(1)[0]
    question = {k: row[k] for k in ("question_id", "task_type", "question", "options", "answer")}
    video = {"video_id": "001", "duration": "short", "domain": "Knowledge", "sub_category": "Law"}
    text = json.dumps([{**video, "url": row["url"], "questions": [question | {"response": "a, ]"}]}])
    (tmp_path / "output_test_template.json").write_text(
        text.replace("}]", "},]").replace('"a, ]"}', '"a, ]",}')
    )
    (sample,) = benchmark("videomme").load(tmp_path, split="test")
    assert (sample.question_id, Path(sample.video).name) == ("001-1", "made_001.mp4")


def test_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow
    import pyarrow.parquet

    rows = made.videomme_rows(2)
    (tmp_path / "videomme").mkdir()
    path = tmp_path / "videomme" / "test-00000-of-00001.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    from_parquet = benchmark("videomme").load(tmp_path, split="test")
    other = tmp_path / "other"
    from_lines = benchmark("videomme").load(made.write_videomme(other, rows), split="test")
    assert [(s.question_id, s.options, s.prompt) for s in from_parquet] == [
        (s.question_id, s.options, s.prompt) for s in from_lines
    ]


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("videoprune.eval.benchmarks.folder.find_spec", lambda name: None)
    (tmp_path / "test-00000-of-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"needs pyarrow; install videoprune\[benchmarks\]"):
        benchmark("videomme").load(tmp_path, split="test")


def test_the_judges_form_of_msvd(tmp_path: Path) -> None:
    asked = [{"video_name": "abc_1_9", "question": "who sings?", "question_id": "v_abc_1_9_1"}]
    made.write_json(tmp_path / "test_q.json", asked)
    made.write_json(tmp_path / "test_a.json", [{"answer": "man", "type": 1, "question_id": "v_abc_1_9_1"}])
    (sample,) = benchmark("msvd").load(tmp_path, split="test")
    assert (sample.question_id, sample.answer, sample.meta["category"]) == ("v_abc_1_9_1", "man", "who")


OPTIONS = ["A. Black.", "B. Gray.", "C. Green.", "D. Brown."]


def test_prompts_of_videomme(tmp_path: Path) -> None:
    row = made.videomme_rows(1)[0] | {"question": "What color?", "options": OPTIONS}
    made.write_videomme(tmp_path, [row])
    (tmp_path / "subtitle").mkdir()
    (tmp_path / "subtitle" / "made_001.srt").write_text("")
    instruction = "Select the best answer to the following multiple-choice question based on the video"
    rest = "Respond with only the letter (A, B, C, or D) of the correct option."
    body = "What color?\nA. Black.\nB. Gray.\nC. Green.\nD. Brown.\n"
    found = {
        (p, s): benchmark("videomme").load(tmp_path, split="test", protocol=p, subtitles=s)[0]
        for p in ("official", "lmms-eval")
        for s in (False, True)
    }
    plain = f"{instruction}. {rest}\n{body}The best answer is:"
    both = f"{instruction} and the subtitles. {rest}\n{body}"
    head = "This video's subtitles are listed below:"
    assert prompt(found["official", False]) == plain
    assert prompt(found["official", True]) == f"{head}\n{{subtitles}}\n{plain}"
    end = "\nAnswer with the option's letter from the given choices directly."
    assert prompt(found["lmms-eval", False]) == both + end
    assert prompt(found["lmms-eval", True]) == f"{head} \n{{subtitles}}\n{both}The best answer is:"
    assert found["official", True].meta[SUBTITLE_FILE] == str(tmp_path / "subtitle" / "made_001.srt")


def test_a_missing_subtitle_is_told(tmp_path: Path) -> None:
    made.write_videomme(tmp_path, made.videomme_rows(1))
    (tmp_path / "subtitle").mkdir()
    sample = benchmark("videomme").load(tmp_path, split="test", subtitles=True)[0]
    assert sample.meta[SUBTITLE_FILE] == ""
    expected = f"missing: no made_001 (.srt .vtt) in {tmp_path / 'subtitle'}, {tmp_path}"
    assert sample.meta["subtitle_reason"] == expected


def test_prompts_of_the_others(tmp_path: Path) -> None:
    row = made.nextqa_rows(1)[0] | {f"a{i}": o for i, o in enumerate(("p", "q", "r", "s", "t"))}
    made.write_nextqa(tmp_path / "mc", [row | {"question": "why run"}])
    load = benchmark("nextqa").load
    texts = {
        p: prompt(load(tmp_path / "mc", split="test", protocol=p)[0]) for p in benchmark("nextqa").recipes
    }
    assert texts["official"] == "why run\nA. p\nB. q\nC. r\nD. s\nE. t\nAnswer:"
    assert texts["lmms-eval"] == "why run\nA. p\nB. q\nC. r\nD. s\nE. t"
    assert "Question: why run A:p. B:q. C:r. D:s. E:t. \nSelect the correct answer" in texts["ig-vlm"]

    made.write_activitynet(tmp_path / "an", 2)
    load = benchmark("activitynet").load
    first, second = load(tmp_path / "an", split="test", protocol="lmms-eval")
    assert first.prompt == "\nwhat is the cat? Answer the question using a single word or phrase."
    assert second.prompt == "What is the  dog ? Answer the question using a single word or phrase."
    assert load(tmp_path / "an", split="test")[1].prompt.startswith("what is the dog?\n")

    made.write_msvd(tmp_path / "ms", made.msvd_rows(1))
    sample = benchmark("msvd").load(tmp_path / "ms", split="test", protocol="ig-vlm")[0]
    assert sample.prompt.endswith("Question: what is it?? \nAnswer: In the video,")

    made.write_nextoe(tmp_path / "oe", made.nextoe_rows(1))
    sample = benchmark("nextoe").load(tmp_path / "oe", split="test", protocol="lmms-eval")[0]
    assert sample.prompt == "what does the cat do\nAnswer a question using a short phrase or sentence."
