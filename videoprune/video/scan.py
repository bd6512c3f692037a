"""One pass over a file's packets, only the first decoded: which frames it has, when they are shown, what is broken.

Both decoders work from this list, so an index means the same frame in both. An hour of video was scanned in
0.3 s. Of several video streams FFmpeg's best is taken, as in decord: a default one, then that of the highest
bit rate; not simply the first.

Shapes: F frames that will be shown, in order of presentation.
"""

from __future__ import annotations

import os
from array import array
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream
from numpy.typing import NDArray

from videoprune.video.errors import VideoError
from videoprune.video.orientation import FirstFrame, Orientation
from videoprune.video.sample import stream_end

# First bytes of files that are videos even when nothing in them can be read: EBML, RIFF, FLV, Ogg, ASF,
# MPEG-PS.
_MAGIC = (b"\x1aE\xdf\xa3", b"RIFF", b"FLV", b"OggS", b"0&\xb2u", b"\x00\x00\x01\xba")
_NOT_VIDEO_FORMATS = ("tty",)  # FFmpeg draws any .txt file as a terminal


@dataclass(frozen=True)
class Scan:
    """The frames of one stream.

    height, width: pixels, as coded. orientation: of the first frame; None if it did not decode. pts: int64 (F,),
    strictly ascending, in ticks of `tick` seconds. keyframes: bool (F,). decode_order: int64 (F,), place of the
    frame's packet in the file. end: seconds, when the last frame stops. errors: packets and reads that were
    broken. cut: the file ends before the stream does. hidden: packets that give no frame of their own: not to be
    shown, without a time or with another's, or before the first keyframe. reordered: keyframes whose place in
    the file is not their place in presentation (open GOPs).
    """

    path: str
    format: str
    codec: str
    stream: int
    height: int
    width: int
    orientation: Orientation | None
    tick: float
    pts: NDArray[np.int64]
    keyframes: NDArray[np.bool_]
    decode_order: NDArray[np.int64]
    end: float
    errors: int
    cut: bool
    hidden: int
    reordered: int

    @property
    def seconds(self) -> NDArray[np.float64]:
        """Presentation times, seconds (F,)."""
        return self.pts.astype(np.float64) * self.tick

    @property
    def duration(self) -> float:
        return self.end - float(self.seconds[0])

    def entry(self, index: int) -> int | None:
        """Index of the keyframe to decode from, to see frame `index`; None: from the start of the file."""
        earlier = self.decode_order[: index + 1] <= self.decode_order[index]
        before = np.flatnonzero(self.keyframes[: index + 1] & earlier)
        return int(before[-1]) if before.size else None

    def find(self, pts: int) -> int | None:
        """Index of the frame with exactly this PTS, or None."""
        i = int(np.searchsorted(self.pts, pts))
        return i if i < len(self.pts) and self.pts[i] == pts else None


def open_video(path: str) -> InputContainer:
    """Open for demuxing; broken metadata is no reason to fail."""
    return av.open(path, metadata_errors="replace")


def scan(path: str, max_pixels: int | None = None) -> Scan:
    """Read all packets of the best video stream. Raises VideoError for a file without a video to decode.

    max_pixels: of a frame as coded; None: as many as FFmpeg takes.
    """
    check_file(path)
    try:
        with open_video(path) as container:
            return _scan(path, container, max_pixels)
    except FFmpegError as error:
        if _looks_like_video(path):
            raise VideoError(
                "corrupt", f"{path}: broken container, nothing in it can be read ({error})"
            ) from error
        raise VideoError("not_a_video", f"{path}: not a video file that FFmpeg knows") from error


def check_file(path: str) -> None:
    """Raises VideoError for what is no readable file with something in it."""
    file = Path(path)
    if not file.exists():
        raise VideoError("missing", f"{path}: no such file")
    if not file.is_file():
        raise VideoError("not_a_video", f"{path}: not a regular file")
    if not os.access(path, os.R_OK):
        raise VideoError("missing", f"{path}: no permission to read the file")
    if file.stat().st_size == 0:
        raise VideoError("empty", f"{path}: the file is empty (0 bytes)")


def _looks_like_video(path: str) -> bool:
    with open(path, "rb") as file:
        head = file.read(12)
    return head.startswith(_MAGIC) or head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free")


def _scan(path: str, container: InputContainer, max_pixels: int | None) -> Scan:
    stream = best_stream(path, container)
    assert isinstance(stream.codec_context, VideoCodecContext)
    height, width = stream.codec_context.height, stream.codec_context.width
    if max_pixels is not None and height * width > max_pixels:
        raise VideoError("too_large", f"{path}: {height} x {width} pixels; allowed: {max_pixels} in all")
    found, first = _Packets(), FirstFrame(stream.codec_context)
    reads = container.demux(stream)
    while True:
        try:
            packet = next(reads, None)
        except FFmpegError:
            found.errors += 1
            found.broken_end = True
            break
        if packet is None:
            break
        if packet.size:  # without data it is the demuxer's last word, or a frame that the writer dropped
            found.add(packet, hidden=_is_hidden(stream, packet))
            first.look(packet)
    first.look(None)
    return _in_order(path, container, stream, found, first.orientation)


