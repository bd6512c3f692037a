"""Ten kills; `make chaos` has a hundred."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.harness import Harness

pytestmark = pytest.mark.filterwarnings("ignore")


def test_no_row_is_lost_and_none_comes_twice_whatever_is_killed(tmp_path: Path) -> None:
    harness = Harness(tmp_path, kills=10, seed=1, clips=16, gap=4.0)
    try:
        found = harness.go()
    finally:
        harness.close()
    assert found.kills.total() == 10
    assert len(found.kills) >= 7  # of eight kinds, where disks can be mounted
    assert found.answered == found.questions > 0
    assert (found.lost, found.doubled, found.hung) == (0, 0, 0)
