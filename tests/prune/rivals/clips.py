"""Random clips, and the plain-Python pieces that the oracles of the baselines share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from videoprune.prune.merge import apply_plan
from videoprune.prune.rivals.tokens import ClipTokens
from videoprune.types import KeepPlan

FEW = settings(max_examples=60)
Vector = Sequence[float]


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make_clip(frames: int, tokens: int, *, seed: int = 0, width: int = 5, still: float = 0.0) -> ClipTokens:
    """Random float64 tokens. still: how much each frame resembles the one before, 0..1."""
    x = numbers(frames, tokens, width, seed=seed)
    for t in range(1, frames):
        x[t] = still * x[t - 1] + math.sqrt(1 - still**2) * x[t]
    rows = next(r for r in range(math.isqrt(tokens), 0, -1) if tokens % r == 0)
    return ClipTokens(
        x=x,
        attention=numbers(frames, tokens, seed=seed + 1).softmax(dim=1),
        keys=numbers(frames, tokens, 4, seed=seed + 2),
        grid=(rows, tokens // rows),
    )


@st.composite
def clips_and_counts(draw: st.DrawFn, max_frames: int = 4, max_tokens: int = 9) -> tuple[ClipTokens, int]:
    frames, tokens = draw(st.integers(1, max_frames)), draw(st.integers(1, max_tokens))
    clip = make_clip(
        frames, tokens, seed=draw(st.integers(0, 10**6)), still=draw(st.sampled_from([0.0, 0.8, 0.98]))
    )
    return clip, draw(st.integers(1, frames * tokens))


def targets(plan: KeepPlan) -> list[int]:
    """Where each token of a clip's plan ends, -1 for dropped; checks that the plan is sound."""
    assert plan.keep.dtype == plan.into.dtype == torch.int64
    assert plan.keep.shape[0] == plan.into.shape[0] == 1
    keep, into = plan.keep[0].tolist(), plan.into[0].tolist()
    assert keep == sorted(set(keep))
    assert [into[k] for k in keep] == list(range(len(keep)))
    assert all(-1 <= i < len(keep) for i in into)
    return [keep[i] if i >= 0 else -1 for i in into]


def sums(plan: KeepPlan) -> dict[int, list[float]]:
    """What each survivor of a clip's plan becomes: by its place, the weights (N,) of all tokens in it."""
    targets(plan)
    weights = apply_plan(torch.eye(plan.num_tokens, dtype=torch.float64)[None], plan)[0]
    return dict(zip(plan.keep[0].tolist(), weights.tolist(), strict=True))


def kept_only(kept: set[int], total: int) -> list[int]:
    return [i if i in kept else -1 for i in range(total)]


def cosine(a: Vector, b: Vector) -> float:
    norms = math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / norms if norms else 0.0


def mean(vectors: Sequence[Vector]) -> list[float]:
    return [sum(column) / len(vectors) for column in zip(*vectors, strict=True)]


def middles(length: int, count: int) -> list[int]:
    return [(2 * i + 1) * length // (2 * count) for i in range(count)]


def even(keep: int, frames: int) -> list[int]:
    longer = middles(frames, keep % frames)
    return [keep // frames + (1 if t in longer else 0) for t in range(frames)]


def best(among: Sequence[int], score: Callable[[int], float], count: int) -> list[int]:
    """The `count` with the highest scores, of equals the earlier."""
    return sorted(among, key=lambda i: (-score(i), i))[:count]


def shares(total: int, sizes: Sequence[int]) -> list[int]:
    """`total` split in proportion to `sizes` by largest remainders, equal ones to the earlier."""
    exact = [total * size for size in sizes]
    counts = [e // sum(sizes) for e in exact]
    for i in sorted(range(len(sizes)), key=lambda i: (-(exact[i] % sum(sizes)), i))[: total - sum(counts)]:
        counts[i] += 1
    return counts
