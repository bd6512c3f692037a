"""What survived, against the marks in the embeddings and the counts of the trace, for every family."""

from __future__ import annotations

import pytest
import torch

from tests.plug.stock import BUILDERS, PAD, clips, inputs, stock_model
from videoprune.config import PruneConfig
from videoprune.plug.apply import apply, session, trace
from videoprune.plug.survivors import kept, watch

KINDS = sorted(BUILDERS)
FIXED = {"method": "fixed", "keep": 0.6, "layers": [0.2, 0.6]}
FRAMES = 3


def seen_by_the_llm(model, batch, new=2):
    """A watched run; the embeddings' marks of dropped places, over the visual ones of the prompt."""
    family = session(model).family
    found = {}

    def note(module, args, kwargs):
        found.setdefault("gone", kwargs["inputs_embeds"][0, :, 0].isnan())

    handle = family.language_model.register_forward_pre_hook(note, with_kwargs=True, prepend=True)
    watch(model)
    with torch.no_grad():
        model.generate(**batch, max_new_tokens=new, do_sample=False)
    handle.remove()
    visual = torch.isin(batch["input_ids"][0], torch.tensor(family.placeholders))
    return ~found["gone"][visual]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["none", "evoprune", "meteor", "random", "uniform"])
def test_marks_and_owners(kind, method):
    if kind == "llava_onevision" and method == "meteor":
        pytest.skip("refused by apply")
    parts = {"encoder": {"method": method, "keep": 0.5}, "llm": FIXED} if method != "none" else {}
    model = apply(stock_model(kind), PruneConfig.from_dict(parts))
    batch = inputs(kind, clips(kind, 1, FRAMES), [[7, 8, 9]])
    marks = seen_by_the_llm(model, batch)
    found, layers = kept(model, FRAMES), trace(model).layers[0]
    n = found.fused.shape[1]
    assert found.grid[0] * found.grid[1] == n
    assert found.grid == ((3, 4) if kind.startswith(("qwen", "video")) else found.grid)
    assert torch.equal(found.fused.flatten(), marks[: FRAMES * n])
    newline = len(marks) - FRAMES * n
    assert newline == (kind == "llava_onevision")
    assert int(found.fused.sum()) + newline == layers[0]
    assert int(found.last.sum()) in (layers[-1], layers[-1] - newline)
    assert not (found.last & ~found.fused).any()
    for owner, here in zip(found.owner, found.fused, strict=True):
        assert set(owner[owner >= 0].tolist()) == set(here.nonzero()[:, 0].tolist())
        assert torch.equal(owner[here], here.nonzero()[:, 0])
        if method == "evoprune" and kind != "llava_onevision":
            assert (owner >= 0).all(), "every token merges, none is dropped"
        if method in ("meteor", "random", "uniform"):
            assert torch.equal(owner >= 0, here)


def test_alike_tokens_share_an_owner_in_spite_of_windows():
    """Frames of two halves, each of one colour: what merges, merges within its half."""
    model = apply(
        stock_model("qwen2_5_vl"),
        PruneConfig.from_dict({"encoder": {"method": "evoprune", "keep": 0.34, "critical_ratio": 0.0}}),
    )
    batch = inputs("qwen2_5_vl", clips("qwen2_5_vl", 1, 1), [[7]])
    left = torch.arange(12).view(3, 4) % 4 < 2  # units of a frame
    colours = torch.randn(
        2, batch["pixel_values_videos"].shape[1], generator=torch.Generator().manual_seed(1)
    )
    batch["pixel_values_videos"] = colours[left.flatten().long().repeat_interleave(4)]
    seen_by_the_llm(model, batch)
    found = kept(model, 1)
    half = left.flatten()
    merged = found.owner[0] != torch.arange(12)
    assert merged.sum() == 8
    assert (half[found.owner[0]] == half).sum() >= 11


def test_mistakes_are_named():
    model = stock_model("internvl")
    with pytest.raises(ValueError, match="not pruned"):
        watch(model)
    apply(model, PruneConfig.from_dict({"encoder": {"method": "uniform", "keep": 0.5}}))
    with pytest.raises(ValueError, match="0 prompts noted"):
        kept(model, 3)
    batch = inputs("internvl", clips("internvl", 2, FRAMES), [[7, 8, 9], [10, 11]])
    assert (batch["input_ids"] == PAD).any()
    watch(model)
    with torch.no_grad():
        model(**batch)
    with pytest.raises(ValueError, match="2 prompts noted"):
        kept(model, 3)
    with torch.no_grad():
        model(**inputs("internvl", clips("internvl", 1, FRAMES), [[7]]))
    with pytest.raises(ValueError, match="frames=2"):
        kept(model, 2)
    watch(model, False)
    with torch.no_grad():
        model(**inputs("internvl", clips("internvl", 1, FRAMES), [[7]]))
    with pytest.raises(ValueError, match="after `watch`"):
        kept(model, 3)
