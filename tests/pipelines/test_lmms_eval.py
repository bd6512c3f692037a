"""The adapter for lmms-eval: grouping and cutting always, its own interface where it is installed."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.lmms_eval_requests import Request, answer_requests
from videoprune.engine import Engine
from videoprune.types import Sample
from videoprune.video import Sampling, read


@pytest.fixture(scope="module")
def engine(tiny: Path) -> Engine:
    return Engine(str(tiny), "balanced", device="cpu")


def video(clips: Path, number: int) -> str:
    return str(clips / "data" / f"moving_shapes_{number:03d}.mp4")


def test_answers_come_in_order_and_videos_are_encoded_once(engine: Engine, clips: Path) -> None:
    asked = [Request(f"What {i}?", {"max_new_tokens": 3}, [video(clips, 1 + i % 2)]) for i in range(5)]
    seen: list[str] = []

    def encode(frames: Any) -> Any:
        seen.append(frames[0].path)
        return engine.encode(frames)

    spy: Any = SimpleNamespace(encode=encode, answer=engine.answer, frame_size=engine.frame_size)
    texts = answer_requests(spy, asked, frames=4, batch=2)
    assert seen == [video(clips, 1), video(clips, 2)]
    for request, text in zip(asked, texts, strict=True):
        frames = read(request.visuals[0], Sampling(max_frames=4), size=engine.frame_size)
        encoded = engine.encode([frames])
        (alone,) = engine.answer(encoded, [Sample("q", "", "", prompt=request.context)], max_new_tokens=3)
        assert text == alone.text


def test_a_broken_video_gives_an_empty_text_and_its_reason(
    engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        texts = answer_requests(engine, [Request("?", {}, [str(tmp_path / "no.mp4")])], frames=4)
    assert texts == [""]
    assert "1 questions are not answered: missing" in caplog.text


def test_stop_words_and_refusals(engine: Engine) -> None:
    assert Request("", {"until": ["\n\n", "ASSISTANT:"]}, []).cut("yes ASSISTANT: no\n\nx") == "yes"
    assert Request("", {"until": "."}, []).cut("a. b") == "a"
    with pytest.raises(ValueError, match="do_sample=True"):
        answer_requests(engine, [Request("?", {"do_sample": True}, ["x"])], frames=4)
    with pytest.raises(ValueError, match="visuals="):
        answer_requests(engine, [Request("?", {}, ["x", "y"])], frames=4)


def test_its_own_interface(tiny: Path, clips: Path) -> None:
    pytest.importorskip("lmms_eval.api.model")
    from lmms_eval.api.instance import Instance
    from lmms_eval.api.model import lmms
    from lmms_eval.models.registry_v2 import ModelRegistryV2

    from pipelines.lmms_eval_adapter import Videoprune, manifest

    registry = ModelRegistryV2()
    registry.register_manifest(manifest())
    found = registry.get_model_class("videoprune")
    assert issubclass(found, lmms)
    model: Any = found.create_from_arg_string(
        f"pretrained={tiny},prune=none,frames=2", {"batch_size": 2, "max_batch_size": None, "device": "cpu"}
    )
    assert isinstance(model, Videoprune)
    assert model.frames == 2
    model.task_dict = {"videomme": {"test": [{"path": video(clips, n)} for n in (1, 2)]}}

    def request(i: int) -> Instance:
        arguments = (f"What {i}?", {"max_new_tokens": 2}, lambda d: [d["path"]], i % 2, "videomme", "test")
        meta = {"task": "videomme", "doc_id": i, "repeats": 1}
        return Instance("generate_until", arguments, 0, meta)

    texts = model.generate_until([request(i) for i in range(4)])
    assert len(texts) == 4
    assert all(isinstance(t, str) for t in texts)
    with pytest.raises(ValueError, match="model_args: conv_template; allowed: pretrained, prune"):
        found.create_from_arg_string(f"pretrained={tiny},conv_template=x", {"device": "cpu"})
    with pytest.raises(NotImplementedError):
        model.loglikelihood([])
