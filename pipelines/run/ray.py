"""Runs the stages in pools of Ray actors: decoding on many cores, models beside it, on one machine or several.

Decoding videos is slow, uneven, and now and then it hangs or takes its process down. So an actor works on one
item at a time, a bounded number of items is under way, and each has a deadline. An actor that hangs is
killed, one that died is replaced, and the item is tried again; after `retries` it is set aside as failed,
with the reason, and the others go on.

What travels: an item is a path and its questions, a row is text and numbers. Decoded frames are small (8 x
112 x 112 x 3 bytes, 300 KB). They go by object reference from the decoding actor's object store straight to
the model actor and never pass the caller. Each call returns a receipt next to its result, so that the caller
learns how it ended without fetching the result. At most `decoders + 2 * models` clips exist at a time. Models
stay inside their actors.

On several machines, the videos and the model's folder must have the same path on each, and the package must
be installed there. This is the only module that imports ray.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Ray is about to leave a device alone that an actor did not ask for; say so now and silence its warning.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# Ray lowers its workers' priority. Beside any other work they would then hardly run, and miss their deadlines.
os.environ.setdefault("RAY_worker_niceness", "0")

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from pipelines.run.stages import ClipItem, DecodeStage, ModelStage, Row, failed_rows


@dataclass(frozen=True)
class RayOptions:
    """decoders, models: actors of each kind. address: of a running cluster; None starts one on this machine,
    with num_cpus of its cores (None: all). item_seconds: deadline of an item in one stage; keep it above the
    decoder's own. start_seconds: of an actor, which loads a model. retries: how often an item is tried again.
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


def run(
    items: Iterable[ClipItem], decode: DecodeStage, model: ModelStage, *, options: RayOptions | None = None
) -> Iterator[list[Row]]:
    """Rows of each item, in the order in which they are finished. The stages must not have been set up.

    Uses a cluster that this process is connected to; else connects or starts one, and ends that at the end.
    Raises what a stage's `setup` raises, and RuntimeError if actors cannot be started.
    """
    options = options or RayOptions()
    with _cluster(options):
        yield from _Run(items, decode, model, options).rows()


