"""Methods that look across frames and drop: DivPrune, EVS, VidCom2, against loops."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.prune.rivals.clips import (
    FEW,
    best,
    clips_and_counts,
    cosine,
    even,
    kept_only,
    make_clip,
    mean,
    targets,
)
from videoprune.prune.rivals.divprune import divprune
from videoprune.prune.rivals.evs import evs
from videoprune.prune.rivals.max_min import max_min_order
from videoprune.prune.rivals.tokens import ClipTokens
from videoprune.prune.rivals.vidcom2 import vidcom2


def max_min_oracle(tokens: list[list[float]], count: int, weight: list[float]) -> list[int]:
    chosen: list[int] = []
    for _ in range(count):
        free = [i for i in range(len(tokens)) if i not in chosen]

        def score(i: int) -> float:
            against = chosen or [j for j in range(len(tokens)) if j != i]
            return weight[i] * min((1 - cosine(tokens[i], tokens[j]) for j in against), default=2.0)

        chosen.append(best(free, score, 1)[0])
    return chosen


@FEW
@given(clips_and_counts(), st.sampled_from(["clip", "frame"]))
def test_divprune(case: tuple[ClipTokens, int], scope: Literal["clip", "frame"]) -> None:
    clip, keep = case
    n, total = clip.per_frame, clip.num_tokens
    if scope == "clip":
        kept = set(max_min_oracle(clip.x.flatten(0, 1).tolist(), keep, [1.0] * total))
    else:
        kept = {
            t * n + i
            for t, count in enumerate(even(keep, clip.frames))
            for i in max_min_oracle(clip.x[t].tolist(), count, [1.0] * n)
        }
    assert targets(divprune(clip, keep, scope=scope)) == kept_only(kept, total)


@FEW
@given(clips_and_counts())
def test_weighted_order_and_blocks(case: tuple[ClipTokens, int]) -> None:
    clip, _ = case
    assert clip.attention is not None
    found = max_min_order(clip.x, clip.per_frame, clip.attention).tolist()
    assert found == [
        max_min_oracle(x, clip.per_frame, w)
        for x, w in zip(clip.x.tolist(), clip.attention.tolist(), strict=True)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("videoprune.prune.rivals.max_min.ENTRIES", 1)
        assert max_min_order(clip.x, clip.per_frame, clip.attention).tolist() == found


def test_divprune_takes_one_of_each_kind_first() -> None:
    kinds = torch.eye(3)[[0, 0, 1, 1, 1, 2, 2, 0]].view(2, 4, 3)
    assert targets(divprune(ClipTokens(kinds), 3)) == kept_only({0, 2, 5}, 8)
    assert targets(divprune(ClipTokens(torch.ones(2, 4, 3)), 3)) == kept_only({0, 1, 2}, 8)
    with pytest.raises(ValueError, match="scope='video'"):
        divprune(ClipTokens(kinds), 3, scope="video")  # type: ignore[arg-type]


@FEW
@given(clips_and_counts())
def test_evs(case: tuple[ClipTokens, int]) -> None:
    clip, keep = case
    n, total = clip.per_frame, clip.num_tokens
    if keep < n:
        least = rf"keep={keep}; allowed for evs: {n}\.\.{total}, at least one whole frame of {clip.frames}"
        with pytest.raises(ValueError, match=least):
            evs(clip, keep)
        return
    x = clip.x.flatten(0, 1).tolist()
    kept = set(range(n)) | set(best(range(n, total), lambda i: 1 - cosine(x[i], x[i - n]), keep - n))
    assert targets(evs(clip, keep)) == kept_only(kept, total)


def test_evs_spends_everything_where_something_moves() -> None:
    x = torch.ones(4, 6, 3)
    x[2, 4:] = torch.tensor([1.0, -1.0, 0.0])  # moves in at frame 2, out at frame 3
    assert targets(evs(ClipTokens(x), 10)) == kept_only({*range(6), 16, 17, 22, 23}, 24)
    assert targets(evs(ClipTokens(torch.ones(3, 2, 2)), 4)) == kept_only({0, 1, 2, 3}, 6)


def vidcom2_oracle(clip: ClipTokens, keep: int, temperature: float, channels: float, kernel: str) -> set[int]:
    n, frames = clip.per_frame, clip.x.tolist()
    columns = list(zip(*(x for frame in frames for x in frame), strict=True))
    spread = [sum((v - sum(c) / len(c)) ** 2 for v in c) for c in columns]
    calm = best(range(len(columns)), lambda d: -spread[d], max(1, int(channels * len(columns))))
    frames = [[[x[d] for d in calm] for x in frame] for frame in frames]
    if kernel == "gaussian":
        frames = [[[v / math.hypot(*x) for v in x] for x in frame] for frame in frames]

    def like(a: list[float], b: list[float]) -> float:
        if kernel == "cosine":
            return cosine(a, b)
        square = sum((p - q) ** 2 for p, q in zip(a, b, strict=True))
        return sum(math.exp(-square / (2 * 2.0**k)) for k in (-3, -2, -1, 0, 1))

    video = mean([x for frame in frames for x in frame])
    in_video = [[-like(x, video) for x in frame] for frame in frames]
    in_frame = [[-like(x, mean(frame)) for x in frame] for frame in frames]
    unique = [sum(row) / n / temperature for row in in_video]
    powers = [math.exp(u - max(unique)) for u in unique]
    rates = [keep / clip.num_tokens * (1 + p / sum(powers) - 1 / len(powers)) for p in powers]
    assume(all(abs(r * n % 1 - 0.5) > 1e-6 for r in rates))
    return {
        t * n + i
        for t, rate in enumerate(rates)
        for i in best(
            range(n), lambda i, t=t: in_video[t][i] + in_frame[t][i], max(1, round(min(1.0, rate) * n))
        )
    }


@FEW
@given(
    clips_and_counts(),
    st.sampled_from([0.01, 1.0]),
    st.sampled_from([0.5, 0.8, 1.0]),
    st.sampled_from(["cosine", "gaussian"]),
)
def test_vidcom2(
    case: tuple[ClipTokens, int], temperature: float, channels: float, kernel: Literal["cosine", "gaussian"]
) -> None:
    clip, keep = case
    assume(clip.per_frame > 2)  # two tokens are equally far from their mean
    plan = vidcom2(clip, keep, temperature=temperature, channels=channels, kernel=kernel)
    if keep < clip.num_tokens:
        kept = vidcom2_oracle(clip, keep, temperature, channels, kernel)
        assert targets(plan) == kept_only(kept, clip.num_tokens)


def test_vidcom2_is_the_program_by_default() -> None:
    clip = make_clip(3, 20)
    named = vidcom2(clip, 15, temperature=0.01, channels=0.5, kernel="gaussian")
    assert targets(vidcom2(clip, 15)) == targets(named)
    for other in ({"channels": 1.0}, {"kernel": "cosine"}, {"temperature": 9.0}):
        assert targets(vidcom2(clip, 15, **other)) != targets(named), other


def test_vidcom2_gives_the_odd_frame_more() -> None:
    x = torch.tensor([1.0, 0.0]).repeat(4, 10, 1)
    x[2] = torch.tensor([0.0, 1.0])
    kept = [i for i in targets(vidcom2(ClipTokens(x), 21, channels=1.0)) if i >= 0]
    counts = [sum(i // 10 == t for i in kept) for t in range(4)]
    assert counts == [4, 4, 9, 4]  # 5.25 * (3/4, 3/4, 7/4, 3/4), each rounded


def test_vidcom2_leaves_no_frame_without_a_token() -> None:
    x = torch.tensor([[[0.0, 1.0]], [[10.0, 0.0]]]).repeat(1, 3, 1)
    assert targets(vidcom2(ClipTokens(x), 1)) == kept_only({0, 3}, 6)


def test_vidcom2_refuses_wrong_knobs() -> None:
    with pytest.raises(ValueError, match="temperature=0"):
        vidcom2(make_clip(1, 4), 2, temperature=0)
    with pytest.raises(ValueError, match="channels=0; allowed"):
        vidcom2(make_clip(1, 4), 2, channels=0)
    with pytest.raises(ValueError, match="kernel='rbf'"):
        vidcom2(make_clip(1, 4), 2, kernel="rbf")  # type: ignore[arg-type]
