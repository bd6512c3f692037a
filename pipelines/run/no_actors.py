"""A cluster on which a run cannot begin, and what Ray says of it."""

from __future__ import annotations

import re


class NoActorsError(RuntimeError):
    """No actor of a stage came to be ready."""


def why_no_actor(error: Exception) -> str:
    """The sentence that helps in what Ray says of an actor that did not start: the last one, behind the traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = re.sub(r"\x1b\[\d+m", "", lines[-1]) if lines else type(error).__name__
    if re.search(r"No module named '(pipelines|videoprune)\b", str(error)):
        last += "; the node has no videoprune: install it there, or see --runtime-env"
    return last
