"""Makes the benchmark of MovingShapes streams: mp4 files and rows in the columns of StreamingBench.

<out>/benchmark.json, <out>/data/<videoID>.mp4, <out>/test.jsonl, as moving-shapes has them.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from videoprune.eval.benchmarks.moving_shapes.make import Spec, check_made, write_folder
from videoprune.eval.benchmarks.moving_stream.draw import write_stream
from videoprune.eval.benchmarks.moving_stream.plan import StreamPlan, plan_stream

FORMAT = 1  # raise it when streams are drawn or encoded differently
NAME = "moving-stream"


def make_streams(
    out: Path,
    *,
    streams: int = 10,
    seed: int = 0,
    minutes: float = 5,
    size: int = 112,
    fps: int = 2,
    workers: int | None = None,
) -> Path:
    """Write the benchmark into the folder `out` and return it.

    minutes: of each stream. size: side of the square frames, pixels, even. fps: whole frames per second. workers:
    processes; None takes one per usable core; as for `make_benchmark` they are spawned. A finished folder is left
    alone, a half-written one is completed. Raises ValueError for impossible arguments, or if `out` holds something
    else.
    """
    check_made(streams, seed, size, fps, workers)
    if fps != int(fps):
        raise ValueError(f"fps={fps}; allowed: whole numbers, so that cuts fall on frames")
    plans = [plan_stream(i, seed, minutes) for i in range(streams)]
    spec: Spec = {"format": FORMAT, "benchmark": NAME, "seed": seed, "clips": streams, "size": size}
    spec |= {"fps": fps, "minutes": float(minutes)}
    return write_folder(Path(out), plans, spec, partial(_write, size=size, fps=int(fps)), workers)


def _write(plan: StreamPlan, path: Path, *, size: int, fps: int) -> None:
    write_stream(plan.stream, path, size=size, fps=fps)
