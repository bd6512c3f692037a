"""Results of a speed run -> results.json, results.csv, report.html, plots as PNG, and Markdown tables."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.measure.report import plots
from pipelines.measure.report.page import Section, page
from pipelines.measure.report.rows import (
    STAGES,
    Column,
    Group,
    Row,
    flatten,
    fronts,
    groups,
    is_baseline,
)
from pipelines.measure.report.style import Look, as_png, as_svg, looks, matplotlib
from pipelines.measure.report.tables import (
    TextTable,
    comparison_table,
    gap_text,
    marks_text,
    reuse_table,
    scores_table,
    wanted_text,
)
from pipelines.measure.report.trade_off import trade_off
from pipelines.run.results import write_whole
from videoprune.eval.summary import markdown_table


def write_report(results: Mapping[str, Any], folder: str | Path) -> list[Path]:
    """Write everything into `folder`, which is made. -> the files.

    results: see `rows`. Figures need matplotlib: raises ValueError that names the extra where it is missing, after the
    figures' numbers are written.
    """
    rows, out = results["rows"], Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    files = [out / "results.json", out / "results.csv", out / "report.html"]
    write_whole(files[0], json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    _write_csv(rows, files[1])
    matplotlib()
    together, look, metric = groups(rows), looks(rows), results["meta"].get("metric", "")
    sections = []
    for group in together:
        section, images = _draw(
            group,
            look,
            f"-{group.frames}f-{group.concurrency}c" if len(together) > 1 else "",
            [*([comparison_table(group, metric)] if group.measured else []), *_once(group, together)],
        )
        sections.append(section)
        files += _save(images, out)
    load = plots.throughput(together, look)
    pictures = results["frames"]
    sheet = plots.kept_tokens(pictures)
    extra = {"throughput.png": load, "kept-tokens.png": sheet}
    files += _save({name: as_png(fig) for name, fig in extra.items() if fig is not None}, out)
    svg = as_svg(load, "load", "questions per second by concurrency") if load is not None else None
    text = page(results, sections, svg, look)
    write_whole(files[2], text)
    return files


def markdown_tables(results: Mapping[str, Any]) -> str:
    """Tables for a document: speed and accuracy, seconds by stage, tokens and memory, what was refused."""
    together = groups(results["rows"])
    parts = [_measured_how(results["meta"])]
    for group in together:
        if len(together) > 1:
            parts.append(f"### {group.title}\n")
        parts += [_table(group, columns) for columns in (_MAIN, _STAGES, _TOKENS)]
        for table in _once(group, together):
            parts += [f"{table.caption}\n", table.markdown()]
    if results["refused"]:
        parts.append(markdown_table(results["refused"], {"method": "not measured", "reason": "why"}))
    return "\n".join(parts)


def _once(group: Group, together: Sequence[Group]) -> list[TextTable]:
    """Tables of answers, which do not depend on how many clips are in a call: with the first group of its frames."""
    if group is not next(g for g in together if g.frames == group.frames):
        return []
    return [table for table in (scores_table(group), reuse_table(group)) if table.rows]


def _draw(
    group: Group, look: Mapping[str, Look], suffix: str, tables: Sequence[TextTable]
) -> tuple[Section, dict[str, bytes]]:
    """The plots of one group, for the page and as PNG files by name."""
    name = f"g{group.frames}x{group.concurrency}"
    what = "accuracy" if group.measured else "tokens-kept"
    first, notes = trade_off(group, look)
    work, spent = trade_off(group, look, operations=True)
    stages, layers = plots.stages(group), plots.layers(group, look)
    section = Section(
        group,
        tables,
        as_svg(first, f"{name}a", f"{what} against time to first token", notes),
        as_svg(work, f"{name}d", f"{what} against operations up to the first token", spent),
        as_svg(stages, f"{name}b", "seconds by stage"),
        None if layers is None else as_svg(layers, f"{name}c", "tokens by layer"),
    )
    images = {
        f"{what}-by-first-token{suffix}.png": as_png(first),
        f"{what}-by-operations{suffix}.png": as_png(work),
        f"stages{suffix}.png": as_png(stages),
    }
    if layers is not None:
        images[f"layers{suffix}.png"] = as_png(layers)
    return section, images


def _save(images: Mapping[str, bytes], folder: Path) -> list[Path]:
    for name, data in images.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in images]


def _write_csv(rows: Sequence[Row], path: Path) -> None:
    flat = [flatten(row) for row in rows]
    names = list(dict.fromkeys(key for row in flat for key in row))
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, names, restval="")
    writer.writeheader()
    writer.writerows(flat)
    write_whole(path, file.getvalue())


def _measured_how(meta: Mapping[str, Any]) -> str:
    told = [
        f"{meta['model']} on {meta['dataset']}",
        meta["hardware"],
        f"{meta['dtype']} {meta['attention']}",
        ", ".join(f"{k} {v}" for k, v in meta["versions"].items()),
        meta.get("sample") or f"{meta['questions']} questions",
        f"{meta['runs']} timed runs",
    ]
    text = "; ".join(told) + "."
    if not meta["accuracy_measured"]:
        text += " Weights are random: times are true, accuracy was not measured."
    else:
        text += f"\n\n{marks_text(meta.get('metric', ''))}"
    if meta.get("clips"):
        text += f"\n\nFigures are of {meta['clips']}; {meta['chosen_on']}."
    for note in meta.get("notes", ()):
        text += f"\n\nNote: {note}."
    return f"{text}\n\n`{meta['command']}`\n"


def _table(group: Group, columns: Sequence[Column]) -> str:
    """Without the columns that hold nothing; of the unpruned no ratio to itself."""
    lines = []
    for row, label, front in zip(group.rows, group.labels, fronts(group), strict=True):
        line = {c.heading: "" if c.ratio and is_baseline(row) else c.text(row) for c in columns}
        line |= {c.heading: f"{line[c.heading]} ({c.range(row)})" for c in columns if c.range(row)}
        if columns is _MAIN:
            line = _compared(row, front, line)
        lines.append({"method": f"**{label}**" if row["ours"] and columns is _MAIN else label} | line)
    used = [name for name in lines[0] if any(line[name] for line in lines)]
    return markdown_table(lines, used)


def _compared(row: Row, front: str, line: dict[str, str]) -> dict[str, str]:
    """The line with what it is compared at, and how it stands."""
    found = {
        "tokens kept %": line.pop("tokens kept %"),
        "wanted %": wanted_text(row),
        _SCORE: line.pop(_SCORE),
    }
    best = "yes" if row.get("among_best") and not is_baseline(row) else ""
    return found | {_GAP: gap_text(row), "among the best": best, "on the front": front} | line


_SCORE, _GAP = "accuracy % (95 %)", "minus unpruned (95 %)"
_MAIN = (
    Column("tokens kept %", "retention", 100, 1),
    Column(_SCORE, "accuracy.all", 100, 1, interval="accuracy.ci95"),
    Column("same answer %", "accuracy.agreement", 100, 1),
    Column("first token s", "seconds.first_token.median", 1, 3),
    Column("speedup", "speedup.first_token", ratio=True),
    Column("total s", "seconds.total.median", 1, 3),
    Column("speedup of total", "speedup.total", ratio=True),
    Column("end to end s", "seconds.end_to_end.median", 1, 3),
    Column("speedup end to end", "speedup.end_to_end", ratio=True),
    Column("FLOP-ideal", "flop_ideal", ratio=True),
    Column("of ideal %", "share_of_ideal", 100, 0, ratio=True),
)
_STAGES = tuple(Column(f"{s} s", f"seconds.{s}.median", 1, 3) for s in STAGES)
_TOKENS = (
    Column("tokens behind the encoder", "tokens.encoder", 1, 0),
    Column("into the LLM", "tokens.fused", 1, 0),
    Column("at its last layer", "tokens.llm_layers", 1, 0),
    Column("Gflop", "flops.total", 1e-9, 1),
    Column("cache MiB", "kv_bytes", 2**-20, 1),
    Column("peak MiB", "peak_bytes", 2**-20, 0),
    Column("questions/s", "questions_per_second"),
)
