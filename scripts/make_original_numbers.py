"""Run a rival's own code, from a clone of its repository, on seeded tensors, and keep what it chose and merged.

    python scripts/make_original_numbers.py vidcom2 --source path/to/VidCom2

writes tests/prune/rivals/originals/vidcom2.npz. Its inputs are not in the file: the test draws them anew from the same
seeds, with `scripts/original_numbers/inputs.py`. The commit of the clone is kept beside the numbers.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
FOLDER = Path(__file__).parent.parent / "tests" / "prune" / "rivals" / "originals"


def main() -> None:
    known = sorted(p.stem for p in (Path(__file__).parent / "original_numbers").glob("[a-z]*.py"))
    known.remove("inputs")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("method", choices=known)
    parser.add_argument("--source", type=Path, required=True, help="a clone of the authors' repository")
    args = parser.parse_args()
    commit = subprocess.run(
        ["git", "-C", str(args.source), "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    # Each module has numbers(source) -> arrays by name, which runs the authors' functions and nothing of this package.
    made = importlib.import_module(f"original_numbers.{args.method}").numbers(args.source.resolve())
    FOLDER.mkdir(exist_ok=True)
    np.savez_compressed(FOLDER / f"{args.method}.npz", commit=np.array(commit), **made)
    print(f"{FOLDER / args.method}.npz: {len(made)} arrays, commit {commit[:12]}")


if __name__ == "__main__":
    main()
