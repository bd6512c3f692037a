"""The model's part of a run, answered by vLLM: frames in, the same rows out as from `run.model_stage.ModelStage`."""

from __future__ import annotations

import copy
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.run.lost_device import LostDeviceError
from pipelines.run.rows import answered_row, failed_rows
from pipelines.run.stages import ClipItem, DecodedClip, Failure, with_subtitles
from pipelines.vllm.bare_clips import Make
from pipelines.vllm.dead_engine import wake_up_when_dead
from pipelines.vllm.ends_with_parent import VARIABLE as END_WITH_PARENT
from pipelines.vllm.padded_heads import pad_heads
from pipelines.vllm.plugin import PREFIX
from pipelines.vllm.prompts import Prompts, clip_trace
from pipelines.vllm.settings import KEY, serving_settings
from videoprune.choice import answer_of
from videoprune.config import PruneConfig
from videoprune.models.loading import demo_names, model_config, model_folder, place_of
from videoprune.neighbours import neighbours
from videoprune.prompts import prompt
from videoprune.result_row import ResultRow
from videoprune.types import Answer, Sample, Trace, VideoFrames

if TYPE_CHECKING:
    from vllm import LLM

KINDS = ("llava_onevision", "qwen2_5_vl", "qwen3_vl")
ONE_VIDEO = {"image": 0, "video": 1}  # in a prompt
_CPU_HEADS = 32  # the narrowest that vLLM's attention on a CPU takes
_GPU_SHARE = 0.9  # of the memory that is a model's, about what vLLM takes by itself
# In a Ray actor. On a CPU vLLM binds its threads to all cores of a NUMA node and takes nearly all of its memory, as if
# it were alone: beside other actors it must do neither. Without binding it has as many threads as `OMP_NUM_THREADS`
# says, which Ray sets to the actor's cores. What the environment says already stands.
_IN_ACTOR = {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "4",  # GiB, which are taken at once
    END_WITH_PARENT: "1",
}


def version() -> str:
    """Of the vLLM that is installed. Raises ValueError where there is none."""
    try:
        import vllm
    except ImportError as error:
        raise ValueError(f"engine='vllm': {error}; docs/vllm.md says how it is installed") from error
    return str(vllm.__version__)


def check(model: str, prune: PruneConfig) -> None:
    """Raises ValueError for a model that cannot be pruned inside vLLM, and for a configuration that cannot."""
    serving_settings(prune.as_dict(), check_kind(model))


def check_kind(model: str) -> Any:
    """The configuration of a model that can be pruned inside vLLM. Raises ValueError for another."""
    config = model_config(model)
    if config.model_type not in KINDS:
        raise ValueError(
            f"model={model!r}: model_type={config.model_type!r}; allowed inside vLLM: {', '.join(KINDS)}"
        )
    return config


@dataclass(frozen=True)
class Said:
    """prompt_tokens: of the whole prompt, what is left of the clip among them."""

    text: str
    prompt_tokens: int


