"""The multi-encoder model end to end, tiny: counts, batches, saving, errors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.models.tiny import random_clip, tiny_model
from videoprune.clock import Stopwatch
from videoprune.config import PruneConfig, preset
from videoprune.models.multi_encoder import MultiEncoderVLM
from videoprune.models.multi_encoder_config import MultiEncoderConfig
from videoprune.plug.current_pass import trace
from videoprune.plug.settings import calibration_key
from videoprune.types import Trace, VisualTokens

FULL = PruneConfig.from_dict(
    {
        "encoder": {"method": "evoprune", "keep": 0.5},
        "fusion": {"method": "cooperative", "keep": 0.6},
        "llm": {"method": "adaptive", "lambda_": 30.0, "top_heads": 2},
    }
)
CONFIGS = {
    "none": PruneConfig(),
    "all three": FULL,
    "meteor": FULL.replace(**{"encoder.method": "meteor", "encoder.budget": "rank"}),
    "clip scope": FULL.replace(**{"fusion.scope": "clip", "fusion.method": "separate"}),
    "uniform": FULL.replace(
        **{"encoder.method": "uniform", "fusion.method": "uniform", "llm.method": "uniform", "llm.keep": 0.5}
    ),
}


def text(rows: int, length: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(1, 64, (rows, length), generator=torch.Generator().manual_seed(9))
    mask = torch.ones_like(ids)
    for row in range(rows):
        mask[row, : row % 3] = 0
    return ids, mask


def generate(
    model: MultiEncoderVLM,
    ids: torch.Tensor,
    mask: torch.Tensor,
    tokens: VisualTokens,
    prune: PruneConfig,
    new: int,
) -> tuple[torch.Tensor, list[Trace]]:
    """`new` greedy ids of each row, and a trace of each."""
    with trace() as traces:
        out = model.generate(ids, mask, tokens, settings=model.settings(prune), max_new_tokens=new)
    return out, traces


@pytest.mark.parametrize("name", list(CONFIGS))
def test_the_counts_are_known_before_any_pixel(name: str) -> None:
    model, config = tiny_model(), CONFIGS[name]
    for frames in (1, 3, 5):
        counts = model.retained_count(frames, config)
        tokens = model.encode([random_clip(frames)], config)
        assert counts["dense"] == frames * 3 * 36
        assert tokens.num_tokens == counts["fused"]
        assert int(tokens.mask.sum()) == counts["fused"]


@pytest.mark.parametrize("name", list(CONFIGS))
def test_a_batch_of_clips_equals_the_clips_alone(name: str) -> None:
    """Other numbers of frames, other texts, other counts in each row."""
    model, config = tiny_model(), CONFIGS[name]
    clips = [random_clip(n, seed=n) for n in (4, 1, 3, 2)]
    ids, mask = text(4)
    together, traces = generate(model, ids, mask, model.encode(clips, config), config, 5)
    for i, clip in enumerate(clips):
        own = slice(i % 3, None)
        tokens = model.encode([clip], config)
        alone, (traced,) = generate(model, ids[i : i + 1, own], mask[i : i + 1, own], tokens, config, 5)
        assert torch.equal(alone[0], together[i])
        assert traced.as_dict() == traces[i].as_dict()
        assert traced.fused == traced.llm_layers[0] == tokens.num_tokens


def test_many_questions_of_one_clip_share_its_tokens() -> None:
    model = tiny_model()
    tokens = model.encode([random_clip(3)], FULL)
    ids, mask = text(4)
    together, _ = generate(model, ids, mask, tokens, FULL, 4)
    for i in range(4):
        own = slice(i % 3, None)
        alone, _ = generate(model, ids[i : i + 1, own], mask[i : i + 1, own], tokens, FULL, 4)
        assert torch.equal(alone[0], together[i])


def test_keep_all_is_no_pruning() -> None:
    model = tiny_model()
    keep_all = PruneConfig.from_dict(
        {
            "encoder": {"method": "evoprune", "keep": 1.0},
            "fusion": {"method": "cooperative", "keep": 1.0},
            "llm": {"method": "adaptive", "lambda_": 1e9},
        }
    )
    clip, (ids, mask) = random_clip(2), text(1)
    dense, kept = model.encode([clip], PruneConfig()), model.encode([clip], keep_all)
    assert torch.equal(dense.x, kept.x)
    assert torch.equal(dense.origin, kept.origin)
    a = model.generate(ids, mask, dense, max_new_tokens=6)
    b, _ = generate(model, ids, mask, kept, keep_all, 6)
    assert torch.equal(a, b)


def test_tokens_know_where_they_came_from() -> None:
    model = tiny_model()
    clip = random_clip(3, start=8.5)
    dense = model.encode([clip], PruneConfig())
    assert dense.encoder_names == ("siglip", "clip", "convnext")
    assert dense.pts_seconds.tolist() == [[8.5, 9.0, 9.5]]
    at = 0
    for frame in range(3):
        for encoder in range(3):
            for row in range(6):
                for column in range(6):
                    assert dense.origin[0, at].tolist() == [frame, row, column]
                    assert int(dense.encoder[0, at]) == encoder
                    at += 1
    pruned = model.encode([clip], FULL)
    where = {
        (*map(int, o), int(e)): i
        for i, (o, e) in enumerate(zip(dense.origin[0], dense.encoder[0], strict=True))
    }
    places = [where[(*map(int, o), int(e))] for o, e in zip(pruned.origin[0], pruned.encoder[0], strict=True)]
    assert places == sorted(set(places))


def test_saving_and_loading_keeps_every_bit(tmp_path: Path) -> None:
    model = tiny_model()
    model.save_pretrained(tmp_path)
    again = MultiEncoderVLM.from_pretrained(tmp_path).eval()
    for (name, a), (_, b) in zip(model.state_dict().items(), again.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    assert again.config.encoder_ranks == model.config.encoder_ranks
    clip, (ids, mask) = random_clip(2), text(1)
    a, _ = generate(model, ids, mask, model.encode([clip], FULL), FULL, 8)
    b, _ = generate(again, ids, mask, again.encode([clip], FULL), FULL, 8)
    assert torch.equal(a, b)


def test_other_encoders_and_language_models_plug_in() -> None:
    model = tiny_model(("dinov2", "siglip"))
    data = model.config.to_dict() | {}
    kind = {"model_type": "llama", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48}
    size = {"num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0}
    other = MultiEncoderVLM(MultiEncoderConfig(encoders=data["encoders"], text_config=kind | size)).eval()
    ids, mask = text(2)
    tokens = other.encode([random_clip(2), random_clip(3)], FULL)
    out, traces = generate(other, ids, mask, tokens, FULL, 3)
    assert out.shape == (2, 3)
    assert [len(t.llm_layers) for t in traces] == [4, 4]


def test_frames_of_any_size_are_taken() -> None:
    model = tiny_model()
    tokens = model.encode([random_clip(2, size=31), random_clip(1, size=24)], FULL)
    assert tokens.x.isfinite().all()
    assert tokens.mask.sum(1).tolist() == [model.retained_count(n, FULL)["fused"] for n in (2, 1)]


def test_forward_gives_the_logits_that_generation_uses() -> None:
    model = tiny_model()
    ids, mask = text(1)
    tokens = model.encode([random_clip(2)], PruneConfig())
    with torch.no_grad():
        logits = model(ids, mask, tokens).logits
    first = model.generate(ids, mask, tokens, max_new_tokens=1)
    assert int(logits[0, -1].argmax()) == int(first[0, 0])


def test_mistakes_are_named() -> None:
    model = tiny_model()
    with pytest.raises(ValueError, match=r"clips=\[\]"):
        model.encode([], PruneConfig())
    with pytest.raises(ValueError, match="not calibrated for"):
        model.settings(FULL.replace(**{"llm.lambda_": None, "llm.keep": 0.5}))
    with pytest.raises(ValueError, match="at least one encoder"):
        MultiEncoderVLM(MultiEncoderConfig(encoders=[]))
    with pytest.raises(ValueError, match="model_type='nonsense'"):
        MultiEncoderVLM(
            MultiEncoderConfig(
                encoders=[{"name": "x", "model_type": "nonsense"}], text_config={"model_type": "llama"}
            )
        )


def test_a_calibrated_lambda_is_found_by_its_key() -> None:
    model = tiny_model()
    wanted = FULL.replace(**{"llm.lambda_": None, "llm.keep": 0.5})
    model.config.lambdas = {calibration_key(wanted): 12.5}
    found = model.settings(wanted)
    assert found.config.llm.lambda_ == 12.5
    assert found.calibrated == model.retained_count(model.config.num_frames, wanted)["fused"]


def choosing(model: MultiEncoderVLM, prune: PruneConfig) -> float:
    clock = Stopwatch()
    model.encode_frames(model.frames([random_clip(3)]), model.settings(prune), torch.Generator(), clock)
    return clock.seconds


def test_framefusion_wants_one_encoder() -> None:
    prune = PruneConfig.from_dict({"llm": {"method": "framefusion", "keep": 0.5}})
    with pytest.raises(
        ValueError, match=r"llm\.method='framefusion' compares the frames of one encoder; allowed"
    ):
        tiny_model().settings(prune)


@pytest.mark.parametrize("method", ["temporal", "frames"])
def test_what_only_stock_models_have_is_refused(method: str) -> None:
    value = {"temporal": 0.5, "frames": "novelty"}[method]
    with pytest.raises(ValueError, match=f"encoder.{method}={value!r}"):
        tiny_model().settings(FULL.replace(**{f"encoder.{method}": value}))


def test_a_rival_that_needs_attention_is_refused_by_name() -> None:
    prune = PruneConfig.from_dict({"encoder": {"method": "flashvid", "keep": 0.5}})
    with pytest.raises(ValueError, match=r"encoder.method='flashvid' needs the attention of one encoder"):
        tiny_model().settings(prune)


def test_without_settings_generation_prunes_nothing() -> None:
    model = tiny_model()
    tokens, (ids, mask) = model.encode([random_clip(2)], FULL), text(2)
    with trace() as traces:
        model.generate(ids, mask, tokens, max_new_tokens=2)
    assert [t.llm_layers for t in traces] == [(tokens.num_tokens,) * 6] * 2


def test_other_ways_to_generate_are_generations_arguments() -> None:
    """Beams start from repeated prompts, and change places in the cache."""
    model = tiny_model()
    tokens, (ids, mask) = model.encode([random_clip(2), random_clip(3)], FULL), text(2)
    settings = model.settings(FULL)
    both = model.generate(ids, mask, tokens, settings=settings, max_new_tokens=4, num_beams=3)
    for row in range(2):
        one, own = model.encode([random_clip(2 + row)], FULL), slice(row % 3, None)
        given = ids[row : row + 1, own], mask[row : row + 1, own], one
        alone = model.generate(*given, settings=settings, max_new_tokens=4, num_beams=3)
        assert torch.equal(alone[0], both[row])


def test_choosing_in_the_encoders_is_timed():
    model = tiny_model()
    for name in ("all three", "meteor"):
        model.config.encoder_ranks = {t.name: [3.0, 2.0, 1.0] for t in model.towers}
        assert choosing(model, CONFIGS[name]) > 0
    assert choosing(model, PruneConfig()) == 0


def test_frames_without_a_token_still_count():
    model = tiny_model()
    tokens = model.encode([random_clip(5), random_clip(2)], preset("frames").replace(**{"fusion.keep": 0.2}))
    assert int(tokens.origin[0, :, 0][tokens.mask[0]].max()) < 4
    assert [tokens.num_frames(0), tokens.num_frames(1)] == [5, 2]
