"""Bytes of live tensors, counted by hand."""

from __future__ import annotations

import torch

from pipelines.measure.live_bytes import LiveBytes

KIB = 1024


def test_what_is_alive_at_the_same_time():
    given = torch.zeros(256)
    with LiveBytes() as found:
        a = torch.zeros(256)  # 1 KiB
        b = a + given  # 2
        assert found.now == found.peak == 2 * KIB
        del a
        assert found.now == KIB
        c = torch.cat([b, b])  # 3
        del b
        assert (found.now, found.peak, found.largest) == (2 * KIB, 3 * KIB, 2 * KIB)
    assert c.sum() == 0


def test_a_view_keeps_the_whole_and_what_was_there_before_is_not_counted():
    given = torch.zeros(4, 256)
    with LiveBytes() as found:
        given[1].add_(1)
        assert found.now == 0
        view = (given + 1)[0]
        assert found.now == 4 * KIB
        again = view[:3]
        del view
        assert found.now == 4 * KIB
        del again
        assert found.now == 0
    assert found.peak == 4 * KIB
