"""How a photograph's EXIF tag says it was held."""

from __future__ import annotations

from videoprune.video.orientation import Orientation

_MARK = b"Exif\0\0"
_ORIENTATION_TAG, _SHORT = 0x0112, 3
# By the tag's value (CIPA DC-008, 4.6.5): where row 0 and column 0 of the coded picture are to be seen.
_TURNS = {
    1: Orientation(),
    2: Orientation(flip_columns=True),
    3: Orientation(flip_rows=True, flip_columns=True),
    4: Orientation(flip_rows=True),
    5: Orientation(transposed=True),
    6: Orientation(transposed=True, flip_columns=True),
    7: Orientation(transposed=True, flip_rows=True, flip_columns=True),
    8: Orientation(transposed=True, flip_rows=True),
}


def exif_orientation(segment: bytes) -> Orientation | None:
    """Of the body of an APP1 segment; None where it has no such tag, or none that makes sense."""
    if not segment.startswith(_MARK):
        return None
    tiff = segment[len(_MARK) :]
    little = tiff.startswith(b"II*\0")
    if not (little or tiff.startswith(b"MM\0*")):
        return None

    def number(place: int, size: int) -> int:
        return int.from_bytes(tiff[place : place + size], "little" if little else "big")

    first = number(4, 4)
    for n in range(number(first, 2)):
        entry = first + 2 + 12 * n
        if entry + 12 > len(tiff):
            return None
        if number(entry, 2) == _ORIENTATION_TAG and number(entry + 2, 2) == _SHORT:
            return _TURNS.get(number(entry + 8, 2))
    return None
