"""JPEGs from strangers: whole ones are decoded, all others refused before anything is allocated for them."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.video.live.pictures import as_jpeg, grey
from videoprune.video.live import jpeg as jpeg_module
from videoprune.video.live.fit import Fit
from videoprune.video.live.jpeg import JpegDecoder, JpegError, read_header

LIMITS = {"max_bytes": 1 << 20, "max_pixels": 1 << 20}


def _scene(height: int = 48, width: int = 80) -> np.ndarray:
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    picture[: height // 2, : width // 2] = (230, 40, 40)
    picture[height // 2 :, width // 2 :] = (40, 40, 230)
    return picture


def _near(first: np.ndarray, second: np.ndarray) -> bool:
    return first.shape == second.shape and bool(np.abs(first.astype(int) - second).mean() < 3)


def _decode(data: bytes, fit: Fit = Fit()) -> np.ndarray:  # noqa: B008 (frozen)
    return JpegDecoder(fit, **LIMITS).decode(data)


SMALL = as_jpeg(_scene())


def test_a_picture_comes_back() -> None:
    header = read_header(SMALL, **LIMITS)
    assert (header.height, header.width) == (48, 80)
    assert _near(_decode(SMALL), _scene())


@pytest.mark.parametrize(
    ("fit", "shape"),
    [(Fit(768), (48, 80)), (Fit(40), (24, 40)), (Fit(1), (1, 1)), (Fit(40, (30, 20)), (30, 20))],
)
def test_pictures_are_made_smaller_and_never_larger(fit: Fit, shape: tuple[int, int]) -> None:
    assert _decode(SMALL, fit).shape == (*shape, 3)


def _pillow(mode: str = "RGB", *, turn: int = 0, **options: object) -> bytes:
    image_module = pytest.importorskip("PIL.Image")
    image = image_module.fromarray(_scene()).convert(mode)
    if turn:
        exif = image_module.Exif()
        exif[0x0112] = turn
        options["exif"] = exif
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **{"quality": 90, **options})
    return buffer.getvalue()


@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"subsampling": 0}, {"optimize": True}, {"comment": b"\xff\xd9\xff\xda"}],
)
def test_another_encoders_pictures_decode_as_with_pillow(options: dict) -> None:
    data = _pillow(**options)
    other = np.asarray(pytest.importorskip("PIL.Image").open(io.BytesIO(data)).convert("RGB"))
    assert _near(_decode(data), other)


def test_grey_is_made_rgb() -> None:
    data = _pillow("L")
    other = np.asarray(pytest.importorskip("PIL.Image").open(io.BytesIO(data)).convert("RGB"))
    assert _near(_decode(data), other)


@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_orientations_are_applied(turn: int) -> None:
    image_module = pytest.importorskip("PIL.Image")
    ops = pytest.importorskip("PIL.ImageOps")
    data = _pillow(turn=turn)
    upright = np.asarray(ops.exif_transpose(image_module.open(io.BytesIO(data))).convert("RGB"))
    assert _near(_decode(data), upright)
    assert max(_decode(data, Fit(40)).shape) == 40


@pytest.mark.parametrize("make", [lambda: SMALL, lambda: _pillow(progressive=True)])
def test_every_cut_is_refused(make: Callable[[], bytes]) -> None:
    data = make()
    for end in range(len(data)):
        with pytest.raises(JpegError, match="allowed: "):
            read_header(data[:end], **LIMITS)


def test_a_cut_with_an_end_put_behind_it_gives_no_picture() -> None:
    data = as_jpeg(np.random.default_rng(0).integers(0, 256, (96, 160, 3), dtype=np.uint8))
    scan = data.rindex(b"\xff\xda")
    for end in range(scan + 14, len(data) - 200, 97):
        with pytest.raises(JpegError):
            _decode(data[:end].rstrip(b"\xff") + b"\xff\xd9")


def _header(data: bytes) -> int:
    """Where the frame header's marker is."""
    return data.index(b"\xff\xc0")


def _sized(height: int, width: int) -> bytes:
    at = _header(SMALL) + 5
    return SMALL[:at] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + SMALL[at + 4 :]


