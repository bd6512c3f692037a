"""The encoders of a model of several: tokens merge and leave between their blocks, by the hooks of stock models."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import AutoModel, ViTConfig

from tests.models.tiny import ENCODERS, tiny_encoder, tiny_model
from videoprune.clock import Stopwatch
from videoprune.config import EncoderPrune, PruneConfig
from videoprune.models.encoded_frames import EncodedFrames
from videoprune.models.multi_encoder import MultiEncoderVLM
from videoprune.plug.current_pass import Pass, passing
from videoprune.plug.encoder_goal import EncoderGoal, Layout
from videoprune.plug.encoder_pass import EncoderPass
from videoprune.plug.families.tower import Tower
from videoprune.plug.settings import Settings
from videoprune.prune.counts import retained_counts
from videoprune.prune.merge import unmerge

VITS = ["siglip", "clip", "dinov2"]
SCHEDULES = ["mean", "skip", "first", "last", "increasing", "decreasing"]
FINAL_NORM = {"siglip": "post_layernorm", "clip": None, "dinov2": "layernorm"}


def frames(count: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, 24, 24, 3), generator=generator, dtype=torch.uint8)


def encode(model: MultiEncoderVLM, pixels: Tensor, config: EncoderPrune) -> EncodedFrames:
    """What the model's only encoder makes of uint8 frames."""
    settings, generator = model.settings(PruneConfig(encoder=config)), torch.Generator().manual_seed(0)
    (found,) = model.encode_frames(pixels, settings, generator, Stopwatch())
    return found


@torch.no_grad()
def stock(model: MultiEncoderVLM, pixels: Tensor) -> Tensor:
    """Patch features (F, N, D) of the transformers model alone."""
    (one,) = model.towers
    x = one.vision(pixel_values=model.pixel_values(pixels, one)).last_hidden_state
    return x[:, one.prefix :] if one.blocks else x.flatten(2).transpose(1, 2)


def noted(module, run) -> Tensor:
    """The hidden states that `module` is called with first, while `run()` runs."""
    found: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda _m, args: found.append(args[0]), prepend=True)
    with torch.no_grad():
        run()
    handle.remove()
    return found[0]


def first_input(model: MultiEncoderVLM, pixels: Tensor) -> Tensor:
    """What enters the first block, (F, P + N, D)."""
    return noted(model.towers[0].blocks[0], lambda: stock(model, pixels))


