"""Subtitles of a video, and which of them a protocol puts in front of a question.

A prompt keeps a place for them, PLACE, for they depend on which frames of the video are shown.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from videoprune.eval.benchmarks.text_files import read_text
from videoprune.types import Sample
from videoprune.video.sample import counted_indices

PLACE = "{subtitles}"
SUBTITLE_RULE = "subtitle_rule"  # keys of `Sample.meta`
SUBTITLE_FILE = "subtitle_file"
SUBTITLE_FRAMES = "subtitle_frames"

_TIME = r"(-?)(?:(\d+):)?(\d{1,2}):(\d{1,2})(?:[,.](\d+))?"
_TIMES = re.compile(rf"^[ \t]*{_TIME}[ \t]*-{{1,2}}>[ \t]*{_TIME}(?!\S).*$", re.MULTILINE)
_BREAK = re.compile(r"\r+\n|\r")
# What WebVTT has besides cues: notes and styles, and names in front of the times.
_NO_CUE = re.compile(
    r"(?<=\n\n)(?:(?:NOTE|STYLE|REGION)(?:[ \t].*)?\n(?:.+\n)*|[^\n]+\n(?=[^\n]*\d[ \t]*-->[ \t]*\d))"
)
_TAG = re.compile(r"</?[A-Za-z][^>]*>|<\d[\d:.]*>|\{\\[^}]*\}")
_WHITE_FONT = re.compile(r'<font color="white" size="\.72c">(.*?)</font>')


@dataclass(frozen=True)
class Line:
    """One subtitle, shown from `start` to `end` (milliseconds). text: raw, with tags and line breaks."""

    start: int
    end: int
    text: str


def read_subtitles(path: Path) -> list[Line]:
    """The subtitles of a file, SubRip or WebVTT, in its order.

    Read as they come are: any encoding of `read_text`; any kind of line break; blank lines inside a cue, or none
    between cues; times without hours or parts of a second, and below zero, which count as zero. The text keeps
    its tags; of WebVTT, where they are others, they go. Raises ValueError with the path for a file that is no text
    or has no subtitles, OSError for one that cannot be read.
    """
    need_pysubs2(path)
    from pysubs2 import SSAFile

    text = _BREAK.sub("\n", read_text(path)).lstrip("\ufeff")
    web = text.lstrip().startswith("WEBVTT")
    text = _TIMES.sub(_whole_times, _NO_CUE.sub("", text) if web else text)
    # The number behind the last cue keeps pysubs2 from taking a last line of digits for one.
    found = SSAFile.from_string(f"{text}\n\n0\n", format_="srt", keep_html_tags=True)
    lines = [Line(cue.start, cue.end, cue.text.replace("\\N", "\n")) for cue in found]
    if not lines:
        raise ValueError(f"{path}: no subtitle with times in it")
    return [replace(line, text=html.unescape(_TAG.sub("", line.text))) for line in lines] if web else lines


def need_pysubs2(path: Path | str) -> None:
    """Raises ValueError that names the extra where pysubs2 is not installed."""
    if find_spec("pysubs2") is None:
        raise ValueError(f"{path}: reading subtitles needs pysubs2; install videoprune[benchmarks]")


def at_times(lines: list[Line], milliseconds: list[int]) -> str:
    """Video-MME's own rule: for each time the first subtitle with start < time < end, one per line.

    Tags go, line breaks become blanks, times without a subtitle leave no line, repeats stay.
    """
    shown = []
    for now in milliseconds:
        text = next((line.text for line in lines if line.start < now < line.end), "")
        plain = _TAG.sub("", text).replace("\n", " ").replace("\\N", " ")
        if plain.strip():
            shown.append(plain)
    return "\n".join(shown)


def at_frames(lines: list[Line], indices: list[int], rate: float) -> str:
    """lmms-eval's rule: every subtitle that is on screen at one of the frames, each once, in the file's order.

    A subtitle covers the frames from int(start * rate) to before int(end * rate). Its text is what stands in
    the white font tag that Video-MME's files use; a subtitle without that tag is left out.
    """
    shown = []
    for line in lines:
        first, last = int(line.start / 1000 * rate), int(line.end / 1000 * rate)
        inside = any(first <= i < last for i in indices)
        if inside and (found := _WHITE_FONT.search(line.text.replace("\n", " "))):
            shown.append(found[1])
    return "\n".join(shown)


def fill_subtitles(
    sample: Sample,
    shown: int,
    frames: int,
    rate: float,
    read: Callable[[Path], list[Line]] = read_subtitles,
) -> Sample:
    """The sample with the subtitles of its video in its prompt, if its prompt has a place for them.

    shown: frames of the video that the model sees. frames, rate: of the whole stream. read: `read_subtitles`, or
    what remembers it for several questions. Raises ValueError for a
    file without subtitles, OSError for one that cannot be read.
    """
    rule = sample.meta.get(SUBTITLE_RULE)
    if rule is None:
        return sample
    file = sample.meta.get(SUBTITLE_FILE, "")
    if not file:
        text = "No subtitles available" if rule == "lmms-eval" else ""
    elif rule == "lmms-eval":
        count = int(sample.meta[SUBTITLE_FRAMES])
        indices = [int(i) for i in np.linspace(0, frames - 1, count, dtype=int)]
        text = at_frames(read(Path(file)), indices, rate)
    else:
        times = [round(i / rate * 1000) for i in counted_indices(frames, shown, "middles")]
        text = at_times(read(Path(file)), times)
    return replace(sample, prompt=sample.prompt.replace(PLACE, text, 1))


def _whole_times(found: re.Match[str]) -> str:
    """The times of a cue as pysubs2 reads them, without what stands behind them."""
    return " --> ".join(_whole_time(*found.groups()[i : i + 5]) for i in (0, 5))


def _whole_time(sign: str, hours: str | None, minutes: str, seconds: str, part: str | None) -> str:
    if sign:
        return "00:00:00,000"
    milliseconds = (part or "")[:3].ljust(3, "0")
    return f"{int(hours or 0):02d}:{minutes.zfill(2)}:{seconds.zfill(2)},{milliseconds}"
