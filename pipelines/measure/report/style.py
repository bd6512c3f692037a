"""How the plots of a speed report look: colours that the colour-blind can tell apart, ours against grey rivals, one
drawing for light and dark pages."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from pipelines.measure.report.rows import BASELINE, Row

INK, MUTED, LINE = "#1b2026", "#626c77", "#d5dae0"
PAPER = "#fcfcfb"
# Okabe and Ito (2008), "Color Universal Design", without yellow, which is lost on white.
OURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
RIVALS = ("#6b7580", "#8d96a0", "#7b8590")
RIVAL_MARKERS = ("s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "d", "8")
STAGE_COLOURS = {
    "decode": "#c4cad1",
    "preprocess": "#98a1ab",
    "encode": "#0072b2",
    "prune": "#d55e00",
    "fuse": "#e69f00",
    "prefill": "#56b4e9",
    "generate": "#009e73",
}
_RC = {
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "videoprune",
}


@dataclass(frozen=True)
class Look:
    colour: str
    marker: str
    size: float
    ours: bool


def looks(rows: Sequence[Row]) -> dict[str, Look]:
    """How each method is drawn, the same in every plot."""
    found: dict[str, Look] = {BASELINE: Look(INK, "*", 15, False)}
    ours = rivals = 0
    for row in sorted(rows, key=lambda r: r["method"]):
        name = row["method"]
        if name in found:
            continue
        if row.get("ours", False):
            found[name] = Look(OURS[ours % len(OURS)], "o", 10, True)
            ours += 1
        else:
            marker = RIVAL_MARKERS[rivals % len(RIVAL_MARKERS)]
            found[name] = Look(RIVALS[rivals % len(RIVALS)], marker, 7.5, False)
            rivals += 1
    return found


def matplotlib() -> Any:
    """The library. Raises ValueError that names the extra where it is not installed."""
    try:
        import matplotlib
    except ImportError as error:
        raise ValueError("plots need matplotlib: pip install 'videoprune[report]'") from error
    return matplotlib


def figure(width: float, height: float) -> Any:
    """An empty figure in inches; no state is shared with others."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(made)
    return made


def styled() -> Any:
    """The context in which figures are made and saved."""
    return matplotlib().rc_context(_RC)


def as_png(fig: Any) -> bytes:
    out = io.BytesIO()
    with styled():
        fig.savefig(out, format="png", dpi=170, facecolor=PAPER)
    return out.getvalue()


def as_svg(fig: Any, name: str, alt: str, notes: Mapping[str, str] | None = None) -> str:
    """An <svg> to put into a page. Its ink follows the page's --ink, --muted and --line.

    notes: texts that the elements with these ids show under the pointer.
    """
    out = io.StringIO()
    with styled():
        fig.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    for colour, variable in ((INK, "--ink"), (MUTED, "--muted"), (LINE, "--line")):
        text = text.replace(colour, f"var({variable})")
    # Clip paths of two figures may share an id within one page.
    text = re.sub(r'(id="|#)(p[0-9a-f]{10}|m[0-9a-f]{10})', rf"\1{name}-\2", text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', rf'\1 role="img" aria-label="{escape(alt)}"', text, count=1)
    for gid, note in (notes or {}).items():
        text = text.replace(f'<g id="{gid}">', f'<g id="{name}-{gid}"><title>{escape(note)}</title>')
    return text
