"""How a picture is to be turned and mirrored before it is shown: the display matrix of a frame.

Shapes: H x W pixels as coded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from av.error import FFmpegError
from av.packet import Packet
from av.sidedata.sidedata import SideData
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from numpy.typing import NDArray

# Matrices are stored in 16.16 fixed point, so a right angle may be a hair off. Farther off than this (the sine of
# one degree), the picture is left as coded: no turn by a right angle would make it upright.
_SLANT = 0.0175
# A decoder may hold its first picture back for as long as it may reorder (H.264, A.4.2: 16 pictures).
_MOST_PACKETS = 48


@dataclass(frozen=True)
class Orientation:
    """transposed: rows and columns change places, first of all. flip_rows, flip_columns: then run backwards.

    The three make eight orientations: four turns, and the same four mirrored. exact: the matrix has no slant.
    in_stream: the pictures bring the matrix themselves (H.264 and H.265 can), not the file's header.
    """

    transposed: bool = False
    flip_rows: bool = False
    flip_columns: bool = False
    exact: bool = True
    in_stream: bool = False

    @property
    def mirrored(self) -> bool:
        """No turn alone makes the picture upright."""
        return self.transposed ^ self.flip_rows ^ self.flip_columns

    def upright(self, picture: NDArray[Any]) -> NDArray[Any]:
        """The coded picture (H, W, 3) as it is to be seen, (W, H, 3) where `transposed`. A view."""
        if self.transposed:
            picture = picture.swapaxes(0, 1)
        return picture[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]


def orientation(matrix: Sequence[int]) -> Orientation:
    """Of a display matrix in the order of ISO 14496-12, 8.3.2: a, b, u, c, d, v, x, y, w.

    The coded pixel (x right, y down) is shown at (a x + c y, b x + d y), but for a shift. A matrix that slants, or
    is nothing at all, leaves the picture as coded.
    """
    a, b, _, c, d = (float(n) for n in matrix[:5])
    straight, crossed = sorted((abs(a), abs(d))), sorted((abs(b), abs(c)))
    if straight[0] * _SLANT > crossed[1]:
        return Orientation(False, d < 0, a < 0, exact=crossed[1] == 0)
    if crossed[0] * _SLANT > straight[1]:
        return Orientation(True, b < 0, c < 0, exact=straight[1] == 0)
    return Orientation()


def frame_orientation(frame: VideoFrame) -> Orientation:
    """Of a decoded frame: from the file's header or from the stream itself, whichever FFmpeg takes.

    Where the frame also carries something that PyAV has no name for (EXIF, in FFmpeg 8), PyAV tells of turns alone.
    """
    try:
        data = cast(SideData | None, frame.side_data.get("DISPLAYMATRIX"))
    except ValueError:
        return _TURNS.get(round(frame.rotation / 90) % 4, Orientation())
    return Orientation() if data is None else orientation(np.frombuffer(bytes(data), dtype=np.int32).tolist())


# By quarter turns counter-clockwise.
_TURNS = {
    1: Orientation(transposed=True, flip_rows=True),
    2: Orientation(flip_rows=True, flip_columns=True),
    3: Orientation(transposed=True, flip_columns=True),
}


class FirstFrame:
    """Decodes the first packets of a stream until a frame comes out: nothing cheaper has the display matrix.

    orientation: None as long as no frame came out.
    """

    def __init__(self, codec: VideoCodecContext) -> None:
        self.orientation: Orientation | None = None
        self._codec = codec
        self._codec.thread_count = 1  # frame threads would hold the first frame back
        self._packets: list[Packet | None] = []

    def look(self, packet: Packet | None) -> None:
        """Take one more packet, or None after the last."""
        if self.orientation is not None or len(self._packets) == _MOST_PACKETS:
            return
        self._packets.append(packet)
        frame = _first(self._codec, [packet])
        if frame is None:
            return
        self.orientation = frame_orientation(frame)
        if self.orientation != Orientation():
            self.orientation = replace(self.orientation, in_stream=self._in_stream())
        self._packets.clear()

    def _in_stream(self) -> bool:
        """A decoder that never saw the file's header finds a matrix all the same."""
        blind = VideoCodecContext.create(self._codec.name, "r")
        assert isinstance(blind, VideoCodecContext)
        blind.extradata, blind.thread_count = self._codec.extradata, 1
        frame = _first(blind, [*self._packets, None])
        return frame is not None and frame_orientation(frame) != Orientation()


def _first(codec: VideoCodecContext, packets: Iterable[Packet | None]) -> VideoFrame | None:
    for packet in packets:
        try:
            frames = codec.decode(packet)
        except FFmpegError:
            continue  # a recording may start between keyframes, or be broken there
        if frames:
            return frames[0]
    return None
