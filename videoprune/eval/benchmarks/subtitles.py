"""Subtitles of a video (.srt), and which of them a protocol puts in front of a question.

A prompt keeps a place for them, PLACE, for they depend on which frames of the video are shown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from videoprune.types import Sample
from videoprune.video.sample import counted_indices

PLACE = "{subtitles}"
SUBTITLE_RULE = "subtitle_rule"  # keys of `Sample.meta`
SUBTITLE_FILE = "subtitle_file"
SUBTITLE_FRAMES = "subtitle_frames"

_TIME = r"(\d+):(\d{1,2}):(\d{1,2})[,.](\d{1,3})"
_TIMES = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}")
_TAG = re.compile(r"<[^>]*>|\{\\[^}]*\}")
_WHITE_FONT = re.compile(r'<font color="white" size="\.72c">(.*?)</font>')


@dataclass(frozen=True)
class Line:
    """One subtitle, shown from `start` to `end` (milliseconds). text: raw, with tags and line breaks."""

    start: int
    end: int
    text: str


def read_srt(path: Path) -> list[Line]:
    """The subtitles of a file, in its order. Raises ValueError if it has none, OSError if it cannot be read.

    Numbers, byte order marks and the kind of line break do not matter; a block without times is left out.
    """
    lines: list[Line] = []
    raw = path.read_text(encoding="utf-8-sig", errors="replace")
    for block in re.split(r"\n\s*\n", raw.replace("\r\n", "\n")):
        rows = block.strip("\n").split("\n")
        found = next(((i, m) for i, row in enumerate(rows[:2]) if (m := _TIMES.match(row))), None)
        if found is None:
            continue
        place, times = found
        numbers = times.groups()
        lines.append(Line(_ms(numbers[:4]), _ms(numbers[4:]), "\n".join(rows[place + 1 :])))
    if not lines:
        raise ValueError(f"{path}: no subtitle with times in it")
    return lines


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


def fill_subtitles(sample: Sample, shown: int, frames: int, rate: float) -> Sample:
    """The sample with the subtitles of its video in its prompt, if its prompt has a place for them.

    shown: frames of the video that the model sees. frames, rate: of the whole stream. Raises ValueError for a
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
        text = at_frames(read_srt(Path(file)), indices, rate)
    else:
        times = [round(i / rate * 1000) for i in counted_indices(frames, shown, "middles")]
        text = at_times(read_srt(Path(file)), times)
    return replace(sample, prompt=sample.prompt.replace(PLACE, text, 1))


def _ms(numbers: tuple[str, ...]) -> int:
    hours, minutes, seconds, part = numbers
    return ((int(hours) * 60 + int(minutes)) * 60 + int(seconds)) * 1000 + int(part.ljust(3, "0"))
