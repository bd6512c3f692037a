"""lmms-eval's `--model videoprune`: its tasks, prompts and scores, this project's models and pruning.

    lmms-eval --model videoprune --model_args pretrained=demo,prune=balanced --tasks videomme

lmms-eval finds it by the entry point `lmms_eval.models` once `videoprune[lmms-eval]` is installed. Only
lmms-eval imports this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest

from pipelines.configuring import load_prune
from pipelines.lmms_eval_requests import Request, answer_requests
from videoprune.engine import Engine


def manifest() -> ModelManifest:
    """What lmms-eval's registry asks a plug-in for."""
    return ModelManifest(model_id="videoprune", simple_class_path=f"{__name__}.Videoprune")


class Videoprune(lmms):
    """pretrained: demo, a model's folder or a hub name. prune: a preset or a YAML file. frames: per video
    (None: as many as the model is best given). batch_size: questions about one video in one call.

    One process. Raises ValueError for arguments that are none of these.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str = "demo",
        prune: str = "balanced",
        frames: int | None = None,
        device: str | None = None,
        batch_size: int | str = 8,
        **other: Any,
    ) -> None:
        super().__init__()
        strange = sorted(other.keys() - {"max_batch_size"})  # lmms-eval hands that one to every model
        if strange:
            raise ValueError(
                f"model_args: {', '.join(strange)}; allowed: pretrained, prune, frames, device, batch_size"
            )
        self.engine = Engine(pretrained, load_prune(str(prune)), device=device)
        self.frames = int(frames) if frames is not None else self.engine.num_frames
        self.batch = int(batch_size)

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """A text per request, in their order. Each video is decoded and encoded once for all its questions."""
        plain = [self._plain(request) for request in requests]
        texts = answer_requests(self.engine, plain, frames=self.frames, batch=self.batch)
        for request, text in zip(requests, texts, strict=True):
            self.cache_hook.add_partial("generate_until", request.args[:2], text)
        return texts

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        raise NotImplementedError("videoprune answers one round; tasks with several need another model")

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        raise NotImplementedError("videoprune generates; tasks that compare likelihoods need another model")

    def _plain(self, request: Instance) -> Request:
        context, options, to_visual, doc_id, task, split = request.args
        visuals = to_visual(self.task_dict[task][split][doc_id])
        return Request(context, dict(options), visuals if isinstance(visuals, list) else [visuals])
