"""How long a run will take, what it will wait for and how many decoders that asks for, from a few of its videos."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from pipelines.duration import duration
from pipelines.run.model_stage import ModelStage
from pipelines.run.schedule import decoders_for
from pipelines.run.stages import ClipItem, DecodedClip, DecodeStage, Failure

VIDEOS = 6
_MIB = 2**20


@dataclass(frozen=True)
class Tried:
    """Of a few videos: seconds of a clip in each stage, bytes of its frames and of a question's row; why the others
    could not be read."""

    videos: list[str]
    decode: list[float]
    model: list[float]
    frame_bytes: list[int]
    row_bytes: list[int]
    failed: dict[str, str]


def try_videos(
    items: Sequence[ClipItem], decode: DecodeStage, model: ModelStage, count: int = VIDEOS
) -> Tried:
    """Run both stages on `count` of the videos, evenly spaced. The stages must not have been set up.

    Raises ValueError if none of them can be read."""
    chosen = [items[i * len(items) // count] for i in range(min(count, len(items)))]
    try:
        decode.setup()
        model.setup()
        decode.process(chosen[0])  # the first also starts what decodes
        clips = [decode.process(item) for item in chosen]
        failed = {c.item.video: c.frames.reason for c in clips if isinstance(c.frames, Failure)}
        readable = [c for c in clips if c.item.video not in failed]
        if not readable:
            raise ValueError(
                f"videos: none of {len(clips)} can be read; first: {next(iter(failed.values()))}"
            )
        seconds, rows = _asked(readable, model)
    finally:
        decode.close()
        model.close()
    return Tried(
        [c.item.video for c in readable],
        [c.seconds for c in readable],
        seconds,
        [c.nbytes for c in readable],
        rows,
        failed,
    )


def _asked(clips: Sequence[DecodedClip], model: ModelStage) -> tuple[list[float], list[int]]:
    """Seconds of each clip, in the groups that a run makes, and bytes of each row."""
    seconds: list[float] = []
    sizes: list[int] = []
    left = iter(clips)
    for group in model.groups([clip.item for clip in clips]):
        began = time.perf_counter()
        rows = model.process_all([next(left) for _ in group])
        seconds += [(time.perf_counter() - began) / len(group)] * len(group)
        sizes += [len(json.dumps(row)) for clip in rows for row in clip]
    return seconds, sizes


def forecast_text(found: Tried, items: Sequence[ClipItem], *, models: int, workers: tuple[int, int]) -> str:
    """For a run with so many models, and decoders beside each between these two."""
    videos, questions = len(items), sum(len(item.samples) for item in items)
    decode, model = mean(found.decode), mean(found.model)
    needed = max(1, decoders_for(decode, model))
    most = min(workers[1], max(workers[0], needed))
    alone = videos * model / models
    by_stage = {"decoding": videos * decode / (models * most), "the model": alone}
    waits = max(by_stage, key=lambda s: by_stage[s])
    on_disk = sum(map(_size, items))
    written = questions * mean(found.row_bytes)
    lines = [
        f"Tried on {len(found.videos)} videos: {', '.join(Path(v).name for v in found.videos)}.",
        f"A clip: decoding {_spread(found.decode)} s of one core, the model {_spread(found.model)} s; "
        f"frames {max(found.frame_bytes) / _MIB:.1f} MiB.",
        f"All {videos:,} videos with {questions:,} questions, {_number(models, 'model')} and up to "
        f"{_number(most, 'decoder')} beside each: {duration(by_stage[waits])}, waiting for {waits}.",
        f"A model that never waits takes {duration(alone)} and asks for {_number(needed, 'decoder')}, as many cores: "
        f"--workers 1:{needed}.",
        f"Reads {on_disk / _MIB:,.0f} MiB of videos, writes {written / _MIB:,.1f} MiB of rows.",
        *(f"Not to be read: {video}: {reason}" for video, reason in found.failed.items()),
        "Decoders and models were timed one after the other here; on cores that they share both are slower.",
    ]
    return "\n".join(lines)


def _size(item: ClipItem) -> int:
    """Bytes of its video; 0 where nobody said."""
    if item.known is not None:
        return item.known.size or 0
    return Path(item.video).stat().st_size if Path(item.video).is_file() else 0


def _number(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.2f} ({min(values):.2f} to {max(values):.2f})"
