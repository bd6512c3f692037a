"""What a run costs the process that drives it: clips through Ray with stages that do nothing.

`python -m pipelines.run.driver_cost --clips 600 --models 2` prints milliseconds of this process's CPU time for each.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pipelines.run.rows import failed_rows
from pipelines.run.stages import ClipItem, DecodedClip, Failure
from videoprune.result_row import ResultRow
from videoprune.types import Sample

_NOTHING = Failure("nothing", "nothing")


class NoDecoding:
    def setup(self) -> None: ...

    def process_all(self, items: Sequence[ClipItem]) -> list[DecodedClip]:
        return [DecodedClip(item, _NOTHING, 0.0) for item in items]


class NoModel:
    device = None

    def in_actor(self, gpus: float) -> NoModel:
        return self

    def setup(self) -> None: ...

    def groups(self, items: Iterable[ClipItem]) -> Iterator[list[ClipItem]]:
        return ([item] for item in items)

    def process_all(self, clips: Sequence[DecodedClip]) -> list[list[ResultRow]]:
        return [failed_rows(clip.item, _NOTHING) for clip in clips]


def driver_seconds(clips: int, models: int) -> float:
    """Of CPU time for each clip, from the first that is done; nothing of starting."""
    from pipelines.run import ray

    items = [ClipItem(f"{i}.mp4", (Sample(f"{i}", f"{i}.mp4", "?"),)) for i in range(clips + 1)]
    decode: Any = NoDecoding()
    model: Any = NoModel()
    run = ray.run(items, decode, model, options=ray.RayOptions(2, models, 4, address="local", num_cpus=8))
    next(run)
    began = time.process_time()
    done = sum(1 for _ in run)
    assert done == clips, (done, clips)
    return (time.process_time() - began) / clips


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=600)
    parser.add_argument("--models", type=int, default=2)
    args = parser.parse_args()
    print(f"{1000 * driver_seconds(args.clips, args.models):.2f} ms of the driver's CPU time for each clip")


if __name__ == "__main__":
    main()
