"""Who does what next: against rules that must hold whatever happens, and on paper at size."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.run.schedule import Decode, Infer, Limits, Schedule, Start, Stop
from pipelines.run.simulation import CLIP_BYTES, Simulation

SIZE = 10


class World:
    """Two nodes on which anything may happen in any order; says where a rule was broken."""

    def __init__(self, works: int, limits: Limits, seed: int) -> None:
        self.rng, self.limits = random.Random(seed), limits
        self.left = list(range(works))
        self.schedule: Schedule[Any, int] = Schedule(lambda: self.left.pop() if self.left else None, limits)
        self.models: dict[str, str] = {}  # member: node
        self.free_models: set[str] = set()
        self.decoders: dict[str, str] = {}
        self.starting: set[str] = set()
        self.decoding: dict[str, int] = {}
        self.inferring: dict[str, int] = {}
        self.where: dict[int, str] = {}  # of works that were decoded
        self.done: Counter[int] = Counter()
        self.most: Counter[str] = Counter()
        self.most_decoders = 4 * limits.decoders[1]  # which all decode before a size is known
        self.names = iter(f"m{i}" for i in range(10**6))

    def act(self) -> None:
        for action in self.schedule.actions():
            if isinstance(action, Start):
                name = next(self.names)
                self.decoders[name] = action.node
                self.starting.add(name)
                self.schedule.decoder_at(action.node, name)
            elif isinstance(action, Stop):
                assert action.member not in self.decoding
                del self.decoders[action.member]
            elif isinstance(action, Decode):
                assert action.member in self.decoders
                assert action.member not in self.decoding
                assert action.member not in self.starting
                self.decoding[action.member] = action.work
            else:
                assert isinstance(action, Infer)
                assert action.member in self.free_models
                assert self.models[action.member] == self.where[action.work]  # frames never cross nodes
                self.free_models.discard(action.member)
                self.inferring[action.member] = action.work
        least = self.limits.decoders[0]
        for node in "ab":
            there = sum(n == node for n in self.models.values())
            found = [d for d, n in self.decoders.items() if n == node]
            assert not there or len(found) >= least * there
            self.most[node] = max(self.most[node], there)  # what waits may stay when a model leaves
            waiting = self.schedule.nodes[node].waiting if node in self.schedule.nodes else ()
            room = max(SIZE, self.limits.waiting_bytes * max(1, self.most[node]))
            assert len(waiting) * SIZE <= room + SIZE * self.most_decoders

    def add_model(self) -> None:
        name, node = next(self.names), self.rng.choice("ab")
        self.models[name] = node
        self.schedule.model_at(node, name)
        self.free_models.add(name)
        self.schedule.model_free(node, name)

    def happen(self) -> None:
        """One thing that may happen now."""
        options = [("free", d) for d in self.starting] + [("decoded", d) for d in self.decoding]
        options += [("finished", m) for m in self.inferring]
        if self.rng.random() < 0.2:
            options += [("decoder dies", d) for d in self.decoders] + [("model dies", m) for m in self.models]
        if not options:
            return
        what, member = self.rng.choice(options)
        if what == "free":
            self.starting.discard(member)
            self.schedule.decoder_free(self.decoders[member], member)
        elif what == "decoded":
            work, node = self.decoding.pop(member), self.decoders[member]
            self.where[work] = node
            if not self.schedule.decoded(node, member, work, SIZE, self.rng.random()):
                self.left.append(work)
        elif what == "finished":
            self.done[self.inferring.pop(member)] += 1
            self.free_models.add(member)
            self.schedule.finished(self.models[member], member, self.rng.random())
        elif what == "decoder dies":
            node, work = self.decoders.pop(member), self.decoding.pop(member, None)
            self.starting.discard(member)
            self.schedule.decoder_gone(node, member, busy=work is not None)
            self.left += [] if work is None else [work]
        else:
            node, work = self.models.pop(member), self.inferring.pop(member, None)
            self.free_models.discard(member)
            self.left += self.schedule.model_gone(node, member) + ([] if work is None else [work])
            self.add_model()


@settings(max_examples=60)
@given(
    works=st.integers(0, 30),
    models=st.integers(1, 4),
    decoders=st.sampled_from([(1, 1), (2, 2), (1, 5)]),
    waiting=st.sampled_from([1, 25, 1000]),
    seed=st.integers(0, 10**6),
)
def test_every_work_is_done_once_whatever_dies(
    works: int, models: int, decoders: tuple[int, int], waiting: int, seed: int
) -> None:
    world = World(works, Limits(decoders, waiting), seed)
    for _ in range(models):
        world.add_model()
    for _ in range(6000):
        world.act()
        if len(world.done) == works and not (world.decoding or world.inferring):
            break
        world.happen()
    assert world.done == Counter(range(works))


def test_a_node_gets_the_decoders_that_its_model_needs() -> None:
    """Decoding takes ten times as long as the model, then no longer than it."""
    left = list(range(100))
    schedule: Schedule[Any, int] = Schedule(left.pop, Limits((1, 20)))
    schedule.model_at("a", "model")
    assert schedule.actions() == [Start("a")]
    assert schedule.actions() == []  # it is on its way
    schedule.decoder_at("a", 0)
    schedule.decoder_free("a", 0)
    schedule.model_free("a", "model")
    (first,) = schedule.actions()
    assert isinstance(first, Decode)
    assert schedule.decoded("a", 0, first.work, SIZE, 1.0)
    kinds = Counter(type(action) for action in schedule.actions())
    assert kinds == {Infer: 1, Decode: 1}
    schedule.finished("a", "model", 0.1)
    assert (
        schedule.actions() == [Start("a")] * 12
    )  # ten and a quarter, rounded up, but for the one that is there
    for name in range(1, 13):
        schedule.decoder_at("a", name)
        schedule.decoder_free("a", name)
    schedule.decode_seconds.extend([0.1] * 400)
    busy = {a.member for a in schedule.actions() if isinstance(a, Decode)}
    assert len(busy) == 12
    for name in busy:
        schedule.decoded("a", name, 0, SIZE, 0.1)
    left.clear()
    schedule.take = lambda: None
    stopped = [a for a in schedule.actions() if isinstance(a, Stop)]
    assert len(stopped) == 11  # the one that decodes and one more stay


def test_one_group_may_always_wait() -> None:
    left = [2, 1]
    schedule: Schedule[Any, int] = Schedule(
        lambda: left.pop() if left else None, Limits((2, 2), waiting_bytes=1)
    )
    schedule.model_at("a", "model")
    assert schedule.actions() == [Start("a")] * 2
    for name in range(2):
        schedule.decoder_at("a", name)
        schedule.decoder_free("a", name)
    assert len(schedule.actions()) == 2  # nobody knows yet how large they are
    schedule.decoded("a", 0, 1, 100, 1.0)
    left.append(3)
    assert schedule.actions() == []


@pytest.mark.parametrize("models", [1, 8])
def test_models_never_wait_on_paper(models: int) -> None:
    found = Simulation(models, 800 * models, Limits((1, 16)), per_node=4).run()
    assert found.busy > 0.9
    assert found.clips == 800 * models
    assert found.held_bytes <= min(models, 4) * 256 * 2**20 + 16 * 4 * CLIP_BYTES


def test_eight_models_do_eight_times_as_much_on_paper() -> None:
    one, eight = (Simulation(n, 800 * n, Limits((1, 16))).run() for n in (1, 8))
    assert eight.clips_per_second > 0.9 * 8 * one.clips_per_second


@pytest.mark.parametrize("wrong", [{"decoders": (2, 1)}, {"decoders": (0, 1)}, {"waiting_bytes": 0}])
def test_impossible_limits_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Limits(**wrong)
