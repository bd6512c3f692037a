"""Pools of Ray actors with a stage in each: one call at a time, a deadline, a new actor for one that is lost."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Ray is about to leave a device alone that an actor did not ask for; say so now and silence its warning.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# Ray lowers its workers' priority. Beside any other work they would then hardly run, and miss their deadlines.
os.environ.setdefault("RAY_worker_niceness", "0")

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipelines.run.lost_device import LostDeviceError
from pipelines.run.no_actors import NoActorsError, why_no_actor
from pipelines.run.stages import ClipItem, Failure


@dataclass(frozen=True)
class RayOptions:
    """models: actors with a model. decoders: decoding actors beside each, at least; most_decoders: at most, None for as
    many. waiting_bytes: decoded frames that may wait for each model. address: of a running cluster; None: that of
    RAY_ADDRESS, else one is started on this machine, with num_cpus of its cores (None: all). item_seconds: deadline of
    an item in one stage, a group has as many times that; keep it above the decoder's own. start_seconds: of an actor,
    which loads a model. retries: how often an item is tried again. runtime_env: what actors are given, see
    `runtime_env`.
    """

    decoders: int = 1
    models: int = 1
    most_decoders: int | None = None
    waiting_bytes: int = 256 * 2**20
    address: str | None = None
    num_cpus: int | None = None
    item_seconds: float = 180.0
    start_seconds: float = 600.0
    retries: int = 2
    runtime_env: str = "none"

    def __post_init__(self) -> None:
        for name in ("decoders", "models", "waiting_bytes", "item_seconds", "start_seconds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}; allowed: above 0")
        if self.retries < 0:
            raise ValueError(f"retries={self.retries}; allowed: 0 or more")
        if self.most < self.decoders:
            raise ValueError(f"most_decoders={self.most}; allowed: decoders={self.decoders} or more")

    @property
    def most(self) -> int:
        return self.decoders if self.most_decoders is None else self.most_decoders


class _StageActor:
    """One stage in a process of its own. threads: of torch."""

    def __init__(self, stage: Any, threads: int) -> None:
        self.stage, self.threads = stage, threads

    def where(self) -> str:
        """The node's id."""
        return str(ray.get_runtime_context().get_node_id())

    def setup(self) -> None:
        import torch

        torch.set_num_threads(self.threads)
        self.stage.setup()

    def process(self, value: Any) -> tuple[tuple[int, float], Any]:
        """A receipt, small enough to fetch at once, bytes and seconds, and the result, which stays where it is."""
        started = time.perf_counter()
        result = self.stage.process_all(value)
        size = sum(getattr(one, "nbytes", 0) for one in result)
        return (size, time.perf_counter() - started), result


@dataclass
class Work:
    """Items that go together."""

    items: list[ClipItem]
    attempts: int = 0
    decoded: Any = None  # reference to their DecodedClips


@dataclass(eq=False)
class Member:
    """An actor. node: where it is, "" as long as nobody knows."""

    actor: Any
    node: str = ""


_LONGEST_PAUSE = 300.0
What = Literal["where", "setup", "process"]


@dataclass
class Call:
    """What an actor is asked, and since when. work, result: of `process`."""

    member: Member
    what: What
    since: float
    work: Work | None = None
    result: Any = None


@dataclass(frozen=True)
class Ended:
    """How a call ended. size, seconds: of `process`. alive: whether the actor is still there after a failure."""

    call: Call
    failure: Failure | None = None
    alive: bool = True
    size: int = 0
    seconds: float = 0.0


