"""What survived, against the marks in the embeddings and the counts of the trace, for every family."""

from __future__ import annotations

import pytest
import torch

from tests.models.tiny import random_clip, tiny_model
from tests.plug.stock import BUILDERS, clips, encoder_passes, inputs, stock_model
from videoprune.clock import Stopwatch
from videoprune.config import PruneConfig
from videoprune.models.survivors import fused_survivors, record_of, stock_survivors
from videoprune.plug.apply import apply
from videoprune.plug.current_pass import trace
from videoprune.plug.installed import installed_on
from videoprune.types import KeepPlan, Survivors, Trace

KINDS = sorted(BUILDERS)
FIXED = {"method": "fixed", "keep": 0.6, "layers": [0.2, 0.6]}
FRAMES = 3


def seen_by_the_llm(model, batch, frames=FRAMES) -> tuple[Survivors, Trace, torch.Tensor]:
    """What a generation about one clip tells of its tokens, its trace, and which visual places of the prompt hold one
    by the marks in the embeddings."""
    family = installed_on(model).family
    gone = []

    def note(module, args, kwargs):
        gone.append(kwargs["inputs_embeds"][0, :, 0].isnan())

    handle = family.language_model.register_forward_pre_hook(note, with_kwargs=True, prepend=True)
    with torch.no_grad(), encoder_passes(model) as passes, trace(places=True) as traces:
        model.generate(**batch, max_new_tokens=1, do_sample=False)
    handle.remove()
    visual = torch.isin(batch["input_ids"][0], torch.tensor(family.placeholders))
    record = record_of(passes[0] if passes else None, frames)
    (traced,) = traces
    return stock_survivors(record, traced.dense, traced.places), traced, ~gone[0][visual]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["none", "evoprune", "meteor", "random", "uniform"])
def test_marks_and_owners(kind, method):
    if kind == "llava_onevision" and method == "meteor":
        pytest.skip("refused by apply")
    parts = {"encoder": {"method": method, "keep": 0.5}, "llm": FIXED} if method != "none" else {}
    model = apply(stock_model(kind), PruneConfig.from_dict(parts))
    batch = inputs(kind, clips(kind, 1, FRAMES), [[7, 8, 9]])
    found, traced, marks = seen_by_the_llm(model, batch)
    layers = traced.llm_layers
    n = found.fused.shape[1]
    assert found.grid[0] * found.grid[1] == n
    assert found.grid == ((3, 4) if kind.startswith(("qwen", "video")) else found.grid)
    assert torch.equal(found.fused.flatten(), marks[: FRAMES * n])
    newline = len(marks) - FRAMES * n
    assert newline == (kind == "llava_onevision")
    assert int(found.fused.sum()) + newline == layers[0]
    assert torch.equal(found.left, found.fused)
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
    found, _, _ = seen_by_the_llm(model, batch, frames=1)
    half = left.flatten()
    merged = found.owner[0] != torch.arange(12)
    assert merged.sum() == 8
    assert (half[found.owner[0]] == half).sum() >= 11


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_of_a_batch_have_their_own_places(kind):
    prune = PruneConfig.from_dict({"encoder": {"method": "evoprune", "keep": 0.5}, "llm": FIXED})
    model, made, asked = apply(stock_model(kind), prune), clips(kind, 2, FRAMES), [[7, 8, 9], [10, 11]]
    with torch.no_grad(), trace(places=True) as together:
        model(**inputs(kind, made, asked))
    for clip, question, row in zip(made, asked, together, strict=True):
        with torch.no_grad(), trace(places=True) as alone:
            model(**inputs(kind, [clip], [question]))
        assert alone[0].places == row.places
    assert together[0].places != together[1].places
    with torch.no_grad(), trace() as unasked:
        model(**inputs(kind, made, asked))
    assert [t.places for t in unasked] == [None, None]


def test_a_prompt_with_other_images_than_the_clip_is_refused():
    model = apply(
        stock_model("internvl"), PruneConfig.from_dict({"encoder": {"method": "uniform", "keep": 0.5}})
    )
    batch = inputs("internvl", clips("internvl", 1, FRAMES), [[7]])
    with torch.no_grad(), encoder_passes(model) as passes, trace(places=True) as traces:
        model(**batch)
    record = record_of(passes[0], FRAMES)
    with pytest.raises(ValueError, match="frames=3"):
        stock_survivors(record, traces[0].dense + 2, traces[0].places)
    with pytest.raises(ValueError, match="frames=0"):
        stock_survivors(record_of(None, 0), traces[0].dense, traces[0].places)


@pytest.mark.parametrize("method", ["evoprune", "meteor", "uniform"])
def test_several_encoders_tell_their_tokens_by_name(method):
    """Against what the fused tokens say themselves of where they came from."""
    model, frames = tiny_model(), 3
    prune = PruneConfig.from_dict(
        {
            "encoder": {"method": method, "keep": 0.5},
            "fusion": {"method": "cooperative", "keep": 0.6},
            "llm": {"method": "uniform", "keep": 0.5},
        }
    )
    settings, generator = model.settings(prune), torch.Generator().manual_seed(0)
    clip = random_clip(frames)
    encoded = model.encode_frames(model.frames([clip]), settings, generator, Stopwatch())
    tokens = model.fuse([clip], encoded, settings, generator)
    ids = torch.tensor([[5, 6, 7]])
    with trace(places=True) as traces:
        model.generate(ids, torch.ones_like(ids), tokens, settings=settings, max_new_tokens=1)
    places, layers = traces[0].places, traces[0].llm_layers
    found = fused_survivors(tokens, [KeepPlan(e.plan.keep, e.plan.into) for e in encoded], places)
    assert list(found) == ["siglip", "clip", "convnext"]
    assert sum(int(one.fused.sum()) for one in found.values()) == tokens.num_tokens == layers[0]
    assert sum(int(one.last.sum()) for one in found.values()) == layers[-1] < layers[0]
    for token, (origin, owner) in enumerate(zip(tokens.origin[0], tokens.encoder[0], strict=True)):
        frame, row, column = origin.tolist()
        one = found[tokens.encoder_names[int(owner)]]
        at = row * one.grid[1] + column
        assert one.left[frame, at]
        assert one.fused[frame, at]
        assert bool(one.last[frame, at]) == (token in places.last)
    for name, count in model.encoder_counts(prune).items():
        assert found[name].left.sum(1).tolist() == [count] * frames
        assert not (found[name].fused & ~found[name].left).any()
