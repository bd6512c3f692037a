"""Pictures and videos of a request as one clip: looked at before they are decoded, in memory alone.

Shapes: T frames, H x W pixels.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from PIL import Image, ImageOps

from pipelines.stream.chat_request import Medium
from pipelines.stream.limits import Limits
from pipelines.stream.refused import Refused
from pipelines.stream.streams import allowed_file
from videoprune.engine import Engine
from videoprune.resizing import resized
from videoprune.types import VideoFrames
from videoprune.video import Reader, Sampling, VideoError

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
_DATA = re.compile(r"data:([\w.+-]+/[\w.+-]+)?(;[\w.+=-]+)*;base64,", re.ASCII)
# Containers that hold their video themselves. Playlists, which name other files, are none.
_VIDEO = re.compile(
    rb"(?s)....(ftyp|moov|mdat|wide|free|skip)|\x1aE\xdf\xa3|RIFF....AVI |OggS|FLV|\x00\x00\x01\xba|G"
)
_PICTURE_SECONDS = 1.0  # that a picture stands for in a clip
_SIDE = 1024  # of a frame, where the model has no size of its own

Fetch = Callable[[str, IO[bytes]], None]


class MediaDesk:
    """fetch: writes what an http(s) address gives into a file. files: folder that file:// may read. Thread-safe."""

    def __init__(self, engine: Engine, limits: Limits, fetch: Fetch, files: Path | None = None) -> None:
        self._engine, self._limits, self._fetch = engine, limits, fetch
        self._files = None if files is None else files.resolve(strict=True)
        self._reader = Reader(threads=1)

    def close(self) -> None:
        self._reader.close()

    def clip(self, media: Sequence[Medium]) -> VideoFrames:
        """All of them one after the other; a picture stands for a second. Raises Refused."""
        videos = sum(m.kind == "video" for m in media)
        frames = max(1, (self._engine.num_frames - (len(media) - videos)) // max(1, videos))
        pixels: list[torch.Tensor] = []
        times: list[float] = []
        begin, size = 0.0, self._engine.frame_size
        for i, medium in enumerate(media):
            where = f"{medium.kind}_url {i + 1}"
            seconds: tuple[float, ...] = (0.0,)
            if medium.kind == "image":
                part, length = self._picture(medium.url, where), _PICTURE_SECONDS
            else:
                video = self._video(medium.url, where, frames)
                part, length = video.pixels, max(video.duration_seconds, 1e-3)
                seconds = tuple(t - video.pts_seconds[0] for t in video.pts_seconds)
            # Each at once: full-sized ones of many would fill the memory.
            size = size or _fitted(part.shape[1], part.shape[2])
            pixels += [resized(frame, size) for frame in part.split(1)]
            times += [begin + t for t in seconds]
            begin = max(begin + length, times[-1] + 1e-3)
        return VideoFrames(torch.cat(pixels), tuple(times), begin, "", "request")

    def _picture(self, url: str, where: str) -> torch.Tensor:
        """uint8 (1, H, W, 3)."""
        with self._bytes(url, where) as file:
            try:
                picture = Image.open(file, formats=_FORMATS)
                if picture.width * picture.height > self._limits.pixels:
                    raise Refused(
                        400,
                        f"{where}: {picture.height} x {picture.width} pixels; allowed: {self._limits.pixels} in all",
                        code="too_many_pixels",
                    )
                upright = ImageOps.exif_transpose(picture).convert("RGB")
            except Refused:
                raise
            except Image.DecompressionBombError:
                raise Refused(
                    400,
                    f"{where}: too many pixels; allowed: {self._limits.pixels} in all",
                    code="too_many_pixels",
                ) from None
            except Exception:  # what strange bytes make a library raise is that picture's failure alone
                raise Refused(
                    400, f"{where}: no whole picture; allowed: {', '.join(_FORMATS)}", code="invalid_image"
                ) from None
        return torch.from_numpy(np.array(upright))[None]

    def _video(self, url: str, where: str, frames: int) -> VideoFrames:
        with self._bytes(url, where) as file:
            if not _VIDEO.match(file.read(12)):
                raise Refused(
                    400,
                    f"{where}: no video; allowed: MP4, MOV, Matroska, WebM, AVI, Ogg, FLV, MPEG-TS and -PS",
                    code="invalid_video",
                )
            path = f"/proc/{os.getpid()}/fd/{file.fileno()}"
            try:
                return self._reader.read(
                    path,
                    Sampling(max_frames=frames),
                    size=self._engine.frame_size,
                    deadline_seconds=self._limits.decode_seconds,
                    max_pixels=self._limits.pixels,
                )
            except VideoError as error:
                said = str(error).replace(path, where).removeprefix(f"{where}: ")
                raise Refused(400, f"{where}: {said}", code="invalid_video") from None

    @contextmanager
    def _bytes(self, url: str, where: str) -> Any:
        """An open file of what the URL holds; nothing of a request is written to disk."""
        scheme = url.partition(":")[0].lower()
        if scheme == "file":
            with open(allowed_file(url, self._files), "rb") as file:
                yield file
            return
        with open(os.memfd_create("videoprune"), "w+b") as file:
            if scheme == "data":
                file.write(_decoded(url, where))
            elif scheme in ("http", "https"):
                self._fetch(url, file)
            else:
                raise Refused(
                    400,
                    f"{where}: the scheme {scheme[:20]!r} is not read; allowed: data:, http:, https:, and file: below "
                    "--allow-files",
                    code="invalid_url",
                )
            file.seek(0)
            yield file


def _decoded(url: str, where: str) -> bytes:
    head = _DATA.match(url)
    try:
        data = base64.b64decode(url[head.end() :], validate=True) if head else b""
    except (binascii.Error, ValueError):
        data = b""
    if not data:
        raise Refused(
            400, f"{where}: no data URI in base64; allowed: data:image/jpeg;base64,...", code="invalid_url"
        )
    return data


def _fitted(height: int, width: int) -> tuple[int, int]:
    """As large as frames become for a model that takes any size."""
    scale = min(1.0, _SIDE / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))
