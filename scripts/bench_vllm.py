"""Requests a second inside vLLM with 1 to 32 in flight: videoprune beside stock vLLM, its EVS and VidCom2 at the same
counts. Each method has a process of its own, one after the other.

PYTHONPATH=. python scripts/bench_vllm.py qwen-demo --requests 64
PYTHONPATH=. python scripts/bench_vllm.py qwen3-vl-2b --frames 16 --size 448 448 --retain 0.25 --out runs/vllm.json

A shape of configs/models has random weights: the time is right, the answers mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from pipelines.measure.methods import method_config
from pipelines.vllm.in_flight import requests_a_second
from pipelines.vllm.padded_heads import pad_heads
from pipelines.vllm.prompts import Prompts, clip_trace
from pipelines.vllm.random_folder import random_folder
from videoprune.config import PruneConfig
from videoprune.models.loading import model_config, model_folder
from videoprune.types import VideoFrames

METHODS = ("none", "balanced-serve", "evs", "vidcom2")
DEMO = "qwen-demo"


def main() -> None:
    args = arguments()
    if args.one:
        print(json.dumps(measured(args)))
        return
    rows = []
    for method in args.methods.split(","):
        done = subprocess.run(
            [sys.executable, __file__, *sys.argv[1:], "--one", method],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            env=os.environ | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"},
        )
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(line(rows[-1], rows[0]), flush=True)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({"arguments": sys.argv[1:], "rows": rows}, indent=1) + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help=f"{DEMO}, or a shape of Qwen3-VL in configs/models")
    parser.add_argument(
        "--methods", default=",".join(METHODS), help="the first one is what others are compared to"
    )
    parser.add_argument(
        "--retain", type=float, default=0.25, help="share of the visual tokens (default: 0.25)"
    )
    parser.add_argument("--in-flight", default="1,2,4,8,16,32")
    parser.add_argument("--requests", type=int, default=64, help="at each (default: 64)")
    parser.add_argument("--frames", type=int, default=8, help="of a clip (default: 8)")
    parser.add_argument("--size", type=int, nargs=2, default=(96, 96), metavar=("H", "W"))
    parser.add_argument("--text", type=int, default=20, help="words of a question (default: 20)")
    parser.add_argument("--new", type=int, default=8, help="tokens of an answer (default: 8)")
    parser.add_argument("--dtype", default="float32" if not torch.cuda.is_available() else "bfloat16")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args()


def measured(args: argparse.Namespace) -> dict[str, Any]:
    """One method at every number of requests in flight, in this process."""
    from vllm import LLM, SamplingParams

    prune = method_config("balanced-serve", args.retain)
    with tempfile.TemporaryDirectory() as folder:
        trained = args.model == DEMO
        place = Path(folder)
        place = pad_heads(model_folder(DEMO), place, 32) if trained else random_folder(args.model, place)
        config = model_config(str(place))
        dense = clip_trace(config, PruneConfig(), args.frames, tuple(args.size)).dense
        kept = clip_trace(config, prune, args.frames, tuple(args.size)).fused
        most = max(map(int, args.in_flight.split(",")))
        llm = LLM(
            str(place),
            dtype=args.dtype,
            load_format="auto" if trained else "dummy",
            enforce_eager=not torch.cuda.is_available(),
            enable_prefix_caching=False,  # every request has a clip of its own
            mm_processor_cache_gb=0,
            max_num_seqs=most,
            max_model_len=dense + 8 * args.frames + 2 * args.text + args.new + 64,
            limit_mm_per_prompt={"image": 0, "video": 1},
            **options(args.one, prune, kept / dense, dense),
        )
        if args.one in ("evs", "vidcom2"):
            # On a CPU vLLM 0.32 leaves its own pruning off, whatever it is told.
            llm.collective_rpc(
                lambda worker: setattr(worker.model_runner, "is_multimodal_pruning_enabled", True)
            )
        prompts = clips(args, Prompts(str(place), config))
        sampling = SamplingParams(temperature=0.0, max_tokens=args.new, ignore_eos=True)
        (first,) = llm.generate([next(prompts)], sampling, use_tqdm=False)
        requests_a_second(llm, prompts, sampling, most, most)  # to warm up
        rates = {
            n: requests_a_second(llm, prompts, sampling, int(n), args.requests)
            for n in args.in_flight.split(",")
        }
    return {"method": args.one, "prompt": len(first.prompt_token_ids), "rates": rates}


def options(method: str, prune: PruneConfig, share: float, dense: int) -> dict[str, Any]:
    """What tells vLLM to prune by `method`. EVS and VidCom2 round down, so half a token is added to the share."""
    if method == "none":
        return {}
    if method in ("evs", "vidcom2"):
        return {"video_pruning_method": method, "video_pruning_rate": 1 - share - 0.5 / dense}
    if method != "balanced-serve":
        raise ValueError(f"method={method!r}; allowed: {', '.join(METHODS)}")
    return {"additional_config": {"videoprune": {"prune": prune.as_dict()}}}


def clips(args: argparse.Namespace, prompts: Prompts) -> Iterator[dict[str, Any]]:
    """Questions about clips of noise, without end."""
    generator = torch.Generator().manual_seed(0)
    times = tuple(map(float, range(args.frames)))
    while True:
        pixels = torch.randint(256, (args.frames, *args.size, 3), generator=generator, dtype=torch.uint8)
        frames = VideoFrames(pixels, times, float(args.frames), "noise", "random")
        yield prompts(frames, " ".join(["what"] * args.text))


def line(row: dict[str, Any], first: dict[str, Any]) -> str:
    cells = [f"{n}: {rate:.2f} ({rate / first['rates'][n]:.2f}x)" for n, rate in row["rates"].items()]
    return f"{row['method']}, prompts of {row['prompt']} tokens; requests a second " + ", ".join(cells)


if __name__ == "__main__":
    main()
