"""Runs the stages in pools of Ray actors: decoding on many cores, models beside it, on one machine or several.

Decoding videos is slow, uneven, and now and then it hangs or takes its process down. So an actor works on one
group of items at a time, what is under way is bounded by bytes, and each call has a deadline. An actor that hangs is
killed, one that died is replaced, and the items are tried again, each alone; after `retries` an item is set aside as
failed, with the reason, and the others go on. Who does what next is `schedule`'s business.

What travels: an item is a path and its questions, a row is text and numbers. Decoded frames go by object reference from
the decoding actor to a model actor on the same node, through that node's object store, and never pass the caller. Each
call returns a receipt next to its result, so that the caller learns how it ended without fetching the result. Models
stay inside their actors.

On several machines, the videos, if they are files, and the model's folder must have the same path on each, and the
package must be there: see `runtime_env`. Only this module, `ray_cluster`, `ray_metrics` and `ray_pool` see ray.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Protocol

from pipelines.run.local import Answering
from pipelines.run.no_actors import NoActorsError
from pipelines.run.ray_cluster import Lookout, cluster
from pipelines.run.ray_metrics import RunMetrics
from pipelines.run.ray_pool import Ended, Member, Pool, RayOptions, Work, maker, ray
from pipelines.run.rows import failed_rows
from pipelines.run.schedule import Decode, Infer, Limits, Schedule, Start
from pipelines.run.stages import ClipItem, DecodeStage, Failure
from pipelines.run.status import ActorStatus
from videoprune.result_row import ResultRow
from videoprune.video.remote.address import is_remote


class AnsweringInActor(Answering, Protocol):
    """The model's part of a run, such as `ModelStage`. It is pickled before it is set up, and `setup` is called in each
    actor, also in those that take a lost one's place. device: None: a GPU where there is one."""

    @property
    def device(self) -> str | None: ...
    def in_actor(self, gpus: float) -> Answering: ...


def run(
    items: Iterable[ClipItem],
    decode: DecodeStage,
    model: AnsweringInActor,
    *,
    options: RayOptions | None = None,
    status: ActorStatus | None = None,
) -> Iterator[list[ResultRow]]:
    """Rows of each item, in the order in which they are finished. The stages must not have been set up.
    status: kept up to date.

    Uses the cluster that `ray_cluster.cluster` finds, or starts one. Raises ValueError for one that cannot be reached,
    what a stage's `setup` raises, and NoActorsError if actors cannot be started.
    """
    options = options or RayOptions()
    with cluster(options):
        yield from _Run(map(_anywhere, items), decode, model, options, status or ActorStatus()).rows()


