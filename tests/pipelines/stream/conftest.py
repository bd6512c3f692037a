"""A server on a loopback port around the small demo model, and clips for it to look at."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("fastapi")
from PIL import Image

from pipelines.stream.limits import Limits
from pipelines.stream.server import Address, make_server
from pipelines.stream.service import Service, make_service
from videoprune import Engine
from videoprune.eval.benchmarks.moving_shapes.make import clip_frames, write_clip
from videoprune.eval.benchmarks.moving_shapes.plan import ClipPlan, plan_clip
from videoprune.stream import StreamConfig

pytestmark = pytest.mark.filterwarnings("ignore:llm.lambda_")
DEADLINE = 60.0


@pytest.fixture(scope="session")
def engine() -> Engine:
    return Engine("llava-demo", "balanced", device="cpu")


@pytest.fixture(scope="session")
def plan() -> ClipPlan:
    """One white diamond that moves to the right: a clip of 4 seconds."""
    return plan_clip(0, 5)


@pytest.fixture(scope="session")
def frames(plan: ClipPlan) -> NDArray[np.uint8]:
    """uint8 (8, 224, 224, 3), two a second."""
    return np.concatenate(list(clip_frames(plan.scene, 224, 2)))


@pytest.fixture(scope="session")
def video(plan: ClipPlan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("videos") / "diamond.mp4"
    write_clip(plan.scene, path, size=224, fps=4)
    return path


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=92)
    return out.getvalue()


def data_uri(data: bytes, kind: str = "image/jpeg") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def until(true: Callable[[], Any], what: str = "") -> Any:
    """What `true` gives once it gives something."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        if found := true():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {DEADLINE} s: {what}")


@dataclass
class Running:
    service: Service
    port: int
    open_connections: Callable[[], set[Any]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def running(
    engine: Engine, limits: Limits | None = None, address: Address | None = None, **options: Any
) -> Iterator[Running]:
    """A real server; all it holds is gone afterwards."""
    service = make_service(engine, "llava-demo", limits or Limits(), StreamConfig(), **options)
    server = make_server(service, address or Address(port=0))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        until(lambda: server.started, "the server starts")
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Running(service, port, lambda: server.server_state.connections)
    finally:
        server.should_exit = True
        thread.join(DEADLINE)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def server(engine: Engine, video: Path) -> Iterator[Running]:
    with running(engine, files=video.parent, network=True) as server:
        yield server
