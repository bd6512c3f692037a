"""Makes the MovingShapes benchmark: real mp4 files, and rows in the columns of Video-MME.

    <out>/benchmark.json      what this folder holds, written first
    <out>/data/<videoID>.mp4  each written beside its place, then renamed
    <out>/test.jsonl          one row per question, written last

Shapes: T frames, C frames of a chunk, S side in pixels.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Protocol, TypeVar

import av
import numpy as np
from numpy.typing import NDArray

from videoprune.eval.benchmarks.moving_shapes.plan import ClipPlan, Row, check_seed, plan_clip
from videoprune.eval.benchmarks.moving_shapes.render import render
from videoprune.eval.benchmarks.moving_shapes.scene import Scene
from videoprune.eval.benchmarks.moving_shapes.splits import split_named

FORMAT = 1  # raise it when clips are drawn or encoded differently; scenes and rows have their own digest
Spec = dict[str, int | float | str]


class Plan(Protocol):
    """What a folder needs to know of a video: its name without extension, and its rows."""

    @property
    def stem(self) -> str: ...
    @property
    def rows(self) -> Sequence[Row]: ...


P = TypeVar("P", bound=Plan)
_NOISE = 6.0  # standard deviation of the sensor noise, grey levels; `render` has the same default
_CHUNK = 32  # frames drawn at a time: bounds memory to about 80 MB at side 224
# Without `mbtree`: with it, x264's AVX-512 code gave unequal bytes for equal frames (it read stale memory).
_ENCODER = {"crf": "23", "preset": "veryfast", "mbtree": "0"}


def make_benchmark(
    out: Path,
    *,
    clips: int = 200,
    seed: int = 0,
    split: str = "standard",
    size: int = 224,
    fps: float | None = None,
    workers: int | None = None,
) -> Path:
    """Write the benchmark into the folder `out` and return it.

    split: standard or hard. size: side of the square frames, pixels, even. fps: frames per second; None: the split's.
    workers: processes; None takes one per usable core. They are spawned, so a script that calls this needs
    `if __name__ == "__main__":`.
    The same arguments give the same rows and frames, and with one version of the libraries the same bytes.
    A finished folder is left alone; a half-written one is completed.
    Raises ValueError for impossible arguments, or if `out` holds something else.
    """
    out, fps = Path(out), split_named(split).fps if fps is None else fps
    check_made(clips, seed, size, fps, workers)
    plans = [plan_clip(i, seed, split) for i in range(clips)]
    spec: Spec = {"format": FORMAT, "seed": seed, "clips": clips, "size": size, "fps": float(fps)}
    spec |= {} if split == "standard" else {"split": split}
    return write_folder(out, plans, spec, partial(_write_plan, size=size, fps=fps), workers)


def write_folder(
    out: Path, plans: Sequence[P], spec: Spec, write: Callable[[P, Path], None], workers: int | None
) -> Path:
    """Make or complete the folder `out` of the videos and rows of `plans`, which `spec` names.

    write: makes one video; it must be one that can be pickled.
    """
    _claim(out, spec | {"plan": _digest(plans)})
    rows_path = out / "test.jsonl"
    missing = [plan for plan in plans if not _video_path(out, plan).exists()]
    if not missing and rows_path.exists():
        return out
    (out / "data").mkdir(exist_ok=True)
    _write_all(write, missing, [_video_path(out, plan) for plan in missing], workers)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for plan in plans for row in plan.rows)
    _write_whole(rows_path, text)
    return out


def clip_frames(scene: Scene, size: int, fps: float, *, chunk: int = _CHUNK) -> Iterator[NDArray[np.uint8]]:
    """All frames of `scene` in order, frame i at i / fps seconds, as uint8 (C, S, S, 3) RGB chunks.

    Each frame has its own noise generator, so the frames do not depend on `chunk`.
    """
    count = round(scene.duration * fps)
    for first in range(0, count, chunk):
        numbers = np.arange(first, min(first + chunk, count))
        pixels, _ = render(scene, numbers / fps, size, noise=0.0)
        for frame, number in zip(pixels, numbers, strict=True):
            # `+ 1`: a generator seeded with [s, 0] repeats the one seeded with s, which drew the texture.
            rng = np.random.default_rng([scene.background_seed, int(number) + 1])
            noisy = rng.standard_normal(frame.shape[:2], dtype=np.float32)[..., None] * np.float32(_NOISE)
            noisy = noisy + frame + np.float32(0.5)  # the cast below rounds down
            frame[:] = np.clip(noisy, 0, 255).astype(np.uint8)
        yield pixels


def write_clip(scene: Scene, path: Path, *, size: int, fps: float) -> None:
    """Encode `scene` as H.264, yuv420p, in `path` (mp4). The file appears whole or not at all."""
    write_chunks(clip_frames(scene, size, fps), path, size=size, fps=fps)


def write_chunks(chunks: Iterable[NDArray[np.uint8]], path: Path, *, size: int, fps: float) -> None:
    """As `write_clip`, of frames (C, S, S, 3) that are drawn while they are written."""
    rate = Fraction(fps).limit_denominator(1001)
    partly = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with av.open(str(partly), "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=rate, options=dict(_ENCODER))
            stream.width = stream.height = size
            stream.pix_fmt = "yuv420p"
            stream.codec_context.thread_count = 1  # more threads may change the bytes
            stream.codec_context.time_base = 1 / rate
            for number, image in enumerate(chain.from_iterable(chunks)):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = number, 1 / rate
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        os.replace(partly, path)
    finally:
        partly.unlink(missing_ok=True)


def _write_plan(plan: ClipPlan, path: Path, *, size: int, fps: float) -> None:
    write_clip(plan.scene, path, size=size, fps=fps)


def _write_all(
    write: Callable[[P, Path], None], plans: Sequence[P], paths: Sequence[Path], workers: int | None
) -> None:
    count = min(workers or _usable_cores(), len(plans))
    if count <= 1:
        for plan, path in zip(plans, paths, strict=True):
            write(plan, path)
        return
    # Spawned, not forked: the caller may hold threads of torch or of a decoder.
    with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(write, plans, paths))


def split_of(folder: Path) -> str:
    """The split that a folder of `make_benchmark` holds; `standard` for a folder without a note."""
    note = Path(folder) / "benchmark.json"
    return str(json.loads(note.read_text()).get("split", "standard")) if note.exists() else "standard"


def _claim(out: Path, spec: Spec) -> None:
    """Note in `out` what it will hold; refuse a folder that holds, or may hold, something else."""
    note = out / "benchmark.json"
    if note.exists():
        try:
            found = json.loads(note.read_text())
        except ValueError as error:
            raise ValueError(f"out={out}: {note.name} cannot be read: {error}") from error
        if found != spec:
            raise ValueError(
                f"out={out} holds another benchmark: {found}; wanted {spec}. Name another folder."
            )
        return
    strange = [name for name in ("data", "test.jsonl") if (out / name).exists()]
    if strange:
        raise ValueError(
            f"out={out} has {' and '.join(strange)} but no {note.name}, so it holds something else. "
            "Name another folder."
        )
    out.mkdir(parents=True, exist_ok=True)
    _write_whole(note, json.dumps(spec, indent=2) + "\n")


def check_made(clips: int, seed: int, size: int, fps: float, workers: int | None) -> None:
    check_seed(seed)
    if clips < 1:
        raise ValueError(f"clips={clips}; allowed: 1 or more")
    if size < 32 or size % 2:
        raise ValueError(f"size={size}; allowed: even numbers from 32 on")
    if not 1 <= fps <= 120:
        raise ValueError(f"fps={fps}; allowed: 1 to 120")
    if workers is not None and workers < 1:
        raise ValueError(f"workers={workers}; allowed: 1 or more, or None")


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _video_path(out: Path, plan: Plan) -> Path:
    return out / "data" / f"{plan.stem}.mp4"


def _digest(plans: Sequence[Plan]) -> str:
    """Names scenes and rows: a folder made by an older version of the scenes is not taken for this one."""
    return hashlib.sha256(repr(list(plans)).encode()).hexdigest()[:12]


def _write_whole(path: Path, text: str) -> None:
    partly = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    partly.write_text(text, encoding="utf-8")
    os.replace(partly, path)
