"""The model's part of a run, answered by vLLM: frames in, the same rows out as from `run.model_stage.ModelStage`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.run.lost_device import LostDeviceError
from pipelines.run.rows import answered_row, failed_rows
from pipelines.run.stages import ClipItem, DecodedClip, Failure, with_subtitles
from pipelines.vllm.padded_heads import pad_heads
from pipelines.vllm.prompts import Prompts, clip_trace
from pipelines.vllm.settings import KEY, serving_settings
from videoprune.choice import parse_choice
from videoprune.config import PruneConfig
from videoprune.models.loading import demo_names, model_config, model_folder, place_of
from videoprune.neighbours import neighbours
from videoprune.prompts import prompt
from videoprune.result_row import ResultRow
from videoprune.types import Answer, Sample, Trace, VideoFrames

if TYPE_CHECKING:
    from vllm import LLM

KINDS = ("llava_onevision", "qwen2_5_vl", "qwen3_vl")
_CPU_HEADS = 32  # the narrowest that vLLM's attention on a CPU takes


def version() -> str:
    """Of the vLLM that is installed. Raises ValueError where there is none."""
    try:
        import vllm
    except ImportError as error:
        raise ValueError(f"engine='vllm': {error}; docs/vllm.md says how it is installed") from error
    return str(vllm.__version__)


def check(model: str, prune: PruneConfig) -> None:
    """Raises ValueError for a model that cannot be pruned inside vLLM, and for a configuration that cannot."""
    config = model_config(model)
    if config.model_type not in KINDS:
        raise ValueError(
            f"model={model!r}: model_type={config.model_type!r}; allowed inside vLLM: {', '.join(KINDS)}"
        )
    serving_settings(prune.as_dict(), config)


class VllmStage:
    """batch: questions that are given to vLLM together, which decides itself what it computes at once. options: more of
    vLLM's own. Seconds of a question are those of its group, shared evenly: vLLM's stages overlap, so they are one."""

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
        self._llm: LLM | None = None
        self._padded: tempfile.TemporaryDirectory[str] | None = None

    def setup(self) -> None:
        """Raises ValueError where vLLM cannot do what is asked."""
        from vllm import LLM
        from vllm.platforms import current_platform

        on_cpu = current_platform.is_cpu()
        place = self._place(on_cpu)
        self.config = model_config(self.model)
        self.prompts = Prompts(place, self.config)
        self._llm = LLM(
            place,
            additional_config={KEY: {"prune": self.prune.as_dict()}},
            limit_mm_per_prompt={"image": 0, "video": 1},
            dtype="float32" if on_cpu else "auto",  # as `Engine` has it
            **self.options,
        )

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
        if self._padded is not None:
            self._padded.cleanup()

    def _answers(self, asked: Sequence[tuple[Sample, VideoFrames]]) -> list[Answer | Failure]:
        from vllm import SamplingParams
        from vllm.v1.engine.exceptions import EngineDeadError

        assert self._llm is not None, "setup() comes first"
        sampling = SamplingParams(temperature=0.0, max_tokens=self.max_new_tokens)
        try:
            given: Any = [self.prompts(frames, prompt(sample)) for sample, frames in asked]
            done = self._llm.generate(given, sampling, use_tqdm=False)
        except EngineDeadError as error:
            raise LostDeviceError(f"{type(error).__name__}: {error}") from error
        except Exception as error:
            if len(asked) == 1:
                return [Failure.of(error)]
            return [answer for one in asked for answer in self._answers([one])]
        return [self._answer(*one, out.outputs[0].text) for one, out in zip(asked, done, strict=True)]

    def _answer(self, sample: Sample, frames: VideoFrames, said: str) -> Answer:
        choice = parse_choice(said, len(sample.options), options=sample.options) if sample.options else ""
        return Answer(said.strip(), choice, self._trace(frames))

    def _trace(self, frames: VideoFrames) -> Trace:
        height, width = frames.pixels.shape[1:3]
        return clip_trace(self.config, self.prune, len(frames), self._seen(len(frames), height, width))

    def _seen(self, frames: int, height: int, width: int) -> tuple[int, int]:
        """Height and width to which the model's processor resizes frames."""
        from vllm.multimodal import MULTIMODAL_REGISTRY

        assert self._llm is not None
        info: Any = MULTIMODAL_REGISTRY.get_processing_info(self._llm.model_config)
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

    def _place(self, on_cpu: bool) -> str:
        """What vLLM loads. The demo models' heads are too narrow for it on a CPU, so a copy gets wider ones."""
        if not on_cpu or self.model not in demo_names():
            return place_of(self.model)
        self._padded = tempfile.TemporaryDirectory(prefix="videoprune-")
        return str(pad_heads(model_folder(self.model), Path(self._padded.name), _CPU_HEADS))
