"""`videoprune speedup --random-weights`: speed is measured, accuracy is said not to be."""

from __future__ import annotations

import csv
import json

import pytest
import yaml

from pipelines.cli import main

VIT = {
    "model_type": "siglip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 4,
    "vision_use_head": False,
}
TEXT = {
    "model_type": "qwen2",
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
SHAPE = {
    "model_type": "llava_onevision",
    "image_token_id": 310,
    "video_token_id": 311,
    "vision_config": VIT,
    "text_config": TEXT,
}


@pytest.fixture(scope="module")
def done(clips, tmp_path_factory):
    pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("random")
    (folder / "shape.yaml").write_text(yaml.safe_dump(SHAPE))
    words = ["speedup", "moving-shapes", "--model", str(folder / "shape.yaml"), "--random-weights"]
    words += ["--data", str(clips), "--out", str(folder / "out"), "--device", "cpu"]
    assert main([*words, "--methods", "none,random,fastv", "--retain", "0.5", "--runs", "2"]) == 0
    return folder / "out"


def test_times_tokens_and_operations_are_there(done):
    rows = {r["method"]: r for r in json.loads((done / "results.json").read_text())["rows"]}
    assert set(rows) == {"none", "random", "fastv"}
    for row in rows.values():
        assert row["runs"] == 2
        assert row["seconds"]["first_token"]["median"] > 0
        assert row["speedup"]["first_token"] > 0
    assert rows["random"]["flops"]["total"] < rows["none"]["flops"]["total"]
    with (done / "results.csv").open(newline="") as file:
        assert all(float(r["seconds.first_token.median"]) > 0 for r in csv.DictReader(file))
    page = (done / "report.html").read_text()
    assert all(f">{heading}</button>" in page for heading in ("first token s", "total x", "Gflop"))
    assert {p.name for p in done.glob("*.png")} >= {"tokens-kept-by-first-token.png", "stages.png"}


def test_accuracy_is_marked_as_not_measured(done):
    results = json.loads((done / "results.json").read_text())
    assert results["meta"]["accuracy_measured"] is False
    assert results["meta"]["questions"] == 0
    assert results["frames"] == []
    for row in results["rows"]:
        assert (row["accuracy"]["all"], row["accuracy"]["questions"]) == (None, 0)
    with (done / "results.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            assert (row["accuracy.all"], row["accuracy.ci95"], row["accuracy.questions"]) == ("", "", "0")
    page = (done / "report.html").read_text()
    assert "Accuracy was not measured: the weights are random." in page
    assert ">correct %</button>" not in page
    assert "accuracy was not measured" in (done / "tables.md").read_text()
    assert not list(done.glob("accuracy*.png"))
    assert (done / "answers.jsonl").read_text() == ""
