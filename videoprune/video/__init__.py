"""Video files in, upright RGB frames with their true times out."""

from __future__ import annotations

from videoprune.video.errors import VideoError, VideoReason
from videoprune.video.read import Backend, Reader, read, try_read
from videoprune.video.sample import Policy, Sampling, frame_indices

__all__ = [
    "Backend",
    "Policy",
    "Reader",
    "Sampling",
    "VideoError",
    "VideoReason",
    "frame_indices",
    "read",
    "try_read",
]
