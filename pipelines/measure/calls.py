"""Clips that can be read, and calls of a model on one or several of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

from pipelines.run.stages import ClipItem, DecodeStage, Failure, with_subtitles
from videoprune.types import Sample, VideoFrames


@dataclass(frozen=True)
class ReadClip:
    """A video's frames, its questions with the subtitles of these frames in them, and the seconds of decoding."""

    item: ClipItem
    frames: VideoFrames
    seconds: float


@dataclass(frozen=True)
class Call:
    """Clips with a question each. decode_seconds: of all of them, one after the other."""

    clips: list[VideoFrames]
    samples: list[Sample]
    decode_seconds: float


def read_clip(decode: DecodeStage, item: ClipItem) -> ReadClip | Failure:
    """Frames and questions of a video, or why there are none."""
    decoded = decode.process(item)
    if isinstance(decoded.frames, Failure):
        return decoded.frames
    try:
        return ReadClip(with_subtitles(decoded), decoded.frames, decoded.seconds)
    except Exception as error:  # a strange subtitle file
        return Failure.of(error)


def readable(decode: DecodeStage, items: Sequence[ClipItem]) -> Iterator[ReadClip]:
    """Those of `items` that can be read, in their order, one at a time."""
    for item in items:
        if isinstance(clip := read_clip(decode, item), ReadClip):
            yield clip


def alone(clip: ReadClip) -> Call:
    """The first question about one clip."""
    return Call([clip.frames], [clip.item.samples[0]], clip.seconds)


def together(clips: Iterable[ReadClip], count: int) -> Call | None:
    """The first `count` clips of as many frames, with a question each; too few: the first again. None without any."""
    by_length: dict[int, list[ReadClip]] = {}
    for clip in clips:
        alike = by_length.setdefault(len(clip.frames), [])
        alike.append(clip)
        if len(alike) == count:
            break
    found = max(by_length.values(), key=len, default=[])
    if not found:
        return None
    taken = list(islice(cycle(found), count))
    samples = [clip.item.samples[0] for clip in taken]
    return Call([clip.frames for clip in taken], samples, sum(clip.seconds for clip in taken))


class Calls:
    """Calls of `count` clips each. One at a time: another clip in each round; several: the same in all rounds."""

    def __init__(self, decode: DecodeStage, items: Sequence[ClipItem], count: int) -> None:
        self.count = count
        self._left = readable(decode, items)
        self._read: list[Call] = []

    def of(self, number: int) -> Call | None:
        """The call of a round; None if no clip can be read. Too few clips: the first again."""
        if self.count > 1:
            if not self._read and (call := together(self._left, self.count)) is not None:
                self._read = [call]
            return self._read[0] if self._read else None
        while len(self._read) <= number and (clip := next(self._left, None)) is not None:
            self._read.append(alone(clip))
        return self._read[number % len(self._read)] if self._read else None
