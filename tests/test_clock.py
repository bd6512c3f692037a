"""Stretches of time: the wall clock here, events where there is a GPU."""

from __future__ import annotations

import time

import torch

from videoprune.clock import Stopwatch, mark, seconds_between


class Event:
    """An event of a GPU's queue: it has a time, in milliseconds, once somebody has waited for it."""

    def __init__(self, milliseconds):
        self.milliseconds, self.done = milliseconds, False

    def synchronize(self):
        self.done = True

    def elapsed_time(self, last):
        assert last.done, "not reached yet"
        return last.milliseconds - self.milliseconds


def test_between_events_are_seconds_once_the_last_is_reached():
    assert seconds_between(Event(500.0), Event(2000.0)) == 1.5


def test_a_stopwatch_adds_up_what_happens_within():
    watch, device = Stopwatch(), torch.device("cpu")
    first = mark(device)
    for _ in range(2):
        with watch.on(device):
            time.sleep(0.02)
        time.sleep(0.05)
    assert 0.04 <= watch.seconds <= seconds_between(first, mark(device)) - 0.1
