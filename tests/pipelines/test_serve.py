"""`videoprune serve` as a user gives it."""

from __future__ import annotations

import importlib.util
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pytest

from pipelines.cli import main

pytest.importorskip("fastapi")
_DEADLINE = 180


def test_it_serves_until_it_is_interrupted(clips: Path):
    """From the first line to the end, with a source, in a process of its own."""
    source = f"clip={clips / 'data' / 'moving_shapes_001.mp4'}"
    command = [sys.executable, "-m", "pipelines.cli", "serve", "--model", "llava-demo", "--device", "cpu"]
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [*command, "--port", "0", "--source", source],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        said: queue.Queue[str] = queue.Queue()
        threading.Thread(target=lambda: said.put(process.stdout.readline()), daemon=True).start()  # type: ignore[union-attr]
        line = said.get(timeout=_DEADLINE)
        assert line.startswith("http://127.0.0.1:"), line
        with urllib.request.urlopen(f"{line.split()[0]}api/streams", timeout=_DEADLINE) as answer:
            (stream,) = json.load(answer)["streams"]
        assert (stream["name"], stream["kind"], stream["label"]) == ("clip", "file", "moving_shapes_001.mp4")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=_DEADLINE)
        assert process.returncode == 0, errors
        assert "Traceback" not in errors
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--host", "0.0.0.0"], "host='0.0.0.0' lets others in; allowed: --token"),
        (["--token", "short"], "token: too short"),
        (["--port", "70000"], "port=70000; allowed: 0"),
        (["--host", "203.0.113.7", "--token", "a-long-secret"], "host='203.0.113.7', port=8000:"),
        (["--port", "0", "--tls", "one.pem"], "tls='one.pem'; allowed: self-signed, or CERT,KEY"),
        (["--port", "0", "--allow-files", "/nowhere"], "allow-files='/nowhere': no such folder"),
        (["--port", "0", "--source", "gopher://a"], "the scheme 'gopher' is not read"),
        (["--port", "0", "--fps", "0"], "fps=0.0"),
    ],
)
def test_a_mistake_is_one_sentence(words: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    assert main(["serve", "--model", "llava-demo", "--device", "cpu", *words]) == 2
    errors = capsys.readouterr().err
    assert said in errors
    assert "Traceback" not in errors


def test_what_is_missing_is_named_with_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else find(name))
    assert main(["serve"]) == 2
    assert "serve needs uvicorn: pip install 'videoprune[serve]'" in capsys.readouterr().err
