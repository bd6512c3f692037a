"""Fields of what viewers say, looked through, and answers as they are told of them."""

from __future__ import annotations

from typing import Any

from pipelines.stream.chat_answer import Said
from pipelines.stream.refused import Refused

_OPTIONS = 26


def answered(identity: str, said: Said, options: tuple[str, ...]) -> dict[str, Any]:
    text = options[ord(said.choice) - ord("A")] if said.choice else said.text
    return {"type": "answer", "id": identity, "text": text, "whole": said.whole, **said.facts()}


def text_field(data: dict[str, Any], name: str, most: int) -> str:
    value = data.get(name)
    if not isinstance(value, str) or not value.strip() or len(value) > most:
        raise Refused(400, f"{name}: no text of 1 to {most} characters; allowed: that", param=name)
    return value


def options_field(data: dict[str, Any]) -> tuple[str, ...]:
    value = data.get("options", [])
    fits = isinstance(value, list) and len(value) <= _OPTIONS and all(isinstance(o, str) for o in value)
    if not fits or len(value) == 1 or any(not 0 < len(o.strip()) <= 200 for o in value):
        raise Refused(
            400, f"options: allowed: none, or 2 to {_OPTIONS} texts of 1 to 200 characters", param="options"
        )
    return tuple(o.strip() for o in value)
