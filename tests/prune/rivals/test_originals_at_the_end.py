"""VidCom2, VisionZip, AIM and PruMerge+ beside what their authors' code made of the same tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scripts.original_numbers import aim as aim_cases
from scripts.original_numbers import inputs
from scripts.original_numbers import prumerge_plus as prumerge_cases
from scripts.original_numbers import vidcom2 as vidcom2_cases
from scripts.original_numbers import visionzip as visionzip_cases
from tests.prune.rivals.originals_of import originals, shares
from videoprune.prune.merge import apply_plan
from videoprune.prune.rivals.aim import aim
from videoprune.prune.rivals.prumerge import prumerge_plus, sums_over_neighbors
from videoprune.prune.rivals.tokens import ClipTokens
from videoprune.prune.rivals.vidcom2 import vidcom2
from videoprune.prune.rivals.visionzip import visionzip
from videoprune.types import KeepPlan


def check_groups(method: str, case: int, plan: KeepPlan, frames: int) -> None:
    """The same tokens in the same group, each with the same weight."""
    found, (group, weight) = originals(method), inputs.groups(shares(plan, frames).numpy())
    np.testing.assert_array_equal(group, found[f"{case} group"])
    np.testing.assert_allclose(weight, found[f"{case} weight"], rtol=1e-4)


@pytest.mark.parametrize("case", range(len(vidcom2_cases.CASES)))
def test_vidcom2(case: int) -> None:
    frames, tokens, width, share = vidcom2_cases.CASES[case]
    x = torch.from_numpy(vidcom2_cases.tokens_of(frames, tokens, width))
    plan = vidcom2(ClipTokens(x), max(1, round(share * frames * tokens)))
    assert plan.keep[0].tolist() == originals("vidcom2")[str(case)].tolist()


@pytest.mark.parametrize("case", range(len(visionzip_cases.CASES)))
def test_visionzip(case: int) -> None:
    frames, tokens, width, dominant, contextual = visionzip_cases.CASES[case]
    attention, keys = (torch.from_numpy(a) for a in visionzip_cases.attention_and_keys(frames, tokens, width))
    clip, count = ClipTokens(torch.ones(frames, tokens, 1), attention, keys), dominant + contextual
    plan = visionzip(clip, frames * count, dominant=dominant / count)
    check_groups("visionzip", case, plan, frames)


def test_visionzips_own_share_is_that_of_the_paper() -> None:
    for case in (4, 7, 8, 9):  # 27 of 32 tokens, as 54 of 64
        frames, tokens, width, dominant, contextual = visionzip_cases.CASES[case]
        attention, keys = (
            torch.from_numpy(a) for a in visionzip_cases.attention_and_keys(frames, tokens, width)
        )
        clip = ClipTokens(torch.ones(frames, tokens, 1), attention, keys)
        check_groups("visionzip", case, visionzip(clip, frames * (dominant + contextual)), frames)


@pytest.mark.parametrize("case", range(len(aim_cases.CASES)))
def test_aim(case: int) -> None:
    frames, tokens, width, rounds = aim_cases.CASES[case]
    x = torch.from_numpy(aim_cases.tokens_of(frames, tokens, width))
    plan = aim(ClipTokens(x), frames * (tokens - sum(rounds)))
    check_groups("aim", case, plan, frames)


def test_aim_at_a_quarter_ends_where_its_authors_do() -> None:
    for case in (1, 2, 7, 9):
        frames, tokens, width, rounds = aim_cases.CASES[case]
        assert rounds == (tokens // 2, tokens // 4)
        x = torch.from_numpy(aim_cases.tokens_of(frames, tokens, width))
        check_groups("aim", case, aim(ClipTokens(x), round(0.25 * frames * tokens)), frames)


@pytest.mark.parametrize("case", range(len(prumerge_cases.CASES)))
def test_prumerge_plus(case: int) -> None:
    tokens, width, most_attended = prumerge_cases.CASES[case]
    query, keys = (torch.from_numpy(a) for a in prumerge_cases.queries_and_keys(tokens, width))
    attention = (keys @ query / width**0.5).softmax(0)
    x = torch.from_numpy(prumerge_cases.values(tokens))
    clip = ClipTokens(x[None], attention[None], keys[None])
    found = originals("prumerge_plus")
    places, values = found[f"{case} places"], torch.from_numpy(found[f"{case} values"])
    if most_attended is None:
        plan = prumerge_plus(clip, 1, adaptive=True)
    else:
        plan = sums_over_neighbors(clip, [most_attended], 32)
    seat = max(set(range(tokens)) - set(places.tolist()))
    assert plan.keep[0].tolist() == sorted([*places.tolist(), seat])
    mine = apply_plan(x[None], plan)[0]
    order = [plan.keep[0].tolist().index(place) for place in [*places.tolist(), seat]]
    torch.testing.assert_close(mine[order], values, rtol=1e-4, atol=1e-4)
