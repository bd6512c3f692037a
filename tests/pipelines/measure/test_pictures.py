"""`videoprune show`: what it draws is what the model computed on."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from pipelines.cli import main
from pipelines.measure.pictures import pictures, stage_marks
from videoprune.config import PruneConfig
from videoprune.engine import Engine
from videoprune.video import Sampling, read

CONFIGS = {
    "none": {},
    "evoprune": {
        "encoder": {"method": "evoprune", "keep": 0.5},
        "fusion": {"method": "cooperative", "keep": 0.6},
        "llm": {"method": "fixed", "keep": 0.6},
    },
    "meteor": {
        "encoder": {"method": "meteor", "keep": 0.4},
        "llm": {"method": "adaptive", "lambda_": 20.0},
    },
}
ONE_ENCODER = {"encoder": {"method": "evoprune", "keep": 0.5}, "llm": {"method": "fixed", "keep": 0.7}}


@pytest.fixture(scope="module")
def video(clips: Path) -> Path:
    return clips / "data" / "moving_shapes_001.mp4"


@pytest.mark.parametrize("name", CONFIGS)
def test_marks_are_the_tokens_of_the_trace(tiny: Path, video: Path, name: str) -> None:
    engine = Engine(str(tiny), PruneConfig.from_dict(CONFIGS[name]), device="cpu")
    frames = read(video, Sampling(max_frames=3), size=engine.frame_size)
    trace = engine.answer(engine.encode([frames], survivors=True), ["Why?"])[0].trace
    stages = stage_marks(trace, 3)
    for encoder, found in trace.survivors.items():
        at_end, fused, last = (stages[stage][encoder] for stage in ("encoder", "fused", "llm"))
        assert int(at_end.sum()) == trace.encoder[encoder][1]
        owner = found.owner.numpy()
        assert owner.shape == at_end.shape == (3, found.grid[0] * found.grid[1])
        for t in range(3):
            assert set(owner[t][owner[t] >= 0]) == set(np.flatnonzero(at_end[t]))
        assert (fused <= at_end).all()
        assert (last <= fused).all()
    assert sum(int(m.sum()) for m in stages["fused"].values()) == trace.fused
    assert sum(int(m.sum()) for m in stages["llm"].values()) == trace.llm_layers[-1]
    if name == "evoprune":
        owners = [one.owner.numpy() for one in trace.survivors.values()]
        assert any((owner != np.arange(owner.shape[1])).any() for owner in owners)
        assert trace.llm_layers[-1] < trace.fused
    drawn = list(pictures(frames, trace))
    assert len(drawn) == 3
    assert len({p.shape for p in drawn}) == 1


@pytest.mark.parametrize(("model", "joined"), [("llava-demo", 1), ("qwen-demo", 2)])
@pytest.mark.parametrize("prune", [ONE_ENCODER, {}], ids=["pruned", "none"])
def test_marks_of_a_model_of_one_encoder(video: Path, model: str, joined: int, prune: dict) -> None:
    """joined: frames of the video that the encoder sees as one."""
    engine = Engine(model, PruneConfig.from_dict(prune), device="cpu")
    frames = read(video, Sampling(max_frames=4), size=engine.frame_size)
    trace = engine.answer(engine.encode([frames], survivors=True), ["Why?"])[0].trace
    stages = stage_marks(trace, 4)
    assert list(stages) == ["encoder", "llm"]
    ((_, fused),) = stages["encoder"].items()
    ((_, last),) = stages["llm"].items()
    newline = int(model == "llava-demo")  # a token that is of no frame
    assert int(fused.sum()) == joined * (trace.fused - newline)
    assert int(last.sum()) in {joined * (trace.llm_layers[-1] - n) for n in (0, newline)}
    assert np.array_equal(fused[::joined], fused[joined - 1 :: joined])
    assert len(list(pictures(frames, trace))) == 4
    assert fused.all() == (not prune)


def test_the_command_writes_a_video(
    tiny: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "overlay.mp4"
    words = ["encoder.keep=0.5", "llm.lambda_=30"]
    status = main(
        ["show", str(video), "--model", str(tiny), "--out", str(out), "--frames", "2", "--rate", "2", *words]
    )
    assert status == 0
    said = capsys.readouterr().out
    assert "encoder: siglip" in said
    assert str(out) in said
    with av.open(out) as container:
        shown = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    assert len(shown) == 20  # each for ten frames
    assert np.abs(shown[0].astype(int) - shown[-1]).mean() > 0.5


def test_mistakes_are_one_sentence(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(tmp_path / "none.mp4"), "--model", str(tiny), "llm.lambda_=3"]) == 2
    assert "none.mp4" in capsys.readouterr().err
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video" * 99)
    assert main(["show", str(broken), "--model", str(tiny), "llm.lambda_=3"]) == 1
    assert "broken.mp4" in capsys.readouterr().err
