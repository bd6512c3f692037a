"""The speed report as one self-contained page: no network, light and dark, a table that sorts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from pipelines.measure.report.rows import STAGES, Column, Group, Row, is_baseline
from pipelines.measure.report.style import Look
from pipelines.measure.report.tables import TextTable

COLUMNS = (
    Column("kept %", "retention", 100, 1, "visual tokens, averaged over the LLM's layers, over unpruned"),
    Column("wanted %", "retain", 100, 1, "share of tokens that was asked for"),
    Column(
        "correct %",
        "accuracy.all",
        100,
        1,
        "over all questions: what could not be read is wrong",
        "accuracy.ci95",
    ),
    Column("minus unpruned", "accuracy.difference", 100, 1, "paired difference", "accuracy.difference_ci95"),
    Column("of answered %", "accuracy.answered", 100, 1, "over questions whose answer could be read"),
    Column("same answer %", "accuracy.agreement", 100, 1, "same answer as unpruned"),
    Column("unreadable", "accuracy.parse_failures", 1, 0, "answers that could not be read as a choice"),
    Column("first token s", "seconds.first_token.median", 1, 3, "median time to first token"),
    Column("first token x", "speedup.first_token", 1, 2, "times as fast as unpruned, paired"),
    Column("total s", "seconds.total.median", 1, 3, "median from the decoded frames to the answer"),
    Column("total x", "speedup.total", 1, 2, "times as fast as unpruned, paired"),
    Column("end to end x", "speedup.end_to_end", 1, 2, "with decoding, times as fast as unpruned, paired"),
    Column("encode x", "speedup.encode", 1, 2, "vision encoder, times as fast as unpruned"),
    Column("prefill x", "speedup.prefill", 1, 2, "LLM prefill, times as fast as unpruned"),
    *(Column(f"{s} s", f"seconds.{s}.median", 1, 3, f"median of {s}") for s in STAGES),
    Column("end to end s", "seconds.end_to_end.median", 1, 3, "median from the file to the answer"),
    Column("questions/s", "questions_per_second", 1, 2, "one at a time, without decoding"),
    Column("dense", "tokens.dense", 1, 0, "visual tokens without pruning"),
    Column("encoder", "tokens.encoder", 1, 0, "visual tokens that leave the encoders"),
    Column("to LLM", "tokens.fused", 1, 0, "visual tokens handed to the LLM"),
    Column("Gflop", "flops.total", 1e-9, 1, "operations of one question"),
    Column("choosing Gflop", "flops.prune", 1e-9, 2, "operations that choosing tokens takes"),
    Column("ideal x", "flop_ideal", 1, 2, "speedup if time were operations"),
    Column("of ideal %", "share_of_ideal", 100, 0, "speedup reached, over the ideal one"),
    Column("cache MiB", "kv_bytes", 2**-20, 1, "keys and values after the prefill"),
    Column("peak MiB", "peak_bytes", 2**-20, 0, "highest memory over the loaded model"),
    Column("runs", "runs", 1, 0),
)


@dataclass(frozen=True)
class Section:
    """What is shown about rows that may be compared: plots are <svg> elements. tables: beside the main one. trade_off:
    against time, operations: against work, both up to the first token."""

    group: Group
    tables: Sequence[TextTable]
    trade_off: str
    operations: str
    stages: str
    layers: str | None


def page(
    results: Mapping[str, Any], sections: Sequence[Section], throughput: str | None, look: Mapping[str, Look]
) -> str:
    """The HTML file. throughput: an <svg>."""
    meta = results["meta"]
    title = f"{meta['model']} on {meta['dataset']}"
    parts = [_head(title), _summary(meta, title)]
    parts += [_section(section, look, many=len(sections) > 1) for section in sections]
    if throughput:
        parts.append(f'<section><figure class="card">{throughput}</figure></section>')
    parts += [
        _pictures(results["frames"]),
        _refused(results["refused"]),
        _meta(meta),
        f"<script>{_SORT}</script></main></body></html>",
    ]
    return "\n".join(p for p in parts if p)


def _head(title: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>"
    )


def _summary(meta: Mapping[str, Any], title: str) -> str:
    asked = meta.get("sample") or f"{meta['questions']} questions"
    facts = f"{asked}; {meta['runs']} timed runs, {meta['attention']}, {meta['dtype']}"
    note = ""
    if not meta["accuracy_measured"]:
        note = (
            '<p class="note">Accuracy was not measured: the weights are random. Times are those of the true shape; '
            "the plots show the share of visual tokens kept instead.</p>"
        )
    return f"<header><h1>{escape(title)}</h1><p>{escape(facts)}</p>{note}</header>"


def _section(section: Section, look: Mapping[str, Look], *, many: bool) -> str:
    group = section.group
    heading = f"<h2>{escape(group.title)}</h2>" if many else ""
    plots = [section.trade_off, section.operations, section.stages, section.layers]
    cards = "".join(f'<figure class="card">{p}</figure>' for p in plots if p)
    more = "".join(map(_plain_table, section.tables))
    return f"<section>{heading}{cards}{_table(group, look)}{more}</section>"


def _plain_table(table: TextTable) -> str:
    head = "".join(f'<th scope="col"><button type="button">{escape(h)}</button></th>' for h in table.headings)
    body = "".join(
        "<tr>"
        + f'<th scope="row" data-v="{escape(first)}">{escape(first)}</th>'
        + "".join(f'<td data-v="{escape(c.partition(" ")[0])}">{escape(c)}</td>' for c in cells)
        + "</tr>"
        for first, *cells in table.rows
    )
    return (
        f'<div class="scroll"><table><caption>{escape(table.caption)}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _table(group: Group, look: Mapping[str, Look]) -> str:
    columns = [c for c in COLUMNS if any(c.number(r) is not None for r in group.rows)]
    head = "".join(
        f'<th scope="col" title="{escape(c.title)}"><button type="button">{escape(c.heading)}</button></th>'
        for c in columns
    )
    body = "".join(
        _table_row(row, label, columns, look) for row, label in zip(group.rows, group.labels, strict=True)
    )
    return (
        f'<div class="scroll"><table><caption>All figures: {escape(group.title)}. A click on a heading sorts.</caption>'
        f'<thead><tr><th scope="col"><button type="button">method</button></th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _table_row(row: Row, label: str, columns: Sequence[Column], look: Mapping[str, Look]) -> str:
    kind = "base" if is_baseline(row) else "ours" if row.get("ours", False) else "rival"
    colour = (
        look[row["method"]].colour if kind == "ours" else "var(--ink)" if kind == "base" else "var(--muted)"
    )
    cells = "".join(_cell(row, c) for c in columns)
    return (
        f'<tr class="{kind}"><th scope="row" data-v="{escape(label)}">'
        f'<span class="dot" style="background:{colour}"></span>{escape(label)}</th>{cells}</tr>'
    )


def _cell(row: Row, column: Column) -> str:
    found, text, interval = column.number(row), column.text(row, "\u2009"), column.range(row)
    text += f" <small>{interval}</small>" if interval else ""
    return f'<td data-v="{"" if found is None else found}">{text}</td>'


def _pictures(pictures: Sequence[Mapping[str, str]]) -> str:
    if not pictures:
        return ""
    shown = "".join(_PICTURE.format(**{k: escape(text) for k, text in p.items()}) for p in pictures)
    return f'<section><h2>Kept tokens</h2><div class="gallery">{shown}</div></section>'


def _refused(refused: Sequence[Mapping[str, str]]) -> str:
    if not refused:
        return ""
    rows = "".join(f"<dt>{escape(r['method'])}</dt><dd>{escape(r['reason'])}</dd>" for r in refused)
    return f"<section><h2>Not measured</h2><dl>{rows}</dl></section>"


def _meta(meta: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<dt>{escape(str(key))}</dt><dd>{_plain(item)}</dd>"
        for key, item in meta.items()
        if item is not None
    )
    return f"<section><h2>How it was measured</h2><dl>{rows}</dl></section>"


def _plain(item: Any) -> str:
    if isinstance(item, Mapping):
        return "<br>".join(f"{escape(str(k))}: {escape(_flat(v))}" for k, v in item.items())
    return (
        f"<code>{escape(_flat(item))}</code>"
        if isinstance(item, str) and " " in item
        else escape(_flat(item))
    )


def _flat(item: Any) -> str:
    return item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)


_PICTURE = (
    '<figure><img alt="tokens kept by {method}: {title}" src="data:image/png;base64,{png_base64}">'
    "<figcaption><b>{method}</b> {title}</figcaption></figure>"
)

_STYLE = """
:root{color-scheme:light dark;
--ink:#1b2026;--muted:#626c77;--line:#d5dae0;--paper:#f4f5f6;--card:#fcfcfb;--hover:#eaf2f8}
@media(prefers-color-scheme:dark){:root{--ink:#e8ebee;--muted:#9aa4af;--line:#333b44;--paper:#111417;--card:#1a1f24;
--hover:#22303b}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1120px;margin:0 auto;padding:2rem 1.2rem 4rem}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 .3rem}h2{font-size:1.2rem;margin:2.4rem 0 .8rem}
header p{margin:.2rem 0;color:var(--muted)}header .note{color:var(--ink);border-left:4px solid #d55e00;
padding-left:.8rem;
margin-top:.8rem}
.card{margin:1rem 0;padding:1rem;background:var(--card);border:1px solid var(--line);border-radius:10px}
.card svg{display:block;width:100%;height:auto}
.scroll{overflow:auto;max-height:80vh;border:1px solid var(--line);border-radius:10px;background:var(--card)}
table{border-collapse:separate;border-spacing:0;font-size:.83rem;font-variant-numeric:tabular-nums;white-space:nowrap}
caption{text-align:left;padding:.6rem .8rem;color:var(--muted)}
th,td{padding:.35rem .7rem;border-bottom:1px solid var(--line);text-align:right}
th[scope=row],thead th:first-child{text-align:left;position:sticky;left:0;background:var(--card);z-index:1}
thead th{position:sticky;top:0;background:var(--card);z-index:2}thead th:first-child{z-index:3}
thead button{all:unset;cursor:pointer;font-weight:600}thead button:focus-visible{outline:2px solid #0072b2}
th[aria-sort=ascending] button::after{content:" \\2191"}th[aria-sort=descending] button::after{content:" \\2193"}
tbody tr:hover>*{background:var(--hover)}tr.rival th{font-weight:400}td small{color:var(--muted);margin-left:.3rem}
.dot{display:inline-block;width:.65em;height:.65em;border-radius:50%;margin-right:.5em}
.gallery{display:grid;gap:1rem}.gallery figure{margin:0;padding:.8rem;background:var(--card);
border:1px solid var(--line);border-radius:10px}
.gallery img{width:100%;height:auto;border-radius:4px;display:block;image-rendering:pixelated}
figcaption{color:var(--muted);margin-top:.4rem}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.3rem 1.2rem;margin:0}dt{font-weight:600}
dd{margin:0;color:var(--muted);overflow-wrap:anywhere}code{font-size:.85em}
@media(max-width:600px){dl{grid-template-columns:1fr}dd{margin-bottom:.5rem}}
"""

_SORT = """
document.querySelectorAll("table").forEach(table=>{
  const heads=[...table.tHead.rows[0].cells];
  heads.forEach((head,column)=>head.querySelector("button").addEventListener("click",()=>{
    const up=head.getAttribute("aria-sort")==="descending"||(!head.hasAttribute("aria-sort")&&column===0);
    heads.forEach(h=>h.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort",up?"ascending":"descending");
    const key=row=>row.cells[column].dataset.v;
    const rows=[...table.tBodies[0].rows].sort((a,b)=>{
      const x=key(a),y=key(b);
      if(x===""||y==="")return (x==="")-(y==="");
      const order=isNaN(x)||isNaN(y)?x.localeCompare(y):x-y;
      return up?order:-order;
    });
    table.tBodies[0].append(...rows);
  }));
});
"""