def by_hand(name: str, one: Tower, index: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys (F, H, n, d) of block `index` on what enters it."""
    block = one.blocks[index]
    attention = one.attention(block)
    x = (block.norm1 if name == "dinov2" else block.layer_norm1)(x)
    q, k = (part(x).unflatten(-1, (4, 8)).transpose(1, 2) for part in (attention.q_proj, attention.k_proj))
    return q, k


def run_block(one: Tower, index: int, x: Tensor) -> Tensor:
    out = one.blocks[index](x, attention_mask=None)
    return out[0] if isinstance(out, tuple) else out


@pytest.mark.parametrize("name", list(ENCODERS))
@pytest.mark.parametrize("method", ["evoprune", "meteor", "random", "uniform", "none"])
def test_keep_all_is_the_stock_forward(name: str, method: str) -> None:
    model = tiny_model((name,))
    encoded = encode(model, frames(2), EncoderPrune(method=method, keep=1.0))
    assert torch.equal(encoded.x, stock(model, frames(2)))
    assert (encoded.size == 1).all()
    assert torch.equal(encoded.plan.keep, torch.arange(36).expand(2, 36))


@pytest.mark.parametrize("name", VITS)
def test_the_hooks_alone_leave_an_encoder_as_it_is(name: str) -> None:
    """The encoder without hooks, with the same weights; and while another encoder is pruned."""
    model, bare = tiny_model((name, "convnext")), tiny_encoder(name)
    bare.load_state_dict(model.encoders[name].state_dict())
    x = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = bare(pixel_values=x).last_hidden_state
        assert torch.equal(model.encoders[name](pixel_values=x).last_hidden_state, expected)
        settings = Settings(PruneConfig(encoder=EncoderPrune(method="evoprune", keep=0.5)))
        with passing(Pass(model, settings, cuts={"other": (18, 18, 18)})) as call:
            assert torch.equal(model.encoders[name](pixel_values=x).last_hidden_state, expected)
        assert not call.encoders


@pytest.mark.parametrize("name", VITS)
def test_a_pass_sees_the_queries_and_keys_of_the_block(name: str, monkeypatch) -> None:
    model, seen = tiny_model((name,)), []
    attend = EncoderPass.attend_frames

    def noting(self, block, qkv, scale, **kwargs):
        seen.append((block, *(t.transpose(0, 1).flatten(1, 2) for t in qkv[:2]), scale))  # (H, N, d)
        return attend(self, block, qkv, scale, **kwargs)

    monkeypatch.setattr(EncoderPass, "attend_frames", noting)
    encode(model, frames(1), EncoderPrune(method="evoprune", keep=0.5, schedule="last"))
    with torch.no_grad():
        queries, keys = by_hand(name, model.towers[0], 0, first_input(model, frames(1)))
    assert [block for block, *_ in seen] == list(range(6))
    assert torch.equal(seen[0][1], queries[0])
    assert torch.equal(seen[0][2], keys[0])
    assert seen[0][3] == pytest.approx(8**-0.5)


@pytest.mark.parametrize("name", VITS)
@pytest.mark.parametrize("proportional", [True, False])
def test_log_size_makes_a_merged_token_count_as_its_copies(name: str, proportional: bool) -> None:
    """Proportional attention: three equal tokens, or one of size 3, are the same to every other token."""
    model = tiny_model((name,))
    (one,) = model.towers
    config = EncoderPrune(method="meteor", keep=0.5, proportional_attention=proportional)
    x = first_input(model, frames(1))
    n = x.shape[1]
    run = EncoderPass(name, Layout([n], prefix=one.prefix), EncoderGoal(6, config, cuts=(36, 36, 36)))
    run.take_sizes(torch.ones(n).index_fill(0, torch.tensor(n - 1), 3.0))
    with torch.no_grad():
        full = run_block(one, 1, torch.cat([x, x[:, -1:], x[:, -1:]], 1))
        with passing(Pass(model, Settings(PruneConfig(encoder=config)))) as call:
            call.encoders[name] = run
            merged = run_block(one, 1, x)
    if proportional:
        torch.testing.assert_close(merged, full[:, :n], atol=1e-5, rtol=1e-5)
    else:
        assert not torch.allclose(merged, full[:, :n], atol=1e-4)


@pytest.mark.parametrize("name", [*VITS, "convnext"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_evoprune_merges_to_the_exact_count_and_loses_no_patch(name: str, schedule: str) -> None:
    config = EncoderPrune(method="evoprune", keep=0.3, schedule=schedule)
    encoded = encode(tiny_model((name,)), frames(3), config)
    x, size, plan = encoded.x, encoded.size, encoded.plan
    assert x.shape == (3, 11, 32)
    assert (size.sum(1) == 36).all()
    assert (plan.into >= 0).all()
    counted = torch.zeros_like(size).scatter_add_(1, plan.into, torch.ones(3, 36))
    assert torch.equal(counted, size)
    assert torch.equal(unmerge(x, plan).gather(1, plan.keep[..., None].expand(-1, -1, 32)), x)


@pytest.mark.parametrize("method", ["evoprune", "meteor", "tome"])
@pytest.mark.parametrize("name", [*VITS, "convnext"])
def test_a_batch_of_frames_equals_the_frames_alone(name: str, method: str) -> None:
    model, config = tiny_model((name,)), EncoderPrune(method=method, keep=0.4)
    together = encode(model, frames(4), config)
    for i in range(4):
        alone = encode(model, frames(4)[i : i + 1], config)
        assert torch.equal(alone.plan.keep[0], together.plan.keep[i])
        assert torch.equal(alone.plan.into[0], together.plan.into[i])
        assert torch.equal(alone.size[0], together.size[i])
        torch.testing.assert_close(alone.x[0], together.x[i], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", VITS)
def test_meteor_drops_at_the_ends_of_the_thirds(name: str) -> None:
    """Oracle: the same drops by hand, the first by the mean token, the others by attention."""
    model, config = tiny_model((name,)), EncoderPrune(method="meteor", keep=0.3)
    (one,) = model.towers
    counts = retained_counts([one], config, None)[name]
    encoded = encode(model, frames(1), config)
    assert 36 > counts[0] > counts[1] > counts[2] == 11
    h, left = first_input(model, frames(1)), list(range(36))
    with torch.no_grad():
        for i in range(6):
            queries, keys = by_hand(name, one, i, h)
            h = run_block(one, i, h)
            if i % 2:
                patches = h[0, one.prefix :].double()
                if i == 1:
                    mean = patches.mean(0)
                    score = [-torch.cosine_similarity(p, mean, dim=0).item() for p in patches]
                else:
                    logits = (queries[0].double() @ keys[0].double().transpose(1, 2)) * 8**-0.5
                    a = logits.softmax(-1).mean(0)
                    a = a[0] if one.prefix else a.mean(0)
                    score = a[one.prefix :].tolist()
                best = sorted(sorted(range(len(score)), key=lambda t: -score[t])[: counts[i // 2]])
                left = [left[t] for t in best]
                rows = [*range(one.prefix), *(t + one.prefix for t in best)]
                h = h[:, rows]
        norm = FINAL_NORM[name]
        h = h if norm is None else one.vision.get_submodule(norm)(h)
    assert encoded.plan.keep[0].tolist() == left
    torch.testing.assert_close(encoded.x, h[:, one.prefix :], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", ["random", "uniform"])
@pytest.mark.parametrize("name", ["clip", "convnext"])
def test_controls_take_tokens_of_the_stock_forward(name: str, method: str) -> None:
    model = tiny_model((name,))
    encoded, full = encode(model, frames(2), EncoderPrune(method=method, keep=0.5)), stock(model, frames(2))
    assert encoded.x.shape == (2, 18, 32)
    assert torch.equal(encoded.x, full.gather(1, encoded.plan.keep[..., None].expand(-1, -1, 32)))


def test_each_encoder_is_pruned_to_its_own_count_and_by_itself() -> None:
    """Several encoders in one pass equal each of them alone, where they share nothing but the budget."""
    model, config = tiny_model(("siglip", "clip", "dinov2")), EncoderPrune(method="evoprune", keep=0.5)
    settings = model.settings(PruneConfig(encoder=config))
    encoded = model.encode_frames(frames(2), settings, torch.Generator(), Stopwatch())
    for name, one in zip(("siglip", "clip", "dinov2"), encoded, strict=True):
        alone = tiny_model((name,))
        alone.encoders[name].load_state_dict(model.encoders[name].state_dict())
        expected = encode(alone, frames(2), config)
        assert torch.equal(one.plan.into, expected.plan.into)
        assert torch.equal(one.x, expected.x)
        assert torch.equal(one.size, expected.size)


def test_the_parts_of_the_score_can_be_switched_off() -> None:
    model, plans = tiny_model(("clip",)), []
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
        plans.append(encode(model, frames(8), config).plan.into)
    assert all(not torch.equal(plans[0], other) for other in plans[1:])


def test_counts_follow_the_ranks() -> None:
    towers = [Tower(n, tiny_encoder(n)) for n in ("siglip", "clip")]
    ranks = {"siglip": [3.0, 3.0, 3.0], "clip": [1.0, 1.0, 1.0]}
    by_rank = retained_counts(towers, EncoderPrune(method="meteor", keep=0.5, budget="rank"), ranks)
    reverse = retained_counts(towers, EncoderPrune(method="meteor", keep=0.5, budget="reverse"), ranks)
    equal = retained_counts(towers, EncoderPrune(method="meteor", keep=0.5, budget="equal"), None)
    assert (by_rank["siglip"][-1], by_rank["clip"][-1]) == (27, 9)
    assert (reverse["siglip"][-1], reverse["clip"][-1]) == (9, 27)
    assert (equal["siglip"][-1], equal["clip"][-1]) == (18, 18)
    with pytest.raises(ValueError, match="ranks"):
        retained_counts(towers, EncoderPrune(method="meteor", keep=0.5, budget="rank"), None)


@pytest.mark.parametrize("name", list(ENCODERS))
def test_features_behind_blocks_are_those_on_the_way(name: str) -> None:
    model = tiny_model((name,))
    (one,) = model.towers
    x = model.pixel_values(frames(2), one)
    with torch.no_grad():
        found = one.features_behind([0, 5] if one.blocks else [0], x)
        if one.blocks:
            h = first_input(model, frames(2))
            for i in range(6):
                h = run_block(one, i, h)
                if i in (0, 5):
                    torch.testing.assert_close(found[i // 5], h[:, one.prefix :], atol=1e-5, rtol=1e-5)
        else:
            assert torch.equal(found[0], stock(model, frames(2)))


def test_an_unknown_family_is_refused_by_name() -> None:
    config = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    with pytest.raises(ValueError, match="model_type='vit'"):
        Tower("vit", AutoModel.from_config(config))
