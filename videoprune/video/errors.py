"""What can be wrong with a video file: one error, one short reason, one sentence that names the path."""

from __future__ import annotations

from typing import Literal

VideoReason = Literal[
    "url",
    "missing",
    "empty",
    "audio_only",
    "no_decoder",
    "corrupt",
    "not_a_video",
    "deadline",
    "forbidden",
    "too_large",
    "unreachable",
    "refused",
    "changed",
    "no_room",
]


class VideoError(ValueError):
    """A video gave no frame.

    reason: `url` (an address, not a file), `missing` (no such file, or not readable), `empty` (0 bytes),
    `not_a_video` (no container or picture that a demuxer knows), `audio_only`, `no_decoder` (no decoder for the
    stream, or the wanted backend cannot read it), `corrupt` (a container without one intact frame or without
    presentation times), `deadline` (decoding did not end in time and was killed), `too_large` (its frames have more
    pixels than allowed).

    Of a remote video also: `forbidden` (no permission), `too_large` (than is allowed to be fetched), `unreachable` (not
    there after some tries), `refused` (a request that its store does not take), `changed` (since it was listed),
    `no_room` (where fetched videos are kept).
    """

    def __init__(self, reason: VideoReason, message: str) -> None:
        super().__init__(message)
        self.reason: VideoReason = reason

    def __reduce__(self) -> tuple[type[VideoError], tuple[VideoReason, str]]:
        return type(self), (self.reason, str(self))  # survives the way between processes
