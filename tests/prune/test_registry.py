"""What holds for every method by name: exact counts, true needs, no gradients, no state."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.prune.choices import (
    ENCODER,
    FRAMES,
    UNITS,
    VARIANTS,
    WIDTH,
    block,
    check,
    every_choice,
    fusion_tokens,
    layer,
    llm_config,
)
from tests.prune.rivals.clips import make_clip, numbers
from videoprune.config import PruneConfig
from videoprune.cost.operations import product_flops
from videoprune.prune.fusion import fuse_clips, fuse_plan
from videoprune.prune.merge import apply_plan
from videoprune.prune.registry import (
    BY_FRAME,
    FUSION,
    INSIDE,
    LLM,
    OVER_CLIP,
    BlockSize,
    BlockTokens,
    ClipSize,
    CutSize,
    Depth,
    LayerTokens,
    names,
)

CHOICES = tuple(every_choice(grad=False))


@pytest.mark.parametrize("name", INSIDE)
@pytest.mark.parametrize("prefix", [0, 1, 5])
@pytest.mark.parametrize("final", [UNITS, 7, 3])
def test_removals_lead_to_the_count(name, prefix, final):
    method = INSIDE[name]
    for depth in (Depth(6, UNITS, final, prefix), Depth(6, UNITS, final, prefix, (final, final, final))):
        removed = method.removals(ENCODER, depth)
        assert len(removed) == 6
        assert min(removed) >= 0
        assert sum(removed) == UNITS - final
    assert 1 <= method.smallest(ENCODER, 6, UNITS) <= 3
    assert sum(method.removals(ENCODER, Depth(6, UNITS, method.smallest(ENCODER, 6, UNITS)))) > 0


def test_prefix_tokens_change_no_removal():
    """They never take part, so a frame loses the same units with and without."""
    for name, final in ((n, f) for n in INSIDE for f in (9, 5, 2)):
        alone, behind = (INSIDE[name].removals(ENCODER, Depth(8, UNITS, final, p)) for p in (0, 5))
        assert alone == behind


@pytest.mark.parametrize("name", INSIDE)
@pytest.mark.parametrize("variant", VARIANTS)
def test_inside_the_encoder(name, variant):
    method, config, full = INSIDE[name], VARIANTS[variant], block()
    for remove in range(UNITS // 2 + 1):
        plan = method.plan(full, remove, config)
        check(plan, FRAMES, UNITS, UNITS - remove)
        assert not method.merges or plan.into.min() >= 0
    blind = BlockTokens(full.x, full.first)
    if method.looks(config):
        with pytest.raises(ValueError, match=r"(attention|keys): not given; needed"):
            method.plan(blind, 4, config)
    else:
        assert torch.equal(method.plan(blind, 4, config).into, method.plan(full, 4, config).into)
    with pytest.raises(ValueError, match=rf"remove={UNITS + 1}; allowed: 0\.\.{UNITS}"):
        method.plan(full, UNITS + 1, config)
    size = BlockSize(FRAMES, UNITS, width=WIDTH, heads=2, first=False)
    assert sum(map(product_flops, method.operations(config, size))) > 0


@pytest.mark.parametrize("name", INSIDE)
def test_at_the_end_of_an_encoder_without_blocks(name):
    x = numbers(FRAMES, UNITS, WIDTH)
    for final in (UNITS, 7, 2, 1):
        y, size, plan = INSIDE[name].at_end(x, final, ENCODER)
        check(plan, FRAMES, UNITS, final)
        torch.testing.assert_close(y, apply_plan(x, plan))
        assert size.sum() == (plan.into >= 0).sum()
        shape = BlockSize(FRAMES, UNITS, width=WIDTH, heads=1)
        with FlopCounterMode(display=False) as counter:
            INSIDE[name].at_end(x, final, ENCODER)
        products = INSIDE[name].at_end_operations(ENCODER, shape, final)
        assert sum(map(product_flops, products)) == counter.get_total_flops()


@pytest.mark.parametrize("name", BY_FRAME)
def test_by_frame(name):
    for keep, grid in ((k, g) for k in (0, 1, 5, 12) for g in (None, (3, 4))):
        check(BY_FRAME[name].plan(2, 12, keep, grid=grid, generator=torch.Generator()), 2, 12, keep)


# FastVID's hang on how long its segments are: rivals/test_fastvid.py.
@pytest.mark.parametrize("name", sorted(set(OVER_CLIP) - {"fastvid"}))
def test_the_products_of_a_choice_over_a_clip(name):
    """Against torch's counter, on a clip that hardly moves: FlashVID has no more segments than it must."""
    clip, keep = make_clip(10, UNITS, still=0.999), 40
    with FlopCounterMode(display=False) as counter:
        OVER_CLIP[name](clip, keep)
    size = ClipSize(10, UNITS, clip.x.shape[2], 4)
    reckoned = sum(map(product_flops, OVER_CLIP[name].products(size, keep)))
    assert reckoned == counter.get_total_flops()
    if OVER_CLIP[name].needs - {"attention"} or name in ("divprune", "aim"):
        assert reckoned > 0


@pytest.mark.parametrize("name", FUSION)
def test_fusion(name):
    z, encoder, frame = fusion_tokens()
    for keep in range(1, z.shape[1] + 1):
        check(fuse_plan(z, encoder, keep, method=name, group=frame), 1, z.shape[1], keep)
    check(fuse_clips(name, z[0], [3, 4], [[3, 3, 2], [1, 3, 3, 3]]), 1, 18, 7)
    with FlopCounterMode(display=False) as counter:
        fuse_plan(z, encoder, 7, method=name, group=frame)
    assert counter.get_total_flops() == sum(
        map(product_flops, FUSION[name].across_operations(3, FRAMES, WIDTH))
    )
    with FlopCounterMode(display=False) as counter:
        fuse_clips(name, z[0], [7], [[3] * 6])
    assert counter.get_total_flops() == sum(map(product_flops, FUSION[name].within_operations(18, WIDTH)))
    with pytest.raises(ValueError, match="method='best'; allowed: cooperative, separate"):
        fuse_clips("best", z[0], [7], [[3] * 6])


