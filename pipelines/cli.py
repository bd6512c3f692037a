"""`videoprune`: one module a command. Each says what it takes (`add`) and does it (`run`), where its heavy imports are.

Status: 0, 1 if a video could not be read, 2 for a mistake in what was asked, told in one sentence, 128 and the signal's
number for a run that was asked to end.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Any, NoReturn

from pipelines import ask, calibrate, demo, evaluate, score, serve, show, speedup, tables
from pipelines.run.stop import StoppedError

_COMMANDS = (ask, show, serve, evaluate, score, speedup, demo, calibrate, tables)
_DASH = "a file that begins with a dash: write ./{0}, or put -- before it"
_FILE_NAME = re.compile(r"-[^-=].*\.[A-Za-z0-9]{2,5}")


class _Parser(argparse.ArgumentParser):
    """Says what to do about a file whose name looks like an option."""

    given: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self.given = sys.argv[1:] if args is None else list(args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        files = [
            w for w in self.given if w.startswith("-") and (_FILE_NAME.fullmatch(w) or os.path.exists(w))
        ]
        super().error("\n".join([message, *(_DASH.format(w) for w in files[:1])]))


def main(argv: Sequence[str] | None = None) -> int:
    parser = _Parser(
        prog="videoprune",
        description="Early visual-token pruning for video language models.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in _COMMANDS:
        module.add(commands)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a character that the terminal has not must not end a run
            stream.reconfigure(errors="backslashreplace")
    args, words = parser.parse_known_args(argv)
    strange = [w for w in words if w.startswith("-") or "=" not in w]
    if strange or (words and not args.overrides):
        parser.error(f"unrecognized arguments: {' '.join(strange or words)}")
    # Progress bars of a model that loads in a second would only stand between the question and the answer.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if getattr(args, "random_weights", False):
        args.model = f"random:{args.model}"
    try:
        return int(args.run(args, words))
    except (ValueError, OSError) as error:
        print(f"videoprune: {error}", file=sys.stderr)
        return 1 if _is_of_a_video(error) else 2
    except StoppedError as stopped:
        given = [w for w in (sys.argv[1:] if argv is None else argv) if w != "--restart"]
        print(f"videoprune: stopped, {stopped}; go on with: videoprune {shlex.join(given)}", file=sys.stderr)
        if stopped.overdue:
            sys.stdout.flush()
            os._exit(128 + stopped.signal)
        return 128 + stopped.signal
    except KeyboardInterrupt:
        print("videoprune: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130


def _is_of_a_video(error: Exception) -> bool:
    from videoprune.video import VideoError

    return isinstance(error, VideoError)


if __name__ == "__main__":
    sys.exit(main())