def _second_header(height: int, width: int) -> bytes:
    big = _sized(height, width)
    start = _header(big)
    segment = big[start : start + 2 + int.from_bytes(big[start + 2 : start + 4], "big")]
    end = start + len(segment)
    return SMALL[:end] + segment + SMALL[end:]


def _scans(count: int) -> bytes:
    start = SMALL.rindex(b"\xff\xda")
    return SMALL[:start] + SMALL[start:-2] * count + b"\xff\xd9"


def _changed(offset: int, value: int) -> bytes:
    at = _header(SMALL) + offset
    return SMALL[:at] + bytes([value]) + SMALL[at + 1 :]


HOSTILE: dict[str, bytes] = {
    "nothing": b"",
    "text": b"hello",
    "png": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "start alone": b"\xff\xd8",
    "start and end": b"\xff\xd8\xff\xd9",
    "4 gigapixels": _sized(65535, 65535),
    "over the limit by a row": _sized(1025, 1024),
    "no rows": _sized(0, 80),
    "no columns": _sized(48, 0),
    "a second, huge header": _second_header(65535, 65535),
    "a thousand scans": _scans(1000),
    "two pictures": SMALL[:-2] + SMALL,
    "zeros for ever": b"\xff\xd8" + bytes(100_000),
    "0xFF for ever": b"\xff\xd8" + b"\xff" * 100_000,
    "a segment without length": b"\xff\xd8\xff\xe0\0\0" + SMALL[2:],
    "a segment past the end": b"\xff\xd8\xff\xe0\xff\xff" + SMALL[2:],
    "lossless": _changed(1, 0xC3),
    "arithmetic": _changed(1, 0xC9),
    "12 bits": _changed(4, 12),
    "four colours": _changed(9, 4),
    "too many bytes": SMALL[:-2] + b"\xff\xfe\xff\xff" + bytes(65533) * 20 + b"\xff\xd9",
    "no header before the scan": SMALL[: _header(SMALL)] + SMALL[SMALL.rindex(b"\xff\xda") :],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pictures_are_refused_before_a_decoder_sees_them(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoDecoder:
        def create(self, *_: object) -> None:
            raise AssertionError("decoded")

    monkeypatch.setattr(jpeg_module, "VideoCodecContext", NoDecoder())
    with pytest.raises(JpegError, match=r"^picture: .*allowed: "):
        _decode(HOSTILE[name])


def test_should_the_walk_ever_miss_a_size_the_decoder_has_the_limit_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = read_header(as_jpeg(grey(1, 256, 256)), **LIMITS)
    monkeypatch.setattr(jpeg_module, "read_header", lambda *_, **__: replace(found, height=255))
    with pytest.raises(JpegError, match="broken"):
        _decode(SMALL)
    monkeypatch.setattr(jpeg_module, "read_header", lambda *_, **__: found)
    assert _decode(SMALL).shape == (256, 256, 3)


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(2, len(SMALL) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_a_changed_picture_is_a_picture_or_refused(changes: list[tuple[int, int]]) -> None:
    data = bytearray(SMALL)
    for place, value in changes:
        data[place] = value
    try:
        pixels = _decode(bytes(data))
    except JpegError:
        return
    assert pixels.dtype == np.uint8
    assert pixels.size <= 3 * LIMITS["max_pixels"]


@given(
    st.binary(max_size=80), st.sampled_from([b"", b"Exif\0\0", b"Exif\0\0II*\0\x08\0\0\0", b"Exif\0\0MM\0*"])
)
def test_any_exif_segment_leaves_the_picture_as_it_is_or_turns_it(data: bytes, start: bytes) -> None:
    body = start + data
    picture = SMALL[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + SMALL[2:]
    assert sorted(_decode(picture).shape) == [3, 48, 80]


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_in_a_sentence(data: bytes) -> None:
    with pytest.raises(JpegError, match="allowed: "):
        _decode(b"\xff\xd8" + data)


def test_a_decoder_forgets_a_broken_picture() -> None:
    decoder = JpegDecoder(Fit(), **LIMITS)
    expected = decoder.decode(as_jpeg(grey(77)))
    with pytest.raises(JpegError):
        decoder.decode(HOSTILE["a thousand scans"])
    with pytest.raises(JpegError):
        decoder.decode(SMALL[:-1])
    assert np.array_equal(decoder.decode(as_jpeg(grey(77))), expected)