@contextmanager
def _cluster(options: RayOptions) -> Iterator[None]:
    if ray.is_initialized():
        yield
        return
    local = options.address is None
    ray.init(
        address="local" if local else options.address,
        num_cpus=options.num_cpus if local else None,
        include_dashboard=False if local else None,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        yield
    finally:
        ray.shutdown()


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
        return None, self.stage.process(value)


@dataclass
class _Work:
    item: ClipItem
    attempts: int = 0
    decoded: Any = None  # reference to a DecodedClip


@dataclass
class _Call:
    actor: Any
    since: float
    work: _Work | None = None  # None: the actor is starting
    result: Any = None


class _Pool:
    """Actors of one stage, each with at most one call under way. `calls` maps receipts to calls."""

    def __init__(self, name: str, make: Callable[[], Any], size: int, options: RayOptions) -> None:
        self.name, self.make, self.options = name, make, options
        self.free: list[Any] = []
        self.calls: dict[Any, _Call] = {}
        self.failed_starts = 0
        for _ in range(size):
            self._start()

    @property
    def busy(self) -> int:
        return sum(call.work is not None for call in self.calls.values())

    def submit(self, work: _Work, value: Any) -> None:
        actor = self.free.pop()
        receipt, result = actor.process.options(num_returns=2).remote(value)
        self.calls[receipt] = _Call(actor, time.monotonic(), work, result)

    def collect(self, receipt: Any) -> tuple[_Work, Any, str] | None:
        """How the call of a ready receipt ended: its work, the result's reference, or why there is none."""
        call = self.calls.pop(receipt)
        reason = ""
        try:
            ray.get(receipt)
        except RayTaskError as error:
            if not isinstance(error.cause, RayError):
                raise error.cause from None  # the stage raised it: the run ends, as it would locally
            reason = f"{self.name}: {_first_sentence(error.cause)}"  # its argument was lost with a machine
        except RayActorError as error:
            reason = f"{self.name}: the process died ({_first_sentence(error)})"
        except RayError as error:
            reason = f"{self.name}: {_first_sentence(error)}"
        if not reason:
            self.free.append(call.actor)
            self.failed_starts = 0
        else:
            self._replace(call, reason)
        return None if call.work is None else (call.work, call.result, reason)

    def end_overdue(self) -> list[tuple[_Work, str]]:
        """Kill and replace actors whose call is past its deadline; the work that they held, and why."""
        overdue = [(r, c) for r, c in self.calls.items() if self._time_left(c) <= 0]
        lost = []
        for receipt, call in overdue:
            del self.calls[receipt]
            if call.work is None:
                raise RuntimeError(
                    f"{self.name}: an actor was not ready after {self.options.start_seconds:g} s; "
                    f"the cluster has free: {ray.available_resources()}"
                )
            reason = f"{self.name}: no answer within {self.options.item_seconds:g} s, killed"
            self._replace(call, reason)
            lost.append((call.work, reason))
        return lost

    def next_deadline(self) -> float:
        """Seconds until a call is overdue."""
        return max(0.0, min((self._time_left(c) for c in self.calls.values()), default=60.0))

    def close(self) -> None:
        for actor in [*self.free, *(call.actor for call in self.calls.values())]:
            ray.kill(actor)

    def _time_left(self, call: _Call) -> float:
        limit = self.options.start_seconds if call.work is None else self.options.item_seconds
        return call.since + limit - time.monotonic()

    def _start(self) -> None:
        actor = self.make()
        self.calls[actor.setup.remote()] = _Call(actor, time.monotonic())

    def _replace(self, call: _Call, reason: str) -> None:
        ray.kill(call.actor)
        if call.work is None:
            self.failed_starts += 1
            if self.failed_starts > self.options.retries:
                raise RuntimeError(f"{reason}, {self.failed_starts} times while starting")
        self._start()


class _Run:
    """One pass over the items: what waits for a decoder, what waits for a model, and the two pools."""

    def __init__(
        self, items: Iterable[ClipItem], decode: DecodeStage, model: ModelStage, options: RayOptions
    ) -> None:
        self.options = options
        self.items = iter(items)
        self.again: deque[_Work] = deque()
        self.decoded: deque[_Work] = deque()
        decode_cpus, model_cpus, gpus = _shares(options, model.device)
        self.decoders = _Pool("decode", _maker(decode, decode_cpus), options.decoders, options)
        self.models = _Pool("model", _maker(model, model_cpus, gpus), options.models, options)

    def rows(self) -> Iterator[list[Row]]:
        try:
            while self._fill():
                pools = (self.decoders, self.models)
                receipts = [receipt for pool in pools for receipt in pool.calls]
                timeout = min(pool.next_deadline() for pool in pools)
                ray.wait(receipts, timeout=timeout + 0.05, fetch_local=False)  # until the first is there
                ready, _ = ray.wait(receipts, num_returns=len(receipts), timeout=0, fetch_local=False)
                for receipt in ready:
                    yield from self._collect(receipt)
                for pool in pools:
                    for work, reason in pool.end_overdue():
                        yield from self._try_again(work, reason)
        finally:
            self.decoders.close()
            self.models.close()

    def _fill(self) -> bool:
        """Hand work to free actors. False once nothing is left or under way."""
        while self.models.free and self.decoded:
            ready = self.decoded.popleft()
            self.models.submit(ready, ready.decoded)
        room = self.options.decoders + 2 * self.options.models
        while self.decoders.free and self.decoders.busy + len(self.decoded) + self.models.busy < room:
            work = self._next()
            if work is None:
                break
            self.decoders.submit(work, work.item)
        return bool(self.decoders.busy or self.decoded or self.models.busy or self._more_to_come())

    def _next(self) -> _Work | None:
        if self.again:
            return self.again.popleft()
        return next(map(_Work, islice(self.items, 1)), None)

    def _more_to_come(self) -> bool:
        """While the actors start, whether there is an item for them."""
        waiting = self._next()
        if waiting is not None:
            self.again.appendleft(waiting)
        return waiting is not None

    def _collect(self, receipt: Any) -> Iterator[list[Row]]:
        decoding = receipt in self.decoders.calls
        found = (self.decoders if decoding else self.models).collect(receipt)
        if found is None:
            return
        work, result, reason = found
        if reason:
            yield from self._try_again(work, reason)
        elif decoding:
            work.decoded = result
            self.decoded.append(work)
        else:
            yield ray.get(result)

    def _try_again(self, work: _Work, reason: str) -> Iterator[list[Row]]:
        work.attempts, work.decoded = work.attempts + 1, None
        if work.attempts <= self.options.retries:
            self.again.append(work)
        else:
            yield failed_rows(work.item, f"set aside after {work.attempts} attempts: {reason}")


def _maker(stage: Any, cpus: float, gpus: float = 0.0) -> Callable[[], Any]:
    remote = ray.remote(_StageActor).options(num_cpus=cpus, num_gpus=gpus, max_restarts=0)
    return lambda: remote.remote(stage, max(1, int(cpus)))


def _shares(options: RayOptions, device: str | None) -> tuple[float, float, float]:
    """Cores of a decoding actor, cores of a model actor, GPUs of a model actor, so that all fit at once."""
    free = ray.available_resources()
    cpus, gpus = free.get("CPU", 0.0), free.get("GPU", 0.0)
    if cpus <= 0:
        raise RuntimeError(f"the cluster has no free CPU: {free}")
    decoder = min(1.0, _fraction(cpus / (options.decoders + options.models)))
    nodes = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
    most = cpus if len(nodes) == 1 else max(nodes) / 2  # an actor must fit on one of several machines
    model = min((cpus - decoder * options.decoders) / options.models, most)
    wants_gpu = gpus > 0 and (device is None or device.startswith("cuda"))
    gpu = gpus / options.models if wants_gpu else 0.0
    return decoder, float(int(model)) if model >= 1 else _fraction(model), min(1.0, _fraction(gpu))


def _fraction(share: float) -> float:
    """Rounded down to what Ray can count, so that the shares still fit together."""
    return int(share * 1000) / 1000


def _first_sentence(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].split(". ")[0].rstrip(".") if lines else type(error).__name__
