"""The first plot of a speed report: accuracy against time to first token, the front drawn, methods named."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.measure.report.pareto import pareto
from pipelines.measure.report.rows import Group, Row, is_baseline, number, value
from pipelines.measure.report.style import INK, MUTED, Look, figure, styled
from videoprune.eval.labels import nearest, place_labels

MOST_NAMES = 30  # with more points, only some are named
_RIVALS_NAMED = 3  # at each share
NOT_MEASURED = "accuracy not measured (random weights): share of tokens kept instead"
_SOME_NAMED = f"; of the rivals the {_RIVALS_NAMED} best at each share are named"


def trade_off(
    group: Group, look: Mapping[str, Look], *, operations: bool = False
) -> tuple[Any, dict[str, str]]:
    """Accuracy (or, where it was not measured, the share of visual tokens kept) against time to first token.

    operations: against the operations up to the first token instead, choosing tokens included: what does not depend
    on the machine, and shows what a small model's overheads hide.
    -> the figure, and what each point says under the pointer, by id. Lines: what no method beats, and 95 % intervals.
    """
    path = "accuracy.all" if group.measured else "retention"
    drawn = [(r, t) for r, t in zip(group.rows, group.labels, strict=True) if number(r, path) is not None]
    spent = _operations if operations else _seconds
    points = [(spent(r), 100 * (number(r, path) or 0.0)) for r, _ in drawn]
    with styled():
        fig = figure(10.5, 6.6)
        fig.set_layout_engine("none")  # labels are placed in pixels, which must stay
        axes = fig.add_axes((0.075, 0.095, 0.905, 0.785))
        front = pareto(points)
        axes.plot(*_steps([points[i] for i in front]), color=MUTED, lw=1.3, ls=(0, (5, 3)), zorder=1)
        notes = {}
        for i, ((row, label), (x, y)) in enumerate(zip(drawn, points, strict=True)):
            style = look[row["method"]]
            order = 4 if style.ours else 3
            (mark,) = axes.plot(
                x, y, ls="", marker=style.marker, ms=style.size, color=style.colour, mec="none", zorder=order
            )
            mark.set_gid(f"point-{i}")
            notes[f"point-{i}"] = _note(row, label, operations=operations)
        unit = "Gflop up to the first token   ← less work" if operations else None
        axes.set_xlabel(unit or "time to first token, seconds (median)   ← faster")
        axes.set_ylabel(
            "correct answers, %" if group.measured else "visual tokens kept, average over LLM layers, %"
        )
        times = [x for x, _ in points] or [1.0]
        axes.margins(0.09)
        axes.set_xlim(left=0.0 if min(times) < 0.4 * max(times) else None)
        cost = "work" if operations else "time"
        axes.set_title(f"{_what(group)} against {cost} to first token: {group.title}", y=1.055)
        named = _named(drawn, points, front, look)
        said = _subtitle(drawn, group) + ("" if len(named) == len(drawn) else _SOME_NAMED)
        axes.text(0, 1.02, said, transform=axes.transAxes, fontsize=9, color=MUTED)
        _label_points(fig, axes, drawn, points, front, named, look)
    return fig, notes


def _named(
    drawn: Sequence[tuple[Row, str]],
    points: Sequence[tuple[float, float]],
    front: Sequence[int],
    look: Mapping[str, Look],
) -> list[int]:
    """Which points get a name: all, or of many ours, the unpruned, the front, and the best rivals at each share."""
    every = range(len(drawn))
    if len(drawn) <= MOST_NAMES:
        return list(every)
    rows = [row for row, _ in drawn]
    chosen = {i for i in every if look[rows[i]["method"]].ours or is_baseline(rows[i])} | set(front)
    for share in {row["retain"] for row in rows}:
        rivals = [i for i in every if rows[i]["retain"] == share and i not in chosen]
        chosen |= set(sorted(rivals, key=lambda i: -points[i][1])[:_RIVALS_NAMED])
    return sorted(chosen)


def _seconds(row: Row) -> float:
    return number(row, "seconds.first_token.median") or 0.0


def _operations(row: Row) -> float:
    return sum(number(row, f"flops.{stage}") or 0.0 for stage in ("encoder", "prune", "prefill")) / 1e9


def _what(group: Group) -> str:
    return "Accuracy" if group.measured else "Tokens kept"


def _steps(front: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """A front as a stair: what it gives stays until the next point is paid for."""
    x: list[float] = []
    y: list[float] = []
    for cost, gain in front:
        if y:
            x.append(cost)
            y.append(y[-1])
        x.append(cost)
        y.append(gain)
    return x, y


def _subtitle(drawn: Sequence[tuple[Row, str]], group: Group) -> str:
    """What the dashes mean, and how sure the accuracies are."""
    said = "dashed: nothing is both cheaper and better than these"
    if not group.measured:
        return f"{NOT_MEASURED}; {said}"
    halves = [50 * (i[1] - i[0]) for i in (value(r, "accuracy.ci95") for r, _ in drawn) if i]
    if not halves:
        return said
    return f"{said}; 95 % interval of a single accuracy: about ±{statistics.median(halves):.1f}"


def _note(row: Row, label: str, *, operations: bool) -> str:
    """What a point says under the pointer."""
    parts = [label, f"{100 * row['retention']:.1f} % of the visual tokens"]
    accuracy = number(row, "accuracy.all")
    if accuracy is not None:
        parts.append(f"{100 * accuracy:.1f} % correct")
    if operations:
        return ", ".join([*parts, f"{_operations(row):.3g} Gflop up to the first token"])
    parts.append(f"first token after {number(row, 'seconds.first_token.median'):.3g} s")
    speedup = number(row, "speedup.first_token")
    if speedup is not None:
        parts.append(f"{speedup:.2f} times as fast")
    return ", ".join(parts)


def _label_points(
    fig: Any,
    axes: Any,
    drawn: Sequence[tuple[Row, str]],
    points: Sequence[tuple[float, float]],
    front: Sequence[int],
    named: Sequence[int],
    look: Mapping[str, Look],
) -> None:
    """The points `named` get names, over no other name; thin lines lead to those that had to move away."""
    if not points:
        return
    texts = []
    for row, label in (drawn[i] for i in named):
        style = look[row["method"]]
        bold = style.ours or is_baseline(row)
        colour = style.colour if style.ours else INK if is_baseline(row) else MUTED
        texts.append(
            axes.text(
                0, 0, label, fontsize=9.5, fontweight="bold" if bold else "normal", color=colour, zorder=5
            )
        )
    fig.canvas.draw()
    renderer, scale = fig.canvas.get_renderer(), fig.dpi / 72
    extents = [t.get_window_extent(renderer) for t in texts]
    sizes = [(e.width + 2 * scale, e.height + 1 * scale) for e in extents]
    places = [tuple(p) for p in axes.transData.transform(points)]
    anchors = [places[i] for i in named]
    shown = set(named)
    others = [[p, p] for i, p in enumerate(places) if i not in shown]
    stair = axes.transData.transform(list(zip(*_steps([points[i] for i in front]), strict=True)))
    area = axes.get_window_extent(renderer)
    bounds = (area.x0 + 2, area.y0 + 2, area.x1, area.y1)
    boxes = place_labels(
        anchors, sizes, bounds, radius=6.5 * scale, lines=[[tuple(p) for p in stair], *others]
    )
    back = axes.transData.inverted()
    for text, box, (x, y) in zip(texts, boxes, anchors, strict=True):
        text.set_position(back.transform((box[0] + scale, box[1] + 1.5 * scale)))
        text.set_verticalalignment("bottom")
        near = nearest(box, (x, y))
        if ((near[0] - x) ** 2 + (near[1] - y) ** 2) ** 0.5 > 14 * scale:
            start, end = back.transform((x, y)), back.transform(near)
            axes.plot([start[0], end[0]], [start[1], end[1]], color=MUTED, lw=0.6, zorder=2, alpha=0.8)
