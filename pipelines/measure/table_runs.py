"""Measures the rows of docs/tables.md and writes them as Markdown. Every row is an evaluation that is kept and resumed.

Rows with the same settings are one run, whichever tables they stand in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console

from pipelines.measure.calibration import clips_like, needs_lambda, with_lambda
from pipelines.measure.environment import hardware, hardware_line, versions
from pipelines.measure.table_rows import TABLES, TableRow, TableSpec
from pipelines.run import local
from pipelines.run.evaluation import RunSettings, evaluate
from pipelines.run.model_stage import ModelStage
from pipelines.run.results import Row, model_fingerprint, read_rows, write_whole
from pipelines.run.stages import ClipItem, DecodedClip, DecodeStage
from pipelines.run.tasks import Task
from videoprune.config import PruneConfig, preset
from videoprune.engine import Engine
from videoprune.eval.benchmarks.moving_shapes.splits import Split
from videoprune.eval.metrics import is_correct, paired_difference
from videoprune.eval.summary import markdown_table
from videoprune.models.multi_encoder import MultiEncoderVLM
from videoprune.types import ENCODE_STAGES

CALIBRATION_CLIPS = 24


class KeptDecode(DecodeStage):
    """Decodes each video once and keeps its frames for the next run: 60 MB for 200 clips of 8 x 112 x 112."""

    def setup(self) -> None:
        super().setup()
        self.kept: dict[tuple[str, float | None], DecodedClip] = getattr(self, "kept", {})

    def process(self, item: ClipItem) -> DecodedClip:
        clip = item.video, item.until
        if clip not in self.kept:
            self.kept[clip] = super().process(item)
        found = self.kept[clip]
        return DecodedClip(item, found.frames, found.seconds)


class Bench:
    """One loaded model, a split's samples, and the folder in `runs` that keeps their runs by their settings."""

    def __init__(
        self, model: str, task: Task, runs: Path, split: Split, *, device: str | None, restart: bool
    ) -> None:
        self.model, self.task, self.restart = model, task, restart
        self.runs = runs / f"{task.label}{Path(model).name}"
        self.engine = Engine(model, PruneConfig(), device=device, num_frames=split.frames)
        self.fingerprint = model_fingerprint(model)
        self.decode = KeptDecode(self.engine.num_frames, self.engine.frame_size)
        self.clips = cache(lambda: clips_like(self.engine, CALIBRATION_CLIPS))
        self._measured: set[str] = set()

    def rows_of(self, spec: TableSpec) -> list[TableRow]:
        """Those that say something of this model."""
        several = isinstance(self.engine.model, MultiEncoderVLM)
        return [row for row in spec.rows if several or not row.several_encoders]

    def measure(self, prune: PruneConfig) -> tuple[dict[str, Any], list[Row]]:
        """The summary and the rows, in the samples' order, of a run with `prune`."""
        out = self.runs / prune.digest()
        settings = RunSettings(self.model, self.fingerprint, prune)
        stage = ModelStage.around(self.engine.with_prune(prune))
        runner = partial(local.run, decode=self.decode, model=stage)
        restart = self.restart and prune.digest() not in self._measured
        summary = evaluate(self.task, runner, out, settings, restart=restart)
        self._measured.add(prune.digest())
        rows = read_rows(out / "results.jsonl")
        return summary, [rows[s.question_id] for s in self.task.samples]

    def check(self, prune: PruneConfig) -> None:
        """Raises ValueError if the model cannot run with `prune`."""
        ModelStage.around(self.engine.with_prune(prune)).setup()

    def with_lambda(self, prune: PruneConfig) -> PruneConfig:
        """`prune` itself, or, where the model is not calibrated for it, with a lambda solved on training clips."""
        if not needs_lambda(self.engine, prune):
            return prune
        name = f"{self.fingerprint} {prune.digest()}"
        return with_lambda(self.engine, prune, self.runs / "lambdas.json", name, self.clips)


def measure_table(spec: TableSpec, bench: Bench) -> list[dict[str, Any]]:
    """The cells of each row, the unpruned run first."""
    console = Console(stderr=True, markup=False, highlight=False)
    dense_summary, dense_rows = bench.measure(PruneConfig())
    cells = [row_cells("unpruned", dense_summary, dense_rows, dense_rows)]
    settings: dict[str, PruneConfig] = {}
    shares: dict[str, float] = {}
    for row in bench.rows_of(spec):
        console.print(f"{spec.title}: {row.name}")
        try:
            prune = row_config(row, settings, shares)
            prune = bench.with_lambda(prune) if row.solve else prune
            bench.check(prune)
        except ValueError as error:  # a model with few blocks or tokens cannot do everything
            cells.append({"setting": f"{row.name}: not possible with this model: {error}"})
            continue
        summary, rows = bench.measure(prune)
        tokens = summary["tokens"]
        settings[row.name] = prune
        shares[row.name] = tokens["llm_average"] / tokens["fused"] if tokens["measured"] else 1.0
        cells.append(row_cells(row.name, summary, rows, dense_rows))
    return cells