@pytest.mark.parametrize("name", LLM)
@pytest.mark.parametrize("queries", ["text", "last"])
def test_inside_the_llm(name, queries):
    method, tokens, config = LLM[name], layer(), llm_config(name, queries=queries)
    choice = method.choose(tokens, config)
    assert choice is not None
    counts, places = choice.kept.sum(1), torch.arange(14).expand(2, 14)
    assert not (choice.kept & ~tokens.visual).any()
    assert (counts <= tokens.visual.sum(1)).all()
    assert name == "adaptive" or (counts < tokens.visual.sum(1)).all()
    assert method.by_lambda or method.by_content or torch.equal(counts, tokens.wanted)
    if choice.into is not None:  # survivors stay themselves, others go to survivors or nowhere
        assert torch.equal((choice.into == places) & tokens.visual, choice.kept)
        ends = choice.into[tokens.visual]
        row = torch.arange(2)[:, None].expand(2, 14)[tokens.visual]
        assert (choice.kept[row, ends.clamp(min=0)] | (ends < 0)).all()
    blind = LayerTokens(tokens.visual, tokens.valid, tokens.wanted, generator=torch.Generator())
    products = method.operations(config, CutSize(14, 3, 8, 4, 2, 5, visual=10, kept=5))
    if method.needs_attention:
        assert sum(map(product_flops, products)) > 0
        if not method.by_content:  # what it looks at first depends on the layer
            with pytest.raises(ValueError, match=r"(text_attention|queries_keys|hidden): not given; needed"):
                method.choose(blind, config)
    else:
        assert products == []
        method.choose(blind, config)
    if method.by_lambda:
        with pytest.raises(ValueError, match=f"llm.lambda_=None; needed for llm.method='{name}'"):
            method.choose(tokens, replace(config, lambda_=None))


def test_even_tokens_are_spread_over_each_row():
    choice = LLM["uniform"].choose(layer(), llm_config("uniform"))
    assert choice is not None
    assert choice.kept.sum(1).tolist() == [4, 5]
    assert choice.kept[1, 2:12].tolist() == [False, True] * 5


@pytest.mark.parametrize("name", CHOICES)
def test_inputs_that_want_gradients_change_nothing(name):
    """A choice is made without them; it must neither fail nor hold the graph."""
    with torch.enable_grad():
        found = every_choice(grad=True)[name]()
    for one, other in zip(found, every_choice(grad=False)[name](), strict=True):
        assert not one.requires_grad
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", INSIDE)
def test_gradients_pass_through_what_merged(name):
    tokens = block(grad=True)
    apply_plan(tokens.x, INSIDE[name].plan(tokens, 5, ENCODER)).sum().backward()
    assert tokens.x.grad is not None
    assert tokens.x.grad.sum() == pytest.approx(FRAMES * (UNITS - 5) * WIDTH)
    x = block(grad=True).x
    INSIDE[name].at_end(x, 4, ENCODER)[0].sum().backward()
    assert x.grad is not None
    assert x.grad.sum() == pytest.approx(FRAMES * 4 * WIDTH)


def test_many_threads_choose_at_once():
    alone = [{n: c() for n, c in every_choice(grad=False, seed=s).items()} for s in range(4)]
    with ThreadPoolExecutor(8) as pool:
        jobs = [(s, n, pool.submit(c)) for s in range(4) for n, c in every_choice(grad=False, seed=s).items()]
        for seed, name, job in jobs:
            assert all(map(torch.equal, job.result(), alone[seed][name])), name


def test_threads_leave_the_switch_of_matrix_products_alone():
    """It is one for the whole process: narrowed in one thread, it would narrow the products of all others."""
    switch = getattr(torch.backends.mkldnn, "matmul", None)
    before = getattr(switch, "fp32_precision", None)
    seen: set[object] = set()

    def merge(seed: int) -> None:
        x = numbers(4, 64, 32, seed=seed).to(torch.bfloat16)
        INSIDE["evoprune"].plan(BlockTokens(x), 20, VARIANTS["plain"])
        seen.add(getattr(switch, "fp32_precision", None))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(merge, range(40)))
    assert seen == {before}
    assert getattr(switch, "fp32_precision", None) == before


@pytest.mark.parametrize("stage", ["encoder", "fusion", "llm"])
def test_settings_know_what_the_registry_knows(stage):
    for name in ("none", *names(stage)):
        assert getattr(PruneConfig.from_dict({stage: {"method": name}}), stage).method == name
    allowed = ", ".join(("none", *names(stage)))
    with pytest.raises(ValueError, match=rf"^{stage}\.method='best'; allowed: {allowed}$"):
        PruneConfig.from_dict({stage: {"method": "best"}})
    with pytest.raises(ValueError, match=rf"{stage}\.method='best'"):
        PruneConfig().replace(**{f"{stage}.method": "best"})


def test_every_source_is_named():
    entries = (*INSIDE.values(), *BY_FRAME.values(), *OVER_CLIP.values(), *FUSION.values(), *LLM.values())
    for entry in entries:
        assert re.search(r"arXiv \d{4}\.\d{5}|^control: ", entry.source)
