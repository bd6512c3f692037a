"""Many viewers of a few streams: whether the server answers all, and how long they wait.

PYTHONPATH=. python scripts/bench_viewers.py --streams 4 --viewers 20 --seconds 120 --out runs/viewers.json

Starts `videoprune serve` in a process of its own. Cameras send a MovingShapes stream each, as a browser does: JPEG over
WebSockets. Viewers watch with pictures and ask, each again some seconds after its answer. Half way the cameras' and
half of the viewers' connections are cut, and come back. Prints errors, frames dropped, and from the question to the
first words: median, 95 % and worst, also of those who asked while others waited.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from videoprune.eval.benchmarks.moving_stream.draw import stream_frames
from videoprune.eval.benchmarks.moving_stream.scene import sample_stream

ASKED = (
    ("What color is the circle?", ("red", "green", "blue", "white")),
    ("Where is the red square?", ("top left", "bottom right", "top right", "not shown")),
    ("Which of these objects is shown?", ("red circle", "blue star", "green cross", "white diamond")),
)
SIDE = 224  # pixels of a camera's pictures
LONGEST = 180.0  # seconds that an answer may take


@dataclass
class Seen:
    """What went on. first: seconds from a question to its first words. errors: what the server said."""

    first: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    asked: int = 0
    pictures: int = 0
    connections: int = 0


Sockets = set[ClientConnection]  # those that are open now


async def staying(
    url: str, end: float, seen: Seen, open_: Sockets, does: Callable[[ClientConnection], Any]
) -> None:
    """`does` with a connection until `end`, and with another one where it is lost."""
    while time.monotonic() < end:
        try:
            async with connect(url, proxy=None, open_timeout=30, max_size=2**24) as socket:
                seen.connections += 1
                open_.add(socket)
                try:
                    await does(socket)
                finally:
                    open_.discard(socket)
        except (ConnectionClosed, OSError):
            await asyncio.sleep(0.5)


async def camera(
    url: str, key: str, pictures: list[bytes], fps: float, end: float, seen: Seen, open_: Sockets
) -> None:
    started = time.monotonic()

    async def sends(socket: ClientConnection) -> None:
        await socket.send(json.dumps({"type": "push", "key": key}))
        hears = asyncio.create_task(_heard(socket, seen))
        try:
            while (now := time.monotonic()) < end:
                await socket.send(pictures[int((now - started) * fps) % len(pictures)])
                seen.sent += 1
                await asyncio.sleep(1 / fps)
        finally:
            hears.cancel()

    await staying(url, end, seen, open_, sends)


async def _heard(socket: ClientConnection, seen: Seen) -> None:
    async for text in socket:
        message = json.loads(text)
        if message["type"] in ("refused", "failed"):
            seen.errors[f"{message['type']}: {message['message']}"] += 1


async def viewer(url: str, pause: float, end: float, seen: Seen, open_: Sockets, rng: random.Random) -> None:
    async def asks(socket: ClientConnection) -> None:
        await socket.send(json.dumps({"type": "watch", "pictures": True}))
        await _watch(socket, pause * rng.random(), end, seen)
        while time.monotonic() < end:
            text, options = rng.choice(ASKED)
            began, seen.asked = time.monotonic(), seen.asked + 1
            event = {"type": "ask", "id": str(seen.asked), "text": text, "options": list(options)}
            await socket.send(json.dumps(event))
            first = await _answered(socket, str(seen.asked), seen)
            if first is not None:
                seen.first.append(first - began)
            await _watch(socket, pause * (0.5 + rng.random()), end, seen)

    await staying(url, end, seen, open_, asks)


async def _answered(socket: ClientConnection, name: str, seen: Seen) -> float | None:
    """When the first words of an answer came; None: none did."""
    first = None
    async with asyncio.timeout(LONGEST):
        async for text in socket:
            message = json.loads(text)
            if message["type"] == "shown":
                seen.pictures += "picture" in message
            elif message["type"] in ("refused", "closed"):
                seen.errors[f"{message['type']}: {message['message']}"] += 1
                return None
            elif message.get("id") == name:
                first = first or time.monotonic()
                if message["type"] == "failed":
                    seen.errors[f"failed: {message['message']}"] += 1
                    return None
                if message["type"] == "answer":
                    return first
    return None


async def _watch(socket: ClientConnection, seconds: float, end: float, seen: Seen) -> None:
    until = min(end, time.monotonic() + seconds)
    try:
        async with asyncio.timeout(max(0.0, until - time.monotonic())):
            async for text in socket:
                seen.pictures += '"picture"' in str(text)
    except TimeoutError:
        return


def film(seed: int) -> list[bytes]:
    """Four minutes of a stream, two JPEGs a second."""
    stream = sample_stream(np.random.default_rng(seed), minutes=4)
    found = []
    for _, pixels in stream_frames(stream, SIDE, 2):
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "JPEG", quality=90)
        found.append(out.getvalue())
    return found


async def play(args: argparse.Namespace, port: int) -> tuple[Seen, dict[str, Any]]:
    films = [film(args.seed + i) for i in range(args.streams)]
    seen, rng = Seen(), random.Random(args.seed)
    cut, spared = Sockets(), Sockets()
    end, base = time.monotonic() + args.seconds, f"ws://127.0.0.1:{port}/ws/streams"
    tasks = [
        asyncio.create_task(camera(f"{base}/cam{i}", f"a key of camera {i}", f, args.fps, end, seen, cut))
        for i, f in enumerate(films)
    ]
    await asyncio.sleep(5.0)  # streams are there before anyone asks
    for i in range(args.viewers):
        url = f"{base}/cam{i % args.streams}"
        work = viewer(url, args.pause, end, seen, cut if i % 2 else spared, random.Random(rng.random()))
        tasks.append(asyncio.create_task(work))
    asyncio.get_running_loop().call_later(args.seconds / 2, lambda: [one.transport.abort() for one in cut])
    state: list[dict[str, Any]] = []
    async with connect(f"{base}/cam0", proxy=None) as socket:
        async for text in socket:
            if (message := json.loads(text))["type"] == "state":
                state.append(message)
            if time.monotonic() >= end:
                break
    await asyncio.gather(*tasks)
    return seen, state[-1]


def started(args: argparse.Namespace) -> tuple[subprocess.Popen[str], int]:
    words = [sys.executable, "-m", "pipelines.cli", "serve", "--model", args.model, "--prune", args.prune]
    words += ["--port", "0", "--fps", f"{args.fps:g}", "--max-visual-tokens", str(args.max_visual_tokens)]
    words += ["--streams", str(args.streams), "--viewers", str(args.viewers + args.streams + 1)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line.startswith("http"):
        raise SystemExit(f"videoprune serve did not start: {line or process.wait()}")
    return process, int(line.split("/")[2].rsplit(":", 1)[1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--viewers", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument(
        "--pause", type=float, default=10.0, help="seconds between a viewer's questions, about"
    )
    parser.add_argument("--fps", type=float, default=2.0)
    parser.add_argument("--model", default="llava-demo")
    parser.add_argument("--prune", default="balanced")
    parser.add_argument("--max-visual-tokens", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="all figures, as JSON")
    args = parser.parse_args()
    process, port = started(args)
    try:
        server = psutil.Process(process.pid)
        before, begun = server.memory_info().rss, time.monotonic()
        seen, state = asyncio.run(play(args, port))
        used = sum(server.cpu_times()[:2]) / (time.monotonic() - begun)
        rss = server.memory_info().rss
    finally:
        process.terminate()
        process.wait(30)
    waits = np.array(seen.first or [np.nan])
    found = {
        "asked": seen.asked,
        "answered": len(seen.first),
        "errors": dict(seen.errors),
        "first_ms": [round(1000 * float(q), 1) for q in np.quantile(waits, [0.5, 0.95, 1.0])],
        "sent": seen.sent,
        "pictures": seen.pictures,
        "connections": seen.connections,
        "of_one_stream": {
            k: state[k] for k in ("received", "dropped", "encoded", "still", "tokens", "reconnects")
        },
        "cores": round(used, 2),
        "rss_mib": [round(before / 2**20), round(rss / 2**20)],
    }
    print("\n".join(f"{name}: {value}" for name, value in found.items()))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
        args.out.write_text(json.dumps({"settings": settings, "found": found, "first": seen.first}, indent=1))


if __name__ == "__main__":
    main()
