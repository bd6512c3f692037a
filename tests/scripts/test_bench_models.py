"""scripts/bench_models.py on a CPU with a tiny shape."""

from __future__ import annotations

import json

import pytest

from pipelines.measure.memory import peak_above
from scripts import bench_models
from tests.scripts.test_bench_gpu import SHAPE

MORE = "balanced encoder.schedule=last"


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    (folder / "tiny.yaml").write_text(SHAPE)
    plain = ["--frames", "4", "--runs", "2", "--text", "8", "--dtype", "float32", "--device", "cpu"]
    out = folder / "new" / "out.json"
    prune = ["--prune", "balanced", MORE, "meteor"]
    bench_models.main([str(folder / "tiny.yaml"), *plain, *prune, "--out", str(out)])
    return json.loads(out.read_text())


def test_every_setting_is_a_row(done):
    rows = {r["variant"]: r for r in done["cells"]}
    assert list(rows) == ["stock", "none", "balanced", MORE, "meteor"]
    assert rows["meteor"]["reason"].startswith("ValueError: encoder.method='meteor'; allowed")
    for name in ("stock", "none", "balanced", MORE):
        assert rows[name]["runs"] == 2
        assert rows[name]["speedup"]["median"] > 0
        assert (rows[name]["peak_bytes"] is None) == (peak_above(lambda: None, "cpu") is None)
    kernels, waits = ({n: rows[n][k] for n in rows if k in rows[n]} for k in ("kernels", "waits"))
    assert 0 < kernels["none"] < kernels["balanced"]
    assert 0 <= waits["none"] < waits["balanced"]
    assert rows["none"]["flop_ideal"] == 1 < rows["balanced"]["flop_ideal"]
    assert rows["none"]["bound_ideal"] == 1 < rows["balanced"]["bound_ideal"]
    assert rows["none"]["bound_seconds"] > rows["balanced"]["bound_seconds"] > 0
    share = rows["balanced"]["speedup"]["median"] / rows["balanced"]["bound_ideal"]
    assert rows["balanced"]["share_of_bound"] == share
    assert rows["balanced"]["visual_by_layer"] < rows["none"]["visual_by_layer"]


def test_several_lengths_of_clips_timed_alone(tmp_path):
    (tmp_path / "tiny.yaml").write_text(SHAPE)
    out = tmp_path / "out.json"
    plain = ["--runs", "1", "--warmup", "0", "--text", "8", "--dtype", "float32", "--device", "cpu"]
    fast = ["--frames", "6", "2", "--times-only", "--no-stock", "--out", str(out)]
    bench_models.main([str(tmp_path / "tiny.yaml"), *plain, *fast])
    rows = json.loads(out.read_text())["cells"]
    assert [(r["frames"], r["variant"]) for r in rows] == [
        (2, "none"),
        (2, "balanced"),
        (6, "none"),
        (6, "balanced"),
    ]
    assert all(r["runs"] == 1 and r["peak_bytes"] is r["kernels"] is None for r in rows)
    assert rows[2]["prompt"] > rows[0]["prompt"]


def test_mistakes_are_named_before_the_model_is_made(monkeypatch):
    monkeypatch.setattr(bench_models, "LoadedModel", None)
    with pytest.raises(ValueError, match="prune='fast'"):
        bench_models.main(["llava-onevision-7b", "--prune", "fast"])
    with pytest.raises(ValueError, match=r"llm\.kep: unknown key"):
        bench_models.main(["llava-onevision-7b", "--prune", "balanced llm.kep=1"])
