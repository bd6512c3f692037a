"""Run a rival's own code, from a clone of its repository, on seeded tensors, and keep what it chose and merged.

    python scripts/make_original_numbers.py vidcom2 --source path/to/VidCom2

writes tests/prune/rivals/originals/vidcom2.npz. Its inputs are not in the file: the test draws them anew from the same
seeds, with `scripts/original_numbers/inputs.py`. The commit of the clone is kept beside the numbers; that of a folder
without git, which holds single files of a large repository at their paths, has to be given.
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


def _commit(clone: Path) -> str:
    command = ["git", "-C", str(clone), "rev-parse", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def main() -> None:
    known = sorted(p.stem for p in (Path(__file__).parent / "original_numbers").glob("[a-z]*.py"))
    known.remove("inputs")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("method", choices=known)
    parser.add_argument("--source", type=Path, required=True, help="a clone of the authors' repository")
    parser.add_argument("--commit", help="what --source was taken from, where it is a folder without git")
    args = parser.parse_args()
    cloned = (args.source / ".git").exists()
    if cloned == bool(args.commit):
        parser.error(
            f"--commit={args.commit}; allowed: none for a clone, the commit for a folder without git"
        )
    commit = _commit(args.source) if cloned else args.commit
    # Each module has numbers(source) -> arrays by name, which runs the authors' functions and nothing of this package.
    made = importlib.import_module(f"original_numbers.{args.method}").numbers(args.source.resolve())
    FOLDER.mkdir(exist_ok=True)
    np.savez_compressed(FOLDER / f"{args.method}.npz", commit=np.array(commit), **made)
    print(f"{FOLDER / args.method}.npz: {len(made)} arrays, commit {commit[:12]}")


if __name__ == "__main__":
    main()
