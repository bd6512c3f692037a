"""Encoders run block by block, with merging and dropping inside."""

from __future__ import annotations

import pytest
import torch

from tests.models.tiny import ENCODERS, tiny_encoder
from videoprune.config import EncoderPrune
from videoprune.models.early import encode, retained_counts
from videoprune.models.encoders import tower
from videoprune.prune.merge import unmerge

VITS = ["siglip", "clip", "dinov2"]
SCHEDULES = ["mean", "skip", "first", "last", "increasing", "decreasing"]


def pixels(frames: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(frames, 3, 24, 24, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", VITS)
def test_blocks_in_a_row_are_the_stock_forward(name: str) -> None:
    one = tower(name, tiny_encoder(name))
    with torch.no_grad():
        x = one.embed(pixels(2))
        for i in range(one.num_blocks):
            x = one.block(i, x)
        assert torch.equal(one.finish(x), one.whole(pixels(2)))


@pytest.mark.parametrize("name", list(ENCODERS))
@pytest.mark.parametrize("method", ["evoprune", "meteor", "random", "uniform", "none"])
def test_keep_all_is_the_stock_forward(name: str, method: str) -> None:
    one = tower(name, tiny_encoder(name))
    config = EncoderPrune(method=method, keep=1.0)
    with torch.no_grad():
        x, size, plan = encode(one, pixels(2), config, retained_counts([one], config, None)[name])
        stock = one.model(pixel_values=pixels(2)).last_hidden_state
    stock = stock.flatten(2).transpose(1, 2) if name == "convnext" else stock[:, one.prefix :]
    assert torch.equal(x, stock)
    assert (size == 1).all()
    assert torch.equal(plan.keep, torch.arange(36).expand(2, 36))


@pytest.mark.parametrize("name", VITS)
def test_capture_gives_the_queries_and_keys_of_the_block(name: str) -> None:
    one = tower(name, tiny_encoder(name))
    with torch.no_grad():
        x = one.embed(pixels(1))
        with one.capture(0) as heads:
            one.block(0, x)
        block = one.model.get_submodule(one.layout.blocks)[0]
        norm = block.norm1 if name == "dinov2" else block.layer_norm1
        attention = getattr(block, one.layout.attention)
        keys = attention.k_proj(norm(x)).view(1, x.shape[1], 4, 8).transpose(1, 2)
        queries = attention.q_proj(norm(x)).view(1, x.shape[1], 4, 8).transpose(1, 2)
    assert torch.equal(heads.keys, keys)
    assert torch.equal(heads.queries, queries)
    assert not attention.k_proj._forward_hooks


@pytest.mark.parametrize("name", VITS)
def test_log_size_makes_a_merged_token_count_as_its_copies(name: str) -> None:
    """Proportional attention: three equal tokens, or one of size 3, are the same to every other token."""
    one = tower(name, tiny_encoder(name))
    with torch.no_grad():
        x = one.embed(pixels(1))
        copies = torch.cat([x, x[:, -1:], x[:, -1:]], 1)
        size = torch.ones(1, x.shape[1])
        size[:, -1] = 3
        merged = one.block(0, x, size.log())
        full = one.block(0, copies)
    torch.testing.assert_close(merged, full[:, : x.shape[1]], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", [*VITS, "convnext"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_evoprune_merges_to_the_exact_count_and_loses_no_patch(name: str, schedule: str) -> None:
    one = tower(name, tiny_encoder(name))
    config = EncoderPrune(method="evoprune", keep=0.3, schedule=schedule)
    with torch.no_grad():
        x, size, plan = encode(one, pixels(3), config, retained_counts([one], config, None)[name])
    assert x.shape == (3, 11, 32)
    assert (size.sum(1) == 36).all()
    assert (plan.into >= 0).all()
    counted = torch.zeros_like(size).scatter_add_(1, plan.into, torch.ones(3, 36))
    assert torch.equal(counted, size)
    assert torch.equal(unmerge(x, plan).gather(1, plan.keep[..., None].expand(-1, -1, 32)), x)


@pytest.mark.parametrize("method", ["evoprune", "meteor"])
@pytest.mark.parametrize("name", [*VITS, "convnext"])
def test_a_batch_of_frames_equals_the_frames_alone(name: str, method: str) -> None:
    one = tower(name, tiny_encoder(name))
    config = EncoderPrune(method=method, keep=0.4)
    counts = retained_counts([one], config, None)[name]
    with torch.no_grad():
        x, size, plan = encode(one, pixels(4), config, counts)
        for i in range(4):
            alone, alone_size, alone_plan = encode(one, pixels(4)[i : i + 1], config, counts)
            assert torch.equal(alone_plan.into[0], plan.into[i])
            assert torch.equal(alone_size[0], size[i])
            torch.testing.assert_close(alone[0], x[i], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", VITS)
def test_meteor_drops_at_the_ends_of_the_thirds(name: str) -> None:
    """Oracle: the same drops by hand, the first by the mean token, the others by attention."""
    one = tower(name, tiny_encoder(name))
    counts = (24, 16, 10)
    with torch.no_grad():
        x, _, plan = encode(one, pixels(1), EncoderPrune(method="meteor", keep=0.3), counts)
        h, left = one.embed(pixels(1)), list(range(36))
        for i in range(6):
            with one.capture(i) as heads:
                h = one.block(i, h)
            if i % 2:
                patches = h[0, one.prefix :].double()
                if i == 1:
                    mean = patches.mean(0)
                    score = [-torch.cosine_similarity(p, mean, dim=0).item() for p in patches]
                else:
                    logits = (heads.queries[0].double() @ heads.keys[0].double().transpose(1, 2)) * one.scale
                    a = logits.softmax(-1).mean(0)
                    a = a[0] if one.prefix else a.mean(0)
                    score = a[one.prefix :].tolist()
                best = sorted(sorted(range(len(score)), key=lambda t: -score[t])[: counts[i // 2]])
                left = [left[t] for t in best]
                rows = [*range(one.prefix), *(t + one.prefix for t in best)]
                h = h[:, rows]
    assert plan.keep[0].tolist() == left
    torch.testing.assert_close(x, one.finish(h), atol=1e-5, rtol=1e-5)


def test_the_parts_of_the_score_can_be_switched_off() -> None:
    one = tower("clip", tiny_encoder("clip"))
    plans = []
    for change in (
        {},
        {"lambda_div": 0.0},
        {"critical_ratio": 0.0},
        {"metric": "keys"},
        {"lambda_att": 1.0},
    ):
        config = EncoderPrune(
            method="evoprune", keep=0.4, **{"critical_ratio": 0.3, "lambda_div": 1.0} | change
        )
        with torch.no_grad():
            plans.append(encode(one, pixels(8), config, retained_counts([one], config, None)["clip"])[2].into)
    assert all(not torch.equal(plans[0], other) for other in plans[1:])


def test_counts_follow_the_ranks() -> None:
    towers = [tower(n, tiny_encoder(n)) for n in ("siglip", "clip")]
    ranks = {"siglip": [3.0, 3.0, 3.0], "clip": [1.0, 1.0, 1.0]}
    by_rank = retained_counts(towers, EncoderPrune(method="meteor", keep=0.5, budget="rank"), ranks)
    reverse = retained_counts(towers, EncoderPrune(method="meteor", keep=0.5, budget="reverse"), ranks)
    equal = retained_counts(towers, EncoderPrune(method="meteor", keep=0.5, budget="equal"), None)
    assert (by_rank["siglip"][-1], by_rank["clip"][-1]) == (27, 9)
    assert (reverse["siglip"][-1], reverse["clip"][-1]) == (9, 27)
    assert (equal["siglip"][-1], equal["clip"][-1]) == (18, 18)
    with pytest.raises(ValueError, match="ranks"):
        retained_counts(towers, EncoderPrune(method="meteor", keep=0.5, budget="rank"), None)


def test_an_unknown_family_is_refused_by_name() -> None:
    from transformers import AutoModel, ViTConfig

    config = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    with pytest.raises(ValueError, match="model_type='vit'"):
        tower("vit", AutoModel.from_config(config))
