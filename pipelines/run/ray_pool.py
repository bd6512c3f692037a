"""Pools of Ray actors with a stage in each: one call at a time, a deadline, a new actor for one that is lost."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Ray is about to leave a device alone that an actor did not ask for; say so now and silence its warning.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# Ray lowers its workers' priority. Beside any other work they would then hardly run, and miss their deadlines.
os.environ.setdefault("RAY_worker_niceness", "0")

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from pipelines.run.lost_device import LostDeviceError
from pipelines.run.stages import ClipItem, Failure


@dataclass(frozen=True)
class RayOptions:
    """decoders, models: actors of each kind. address: of a running cluster; None: that of RAY_ADDRESS, else one is
    started on this machine, with num_cpus of its cores (None: all). item_seconds: deadline of an item in one stage, a
    group has as many times that; keep it above the decoder's own. start_seconds: of an actor, which loads a model.
    retries: how often an item is tried again.
    """

    decoders: int = 1
    models: int = 1
    address: str | None = None
    num_cpus: int | None = None
    item_seconds: float = 180.0
    start_seconds: float = 600.0
    retries: int = 2

    def __post_init__(self) -> None:
        for name in ("decoders", "models", "item_seconds", "start_seconds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}; allowed: above 0")
        if self.retries < 0:
            raise ValueError(f"retries={self.retries}; allowed: 0 or more")


class _StageActor:
    """One stage in a process of its own. threads: of torch."""

    def __init__(self, stage: Any, threads: int) -> None:
        self.stage, self.threads = stage, threads

    def setup(self) -> None:
        import torch

        torch.set_num_threads(self.threads)
        self.stage.setup()

    def process(self, value: Any) -> tuple[None, Any]:
        """A receipt, small enough to fetch at once, and the result, which stays where it is."""
        return None, self.stage.process_all(value)


@dataclass
class Work:
    """Items that go together."""

    items: list[ClipItem]
    attempts: int = 0
    decoded: Any = None  # reference to their DecodedClips


@dataclass
class Call:
    actor: Any
    since: float
    work: Work | None = None  # None: the actor is starting
    result: Any = None


class Pool:
    """Actors of one stage, each with at most one call under way. `calls` maps receipts to calls."""

    def __init__(self, name: str, make: Callable[[], Any], size: int, options: RayOptions) -> None:
        self.name, self.make, self.options = name, make, options
        self.free: list[Any] = []
        self.calls: dict[Any, Call] = {}
        self.failed_starts = 0
        for _ in range(size):
            self._start()

    @property
    def busy(self) -> int:
        return sum(call.work is not None for call in self.calls.values())

    def submit(self, work: Work, value: Any) -> None:
        actor = self.free.pop()
        receipt, result = actor.process.options(num_returns=2).remote(value)
        self.calls[receipt] = Call(actor, time.monotonic(), work, result)

    def collect(self, receipt: Any) -> tuple[Work, Any, Failure | None] | None:
        """How the call of a ready receipt ended: its work, the result's reference, or why there is none."""
        call = self.calls.pop(receipt)
        failure = None
        try:
            ray.get(receipt)
        except RayTaskError as error:
            if not isinstance(error.cause, RayError | LostDeviceError):
                raise error.cause from None  # the stage raised it: the run ends, as it would locally
            # Its argument was lost with a machine, or its device.
            failure = self._failure(_first_sentence(error.cause), error)
        except RayActorError as error:
            failure = self._failure(f"the process died ({_first_sentence(error)})", error)
        except RayError as error:
            failure = self._failure(_first_sentence(error), error)
        if failure is None:
            self.free.append(call.actor)
            self.failed_starts = 0
        else:
            self._replace(call, failure)
        return None if call.work is None else (call.work, call.result, failure)

    def end_overdue(self) -> list[tuple[Work, Failure]]:
        """Kill and replace actors whose call is past its deadline; the work that they held, and why."""
        overdue = [(r, c) for r, c in self.calls.items() if self._time_left(c) <= 0]
        lost = []
        for receipt, call in overdue:
            del self.calls[receipt]
            if call.work is None and (self.free or self.busy):  # the others go on without it
                ray.kill(call.actor)
                self._start()
                continue
            if call.work is None:
                raise RuntimeError(
                    f"{self.name}: an actor was not ready after {self.options.start_seconds:g} s; "
                    f"the cluster has free: {ray.available_resources()}"
                )
            failure = Failure("deadline", f"{self.name}: no answer within {self._limit(call):g} s, killed")
            self._replace(call, failure)
            lost.append((call.work, failure))
        return lost

    def next_deadline(self) -> float:
        """Seconds until a call is overdue."""
        return max(0.0, min((self._time_left(c) for c in self.calls.values()), default=60.0))

    def close(self) -> None:
        for actor in [*self.free, *(call.actor for call in self.calls.values())]:
            ray.kill(actor)

    def _time_left(self, call: Call) -> float:
        return call.since + self._limit(call) - time.monotonic()

    def _limit(self, call: Call) -> float:
        if call.work is None:
            return self.options.start_seconds
        return self.options.item_seconds * len(call.work.items)

    def _start(self) -> None:
        actor = self.make()
        self.calls[actor.setup.remote()] = Call(actor, time.monotonic())

    def _failure(self, reason: str, error: Exception) -> Failure:
        told = "".join(traceback.format_exception(error))
        return Failure(type(error).__name__, f"{self.name}: {reason}", told)

    def _replace(self, call: Call, failure: Failure) -> None:
        ray.kill(call.actor)
        if call.work is None:
            self.failed_starts += 1
            if self.failed_starts > self.options.retries:
                raise RuntimeError(f"{failure.reason}, {self.failed_starts} times while starting")
        self._start()


def maker(stage: Any, cpus: float, gpus: float = 0.0) -> Callable[[], Any]:
    remote = ray.remote(_StageActor).options(num_cpus=cpus, num_gpus=gpus, max_restarts=0)
    return lambda: remote.remote(stage, max(1, int(cpus)))


def _first_sentence(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].split(". ")[0].rstrip(".") if lines else type(error).__name__
