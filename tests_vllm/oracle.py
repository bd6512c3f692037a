"""What vLLM must say: the same model in transformers, pruned by `videoprune.apply`'s hooks, a prompt at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor
from vllm import SamplingParams

from pipelines.vllm.prompts import Prompts
from videoprune.config import PruneConfig
from videoprune.engine import Engine
from videoprune.models.loading import model_config
from videoprune.models.processor_inputs import video_metadata
from videoprune.plug.apply import hooked, settings_for
from videoprune.plug.current_pass import Pass, passing
from videoprune.prompts import prompt
from videoprune.types import Sample, VideoFrames

_VIDEO = ("pixel_values_videos", "video_grid_thw")
_IMAGE = ("pixel_values", "image_grid_thw", "image_sizes")
_LATER = ("pixel_values", "pixel_values_videos")


def both_say(
    llm: Any, folder: str, name: str, prune: str, asked: Sequence[tuple[VideoFrames, Sequence[Sample]]]
) -> tuple[list[Any], list[str]]:
    """What vLLM answers to `asked`, and the texts of the demo model `name` in this project's engine.

    folder: of its copy for vLLM."""
    engine, prompts = Engine(name, prune, device="cpu"), Prompts(folder, model_config(folder))
    ours, theirs = [], []
    for frames, samples in asked:
        encoded = engine.encode([frames])
        theirs += [a.text for a in engine.answer(encoded, samples, max_new_tokens=8)]
        ours += [prompts(frames, prompt(s)) for s in samples]
    sampling = SamplingParams(temperature=0.0, max_tokens=8)
    return llm.generate(ours, sampling, use_tqdm=False), theirs


class Oracle:
    """Videos are pruned as `prune` says, images are not, which vLLM leaves as they are. None: nothing is."""

    def __init__(self, folder: str, prune: PruneConfig | None) -> None:
        self.model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
        self.model.generation_config.eos_token_id = None  # answers go on, as with ignore_eos
        self.processor = AutoProcessor.from_pretrained(folder)
        self.hooks = hooked(self.model)
        self.settings = settings_for(self.model, prune or PruneConfig())

    @torch.no_grad()
    def says(
        self,
        text: str,
        videos: Sequence[VideoFrames] = (),
        images: Sequence[Any] = (),
        *,
        tokens: int = 8,
    ) -> list[int]:
        """New ids, greedy. text: with a placeholder for each video and image."""
        made = self._inputs(text, videos, images)
        given, marked = {}, 0
        if images:  # without a pass of ours
            given["image"] = self.model.model.get_image_features(**_some(made, _IMAGE), return_dict=True)
        if videos:
            with passing(Pass(self.hooks, self.settings, clips=_frames(made, videos))) as call:
                given["video"] = self.model.model.get_video_features(**_some(made, _VIDEO), return_dict=True)
            marked = sum(run.marked for run in call.encoded)
        rest = {k: v for k, v in made.items() if k not in _LATER}
        with passing(Pass(self.hooks, self.settings, marked=marked)):
            ids = self.model.generate(
                **rest, mm_encoder_outputs=given or None, max_new_tokens=tokens, do_sample=False
            )
        found: list[int] = ids[0, made["input_ids"].shape[1] :].tolist()
        return found

    def _inputs(self, text: str, videos: Sequence[VideoFrames], images: Sequence[Any]) -> dict[str, Any]:
        more: dict[str, Any] = {}
        if videos:
            more["videos"] = [v.pixels.permute(0, 3, 1, 2) for v in videos]
            more["video_metadata"] = [video_metadata(v.pts_seconds, v.duration_seconds) for v in videos]
            more["do_sample_frames"] = False
        if images:
            more["images"] = list(images)
        return dict(self.processor(text=[text], return_tensors="pt", **more))


def request(
    tokenizer: Any, text: str, videos: Sequence[VideoFrames] = (), images: Sequence[Any] = ()
) -> dict[str, Any]:
    """The same prompt as `vllm.LLM.generate` takes it."""
    media: dict[str, Any] = {}
    if videos:
        media["video"] = [
            (
                v.pixels.numpy(),
                asdict(video_metadata(v.pts_seconds, v.duration_seconds)) | {"do_sample_frames": False},
            )
            for v in videos
        ]
    if images:
        media["image"] = list(images)
    return {"prompt_token_ids": tokenizer(text)["input_ids"], "multi_modal_data": media}


def _some(made: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: made[name] for name in names if name in made}


def _frames(made: dict[str, Any], videos: Sequence[VideoFrames]) -> list[int]:
    """Frames of the encoder of each clip."""
    grid = made.get("video_grid_thw")
    return [len(v) for v in videos] if grid is None else grid[:, 0].tolist()
