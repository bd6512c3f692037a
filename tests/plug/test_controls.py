"""`uniform` and `random` are one choice for every model: spread over rows and columns, by each frame's own grid."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from tests.plug.stock import BUILDERS, clips, images, inputs, stock_model
from videoprune.config import PruneConfig
from videoprune.plug.apply import apply
from videoprune.plug.installed import installed_on
from videoprune.prune.controls import uniform_grid_plan
from videoprune.prune.registry import BY_FRAME

KINDS = sorted(BUILDERS)
FRAMES = 8
GRIDS = {"llava_onevision": (4, 4)} | dict.fromkeys(("qwen2_5_vl", "qwen3_vl", "video_llama_3"), (3, 4))


def places(model, batch) -> torch.Tensor:
    """Which visual places of the prompt hold a token at the LLM's door, bool (places,)."""
    family, found = installed_on(model).family, []

    def note(module, args, kwargs):
        found.append(~kwargs["inputs_embeds"][0, :, 0].isnan())

    handle = family.language_model.register_forward_pre_hook(note, with_kwargs=True, prepend=True)
    with torch.no_grad():
        model(**batch)
    handle.remove()
    return found[0][torch.isin(batch["input_ids"][0], torch.tensor(family.placeholders))]


def pruned(kind: str, method: str, keep: float):
    return apply(stock_model(kind), PruneConfig.from_dict({"encoder": {"method": method, "keep": keep}}))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep", [0.5, 0.25])
def test_uniform_is_the_grids_own(kind, keep):
    rows, columns = GRIDS.get(kind, (3, 3))
    n = rows * columns
    marks = places(pruned(kind, "uniform", keep), inputs(kind, clips(kind, 1, FRAMES), [[7, 8]]))
    found = marks[: FRAMES * n].view(FRAMES, n)
    expected = uniform_grid_plan(1, rows, columns, round(keep * n)).into[0] >= 0
    counts = {round(keep * n)}
    if kind == "llava_onevision":  # one budget for the clip, shared evenly
        assert int(found.sum()) == round(keep * FRAMES * n)
    assert set(found.sum(1).tolist()) == counts
    assert all(torch.equal(frame, expected) for frame in found)


def test_a_quarter_of_four_by_four_is_no_column():
    marks = places(
        pruned("llava_onevision", "uniform", 0.25),
        inputs("llava_onevision", clips("llava_onevision", 1, FRAMES), [[7]]),
    )
    frame, row, column = marks[: FRAMES * 16].view(FRAMES, 4, 4).nonzero().unbind(1)
    assert Counter(frame.tolist()) == dict.fromkeys(range(FRAMES), 4)
    assert Counter(row.tolist()) == {1: 16, 3: 16}
    assert Counter(column.tolist()) == {1: 16, 3: 16}


@pytest.mark.parametrize("kind", KINDS)
def test_random_draws_anew_in_each_frame(kind):
    rows, columns = GRIDS.get(kind, (3, 3))
    n = rows * columns
    batch = inputs(kind, clips(kind, 1, FRAMES), [[7, 8]])
    marks = places(pruned(kind, "random", 0.5), batch)
    found = marks[: FRAMES * n].view(FRAMES, n)
    assert set(found.sum(1).tolist()) == {round(0.5 * n)}
    assert len({tuple(frame.tolist()) for frame in found}) > FRAMES // 2
    assert torch.equal(places(pruned(kind, "random", 0.5), batch), marks)


def test_frames_of_several_grids_are_each_spread_over_its_own():
    kept = BY_FRAME["uniform"].kept([12, 8, 12, 12], [4, 2, 4, 3], [(3, 4), (2, 4), (4, 3), (3, 4)])
    parts = [
        uniform_grid_plan(1, *grid, count).into[0] >= 0
        for grid, count in (((3, 4), 4), ((2, 4), 2), ((4, 3), 4), ((3, 4), 3))
    ]
    assert torch.equal(kept, torch.cat(parts))
    assert BY_FRAME["random"].kept([5, 6], [2, 6]).split([5, 6])[1].all()


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl", "video_llama_3"])
def test_images_of_several_sizes_have_grids_of_their_own(kind):
    side = 4 if kind == "video_llama_3" else 2
    marks = places(pruned(kind, "uniform", 0.5), inputs(kind, [images(kind, [1, 2])], [[7, 8]]))
    expected = [
        uniform_grid_plan(1, side, side * wide, side * side * wide // 2).into[0] >= 0 for wide in (1, 2)
    ]
    assert torch.equal(marks, torch.cat(expected))
