"""python -m tests.chaos --kills 100"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.chaos.harness import KINDS, Harness


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        harness = Harness(Path(work), kills=args.kills, seed=args.seed)
        try:
            found = harness.go()
        finally:
            harness.close()
    print("| killed | times |\n| --- | --- |")
    for kind in KINDS:
        print(f"| {kind} | {found.kills[kind] if kind in harness.kinds else 'not possible here'} |")
    print(
        f"\n{found.kills.total()} kills in {found.seconds:.0f} s; {found.runs} runs, started {found.attempts} times: "
        f"{found.questions} questions, {found.answered} answered, {found.lost} lost, {found.doubled} doubled, "
        f"{found.hung} hung; {found.failed_on_the_way} failed rows on the way, which were tried again"
    )
    return int(bool(found.lost or found.doubled or found.hung))


if __name__ == "__main__":
    raise SystemExit(main())
