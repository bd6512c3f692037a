"""Answers in the form of OpenAI's chat API, whole or as server-sent events, with what videoprune knows beside them."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.stream.refused import Refused


@dataclass(frozen=True)
class Said:
    """text: the answer. whole: False where max_tokens ended it. prompt, made: tokens. cited: seconds of the stream or
    video. asked_at: second of the stream; None: no stream."""

    text: str
    whole: bool
    prompt: int
    made: int
    cited: tuple[tuple[float, float], ...]
    seconds: Mapping[str, float]
    tokens: Mapping[str, int]
    asked_at: float | None = None
    choice: str = ""

    def facts(self) -> dict[str, Any]:
        """What stands under `videoprune`."""
        return {
            "cited": [[round(a, 3), round(b, 3)] for a, b in self.cited],
            "asked_at": None if self.asked_at is None else round(self.asked_at, 3),
            "seconds": {stage: round(s, 4) for stage, s in self.seconds.items()},
            "tokens": dict(self.tokens),
        }

    def usage(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.made,
            "total_tokens": self.prompt + self.made,
        }

    @property
    def finish(self) -> str:
        return "stop" if self.whole else "length"


@dataclass(frozen=True)
class Completion:
    """One answer's frame: its id, its time, its model."""

    model: str
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, said: Said) -> dict[str, Any]:
        message = {"role": "assistant", "content": said.text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": said.finish}
        return self._head("chat.completion", [choice]) | {"usage": said.usage(), "videoprune": said.facts()}

    def first(self) -> str:
        return self._event([_delta({"role": "assistant", "content": ""})])

    def more(self, text: str) -> str:
        return self._event([_delta({"content": text})])

    def last(self, said: Said) -> str:
        return self._event([_delta({}, said.finish)], videoprune=said.facts())

    def usage(self, said: Said) -> str:
        return self._event([], usage=said.usage())

    def _event(self, choices: list[dict[str, Any]], **more: Any) -> str:
        return event(self._head("chat.completion.chunk", choices) | more)

    def _head(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }


def event(data: Mapping[str, Any]) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(data)}\n\n"


def failed(refused: Refused) -> str:
    """What a client is told once the answer has begun."""
    return event(refused.as_dict())


END = "data: [DONE]\n\n"


def _delta(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}


def cut_safe(text: str) -> str:
    """The part of a text so far that more tokens will not change: half a character may stand at its end."""
    return text.rstrip("�")
