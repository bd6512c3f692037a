"""What all requests share."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.stream.desk import Desk
from pipelines.stream.fetching import Fetcher
from pipelines.stream.guard import Guard
from pipelines.stream.health import Health
from pipelines.stream.limits import Limits
from pipelines.stream.media import MediaDesk
from pipelines.stream.metrics import Metrics
from pipelines.stream.streams import Streams
from videoprune.engine import Engine
from videoprune.stream import StreamConfig


@dataclass
class Service:
    """model: its name for clients. viewers: WebSockets that are open."""

    engine: Engine
    model: str
    limits: Limits
    streams: Streams
    desk: Desk
    media: MediaDesk
    metrics: Metrics
    health: Health
    guard: Guard | None = None
    viewers: int = 0
    started: int = field(default_factory=lambda: int(time.time()))

    def close(self) -> None:
        """End streams, questions and processes."""
        self.streams.close_all()
        self.desk.close()
        self.media.close()


def make_service(
    engine: Engine,
    model: str,
    limits: Limits,
    config: StreamConfig,
    *,
    fps: float = 2.0,
    files: Path | None = None,
    network: bool = False,
    private: bool = False,
) -> Service:
    """files: folder below which requests may read. network: whether they may open cameras and streams of the network.
    private: whether a video_url may lead to private addresses."""
    metrics = Metrics(lambda: streams.all(), lambda: desk.waiting)
    desk = Desk(limits, metrics.asked)
    streams = Streams(engine, config, limits, fps=fps, files=files, network=network, asked=metrics.standing)
    return Service(
        engine=engine,
        model=model,
        limits=limits,
        streams=streams,
        desk=desk,
        media=MediaDesk(engine, limits, Fetcher(limits, private=private), files),
        metrics=metrics,
        health=Health(engine),
    )
