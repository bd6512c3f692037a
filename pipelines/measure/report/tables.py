"""Tables of a speed report beside its main one: a benchmark's scores, and questions per second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.measure.report.rows import Group, Row, fronts, is_baseline, number, value
from videoprune.eval.summary import markdown_table

_ALL, _MANY = "all", "encode_once_ask_many"
_MOST_GROUPS = 12  # with more, only the figures over all are shown; scores.json has the rest


@dataclass(frozen=True)
class TextTable:
    """headings: of the columns, the first names the row. rows: as many cells each."""

    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        return markdown_table(
            [dict(zip(self.headings, row, strict=True)) for row in self.rows], self.headings
        )


def marks_text(metric: str) -> str:
    """What the marks of a comparison mean. metric: by which settings are compared, where it is not the plain share of
    right answers."""
    own = f"Accuracy is `{metric}`. " if metric not in ("", "accuracy") else ""
    return (
        f"{own}Kept tokens are measured, averaged over the LLM's layers, every visual token counted; methods that "
        "cannot hit the wanted share stand with what they kept below and above it. Among the best at a wanted share: "
        "the best, and all that are not worse than it by more than the 95 % interval of the paired difference; what "
        "kept more (above) is left out. On the front: nothing with measured tokens is both cheaper to the first "
        "token, in time or in operations, and better."
    )


def wanted_text(row: Row) -> str:
    """The wanted share in percent, and on which side of it a searched setting was measured: "25 (below)"."""
    side = f" ({row['side']})" if row.get("side") else ""
    return "" if is_baseline(row) else f"{100 * row['retain']:.3g}{side}"


def gap_text(row: Row) -> str:
    """The accuracy minus the unpruned model's, in points, with its interval."""
    gap, interval = value(row, "accuracy.difference"), value(row, "accuracy.difference_ci95")
    return "" if is_baseline(row) or not interval else difference_text([gap, *interval], 100)


def comparison_table(group: Group, metric: str) -> TextTable:
    """At which share each row is compared, and how it stands."""
    headings = ("method", "kept %", "wanted %", "minus unpruned (95 %)", "among the best", "on the front")
    rows = (
        (
            label,
            f"{100 * row['retention']:.1f}",
            wanted_text(row),
            gap_text(row),
            "yes" if row.get("among_best") and not is_baseline(row) else "",
            front,
        )
        for row, label, front in zip(group.rows, group.labels, fronts(group), strict=True)
    )
    return TextTable(marks_text(metric), headings, tuple(rows))


def scores_table(group: Group) -> TextTable:
    """Each metric over all and by group, with the paired difference to the unpruned; empty without scores."""
    scored = [(row, label) for row, label in zip(group.rows, group.labels, strict=True) if row.get("scores")]
    caption = f"Scores in %, minus unpruned with the 95 % interval by video: {group.frames} frames"
    if not scored:
        return TextTable(caption, ("method",), ())
    columns = [(m, g) for m, figures in scored[0][0]["scores"].items() for g in _shown(figures)]
    headings = tuple(f"{m}: {g} ({_count(scored, m, g)})" for m, g in columns)
    rows = (
        (label, *(_cell(row["scores"].get(m, {}).get(g), is_baseline(row)) for m, g in columns))
        for row, label in scored
    )
    return TextTable(caption, ("method", *headings), tuple(rows))


def reuse_table(group: Group) -> TextTable:
    """Questions per second where a video is encoded once for all its questions; empty where none was asked all."""
    caption = (
        "Questions a second where a video is encoded once for all its questions, which are asked together; medians "
        f"over videos: {group.frames} frames"
    )
    pairs = zip(group.rows, group.labels, strict=True)
    asked = [(row, label) for row, label in pairs if value(row, f"{_MANY}.seconds_per_question")]
    base = next((number(row, f"{_MANY}.seconds_per_question") for row, _ in asked if is_baseline(row)), None)
    headings = ("method", "questions/s", "times unpruned", "with decoding", "questions a video")
    return TextTable(caption, headings, tuple((label, *_rates(row, base)) for row, label in asked))


def difference_text(difference: Sequence[float] | None, factor: float = 1.0) -> str:
    """A difference with its interval, "-1.2 (-3.0 to +0.6)"."""
    if not difference:
        return ""
    middle, low, high = (f"{factor * x:+.1f}" for x in difference)
    return f"{middle} ({low} to {high})"


def _shown(figures: dict[str, Any]) -> list[str]:
    return list(figures) if len(figures) <= _MOST_GROUPS else [_ALL]


def _count(scored: Sequence[tuple[Row, str]], metric: str, group: str) -> int:
    return max(row["scores"].get(metric, {}).get(group, {}).get("n", 0) for row, _ in scored)


def _cell(figure: dict[str, Any] | None, is_base: bool) -> str:
    if figure is None or figure["value"] is None:
        return ""
    gap = "" if is_base else difference_text(figure["difference"])
    return f"{figure['value']:.1f}" + (f"; {gap}" if gap else "")


def _rates(row: Row, base: float | None) -> list[str]:
    many = row[_MANY]
    each, decode = many["seconds_per_question"], many.get("decode_per_question", 0.0)
    times = f"{base / each:.2f}" if base and not is_baseline(row) else ""
    return [f"{1 / each:.2f}", times, f"{1 / (each + decode):.2f}", f"{many['questions']:g}"]
