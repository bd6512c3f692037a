"""Arguments that several commands share. Every command imports this to say what it takes: nothing heavy in here."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Sequence

Commands = argparse._SubParsersAction
Run = Callable[[argparse.Namespace, Sequence[str]], int]

TRANSFORMERS, VLLM = "transformers", "vllm"  # engines
BENCHMARKS = (
    "videomme",
    "nextqa",
    "nextoe",
    "msvd",
    "activitynet",
    "moving-stream",
    "ovobench",
    "streamingbench",
)
_OVERRIDES = (
    "Words such as llm.lambda_=50 or encoder.keep=0.4 at the end change single settings of the preset. "
    "Presets: none, light, balanced, aggressive, evoprune, meteor, rivals by name, or a path to a YAML file."
)


def command(
    commands: Commands, name: str, text: str, run: Run, *, overrides: bool = False
) -> argparse.ArgumentParser:
    """The parser of one command, which `run` is for. overrides: whether words behind the arguments change settings."""
    epilog = _OVERRIDES if overrides else None
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text, epilog=epilog, allow_abbrev=False
    )
    parser.set_defaults(run=run, overrides=overrides)
    return parser


def add_model(parser: argparse.ArgumentParser) -> None:
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


def add_prune(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prune", default="balanced", help="preset or YAML file (default: balanced)")


def add_video(parser: argparse.ArgumentParser) -> None:
    """The video, and how many of its frames."""
    parser.add_argument("video", metavar="VIDEO")
    parser.add_argument(
        "--frames", type=count, metavar="N", help="most frames (default: as the model was trained)"
    )


def add_data(
    parser: argparse.ArgumentParser, *, seed: int = 0, limit: str = "only the first N questions"
) -> None:
    """seed: the default. limit: what `--limit` does."""
    parser.add_argument("--data", metavar="DIR", help="a benchmark's folder (default: made below runs)")
    parser.add_argument(
        "--clips", type=count, metavar="N", help="clips to make (default: 200, or 10 streams)"
    )
    parser.add_argument(
        "--minutes", type=float, default=5, metavar="M", help="of a stream to make (default: 5)"
    )
    parser.add_argument("--seed", type=int, default=seed, help=f"of the clips to make (default: {seed})")
    parser.add_argument("--limit", type=count, metavar="N", help=limit)


def add_remote(parser: argparse.ArgumentParser) -> None:
    """Videos that lie elsewhere."""
    group = parser.add_argument_group("videos that lie elsewhere, with videoprune[remote]")
    group.add_argument(
        "--videos",
        metavar="DIR|URL",
        help="their folder, here or s3://, gs://, hf://, https:// ...; {} in it stands for a name (default: --data)",
    )
    group.add_argument(
        "--cache",
        metavar="DIR",
        help="fetched ones, on each machine (default: in the folder for temporary files)",
    )
    group.add_argument(
        "--cache-size", type=size, default=10 * 2**30, metavar="N", help="of all fetched ones (default: 10G)"
    )
    group.add_argument(
        "--largest-video", type=size, default=2 * 2**30, metavar="N", help="larger ones fail (default: 2G)"
    )
    group.add_argument(
        "--fetch-seconds", type=count, default=300, metavar="N", help="for one, with all tries (default: 300)"
    )


def add_protocol(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--split", help="val, test ...; must be named where a benchmark has several")
    parser.add_argument(
        "--protocol",
        default="official",
        help="official, lmms-eval, ig-vlm, or one of the benchmark's own (default: official)",
    )


def add_memory(parser: argparse.ArgumentParser) -> None:
    """What a stream keeps of what it has shown."""
    parser.add_argument(
        "--stream-fps", type=float, default=2.0, metavar="F", help="stream: frames a second (default: 2)"
    )
    parser.add_argument(
        "--max-visual-tokens",
        type=count,
        default=4096,
        metavar="N",
        help="stream: tokens kept (default: 4096)",
    )
    parser.add_argument(
        "--max-steps", type=count, default=128, metavar="N", help="stream: time steps kept (default: 128)"
    )
    parser.add_argument(
        "--window",
        type=count,
        default=16,
        metavar="N",
        help="stream: newest time steps kept whole (default: 16)",
    )


def add_judge(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--judge", metavar="URL|MODEL", help="an OpenAI-compatible endpoint, or a local model"
    )
    parser.add_argument("--judge-model", metavar="NAME", help="for an endpoint (default: the protocol's)")
    parser.add_argument("--judge-temperature", type=float, metavar="T", help="likewise, 0 to 2")
    parser.add_argument(
        "--judge-workers", type=count, default=4, metavar="N", help="requests at once (default: 4)"
    )


def check_video(path: str) -> None:
    """Raises ValueError for what is no file, before any model is loaded for it."""
    from videoprune.video.read import is_url

    if is_url(path):
        raise ValueError(f"video={path!r}: URLs are not read; download the file first")
    if not os.path.exists(path):
        raise ValueError(f"video={path!r}: no such file")


def count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}; allowed: whole numbers from 1 on")
    return value


def size(text: str) -> int:
    """Bytes: 300, 20M, 1.5G."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)", text.upper().removesuffix("IB").removesuffix("B"))
    value = int(float(found[1]) * 1024 ** " KMGT".index(found[2] or " ")) if found else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}; allowed: bytes, such as 300, 20M or 1.5G")
    return value


def counts(text: str) -> tuple[int, ...]:
    return tuple(count(part) for part in text.split(","))


def at_least_at_most(text: str) -> tuple[int, int]:
    """4 -> (4, 4), 1:8 -> (1, 8)."""
    least, colon, most = text.partition(":")
    low, high = count(least), count(most if colon else least)
    if low > high:
        raise argparse.ArgumentTypeError(f"{text}; allowed: N, or N:M with M from N on")
    return low, high


def numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def words(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(",") if part)


def shard(text: str) -> tuple[int, int]:
    number, slash, of = text.partition("/")
    if not (slash and number.isdigit() and of.isdigit() and 1 <= int(number) <= int(of)):
        raise argparse.ArgumentTypeError(f"{text}; allowed: 1/4, 2/4, 3/4, 4/4 for four parts")
    return int(number), int(of)