class Pool:
    """Actors of one stage, each with at most one call under way. `calls` maps receipts to calls.

    make: an actor, on a node if one is named. Raises NoActorsError from `collect` and `overdue` where no actor starts,
    unless others are there to go on.
    """

    def __init__(self, name: str, make: Callable[[str], Any], options: RayOptions) -> None:
        self.name, self.make, self.options = name, make, options
        self.members: set[Member] = set()
        self.ready: set[Member] = set()  # of these, those that have been set up
        self.calls: dict[Any, Call] = {}
        self.failed_starts = 0

    @property
    def busy(self) -> int:
        return sum(call.work is not None for call in self.calls.values())

    def start(self, node: str = "") -> Member:
        """Its place is asked for where it may be anywhere; then it sets up."""
        member = Member(self.make(node), node)
        self.members.add(member)
        self._ask(member, "setup" if node else "where")
        return member

    def pause(self) -> float:
        """Seconds until the next start is worth a try: none but after starts that failed."""
        return min(_LONGEST_PAUSE, 5.0 * 2 ** (self.failed_starts - 1)) if self.failed_starts else 0.0

    def stop(self, member: Member) -> None:
        self.members.discard(member)
        self.ready.discard(member)
        ray.kill(member.actor)

    def submit(self, member: Member, work: Work, value: Any) -> None:
        receipt, result = member.actor.process.options(num_returns=2).remote(value)
        self.calls[receipt] = Call(member, "process", time.monotonic(), work, result)

    def collect(self, receipt: Any) -> Ended:
        """How the call of a ready receipt ended. An actor that was found goes on with its setup, one that failed is
        gone."""
        call = self.calls.pop(receipt)
        try:
            told = ray.get(receipt)
        except RayTaskError as error:
            if not isinstance(error.cause, RayError | LostDeviceError):
                raise error.cause from None  # the stage raised it: the run ends, as it would locally
            failure = self._failure(_first_sentence(error.cause), error)
            if isinstance(error.cause, LostDeviceError):
                return self._failed(call, failure)
            return Ended(call, failure)  # its argument was lost with a machine: the actor is as it was
        except RayError as error:
            said = _first_sentence(error) if call.what == "process" else why_no_actor(error)
            if isinstance(error, RayActorError):
                said = f"the process died ({said})"
            return self._failed(call, self._failure(said, error))
        if call.what == "where":
            call.member.node = told
            self._ask(call.member, "setup")
            return Ended(call)
        self.failed_starts = 0
        self.ready.add(call.member)
        return Ended(call, None, True, *(told or (0, 0.0)))

    def result(self, call: Call) -> Any:
        """What the call returned, or a Failure if that was lost with the machine it lay on."""
        try:
            return ray.get(call.result)
        except RayError as error:
            return self._failure(_first_sentence(error), error)

    def overdue(self) -> list[Ended]:
        """Calls that are past their deadline; their actors are killed."""
        late = [(r, c) for r, c in self.calls.items() if self._time_left(c) <= 0]
        ended = []
        for receipt, call in late:
            del self.calls[receipt]
            if call.what != "process" and not self.ready:
                raise NoActorsError(
                    f"{self.name}: an actor was not ready after {self.options.start_seconds:g} s; "
                    f"the cluster has free: {ray.available_resources()}"
                )
            reason = f"{self.name}: no answer within {self._limit(call):g} s, killed"
            ended.append(self._failed(call, Failure("deadline", reason), counted=False))
        return ended

    def next_deadline(self) -> float:
        """Seconds until a call is overdue."""
        return max(0.0, min((self._time_left(c) for c in self.calls.values()), default=60.0))

    def close(self) -> None:
        for member in self.members:
            ray.kill(member.actor)

    def _ask(self, member: Member, what: Literal["where", "setup"]) -> None:
        self.calls[getattr(member.actor, what).remote()] = Call(member, what, time.monotonic())

    def _time_left(self, call: Call) -> float:
        return call.since + self._limit(call) - time.monotonic()

    def _limit(self, call: Call) -> float:
        if call.work is None:
            return self.options.start_seconds
        return self.options.item_seconds * len(call.work.items)

    def _failure(self, reason: str, error: Exception) -> Failure:
        told = "".join(traceback.format_exception(error))
        return Failure(type(error).__name__, f"{self.name}: {reason}", told)

    def _failed(self, call: Call, failure: Failure, *, counted: bool = True) -> Ended:
        self.stop(call.member)
        if call.what != "process" and counted:
            self.failed_starts += 1
            if self.failed_starts > self.options.retries and not self.ready:
                raise NoActorsError(f"{failure.reason}, {self.failed_starts} times while starting")
        return Ended(call, failure, alive=False)


def maker(stage: Any, cpus: float, gpus: float = 0.0) -> Callable[[str], Any]:
    """Makes actors, on the node that is named, or on any, spread over all."""

    def make(node: str) -> Any:
        where: Any = NodeAffinitySchedulingStrategy(node, soft=False) if node else "SPREAD"
        options = remote.options(num_cpus=cpus, num_gpus=gpus, max_restarts=0, scheduling_strategy=where)
        return options.remote(stage, max(1, int(cpus)))

    remote = ray.remote(_StageActor)
    return make


def _first_sentence(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].split(". ")[0].rstrip(".") if lines else type(error).__name__
