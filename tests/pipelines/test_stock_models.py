"""The programs on stock models: one that comes with the package, and one of true class with random weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from pipelines.cli import main
from pipelines.measure.calibration import solve, training_clips
from pipelines.run.results import model_fingerprint
from tests.plug.stock import IMAGE, VIDEO, stock_model
from videoprune.config import PruneConfig, preset
from videoprune.engine import Engine
from videoprune.models.loading import demo_names, model_folder, stock_config
from videoprune.plug.settings import calibration_key

STOCK = [n for n in demo_names() if n != "demo"]


@pytest.fixture(scope="module")
def shape(tmp_path_factory) -> Path:
    """A YAML file with the shape of a tiny LLaVA-OneVision."""
    config = stock_model("llava_onevision").config.to_dict()
    wanted = {"model_type": config["model_type"], "image_token_id": IMAGE, "video_token_id": VIDEO}
    for part in ("vision_config", "text_config"):
        plain = ("model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
        more = ("image_size", "patch_size", "vocab_size", "num_key_value_heads", "vision_use_head")
        wanted[part] = {k: v for k, v in config[part].items() if k in plain + more}
    path = tmp_path_factory.mktemp("shapes") / "tiny.yaml"
    path.write_text(yaml.safe_dump(wanted))
    return path


def ask(capsys, clips: Path, *words: str) -> dict:
    video = sorted((clips / "data").glob("*.mp4"))[0]
    status = main(["ask", str(video), "What color is it?", "--option", "red", "--option", "blue", *words])
    assert status == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", STOCK)
def test_shipped_stock_models_answer(name, clips, capsys):
    found = ask(capsys, clips, "--model", name, "--prune", "light", "--json")
    assert found["answer"]
    assert found["outcome"]["kind"] == "complete"
    assert found["tokens"]["llm_average"] < found["tokens"]["dense"]
    assert sum(f.stat().st_size for f in model_folder(name).glob("*.safetensors")) <= 8 * 2**20


@pytest.mark.parametrize("name", STOCK)
def test_encode_once_ask_many_equals_one_by_one(name):
    engine = Engine(name, "light", device="cpu")
    clip = training_clips(1, engine.num_frames, engine.frame_size[0])[0]
    encoded = engine.encode([clip.frames])
    together = engine.answer(encoded, clip.samples)
    for sample, answer in zip(clip.samples, together, strict=True):
        alone = engine.answer(encoded, [sample])[0]
        assert (alone.text, alone.trace.llm_layers) == (answer.text, answer.trace.llm_layers)


def test_random_weights_are_asked_and_scored(shape, clips, capsys, tmp_path):
    words = ["--model", str(shape), "--random-weights"]
    prune = ["--prune", "light", "llm.method=fixed"]
    found = ask(capsys, clips, *words, "--json", *prune)
    assert found["answer"].startswith("<")
    assert found["tokens"]["dense"] == 8 * 16 + 1
    out = tmp_path / "run"
    status = main(["eval", "moving-shapes", *words, "--data", str(clips), "--out", str(out), *prune])
    assert status == 0
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert len(rows) == 9
    assert all(r["outcome"] == "complete" for r in rows)
    assert json.loads((out / "summary.json").read_text())["model"]["name"] == f"random:{shape}"


def test_random_weights_of_an_unknown_shape_are_refused(capsys, clips):
    video = sorted((clips / "data").glob("*.mp4"))[0]
    assert main(["ask", str(video), "What?", "--model", "llava", "--random-weights"]) == 2
    assert "shape='llava'; allowed: a YAML file, or internvl3-1b" in capsys.readouterr().err


def test_names_of_models_that_are_none():
    assert stock_config("demo") is None
    with pytest.raises(ValueError, match="model='nowhere'; allowed: demo, llava-demo"):
        model_fingerprint("nowhere")


def test_lambda_is_found_kept_and_scaled(tmp_path, capsys):
    """What `calibrate` writes is what `balanced` then keeps, on other clips and on half as many frames."""
    folder = tmp_path / "copy"
    shutil.copytree(model_folder("llava-demo"), folder)
    config = json.loads((folder / "config.json").read_text())
    config["videoprune"].pop("lambdas", None)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.warns(UserWarning, match="lambda_=null"):
        Engine(str(folder), "balanced", device="cpu")
    assert main(["calibrate", "--model", str(folder), "--prune", "balanced", "--clips", "4"]) == 0
    found = json.loads((folder / "config.json").read_text())["videoprune"]["lambdas"]
    assert list(found) == [calibration_key(preset("balanced"))]
    engine = Engine(str(folder), "balanced", device="cpu")
    clips = training_clips(6, engine.num_frames, engine.frame_size[0])
    wanted = preset("balanced").llm.keep
    for frames in (8, 4):
        shares = []
        for clip in clips:
            part = clip.frames
            short = type(part)(part.pixels[:frames], part.pts_seconds[:frames], 1.0, part.path, part.backend)
            for answer in engine.answer(engine.encode([short]), clip.samples):
                shares.append(answer.trace.llm_average / answer.trace.fused)
        assert abs(sum(shares) / len(shares) - wanted) < 0.1, frames


def test_adaptive_share_is_solved_for():
    engine = Engine("llava-demo", PruneConfig(), device="cpu")
    clips = training_clips(2, engine.num_frames, engine.frame_size[0])
    aggressive = preset("aggressive")
    solved = solve(engine, clips, aggressive)
    assert abs(solved.share - aggressive.llm.keep) < 0.003
    assert solved.tokens == round(8 * 16 * aggressive.encoder.keep * aggressive.fusion.keep) + 1
    assert torch.is_tensor(engine.model.lm_head.weight)
