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

    def rotate(self, path: Path, clockwise: int) -> Path:
        """A copy whose track header (ISO 14496-12, 8.3.2) asks to be shown turned by `clockwise` degrees."""
        cos, sin = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[clockwise]
        one = 1 << 16
        data = bytearray(path.read_bytes())
        matrix = data.index(b"tkhd") + 4 + 40
        data[matrix : matrix + 36] = struct.pack(
            ">9i", cos * one, sin * one, 0, -sin * one, cos * one, 0, 0, 0, 1 << 30
        )
        turned = path.with_name(f"turned_{clockwise}_{path.name}")
        turned.write_bytes(data)
        return turned


@pytest.fixture
def clips(tmp_path: Path) -> Clips:
    return Clips(tmp_path)


@pytest.fixture(scope="session")
def reader() -> Iterator[Reader]:
    with Reader(threads=1) as shared:
        yield shared
