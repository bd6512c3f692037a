"""Made-up results in the shape of a speed run: only to draw and table, no measurement."""

from __future__ import annotations

import base64
import random
import struct
import zlib
from typing import Any

RIVALS = (
    "fastv",
    "sparsevlm",
    "visionzip",
    "holitom",
    "flashvid",
    "framefusion",
    "pyramiddrop",
    "random",
    "uniform",
)
OURS = ("evoprune", "meteor", "both")


def results(
    *,
    measured: bool = True,
    shares: tuple[float, ...] = (0.25, 0.1),
    loads: tuple[int, ...] = (1,),
    seed: int = 0,
) -> dict[str, Any]:
    rng = random.Random(seed)
    rows = []
    for load in loads:
        rows.append(row("none", 1.0, rng, measured, load))
        rows += [row(m, s, rng, measured, load) for m in (*OURS, *RIVALS) for s in shares]
    return {
        "meta": {
            "dataset": "made up",
            "model": "llava-onevision-7b",
            "hardware": "2 cores <x>, no GPU",
            "versions": {"torch": "2.13", "transformers": "5.23"},
            "digest": "0123456789ab",
            "command": "videoprune speedup --model x",
            "attention": "sdpa",
            "dtype": "bfloat16",
            "runs": 5,
            "questions": 200,
            "accuracy_measured": measured,
        },
        "rows": rows,
        "refused": [{"method": "visionzip", "reason": "needs a CLS token; this encoder has none"}],
        "frames": [{"method": "evoprune", "title": "behind the encoder", "png_base64": png(96, 48, rng)}],
    }


def row(method: str, share: float, rng: random.Random, measured: bool, load: int) -> dict[str, Any]:
    ours, base = method in OURS, method == "none"
    encode = 0.62 * (1 if not ours else 0.45 + 0.5 * share) * rng.uniform(0.97, 1.03)
    prefill = 0.5 * (share**1.05 if not base else 1) * rng.uniform(0.95, 1.1)
    prune = 0 if base else rng.uniform(0.005, 0.05)
    seconds = {
        "decode": 0.31,
        "preprocess": 0.08,
        "encode": encode,
        "prune": prune,
        "prefill": prefill,
        "generate": 0.2,
    }
    first = encode + prune + prefill + 0.08
    seconds |= {"first_token": first, "total": first + 0.51}
    good = (
        (0.585 if base else 0.585 - (0.01 if ours else 0.03) - 0.02 * (1 - share) * rng.random())
        if measured
        else None
    )
    layers = [1568 * share * (1 if not ours or i < 8 else 0.7) * (1.15 if ours else 1) for i in range(28)]
    return {
        "method": method,
        "retain": share,
        "retention": sum(layers) / 28 / 1568,
        "frames": 8,
        "concurrency": load,
        "ours": ours,
        "accuracy": {
            "all": good,
            "answered": good,
            "ci95": [good - 0.03, good + 0.03] if measured else None,
            "agreement": None if not measured else rng.uniform(0.8, 1),
            "parse_failures": 0,
            "questions": 200,
        },
        "seconds": {k: {"median": v, "low": 0.97 * v, "high": 1.04 * v} for k, v in seconds.items()},
        "runs": 5,
        "questions_per_second": load**0.5 / seconds["total"],
        "speedup": {
            "first_token": 1.2 / first,
            "total": 1.7 / (first + 0.5),
            "encode": 0.62 / encode,
            "prefill": 0.5 / prefill,
        },
        "encode_once_ask_many": {"questions": 4, "seconds_per_question": 0.4} if ours else None,
        "tokens": {
            "dense": 1568,
            "encoder": 1568.0 * (share if ours else 1),
            "fused": layers[0],
            "llm_layers": layers,
        },
        "flops": {
            "encoder": 5e12,
            "prune": 1e9,
            "prefill": 2e13 * share,
            "decode": 1e11,
            "total": 5e12 + 2e13 * share,
        },
        "flop_ideal": 25 / (5 + 20 * share),
        "share_of_ideal": 0.8,
        "kv_bytes": int(9e7 * share),
        "peak_bytes": None if ours else 10**9,
    }


def png(width: int, height: int, rng: random.Random) -> str:
    """A picture of noise as a PNG file in base64."""
    raw = b"".join(b"\0" + bytes(rng.randrange(256) for _ in range(3 * width)) for _ in range(height))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    file = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    )
    return base64.b64encode(file).decode()
