"""Clips that tests make themselves. Each frame shows its number: a wrong one cannot pass for a right one."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.stream import VideoStream
from numpy.typing import NDArray

from videoprune.video import Reader

HEIGHT, WIDTH, BITS, RATE = 96, 160, 8, 25
X264 = {"preset": "ultrafast", "x264-params": "keyint=12:scenecut=0:bframes=2:b-adapt=0:threads=1"}


class Clips:
    """Writes clips below one folder and reads the numbers in their frames."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def picture(self, number: int, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
        """uint8 (H, W, 3): 8 black or white columns above, a ramp from red to blue below."""
        image = np.zeros((height, width, 3), dtype=np.uint8)
        for bit in range(BITS):
            left, right = width * bit // BITS, width * (bit + 1) // BITS
            image[: height // 2, left:right] = 255 * (number >> bit & 1)
        ramp = np.linspace(0, 200, width).astype(np.uint8)
        image[height // 2 :, :, 0], image[height // 2 :, :, 2] = 200 - ramp, ramp
        return image

    def number(self, pixels: NDArray[np.uint8]) -> int:
        """The number in a picture (H, W, 3), at any size."""
        height, width = pixels.shape[:2]
        middles = [int((bit + 0.5) * width / BITS) for bit in range(BITS)]
        return sum((int(pixels[height // 4, x].mean()) > 127) << bit for bit, x in enumerate(middles))

    def write(
        self,
        name: str,
        *,
        codec: str = "libx264",
        frames: int = 60,
        pts: Sequence[int] | None = None,
        tick: Fraction | None = None,
        size: tuple[int, int] = (HEIGHT, WIDTH),
        pixel_format: str = "yuv420p",
        options: dict[str, str] | None = None,
        container: dict[str, str] | None = None,
        gop: int = 12,
        b_frames: int = 0,
    ) -> Path:
        """A clip whose frame i shows the number i at `pts[i]` ticks (by default 25 frames per second)."""
        path = self.folder / name
        tick = tick or Fraction(1, RATE)
        with av.open(str(path), "w", options=container or {}) as output:
            stream = output.add_stream(
                codec, rate=RATE, options=X264 if codec == "libx264" else options or {}
            )
            assert isinstance(stream, VideoStream)
            stream.height, stream.width = size
            stream.pix_fmt = pixel_format
            if codec != "libx264":
                stream.gop_size, stream.max_b_frames = gop, b_frames
            stream.codec_context.time_base, stream.codec_context.thread_count = tick, 1
            for i in range(frames):
                frame = av.VideoFrame.from_ndarray(self.picture(i, *size), format="rgb24")
                frame = frame.reformat(format=pixel_format)
                frame.pts, frame.time_base = (i if pts is None else int(pts[i])), tick
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
        return path

    def write_sound(self, name: str) -> Path:
        path = self.folder / name
        with av.open(str(path), "w") as output:
            stream = output.add_stream("aac", rate=16000, layout="mono")
            for i in range(8):
                frame = av.AudioFrame.from_ndarray(
                    np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
                )
                frame.sample_rate, frame.pts = 16000, 1024 * i
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
        return path

    def packets(self, path: Path) -> list[tuple[int, int]]:
        """(position, size) in bytes of each video packet, in the file's order."""
        with av.open(str(path)) as container:
            packets = [p for p in container.demux(container.streams.video[0]) if p.size]
            return [(p.pos or 0, p.size) for p in packets]

    def damage(self, path: Path, which: Sequence[int], *, zeros: bool) -> Path:
        """A copy in which the packets `which` are zeros, or noise after their first third."""
        data = bytearray(path.read_bytes())
        noise = np.random.default_rng(0)
        packets = self.packets(path)
        for i in which:
            start, size = packets[i]
            start, size = (start, size) if zeros else (start + size // 3, size - size // 3)
            data[start : start + size] = bytes(size) if zeros else noise.bytes(size)
        damaged = path.with_name("damaged_" + path.name)
        damaged.write_bytes(data)
        return damaged

    def cut(self, path: Path, share: float) -> Path:
        short = path.with_name("cut_" + path.name)
        short.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        return short

    def show_by(self, path: Path, matrix: tuple[float, float, float, float]) -> Path:
        """A copy whose track header (ISO 14496-12, 8.3.2) shows the pixel (x, y) at (a x + c y, b x + d y)."""
        a, b, c, d = (round(n * (1 << 16)) for n in matrix)
        data = bytearray(path.read_bytes())
        place = data.index(b"tkhd") + 4 + 40
        data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
        shown = path.with_name(f"shown_{path.name}")
        shown.write_bytes(data)
        return shown

    def show_by_stream(self, path: Path, *, turns: int, flip: bool) -> Path:
        """A copy whose keyframes bring a display orientation message (ITU-T H.264, D.1.27).

        turns: by 90 degrees counter-clockwise, after the flip from left to right.
        """
        bits = f"0{int(flip)}0{turns << 14:016b}0100" + "1"
        body = bytes(int(bits[i : i + 8], 2) for i in (0, 8, 16))
        message = b"\x06\x2f\x03" + body.replace(b"\0\0", b"\0\0\3") + b"\x80"
        shown = path.with_name(f"stream_{path.name}")
        with av.open(str(path)) as clip, av.open(str(shown), "w") as output:
            stream = output.add_stream_from_template(clip.streams.video[0])
            for packet in [p for p in clip.demux(clip.streams.video[0]) if p.size]:
                data = bytes(packet)
                if packet.is_keyframe:
                    data = len(message).to_bytes(4, "big") + message + data
                copy = av.Packet(data)
                copy.stream, copy.time_base, copy.is_keyframe = stream, packet.time_base, packet.is_keyframe
                copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
                output.mux(copy)
        return shown


@pytest.fixture
def clips(tmp_path: Path) -> Clips:
    return Clips(tmp_path)


@pytest.fixture(scope="session")
def reader() -> Iterator[Reader]:
    with Reader(threads=1) as shared:
        yield shared
