"""Requests as lmms-eval makes them -> texts, grouped so that a video is decoded and encoded once.

Shapes: T frames, H x W pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from videoprune.engine import Engine
from videoprune.types import Outcome, Sample, VideoFrames
from videoprune.video import Reader, Sampling

_LOG = logging.getLogger(__name__)
_MOST_NEW_TOKENS = 64  # where a task names no number


@dataclass(frozen=True)
class Request:
    """context: the prompt. options: generation_kwargs. visuals: one video's path, or images (PIL) of one size."""

    context: str
    options: dict[str, Any]
    visuals: list[Any]

    @property
    def max_new_tokens(self) -> int:
        return int(self.options.get("max_new_tokens", _MOST_NEW_TOKENS))

    def cut(self, text: str) -> str:
        """The text up to the first of the task's stop words."""
        stops = self.options.get("until") or []
        for stop in [stops] if isinstance(stops, str) else stops:
            if stop:
                text = text.split(stop)[0]
        return text.strip()


def answer_requests(engine: Engine, requests: Sequence[Request], *, frames: int, batch: int = 8) -> list[str]:
    """A text per request, in order. A video that cannot be read gives "" and a warning with the reason.

    Raises ValueError for visuals that are neither one video nor images of one size, and for sampled generation.
    """
    for request in requests:
        if request.options.get("do_sample"):
            raise ValueError("do_sample=True; allowed: False, answers are greedy")
    groups: dict[Any, list[int]] = {}
    for i, request in enumerate(requests):
        groups.setdefault(_key(request), []).append(i)
    texts = [""] * len(requests)
    with Reader() as reader:
        for places in groups.values():
            clip = _frames(engine, reader, requests[places[0]].visuals, frames)
            if isinstance(clip, Outcome):
                _LOG.warning("%d questions are not answered: %s", len(places), clip.reason)
                continue
            encoded = engine.encode([clip])
            for start in range(0, len(places), batch):
                some = places[start : start + batch]
                samples = [Sample(str(i), clip.path, "", prompt=requests[i].context) for i in some]
                most = max(requests[i].max_new_tokens for i in some)
                answers = engine.answer(encoded, samples, max_new_tokens=most)
                for i, answer in zip(some, answers, strict=True):
                    texts[i] = requests[i].cut(answer.text)
    return texts


def _key(request: Request) -> Any:
    """Same visuals, and the same length, so that no answer depends on what it is batched with."""
    seen = tuple(v if isinstance(v, str) else id(v) for v in request.visuals)
    return seen, request.max_new_tokens


def _frames(engine: Engine, reader: Reader, visuals: list[Any], count: int) -> VideoFrames | Outcome:
    if len(visuals) == 1 and isinstance(visuals[0], str):
        return reader.try_read(visuals[0], Sampling(max_frames=count), size=engine.frame_size)
    sizes = {getattr(v, "size", None) for v in visuals}
    if len(sizes) != 1 or not isinstance(next(iter(sizes)), tuple):
        raise ValueError(f"visuals={visuals!r}; allowed: the path of one video, or images of one size")
    stack = np.stack([np.asarray(v.convert("RGB")) for v in visuals])  # (T, H, W, 3)
    times = tuple(float(i) for i in range(len(visuals)))
    return VideoFrames(torch.from_numpy(stack), times, float(len(visuals)), "", "images")
