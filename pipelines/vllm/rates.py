"""Requests a second of several workers, which take turns: a drift of the machine hits all alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from pipelines.measure.turns import Turn, take_turns
from pipelines.vllm.worker_process import WorkerError

Asked = Sequence[tuple[str, str]]  # a file of frames and a question, for each request
_LEAST, _TIMES = 16, 2  # requests of a turn: at least, and as a multiple of those in flight


class Asking(Protocol):
    """A `WorkerProcess`, or what stands in its place."""

    def begin(self) -> None: ...
    def ask(self, what: str, **request: Any) -> dict[str, Any]: ...
    def close(self) -> None: ...
    def kill(self) -> None: ...


def requests_of_turn(in_flight: int) -> int:
    """How many requests a timed turn has where nobody says it."""
    return max(_LEAST, _TIMES * in_flight)


def take_rates(
    workers: dict[str, Asking], in_flight: int, runs: Sequence[int], asked: Callable[[int], Asked]
) -> Iterator[Turn]:
    """Each worker in each of `runs`, another one first each time, after a turn to warm up with as many requests as are
    in flight. asked: the requests of a run.

    A Turn's number is that of the run, its value what the worker says. One that fails is left out of `workers` from
    then on, and its Turn has the reason.
    """

    def once(label: str, number: int) -> dict[str, Any]:
        requests = asked(runs[max(number, 0)])
        return workers[label].ask(
            "rate", in_flight=in_flight, asked=requests if number >= 0 else requests[:in_flight]
        )

    for turn in take_turns(list(workers), once, runs=len(runs), refusals=(WorkerError,)):
        if turn.reason:
            workers.pop(turn.label).kill()
        yield Turn(turn.label, runs[max(turn.number, 0)], turn.value, turn.reason)
