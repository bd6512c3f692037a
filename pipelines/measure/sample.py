"""Which videos of a benchmark are measured: a sample of whole videos with all their questions, even over durations."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipelines.run.stages import ClipItem, group_by_video
from videoprune.eval.metrics import duration_order
from videoprune.types import Sample


def in_turn(samples: Sequence[Sample], seed: int) -> list[ClipItem]:
    """All videos, so ordered that any first part of them is a sample of the whole: drawn by `seed` within each
    duration, durations in turn by their number of videos.

    A benchmark without durations is taken evenly over its file, from a place that `seed` says.
    """
    items = group_by_video(samples)
    if not any(_duration(item) for item in items):
        return _over_the_file(items, seed)
    strata: dict[str, list[ClipItem]] = {}
    for item in items:
        strata.setdefault(_duration(item), []).append(item)
    ordered: list[tuple[float, int, ClipItem]] = []
    for rank, name in enumerate(sorted(strata, key=duration_order)):
        members = strata[name]
        order = np.random.default_rng([seed, rank]).permutation(len(members))
        ordered += [((i + 0.5) / len(members), rank, members[k]) for i, k in enumerate(order)]
    return [item for *_, item in sorted(ordered, key=lambda x: x[:2])]


def limited(items: Sequence[ClipItem], limit: int | None) -> list[ClipItem]:
    """The first of `items` that together have at most `limit` questions; one at least. A larger limit adds to them."""
    found: list[ClipItem] = []
    asked = 0
    for item in items:
        asked += len(item.samples)
        if limit is not None and asked > limit and found:
            break
        found.append(item)
    return found


def sample_facts(items: Sequence[ClipItem], chosen: Sequence[ClipItem], seed: int) -> dict[str, Any]:
    """What was taken of what: numbers in all and by duration, and the names of the videos in their order."""
    names = [video_name(item) for item in chosen]
    by_duration = Counter(_duration(item) for item in chosen)
    return {
        "seed": seed,
        "videos": len(chosen),
        "of_videos": len(items),
        "questions": sum(len(item.samples) for item in chosen),
        "of_questions": sum(len(item.samples) for item in items),
        "by_duration": {name: by_duration[name] for name in sorted(by_duration, key=duration_order) if name},
        "digest": hashlib.sha256("\n".join(names).encode()).hexdigest()[:12],
        "names": names,
    }


def sample_line(facts: dict[str, Any]) -> str:
    """`sample_facts` as a sentence for a report."""
    durations = ", ".join(f"{n} {name}" for name, n in facts["by_duration"].items())
    if facts["videos"] == facts["of_videos"]:
        line = f"all {facts['questions']:,} questions on {facts['videos']:,} videos"
    else:
        line = (
            f"{facts['questions']:,} of {facts['of_questions']:,} questions, "
            f"{facts['videos']:,} of {facts['of_videos']:,} videos, drawn by seed {facts['seed']}"
        )
    return f"{line}{f' ({durations})' if durations else ''}; videos in sample.json, digest {facts['digest']}"


def video_name(item: ClipItem) -> str:
    """As the benchmark calls the video, and until when it is seen."""
    name = item.samples[0].meta.get("video_id", item.video)
    return name if item.until is None else f"{name} until {item.until:g} s"


def _duration(item: ClipItem) -> str:
    return item.samples[0].meta.get("duration", "")


def _over_the_file(items: Sequence[ClipItem], seed: int) -> list[ClipItem]:
    """By the reversed bits of their places (van der Corput): the first 2^k are evenly spaced."""
    bits = max(1, (len(items) - 1).bit_length())
    start = int(np.random.default_rng(seed).integers(len(items)))
    order = sorted(range(len(items)), key=lambda i: int(f"{i:0{bits}b}"[::-1], 2))
    return [items[(i + start) % len(items)] for i in order]
