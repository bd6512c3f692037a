"""One call of a model: its seconds by stage, its tokens, its memory."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch

from pipelines.measure.calls import Call
from pipelines.measure.memory import memory_limits, warm_peak
from pipelines.measure.plan import Setting
from pipelines.measure.turns import WARM_UP_TOKENS
from pipelines.run.stages import DecodeStage
from videoprune.clock import now
from videoprune.engine import Engine
from videoprune.eval.benchmarks.base import Recipe
from videoprune.types import Answer


def decoder(engine: Engine, frames: int, recipe: Recipe | None) -> DecodeStage:
    """What reads clips as the recipe and the model want them; close it."""
    recipe = recipe or Recipe()
    decode = DecodeStage(frames, engine.frame_size, **recipe.sampling())
    decode.setup()
    return decode


def ready(engine: Engine, setting: Setting) -> Engine:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that lambda is not calibrated is said once, before
        return engine.with_prune(setting.config)


def timed(engine: Engine, call: Call, max_new_tokens: int) -> dict[str, Any]:
    """Seconds by stage of one call, from decoding to the whole answer. The first token is asked for alone.

    total: without decoding; end_to_end: with it. Raises TooMuchMemoryError.
    """
    device = device_of(engine)
    with memory_limits():
        started = now(device)
        encoded = engine.encode(call.clips)
        encoded_at = now(device)
        first = engine.answer(encoded, call.samples, max_new_tokens=1)
        answered = now(device)
        whole = engine.answer(encoded, call.samples, max_new_tokens=max_new_tokens)
        total = encoded_at - started + now(device) - answered
    part = _sums([*(e.trace.seconds for e in encoded), *(a.trace.seconds for a in first)])
    return {
        "decode": call.decode_seconds,
        "preprocess": part["preprocess"],
        "encode": part["encode"],
        "prune": part["encode_prune"] + part["llm_prune"],
        "fuse": part["fuse"],
        "prefill": answered - encoded_at - part["llm_prune"],
        "first_token": answered - started,
        "generate": max(0.0, total - (answered - started)),
        "total": total,
        "end_to_end": call.decode_seconds + total,
        "tokens": tokens_of(whole),
    }


def peak_of(engine: Engine, call: Call, max_new_tokens: int) -> int | None:
    """Bytes above the loaded model that a whole call takes. Raises TooMuchMemoryError."""
    most = max(WARM_UP_TOKENS, max_new_tokens)
    with memory_limits():
        return warm_peak(
            lambda: engine.answer(engine.encode(call.clips), call.samples, max_new_tokens=most),
            device_of(engine),
        )


def device_of(engine: Engine) -> torch.device:
    return next(engine.model.parameters()).device


def _sums(parts: Sequence[dict[str, float]]) -> dict[str, float]:
    return {stage: sum(p.get(stage, 0.0) for p in parts) for part in parts for stage in part}


def tokens_of(answers: Sequence[Answer]) -> dict[str, Any]:
    """Means over the answers; of one, its whole numbers."""
    traces = [answer.trace for answer in answers]
    mean = lambda values: values[0] if len(set(values)) == 1 else sum(values) / len(values)  # noqa: E731
    return {
        "dense": mean([t.dense for t in traces]),
        "encoder": mean([sum(after for _, after in t.encoder.values()) for t in traces]),
        "fused": mean([t.fused for t in traces]),
        "llm_layers": [mean(list(layer)) for layer in zip(*(t.llm_layers for t in traces), strict=True)],
        "retention": mean([t.retention for t in traces]),
    }
