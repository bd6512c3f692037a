"""Labels and places that keep apart."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videoprune.eval.labels import overlap, place_labels, spread


@pytest.mark.parametrize("seed", range(5))
def test_labels_keep_apart_where_there_is_room(seed):
    rng = random.Random(seed)
    anchors = [(rng.uniform(100, 900), rng.uniform(100, 500)) for _ in range(28)]
    anchors[5:9] = [(300, 300), (302, 301), (298, 299), (300, 305)]  # a knot
    sizes = [(rng.uniform(40, 90), 11.0) for _ in anchors]
    boxes = place_labels(anchors, sizes, (0, 0, 1000, 600), radius=6)
    for i, box in enumerate(boxes):
        assert (box[2] - box[0], box[3] - box[1]) == pytest.approx(sizes[i])
        assert box[0] >= 0
        assert box[2] <= 1000
        assert box[1] >= 0
        assert box[3] <= 600
        assert all(overlap(box, other) == 0 for other in boxes[:i])
        assert all(not (box[0] < x < box[2] and box[1] < y < box[3]) for x, y in anchors)


def test_one_label_is_right_beside_its_point():
    assert place_labels([(50, 50)], [(20, 10)], (0, 0, 200, 100), radius=4) == [(54, 45, 74, 55)]
    at_the_edge = place_labels([(195, 50)], [(20, 10)], (0, 0, 200, 100), radius=4)[0]
    assert at_the_edge[2] <= 195
    assert place_labels([], [], (0, 0, 1, 1), radius=1) == []


def test_no_room_still_gives_every_label_a_place():
    assert len(place_labels([(5, 5)] * 4, [(50, 50)] * 4, (0, 0, 10, 10), radius=1)) == 4


@given(st.lists(st.floats(-5, 105), max_size=12), st.floats(0.5, 8))
def test_spread_keeps_order_gap_and_bounds(wanted, gap):
    places = spread(wanted, gap, 0, 100)
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    for a, b in pairwise(order):
        assert places[b] - places[a] >= gap - 1e-6
    assert all(-1e-6 <= p <= 100 + 1e-6 for p in places)
    far = [w for w in wanted if gap < w < 100 - gap]
    if len(far) == 1 and len(wanted) == 1:
        assert places == pytest.approx(far)


def test_spread_moves_as_little_as_it_must():
    assert spread([10, 10], 4, 0, 100) == pytest.approx([8, 12])
    assert spread([90, 10], 4, 0, 100) == [90, 10]
    assert spread([], 1, 0, 1) == []
    assert spread([1, 1, 1], 10, 0, 4) == pytest.approx([0, 2, 4])
