"""The bench of many viewers, with two of them."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_viewers.py"


def test_viewers_are_answered_and_come_back(tmp_path, monkeypatch, capsys):
    words = ["--streams", "1", "--viewers", "2", "--seconds", "12", "--pause", "1"]
    monkeypatch.setattr(sys, "argv", ["bench_viewers.py", *words, "--out", str(tmp_path / "viewers.json")])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    found = json.loads((tmp_path / "viewers.json").read_text())["found"]
    assert found["errors"] == {}
    assert 2 <= found["answered"] <= found["asked"] <= found["answered"] + 1  # one connection is cut half way
    assert found["connections"] == 5  # a camera and a viewer twice
    assert found["pictures"] > 0
    stream = found["of_one_stream"]
    assert 0 < stream["encoded"] <= stream["received"] <= found["sent"]
    low, high, worst = found["first_ms"]
    assert 0 < low <= high <= worst
    assert "errors: {}" in capsys.readouterr().out
