"""Clips that several processes see: decoded once, written to a folder, read by each."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pipelines.measure.calls import ReadClip, read_clip
from pipelines.run.stages import ClipItem, DecodeStage, Failure
from videoprune.types import VideoFrames


@dataclass(frozen=True)
class ClipFile:
    """A clip whose frames lie in the file `path`."""

    clip: ReadClip
    path: Path


def write_frames(frames: VideoFrames, path: Path) -> None:
    path.write_bytes(pickle.dumps(frames, pickle.HIGHEST_PROTOCOL))


class ClipFiles:
    """decode: has been set up. kept: the first so many that can be read stay in `folder`, others go when they are
    dropped."""

    def __init__(self, decode: DecodeStage, items: Sequence[ClipItem], folder: Path, kept: int) -> None:
        self.decode, self.items, self.folder, self.kept = decode, items, folder, kept
        self._written: dict[int, ClipFile | Failure] = {}
        self._first: list[ClipFile] | None = None

    def of(self, index: int) -> ClipFile | Failure:
        """The clip of an item, or why there is none."""
        if index not in self._written:
            clip = read_clip(self.decode, self.items[index])
            self._written[index] = clip if isinstance(clip, Failure) else self._write(index, clip)
        return self._written[index]

    def first(self) -> list[ClipFile]:
        """The first `kept` that can be read."""
        if self._first is None:
            self._first = list(islice(self._readable(), self.kept))
        return self._first

    def drop(self, index: int) -> None:
        """It is not needed for now."""
        found = self._written.get(index)
        if isinstance(found, ClipFile) and found.path not in {clip.path for clip in self.first()}:
            found.path.unlink()
            del self._written[index]

    def _readable(self) -> Iterator[ClipFile]:
        found = map(self.of, range(len(self.items)))
        return (clip for clip in found if isinstance(clip, ClipFile))

    def _write(self, index: int, clip: ReadClip) -> ClipFile:
        path = self.folder / f"{index}.frames"
        write_frames(clip.frames, path)
        return ClipFile(clip, path)
