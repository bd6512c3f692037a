"""Runs the stages in pools of Ray actors: decoding on many cores, models beside it, on one machine or several.

Decoding videos is slow, uneven, and now and then it hangs or takes its process down. So an actor works on one
group of items at a time, a bounded number of groups is under way, and each has a deadline. An actor that hangs is
killed, one that died is replaced, and the items are tried again, each alone; after `retries` an item is set aside as
failed, with the reason, and the others go on.

What travels: an item is a path and its questions, a row is text and numbers. Decoded frames are small (8 x
112 x 112 x 3 bytes, 300 KB). They go by object reference from the decoding actor's object store straight to
the model actor and never pass the caller. Each call returns a receipt next to its result, so that the caller
learns how it ended without fetching the result. At most `decoders + 2 * models` groups exist at a time. Models
stay inside their actors.

On several machines, the videos and the model's folder must have the same path on each, and the package must
be installed there. Only this module, `ray_cluster` and `ray_pool` see ray.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from pipelines.run.model_stage import ModelStage
from pipelines.run.ray_cluster import Lookout, cluster
from pipelines.run.ray_pool import Pool, RayOptions, Work, maker, ray
from pipelines.run.rows import failed_rows
from pipelines.run.stages import ClipItem, DecodeStage, Failure
from videoprune.result_row import ResultRow


def run(
    items: Iterable[ClipItem], decode: DecodeStage, model: ModelStage, *, options: RayOptions | None = None
) -> Iterator[list[ResultRow]]:
    """Rows of each item, in the order in which they are finished. The stages must not have been set up.

    Uses the cluster that `ray_cluster.cluster` finds, or starts one. Raises ValueError for one that cannot be reached,
    what a stage's `setup` raises, and RuntimeError if actors cannot be started.
    """
    options = options or RayOptions()
    with cluster(options):
        yield from _Run(items, decode, model, options).rows()


class _Run:
    """One pass over the items: what waits for a decoder, what waits for a model, and the two pools."""

    def __init__(
        self, items: Iterable[ClipItem], decode: DecodeStage, model: ModelStage, options: RayOptions
    ) -> None:
        self.options = options
        self.groups = model.groups(items)
        self.again: deque[Work] = deque()
        self.decoded: deque[Work] = deque()
        decode_cpus, model_cpus, gpus = _shares(options, model.device)
        self.decoders = Pool("decode", maker(decode, decode_cpus), options.decoders, options)
        self.models = Pool("model", maker(model, model_cpus, gpus), options.models, options)
        self.lookout = Lookout()

    def rows(self) -> Iterator[list[ResultRow]]:
        try:
            while self._fill():
                pools = (self.decoders, self.models)
                receipts = [receipt for pool in pools for receipt in pool.calls]
                timeout = min(self.lookout.seconds, *(pool.next_deadline() for pool in pools))
                ray.wait(receipts, timeout=timeout + 0.05, fetch_local=False)  # until the first is there
                self.lookout.look()
                ready, _ = ray.wait(receipts, num_returns=len(receipts), timeout=0, fetch_local=False)
                for receipt in ready:
                    yield from self._collect(receipt)
                for pool in pools:
                    for work, failure in pool.end_overdue():
                        yield from self._try_again(work, failure)
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
            self.decoders.submit(work, work.items)
        return bool(self.decoders.busy or self.decoded or self.models.busy or self._more_to_come())

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

    def _collect(self, receipt: Any) -> Iterator[list[ResultRow]]:
        decoding = receipt in self.decoders.calls
        found = (self.decoders if decoding else self.models).collect(receipt)
        if found is None:
            return
        work, result, failure = found
        if failure is not None:
            yield from self._try_again(work, failure)
        elif decoding:
            work.decoded = result
            self.decoded.append(work)
        else:
            yield from ray.get(result)

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
