"""The decoding process: deadlines, crashes, and the programs that it must work in."""

from __future__ import annotations

import importlib
import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from videoprune.types import Outcome
from videoprune.video import Reader, Sampling, VideoError, process

read_module = importlib.import_module("videoprune.video.read")  # the package has a function of this name
HANG = "threading.Event().wait()"
CRASH = "os.kill(os.getpid(), signal.SIGSEGV)"
# The worker, with some of its decoders replaced by a statement.
WORKER = """
import os, signal, sys, threading
from videoprune.video import decord_reader, pyav_reader, worker
def broken(*args, **options): {statement}
for module in ({modules}): module.decode = broken
worker.main()
"""


def _broken_worker(monkeypatch: pytest.MonkeyPatch, statement: str, modules: str) -> None:
    script = WORKER.format(statement=statement, modules=modules)
    monkeypatch.setattr(process, "worker_command", lambda: [sys.executable, "-P", "-c", script])


def test_a_hang_in_decord_is_ended_and_pyav_answers(clips, monkeypatch: pytest.MonkeyPatch) -> None:
    path = clips.write("clip.mp4")
    with Reader(threads=1) as reader:
        _broken_worker(monkeypatch, HANG, "decord_reader,")
        monkeypatch.setattr(read_module, "_DECORD_SHARE", 0.01)
        frames = reader.read(path, deadline_seconds=60.0)
        assert (frames.backend, len(frames), frames.outcome.kind) == ("pyav", 8, "complete")
        assert "decord gave no answer within" in frames.fallback_reason
        monkeypatch.undo()
        reader.close()
        assert reader.read(path).backend == "decord"


