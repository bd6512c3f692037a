"""Results of a speed run -> results.json, results.csv, report.html, plots as PNG, and Markdown tables."""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.measure.report import plots
from pipelines.measure.report.page import Section, page
from pipelines.measure.report.rows import (
    STAGES,
    Group,
    Row,
    check,
    flatten,
    groups,
    is_baseline,
    number,
    value,
)
from pipelines.measure.report.style import Look, as_png, as_svg, looks, matplotlib
from pipelines.measure.report.trade_off import trade_off
from videoprune.eval.summary import markdown_table


def write_report(results: Mapping[str, Any], folder: str | Path) -> list[Path]:
    """Write everything into `folder`, which is made. -> the files.

    results: see `speed_rows`. Rows that lack something are listed among the refused, with the reason. Figures need
    matplotlib: raises ValueError that names the extra where it is missing, after the figures' numbers are written.
    """
    rows, refused = check(results)
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    files = [out / "results.json", out / "results.csv", out / "report.html"]
    files[0].write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    _write_csv(rows, files[1])
    matplotlib()
    together, look = groups(rows), looks(rows)
    sections = []
    for group in together:
        section, images = _draw(
            group, look, f"-{group.frames}f-{group.concurrency}c" if len(together) > 1 else ""
        )
        sections.append(section)
        files += _save(images, out)
    load = plots.throughput(together, look)
    pictures = list(results.get("frames") or [])
    sheet = plots.kept_tokens(pictures)
    extra = {"throughput.png": load, "kept-tokens.png": sheet}
    files += _save({name: as_png(fig) for name, fig in extra.items() if fig is not None}, out)
    svg = as_svg(load, "load", "questions per second by concurrency") if load is not None else None
    files[2].write_text(
        page(results["meta"], sections, refused, _shown(pictures), svg, look), encoding="utf-8"
    )
    return files


def markdown_tables(results: Mapping[str, Any]) -> str:
    """Tables for a document: speed and accuracy, seconds by stage, tokens and memory, what was refused."""
    rows, refused = check(results)
    together = groups(rows)
    parts = [_measured_how(results["meta"])]
    for group in together:
        if len(together) > 1:
            parts.append(f"### {group.title}\n")
        parts += [_main_table(group), _stage_table(group), _token_table(group)]
    if refused:
        parts.append(markdown_table(refused, {"method": "not measured", "reason": "why"}))
    return "\n".join(parts)


def _draw(group: Group, look: Mapping[str, Look], suffix: str) -> tuple[Section, dict[str, bytes]]:
    """The plots of one group, for the page and as PNG files by name."""
    name = f"g{group.frames}x{group.concurrency}"
    what = "accuracy" if group.measured else "tokens-kept"
    first, notes = trade_off(group, look)
    work, spent = trade_off(group, look, operations=True)
    stages, layers = plots.stages(group), plots.layers(group, look)
    section = Section(
        group,
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


def _shown(pictures: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    found = [(p, plots.picture_bytes(p)) for p in pictures]
    return [
        (str(p.get("method", "")), str(p.get("title", "")), base64.b64encode(data).decode())
        for p, data in found
        if data
    ]


def _write_csv(rows: Sequence[Row], path: Path) -> None:
    flat = [flatten(row) for row in rows]
    names = list(dict.fromkeys(key for row in flat for key in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(flat)


def _measured_how(meta: Mapping[str, Any]) -> str:
    hardware = meta.get("hardware") or {}
    versions = meta.get("versions") or {}
    told = [
        f"{meta.get('model', '')} on {meta.get('dataset', '')}",
        ", ".join(str(v) for v in hardware.values()) if isinstance(hardware, Mapping) else str(hardware),
        " ".join(str(meta[k]) for k in ("dtype", "attention") if meta.get(k)),
        ", ".join(f"{k} {v}" for k, v in versions.items())
        if isinstance(versions, Mapping)
        else str(versions),
        f"{meta['questions']} questions" if meta.get("questions") is not None else "",
        f"{meta['runs']} timed runs" if meta.get("runs") is not None else "",
    ]
    text = "; ".join(t for t in told if t) + "."
    if meta.get("accuracy_measured") is False:
        text += " Weights are random: times are true, accuracy was not measured."
    return f"{text}\n\n`{meta['command']}`\n" if meta.get("command") else f"{text}\n"


def _main_table(group: Group) -> str:
    lines = []
    for row, label in zip(group.rows, group.labels, strict=True):
        interval = value(row, "accuracy.ci95")
        lines.append(
            {
                "method": f"**{label}**" if row.get("ours", False) else label,
                "kept": _figure(row, "retention", 100, 1),
                "accuracy": _figure(row, "accuracy.all", 100, 1)
                + (f" ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})" if interval else ""),
                "agreement": _figure(row, "accuracy.agreement", 100, 1),
                "first": _figure(row, "seconds.first_token.median", 1, 3),
                "first_x": "" if is_baseline(row) else _figure(row, "speedup.first_token", 1, 2),
                "total": _figure(row, "seconds.total.median", 1, 3),
                "total_x": "" if is_baseline(row) else _figure(row, "speedup.total", 1, 2),
                "ideal": "" if is_baseline(row) else _figure(row, "flop_ideal", 1, 2),
                "share": "" if is_baseline(row) else _figure(row, "share_of_ideal", 100, 0),
            }
        )
    columns = {
        "method": "method",
        "kept": "tokens kept %",
        "accuracy": "accuracy % (95 %)",
        "agreement": "same answer %",
        "first": "first token s",
        "first_x": "speedup",
        "total": "total s",
        "total_x": "speedup of total",
        "ideal": "FLOP-ideal",
        "share": "of ideal %",
    }
    return _table(lines, columns)


def _stage_table(group: Group) -> str:
    lines = [
        {"method": label, **{s: _figure(row, f"seconds.{s}.median", 1, 3) for s in STAGES}}
        for row, label in zip(group.rows, group.labels, strict=True)
    ]
    return _table(lines, {"method": "method", **{s: f"{s} s" for s in STAGES}})


def _token_table(group: Group) -> str:
    lines = [
        {
            "method": label,
            "encoder": _figure(row, "tokens.encoder", 1, 0),
            "fused": _figure(row, "tokens.fused", 1, 0),
            "last": _figure({"last": (value(row, "tokens.llm_layers") or [None])[-1]}, "last", 1, 0),
            "gflop": _figure(row, "flops.total", 1e-9, 1),
            "cache": _figure(row, "kv_bytes", 2**-20, 1),
            "peak": _figure(row, "peak_bytes", 2**-20, 0),
            "rate": _figure(row, "questions_per_second", 1, 2),
        }
        for row, label in zip(group.rows, group.labels, strict=True)
    ]
    columns = {
        "method": "method",
        "encoder": "tokens behind the encoder",
        "fused": "into the LLM",
        "last": "at its last layer",
        "gflop": "Gflop",
        "cache": "cache MiB",
        "peak": "peak MiB",
        "rate": "questions/s",
    }
    return _table(lines, columns)


def _table(lines: Sequence[Mapping[str, str]], columns: Mapping[str, str]) -> str:
    """Without the columns that hold nothing."""
    used = {key: heading for key, heading in columns.items() if any(line[key] for line in lines)}
    return markdown_table(lines, used)


def _figure(row: Row, path: str, factor: float, digits: int) -> str:
    found = number(row, path)
    return "" if found is None else f"{found * factor:.{digits}f}"
