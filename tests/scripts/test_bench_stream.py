"""The bench of hours of a stream, on minutes of one."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_stream.py"


@pytest.mark.filterwarnings("ignore:llm.lambda_")
def test_minutes_of_a_stream(tmp_path, monkeypatch, capsys):
    words = ["--hours", "0.17", "--max-visual-tokens", "96", "--max-steps", "24"]
    monkeypatch.setattr(sys, "argv", ["bench_stream.py", *words, "--out", str(tmp_path / "stream.json")])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    looks = json.loads((tmp_path / "stream.json").read_text())["looks"]
    assert [look["minute"] for look in looks] == [10, 10]
    assert [look["frames"] for look in looks] == [600, 612]
    for look in looks:
        assert 48 <= look["tokens"] <= 96
        assert look["steps"] <= 24
        assert 0 <= look["still"] < look["frames"]
        assert look["first_token_ms"] > 0
        assert look["rss_mib"] > 100
    told = capsys.readouterr().out
    assert "from minute 10 on: tokens" in told
    assert "times as fast" in told
