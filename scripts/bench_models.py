"""Time stock models of true shape, pruned against unpruned: same frames, same kernels, alternating in one run.

    python scripts/bench_models.py llava-onevision-0.5b --frames 8 --prune balanced

Weights are random: the time is right, the answers mean nothing. "batched" is the unpruned model whose frames share one
attention call where the stock code loops over them (Qwen-VL, VideoLLaMA3); it is the baseline of the ratios. A preset
may change in single settings: --prune balanced "balanced encoder.schedule=last".
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers

import videoprune
from pipelines.configuring import load_prune
from pipelines.measure.alternating import spread
from pipelines.measure.environment import hardware, hardware_line
from pipelines.measure.first_token import FirstTokenTimer, first_token, first_token_cost, without_calibration
from pipelines.measure.memory import keep_freed, peak_above
from videoprune.config import PruneConfig
from videoprune.cost.operations import Cost
from videoprune.models.random_weights import random_inputs, random_model, shape_names
from videoprune.plug.apply import trace


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shape", help=f"a YAML file, or one of {', '.join(shape_names())}")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--size", type=int, nargs=2, default=(448, 448), metavar=("H", "W"))
    parser.add_argument("--prune", nargs="+", default=["balanced"], help="presets or YAML files")
    parser.add_argument("--runs", type=int, default=5, help="timed runs of each, after one to warm up")
    parser.add_argument("--text", type=int, default=40, help="tokens of the question")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, help="where the figures go as JSON")
    args = parser.parse_args()
    for variant in args.prune:
        config_of(variant)  # a mistake shows before the model is made
    warnings.simplefilter("ignore")
    keep_freed()
    result = measure(args)
    print_table(result)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1))


def load(args: argparse.Namespace) -> tuple[Any, dict[str, torch.Tensor]]:
    model = random_model(args.shape, dtype=getattr(torch, args.dtype)).to(args.device)
    return model, random_inputs(model, args.frames, text_tokens=args.text, size=tuple(args.size))


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Medians of every variant, taken in turn."""
    model, inputs = load(args)
    timer = FirstTokenTimer(model)
    variants = ["stock", "batched", *args.prune]
    rows: dict[str, list[dict[str, float]]] = {v: [] for v in variants}
    facts: dict[str, dict[str, Any]] = {v: {} for v in variants}
    for turn in range(args.runs + 1):
        for variant in variants:
            prepare(model, variant)
            taken = timer.run(inputs)
            if variant != "stock":
                seen = trace(model)
                taken["pruning"] = seen.seconds
                facts[variant]["layers"] = seen.layers[0]
            if turn:
                rows[variant].append(taken)
    for variant in variants:
        cost = reckoned(model, args, variant, inputs, facts[variant].get("layers"))
        facts[variant] |= {"flops": cost.first_token, "flops_without_pruning": cost.without_pruning}
        facts[variant]["peak_bytes"] = peak_memory(args, variant)
    for variant in variants:
        for stage in rows[variant][0]:
            found = spread([r[stage] for r in rows[variant]])
            facts[variant] |= {stage: found["median"], f"{stage}_spread": [found["low"], found["high"]]}
    return {
        "shape": args.shape,
        "frames": args.frames,
        "prompt": int(inputs["input_ids"].shape[1]),
        "runs": args.runs,
        "dtype": args.dtype,
        "attention": model.config._attn_implementation,
        "hardware": hardware_line(hardware()),
        "versions": {m.__name__: m.__version__ for m in (torch, transformers)},
        "variants": facts,
    }


def reckoned(
    model: Any,
    args: argparse.Namespace,
    variant: str,
    inputs: dict[str, torch.Tensor],
    layers: tuple[int, ...] | None,
) -> Cost:
    return first_token_cost(
        model,
        without_calibration(config_of(variant)),
        frames=args.frames,
        prompt_tokens=inputs["input_ids"].shape[1],
        question_tokens=args.text,
        size=tuple(args.size),
        visual_by_layer=layers,
    )


def prepare(model: Any, variant: str) -> None:
    if variant == "stock":
        videoprune.remove(model)
    else:
        videoprune.apply(model, config_of(variant))


def config_of(variant: str) -> PruneConfig:
    if variant in ("stock", "batched"):
        return PruneConfig()
    name, *changes = variant.split()
    return load_prune(name, changes)


def peak_memory(args: argparse.Namespace, variant: str) -> int | None:
    """Highest memory of a process that runs `variant` alone, over that of one that only loads the model, bytes; None
    where the system does not tell."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(peak_in_this_process, (args, variant))


def peak_in_this_process(args: argparse.Namespace, variant: str) -> int | None:
    warnings.simplefilter("ignore")
    model, inputs = load(args)
    prepare(model, variant)
    return peak_above(lambda: first_token(model, inputs), args.device)


COLUMNS = (
    "variant",
    "first token s (low to high)",
    "encoder s",
    "LLM s",
    "choosing %",
    "tokens in the LLM, first to last layer",
    "speedup",
    "FLOP-ideal",
    "of ideal",
    "peak MiB",
)


def print_table(result: dict[str, Any]) -> None:
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    print(
        f"{result['hardware']}, {result['dtype']}, {result['attention']}, {versions}; {result['frames']} frames, "
        f"prompt of {result['prompt']} tokens, medians of {result['runs']} runs after one to warm up.\n"
    )
    rows = [COLUMNS, ("---",) * len(COLUMNS)]
    rows += [table_row(name, v, result["variants"]["batched"]) for name, v in result["variants"].items()]
    for row in rows:
        print("| " + " | ".join(row) + " |")


def table_row(name: str, v: dict[str, Any], base: dict[str, Any]) -> tuple[str, ...]:
    speedup = base["first_token"] / v["first_token"]
    ideal = base["flops_without_pruning"] / v["flops_without_pruning"]
    low, high = v["first_token_spread"]
    layers = v.get("layers") or base["layers"]
    return (
        name,
        f"{v['first_token']:.2f} ({low:.2f} to {high:.2f})",
        f"{v['encoder']:.2f}",
        f"{v['llm']:.2f}",
        f"{100 * v.get('pruning', 0.0) / v['first_token']:.1f}",
        f"{layers[0]} to {layers[-1]}",
        f"{speedup:.2f}",
        f"{ideal:.2f}",
        f"{speedup / ideal:.2f}",
        "" if v["peak_bytes"] is None else f"{v['peak_bytes'] / 2**20:.0f}",
    )


if __name__ == "__main__":
    main()
