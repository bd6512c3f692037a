"""What a stream's session tells: an answer, and where the stream is."""

from __future__ import annotations

from dataclasses import dataclass

from videoprune.types import Trace


@dataclass(frozen=True)
class StreamAnswer:
    """What the model said of the stream up to `asked_at` (seconds of the stream).

    cited: first and last second of the spans that the answer rests on, the strongest first: the time steps whose tokens
    the question kept to the LLM's last layer. seconds: queue, encode, prefill (to the first token) and generate.
    tokens: dense (of all that is remembered, unpruned), resident, llm (on average over its layers), text (of the
    prompt).
    """

    text: str
    choice: str
    asked_at: float
    cited: tuple[tuple[float, float], ...]
    seconds: dict[str, float]
    tokens: dict[str, int]
    trace: Trace


@dataclass(frozen=True)
class StreamStats:
    """frames: given; still: of them merged unseen into the one before; steps: encoded. tokens, bytes: held now, those
    of the LLM's shared beginning apart (`prefix_bytes`). arrived: tokens since the start. first, last: seconds."""

    frames: int
    still: int
    steps: int
    arrived: int
    tokens: int
    bytes: int
    prefix_bytes: int
    held_steps: int
    first: float | None
    last: float | None
    encode_seconds: float
