"""`videoprune calibrate`: encoder ranks and lambdas, measured and written into the model's config.json."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.arguments import Commands, add_model, command, count

if TYPE_CHECKING:
    from pipelines.measure.calibration import Solved
    from videoprune.config import PruneConfig


def add(commands: Commands) -> None:
    text = "Measure encoder ranks and solve for lambda, and write both into the model's config.json."
    calibrate = command(commands, "calibrate", text, run, overrides=True)
    calibrate.add_argument(
        "--prune", help="preset or YAML file (default: every preset with adaptive pruning)"
    )
    calibrate.add_argument(
        "--clips", type=count, default=24, metavar="N", help="training clips (default: 24)"
    )
    calibrate.add_argument("--rank", default="effective", choices=("effective", "numerical"))
    add_model(calibrate)


def run(args: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Raises ValueError if the one setting that was named cannot be calibrated."""
    from pipelines.configuring import load_prune
    from pipelines.measure.calibration import clips_like, encoder_ranks, save_calibration, solve
    from pipelines.run.progress import progress_bar
    from videoprune.config import PruneConfig, preset, preset_names
    from videoprune.engine import Engine
    from videoprune.models.loading import demo_names, model_folder
    from videoprune.models.multi_encoder import MultiEncoderVLM
    from videoprune.plug.settings import calibration_key
    from videoprune.prune.counts import by_lambda, lambda_is_open

    names = [args.prune] if args.prune else [n for n in preset_names() if by_lambda(preset(n).llm)]
    wanted = {name: load_prune(name, overrides) for name in names}
    engine = Engine(args.model, PruneConfig(), device=args.device)
    clips = clips_like(engine, args.clips)
    ranks: dict[str, list[float]] = {}
    if isinstance(engine.model, MultiEncoderVLM):
        engine.model.config.encoder_ranks = ranks = encoder_ranks(engine.model, clips, args.rank)
    solved: dict[str, Solved] = {}
    refused: dict[str, str] = {}
    with progress_bar() as bar:
        for name, prune in wanted.items():
            if lambda_is_open(prune.llm):
                task = bar.add_task(f"lambda of {name}", total=None)
                try:
                    solved[name] = solve(engine, clips, prune, lambda task=task: bar.advance(task))  # type: ignore[misc]
                except ValueError as error:
                    if args.prune:
                        raise
                    refused[name] = str(error)  # one preset that the model cannot do leaves the others
    where = "nowhere: give llm.lambda_=... of this table after the arguments"
    if args.model in demo_names() or Path(args.model).is_dir():
        found = {calibration_key(wanted[name]): one for name, one in solved.items()}
        where = save_calibration(model_folder(args.model), ranks, found)
    _print(ranks, solved, wanted)
    print(f"written to {where}")
    for name, reason in refused.items():
        print(f"{name}: not calibrated: {reason}", file=sys.stderr)
    return 0


def _print(
    ranks: Mapping[str, list[float]], solved: Mapping[str, Solved], wanted: Mapping[str, PruneConfig]
) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, highlight=False)
    if ranks:
        table = Table("encoder", "rank at cut 1", "cut 2", "cut 3")
        for name, values in ranks.items():
            table.add_row(name, *(f"{value:.2f}" for value in values))
        console.print(table)
    if solved:
        table = Table("setting", "wanted share", "lambda", "share reached")
        for name, found in solved.items():
            keep = wanted[name].llm.keep
            table.add_row(name, f"{keep:g}", f"{found.lambda_:g}", f"{found.share:.4f}")
        console.print(table)
