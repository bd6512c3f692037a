"""`videoprune`: ask, show, eval, score, speedup, calibrate, tables, demo. Heavy imports wait until a subcommand runs.

Status: 0, 1 if a video could not be read, 2 for a mistake in what was asked, told in one sentence.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

_BENCHMARKS = ("videomme", "nextqa", "nextoe", "msvd", "activitynet")
_OVERRIDES = (
    "Words such as llm.lambda_=50 or encoder.keep=0.4 at the end change single settings of the preset. "
    "Presets: none, light, balanced, aggressive, evoprune, meteor, rivals by name, or a path to a YAML file."
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = _parser()
    args, words = parser.parse_known_args(argv)
    strange = [w for w in words if w.startswith("-") or "=" not in w]
    if strange or (words and not args.overrides):
        parser.error(f"unrecognized arguments: {' '.join(strange or words)}")
    # Progress bars of a model that loads in a second would only stand between the question and the answer.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if getattr(args, "random_weights", False):
        args.model = f"random:{args.model}"
    program = import_module(f"pipelines.{args.module}")
    try:
        return int(program.run(args, words))
    except (ValueError, OSError) as error:
        print(f"videoprune: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("videoprune: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="videoprune",
        description="Early visual-token pruning for video language models.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_ask(commands)
    _add_show(commands)
    _add_eval(commands)
    _add_score(commands)
    _add_speedup(commands)
    _add_demo(commands)
    _add_calibrate(commands)
    _add_tables(commands)
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    module: str,
    text: str,
    *,
    overrides: bool = False,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name, help=text, description=text, epilog=_OVERRIDES if overrides else None, allow_abbrev=False
    )
    parser.set_defaults(module=module, overrides=overrides)
    parser.add_argument(
        "--model",
        default="demo",
        help="demo, llava-demo, qwen-demo, a model's folder, or a Hugging Face name (default: demo)",
    )
    parser.add_argument(
        "--random-weights",
        action="store_true",
        help="--model names a true shape in configs/models, or a YAML file: speed without a download",
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: a GPU where there is one)")
    return parser


def _add_ask(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    ask = _command(commands, "ask", "ask", "Ask one question about one video.", overrides=True)
    ask.add_argument("video", metavar="VIDEO")
    ask.add_argument("question", metavar="QUESTION")
    ask.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="TEXT",
        help="an answer to choose from; several times",
    )
    ask.add_argument("--prune", default="balanced", help="preset or YAML file (default: balanced)")
    ask.add_argument(
        "--frames", type=_count, metavar="N", help="most frames (default: as the model was trained)"
    )
    ask.add_argument("--policy", default="uniform", choices=("uniform", "fps", "keyframe", "timestamps"))
    ask.add_argument("--fps", type=float, help="frames per second, for --policy fps")
    ask.add_argument("--timestamps", type=_seconds, metavar="S,S,...", help="for --policy timestamps")
    ask.add_argument("--backend", default="auto", choices=("auto", "decord", "pyav"))
    ask.add_argument("--json", action="store_true", help="print one JSON object")


def _add_show(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "Draw which tokens survive each stage into a video."
    show = _command(commands, "show", "show", text, overrides=True)
    show.add_argument("video", metavar="VIDEO")
    show.add_argument("--out", default="overlay.mp4", metavar="FILE", help="(default: overlay.mp4)")
    show.add_argument("--prune", default="balanced", help="preset or YAML file (default: balanced)")
    show.add_argument(
        "--question",
        default="List the objects.",
        help="what the LLM chooses its tokens by (default: List the objects.)",
    )
    show.add_argument(
        "--frames", type=_count, metavar="N", help="most frames (default: as the model was trained)"
    )
    show.add_argument("--rate", type=_count, default=1, metavar="N", help="frames a second (default: 1)")


def _add_eval(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    ev = _command(commands, "eval", "evaluate", "Score a model on a benchmark.", overrides=True)
    ev.add_argument("benchmark", choices=("moving-shapes", *_BENCHMARKS))
    _add_protocol(ev)
    ev.add_argument("--subtitles", action="store_true", help="videomme: with subtitles in the prompt")
    ev.add_argument("--shard", type=_shard, metavar="I/N", help="only part I of N, by video")
    ev.add_argument("--frames", type=_count, metavar="N", help="frames per clip (default: the protocol's)")
    ev.add_argument("--max-new-tokens", type=_count, metavar="N", help="(default: the protocol's)")
    ev.add_argument("--prune", default="balanced", help="preset or YAML file (default: balanced)")
    ev.add_argument("--executor", default="local", choices=("local", "ray"))
    ev.add_argument("--out", metavar="DIR", help="results.jsonl and summary.json (default: below runs/eval)")
    ev.add_argument("--restart", action="store_true", help="empty --out first")
    ev.add_argument(
        "--batch", type=_count, default=8, metavar="N", help="questions per model call (default: 8)"
    )
    ev.add_argument(
        "--workers", type=_count, default=1, metavar="N", help="ray: decoding actors (default: 1)"
    )
    ev.add_argument("--models", type=_count, default=1, metavar="N", help="ray: model actors (default: 1)")
    ev.add_argument("--ray-address", metavar="HOST:PORT", help="a running cluster (default: start one here)")
    _add_data(ev)


def _add_speedup(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "How much faster, where the time goes, what it costs in accuracy: methods side by side, with a report."
    speed = _command(commands, "speedup", "speedup", text)
    speed.add_argument("benchmark", choices=("moving-shapes",))
    speed.add_argument(
        "--methods",
        type=_words,
        metavar="M,M,...",
        help="none, videoprune (light, balanced, aggressive), evoprune, meteor, and rivals (default: all)",
    )
    speed.add_argument("--retain", type=_seconds, default=(0.5, 0.25, 0.1), metavar="R,R,...")
    speed.add_argument(
        "--frames", type=_counts, metavar="N,N,...", help="(default: as the model was trained)"
    )
    speed.add_argument("--concurrency", type=_counts, default=(1,), metavar="N,N,...", help="clips in a call")
    speed.add_argument("--runs", type=_count, default=7, metavar="N", help="timed runs of each (default: 7)")
    speed.add_argument("--out", metavar="DIR", help="figures and report (default: below runs/speedup)")
    speed.add_argument("--restart", action="store_true", help="empty --out first")
    _add_data(speed)


def _add_score(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "Score predictions: results.jsonl, a run's folder, or a benchmark's own form."
    score = commands.add_parser("score", help=text, description=text, allow_abbrev=False)
    score.set_defaults(module="score", overrides=False)
    score.add_argument("benchmark", choices=_BENCHMARKS)
    score.add_argument(
        "predictions", nargs="+", metavar="PREDICTIONS", help="a file or folder; several add up"
    )
    _add_protocol(score)
    score.add_argument("--data", metavar="DIR", help="the benchmark's folder, where the file lacks the truth")
    score.add_argument("--out", metavar="FILE", help="write all scores as JSON")
    score.add_argument("--json", action="store_true", help="print one JSON object")
    score.add_argument("--judge", metavar="URL|MODEL", help="an OpenAI-compatible endpoint, or a local model")
    score.add_argument("--judge-model", metavar="NAME", help="for an endpoint (default: the protocol's)")
    score.add_argument("--judge-temperature", type=float, metavar="T", help="likewise, 0 to 2")
    score.add_argument(
        "--judge-workers", type=_count, default=4, metavar="N", help="requests at once (default: 4)"
    )
    score.add_argument("--device", help="of a local judge")


def _add_protocol(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--split", help="val, test ...; must be named where a benchmark has several")
    parser.add_argument(
        "--protocol", default="official", help="official, lmms-eval or ig-vlm (default: official)"
    )


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    demo = _command(commands, "demo", "demo", "Make clips and answer questions, unpruned and pruned.")
    demo.add_argument("--prune", default="balanced,aggressive", help="presets, with commas between them")
    demo.add_argument("--out", default="runs/demo-clips", metavar="DIR", help="where the clips go")
    demo.add_argument("--clips", type=_count, default=7, metavar="N", help="how many (default: 7)")


def _add_calibrate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "Measure encoder ranks and solve for lambda, and write both into the model's config.json."
    calibrate = _command(commands, "calibrate", "calibrate", text, overrides=True)
    calibrate.add_argument(
        "--prune", help="preset or YAML file (default: every preset with adaptive pruning)"
    )
    calibrate.add_argument(
        "--clips", type=_count, default=24, metavar="N", help="training clips (default: 24)"
    )
    calibrate.add_argument("--rank", default="effective", choices=("effective", "numerical"))


def _add_tables(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    tables = _command(commands, "tables", "tables", "Measure the tables of docs/tables.md.")
    tables.add_argument("--out", default="docs", metavar="DIR", help="where tables.md goes (default: docs)")
    tables.add_argument("--runs", default="runs/tables", metavar="DIR", help="where the runs are kept")
    tables.add_argument("--only", metavar="NAME", help="one table")
    tables.add_argument("--restart", action="store_true", help="measure anew what is there already")
    _add_data(tables)


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", metavar="DIR", help="a benchmark's folder (default: made below runs)")
    parser.add_argument("--clips", type=_count, default=200, metavar="N", help="clips to make (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the clips to make (default: 0)")
    parser.add_argument("--limit", type=_count, metavar="N", help="only the first N questions")


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}; allowed: whole numbers from 1 on")
    return value


def _counts(text: str) -> tuple[int, ...]:
    return tuple(_count(part) for part in text.split(","))


def _words(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(",") if part)


def _shard(text: str) -> tuple[int, int]:
    number, slash, of = text.partition("/")
    if not (slash and number.isdigit() and of.isdigit() and 1 <= int(number) <= int(of)):
        raise argparse.ArgumentTypeError(f"{text}; allowed: 1/4, 2/4, 3/4, 4/4 for four parts")
    return int(number), int(of)


def _seconds(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


if __name__ == "__main__":
    sys.exit(main())
