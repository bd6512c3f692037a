"""How long a speed run will take, where it will wait and how much memory it needs, from a few of its videos.

Every setting is run as the plan runs it, but on these videos alone; nothing is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from statistics import mean
from typing import Any

from pipelines.duration import duration
from pipelines.measure.calls import Call, ReadClip, alone, readable, together
from pipelines.measure.memory import TooMuchMemoryError, forget_cache, memory_limits
from pipelines.measure.plan import Plan, Setting
from pipelines.measure.run import ask_clip
from pipelines.measure.timed import decoder, device_of, peak_of, ready, timed
from pipelines.measure.turns import explained
from pipelines.run.stages import ClipItem
from videoprune.clock import now
from videoprune.engine import Engine
from videoprune.eval.benchmarks.base import Recipe
from videoprune.eval.summary import markdown_table

VIDEOS = 3
_MIB = 2**20
_NOTHING = (0.0, 0.0, 0.0)
Span = tuple[
    float, float, float
]  # seconds: expected, if all videos were as quick as the quickest, as the slowest


@dataclass(frozen=True)
class Step:
    """One setting with so many clips in a call. seconds: of a clip, by where they are spent. whole: of one timed call,
    warm. reason: why it cannot be measured."""

    setting: Setting
    frames: int
    concurrency: int
    seconds: Mapping[str, float]
    whole: Span = _NOTHING
    peak_bytes: int | None = None
    reason: str = ""

    @property
    def waits_for(self) -> str:
        """The stage that the others wait for where they overlap."""
        return max(self.seconds, key=lambda stage: self.seconds[stage]) if self.seconds else ""


@dataclass(frozen=True)
class Forecast:
    """steps: what was tried. asking: seconds to ask all questions, by setting and frames. decoding: all videos."""

    steps: list[Step]
    asking: dict[tuple[str, int], Span]
    decoding: Span
    videos: list[str]

    def of(self, label: str, frames: int, plan: Plan) -> Span:
        """All that one setting does with one number of frames: rounds with their warm-up, memory, questions."""
        mine = [s for s in self.steps if (s.setting.label, s.frames) == (label, frames) and not s.reason]
        rounds = _times(
            _added([s.whole for s in mine]), plan.runs + 1 + 2
        )  # memory is measured with two calls
        return _added([rounds, self.asking.get((label, frames), _NOTHING)])

    def total(self, plan: Plan) -> Span:
        parts = [self.of(label, frames, plan) for frames in plan.frames for label in plan.labels]
        return _added([*parts, self.decoding])


def forecast(
    engine: Engine, items: Sequence[ClipItem], plan: Plan, recipe: Recipe | None, videos: int = VIDEOS
) -> Forecast:
    """Try `plan` on the first `videos` of `items` that can be read, one of each duration where they take turns.

    Raises ValueError if none can be read.
    """
    steps: list[Step] = []
    asking: dict[tuple[str, int], Span] = {}
    decoding, names = _NOTHING, []
    for frames in plan.frames:
        with closing(decoder(engine, frames, recipe)) as decode:
            next(readable(decode, items), None)  # the first also starts what decodes
            clips = list(islice(readable(decode, items), videos))
            if not clips:
                raise ValueError("videos: none can be read; allowed: at least one to plan with")
            names = [clip.item.video for clip in clips]
            took = _span([clip.seconds for clip in clips])
            passes = len(items) * plan.answers + sum(plan.runs if c == 1 else c for c in plan.concurrency)
            decoding = _added([decoding, _times(took, passes)])
            for setting in plan.settings:
                steps += [_tried(engine, setting, frames, clips, count, plan) for count in plan.concurrency]
                if plan.answers:
                    each = _span([_asked(engine, setting, clip, plan) for clip in clips])
                    asking[(setting.label, frames)] = _times(each, len(items))
    return Forecast(steps, asking, decoding, names)


def forecast_text(found: Forecast, plan: Plan, questions: int) -> str:
    """Two tables, the total, and the sentences that say what they are."""
    parts = [
        f"Tried on {len(found.videos)} videos: {', '.join(found.videos)}. Seconds of a clip:",
        markdown_table([_step_cells(step) for step in found.steps], _STEP_COLUMNS).rstrip(),
        "The whole run, with the spread as if all videos were like the quickest or the slowest of these:",
        markdown_table(
            [*_time_cells(found, plan)], ("setting", "frames", "timed calls", "questions", "time")
        ).rstrip(),
    ]
    waits = _waits(found)
    settings = len(plan.settings)
    asked = questions * settings * len(plan.frames) if plan.answers else 0
    peaks = [step.peak_bytes for step in found.steps if step.peak_bytes is not None]
    memory = f"; at most {max(peaks) / _MIB:,.0f} MiB above the loaded model" if peaks else ""
    parts += [
        waits,
        f"Total: {_shown(found.total(plan))} for {settings} settings and {asked:,} answers{memory}. Shares of "
        "methods that cannot hit a retention would first be searched for, which is not in it.",
    ]
    return "\n\n".join(parts) + "\n"


_STEP_COLUMNS = (
    "setting",
    "frames",
    "at once",
    "decode",
    "encode",
    "LLM",
    "waits for",
    "peak MiB",
    "not possible",
)


def _tried(
    engine: Engine, setting: Setting, frames: int, clips: Sequence[ReadClip], count: int, plan: Plan
) -> Step:
    one, several = ready(engine, setting), together(clips, count)
    calls = [alone(clip) for clip in clips] if count == 1 or several is None else [several]
    try:
        timed(one, calls[0], plan.max_new_tokens)  # the first is slower
        rows = [_walled(one, call, plan) for call in calls]
        peak = peak_of(one, calls[0], plan.max_new_tokens)
        return Step(setting, frames, count, _parts(rows, count), _span([r["wall"] for r in rows]), peak)
    except TooMuchMemoryError as error:
        reason = explained(error)
    forget_cache()
    return Step(setting, frames, count, {}, reason=reason)


def _walled(engine: Engine, call: Call, plan: Plan) -> dict[str, Any]:
    started = now(device_of(engine))
    row = timed(engine, call, plan.max_new_tokens)
    return row | {"wall": now(device_of(engine)) - started}


def _asked(engine: Engine, setting: Setting, clip: ReadClip, plan: Plan) -> float:
    one = ready(engine, setting)
    started = now(device_of(one))
    with memory_limits():
        ask_clip(one, clip, plan.max_new_tokens)
    return now(device_of(one)) - started


def _parts(rows: Sequence[Mapping[str, Any]], count: int) -> dict[str, float]:
    """Seconds of a clip: decoding, all up to the LLM with choosing, the LLM."""
    each = lambda *stages: mean(sum(r[s] for s in stages) for r in rows) / count  # noqa: E731
    return {
        "decode": each("decode"),
        "encode": each("preprocess", "encode", "prune", "fuse"),
        "LLM": each("prefill", "generate"),
    }


def _step_cells(step: Step) -> dict[str, Any]:
    peak = "" if step.peak_bytes is None else f"{step.peak_bytes / _MIB:,.0f}"
    named = {"setting": step.setting.label, "frames": step.frames, "at once": step.concurrency}
    seconds = {stage: f"{value:.3f}" for stage, value in step.seconds.items()}
    return named | seconds | {"waits for": step.waits_for, "peak MiB": peak, "not possible": step.reason}


def _time_cells(found: Forecast, plan: Plan) -> list[dict[str, Any]]:
    return [
        {
            "setting": label,
            "frames": frames,
            "timed calls": _shown(_minus(found.of(label, frames, plan), asking)),
            "questions": _shown(asking) if plan.answers else "",
            "time": _shown(found.of(label, frames, plan)),
        }
        for frames in plan.frames
        for label in plan.labels
        for asking in [found.asking.get((label, frames), _NOTHING)]
    ]


def _waits(found: Forecast) -> str:
    """Which stage takes longest, by clips at once."""
    said = []
    for count in sorted({s.concurrency for s in found.steps}):
        stages: dict[str, list[str]] = {}
        for step in found.steps:
            if step.concurrency == count and step.waits_for:
                stages.setdefault(step.waits_for, []).append(step.setting.label)
        longest = [f"{stage} under {', '.join(dict.fromkeys(found))}" for stage, found in stages.items()]
        said += [f"{count} at once {'; '.join(longest)}"] if longest else []
    overlap = "Where stages overlap, as in `videoprune eval`, the others wait for it."
    return f"What takes longest: with {'. With '.join(said)}. {overlap}" if said else overlap


def _span(values: Sequence[float]) -> Span:
    return mean(values), min(values), max(values)


def _added(spans: Sequence[Span]) -> Span:
    columns = [sum(column) for column in zip(*spans, strict=True)] or list(_NOTHING)
    return columns[0], columns[1], columns[2]


def _times(span: Span, factor: float) -> Span:
    return span[0] * factor, span[1] * factor, span[2] * factor


def _minus(span: Span, other: Span) -> Span:
    return span[0] - other[0], span[1] - other[1], span[2] - other[2]


def _shown(span: Span) -> str:
    middle, low, high = map(duration, span)
    return f"{middle} ({low} to {high})"
