"""ToMe against numbers of its authors' program, and one round against a loop over single merges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from scripts.original_numbers import tome as program
from tests.prune.rivals.clips import FEW, cosine, numbers
from videoprune.config import EncoderPrune
from videoprune.plug.encoder_goal import EncoderGoal, Layout
from videoprune.plug.encoder_pass import EncoderPass
from videoprune.prune.rivals.tome import matching_round

THEIRS = np.load(Path(__file__).parent / "originals" / "tome.npz")


def final_of(tokens: int, blocks: int, r: int) -> int:
    for _ in range(blocks):
        tokens -= min(r, tokens // 2)
    return tokens


def blocks_of_ours(case: int) -> tuple[EncoderPass, Tensor]:
    """The same blocks without norm and MLP, run by an `EncoderPass`: packed (T * (prefix + K), D)."""
    frames, n, prefix, blocks, r = program.CASES[case]
    config = EncoderPrune(method="tome", keep=final_of(n, blocks, r) / n)
    layout = Layout([prefix + n] * frames, prefix=prefix)
    run = EncoderPass("ours", layout, EncoderGoal(blocks, config, config.keep))
    x = torch.from_numpy(program.tokens(case)).flatten(0, 1)
    for i, w in enumerate(torch.from_numpy(program.weights(case, blocks))):
        q, k, v = ((x @ m.T).unflatten(1, (program.HEADS, -1)).transpose(0, 1) for m in w[:3])  # (H, N, d)
        out = run.attend(i, q, k, v, q.shape[2] ** -0.5, windowed=False, kind="sdpa")
        x, _ = run.after(i, x + out.flatten(1) @ w[3].T)
    return run, x


@pytest.mark.parametrize("case", range(len(program.CASES)))
def test_blocks_merge_as_the_authors_do(case: int) -> None:
    """Several blocks with CLS and without, attention in proportion to size: the same groups, the same values."""
    frames, n, prefix, _, _ = program.CASES[case]
    run, x = blocks_of_ours(case)
    assert run.plan is not None
    into = run.plan.into.view(frames, n) - run.plan.num_kept // frames * torch.arange(frames)[:, None]
    kept = run.plan.num_kept // frames
    label = torch.full((frames, kept), n).scatter_reduce(1, into, torch.arange(n).expand(frames, n), "amin")
    assert torch.equal(label.gather(1, into), torch.from_numpy(THEIRS[f"owner_{case}"]).long())
    x = x.unflatten(0, (frames, -1))
    order = label.argsort(1)[..., None].expand(-1, -1, program.WIDTH)
    values = x[:, prefix:].gather(1, order)
    torch.testing.assert_close(values, torch.from_numpy(THEIRS[f"values_{case}"]), atol=1e-4, rtol=1e-4)
    if prefix:
        front = torch.from_numpy(THEIRS[f"front_{case}"])
        torch.testing.assert_close(x[:, :prefix], front, atol=1e-4, rtol=1e-4)


def round_oracle(row: list[int], metric: list[list[float]], remove: int, prefix: int) -> tuple[dict, list]:
    """Of one frame: who merges into whom, and the row of the next round."""
    sources, others = row[prefix % 2 :: 2], row[1 - prefix % 2 :: 2]
    best = {
        s: min(others, key=lambda o: (-cosine(metric[s], metric[o]), others.index(o)))
        for s in (sources if others else [])
    }
    ranked = sorted(best, key=lambda s: (-cosine(metric[s], metric[best[s]]), sources.index(s)))
    stayed = [s for s in ranked if s not in ranked[:remove]]
    if prefix:
        stayed.sort(key=sources.index)
    return {s: best[s] for s in ranked[:remove]}, [*stayed, *others]


@FEW
@given(st.integers(2, 15), st.integers(0, 2), st.integers(0, 10**6), st.lists(st.integers(1, 6), max_size=3))
def test_rounds_against_a_loop(tokens: int, prefix: int, seed: int, removals: list[int]) -> None:
    order, places = None, [list(range(tokens)), list(range(tokens))]
    rows = [list(p) for p in places]
    for step, wanted in enumerate(removals):
        n = len(places[0])
        remove = min(wanted, n // 2)
        metric = numbers(2, n, 4, seed=seed + step)
        plan = matching_round(metric, remove, order=order, prefix=prefix)
        for f in range(2):
            by_place = dict(zip(places[f], metric[f].tolist(), strict=True))
            merged, rows[f] = (
                round_oracle(rows[f], by_place, remove, prefix) if remove else ({}, rows[f])  # type: ignore[arg-type]
            )
            left = [p for p in places[f] if p not in merged]
            assert [places[f][i] for i in plan.keep[f].tolist()] == left
            ends = [merged.get(p, p) for p in places[f]]
            assert [left[i] for i in plan.into[f].tolist()] == ends
            if plan.order is not None:
                assert [left[i] for i in plan.order[f].argsort().tolist()] == rows[f]
            places[f] = left
        order = plan.order


def test_the_next_row_is_split_anew() -> None:
    """Without CLS the sources that stayed come first, the most similar of them in front."""
    metric = torch.tensor([[[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [1.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]])
    plan = matching_round(metric, 1, order=None, prefix=0)
    assert plan.keep.tolist() == [[1, 2, 3, 4, 5]]
    assert plan.order is not None
    # Sources 2 (0.71 to place 3) and 4 (0 to place 5), then destinations 1, 3, 5.
    assert plan.order.tolist() == [[2, 0, 3, 1, 4]]
    behind_cls = matching_round(metric, 1, order=None, prefix=1)
    assert behind_cls.keep.tolist() == [[0, 2, 3, 4, 5]]
    assert behind_cls.order is not None
    assert behind_cls.order.tolist() == [[2, 3, 0, 4, 1]]
