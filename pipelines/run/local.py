"""Runs the stages in this process. While the model works on some clips, the next ones are decoded.

One thread is enough for that: a DecodeStage decodes in a process of its own and the thread only waits for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Protocol

from pipelines.run.stages import ClipItem, DecodedClip, DecodeStage
from pipelines.run.status import ActorStatus
from pipelines.run.stop import Overdue
from videoprune.result_row import ResultRow


class Answering(Protocol):
    """The model's part of a run, such as `ModelStage`: see there."""

    def setup(self) -> None: ...
    def groups(self, items: Iterable[ClipItem]) -> Iterator[list[ClipItem]]: ...
    def process_all(self, clips: Sequence[DecodedClip]) -> list[list[ResultRow]]: ...
    def close(self) -> None: ...


def run(
    items: Iterable[ClipItem],
    decode: DecodeStage,
    model: Answering,
    *,
    ahead: int = 2,
    status: ActorStatus | None = None,
) -> Iterator[list[ResultRow]]:
    """Rows of each item, in the order given. ahead: groups of clips that may be decoded and waiting. status: kept up to
    date."""
    if ahead < 1:
        raise ValueError(f"ahead={ahead}; allowed: 1 or more")
    left, status = model.groups(items), status or ActorStatus()
    waiting: deque[Future[list[DecodedClip]]] = deque()
    pool = ThreadPoolExecutor(1, thread_name_prefix="decode")
    given_up = False
    try:
        decode.setup()
        model.setup()
        status.models, status.decoders = 1, 1
        status.begin()
        waiting.extend(pool.submit(decode.process_all, group) for group in islice(left, ahead))
        while waiting:
            decoded = waiting.popleft().result()
            waiting.extend(pool.submit(decode.process_all, group) for group in islice(left, 1))
            status.waiting = sum(future.done() for future in waiting)
            began = status.clock()
            rows = model.process_all(decoded)
            status.model_seconds += status.clock() - began
            yield from rows
    except Overdue:
        given_up = True  # a video that hangs must not hold up the end
        raise
    finally:
        pool.shutdown(wait=not given_up, cancel_futures=True)
        if not given_up:
            decode.close()
        model.close()
