"""The first plot of a speed report: accuracy against time to first token, the front drawn, methods named."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

from pipelines.measure.report.pareto import pareto
from pipelines.measure.report.rows import (
    Group,
    Row,
    first_token_operations,
    first_token_seconds,
    is_baseline,
    number,
    value,
)
from pipelines.measure.report.style import INK, MUTED, Look, figure, styled
from videoprune.eval.labels import nearest, place_labels

MOST_NAMES = 30  # with more points, only some are named
_RIVALS_NAMED = 3  # at each share
_LINE = 135  # letters under the title
NOT_MEASURED = "accuracy not measured (random weights): share of tokens kept instead"
_SOME_NAMED = f"; of the rivals the {_RIVALS_NAMED} best at each share are named"


@dataclass(frozen=True)
class _Point:
    """at: what a row cost, and what it gives."""

    row: Row
    label: str
    at: tuple[float, float]


def trade_off(
    group: Group, look: Mapping[str, Look], *, operations: bool = False
) -> tuple[Any, dict[str, str]]:
    """Accuracy (or, where it was not measured, the share of visual tokens kept) against time to first token.

    operations: against the operations up to the first token instead, choosing tokens included: what does not depend
    on the machine, and shows what a small model's overheads hide.
    -> the figure, and what each point says under the pointer, by id. Lines: what no method beats, and 95 % intervals.
    """
    path = "accuracy.all" if group.measured else "retention"
    spent = first_token_operations if operations else first_token_seconds
    points = [
        _Point(row, label, (spent(row), 100 * gain))
        for row, label in zip(group.rows, group.labels, strict=True)
        if (gain := number(row, path)) is not None
        and number(row, "retention") is not None
        and spent(row) > 0  # operations that could not be reckoned are none
    ]
    front = [points[i] for i in pareto([p.at for p in points])]
    named = _named(points, front, look)
    said = wrap(_subtitle(points, group) + ("" if len(named) == len(points) else _SOME_NAMED), _LINE)
    with styled():
        fig = figure(10.5, 6.6)
        fig.set_layout_engine("none")  # labels are placed in pixels, which must stay
        axes = fig.add_axes((0.075, 0.095, 0.905, 0.81 - 0.025 * len(said)))
        axes.plot(*_steps(front), color=MUTED, lw=1.3, ls=(0, (5, 3)), zorder=1)
        notes = {}
        for i, point in enumerate(points):
            style = look[point.row["method"]]
            order = 4 if style.ours else 3
            (mark,) = axes.plot(
                *point.at,
                ls="",
                marker=style.marker,
                ms=style.size,
                color=style.colour,
                mec="none",
                zorder=order,
            )
            mark.set_gid(f"point-{i}")
            notes[f"point-{i}"] = _note(point, operations=operations)
        unit = "Gflop up to the first token   ← less work" if operations else None
        axes.set_xlabel(unit or "time to first token, seconds (median)   ← faster")
        axes.set_ylabel(
            "correct answers, %" if group.measured else "visual tokens kept, average over LLM layers, %"
        )
        times = [p.at[0] for p in points] or [1.0]
        axes.margins(0.09)
        axes.set_xlim(left=0.0 if min(times) < 0.4 * max(times) else None)
        cost = "work" if operations else "time"
        title = f"{_what(group)} against {cost} to first token: {group.title}"
        axes.set_title(title, y=1.025 + 0.03 * len(said))
        axes.text(0, 1.02, "\n".join(said), transform=axes.transAxes, fontsize=9, color=MUTED, va="bottom")
        _label_points(axes, points, front, named, look)
    return fig, notes


def _named(points: Sequence[_Point], front: Sequence[_Point], look: Mapping[str, Look]) -> list[_Point]:
    """Which points get a name: all, or of many ours, the unpruned, the front, and the best rivals at each share."""
    if len(points) <= MOST_NAMES:
        return list(points)
    own = [p for p in points if look[p.row["method"]].ours or is_baseline(p.row) or p in front]
    for share in {p.row["retain"] for p in points}:
        rivals = [p for p in points if p.row["retain"] == share and p not in own]
        own += sorted(rivals, key=lambda p: -p.at[1])[:_RIVALS_NAMED]
    return own


def _what(group: Group) -> str:
    return "Accuracy" if group.measured else "Tokens kept"


def _steps(front: Sequence[_Point]) -> tuple[list[float], list[float]]:
    """A front as a stair: what it gives stays until the next point is paid for."""
    x: list[float] = []
    y: list[float] = []
    for cost, gain in (p.at for p in front):
        if y:
            x.append(cost)
            y.append(y[-1])
        x.append(cost)
        y.append(gain)
    return x, y


def _subtitle(points: Sequence[_Point], group: Group) -> str:
    """What the dashes mean, and how sure the accuracies are."""
    said = "percent: visual tokens kept, as measured; dashed: nothing is both cheaper and better than these"
    if not group.measured:
        return f"{NOT_MEASURED}; {said}"
    halves = [50 * (i[1] - i[0]) for i in (value(p.row, "accuracy.ci95") for p in points) if i]
    if not halves:
        return said
    return f"{said}; 95 % interval of a single accuracy: about ±{statistics.median(halves):.1f}"


def _note(point: _Point, *, operations: bool) -> str:
    """What a point says under the pointer."""
    row = point.row
    parts = [point.label, f"{100 * row['retention']:.1f} % of the visual tokens"]
    accuracy = number(row, "accuracy.all")
    if accuracy is not None:
        parts.append(f"{100 * accuracy:.1f} % correct")
    if operations:
        return ", ".join([*parts, f"{first_token_operations(row):.3g} Gflop up to the first token"])
    parts.append(f"first token after {number(row, 'seconds.first_token.median'):.3g} s")
    speedup = number(row, "speedup.first_token")
    if speedup is not None:
        parts.append(f"{speedup:.2f} times as fast")
    return ", ".join(parts)


def _label_points(
    axes: Any,
    points: Sequence[_Point],
    front: Sequence[_Point],
    named: Sequence[_Point],
    look: Mapping[str, Look],
) -> None:
    """The points `named` get names, over no other name; thin lines lead to those that had to move away."""
    if not points:
        return
    fig = axes.get_figure()
    texts = []
    for point in named:
        style, base = look[point.row["method"]], is_baseline(point.row)
        weight = "bold" if style.ours or base else "normal"
        colour = style.colour if style.ours else INK if base else MUTED
        texts.append(axes.text(0, 0, point.label, fontsize=9.5, fontweight=weight, color=colour, zorder=5))
    fig.canvas.draw()
    renderer, scale = fig.canvas.get_renderer(), fig.dpi / 72
    extents = [t.get_window_extent(renderer) for t in texts]
    sizes = [(e.width + 2 * scale, e.height + 1 * scale) for e in extents]
    place = lambda point: tuple(axes.transData.transform(point.at))  # noqa: E731
    others = [[place(p)] * 2 for p in points if p not in named]
    stair = axes.transData.transform(list(zip(*_steps(front), strict=True)))
    area = axes.get_window_extent(renderer)
    bounds = (area.x0 + 2, area.y0 + 2, area.x1, area.y1)
    boxes = place_labels(
        [place(p) for p in named],
        sizes,
        bounds,
        radius=6.5 * scale,
        lines=[[tuple(p) for p in stair], *others],
    )
    back = axes.transData.inverted()
    for text, box, (x, y) in zip(texts, boxes, map(place, named), strict=True):
        text.set_position(back.transform((box[0] + scale, box[1] + 1.5 * scale)))
        text.set_verticalalignment("bottom")
        near = nearest(box, (x, y))
        if ((near[0] - x) ** 2 + (near[1] - y) ** 2) ** 0.5 > 14 * scale:
            start, end = back.transform((x, y)), back.transform(near)
            axes.plot([start[0], end[0]], [start[1], end[1]], color=MUTED, lw=0.6, zorder=2, alpha=0.8)
