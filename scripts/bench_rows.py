"""How long a run with many finished rows takes to reopen and to sum up, and how much memory.

PYTHONPATH=. python scripts/bench_rows.py --rows 1000000
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from pipelines.run.results import Results
from videoprune.eval.summary import summarize

ROW: dict[str, Any] = {
    "category": "color",
    "duration": "short",
    "question": "What color is the diamond?",
    "answer": "B",
    "prediction": "B",
    "text": "red",
    "correct": True,
    "outcome": "complete",
    "kind": "",
    "reason": "",
    "traceback": "",
    "backend": "decord",
    "fallback_reason": "",
    "tokens": {
        "dense": 1569,
        "encoder": {"vision": [5832, 4374]},
        "fused": 589,
        "llm_layers": [589] * 3 + [465] * 6 + [369] * 6 + [293] * 9,
        "llm_average": 392.1,
        "retention": 0.2499,
    },
    "seconds": {"decode": 0.22, "preprocess": 0.001, "encode": 0.069, "encode_prune": 0.012, "llm": 0.15},
    "key": "562f2457eb2b7775",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="three questions a video")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.jsonl"
        with path.open("w") as file:
            for i in range(args.rows):
                named = {"question_id": f"video-{i // 3:07d}-{i % 3}", "video_id": f"video-{i // 3:07d}"}
                file.write(json.dumps(named | ROW) + "\n")
        print(f"{args.rows:,} rows, {path.stat().st_size / 1e6:,.0f} MB")
        began = time.perf_counter()
        with Results(path) as results:
            tell("reopened", began)
            rows = results.rows(list(results.index))
        began = time.perf_counter()
        summarize(rows)
        tell("summed up", began)


def tell(what: str, began: float) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{what} in {time.perf_counter() - began:.1f} s, at most {peak:,.0f} MiB so far")


if __name__ == "__main__":
    main()
