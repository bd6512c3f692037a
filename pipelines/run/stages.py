"""The steps of a run as plain classes with `setup`, `process` and `close`. They know nothing of who runs
them.

The unit of work is one video with all its questions: decoded once, encoded once, asked many times. A stage
can be pickled until `setup` is called, so an executor may carry it into another process first.

Shapes: T frames, H x W pixels.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from videoprune.eval.benchmarks.subtitles import SUBTITLE_RULE, fill_subtitles, read_subtitles
from videoprune.types import UNUSABLE, Sample, VideoFrames
from videoprune.video import Policy, Reader, Sampling, VideoError
from videoprune.video.grid import grid_view
from videoprune.video.header import stream_header
from videoprune.video.remote.address import Stored, is_remote, shown
from videoprune.video.remote.options import RemoteOptions

if TYPE_CHECKING:
    from videoprune.video.remote.cache import VideoCache


@dataclass(frozen=True)
class ClipItem:
    """One video and its questions, which are all asked at the same time of it. known: what a listing said of a remote
    one."""

    video: str
    samples: tuple[Sample, ...]
    known: Stored | None = None

    def __post_init__(self) -> None:
        assert len({s.until for s in self.samples}) <= 1, "questions asked at different times share no frames"

    @property
    def until(self) -> float | None:
        """See `Sample.until`."""
        return self.samples[0].until if self.samples else None


@dataclass(frozen=True)
class Failure:
    """Why questions have no answer. kind: a video's reason, or the type of an exception. reason: a sentence.
    traceback: where the exception was raised, "" where there was none."""

    kind: str
    reason: str
    traceback: str = ""

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        kind = type(error).__name__
        return cls(kind, f"{kind}: {error}", "".join(traceback.format_exception(error)))

    @classmethod
    def of_video(cls, reason: str) -> Failure:
        """reason: as a failed Outcome has it, the kind in front."""
        return cls(reason.partition(":")[0], reason)


@dataclass(frozen=True)
class DecodedClip:
    """A clip's frames, or why there are none. seconds: wall time of decoding.

    header: number of frames and frames per second of the whole stream, where a question's prompt needs them.
    """

    item: ClipItem
    frames: VideoFrames | Failure
    seconds: float
    header: tuple[int, float] | None = None

    @property
    def nbytes(self) -> int:
        """Of the frames."""
        return 0 if isinstance(self.frames, Failure) else self.frames.pixels.nbytes


class DecodeStage:
    """Video -> frames (T, H, W, 3) at `size`, `num_frames` of them, uniform in time, or as `policy` says.

    fps and window as the policy needs them; see `Sampling`. Frames are from before the time at which the questions are
    asked. columns: above 0, the frames come as one image with that many side by side, each at its own size. A video
    that cannot be read, or that its loader marked `unusable`, gives a Failure. deadline_seconds: for one video; see
    `Reader`. remote: how videos at addresses are fetched; without it they are not read.
    """

    def __init__(
        self,
        num_frames: int,
        size: tuple[int, int] | None,
        *,
        policy: Policy = "uniform",
        fps: float | None = None,
        window: float | None = None,
        columns: int = 0,
        deadline_seconds: float = 60.0,
        threads: int = 1,
        remote: RemoteOptions | None = None,
    ) -> None:
        self.num_frames, self.size = num_frames, None if columns else size
        self.policy, self.fps, self.window, self.columns = policy, fps, window, columns
        self.deadline_seconds, self.threads = deadline_seconds, threads
        self.remote = remote
        self._reader: Reader | None = None
        self._cache: VideoCache | None = None

    def setup(self) -> None:
        if self.remote is not None:
            from videoprune.video.remote.cache import VideoCache  # not before: it needs fsspec

            self._cache = self._cache or VideoCache(self.remote)
        self._reader = self._reader or Reader(threads=self.threads)

    def process(self, item: ClipItem) -> DecodedClip:
        started = time.perf_counter()
        header = None
        frames: VideoFrames | Failure
        try:
            frames, header = self._decode(item)
        except VideoError as error:
            frames = Failure.of_video(f"{error.reason}: {error}")
        except Exception as error:
            frames = Failure.of(error)
        return DecodedClip(item, frames, time.perf_counter() - started, header)

    def process_all(self, items: Sequence[ClipItem]) -> list[DecodedClip]:
        return [self.process(item) for item in items]

    def _decode(self, item: ClipItem) -> tuple[VideoFrames | Failure, tuple[int, float] | None]:
        assert self._reader is not None, "setup() comes first"
        if unusable := item.samples[0].meta.get(UNUSABLE, ""):
            return Failure.of_video(unusable), None
        sampling = Sampling(self.policy, self.num_frames, self.fps, until=item.until, window=self.window)
        with self._local(item) as path:
            frames = self._reader.read(path, sampling, size=self.size, deadline_seconds=self.deadline_seconds)
            subtitled = any(SUBTITLE_RULE in s.meta for s in item.samples)
            assert not subtitled or item.until is None, "subtitles are those of a whole video"
            header = stream_header(path) if subtitled else None
            frames = frames if path == item.video else replace(frames, path=item.video)
        return grid_view(frames, self.columns) if self.columns else frames, header

    @contextmanager
    def _local(self, item: ClipItem) -> Iterator[str]:
        """Path of the video on this machine; errors name it as the item does."""
        if self._cache is None or not is_remote(item.video):
            yield item.video
            return
        with self._cache.file(item.video, item.known) as path:
            try:
                yield path
            except VideoError as error:
                raise VideoError(error.reason, str(error).replace(path, shown(item.video))) from None

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()


def with_subtitles(decoded: DecodedClip) -> ClipItem:
    """The item with the subtitles of its frames in those prompts that have a place for them."""
    if decoded.header is None or isinstance(decoded.frames, Failure):
        return decoded.item
    shown = len(decoded.frames)
    read = cache(read_subtitles)  # one file for all questions about the video
    samples = tuple(fill_subtitles(s, shown, *decoded.header, read=read) for s in decoded.item.samples)
    return replace(decoded.item, samples=samples)


def group_by_video(samples: Sequence[Sample]) -> list[ClipItem]:
    """One item per video and time at which it is asked about, items and questions in the order of first mention."""
    found: dict[tuple[str, float | None], list[Sample]] = {}
    for sample in samples:
        found.setdefault((sample.video, sample.until), []).append(sample)
    return [ClipItem(video, tuple(asked)) for (video, _), asked in found.items()]
