"""What a file's header says of its video stream, without decoding it."""

from __future__ import annotations

import av

from videoprune.video.errors import VideoError


def stream_header(path: str) -> tuple[int, float]:
    """Number of frames and average frames per second of the first video stream.

    Where the header counts no frames, duration times rate stands in, rounded. These are the two numbers from
    which tools that count frames work out times. Raises VideoError where the header has neither.
    """
    try:
        with av.open(path) as container:
            stream = container.streams.video[0]
            rate = float(stream.average_rate or stream.base_rate or 0)
            seconds = (
                float(stream.duration * stream.time_base) if stream.duration and stream.time_base else None
            )
            if seconds is None and container.duration:
                seconds = container.duration / av.time_base
            frames = stream.frames or round((seconds or 0.0) * rate)
    except (av.FFmpegError, IndexError, OSError) as error:
        raise VideoError("corrupt", f"{path}: {error}") from error
    if frames < 1 or rate <= 0:
        raise VideoError("corrupt", f"{path}: its header names {frames} frames at {rate:g} per second")
    return frames, rate
