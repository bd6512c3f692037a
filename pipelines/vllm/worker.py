"""A process with one vLLM in it, which answers what it is asked on its standard input.

`python -m pipelines.vllm.worker`: a line of JSON is a request, a line of JSON its answer; the first line is a `Spec`.
What anybody prints goes to the standard error. It ends when its input does, so it outlives nobody. Between requests it
waits and computes nothing.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from pipelines.vllm.bare_clips import LEFT_OUT, BareClips
from pipelines.vllm.in_flight import serve
from pipelines.vllm.prompts import clip_trace
from pipelines.vllm.random_folder import random_folder
from pipelines.vllm.stage import ONE_VIDEO, VllmStage, seen_size
from videoprune.config import PruneConfig
from videoprune.models.loading import RANDOM, demo_names, model_config, place_of
from videoprune.types import Trace, VideoFrames

ERROR, READY = "error", "ready"
_TEXT = 512  # tokens of a prompt beside the clip, with room left
_WIDE = 32  # of a head that vLLM takes on a CPU
_BYTES = {"bfloat16": 2, "float16": 2}  # of a number, others have 4
_MOST = 0.9  # of a GPU's memory


@dataclass(frozen=True)
class Spec:
    """What a worker loads. prune: what the plug-in does. own: vLLM's name of a method of its own, "" for none, which
    keeps as many tokens as `prune` would. clip: frames, height and width of one. most: requests in flight. gpu: part of
    a GPU's memory. whole: answers are as long as `max_new_tokens`. folder: for files that vLLM loads."""

    model: str
    prune: dict[str, Any]
    own: str
    clip: tuple[int, int, int]
    most: int
    max_new_tokens: int
    folder: str
    gpu: float = 1.0
    whole: bool = False
    dtype: str | None = None


class Worker:
    """Raises what loading raises."""

    def __init__(self, spec: Spec) -> None:
        self.spec, prune = spec, PruneConfig.from_dict(spec.prune)
        place, options = self._model()
        clip = self._clip(place, prune)
        options |= self._options()
        if spec.own:  # it rounds down, so half a token is added to the share
            share = (clip.fused + 0.5) / clip.dense
            options |= {"video_pruning_method": spec.own, "video_pruning_rate": 1 - share}
        longest = clip.dense + 8 * spec.clip[0] + spec.max_new_tokens + _TEXT
        if spec.model not in demo_names():  # -1: as long as memory allows
            options["max_model_len"] = longest if spec.model.startswith(RANDOM) else -1
        self._make_room(place, longest, options.get("dtype"))
        used = PruneConfig() if spec.own else prune
        self.stage = VllmStage(
            place, used, batch=spec.most, max_new_tokens=spec.max_new_tokens, options=options
        )
        self.stage.setup()
        self.left_out = 0
        if spec.own:
            self._switch_on()
        if spec.own and self.stage.config.model_type == "qwen3_vl":
            whole = self.stage.prompts
            self.stage.prompts = bare = BareClips(whole, self.stage.config)
            ids = whole(_black(spec.clip), "")["prompt_token_ids"]
            self.left_out = len(ids) - len(bare.bare(ids))

    def rate(self, asked: list[list[str]], in_flight: int) -> dict[str, Any]:
        """Seconds for all questions; frames are read before, prompts are made while it runs."""
        from vllm import SamplingParams

        sampling = SamplingParams(
            temperature=0.0, max_tokens=self.spec.max_new_tokens, ignore_eos=self.spec.whole
        )
        clips = [(_frames(path), text) for path, text in asked]
        prompts = [partial(self.stage.prompts, frames, text) for frames, text in clips]
        dense = fmean(self.stage.trace(frames).dense for frames, _ in clips)
        served = serve(self.stage.llm, prompts, sampling, in_flight)
        return asdict(served) | {"dense": dense, LEFT_OUT: self.left_out}

    def answers(self, asked: list[list[str]]) -> dict[str, Any]:
        """A `Said` for every question, or the Failure why there is none."""
        said = self.stage.said([(_frames(path), text) for path, text in asked])
        return {"answers": [asdict(one) for one in said]}

    def _model(self) -> tuple[str, dict[str, Any]]:
        """What vLLM loads, and how."""
        name, dtype = self.spec.model, self.spec.dtype
        options: dict[str, Any] = {"dtype": dtype} if dtype else {}
        if name.startswith(RANDOM):
            place = str(random_folder(name.removeprefix(RANDOM), Path(self.spec.folder)))
            return place, {"load_format": "dummy", "dtype": "bfloat16", **options}
        return name, options

    def _options(self) -> dict[str, Any]:
        """Every request has to encode its clip: nothing is kept from one to the next."""
        from vllm.platforms import current_platform

        return {
            "enable_prefix_caching": False,
            "mm_processor_cache_gb": 0,
            "max_num_seqs": self.spec.most,
            "enforce_eager": current_platform.is_cpu(),
            "gpu_memory_utilization": _MOST * self.spec.gpu,
        }

    def _clip(self, place: str, prune: PruneConfig) -> Trace:
        """Visual tokens of a clip as large as that of the Spec."""
        from vllm.engine.arg_utils import EngineArgs

        loaded = EngineArgs(place_of(place), limit_mm_per_prompt=ONE_VIDEO).create_model_config()
        return clip_trace(model_config(place), prune, self.spec.clip[0], seen_size(loaded, *self.spec.clip))

    def _make_room(self, place: str, longest: int, dtype: str | None) -> None:
        """On a CPU vLLM's cache of keys and values would take most of the memory, as if it were alone: as much as all
        requests in flight need is enough. What the environment says already stands."""
        text = model_config(place).get_text_config()
        head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        token = 2 * text.num_hidden_layers * text.num_key_value_heads * max(head, _WIDE)
        token *= _BYTES.get(dtype or "", 4)
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(-(-token * longest * self.spec.most // 2**30)))

    def _switch_on(self) -> None:
        """On a CPU vLLM 0.32 leaves its own pruning off, whatever it is told."""
        from vllm.platforms import current_platform

        if current_platform.is_cpu():
            self.stage.llm.collective_rpc(
                lambda worker: setattr(worker.model_runner, "is_multimodal_pruning_enabled", True)
            )


def _black(clip: tuple[int, int, int]) -> VideoFrames:
    pixels = torch.zeros(*clip, 3, dtype=torch.uint8)
    return VideoFrames(pixels, tuple(map(float, range(clip[0]))), float(clip[0]), "", "none")


def _frames(path: str) -> VideoFrames:
    """What the process that asks has written."""
    found = pickle.loads(Path(path).read_bytes())
    assert isinstance(found, VideoFrames)
    return found


def main() -> int:
    """Status 1 after an error, which is the last line."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def tell(reply: dict[str, Any]) -> None:
        print(json.dumps(reply), file=replies, flush=True)

    try:
        spec = json.loads(sys.stdin.readline())
        worker = Worker(Spec(**spec | {"clip": tuple(spec["clip"])}))
        tell({READY: True})
        for line in sys.stdin:
            request = json.loads(line)
            what: Callable[..., dict[str, Any]] = getattr(worker, request.pop("what"))
            tell(what(**request))
    except Exception as error:
        traceback.print_exc()  # first: who reads the reply may read the log at once
        tell({ERROR: f"{type(error).__name__}: {error}"})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
