"""All eight orientations, from every backend, against numpy's flips and turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import av
import numpy as np
import pytest

from videoprune.video import Backend, Reader, VideoError
from videoprune.video.orientation import _TURNS, Orientation, orientation

ACROSS = (1, 2)  # rows and columns of (T, H, W, 3); numpy turns counter-clockwise
# (a, b, c, d) of the display matrix, what it does, and whether it mirrors.
EIGHT: dict[str, tuple[tuple[int, int, int, int], Callable[[np.ndarray], np.ndarray], bool]] = {
    "as it is": ((1, 0, 0, 1), lambda x: x, False),
    "clockwise": ((0, 1, -1, 0), lambda x: np.rot90(x, -1, ACROSS), False),
    "half": ((-1, 0, 0, -1), lambda x: np.rot90(x, 2, ACROSS), False),
    "counter-clockwise": ((0, -1, 1, 0), lambda x: np.rot90(x, 1, ACROSS), False),
    "left-right": ((-1, 0, 0, 1), lambda x: np.flip(x, 2), True),
    "upside-down": ((1, 0, 0, -1), lambda x: np.flip(x, 1), True),
    "transposed": ((0, 1, 1, 0), lambda x: np.swapaxes(x, 1, 2), True),
    "transposed, half": ((0, -1, -1, 0), lambda x: np.rot90(np.swapaxes(x, 1, 2), 2, ACROSS), True),
}


def _same(first: np.ndarray, second: np.ndarray) -> bool:
    return first.shape == second.shape and bool(np.abs(first.astype(int) - second).mean() < 1)


@pytest.mark.parametrize("backend", get_args(Backend))
@pytest.mark.parametrize("name", EIGHT)
def test_every_display_matrix_comes_out_upright(clips, reader: Reader, name: str, backend: Backend) -> None:
    matrix, shown, mirrors = EIGHT[name]
    path = clips.write("clip.mp4", frames=30)
    plain = reader.read(path, backend="pyav").pixels.numpy()
    copy = clips.show_by(path, matrix)
    if mirrors and backend == "decord":
        with pytest.raises(
            VideoError, match=r"the display matrix mirrors, .*allowed: backend='auto' or 'pyav'"
        ):
            reader.read(copy, backend=backend)
        return
    native = reader.read(copy, backend=backend)
    assert _same(native.pixels.numpy(), shown(plain))
    assert sum(_same(native.pixels.numpy(), other(plain)) for _, other, _ in EIGHT.values()) == 1
    assert native.backend == ("pyav" if mirrors or backend == "pyav" else "decord")
    assert ("mirrors" in native.fallback_reason) == (mirrors and backend == "auto")
    # The size asked for is that of the upright picture, whose axes the transpose exchanges.
    small = reader.read(copy, size=(60, 40), backend=backend).pixels.numpy()
    turned = shown(np.zeros((1, 2, 3, 3))).shape[1:3] == (3, 2)
    before = reader.read(path, size=(40, 60) if turned else (60, 40), backend="pyav").pixels.numpy()
    assert small.shape == (8, 60, 40, 3)
    assert np.abs(small.astype(int) - shown(before)).mean() < 4  # the backends scale a little differently


@pytest.mark.parametrize("backend", ["auto", "pyav"])
@pytest.mark.parametrize(("turns", "flip"), [(1, False), (2, False), (0, True), (3, True)])
def test_an_orientation_in_the_stream_counts_for_all_frames(
    clips, reader: Reader, turns: int, flip: bool, backend: Backend
) -> None:
    path = clips.write("clip.mp4", frames=30)
    plain = reader.read(path, backend="pyav").pixels.numpy()
    shown = reader.read(clips.show_by_stream(path, turns=turns, flip=flip), backend=backend)
    assert _same(shown.pixels.numpy(), np.rot90(plain[:, :, ::-1] if flip else plain, turns, ACROSS))
    assert shown.backend == "pyav"
    assert ("display matrix" in shown.fallback_reason) == (backend == "auto")


@pytest.mark.parametrize("backend", ["auto", "pyav"])
def test_a_matrix_that_is_off_by_a_hair_turns_and_a_slant_does_not(
    clips, reader: Reader, backend: Backend
) -> None:
    path = clips.write("clip.mp4", frames=30)
    plain = reader.read(path, backend="pyav").pixels.numpy()
    hair = reader.read(clips.show_by(path, (1e-4, 1, -1, 1e-4)), backend=backend)
    assert _same(hair.pixels.numpy(), np.rot90(plain, -1, ACROSS))
    slant = reader.read(clips.show_by(path, (0.87, 0.5, -0.5, 0.87)), backend=backend)
    assert _same(slant.pixels.numpy(), plain)


def test_scaled_and_empty_matrices() -> None:
    assert orientation([0, 2, 0, -3, 0, 0, 0, 0, 1]) == Orientation(transposed=True, flip_columns=True)
    assert orientation([0] * 9) == Orientation()
    assert orientation([1, 0, 0, 0, 0, 0, 0, 0, 1]) == Orientation()


def test_side_data_without_a_name_in_pyav_does_not_fail_the_file(clips, reader: Reader) -> None:
    """FFmpeg 8 attaches EXIF to frames, which PyAV 18 has no name for."""
    path, tiff = clips.folder / "exif.mkv", b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    plain = clips.write("plain.mkv", codec="mjpeg", pixel_format="yuvj420p", frames=10)
    with av.open(str(plain)) as clip, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(clip.streams.video[0])
        for packet in [p for p in clip.demux(clip.streams.video[0]) if p.size]:
            data = bytes(packet)
            exif = b"\xff\xe1" + (len(tiff) + 8).to_bytes(2, "big") + b"Exif\0\0" + tiff
            copy = av.Packet(data[:2] + exif + data[2:])
            copy.stream, copy.time_base, copy.is_keyframe = stream, packet.time_base, True
            copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
            output.mux(copy)
    shown = reader.read(path)
    assert _same(shown.pixels.numpy(), np.rot90(reader.read(plain).pixels.numpy(), -1, ACROSS))
    assert shown.outcome.kind == "complete"


def test_turns_that_pyav_tells_are_those_of_the_matrices() -> None:
    for quarter, matrix in ((1, (0, -1, 1, 0)), (2, (-1, 0, 0, -1)), (3, (0, 1, -1, 0))):
        a, b, c, d = matrix
        assert _TURNS[quarter] == orientation([a, b, 0, c, d, 0, 0, 0, 1])
