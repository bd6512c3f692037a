"""Subtitle files as they come: encodings, line breaks, blank lines, WebVTT, times, tags, and files that are none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.run.model_stage import ModelStage
from pipelines.run.stages import ClipItem, DecodedClip
from tests.eval.benchmarks import made
from videoprune.config import PruneConfig
from videoprune.eval.benchmarks.registry import benchmark
from videoprune.eval.benchmarks.subtitles import (
    PLACE,
    SUBTITLE_FILE,
    SUBTITLE_RULE,
    Line,
    at_times,
    read_subtitles,
)
from videoprune.types import Sample, VideoFrames

TWO = "1\n00:00:00,000 --> 00:00:01,000\n{}\n\n2\n00:00:01,000 --> 00:00:02,500\n{}\n"


def read(folder: Path, text: str | bytes) -> list[tuple[int, int, str]]:
    path = folder / "x.srt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return [(line.start, line.end, line.text) for line in read_subtitles(path)]


@pytest.mark.parametrize(
    ("encoding", "first", "second"),
    [
        ("utf-8", "más señal", "你好"),
        ("utf-8-sig", "más señal", "你好"),
        ("utf-16", "más señal", "你好"),
        ("utf-32", "más señal", "你好"),
        ("latin-1", "más señal 0", "más señal 1"),
        ("latin-1", "Grüße aus München", "Über die Straße"),
        ("latin-1", "Não, não é assim", "a ação começa às três"),
        ("latin-1", "Hyvää päivää", "äärimmäisen tärkeää"),
        ("latin-1", "at the café", "yesterday"),
        ("cp1252", "It’s “good” – he said…", "yes"),
        ("gb18030", "你好，世界", "今天天气很好"),
        ("gb18030", "Hello, 李明", "this is the video"),
    ],
)
def test_encodings(encoding: str, first: str, second: str, tmp_path: Path) -> None:
    assert read(tmp_path, TWO.format(first, second).encode(encoding)) == [
        (0, 1000, first),
        (1000, 2500, second),
    ]


def test_one_damaged_byte_leaves_utf8(tmp_path: Path) -> None:
    found = read(
        tmp_path, TWO.format("今天天气很好", "今天天气很好").encode().replace("很".encode(), b"\xe5\xbe", 1)
    )
    assert [text for *_, text in found] == ["今天天气\ufffd好", "今天天气很好"]


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r", "\r\r\n"])
def test_line_breaks(ending: str, tmp_path: Path) -> None:
    text = TWO.format("one\nmore", "two\u2028parts").replace("\n", ending)
    assert read(tmp_path, text) == [(0, 1000, "one\nmore"), (1000, 2500, "two\u2028parts")]


def test_blank_lines(tmp_path: Path) -> None:
    found = read(tmp_path, TWO.format("first\n\nafter a blank", "\nstarts with one"))
    assert [text for *_, text in found] == ["first\n\nafter a blank", "starts with one"]
    double = TWO.format("line 0", "line 1").replace("\n", "\n\n")
    assert read(tmp_path, double) == [(0, 1000, "line 0"), (1000, 2500, "line 1")]
    none = TWO.format("line 0", "line 1").replace("\n\n", "\n")
    assert read(tmp_path, none) == [(0, 1000, "line 0"), (1000, 2500, "line 1")]
    assert read(tmp_path, TWO.format("", "In\n1984")) == [(0, 1000, ""), (1000, 2500, "In\n1984")]
    assert read(tmp_path, TWO.format("1984", "x")) == [(0, 1000, "1984"), (1000, 2500, "x")]


def test_webvtt(tmp_path: Path) -> None:
    text = """WEBVTT - a title
Kind: captions

NOTE made by hand
on two lines

STYLE
::cue { color: white }

00:00.500 --> 00:01.000 align:start position:0%
<v Bob>hi</v> &amp; <c.loud>you</c><00:00.700><b> there</b>

a name
00:01.000 --> 00:02.000
two

NOTE the end

