"""Live frames: a browser's camera, cameras and streams of the network, cameras of this machine, files in real time.

The newest frame wins: whoever is slow misses frames, never falls behind.
"""

from __future__ import annotations

from videoprune.video.live.frame import LiveFrame, LiveSource, SourceStats
from videoprune.video.live.jpeg import JpegError
from videoprune.video.live.pushed import PushedFrames
from videoprune.video.live.source import FetchedFrames, open_live

__all__ = [
    "FetchedFrames",
    "JpegError",
    "LiveFrame",
    "LiveSource",
    "PushedFrames",
    "SourceStats",
    "open_live",
]