def row_config(
    row: TableRow, settings: Mapping[str, PruneConfig], shares: Mapping[str, float]
) -> PruneConfig:
    """The settings of a row. settings, shares: of the rows before it; see `TableRow.like`."""
    if not row.like:
        return preset(row.preset).replace(**row.changes)
    if row.like not in settings:
        raise ValueError(f"{row.like} was not measured")
    base = settings[row.like]
    changes: dict[str, Any] = {}
    if row.control == "random":
        for part in ("encoder", "fusion"):
            if getattr(base, part).method != "none":
                changes[f"{part}.method"] = "random"
    if base.llm.method != "none":
        changes |= {
            "llm.method": "fixed" if row.control == "fixed" else "random",
            "llm.keep": round(shares[row.like], 4),
            "llm.lambda_": None,
        }
    return base.replace(**changes, **row.changes)


def row_cells(
    name: str, summary: Mapping[str, Any], rows: Sequence[Row], dense: Sequence[Row]
) -> dict[str, Any]:
    """One line of a table. Accuracies in percent, with 95 % intervals drawn by clip; times are medians."""
    figures, tokens = summary["accuracy"], summary["tokens"]
    low, high = figures["overall_ci95"]
    cells = {
        "setting": name,
        "accuracy": f"{100 * figures['overall']:.1f} ({100 * low:.1f} to {100 * high:.1f})",
        "difference": "" if rows is dense else _difference(rows, dense),
    }
    cells |= {c: f"{100 * score['accuracy']:.0f}" for c, score in figures["by_category"].items()}
    if tokens["measured"]:
        cells |= {
            "encoders": f"{sum(after for _, after in tokens['encoder'].values()):.0f}",
            "fused": f"{tokens['fused']:.0f}",
            "average": f"{tokens['llm_average']:.1f}",
            "retention": f"{100 * tokens['retention']:.1f}",
        }
    timed = [row["seconds"] for row in rows if "llm" in row["seconds"]]
    if timed:
        cells["encode"] = f"{1000 * median(sum(s.get(k, 0.0) for k in ENCODE_STAGES) for s in timed):.0f}"
        cells["llm"] = f"{1000 * median(s['llm'] + s['llm_prune'] for s in timed):.0f}"
    if summary["counts"]["failed"]:
        cells["setting"] += f" ({summary['counts']['failed']} failed)"
    return cells


def part(cells: Sequence[Mapping[str, Any]], categories: Iterable[str], command: str) -> str:
    """A table of one model, with the command that made it."""
    columns = {"setting": "setting", "accuracy": "accuracy % (95 %)", "difference": "minus unpruned (95 %)"}
    columns |= {c: c for c in categories if any(c in row for row in cells)}
    columns |= {"encoders": "out of encoders", "fused": "fused", "average": "LLM average"}
    columns |= {"retention": "kept %", "encode": "encode + fuse ms", "llm": "LLM ms"}
    made_with = f"`{command}`, on {hardware_line(hardware())}, torch {versions()['torch']}."
    return f"{made_with}\n\n{markdown_table(cells, columns)}"


def write_tables(runs: Path, path: Path) -> None:
    """All parts measured so far, by table, as one page. Their names in `runs` are table.model.split.md.

    Parts that the page has and `runs` has not stay as they are: it may be a page of another day or machine.
    """
    parts = _parts_of(path) if path.exists() else {}
    for one in runs.glob("*.*.*.md"):
        name, model = one.stem.split(".", 1)
        model, split = model.rsplit(".", 1)  # a model's name may have dots
        parts[f"{name}: {model}, split {split}"] = one.read_text(encoding="utf-8")
    text = [_HEAD]
    for name, spec in TABLES.items():
        titles = sorted(title for title in parts if title.startswith(f"{name}: "))
        text += [f"## {name}: {spec.title}\n\n{spec.text}\n"] if titles else []
        text += [f"### {title}\n\n{parts[title].strip()}\n" for title in titles]
    write_whole(path, "\n".join(text))


def _parts_of(page: Path) -> dict[str, str]:
    """What stands under each third heading of a page of tables, up to the next second one."""
    headed = [one.split("\n", 1) for one in page.read_text(encoding="utf-8").split("\n### ")[1:]]
    return {title: body.split("\n## ")[0] for title, body in headed}


def _difference(rows: Sequence[Row], dense: Sequence[Row]) -> str:
    first, second = ([float(is_correct(r)) for r in part] for part in (rows, dense))
    found = paired_difference(first, second, [r["video_id"] for r in rows])
    return f"{100 * found.value:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"


_HEAD = """# Tables

Measured on MovingShapes, with the command and the machine above each table. Accuracies are percent of all
questions; intervals are 95 %, drawn by clip, since the questions of a clip share its luck. "minus unpruned"
is paired: the same questions, with and without pruning. Tokens are visual tokens of a clip: what leaves the
encoders, what the LLM receives, the average over its layers; "kept" is that average over the dense tokens.
Times are the median of one question, of which a clip's encoding bears its share; they depend on what else the
machine did.

Which clips: `--seed` in the command. On clips of seed 0, its default, and of seed 1 settings were chosen; no choice was
made on those of seed 2.
"""