3
01:00:00.000 --> 01:00:01.000
5 &lt; 6
"""
    assert read(tmp_path, text) == [
        (500, 1000, "hi & you there"),
        (1000, 2000, "two"),
        (3600000, 3601000, "5 < 6"),
    ]
    assert read(tmp_path, "\ufeff" + text.replace("\n", "\r\n")) == read(tmp_path, text)


@pytest.mark.parametrize(
    ("times", "start", "end"),
    [
        ("00:00:01,5 --> 00:00:02,25", 1500, 2250),
        ("00:00:01.500 --> 00:00:02.250", 1500, 2250),
        ("0:0:1,500 --> 0:0:2,250", 1500, 2250),
        ("00:01,500 --> 00:02,250", 1500, 2250),
        ("00:00:01 --> 00:00:02", 1000, 2000),
        ("-00:00:01,000 --> 00:00:02,000", 0, 2000),
        ("-00:00:02,000 --> -00:00:01,000", 0, 0),
        ("00:00:01,000 -> 00:00:02,000", 1000, 2000),
        ("  00:00:01,000-->00:00:02,000  X1:100 X2:200 Y1:10 Y2:20", 1000, 2000),
        ("12:34:56,789 --> 12:34:57,0000", 45296789, 45297000),
    ],
)
def test_times(times: str, start: int, end: int, tmp_path: Path) -> None:
    assert read(tmp_path, f"1\n{times}\ntext\n") == [(start, end, "text")]


def test_overlapping_cues_keep_the_order_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "x.srt").write_text(
        "1\n00:00:00,000 --> 00:00:05,000\na\n\n2\n00:00:01,000 --> 00:00:02,000\nb\n\n"
        "3\n00:00:00,500 --> 00:00:04,000\nc\n"
    )
    lines = read_subtitles(tmp_path / "x.srt")
    assert [(line.start, line.text) for line in lines] == [(0, "a"), (1000, "b"), (500, "c")]
    assert at_times(lines, [1500, 4500]) == "a\na"


def test_tags_go_and_other_signs_stay() -> None:
    text = '<i>one</i> {\\an8}<font color="#fff">two</font> 5 < 6 > 4 <3 {x}'
    assert at_times([Line(0, 10, text)], [5]) == "one two 5 < 6 > 4 <3 {x}"


@settings(max_examples=60)
@given(
    texts=st.lists(
        st.text(st.characters(categories=("L", "P", "Zs"), exclude_characters="<>{}\\"), max_size=20).map(
            lambda text: " ".join(text.split())
        ),
        min_size=1,
        max_size=5,
    ),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    ending=st.sampled_from(["\n", "\r\n"]),
)
def test_what_is_written_is_read(
    texts: list[str], encoding: str, ending: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cues = [f"{i + 1}\n00:00:0{i},000 --> 00:00:0{i},900\n{text}\n" for i, text in enumerate(texts)]
    folder = tmp_path_factory.mktemp("subtitles")
    found = read(folder, "\n".join(cues).replace("\n", ending).encode(encoding))
    assert found == [(1000 * i, 1000 * i + 900, text) for i, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", r"x\.srt: no subtitle with times in it"),
        (b"no times here", r"x\.srt: no subtitle with times in it"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\xff\xfe", r"x\.srt: no text: it holds zero bytes"),
        (b"\xff\xfea", r"x\.srt: not the utf-16 that its first bytes say"),
    ],
)
def test_a_file_that_is_none_says_why(data: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=reason):
        read(tmp_path, data)


def test_an_unreadable_file_fails_its_rows_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "x.srt"
    path.write_bytes(b"\xff\xfea")
    meta = {SUBTITLE_RULE: "official", SUBTITLE_FILE: str(path)}
    item = ClipItem("v", tuple(Sample(q, "v", "?", meta=meta, prompt=PLACE) for q in ("1", "2")))
    frames = VideoFrames(torch.zeros(1, 2, 2, 3, dtype=torch.uint8), (0.0,), 1.0, "v", "none")
    rows = ModelStage("", PruneConfig()).process(DecodedClip(item, frames, 0.0, (10, 1.0)))
    assert [(row["question_id"], row["outcome"]) for row in rows] == [("1", "failed"), ("2", "failed")]
    assert all(row["reason"].startswith(f"ValueError: {path}: not the utf-16") for row in rows)


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made.write_videomme(tmp_path, made.videomme_rows(1))
    monkeypatch.setattr("videoprune.eval.benchmarks.subtitles.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs pysubs2; install videoprune\[benchmarks\]"):
        benchmark("videomme").load(tmp_path, split="test", subtitles=True)
    assert benchmark("videomme").load(tmp_path, split="test")
    monkeypatch.undo()
    monkeypatch.setattr("videoprune.eval.benchmarks.text_files.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"x\.srt: not UTF-8; .* charset-normalizer"):
        read(tmp_path, TWO.format("más", "x").encode("latin-1"))
    assert read(tmp_path, TWO.format("más", "x"))


def test_webvtt_files_of_videomme_are_found(tmp_path: Path) -> None:
    made.write_videomme(tmp_path, made.videomme_rows(1))
    path = tmp_path / "subtitle" / "made_001.vtt"
    path.parent.mkdir()
    path.write_text("WEBVTT\n\n00:00.000 --> 00:01.000\nx\n")
    assert benchmark("videomme").load(tmp_path, split="test", subtitles=True)[0].meta[SUBTITLE_FILE] == str(
        path
    )
