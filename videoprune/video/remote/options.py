"""How remote videos are fetched and kept."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

GIB = 2**30


def default_folder() -> str:
    """In the system's folder for such files: a home folder may be shared by the nodes of a cluster."""
    user = os.getuid() if hasattr(os, "getuid") else "user"
    return str(Path(tempfile.gettempdir()) / f"videoprune-videos-{user}")


@dataclass(frozen=True)
class RemoteOptions:
    """folder: where fetched videos are kept, on each machine. size: bytes of all of them. largest: bytes of one; a
    larger one is not fetched. seconds: that one may take with all tries; silent_seconds: of them without a byte. tries:
    while errors look as if they pass; pause: seconds before the second try, twice as many before each further one.
    """

    folder: str = field(default_factory=default_folder)
    size: int = 10 * GIB
    largest: int = 2 * GIB
    seconds: float = 300.0
    silent_seconds: float = 30.0
    tries: int = 4
    pause: float = 1.0

    def __post_init__(self) -> None:
        for name in ("largest", "seconds", "silent_seconds", "tries"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}; allowed: above 0")
        if self.pause < 0:
            raise ValueError(f"pause={self.pause}; allowed: 0 or more")
        if self.size < self.largest:
            raise ValueError(
                f"size={self.size}; allowed: largest={self.largest} or more, room for one video of that size"
            )
