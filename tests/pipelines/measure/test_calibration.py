from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.cli import main
from pipelines.measure.calibration import Solved, encoder_ranks, save_calibration, solve, training_clips
from videoprune.config import PruneConfig, preset
from videoprune.engine import Engine
from videoprune.plug.settings import calibration_key
from videoprune.prune.meteor import cut_blocks


@pytest.fixture(scope="module")
def engine(tiny: Path) -> Engine:
    return Engine(str(tiny), PruneConfig(), device="cpu")


def slow_effective_rank(x: np.ndarray) -> float:
    s = np.linalg.svd(x.astype(np.float64), compute_uv=False)
    p = s / s.sum()
    return float(np.exp(-sum(v * np.log(v) for v in p if v > 0)))


def test_training_clips_repeat_and_differ_from_each_other() -> None:
    first, again = training_clips(3, 4, 32), training_clips(3, 4, 32)
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a.frames.pixels, b.frames.pixels)
        assert a.samples == b.samples
    assert tuple(first[0].frames.pixels.shape) == (4, 32, 32, 3)
    assert len({c.frames.pixels.numpy().tobytes() for c in first}) == 3
    assert all(1 <= len(c.samples) <= 3 for c in first)


@torch.no_grad()
def test_features_behind_the_cuts_are_the_blocks_outputs(engine: Engine) -> None:
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for one in engine.model.towers:
        size = one.vision.config.image_size
        values = pixels[..., :size, :size]
        found = one.features_behind(list(cut_blocks(len(one.blocks))), values)
        assert [tuple(x.shape) for x in found] == [(2, one.dense, one.width)] * 3
        if not one.blocks:
            assert all(torch.equal(x, one.features(values)) for x in found)
            continue
        hidden = one.vision(pixel_values=values, output_hidden_states=True).hidden_states
        for x, after in zip(found, (2, 3, 4), strict=True):  # 4 blocks: thirds end after 2, 3 and 4
            torch.testing.assert_close(x, hidden[after][:, one.prefix :], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_ranks_are_means_over_frames(engine: Engine) -> None:
    clips = training_clips(2, 4, 32)
    found = encoder_ranks(engine.model, clips)
    one = engine.model.towers[0]
    expected = np.zeros(3)
    for clip in clips:
        values = clip.frames.pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
        for cut, x in enumerate(one.features_behind(list(cut_blocks(len(one.blocks))), values)):
            expected[cut] += np.mean([slow_effective_rank(frame.numpy()) for frame in x]) / len(clips)
    assert list(found) == [t.name for t in engine.model.towers]
    np.testing.assert_allclose(found[one.name], expected, rtol=1e-3)
    assert all(1 <= r <= t.dense for t in engine.model.towers for r in found[t.name])
    whole = encoder_ranks(engine.model, clips, "numerical")
    assert all(r == int(r * 8) / 8 for r in whole[one.name])  # eight frames, whole numbers
    with pytest.raises(ValueError, match="rank='exact'"):
        encoder_ranks(engine.model, clips, "exact")  # type: ignore[arg-type]


@pytest.mark.parametrize("keep", [0.4, 0.8])
def test_the_solved_lambda_keeps_the_wanted_share(engine: Engine, keep: float) -> None:
    clips = training_clips(4, 4, 32)
    prune = preset("balanced").replace(**{"llm.keep": keep, "encoder.keep": 0.8})
    found = solve(engine, clips, prune)
    assert found.share == pytest.approx(keep, abs=0.005)
    solved = engine.with_prune(prune.replace(**{"llm.lambda_": found.lambda_}))
    shares = []
    for clip in clips:
        encoded = solved.encode([clip.frames])
        for answer in solved.answer(encoded, clip.samples, max_new_tokens=1):
            shares.append(np.mean(answer.trace.llm_layers) / answer.trace.fused)
    assert found.share == pytest.approx(np.mean(shares), abs=1e-9)


def test_a_share_out_of_reach_is_refused(engine: Engine) -> None:
    with pytest.raises(ValueError, match=r"llm.keep=0.05 cannot be calibrated"):
        solve(engine, training_clips(1, 4, 32), preset("balanced").replace(**{"llm.keep": 0.05}))


def test_a_calibration_keeps_what_else_is_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"num_frames": 4, "lambdas": {"old": 1.0, "both": 2.0}}))
    solved = {"both": Solved(5.0, 0.5, 9.0), "new": Solved(6.0, 0.5, 9.0)}
    save_calibration(tmp_path, {"clip": [1.0, 2.0, 3.0]}, solved)
    assert json.loads(path.read_text()) == {
        "num_frames": 4,
        "encoder_ranks": {"clip": [1.0, 2.0, 3.0]},
        "lambdas": {"old": 1.0, "both": 5.0, "new": 6.0},
    }


def test_a_stock_models_lambdas_stand_apart_with_their_tokens(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"hidden_size": 4, "videoprune": {"note": "kept"}}))
    save_calibration(tmp_path, {}, {"new": Solved(6.0, 0.5, 9.0)})
    own = {"note": "kept", "lambdas": {"new": {"lambda": 6.0, "tokens": 9.0}}}
    assert json.loads(path.read_text()) == {"hidden_size": 4, "videoprune": own}


def test_the_command_makes_a_preset_usable(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    prune = preset("balanced").replace(**{"llm.keep": 0.61})
    with pytest.raises(ValueError, match="not calibrated"):
        Engine(str(folder), prune, device="cpu")
    words = ["--prune", "balanced", "--clips", "3", "llm.keep=0.61"]
    assert main(["calibrate", "--model", str(folder), *words]) == 0
    assert "siglip" in capsys.readouterr().out
    engine = Engine(str(folder), prune, device="cpu")
    assert engine.model.config.lambdas[calibration_key(prune)] > 0
    assert engine.model.config.encoder_ranks["siglip"] != [4.0, 3.0, 2.0]