def test_a_hang_in_both_ends_at_the_deadline_and_the_next_read_works(
    clips, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = clips.write("clip.mp4")
    with Reader(threads=1) as reader:
        _broken_worker(monkeypatch, HANG, "decord_reader, pyav_reader")
        with pytest.raises(VideoError, match=f"{path.name}: pyav gave no answer .* killed") as caught:
            reader.read(path, deadline_seconds=0.5)
        assert caught.value.reason == "deadline"
        outcome = reader.try_read(path, backend="decord", deadline_seconds=0.2)
        assert isinstance(outcome, Outcome)
        assert outcome.reason.startswith("deadline: ")
        monkeypatch.undo()
        assert len(reader.read(path)) == 8


def test_a_crash_in_decord_is_survived(clips, monkeypatch: pytest.MonkeyPatch) -> None:
    path = clips.write("clip.mp4")
    _broken_worker(monkeypatch, CRASH, "decord_reader,")
    with Reader(threads=1) as reader:
        for _ in range(2):
            frames = reader.read(path)
            assert (frames.backend, frames.fallback_reason) == ("pyav", "decord crashed (signal 11)")
        with pytest.raises(VideoError, match="crashed") as caught:
            reader.read(path, backend="decord")
        assert caught.value.reason == "corrupt"


def test_an_odd_exception_is_the_failure_of_one_file(clips, monkeypatch: pytest.MonkeyPatch) -> None:
    path = clips.write("clip.mp4")
    _broken_worker(monkeypatch, "raise KeyError('odd')", "pyav_reader,")
    with Reader(threads=1) as reader:
        with pytest.raises(VideoError, match="KeyError: 'odd'"):
            reader.read(path, backend="pyav")
        assert len(reader.read(path)) == 8


def test_without_decord_pyav_answers(clips, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import sys; sys.modules['decord'] = None; from videoprune.video.worker import main; main()"
    monkeypatch.setattr(process, "worker_command", lambda: [sys.executable, "-P", "-c", script])
    path = clips.write("clip.mp4")
    with Reader(threads=1) as reader:
        frames = reader.read(path)
        assert (frames.backend, frames.outcome.kind, len(frames)) == ("pyav", "complete", 8)
        assert "decord is not installed" in frames.fallback_reason
        with pytest.raises(VideoError, match="not installed") as caught:
            reader.read(path, backend="decord")
        assert caught.value.reason == "no_decoder"


def test_decord_that_says_it_repeats_frames_is_not_believed(clips, monkeypatch: pytest.MonkeyPatch) -> None:
    complain = "os.write(2, b'[h264 @ 0x1f] bad block\\n'); return real(*args, **options)"
    script = WORKER.format(statement=complain, modules="").replace(
        "worker.main()", "real, decord_reader._decode = decord_reader._decode, broken; worker.main()"
    )
    monkeypatch.setattr(process, "worker_command", lambda: [sys.executable, "-P", "-c", script])
    with Reader(threads=1) as reader:
        frames = reader.read(clips.write("clip.mp4"))
        assert frames.fallback_reason == "decord hides decoding errors: [h264] bad block"


def test_a_worker_that_cannot_start_is_no_fault_of_the_video(clips, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-c", "raise ImportError('no module named av')"]
    monkeypatch.setattr(process, "worker_command", lambda: command)
    with Reader() as reader, pytest.raises(RuntimeError, match="status 1: ImportError: no module named av"):
        reader.read(clips.write("clip.mp4"))


def _process_id(worker: process.DecoderProcess) -> int:
    assert worker._process is not None
    return worker._process.pid


def test_reads_share_one_process_until_close(clips) -> None:
    path = clips.write("clip.mp4")
    worker = process.DecoderProcess()
    request = {"path": str(path), "size": [8, 8], "threads": 1, "backend": "pyav"}
    request["sampling"] = {"policy": "uniform", "max_frames": 3, "fps": None, "timestamps": []}
    header, pixels = worker.ask(request, 30.0)
    assert pixels is not None
    assert (header["kind"], pixels.shape) == ("complete", (3, 8, 8, 3))
    first = _process_id(worker)
    worker.ask(request, 30.0)
    assert _process_id(worker) == first
    worker.close()
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    worker.ask(request, 30.0)
    assert _process_id(worker) != first
    worker.close()


def test_threads_may_share_a_reader(clips, reader: Reader) -> None:
    path = clips.write("clip.mp4")
    seen: dict[int, list[int]] = {}

    def work(count: int) -> None:
        frames = reader.read(path, Sampling(max_frames=count))
        seen[count] = [clips.number(pixels) for pixels in frames.pixels.numpy()]

    threads = [threading.Thread(target=work, args=(count,)) for count in (1, 2, 3, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {n: [int((k + 0.5) * 60 / n) for k in range(n)] for n in (1, 2, 3, 5)}


def test_the_worker_imports_no_torch() -> None:
    check = "import sys, videoprune.video.worker; sys.exit('torch' in sys.modules)"
    root = Path(process.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", check], cwd=root, check=False).returncode == 0


def test_the_worker_ends_with_its_caller() -> None:
    worker = subprocess.Popen(
        process.worker_command(),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        cwd=Path(process.__file__).parents[2],
        env=process.worker_environment(),
    )
    worker.communicate(timeout=60)
    assert worker.returncode == 0


def test_a_script_from_stdin_that_forks(clips) -> None:
    """No importable main module, and a forked child that must leave its parent's process alone."""
    script = f"""
import os, sys
sys.path.insert(0, {str(Path(process.__file__).parents[2])!r})
from videoprune.video import Reader, read
reader = Reader(threads=1)
path = {str(clips.write("clip.mp4"))!r}
before = len(read(path, size=(8, 8))), len(reader.read(path, size=(8, 8)))
pid = os.fork()
if pid == 0:
    inside = len(read(path, size=(8, 8))), len(reader.read(path, size=(8, 8)))
    sys.exit(0 if inside == (8, 8) else 3)
status = os.waitpid(pid, 0)[1]
after = len(read(path, size=(8, 8))), len(reader.read(path, size=(8, 8)))
print(before, status, after)
"""
    (clips.folder / "types.py").write_text("raise SystemExit('a module of the current folder was imported')")
    done = subprocess.run(
        [sys.executable, "-P", "-"],
        input=script,
        capture_output=True,
        text=True,
        cwd=clips.folder,
        check=False,
    )
    assert done.stdout.strip() == "(8, 8) 0 (8, 8)", done.stderr


def test_messages_survive_the_way() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)[:, ::-1]
    pipe = io.BytesIO()
    process.send(pipe, {"path": "ü"}, pixels)
    process.send(pipe, {"n": 1})
    data = pipe.getvalue()
    pipe.seek(0)
    header = process.receive(pipe)
    assert header == {"path": "ü", "shape": [2, 2, 2, 3]}
    np.testing.assert_array_equal(process.receive_pixels(pipe, header["shape"]), pixels)
    assert process.receive(pipe) == {"n": 1}
    assert process.receive(pipe) is None
    assert process.receive(io.BytesIO(data[:9])) is None
    with pytest.raises(EOFError):
        process.receive_pixels(io.BytesIO(b"abc"), [2, 3])
