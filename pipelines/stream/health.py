"""Whether the model answers: found out by asking it, at most every few seconds."""

from __future__ import annotations

import asyncio
import logging
import time

import torch

from videoprune.engine import Engine
from videoprune.types import VideoFrames

_log = logging.getLogger(__name__)
_FRESH = 10.0  # seconds for which an answer counts
_WAIT = 10.0  # seconds for an answer


class Health:
    """One question at a time, however many want to know."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._asking: asyncio.Task[str] | None = None
        self._said, self._at = "", -_FRESH

    async def reason(self) -> str:
        """Why the model does not answer; "": it does."""
        if time.monotonic() - self._at < _FRESH and not self._said:
            return ""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(asyncio.to_thread(self._ask))
        done, _ = await asyncio.wait([self._asking], timeout=_WAIT)
        if not done:
            return f"the model has not answered within {_WAIT:g} seconds"
        self._said, self._at = self._asking.result(), time.monotonic()
        return self._said

    def _ask(self) -> str:
        height, width = self._engine.frame_size or (56, 56)
        each = self._engine.weights.frames_per_step
        black = torch.zeros(each, height, width, 3, dtype=torch.uint8)
        clip = VideoFrames(black, tuple(map(float, range(each))), float(each), "", "health")
        try:
            self._engine.answer(self._engine.encode([clip]), ["What is there?"], max_new_tokens=1)
        except Exception as error:
            _log.exception("the model does not answer")
            return f"the model failed ({type(error).__name__}); the server's log says more"
        return ""