class _Run:
    """One pass over the items: the schedule, and the two pools that do what it says."""

    def __init__(
        self,
        items: Iterable[ClipItem],
        decode: DecodeStage,
        model: AnsweringInActor,
        options: RayOptions,
        status: ActorStatus,
    ) -> None:
        self.options, self.status, self.metrics = options, status, RunMetrics()
        self.groups = model.groups(items)
        self.again: deque[Work] = deque()
        self.missing: deque[float] = deque()  # when to start a model in place of one that is gone
        self.schedule = Schedule[Member, Work](
            self._next, Limits((options.decoders, options.most), options.waiting_bytes)
        )
        decode_cpus, model_cpus, gpus = _shares(options, model.device)
        self.decoders = Pool("decode", maker(decode, decode_cpus), options)
        self.models = Pool("model", maker(model.in_actor(gpus), model_cpus, gpus), options)
        for _ in range(options.models):
            self.models.start()
        self.lookout = Lookout()

    def rows(self) -> Iterator[list[ResultRow]]:
        try:
            while self._act():
                for decoding, ended in self._ended():
                    for rows in self._told(decoding, ended):
                        self.metrics.add(rows)
                        yield rows
        finally:
            self.decoders.close()
            self.models.close()

    def _ended(self) -> Iterator[tuple[bool, Ended]]:
        """Wait until a call has ended, or some seconds: whether each that has was of decoding, and how it ended."""
        pools = (self.decoders, self.models)
        receipts = [receipt for pool in pools for receipt in pool.calls]
        longest = 1.0 if self.missing else self.lookout.seconds
        ready = _ready(receipts, 0.05 + min(longest, *(pool.next_deadline() for pool in pools)))
        if self.lookout.look():
            self.metrics.tell(self.status)
        for receipt in ready:
            decoding = receipt in self.decoders.calls
            yield decoding, (self.decoders if decoding else self.models).collect(receipt)
        for pool in pools:
            for ended in pool.overdue():
                yield pool is self.decoders, ended

    def _act(self) -> bool:
        """Do what the schedule says. False once nothing is left or under way."""
        while self.missing and self.missing[0] <= time.monotonic():
            self.missing.popleft()
            self.models.start()
        for action in self.schedule.actions():
            if isinstance(action, Decode):
                self.decoders.submit(action.member, action.work, action.work.items)
            elif isinstance(action, Infer):
                self.models.submit(action.member, action.work, action.work.decoded)
            elif isinstance(action, Start):
                self.schedule.decoder_at(action.node, self.decoders.start(action.node))
            else:
                self.decoders.stop(action.member)
        self.status.models, self.status.decoders = len(self.models.members), len(self.decoders.members)
        self.status.waiting = self.schedule.waiting
        under_way = self.decoders.busy or self.schedule.waiting or self.models.busy
        return bool(under_way or self._more_to_come())

    def _next(self) -> Work | None:
        if self.again:
            return self.again.popleft()
        return next(map(Work, islice(self.groups, 1)), None)

    def _more_to_come(self) -> bool:
        """While the actors start, whether there is an item for them."""
        waiting = self._next()
        if waiting is not None:
            self.again.appendleft(waiting)
        return waiting is not None

    def _told(self, decoding: bool, ended: Ended) -> Iterator[list[ResultRow]]:
        if ended.failure is not None:
            self._decoder_failed(ended) if decoding else self._model_failed(ended)
            if ended.call.work is not None:
                yield from self._try_again(ended.call.work, ended.failure)
        elif decoding:
            self._decoder_answered(ended)
        elif ended.call.work is not None:
            yield from self._answered(ended, ended.call.work)
        elif ended.call.what == "where":
            self.schedule.model_at(ended.call.member.node, ended.call.member)
        else:
            self.status.begin()
            self.schedule.model_free(ended.call.member.node, ended.call.member)

    def _answered(self, ended: Ended, work: Work) -> Iterator[list[ResultRow]]:
        self.schedule.finished(ended.call.member.node, ended.call.member, ended.seconds)
        self.status.model_seconds += ended.seconds
        found = self.models.result(ended.call)
        if isinstance(found, Failure):
            yield from self._try_again(work, found)
        else:
            yield from found

    def _decoder_answered(self, ended: Ended) -> None:
        member, work = ended.call.member, ended.call.work
        if work is None:
            self.schedule.decoder_free(member.node, member)
            return
        work.decoded = ended.call.result
        if not self.schedule.decoded(member.node, member, work, ended.size, ended.seconds):
            self._decode_elsewhere([work])

    def _decoder_failed(self, ended: Ended) -> None:
        """The schedule asks for another one."""
        member = ended.call.member
        if ended.alive:
            self.decoders.stop(member)
        self.schedule.decoder_gone(member.node, member, busy=ended.call.work is not None)

    def _model_failed(self, ended: Ended) -> None:
        member = ended.call.member
        if ended.alive:
            self.schedule.model_free(member.node, member)
            return
        self._decode_elsewhere(self.schedule.model_gone(member.node, member))
        self.missing.append(time.monotonic() + self.models.pause())

    def _decode_elsewhere(self, works: Sequence[Work]) -> None:
        """Works that no model will come for: there is nothing wrong with them."""
        for work in works:
            work.decoded = None
        self.again.extend(works)

    def _try_again(self, work: Work, failure: Failure) -> Iterator[list[ResultRow]]:
        """Each item by itself, so that a bad one costs its neighbours nothing but time. Only an item that was alone
        has used up an attempt."""
        if len(work.items) > 1:
            self.again.extend(Work([item]) for item in work.items)
            return
        work.attempts, work.decoded = work.attempts + 1, None
        if work.attempts <= self.options.retries:
            self.again.append(work)
        else:
            reason = f"set aside after {work.attempts} attempts: {failure.reason}"
            yield failed_rows(work.items[0], replace(failure, reason=reason))


def _anywhere(item: ClipItem) -> ClipItem:
    """Actors run in other folders than this process."""
    return item if is_remote(item.video) else replace(item, video=os.path.abspath(item.video))


def _ready(receipts: list[Any], seconds: float) -> list[Any]:
    """Those of calls that have ended, as soon as there is one, or after so many seconds."""
    if not receipts:  # an actor is missing that will be started
        time.sleep(seconds)
        return []
    ray.wait(receipts, timeout=seconds, fetch_local=False)
    ready, _ = ray.wait(receipts, num_returns=len(receipts), timeout=0, fetch_local=False)
    return list(ready)


def _shares(options: RayOptions, device: str | None) -> tuple[float, float, float]:
    """Cores of a decoding actor, cores of a model actor, GPUs of a model actor, so that all fit at once: a model and
    its decoders on one node."""
    free = ray.available_resources()
    if free.get("CPU", 0.0) <= 0:
        raise NoActorsError(f"the cluster has no free CPU: {free}")
    # Heads of large clusters say that they have no core, so that no actor comes there.
    every = (n["Resources"].get("CPU", 0.0) for n in ray.nodes() if n["Alive"])
    nodes = sorted((cpus for cpus in every if cpus > 0), reverse=True)
    used = min(options.models, len(nodes))
    cpus = free["CPU"] if len(nodes) == 1 else nodes[used - 1]
    models = -(-options.models // used)  # on one node
    decoder = min(1.0, _fraction(cpus / (models * (options.most + 1))))
    model = cpus / models - decoder * options.most
    gpus = free.get("GPU", 0.0)
    wants_gpu = gpus > 0 and (device is None or device.startswith("cuda"))
    gpu = gpus / options.models if wants_gpu else 0.0
    return decoder, float(int(model)) if model >= 1 else _fraction(model), min(1.0, _fraction(gpu))


def _fraction(share: float) -> float:
    """Rounded down to what Ray can count, so that the shares still fit together."""
    return int(share * 1000) / 1000
