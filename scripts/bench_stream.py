"""Hours of a stream in minutes: whether memory, tokens and the time to the first token stay flat.

PYTHONPATH=. python scripts/bench_stream.py --hours 8 --model llava-demo --out runs/stream.json

Shows a MovingShapes stream as fast as it is encoded, and asks every ten minutes of it. Prints a row an hour, then how
far each figure moves from minute 10 on, and how much faster than the stream it went, drawing the frames inside.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.measure.memory import give_back, resident
from videoprune import Engine
from videoprune.eval.benchmarks.moving_stream.draw import stream_frames
from videoprune.eval.benchmarks.moving_stream.scene import sample_stream
from videoprune.stream import StreamConfig, StreamSession
from videoprune.types import Sample

QUESTION = Sample("now", "", "What color is the circle?", ("red", "green", "blue", "white"))
EVERY = 600  # seconds of the stream between questions
ASKED = 3  # times; the median counts
AT_ONCE = 32  # frames of a call
_PART = 120  # minutes of a stream that are planned at once


def shown(hours: float, size: int, fps: int, seed: int) -> Iterator[tuple[float, torch.Tensor]]:
    """Seconds and pixels, stream after stream."""
    rng, start, end = np.random.default_rng(seed), 0.0, hours * 3600
    while start < end:
        minutes = min(_PART, max(4, round((end - start) / 60)))
        for seconds, pixels in stream_frames(sample_stream(rng, minutes=minutes), size, fps):
            if start + seconds >= end:
                return
            yield start + seconds, torch.from_numpy(pixels.copy())
        start += minutes * 60


def look(session: StreamSession, began: float) -> dict[str, Any]:
    """What there is to see now: held for good, then what asking takes."""
    stats, waits = session.stats(), []
    for _ in range(ASKED):
        session.forget_beginning()  # or it would be shared
        answer = session.ask(QUESTION, max_new_tokens=8)
        waits.append(answer.seconds["encode"] + answer.seconds["prefill"])
    give_back()  # as the server does
    return {
        "minute": round((stats.last or 0) / 60),
        "frames": stats.frames,
        "still": stats.still,
        "tokens": stats.tokens,
        "steps": stats.held_steps,
        "held_mib": round(stats.bytes / 2**20, 3),
        "rss_mib": round(resident("VmRSS") / 2**20, 1),
        "first_token_ms": round(1000 * statistics.median(waits), 1),
        "seconds": round(time.perf_counter() - began, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours", type=float, default=8.0)
    parser.add_argument("--fps", type=int, default=1)
    parser.add_argument("--model", default="llava-demo")
    parser.add_argument("--prune", default="balanced")
    parser.add_argument("--max-visual-tokens", type=int, default=512)
    parser.add_argument("--max-steps", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="all figures, as JSON")
    args = parser.parse_args()
    engine = Engine(args.model, args.prune, device="cpu")
    config = StreamConfig(max_visual_tokens=args.max_visual_tokens, max_steps=args.max_steps)
    session, began, found = StreamSession(engine, config), time.perf_counter(), []
    size = (engine.frame_size or (112, 112))[0]
    frames = shown(args.hours, size, args.fps, args.seed)
    for _, part in groupby(frames, lambda frame: int(frame[0] // EVERY)):
        while some := [(pixels, seconds) for seconds, pixels in islice(part, AT_ONCE)]:
            session.add_many(some)
        found.append(look(session, began))
        if found[-1]["minute"] % 60 < EVERY // 60:
            print(" ".join(f"{k} {v}" for k, v in found[-1].items()), flush=True)
    spent = time.perf_counter() - began
    moved = {
        name: f"{min(f[name] for f in found)} to {max(f[name] for f in found)}"
        for name in ("tokens", "steps", "held_mib", "rss_mib", "first_token_ms")
    }
    print(f"from minute {found[0]['minute']} on:", ", ".join(f"{k} {v}" for k, v in moved.items()))
    print(f"{args.hours:g} h in {spent / 60:.1f} minutes, {args.hours * 3600 / spent:.0f} times as fast")
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(
            json.dumps({"settings": vars(args) | {"out": str(args.out)}, "looks": found}, indent=1)
        )


if __name__ == "__main__":
    main()
