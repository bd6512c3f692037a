"""scripts/bench_gpu.py on a CPU with a tiny shape: the same way as on a GPU but for the clock and the memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipelines.measure import cells
from pipelines.measure.cells import Cell, LoadedModel
from scripts import bench_gpu

ROOT = Path(__file__).parent.parent.parent
SHAPE = """
model_type: llava_onevision
image_token_id: 60
video_token_id: 61
image_grid_pinpoints: [[28, 28], [28, 56]]
vision_config: {model_type: siglip_vision_model, hidden_size: 32, intermediate_size: 48, num_hidden_layers: 6,
  num_attention_heads: 4, image_size: 28, patch_size: 4, vision_use_head: false}
text_config: {model_type: qwen2, hidden_size: 32, intermediate_size: 48, num_hidden_layers: 8,
  num_attention_heads: 4, num_key_value_heads: 2, vocab_size: 64}
"""
TOKENS = 16  # of a frame: 7 x 7 patches pooled by 2
LABELS = ["stock", "none", "videoprune@0.25", "divprune@0.25"]
# A machine with torch, transformers and einops alone: the path finder does not see the others.
WITHOUT = """
import runpy, sys
from importlib.machinery import PathFinder
HIDDEN = ("ray", "decord", "av", "omegaconf", "rich", "matplotlib", "torchvision", "PIL")
class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in HIDDEN else super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Bare
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def shape(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(SHAPE)
    return str(path)


def command(shape, out, *more):
    plain = ["--device", "cpu", "--dtype", "float32", "--runs", "1", "--warmup", "0", "--text", "8"]
    few = ["--frames", "4", "--concurrency", "1", "--methods", "videoprune", "divprune", "--retain", "0.25"]
    return ["--out", str(out), "--shape", shape, *plain, *few, *more]


def rows(out):
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def counting(monkeypatch):
    """Labels of all runs from now on."""
    seen, take = [], LoadedModel.take

    def noted(self, variant, *args):
        seen.append(variant.label)
        take(self, variant, *args)

    monkeypatch.setattr(LoadedModel, "take", noted)
    return seen


def test_cells_are_written_in_order_and_add_up(shape, tmp_path, capsys):
    out = tmp_path / "out"
    bench_gpu.main(command(shape, out, "--concurrency", "2", "1", "--runs", "2"))
    found = rows(out)
    assert [(r["concurrency"], r["variant"]) for r in found] == [(c, v) for c in (1, 2) for v in LABELS]
    for row in found:
        seconds = {k: v["median"] for k, v in row["seconds"].items()}
        assert row["status"] == "measured"
        assert row["runs"] == 2
        assert min(seconds["encoder"], seconds["between"], seconds["llm"], seconds["other"]) > 0
        for one in ("encoder", "llm"):
            assert seconds[one] < seconds["first_token"]
        assert row["questions_per_second"] == pytest.approx(row["concurrency"] / seconds["first_token"])
        assert (row["choosing_share"] > 0) == (row["method"] in ("videoprune", "divprune"))
        assert row["peak_bytes"] is None  # there is no such figure on a CPU
    by = {(r["concurrency"], r["variant"]): r for r in found}
    assert by[1, "none"]["visual_by_layer"] == by[1, "stock"]["visual_by_layer"] == [4 * TOKENS + 1] * 8
    assert by[1, "divprune@0.25"]["visual_by_layer"] == [TOKENS + 1] * 8
    assert by[1, "none"]["flop_ideal"] == by[1, "stock"]["flop_ideal"] == 1
    assert by[1, "videoprune@0.25"]["flop_ideal"] > by[1, "divprune@0.25"]["flop_ideal"] > 1
    assert by[2, "none"]["kv_bytes"] == 2 * by[1, "none"]["kv_bytes"]
    text = by[1, "none"]["prompt"] - (4 * TOKENS + 1)
    a_token = 2 * 2 * 8 * 4  # keys and values, heads, width, bytes
    assert by[1, "divprune@0.25"]["kv_bytes"] == 8 * (TOKENS + 1 + text) * a_token
    whole = json.loads((out / "results.json").read_text())
    assert whole["cells"] == found
    assert whole["not_measured"] == []
    assert whole["environment"]["shapes"].keys() == {shape}
    printed = capsys.readouterr().out
    assert printed == (out / "table.md").read_text()
    assert printed.count("\n| ") == 2 * (len(LABELS) + 2)


def test_ratios_are_to_the_unpruned_model_in_the_same_turn(shape, tmp_path):
    bench_gpu.main(command(shape, tmp_path / "out", "--runs", "3"))
    by = {r["variant"]: r for r in rows(tmp_path / "out")}
    base, pruned = (by[v]["first_token_by_run"] for v in ("none", "divprune@0.25"))
    ratios = sorted(a / b for a, b in zip(base, pruned, strict=True))
    spread = by["divprune@0.25"]["speedup"]
    assert [spread[k] for k in ("low", "median", "high")] == pytest.approx(ratios)
    assert by["divprune@0.25"]["share_of_ideal"] * by["divprune@0.25"]["flop_ideal"] == pytest.approx(
        ratios[1]
    )


def test_it_goes_on_where_it_stopped(shape, tmp_path, monkeypatch):
    out = tmp_path / "out"
    bench_gpu.main(command(shape, out))
    before = rows(out)
    (out / "results.jsonl").open("a").write('{"torn')  # killed while it wrote
    seen = counting(monkeypatch)
    bench_gpu.main(command(shape, out))
    assert (seen, rows(out)) == ([], before)
    bench_gpu.main(command(shape, out, "--concurrency", "1", "2"))
    assert sorted(seen) == sorted(LABELS)
    assert [r["concurrency"] for r in rows(out)] == [1] * 4 + [2] * 4


def test_a_method_that_is_new_takes_turns_with_the_others(shape, tmp_path, monkeypatch):
    out = tmp_path / "out"
    bench_gpu.main(command(shape, out, "--methods", "divprune"))
    seen = counting(monkeypatch)
    bench_gpu.main(command(shape, out))
    assert sorted(seen) == sorted(LABELS)
    whole = json.loads((out / "results.json").read_text())
    assert sorted(r["variant"] for r in whole["cells"]) == sorted(LABELS)


def test_out_of_memory_is_a_row_and_the_rest_goes_on(shape, tmp_path, monkeypatch):
    out, take = tmp_path / "out", LoadedModel.take

    def full(self, variant, *args):
        if variant.method == "divprune":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB\nand more")
        take(self, variant, *args)

    monkeypatch.setattr(LoadedModel, "take", full)
    assert bench_gpu.main(command(shape, out, "--concurrency", "1", "2")) == 0
    by = {(r["concurrency"], r["variant"]): r for r in rows(out)}
    for clips in (1, 2):
        failed = by[clips, "divprune@0.25"]
        assert failed["status"] == "failed"
        assert failed["reason"] == "OutOfMemoryError: CUDA out of memory. Tried to allocate 9 GiB"
        assert by[clips, "videoprune@0.25"]["speedup"]["median"] > 0
    assert "\n\n- `divprune@0.25` not measured: OutOfMemoryError" in (out / "table.md").read_text()
    monkeypatch.setattr(LoadedModel, "take", take)
    seen = counting(monkeypatch)
    bench_gpu.main(command(shape, out, "--methods", "divprune", "evoprune"))
    assert sorted(seen) == ["evoprune@0.25", "none", "stock"]  # what failed is not tried again


def test_a_model_that_does_not_fit_is_rows_too(shape, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(cells, "random_model", full)
    bench_gpu.main(command(shape, tmp_path / "out"))
    assert [r["variant"] for r in rows(tmp_path / "out")] == LABELS
    assert {r["status"] for r in rows(tmp_path / "out")} == {"failed"}


def test_what_a_family_refuses_is_a_row(shape, tmp_path):
    assert bench_gpu.main(command(shape, tmp_path / "out", "--methods", "meteor")) == 1
    assert "`meteor@0.25` ERROR: ValueError" in (tmp_path / "out" / "table.md").read_text()
    by = {r["variant"]: r for r in rows(tmp_path / "out")}
    assert by["meteor@0.25"]["reason"].startswith("ValueError: encoder.method='meteor'; allowed")
    assert by["none"]["status"] == "measured"


def test_a_cell_that_raises_is_an_error_and_the_rest_goes_on(shape, tmp_path, monkeypatch):
    take = LoadedModel.take

    def broken(self, variant, *args):
        if variant.method == "divprune":
            raise KeyError("no such kernel")
        take(self, variant, *args)

    monkeypatch.setattr(LoadedModel, "take", broken)
    assert bench_gpu.main(command(shape, tmp_path / "out")) == 1
    by = {r["variant"]: r for r in rows(tmp_path / "out")}
    assert by["divprune@0.25"]["reason"] == "KeyError: 'no such kernel'"
    assert by["videoprune@0.25"]["status"] == "measured"
    assert "- `divprune@0.25` ERROR: KeyError" in (tmp_path / "out" / "table.md").read_text()


def test_the_budget_ends_it(shape, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    bench_gpu.main(command(shape, out, "--budget", "0"))
    assert rows(out) == []
    bench_gpu.main(command(shape, out))
    seconds = rows(out)[-1]["cell_seconds"]
    seen = counting(monkeypatch)  # from here on a cell of 4 frames is known to take as long
    bench_gpu.main(command(shape, out, "--frames", "4", "400000", "--budget", str(1000 * seconds)))
    assert seen == []
    assert f"the time is over before {Cell(shape, 400000, 1)}" in capsys.readouterr().err
    whole = json.loads((out / "results.json").read_text())
    assert whole["not_measured"] == [{"shape": shape, "frames": 400000, "concurrency": 1}]


def test_a_turn_does_not_begin_when_the_time_is_over(shape, tmp_path, monkeypatch):
    ran = iter([False, True])
    measure = bench_gpu.measure
    monkeypatch.setattr(
        bench_gpu, "measure", lambda *a, **k: measure(*a, **(k | {"over": lambda: next(ran)}))
    )
    bench_gpu.main(command(shape, tmp_path / "out", "--runs", "5"))
    assert [r["runs"] for r in rows(tmp_path / "out")] == [2] * len(LABELS)


def test_a_folder_holds_figures_of_one_setup(shape, tmp_path):
    out = tmp_path / "out"
    bench_gpu.main(command(shape, out, "--budget", "0"))
    with pytest.raises(ValueError, match=r"holds figures of another setup; allowed"):
        bench_gpu.main(command(shape, out, "--text", "9"))
    Path(shape).write_text(SHAPE.replace("hidden_size: 32", "hidden_size: 64"))
    with pytest.raises(ValueError, match=r"holds figures of another .*tiny\.yaml"):
        bench_gpu.main(command(shape, out))


def test_mistakes_are_named_before_anything_is_measured(shape, tmp_path):
    for more, message in (
        (("--methods", "fastvv"), r"method='fastvv'; allowed: none"),
        (("--dtype", "float31"), r"dtype='float31'; allowed"),
        (("--runs", "0"), r"runs=0, warmup=0; allowed"),
        (("--shape", "tiny"), r"shape='tiny'; allowed: a YAML file"),
    ):
        with pytest.raises(ValueError, match=message):
            bench_gpu.main(command(shape, tmp_path / "out", *more))
    assert not (tmp_path / "out").exists()


def test_it_runs_without_decoders_and_ray(shape, tmp_path):
    out = tmp_path / "out"
    script = [str(ROOT / "scripts" / "bench_gpu.py"), *command(shape, out, "--methods", "divprune")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *script], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert {r["status"] for r in rows(out)} == {"measured"}
