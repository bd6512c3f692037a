"""The other plots of a speed report. Each takes rows that may be compared and gives a matplotlib figure."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.measure.report.rows import STAGES, Group, Row, is_baseline, number, value
from pipelines.measure.report.style import (
    INK,
    LINE,
    MUTED,
    STAGE_COLOURS,
    Look,
    figure,
    styled,
)
from videoprune.eval.labels import spread


def stages(group: Group) -> Any:
    """Seconds of every stage, stacked, a bar for each row, fastest on top."""
    rows = sorted(zip(group.rows, group.labels, strict=True), key=lambda x: _total(x[0]))
    with styled():
        fig = figure(10.5, 1.7 + 0.36 * len(rows))
        axes = fig.add_subplot()
        longest = max((_total(r) for r, _ in rows), default=1.0) or 1.0
        used = [s for s in STAGES if any(number(r, f"seconds.{s}.median") for r, _ in rows)]
        for place, (row, _) in enumerate(rows):
            left = 0.0
            for stage in used:
                width = number(row, f"seconds.{stage}.median") or 0.0
                axes.barh(place, width, left=left, height=0.72, color=STAGE_COLOURS[stage], lw=0)
                left += width
            axes.text(left + longest / 100, place, _total_text(row, left), va="center", fontsize=9.5)
        _name_rows(axes, rows)
        for stage in used:
            axes.barh(0, 0, color=STAGE_COLOURS[stage], label=stage)
        axes.set_xlim(0, longest * 1.18)
        axes.set_ylim(len(rows) - 0.45, -0.55)
        axes.set_xlabel("seconds (medians)")
        axes.grid(axis="y", visible=False)
        axes.set_title(f"Where the time goes: {group.title}", pad=34)
        if used:
            axes.legend(
                ncols=len(used) or 1,
                loc="lower left",
                bbox_to_anchor=(0, 1.0),
                borderaxespad=0.2,
                handlelength=1,
            )
    return fig


def layers(group: Group, look: Mapping[str, Look]) -> Any | None:
    """Visual tokens by LLM layer, in percent of the unpruned: a panel for each share.

    None where no row tells its layers.
    """
    pruned = [r for r in group.rows if not is_baseline(r) and value(r, "tokens.llm_layers")]
    if not pruned:
        return None
    shares = sorted({r["retain"] for r in pruned}, reverse=True)
    dense = next((value(r, "tokens.llm_layers") for r in group.rows if is_baseline(r)), None)
    with styled():
        fig = figure(10.5, 1.0 + 3.1 * len(shares))
        panels = fig.subplots(len(shares), 1, squeeze=False, sharey=True)[:, 0]
        for share, axes in zip(shares, panels, strict=True):
            same = [r for r in pruned if r["retain"] == share]
            _lines(axes, same, dense, look)
            axes.set_xlabel("LLM layer")
            axes.set_ylabel("tokens, % of unpruned")
            kept = [100 * r["retention"] for r in same]
            axes.set_title(
                f"{min(kept):.1f} to {max(kept):.1f} % of the visual tokens kept (wanted: {100 * share:.3g})"
            )
        fig.suptitle(f"Tokens by layer: {group.title}", x=0.01, ha="left", fontsize=12, fontweight="bold")
    return fig


def throughput(rows: Sequence[Group], look: Mapping[str, Look]) -> Any | None:
    """Questions per second over the unpruned, by concurrency. None with fewer than two of them."""
    by_setting: dict[Any, list[tuple[int, float, str, str]]] = {}  # a label tells what was measured, by group
    frames = max(g.frames for g in rows) if rows else 0
    for group in rows:
        base = next((number(r, "questions_per_second") for r in group.rows if is_baseline(r)), None)
        for row, label in zip(group.rows, group.labels, strict=True):
            rate = number(row, "questions_per_second")
            if base and rate and group.frames == frames and not is_baseline(row):
                key = row["method"], row["retain"], row.get("share")
                by_setting.setdefault(key, []).append((group.concurrency, rate / base, row["method"], label))
    if len({c for points in by_setting.values() for c, *_ in points}) < 2:
        return None
    with styled():
        fig = figure(10.5, 5)
        axes = fig.add_subplot()
        ends = []
        for points in sorted(by_setting.values(), key=lambda p: p[-1][3]):
            style = look[points[0][2]]
            x, y = [c for c, *_ in points], [v for _, v, *_ in points]
            axes.plot(
                x,
                y,
                color=style.colour,
                marker=style.marker,
                lw=2.4 if style.ours else 1.1,
                ms=6,
                clip_on=False,
            )
            ends.append((y[-1], points[-1][3], style))
        axes.axhline(1, color=INK, lw=1)
        axes.set_xscale("log", base=2)
        every = sorted({c for points in by_setting.values() for c, *_ in points})
        axes.set_xticks(every, [str(c) for c in every])
        axes.set_xlim(every[0] / 1.1, every[-1])
        axes.set_xlabel("questions at once")
        axes.set_ylabel("questions per second, unpruned = 1")
        axes.set_title(f"Does it last under load? {frames} frames")
        _end_labels(axes, ends)
    return fig


def kept_tokens(pictures: Sequence[Mapping[str, str]]) -> Any | None:
    """The pictures of kept tokens on one sheet. None without any."""
    from matplotlib.image import imread

    if not pictures:
        return None
    shown = [imread(io.BytesIO(base64.b64decode(p["png_base64"]))) for p in pictures]
    height, width = shown[0].shape[:2]
    columns = 1 if width > 2 * height else min(3, len(shown))
    count = -(-len(shown) // columns)
    with styled():
        fig = figure(10.5, 0.4 + count * (10.5 / columns * height / width + 0.35))
        for axes in fig.subplots(count, columns, squeeze=False).flat:
            axes.axis("off")
        for axes, picture, pixels in zip(fig.axes, pictures, shown, strict=False):
            axes.imshow(pixels, interpolation="nearest")
            axes.set_title(f"{picture['method']}: {picture['title']}", fontsize=10)
    return fig


def _total(row: Row) -> float:
    return sum(number(row, f"seconds.{s}.median") or 0.0 for s in STAGES)


def _total_text(row: Row, seconds: float) -> str:
    speedup = number(row, "speedup.total")
    return f"{seconds:.3g} s" + (
        f"  ({speedup:.2f}x)" if speedup is not None and not is_baseline(row) else ""
    )


def _name_rows(axes: Any, rows: Sequence[tuple[Row, str]]) -> None:
    axes.set_yticks(range(len(rows)), [label for _, label in rows])
    axes.tick_params(axis="y", length=0)
    for tick, (row, _) in zip(axes.get_yticklabels(), rows, strict=True):
        tick.set_fontweight("bold" if row.get("ours", False) or is_baseline(row) else "normal")


def _lines(
    axes: Any,
    members: Sequence[Row],
    dense: Sequence[float] | None,
    look: Mapping[str, Look],
) -> None:
    """One stair for all methods with the same counts; their names stand at its end."""
    same: dict[tuple[float, ...], list[Row]] = {}
    for row in members:
        counts = value(row, "tokens.llm_layers")
        if counts:
            first = dense[0] if dense else value(row, "tokens.dense") or counts[0]
            same.setdefault(tuple(round(100 * c / first, 1) for c in counts), []).append(row)
    ends = []
    for shares, owners in same.items():
        style = min((look[r["method"]] for r in owners), key=lambda x: not x.ours)
        x, y = range(len(shares) + 1), [*shares, shares[-1]]
        axes.step(
            x,
            y,
            where="post",
            clip_on=False,
            color=style.colour,
            lw=2.6 if style.ours else 1.2,
            zorder=3 if style.ours else 2,
        )
        ends.append((shares[-1], _names([r["method"] for r in owners]), style))
    axes.set_ylim(0, 104)
    axes.set_xlim(0, max((len(s) for s in same), default=1))
    axes.axhline(100, color=LINE, lw=1)
    _end_labels(axes, ends)


def _names(labels: Sequence[str]) -> str:
    return ", ".join(labels) if len(labels) <= 3 else f"{', '.join(labels[:2])} and {len(labels) - 2} more"


def _end_labels(axes: Any, ends: Sequence[tuple[float, str, Look]]) -> None:
    """Names at the right ends of lines, moved apart."""
    low, high = axes.get_ylim()
    points = axes.get_figure().get_size_inches()[1] * 72 * axes.get_position().height
    places = spread([y for y, _, _ in ends], 11.5 * (high - low) / points, low, high)
    for (y, name, style), place in zip(ends, places, strict=True):
        axes.annotate(
            name,
            xy=(1, y),
            xycoords=("axes fraction", "data"),
            xytext=(1.025, place),
            textcoords=("axes fraction", "data"),
            va="center",
            fontsize=8.5,
            color=style.colour if style.ours else MUTED,
            fontweight="bold" if style.ours else "normal",
            arrowprops={
                "arrowstyle": "-",
                "color": style.colour,
                "lw": 0.6,
                "shrinkA": 1,
                "shrinkB": 0,
                "relpos": (0, 0.5),
            },
            annotation_clip=False,
        )
