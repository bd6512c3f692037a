"""Which frames of a running stream lean on nothing broken.

place: of a packet, counted from 0 in the order of arrival.
"""

from __future__ import annotations

from av.packet import Packet
from av.video.frame import VideoFrame

# Of packets whose frames may still come out of the decoder: 16 for reordering (H.264, A.4.2), and threads.
_REMEMBERED = 64
# Streams with gradual refresh have no keyframes after the first, and heal by themselves.
_HEALED = 300


class Intact:
    """Told of every packet and every error, it says of every frame whether it is as the camera saw it.

    Nothing is before the first keyframe. A broken packet spoils all that follow in the stream up to the next
    keyframe, as in `pyav_reader`.
    """

    def __init__(self) -> None:
        self._place = -1
        self._places: dict[int, int] = {}  # of packets by PTS
        self._broken: int | None = 0
        self._key: tuple[int, int | None] | None = None  # place and PTS of the keyframe that ends the damage

    def packet(self, packet: Packet) -> None:
        """The next packet goes into the decoder."""
        self._place += 1
        if packet.pts is not None:
            self._places[packet.pts] = self._place
            if len(self._places) > _REMEMBERED:
                del self._places[next(iter(self._places))]
        if self._broken is None:
            return
        if packet.is_keyframe and self._key is None:
            self._key = (self._place, packet.pts)
        if self._place - self._broken > _HEALED:
            self._broken = self._key = None

    def error(self) -> None:
        """The last packet did not decode."""
        self._damage(self._place)

    def holds(self, frame: VideoFrame) -> bool:
        """Whether this frame, which came out of the decoder, is intact."""
        place = self._place if frame.pts is None else self._places.get(frame.pts, self._place)
        if frame.is_corrupt:
            self._damage(place)
            return False
        if self._broken is None or place < self._broken:
            return True
        if self._key is None or place < self._key[0]:
            return False
        if frame.pts is not None and self._key[1] is not None and frame.pts < self._key[1]:
            return False  # a picture that leads an open group leans on frames before the keyframe
        self._broken = self._key = None
        return True

    def _damage(self, place: int) -> None:
        self._broken = place if self._broken is None else min(place, self._broken)
        if self._key is not None and place >= self._key[0]:
            self._key = None
