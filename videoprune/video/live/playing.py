"""One connection to a source, from its opening to its end: packets in, wanted frames out.

Without torch, as all that the decoding process runs. Shapes: H x W pixels.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from videoprune.video.live.address import Address
from videoprune.video.live.clock import ArrivalClock, PlayClock
from videoprune.video.live.intact import Intact
from videoprune.video.live.opening import Guard, PlayError, Wanted, ffmpeg_pixels, open_stream
from videoprune.video.live.thinning import Thinning
from videoprune.video.orientation import Orientation, frame_orientation
from videoprune.video.rgb import upright_rgb

# FFmpeg's flag of formats without times (AVFMT_NOTIMESTAMPS).
_NO_TIMESTAMPS = 0x80
# Counts alone are sent no more often than this.
_TELL_SECONDS = 1.0
# A playlist that grows: a longer gap between frames is none.
_LIVE_JUMP = 10.0


@dataclass(frozen=True)
class Played:
    """A wanted frame, or none and only counts. late: seconds since it was to be seen. origin: as in `Wanted`."""

    pixels: NDArray[np.uint8] | None = None
    seconds: float = 0.0
    late: float = 0.0
    origin: float | None = None
    broken: int = 0
    thinned: int = 0


class Playing:
    """Frames of one connection, in order."""

    def __init__(self, address: Address, wanted: Wanted, guard: Guard) -> None:
        self._address, self._wanted, self._guard = address, wanted, guard
        self._thinning = Thinning(wanted.fps, wanted.after)
        self._intact = Intact()
        self._scaler = VideoReformatter()
        self._turn: Orientation | None = None
        self._broken = self._thinned = 0
        self._base: float | None = None  # second 0 of a paced recording, on the monotonic clock
        self._last: float | None = None
        self._told = 0.0

    def frames(self) -> Iterator[Played]:
        """Until a recording ends. Raises PlayError where the source stops otherwise."""
        container, stream = open_stream(self._address, self._wanted, self._guard)
        with container:
            self._know(container, stream)
            for frame in self._decoded(container, stream):
                played = self._counts() if frame is None else self._play(frame)
                if played is not None:
                    yield played
            yield self._counts()
            self._check_end(container, stream)

    def _know(self, container: InputContainer, stream: VideoStream) -> None:
        """What kind of stream it is, and so which clock it needs."""
        wanted, codec = self._wanted, stream.codec_context
        assert isinstance(codec, VideoCodecContext)
        codec.thread_count, codec.thread_type = 2, "SLICE"  # as `pyav_reader`
        codec.options = {"max_pixels": str(ffmpeg_pixels(wanted.max_pixels))}
        self._codec = codec
        self._tick = float(stream.time_base or 1)
        self._recording = self._address.kind == "file" or (
            self._address.kind != "camera" and (container.duration or 0) > 0
        )
        if not (self._recording or wanted.paced):
            raise PlayError(
                f"{self._address.name}: paced=False, but it is live; allowed: paced=True", final=True
            )
        # Such as MJPEG over HTTP: FFmpeg makes times up, 25 a second.
        self._has_times = not container.format.flags & _NO_TIMESTAMPS
        interval = 1 / float(stream.average_rate or 25)
        grows = container.format.name == "hls" and not self._recording
        if grows:
            begin = max(time.monotonic() - wanted.start, wanted.after or 0.0)
            self._play_clock = PlayClock(begin=begin, jump=_LIVE_JUMP, interval=interval)
        else:
            self._play_clock = PlayClock(origin=wanted.origin, interval=interval)
        self._arrival_clock = None if grows or self._recording else ArrivalClock(wanted.after)
        self._paced = grows or (self._recording and wanted.paced)
        if self._recording and wanted.after is not None and wanted.origin is not None:
            self._go_to(container, stream, wanted.origin + wanted.after)

    def _go_to(self, container: InputContainer, stream: VideoStream, pts: float) -> None:
        """To the keyframe before; where that fails, the frames that were seen are thinned as they pass."""
        try:
            with self._guard(self._wanted.open_seconds):
                container.seek(int(pts / self._tick), stream=stream)
        except FFmpegError:
            return

    def _decoded(self, container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame | None]:
        """Intact frames; None after broken ones, which are counted."""
        whole_jpegs = stream.codec_context.name == "mjpeg" and self._address.kind != "file"
        if whole_jpegs:  # else FFmpeg paints what is missing grey
            self._codec.options = {**self._codec.options, "err_detect": "explode"}
        for packet in self._packets(container, stream):
            if packet is not None:
                self._intact.packet(packet)
            frames = None
            if packet is None or not whole_jpegs or _is_whole_jpeg(packet):
                with suppress(FFmpegError):
                    frames = self._codec.decode(packet)
            if frames is None:
                self._intact.error()
                self._broken += 1
                yield None
                continue
            for frame in frames:
                holds = self._intact.holds(frame) and frame.width * frame.height <= self._wanted.max_pixels
                self._broken += not holds
                yield frame if holds else None

    def _packets(self, container: InputContainer, stream: VideoStream) -> Iterator[Packet | None]:
        """Packets with data, at last None. Raises PlayError where reading fails or nothing comes."""
        packets = container.demux(stream)
        limit = self._wanted.read_seconds
        while True:
            began = time.monotonic()
            try:
                with self._guard(limit):
                    packet = next(packets, None)
            except FFmpegError as error:
                late = time.monotonic() - began > limit
                why = f"no data within {limit:g} s" if late else error.strerror
                raise PlayError(f"{self._address.name}: {why}") from None
            if packet is None:
                yield None
                return
            if packet.size:
                yield packet

    def _play(self, frame: VideoFrame) -> Played | None:
        """The frame at its time, if it is wanted."""
        now = time.monotonic() - self._wanted.start
        seconds = self._seconds(None if frame.pts is None else frame.pts * self._tick, now)
        if self._turn is None:  # the first frame's matrix counts for all, as in `pyav_reader`
            self._turn = frame_orientation(frame)
        if seconds is not None:
            self._last = seconds
        if seconds is None or not self._thinning.wants(seconds):
            self._thinned += 1
            return self._counts() if now - self._told > _TELL_SECONDS else None
        self._thinning.keep(seconds)
        pixels = upright_rgb(frame, self._turn, self._wanted.fit.size(frame, self._turn), self._scaler)
        if self._paced:
            self._wait_for(seconds)
        late = 0.0 if self._arrival_clock is None else now - seconds
        return self._counts(pixels, seconds, late)

    def _seconds(self, pts: float | None, now: float) -> float | None:
        if self._arrival_clock is not None:
            return self._arrival_clock.at(pts if self._has_times else None, now)
        return self._play_clock.at(pts, 0.0 if self._recording else now)

    def _wait_for(self, seconds: float) -> None:
        now = time.monotonic()
        if self._base is None:
            self._base = now - seconds
        time.sleep(max(0.0, self._base + seconds - now))

    def _counts(
        self, pixels: NDArray[np.uint8] | None = None, seconds: float = 0.0, late: float = 0.0
    ) -> Played:
        """With all that was counted since the last."""
        played = Played(
            pixels, seconds, late, self._play_clock.origin, broken=self._broken, thinned=self._thinned
        )
        self._broken = self._thinned = 0
        self._told = time.monotonic() - self._wanted.start
        return played

    def _check_end(self, container: InputContainer, stream: VideoStream) -> None:
        """A camera does not end, nor a recording from the network before its header says."""
        name, after = self._address.name, self._wanted.after
        if not self._recording:
            raise PlayError(f"{name}: the stream ended")
        if self._last is None and after is None:
            raise PlayError(f"{name}: no frame could be decoded", final=self._address.kind == "file")
        promised = (
            stream.duration * self._tick if stream.duration else (container.duration or 0) / av.time_base
        )
        # Another try of a break that gave nothing new is the end: the header may promise too much.
        last, slack = self._last or 0.0, max(0.5, 0.02 * promised)
        if self._address.kind != "file" and (after or 0.0) < last < promised - slack:
            raise PlayError(f"{name}: broke off after {last:.1f} of {promised:.1f} s")


def _is_whole_jpeg(packet: Packet) -> bool:
    """Whether the end is there."""
    return bytes(packet)[-64:].rstrip(b"\0\r\n").endswith(b"\xff\xd9")
