"""Which actor does what next: decoders beside each model, as many as it takes to keep the model busy, and no more
frames waiting than fit. Pure: it is told what happened and says what to do, so that it can be tried without a cluster.

A clip is decoded on the node of the model that will see it, so frames never cross nodes. What waits there is bounded by
bytes. How many decoders a node needs follows from the seconds that decoding and the model took lately.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

W = TypeVar("W")
M = TypeVar("M", bound=Hashable)  # an actor
_SPARE = 1.25  # decoders above what the means ask for: decoding times have a long tail
_LATELY = 400  # groups that the means are over


@dataclass(frozen=True)
class Limits:
    """decoders: least and most of a model. waiting_bytes: of decoded frames on a node, for each of its models; one
    group may always wait."""

    decoders: tuple[int, int] = (1, 1)
    waiting_bytes: int = 256 * 2**20

    def __post_init__(self) -> None:
        least, most = self.decoders
        if not 1 <= least <= most:
            raise ValueError(f"decoders={self.decoders}; allowed: least and most, 1 or more")
        if self.waiting_bytes < 1:
            raise ValueError(f"waiting_bytes={self.waiting_bytes}; allowed: 1 or more")


@dataclass(frozen=True)
class Decode(Generic[M, W]):
    member: M
    work: W


@dataclass(frozen=True)
class Infer(Generic[M, W]):
    member: M
    work: W


@dataclass(frozen=True)
class Start:
    """A decoder on `node`."""

    node: str


@dataclass(frozen=True)
class Stop(Generic[M]):
    """A decoder that is free."""

    member: M


@dataclass
class _Node(Generic[M, W]):
    models: set[M] = field(default_factory=set)
    free_models: list[M] = field(default_factory=list)
    decoders: set[M] = field(default_factory=set)
    free_decoders: list[M] = field(default_factory=list)
    starting: int = 0  # decoders that were asked for and are not here yet
    decoding: int = 0
    waiting: deque[tuple[W, int]] = field(default_factory=deque)

    @property
    def held(self) -> int:
        return sum(size for _, size in self.waiting)


class Schedule(Generic[M, W]):
    """take: the next work, or None when there is none left now."""

    def __init__(self, take: Callable[[], W | None], limits: Limits) -> None:
        self.take, self.limits = take, limits
        self.nodes: dict[str, _Node[M, W]] = {}
        self.decode_seconds: deque[float] = deque(maxlen=_LATELY)
        self.model_seconds: deque[float] = deque(maxlen=_LATELY)
        self.sizes: deque[int] = deque(maxlen=_LATELY)

    @property
    def waiting(self) -> int:
        """Works that are decoded and wait for a model."""
        return sum(len(node.waiting) for node in self.nodes.values())

    def model_at(self, node: str, member: M) -> None:
        """A model is on its way there: decoders may start beside it."""
        self._node(node).models.add(member)

    def model_free(self, node: str, member: M) -> None:
        self._node(node).free_models.append(member)

    def model_gone(self, node: str, member: M) -> list[W]:
        """-> works that wait on a node without any other model: to be decoded elsewhere."""
        found = self._node(node)
        found.models.discard(member)
        _drop(found.free_models, member)
        if found.models:
            return []
        left = [work for work, _ in found.waiting]
        found.waiting.clear()
        return left

    def decoder_at(self, node: str, member: M) -> None:
        """One that `Start` asked for has begun to start."""
        found = self._node(node)
        found.starting = max(0, found.starting - 1)
        found.decoders.add(member)

    def decoder_free(self, node: str, member: M) -> None:
        self._node(node).free_decoders.append(member)

    def decoder_gone(self, node: str, member: M, *, busy: bool) -> None:
        found = self._node(node)
        found.decoders.discard(member)
        _drop(found.free_decoders, member)
        found.decoding -= busy

    def decoded(self, node: str, member: M, work: W, size: int, seconds: float) -> bool:
        """Whether a model will come for it; else it is to be decoded elsewhere."""
        found = self._node(node)
        found.decoding -= 1
        found.free_decoders.append(member)
        self.decode_seconds.append(seconds)
        self.sizes.append(size)
        if found.models:
            found.waiting.append((work, size))
        return bool(found.models)

    def finished(self, node: str, member: M, seconds: float) -> None:
        self.model_seconds.append(seconds)
        self._node(node).free_models.append(member)

    def actions(self) -> list[Decode[M, W] | Infer[M, W] | Start | Stop[M]]:
        """What to do now."""
        found: list[Decode[M, W] | Infer[M, W] | Start | Stop[M]] = []
        for node in self.nodes.values():
            while node.free_models and node.waiting:
                found.append(Infer(node.free_models.pop(), node.waiting.popleft()[0]))
        size = _mean(self.sizes) if self.sizes else 0.0
        open_nodes = [node for node in self.nodes.values() if node.models and node.free_decoders]
        while open_nodes:  # one each in turn, so that no node takes all
            for node in list(open_nodes):
                work = self.take() if node.free_decoders and self._has_room(node, size) else None
                if work is None:
                    open_nodes.remove(node)
                    continue
                node.decoding += 1
                found.append(Decode(node.free_decoders.pop(), work))
        known = self.decode_seconds and self.model_seconds
        lately = (_mean(self.decode_seconds), _mean(self.model_seconds)) if known else None
        for name, node in self.nodes.items():
            found += self._scaled(name, node, self._wanted(len(node.models), lately))
        return found

    def _wanted(self, models: int, lately: tuple[float, float] | None) -> int:
        """Decoders that keep so many models of a node busy. lately: mean seconds of decoding and of the model."""
        least, most = (n * models for n in self.limits.decoders)
        return least if lately is None else min(most, max(least, decoders_for(*lately, models)))

    def _scaled(self, name: str, node: _Node[M, W], wanted: int) -> list[Start | Stop[M]]:
        there = len(node.decoders) + node.starting
        if there < wanted:
            node.starting += wanted - there
            return [Start(name)] * (wanted - there)
        # One that works now may be needed at once: only what stands idle leaves, and not for the sake of one.
        spare = (
            min(len(node.free_decoders), there - wanted) if there > wanted * _SPARE or not node.models else 0
        )
        stopped = [node.free_decoders.pop() for _ in range(spare)]
        node.decoders.difference_update(stopped)
        return [Stop(member) for member in stopped]

    def _has_room(self, node: _Node[M, W], size: float) -> bool:
        """For one more group, with those that are being decoded. size: of a group lately, on average."""
        expected = node.held + (node.decoding + 1) * size
        return expected <= self.limits.waiting_bytes * len(node.models) or not (node.decoding or node.waiting)

    def _node(self, name: str) -> _Node[M, W]:
        return self.nodes.setdefault(name, _Node())


def decoders_for(decode_seconds: float, model_seconds: float, models: int = 1) -> int:
    """How many keep so many models busy. Seconds: of a group, on average."""
    return math.ceil(_SPARE * models * decode_seconds / max(model_seconds, 1e-6))


def _mean(values: deque[float] | deque[int]) -> float:
    return sum(values) / len(values)


def _drop(members: list[M], member: M) -> None:
    if member in members:
        members.remove(member)