@dataclass
class _Packets:
    """Columns of the packets that give a frame, in the file's order, and counts of the others."""

    pts: array[int] = field(default_factory=lambda: array("q"))
    order: array[int] = field(default_factory=lambda: array("q"))
    keys: bytearray = field(default_factory=bytearray)
    packets: int = 0
    hidden: int = 0
    errors: int = 0
    longest: int = 0  # ticks, when the last frame stops
    first_key: int | None = None  # PTS of the first keyframe, shown or not
    broken_end: bool = False  # half of the last packet is the mark of a file cut within it

    def add(self, packet: av.Packet, *, hidden: bool) -> None:
        self.packets += 1
        self.broken_end = packet.is_corrupt
        if self.first_key is None and packet.is_keyframe and not packet.is_corrupt:
            self.first_key = packet.pts
        if packet.is_corrupt:
            self.errors += 1
        elif hidden or packet.is_discard or packet.pts is None:
            self.hidden += 1
        else:
            self.pts.append(packet.pts)
            self.order.append(self.packets - 1)
            self.keys.append(packet.is_keyframe)
            self.longest = max(self.longest, packet.pts + (packet.duration or 0))


def best_stream(path: str, container: InputContainer) -> VideoStream:
    """The video stream to read. Raises VideoError, which names `path`, where there is none to decode."""
    covers = [s for s in container.streams.video if s.disposition & Disposition.attached_pic]
    streams = [s for s in container.streams.video if s not in covers]
    if container.format.name in _NOT_VIDEO_FORMATS or not (streams or container.streams.audio):
        raise VideoError(
            "not_a_video", f"{path}: no picture in it (FFmpeg reads it as {container.format.name!r})"
        )
    if not streams:
        raise VideoError("audio_only", f"{path}: sound only, no video stream")
    best = container.streams.best("video")
    stream = best if isinstance(best, VideoStream) and best in streams else streams[0]
    if stream.codec_context is None:
        raise VideoError("no_decoder", f"{path}: no decoder for video stream {stream.index}")
    return stream


def _is_hidden(stream: VideoStream, packet: av.Packet) -> bool:
    """VP8 packets that only feed later ones: bit 4 of the first byte is show_frame (RFC 6386, 9.1)."""
    return stream.codec_context.name == "vp8" and not memoryview(packet)[0] & 0x10


def _in_order(
    path: str,
    container: InputContainer,
    stream: VideoStream,
    found: _Packets,
    orientation: Orientation | None,
) -> Scan:
    pts, first = np.unique(np.frombuffer(found.pts, dtype=np.int64), return_index=True)  # (F,)
    order = np.frombuffer(found.order, dtype=np.int64)[first]
    keys = np.frombuffer(found.keys, dtype=bool)[first]
    # What is shown before the first keyframe cannot be decoded: a recording may start anywhere.
    start = 0 if found.first_key is None else int(np.searchsorted(pts, found.first_key))
    pts, order, keys = pts[start:], order[start:], keys[start:]
    if not pts.size:
        why = "its packets carry no presentation times" if found.hidden else "the video stream holds no frame"
        raise VideoError("corrupt", f"{path}: {why}")
    # Place in the file against place in presentation, among the frames that are shown.
    moved = np.argsort(np.argsort(order))[keys] != np.flatnonzero(keys)
    assert stream.time_base is not None
    tick = float(stream.time_base)
    end = found.longest * tick if found.longest > pts[-1] else stream_end(pts.astype(np.float64) * tick)
    return Scan(
        path=path,
        format=container.format.name,
        codec=stream.codec_context.name,
        stream=stream.index,
        height=stream.codec_context.height,
        width=stream.codec_context.width,
        orientation=orientation,
        tick=tick,
        pts=pts,
        keyframes=keys,
        decode_order=order,
        end=end,
        errors=found.errors,
        cut=found.broken_end or _too_short(path, container, stream, tick, end),
        hidden=found.packets - found.errors - len(pts),
        reordered=int(np.count_nonzero(moved)),
    )


def _too_short(path: str, container: InputContainer, stream: VideoStream, tick: float, end: float) -> bool:
    """The header promises more than the packets hold. MPEG-TS promises nothing: a cut does not show."""
    if stream.duration is not None:
        promised = ((stream.start_time or 0) + stream.duration) * tick
    else:
        promised = (container.duration or 0) / av.time_base
    slack = max(0.5, 0.02 * promised)
    if promised <= end + slack:
        return False
    return stream.duration is not None or promised > _end_of_all(path) + slack


def _end_of_all(path: str) -> float:
    """When the last packet of any stream ends, seconds: a container lasts as long as its longest stream."""
    last = 0.0
    with open_video(path) as container:
        try:
            for packet in container.demux():
                if packet.pts is not None:
                    last = max(last, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        except FFmpegError:
            return last  # the part before the break is all that can be read
    return last
