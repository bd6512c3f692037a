"""`videoprune show`: what it draws is what the model computed on."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch

from pipelines.cli import main
from pipelines.show import pictures, survivors
from videoprune.config import PruneConfig
from videoprune.engine import Engine
from videoprune.plug.llm_pass import PrunedRun
from videoprune.video import Reader, Sampling

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


@pytest.fixture(scope="module")
def video(clips: Path) -> Path:
    return clips / "data" / "moving_shapes_001.mp4"


@pytest.mark.parametrize("name", CONFIGS)
def test_marks_are_the_tokens_of_the_trace(tiny: Path, video: Path, name: str) -> None:
    engine = Engine(str(tiny), PruneConfig.from_dict(CONFIGS[name]))
    with Reader() as reader:
        frames = reader.read(video, Sampling(max_frames=3), size=engine.frame_size)
    found = survivors(engine, frames, "Why?")
    tokens, _ = engine.encode([frames])
    trace = engine.answer(tokens, ["Why?"])[0].trace
    for e, encoder in enumerate(found.encoders):
        at_end = found.stages["encoder"][e]
        assert int(at_end.sum()) == trace.encoder[encoder][1]
        owner = found.owner[e]
        assert owner.shape == at_end.shape == (3, found.grids[e][0] * found.grids[e][1])
        for t in range(3):
            assert set(owner[t][owner[t] >= 0]) == set(np.flatnonzero(at_end[t]))
            assert all(owner[t][p] == p for p in np.flatnonzero(at_end[t]))
        assert (found.stages["fused"][e] <= at_end).all()
        assert (found.stages["llm"][e] <= found.stages["fused"][e]).all()
    assert sum(int(m.sum()) for m in found.stages["fused"]) == trace.fused
    assert sum(int(m.sum()) for m in found.stages["llm"]) == trace.llm_layers[-1]
    if name == "evoprune":
        assert any((owner != np.arange(owner.shape[1])).any() for owner in found.owner)
        assert trace.llm_layers[-1] < trace.fused
    drawn = list(pictures(frames, found))
    assert len(drawn) == 3
    assert len({p.shape for p in drawn}) == 1


def test_last_places_of_a_padded_batch(tiny: Path, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are what the layer's own order says, without the padding in front; nothing is noted unasked."""
    engine = Engine(str(tiny), PruneConfig.from_dict(CONFIGS["evoprune"]))
    with Reader() as reader:
        read = [reader.read(video, Sampling(max_frames=n), size=engine.frame_size) for n in (2, 4)]
    tokens, _ = engine.encode(read)
    seen = {}
    before = PrunedRun.before_layer

    def noted(self, index, module, args, kwargs):
        out = before(self, index, module, args, kwargs)
        if index == self.num_layers - 1 and not seen:
            seen["rows"] = [
                order[there].tolist() for order, there in zip(self.order, self.visual, strict=True)
            ]
        return out

    first = []
    start = PrunedRun.__init__

    def begun(self, config, visual_mask, *args, **kwargs):
        first.extend(row.int().argmax().item() for row in visual_mask)
        start(self, config, visual_mask, *args, **kwargs)

    monkeypatch.setattr(PrunedRun, "before_layer", noted)
    monkeypatch.setattr(PrunedRun, "__init__", begun)
    places: list[list[int]] = []
    with_places = engine.answer(tokens, ["Why?", "How many are there?"], last_places=places)
    assert first[0] > first[1] == 0
    assert places == [[p - low for p in row] for row, low in zip(seen["rows"], first, strict=True)]
    assert [a.text for a in engine.answer(tokens, ["Why?", "How many are there?"])] == [
        a.text for a in with_places
    ]
    assert torch.tensor(places[0]).max() < int(tokens.mask[0].sum())


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
