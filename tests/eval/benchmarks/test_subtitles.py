"""Which subtitles a protocol shows: by hand, on a stream of 10 frames a second."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from videoprune.eval.benchmarks.subtitles import (
    PLACE,
    SUBTITLE_FILE,
    SUBTITLE_FRAMES,
    SUBTITLE_RULE,
    Line,
    at_frames,
    at_times,
    fill_subtitles,
    read_subtitles,
)
from videoprune.types import Sample

FONT = '<font color="white" size=".72c">{}</font>'
SRT = (
    f"1\n00:00:00,000 --> 00:00:02,500\n{FONT.format('one')}\n\n"
    f"2\n00:00:02,500 --> 00:00:05,000\n{FONT.format('two')}\n\n"
    f"3\n00:00:04,500 --> 00:00:09,000\n{FONT.format('three')}\n\n"
    "4\n01:00:00,250 --> 01:00:01,000\nplain\nand more\n"
)


@pytest.fixture
def srt(tmp_path: Path) -> Path:
    path = tmp_path / "x.srt"
    path.write_text(SRT)
    return path


def sample(rule: str, file: str) -> Sample:
    meta = {SUBTITLE_RULE: rule, SUBTITLE_FILE: file, SUBTITLE_FRAMES: "3"}
    return Sample("q", "v", "?", meta=meta, prompt=f"[{PLACE}]")


def test_reading(srt: Path, tmp_path: Path) -> None:
    lines = read_subtitles(srt)
    assert [(line.start, line.end) for line in lines] == [
        (0, 2500),
        (2500, 5000),
        (4500, 9000),
        (3600250, 3601000),
    ]
    assert lines[3].text == "plain\nand more"
    windows = tmp_path / "w.srt"
    windows.write_bytes(b"\xef\xbb\xbf" + SRT.replace("\n", "\r\n").encode())
    assert read_subtitles(windows) == lines
    empty = tmp_path / "e.srt"
    empty.write_text("no times here")
    with pytest.raises(ValueError, match=r"e\.srt: no subtitle"):
        read_subtitles(empty)


def test_official_times_are_strict_and_repeat(srt: Path) -> None:
    lines = read_subtitles(srt)
    assert at_times(lines, [0, 2500, 5000, 9000]) == "three"  # only 5000 lies inside one, and not on an edge
    assert at_times(lines, [100, 200, 2600, 4700, 3600500]) == "one\none\ntwo\ntwo\nplain and more"
    assert at_times([Line(0, 10, "a\\Nb<i>c</i>{\\an8}")], [5]) == "a bc"


def test_lmms_frames_are_half_open_and_once(srt: Path) -> None:
    lines = read_subtitles(srt)
    assert at_frames(lines, [0, 24], 10.0) == "one"
    assert at_frames(lines, [25], 10.0) == "two"
    assert at_frames(lines, [45, 46, 47], 10.0) == "two\nthree"
    assert at_frames(lines, [90, 36005], 10.0) == ""  # the last has no white font tag


def test_prompts_are_filled(srt: Path) -> None:
    # 101 frames, 2 shown: runs 0..50 and 50..100, middles 25 and 75, so 2.5 s (an edge) and 7.5 s.
    assert fill_subtitles(sample("official", str(srt)), 2, 101, 10.0).prompt == "[three]"
    # 101 frames, three by lmms-eval's own count: 0, 50, 100.
    assert fill_subtitles(sample("lmms-eval", str(srt)), 2, 101, 10.0).prompt == "[one\nthree]"
    assert fill_subtitles(sample("official", ""), 2, 101, 10.0).prompt == "[]"
    assert fill_subtitles(sample("lmms-eval", ""), 2, 101, 10.0).prompt == "[No subtitles available]"
    plain = replace(sample("official", ""), meta={})
    assert fill_subtitles(plain, 2, 101, 10.0) is plain
