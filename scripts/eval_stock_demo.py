"""Accuracy of a demo model of a stock class on MovingShapes, pruned by `videoprune.apply`, against random dropping.

    python scripts/eval_stock_demo.py llava-demo --data runs/moving-shapes-0-200

Every row asks the same questions through the model's own `generate`. The random control drops in the same stages to
the same counts. Inputs are made here, so no processor (and no torchvision) is needed.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoTokenizer

sys.path.insert(0, str(Path(__file__).parent))

import videoprune
from demo_training.shapes import SHAPES, StockShape
from videoprune.config import PruneConfig, preset
from videoprune.eval.benchmarks.moving_shapes.load import load
from videoprune.eval.metrics import clustered_interval
from videoprune.prompts import parse_choice, prompt
from videoprune.types import Sample, VideoFrames
from videoprune.video import Reader, Sampling

BATCH = 8


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shape", choices=sorted(SHAPES))
    parser.add_argument("--model", type=Path, help="the model's folder (default: videoprune/models/SHAPE)")
    parser.add_argument("--data", type=Path, required=True, help="a MovingShapes folder")
    parser.add_argument("--prune", nargs="+", default=["none", "light", "balanced", "aggressive"])
    parser.add_argument("--limit", type=int, help="only the first N questions")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    folder = args.model or Path("videoprune/models") / args.shape.replace("-", "_")
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    samples = load(args.data, args.limit)
    clips = read_clips(samples, SHAPES[args.shape].side)
    print(
        "| setting | accuracy % (95 %) | visual tokens, LLM average | retention % | by category | seconds |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for name in args.prune:
        settings = {name: as_fixed(preset(name))}
        if name != "none":
            settings[f"{name}, random"] = at_random(settings[name])
        for label, config in settings.items():
            print(row(label, config, SHAPES[args.shape], model, tokenizer, samples, clips), flush=True)


def as_fixed(config: PruneConfig) -> PruneConfig:
    """Fixed shares where the preset adapts: lambda is not calibrated for these models."""
    return config.replace(**{"llm.method": "fixed"}) if config.llm.method == "adaptive" else config


def at_random(config: PruneConfig) -> PruneConfig:
    changes = {"encoder.method": "random"}
    return config.replace(**changes, **({"llm.method": "random"} if config.llm.method != "none" else {}))


def read_clips(samples: list[Sample], side: int) -> dict[str, VideoFrames]:
    with Reader(threads=2) as reader:
        return {
            v: reader.read(v, Sampling(max_frames=8), size=(side, side))
            for v in dict.fromkeys(s.video for s in samples)
        }


def row(
    label: str,
    config: PruneConfig,
    shape: StockShape,
    model: Any,
    tokenizer: Any,
    samples: list[Sample],
    clips: dict[str, VideoFrames],
) -> str:
    videoprune.apply(model, config)
    layout = shape.layout(tokenizer)
    start = tokenizer.decode(layout)
    started, right, kept = time.perf_counter(), defaultdict(list), []
    for i in range(0, len(samples), BATCH):
        part = samples[i : i + BATCH]
        text = tokenizer([start + prompt(s) for s in part], return_tensors="pt", padding=True)
        pixels = [shape.pixels(clips[s.video].pixels) for s in part]
        inputs = {k: torch.cat([p[k] for p in pixels]) for k in pixels[0]}
        video = model.config.video_token_id
        if "video_grid_thw" in inputs:
            inputs["mm_token_type_ids"] = (text["input_ids"] == video).int() * 2
        with torch.no_grad():
            ids = model.generate(
                input_ids=text["input_ids"],
                attention_mask=text["attention_mask"],
                **inputs,
                max_new_tokens=8,
                do_sample=False,
            )
        said = tokenizer.batch_decode(ids[:, text["input_ids"].shape[1] :], skip_special_tokens=True)
        for sample, one, layers in zip(part, said, videoprune.trace(model).layers, strict=True):
            choice = parse_choice(one, len(sample.options), options=sample.options)
            right[sample.meta["category"]].append((choice == sample.answer, sample.video))
            kept.append(sum(layers) / len(layers))
    every = [x for v in right.values() for x in v]
    low, high = clustered_interval([float(r) for r, _ in every], [v for _, v in every])
    dense = int((layout == model.config.video_token_id).sum())
    share = sum(kept) / len(kept)
    categories = " ".join(f"{c} {100 * sum(r for r, _ in v) / len(v):.0f}" for c, v in sorted(right.items()))
    accuracy = 100 * sum(r for r, _ in every) / len(every)
    return (
        f"| {label} | {accuracy:.1f} ({100 * low:.1f} to {100 * high:.1f}) | {share:.1f} | "
        f"{100 * share / dense:.1f} | {categories} | {time.perf_counter() - started:.0f} |"
    )


if __name__ == "__main__":
    main()
