"""Settings just below and just above a wanted retention, for methods that cannot hit it.

Retention is measured, the average over the LLM's layers from the traces of a few clips. Some methods keep only about
the share they are told (`OverClip.exact` is False), others follow a schedule inside the LLM: their own share,
`encoder.keep` or `llm.keep`, is searched for. Nothing is interpolated: both settings are run, and both stand in the
tables.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.measure.calls import ReadClip
from pipelines.measure.plan import Setting, is_at
from pipelines.run.results import write_whole
from videoprune.config import PruneConfig
from videoprune.engine import Engine
from videoprune.prune.counts import by_lambda
from videoprune.prune.registry import OVER_CLIP
from videoprune.types import Encoded

CLIPS = 3
_SMALLEST = 1 / 1024
_STEPS = 6  # of bisection, once one share is below and one above


@dataclass(frozen=True)
class Near:
    """A method's own share, and the retention that was measured with it."""

    share: float
    retention: float


def searched(prune: PruneConfig) -> str | None:
    """The setting that is searched for, or None where the count is the method's to hit, or `llm.lambda_`'s."""
    over = OVER_CLIP.get(prune.encoder.method)
    schedule = prune.llm.method != "none" and not by_lambda(prune.llm)
    if over is not None and not over.exact:
        return "encoder.keep"
    if schedule and prune.encoder.method == prune.fusion.method == "none":
        return "llm.keep"
    return "encoder.keep" if schedule and prune.llm.ratios and prune.encoder.method != "none" else None


def nearest(measure: Callable[[float], float], wanted: float, start: float) -> list[Near]:
    """The shares whose measured retention comes nearest to `wanted` below and above it; one alone if it is at it, or
    where the method reaches only one side.

    measure: share in (0, 1] -> retention, growing with it, perhaps in steps. start: where the search begins. Raises
    ValueError if `measure` does at `start`; elsewhere that is an end of what can be reached.
    """
    seen = {start: Near(start, measure(start))}
    if is_at(seen[start].retention, wanted):
        return [seen[start]]

    def at(share: float) -> Near | None:
        if share not in seen:
            try:
                seen[share] = Near(share, measure(share))
            except ValueError:
                return None
        return seen[share]

    def around() -> tuple[Near | None, Near | None]:
        """Those that come nearest from below and from above."""
        below = (n for n in seen.values() if n.retention < wanted)
        above = (n for n in seen.values() if n.retention > wanted)
        return max(below, key=_order, default=None), min(above, key=_order, default=None)

    low = high = start
    while seen[low].retention > wanted and (found := at(max(_SMALLEST, round(low / 2, 6)))):
        if found.share == low:
            break
        low = found.share
    while seen[high].retention < wanted and high < 1 and (found := at(min(1.0, round(high * 2, 6)))):
        high = found.share
    for _ in range(_STEPS):
        below, above = around()
        if below is None or above is None or any(is_at(n.retention, wanted) for n in seen.values()):
            break
        if at(round((below.share + above.share) / 2, 6)) is None:
            break
    hits = [n for n in seen.values() if is_at(n.retention, wanted)]
    if hits:
        return [min(hits, key=lambda n: abs(n.retention - wanted))]
    # Where many shares keep the same, the one nearest to what the method was told is the one to name.
    return [
        min((m for m in seen.values() if m.retention == n.retention), key=lambda m: abs(m.share - start))
        for n in around()
        if n is not None
    ]


def bracketed(
    engine: Engine, setting: Setting, clips: Sequence[ReadClip], kept: Path | None = None
) -> list[Setting]:
    """`setting` itself where it hits its retention on `clips` or has no share to search for, else those around it.

    kept: the file of what was found, so that a run that goes on has the same settings.
    """
    key = searched(setting.config)
    if key is None or not clips:
        return [setting]
    part, _, name = key.partition(".")
    own = float(getattr(getattr(setting.config, part), name))
    known: dict[str, Any] = json.loads(kept.read_text()) if kept and kept.exists() else {}
    entry = f"{setting.label} {setting.config.digest()}"
    if entry not in known:
        encoded = (
            encoded_by(engine, setting.config, clips) if part == "llm" else None
        )  # the same at every share
        measure = lambda share: measured_retention(  # noqa: E731
            engine, setting.config.replace(**{key: share}), clips, encoded
        )
        known[entry] = [[n.share, n.retention] for n in nearest(measure, setting.retain, own)]
        if kept:
            write_whole(kept, json.dumps(known, indent=1) + "\n")
    found = [Near(*pair) for pair in known[entry]]
    if [n.share for n in found] == [own] and is_at(found[0].retention, setting.retain):
        return [setting]
    return [
        Setting(setting.method, setting.retain, setting.config.replace(**{key: n.share}), n.share)
        for n in found
    ]


def encoded_by(engine: Engine, prune: PruneConfig, clips: Sequence[ReadClip]) -> list[list[Encoded]]:
    ready = engine.with_prune(prune)
    return [ready.encode([clip.frames]) for clip in clips]


def measured_retention(
    engine: Engine,
    prune: PruneConfig,
    clips: Sequence[ReadClip],
    encoded: Sequence[list[Encoded]] | None = None,
) -> float:
    """The average over the first question about each clip. encoded: what the encoder makes of them, if known."""
    ready = engine.with_prune(prune)
    traces = [
        ready.answer(one, clip.item.samples[:1], max_new_tokens=1)[0].trace
        for clip, one in zip(clips, encoded or encoded_by(engine, prune, clips), strict=True)
    ]
    return sum(t.retention for t in traces) / len(traces)


def _order(near: Near) -> tuple[float, float]:
    return near.retention, near.share
