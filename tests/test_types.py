"""The values that travel between the stages check themselves."""

from __future__ import annotations

import pytest
import torch

from videoprune.types import KeepPlan, Outcome, Sample, Trace, VideoFrames, VisualTokens


def frames(**changes) -> VideoFrames:
    values = {
        "pixels": torch.zeros(2, 4, 4, 3, dtype=torch.uint8),
        "pts_seconds": (0.5, 1.0),
        "duration_seconds": 1.5,
        "path": "clip.mp4",
        "backend": "decord",
    }
    return VideoFrames(**(values | changes))


def tokens(**changes) -> VisualTokens:
    values = {
        "x": torch.zeros(1, 3, 8),
        "size": torch.ones(1, 3),
        "origin": torch.zeros(1, 3, 3, dtype=torch.int64),
        "encoder": torch.zeros(1, 3, dtype=torch.int64),
        "encoder_names": ("siglip",),
        "grids": ((7, 7),),
        "pts_seconds": torch.zeros(1, 1),
        "mask": torch.ones(1, 3, dtype=torch.bool),
    }
    return VisualTokens(**(values | changes))


def test_good_values_pass() -> None:
    assert len(frames()) == 2
    assert tokens().num_tokens == 3


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: frames(pixels=torch.zeros(2, 4, 4, 3)), "pixels: torch.float32"),
        (lambda: frames(pixels=torch.zeros(2, 3, 4, 4, dtype=torch.uint8)), r"allowed: uint8 \(T, H, W, 3\)"),
        (lambda: frames(pts_seconds=(0.0,)), "1 times for 2 frames"),
        (lambda: frames(pts_seconds=(1.0, 1.0)), "strictly ascending"),
        (lambda: tokens(size=torch.ones(1, 2)), r"size: shape \(1, 2\); allowed: \(1, 3\)"),
        (lambda: tokens(origin=torch.zeros(1, 3, 2)), r"origin: shape \(1, 3, 2\)"),
        (lambda: tokens(grids=()), "grids: 0 for 1 encoders"),
        (lambda: KeepPlan(torch.zeros(2), torch.zeros(2, 2)), "keep"),
        (
            lambda: KeepPlan(torch.zeros(1, 2), torch.zeros(1, 3), torch.zeros(1, 2)),
            r"weight \(1, 2\); allowed: \(1, 3\)",
        ),
        (
            lambda: KeepPlan(torch.zeros(1, 2), torch.zeros(1, 3), None, (torch.zeros(1),) * 3),
            "allowed: three of one length, beside weight",
        ),
        (lambda: Outcome("lost"), "kind='lost'; allowed: complete, truncated, failed"),  # type: ignore[arg-type]
        (lambda: Outcome("failed"), "must say why"),
        (lambda: Sample("", "clip.mp4", "Why?"), "question_id=''"),
        (lambda: Sample("1", "clip.mp4", "Why?", ("one",)), "at least two"),
    ],
)
def test_bad_values_are_refused(make, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


def test_retention_is_the_average_over_the_layers_over_the_dense_count() -> None:
    trace = Trace(dense=1000, encoder={"siglip": (1000, 500)}, fused=400, llm_layers=(400, 400, 200, 100))
    assert trace.llm_average == 275
    assert trace.retention == 0.275
    assert Trace(dense=1000, encoder={}, fused=400).retention == 0.4
    assert trace.as_dict()["encoder"] == {"siglip": [1000, 500]}
