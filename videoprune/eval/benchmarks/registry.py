"""The published benchmarks by name."""

from __future__ import annotations

from videoprune.eval.benchmarks.activitynet import ActivityNet
from videoprune.eval.benchmarks.base import Benchmark
from videoprune.eval.benchmarks.moving_stream.bench import MovingStream
from videoprune.eval.benchmarks.msvd import MSVD
from videoprune.eval.benchmarks.nextoe import NextOE
from videoprune.eval.benchmarks.nextqa import NextQA
from videoprune.eval.benchmarks.ovobench import OVOBench
from videoprune.eval.benchmarks.streamingbench import StreamingBench
from videoprune.eval.benchmarks.videomme import VideoMME

BENCHMARKS: dict[str, Benchmark] = {
    b.name: b
    for b in (
        VideoMME(),
        NextQA(),
        NextOE(),
        MSVD(),
        ActivityNet(),
        MovingStream(),
        OVOBench(),
        StreamingBench(),
    )
}


def benchmark(name: str) -> Benchmark:
    """Raises ValueError that lists the names for one that is none of them."""
    if name not in BENCHMARKS:
        raise ValueError(f"benchmark={name!r}; allowed: {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]
