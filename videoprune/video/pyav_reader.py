"""Decode chosen frames with PyAV: the second backend, which reads what decord cannot.

Frames that share a keyframe are decoded in one run from it. Every seek is checked: a run starts at exactly
the keyframe that was asked for; where a seek lands behind it (MPEG-TS), it is aimed at the keyframe
before, and at last the file is read from its start.

Shapes: T wanted frames, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

import av
import numpy as np
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from videoprune.video.frames import Frames, FrameStore
from videoprune.video.orientation import frame_orientation
from videoprune.video.rgb import upright_rgb
from videoprune.video.scan import Scan, open_video

# A frame leaves the decoder at most this many packets after its own: 16 for reordering (H.264, A.4.2), and
# threads.
_LONGEST_DELAY = 48


def decode(scan: Scan, indices: list[int], size: tuple[int, int] | None, *, threads: int) -> Frames:
    """The frames at `indices` of `scan`, upright, RGB, resized to `size` (height, width) as they are decoded.

    A frame that cannot be decoded is left out, and so is every frame that may lean on it: all that follow in
    the file up to the next keyframe. No neighbour takes its place. Pixels (0, 0, 0, 3) where no frame is
    intact.
    """
    reader = _Reader(scan, FrameStore(len(indices), size), threads)
    try:
        for entry, group in groupby(indices, key=scan.entry):
            reader.run(entry, list(group))
    finally:
        reader.close()
    return reader.store.frames(errors=reader.errors)


class _Reader:
    def __init__(self, scan: Scan, store: FrameStore, threads: int) -> None:
        self.scan, self.store, self.errors = scan, store, 0
        self._threads = threads
        self._scaler = VideoReformatter()
        self._open()

    def _open(self) -> None:
        self._container = open_video(self.scan.path)
        codec = self._container.streams[self.scan.stream].codec_context
        assert isinstance(codec, VideoCodecContext)
        self._codec = codec
        self._codec.thread_count = self._threads
        self._codec.thread_type = "SLICE"  # frame threads report an error some packets late
        self._at_start = True

    def close(self) -> None:
        self._container.close()

    def run(self, entry: int | None, indices: list[int]) -> None:
        """Decode from frame `entry` (None: from the start) and store those of `indices` that are intact."""
        missing, found = set(indices), {}
        broken = np.iinfo(np.int64).max  # place in the file of the first packet that did not decode
        last = max(int(self.scan.decode_order[i]) for i in indices) + _LONGEST_DELAY
        for place, frames in self._decoded(self._packets(entry), last, missing):
            if frames is None:
                self.errors += 1
                broken = min(broken, place)
                continue
            for frame in frames:
                index = None if frame.pts is None else self.scan.find(frame.pts)
                if index is None or (entry is not None and index < entry):
                    continue  # pictures that lead an open GOP lean on frames before the seek
                if frame.is_corrupt:
                    self.errors += 1
                    broken = min(broken, int(self.scan.decode_order[index]))
                elif index in missing:
                    missing.remove(index)
                    found[index] = self._upright(frame)
        for index in sorted(found):
            if self.scan.decode_order[index] < broken:
                self.store.add(float(self.scan.seconds[index]), found[index])

    def _decoded(
        self, packets: Iterable[av.Packet], last: int, missing: set[int]
    ) -> Iterator[tuple[int, list[VideoFrame] | None]]:
        """(place in the file, frames that came out or None for an error) until none is missing."""
        place = -1
        for packet in packets:
            index = None if packet.pts is None else self.scan.find(packet.pts)
            place = place + 1 if index is None else int(self.scan.decode_order[index])
            yield place, self._try_decode(packet)
            if not missing or place > last:
                break
        yield place, self._try_decode(None)  # what the decoder holds back can still show an error

    def _try_decode(self, packet: av.Packet | None) -> list[VideoFrame] | None:
        try:
            return self._codec.decode(packet)
        except FFmpegError:
            return None

    def _packets(self, entry: int | None) -> Iterator[av.Packet]:
        """The packets from keyframe `entry` on; none if it cannot be reached."""
        if entry is None:
            self._seek(None)
            yield from self._demux()
            return
        key = int(self.scan.pts[entry])
        earlier = np.flatnonzero(self.scan.keyframes[:entry])
        # MPEG-TS has no index: its seek lands anywhere in the group of frames, so aim at the one before.
        for target in (key, int(self.scan.pts[earlier[-1]]) if earlier.size else None, None):
            self._seek(target)
            packets = self._demux()
            for packet in packets:
                if not packet.is_keyframe or packet.pts is None or packet.pts < key:
                    continue
                if packet.pts > key:
                    break  # landed behind it
                yield packet
                yield from packets
                return

    def _demux(self) -> Iterator[av.Packet]:
        self._at_start = False
        try:
            for packet in self._container.demux(self._container.streams[self.scan.stream]):
                if packet.size:
                    yield packet
        except FFmpegError:
            self.errors += 1

    def _seek(self, pts: int | None) -> None:
        """Go to somewhere near `pts` (ticks), or to the start of the file for None."""
        if pts is not None and not (self._at_start and pts == self.scan.pts[0]):
            try:
                self._container.seek(pts, stream=self._container.streams[self.scan.stream])
                self._at_start = False
                return
            except FFmpegError:
                self._at_start = False  # whoever fails to seek may have moved
        if not self._at_start:
            self.close()
            self._open()

    def _upright(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """uint8 (H, W, 3). The first frame's matrix counts for all, as in players: a stream may send it rarely."""
        turn = self.scan.orientation or frame_orientation(frame)
        return upright_rgb(frame, turn, self.store.size, self._scaler)
