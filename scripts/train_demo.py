"""Train the demo model on MovingShapes. Stops and resumes; see the model card in videoprune/models/demo."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "stage", choices=["encoders", "llm", "export", "stock-encoder", "stock", "export-stock"]
    )
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="checkpoints and logs")
    parser.add_argument("--steps", type=int, help="default: 3000; stock-encoder 600, stock 1200")
    parser.add_argument("--batch", type=int, help="default: 32 frames (encoders), 16 clips; stock-encoder 4")
    parser.add_argument("--only", help="encoders: train just this one; stock: llava-demo or qwen-demo")
    parser.add_argument("--curriculum", type=int, default=700, help="llm: first steps, on object tokens")
    parser.add_argument(
        "--unmerged", type=int, default=1200, help="llm: next steps, without merging in encoders"
    )
    parser.add_argument("--peak", type=float, default=1.5e-3, help="llm: peak learning rate")
    parser.add_argument(
        "--whole", type=float, default=0.4, help="llm: share of hard clips that keep all where others do"
    )
    parser.add_argument("--start", type=Path, help="a trained model's folder to go on from")
    parser.add_argument("--llm", type=Path, help="llm: a stock model's folder to take the LLM from")
    parser.add_argument(
        "--folder", type=Path, default=Path("videoprune/models/demo"), help="export: where to"
    )
    parser.add_argument(
        "--checkpoint", default="llm.pt", help="export: which of the LLM's checkpoints in --out"
    )
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves torch's choice")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if args.stage == "encoders":
        from demo_training.encoders import train_encoders

        train_encoders(
            args.out,
            steps=args.steps or 3000,
            batch=args.batch or 32,
            device=device,
            only=args.only,
            start=args.start,
        )
    elif args.stage == "export":
        from demo_training.export import export

        export(args.out, args.folder, args.checkpoint, args.start)
    elif "stock" in args.stage:
        _stock(args, device)
    else:
        from demo_training.llm import train_llm

        train_llm(
            args.out,
            steps=args.steps or 3000,
            curriculum=args.curriculum,
            unmerged=args.unmerged,
            batch=args.batch or 16,
            peak=args.peak,
            device=device,
            start=args.start,
            llm=args.llm,
            whole=args.whole,
        )


def _stock(args: argparse.Namespace, device: str) -> None:
    from demo_training.stock import export_stock, train_stock
    from demo_training.stock_encoder import train_encoder
    from demo_training.stock_shapes import SHAPES

    if args.only not in SHAPES:
        raise SystemExit(f"--only {args.only}; allowed: {', '.join(SHAPES)}")
    shape, demo = SHAPES[args.only], Path("videoprune/models/demo")
    if args.stage == "stock-encoder":
        train_encoder(
            shape,
            args.out,
            steps=args.steps or 600,
            batch=args.batch or 4,
            device=device,
            start=args.start,
        )
    elif args.stage == "stock":
        train_stock(
            shape,
            args.out,
            demo,
            steps=args.steps or 1200,
            batch=args.batch or 16,
            peak=args.peak,
            device=device,
            go_on=args.start,
        )
    else:
        export_stock(shape, args.out, demo, args.folder)


if __name__ == "__main__":
    main()
