"""Tables of scores for a terminal. Split and protocol stand above every number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

_DETAIL = " · "  # groups within groups stay in the file


def print_scores(scores: dict[str, Any], title: str, console: Console) -> None:
    """Percent by group, a column per metric, and what is to be known about them."""
    metrics = scores["metrics"]
    table = Table("group", "questions", title=title)
    for name in metrics:
        table.add_column(f"{name} %", justify="right")
    for group in dict.fromkeys(g for figures in metrics.values() for g in figures if _DETAIL not in g):
        cells = [figures.get(group, {}) for figures in metrics.values()]
        count = max((cell.get("n", 0) for cell in cells), default=0)
        if not count and group != "all":
            continue
        table.add_row(group, str(count), *(_cell(cell) for cell in cells), end_section=group == "all")
    console.print(table)
    for note in scores["notes"]:
        console.print(f"note: {note}", soft_wrap=True)


def print_accuracy(summary: Mapping[str, Any], title: str, console: Console) -> None:
    """The scores of questions with options: all with their interval, by category, by duration."""
    figures, counts = summary["accuracy"], summary["counts"]
    table = Table("group", "questions", "accuracy %", title=title)
    low, high = figures["overall_ci95"]
    overall = f"{100 * figures['overall']:.1f} ({100 * low:.1f} to {100 * high:.1f})"
    table.add_row("all", str(counts["questions"]), overall, end_section=True)
    for part in ("by_category", "by_duration"):
        for name, score in figures[part].items():
            table.add_row(name, str(score["n"]), f"{100 * score['accuracy']:.1f}")
        table.add_section()
    console.print(table)


def cost_line(summary: Mapping[str, Any]) -> str:
    """What one question took on average: seconds by stage, of shared work its share, and visual tokens."""
    seconds = summary["seconds"]
    stages = ", ".join(f"{stage} {value:.3f}" for stage, value in seconds.items())
    line = f"a question takes {sum(seconds.values()):.3f} s ({stages})"
    tokens = summary["tokens"]
    if tokens["measured"]:
        line += (
            f"; visual tokens: {tokens['dense']:.0f} dense, {tokens['fused']:.0f} fused, "
            f"{tokens['llm_average']:.1f} in the LLM's layers on average"
        )
    return line


def _cell(figure: dict[str, Any]) -> str:
    if figure.get("value") is None:
        return ""
    interval = figure.get("ci95")
    shown = f"{figure['value']:.2f}"
    return f"{shown} ({interval[0]:.1f} to {interval[1]:.1f})" if interval else shown