class VllmStage:
    """batch: questions that are given to vLLM together, which decides itself what it computes at once. options: more of
    vLLM's own. Seconds of a question are those of its group, shared evenly: vLLM's stages overlap, so they are one.

    A question that vLLM does not take is a failed row. LostDeviceError: its engine is gone, or failed at computing,
    after which nothing is known of what it holds."""

    device: str | None = None  # what vLLM was built for

    def __init__(
        self,
        model: str,
        prune: PruneConfig,
        *,
        batch: int,
        max_new_tokens: int = 16,
        options: dict[str, Any] | None = None,
    ) -> None:
        self.model, self.prune, self.batch, self.max_new_tokens = model, prune, batch, max_new_tokens
        self.options = options or {}
        self._environment: dict[str, str] = {}
        self._llm: LLM | None = None

    def in_actor(self, gpus: float) -> VllmStage:
        """As it is for a Ray actor with so many GPUs, or part of one: others may be on the machine."""
        found = copy.copy(self)
        found._environment = _IN_ACTOR
        if 0 < gpus < 1:
            found.options = {"gpu_memory_utilization": _GPU_SHARE * gpus, **self.options}
        return found

    def setup(self) -> None:
        """Raises ValueError where vLLM cannot do what is asked."""
        for name, value in self._environment.items():  # before vLLM is imported
            os.environ.setdefault(name, value)
        from vllm import LLM
        from vllm.platforms import current_platform

        on_cpu = current_platform.is_cpu()
        self.config = model_config(self.model)
        # An actor may be killed at any time: a folder that is needed no more behind `setup` is not left there.
        with tempfile.TemporaryDirectory(prefix="videoprune-") as folder:
            place = self._place(on_cpu, Path(folder))
            self.prompts: Make = Prompts(place, self.config)
            options: dict[str, Any] = {
                "additional_config": {KEY: {"prune": self.prune.as_dict()}},
                "limit_mm_per_prompt": ONE_VIDEO,
                "dtype": "float32" if on_cpu else "auto",  # as `Engine` has it
            }
            self._llm = LLM(place, **options | self.options)
            wake_up_when_dead(self._llm)
            self._check_plugin()

    def groups(self, items: Iterable[ClipItem]) -> Iterator[list[ClipItem]]:
        """Items that go through a run together: neighbours with no more than `batch` questions, or one with more."""
        return neighbours(
            items, lambda group, item: sum(len(i.samples) for i in (*group, item)) <= self.batch
        )

    def process_all(self, clips: Sequence[DecodedClip]) -> list[list[ResultRow]]:
        """The rows of each clip. Where a group raises, its questions are asked one by one."""
        asked = [
            (i, sample, clip.frames)
            for i, clip in enumerate(clips)
            if not isinstance(clip.frames, Failure)
            for sample in with_subtitles(clip).samples
        ]
        rows: list[list[ResultRow]] = [
            failed_rows(c.item, c.frames, {"decode": c.seconds}) if isinstance(c.frames, Failure) else []
            for c in clips
        ]
        began = time.perf_counter()
        answers = self._answers([(sample, frames) for _, sample, frames in asked])
        each = (time.perf_counter() - began) / max(1, len(asked))
        for (i, sample, frames), answer in zip(asked, answers, strict=True):
            decode = {"decode": round(clips[i].seconds / len(clips[i].item.samples), 6)}
            if isinstance(answer, Failure):
                rows[i] += failed_rows(ClipItem(sample.video, (sample,)), answer, decode)
            else:
                answer.trace.seconds["llm"] = each
                rows[i].append(answered_row(sample, answer, frames, decode))
        return rows

    def close(self) -> None:
        self._llm = None

    def said(self, asked: Sequence[tuple[VideoFrames, str]]) -> list[Said | Failure]:
        """What vLLM says to questions about clips, which it is given together. Raises LostDeviceError."""
        from vllm import SamplingParams
        from vllm.v1.engine.exceptions import EngineDeadError

        sampling = SamplingParams(temperature=0.0, max_tokens=self.max_new_tokens)
        try:
            given: Any = [self.prompts(frames, text) for frames, text in asked]
            self.llm.enqueue(given, sampling, use_tqdm=False)
        except EngineDeadError as error:
            raise _lost(error) from error
        except Exception as error:
            if len(asked) == 1:
                return [Failure.of(error)]
            return [said for one in asked for said in self.said([one])]
        try:
            done: Any = self.llm.wait_for_completion(use_tqdm=False)
        except Exception as error:
            raise _lost(error) from error
        return [Said(out.outputs[0].text, len(out.prompt_token_ids)) for out in done]

    def trace(self, frames: VideoFrames) -> Trace:
        """Visual tokens of a clip, by stage."""
        height, width = frames.pixels.shape[1:3]
        size = seen_size(self.llm.model_config, len(frames), height, width)
        return clip_trace(self.config, self.prune, len(frames), size)

    @property
    def llm(self) -> LLM:
        assert self._llm is not None, "setup() comes first"
        return self._llm

    def _answers(self, asked: Sequence[tuple[Sample, VideoFrames]]) -> list[Answer | Failure]:
        said = self.said([(frames, prompt(sample)) for sample, frames in asked])
        return [
            one if isinstance(one, Failure) else answer_of(one.text, s, self.trace(f))
            for (s, f), one in zip(asked, said, strict=True)
        ]

    def _place(self, on_cpu: bool, folder: Path) -> str:
        """What vLLM loads. The demo models' heads are too narrow for it on a CPU, so a copy gets wider ones."""
        if not on_cpu or self.model not in demo_names():
            return place_of(self.model)
        return str(pad_heads(model_folder(self.model), folder, _CPU_HEADS))

    def _check_plugin(self) -> None:
        """Raises ValueError if vLLM has not loaded the plug-in: it would prune nothing, and not say so."""
        (name, *_) = self.llm.model_config.hf_config.architectures
        if serving_settings(self.prune.as_dict(), self.config).drops and not name.startswith(PREFIX):
            raise ValueError(
                f"engine='vllm': {name} is not pruned here, the plug-in was not loaded; allowed: where videoprune is "
                "installed by pip, and VLLM_PLUGINS names it if it is set"
            )


def _lost(error: Exception) -> LostDeviceError:
    return LostDeviceError(f"{type(error).__name__}: {error}")


def seen_size(model_config: Any, frames: int, height: int, width: int) -> tuple[int, int]:
    """Height and width to which a model's processor resizes a clip's frames. model_config: vLLM's."""
    from vllm.multimodal import MULTIMODAL_REGISTRY

    info: Any = MULTIMODAL_REGISTRY.get_processing_info(model_config)
    if not hasattr(info, "_get_vision_info"):  # one size for all
        return height, width
    size, _ = info._get_vision_info(
        image_width=width,
        image_height=height,
        num_frames=frames,
        image_processor=info.get_video_processor(),
        mm_kwargs={},
    )
    return size.height, size.width
