"""What live sources give, and what can be asked of each.

Shapes: H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:  # the decoding process imports this package and must stay without torch
    from torch import Tensor

State = Literal["connecting", "live", "retrying", "ended", "failed", "closed"]
# No frame comes after these.
FINAL: tuple[State, ...] = ("ended", "failed", "closed")


@dataclass(frozen=True)
class LiveFrame:
    """pixels: uint8 (H, W, 3), RGB, upright.

    seconds: since the source's start, strictly ascending in one source; of a recording, since its first frame.
    wall: when it was seen, seconds since the epoch.
    """

    pixels: Tensor
    seconds: float
    wall: float


@dataclass(frozen=True)
class SourceStats:
    """Counters of one source at one moment; received == taken + dropped + waiting.

    received: frames that were to be taken. taken: those that `next` returned. dropped: those that a newer one
    replaced, or the close, before they were taken. waiting: 1 where one can be taken now. thinned: intact frames
    left out because `fps` wants fewer. broken: frames that could not be decoded, or were refused. reconnects: times
    that a connection was tried after the first. reason: of the last error, without credentials; '' for none.
    """

    state: State = "connecting"
    received: int = 0
    taken: int = 0
    dropped: int = 0
    waiting: int = 0
    thinned: int = 0
    broken: int = 0
    reconnects: int = 0
    reason: str = ""


class LiveSource(Protocol):
    """A stream of frames that several threads may share."""

    def next(self, timeout: float) -> LiveFrame | None:
        """The newest frame that nobody took yet; None: none came within `timeout` seconds, or none will."""

    @property
    def ended(self) -> bool:
        """No frame will come any more."""

    def stats(self) -> SourceStats: ...

    def close(self) -> None:
        """End it, threads and processes too. More than once is allowed."""
