"""Write a copy of a model whose LLM has wider heads and computes the same: vLLM on a CPU takes 32, 64, 80 ... alone.

PYTHONPATH=. python scripts/pad_heads.py qwen-demo runs/qwen-demo-32 --width 32
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipelines.vllm.padded_heads import pad_heads
from videoprune.models.loading import model_folder


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="llava-demo, qwen-demo, or the folder of a model whose LLM is Qwen3's")
    parser.add_argument("out", type=Path, help="the folder of the copy")
    parser.add_argument("--width", type=int, default=32, help="of its heads (default: 32)")
    args = parser.parse_args()
    print(pad_heads(model_folder(args.model), args.out, args.width))


if __name__ == "__main__":
    main()
