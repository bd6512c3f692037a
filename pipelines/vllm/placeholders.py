"""How many places of a prompt a clip takes, told before any pixel is encoded: laid over vLLM's processors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from vllm.multimodal.processing import (
    BaseMultiModalProcessor,
    PromptReplacement,
    PromptUpdate,
    PromptUpdateDetails,
)

from pipelines.vllm.settings import ATTRIBUTE
from videoprune.config import PruneConfig
from videoprune.cost.shapes import VisionShape
from videoprune.models.shapes import model_shape
from videoprune.plug.settings import Settings
from videoprune.prune.counts import kept_units, removals, retained_count
from videoprune.prune.kinds import Depth


class CountedVideos(BaseMultiModalProcessor[Any]):
    """Goes before vLLM's processor of a family. pools: its tokens are chosen behind a pooling. extra: visual tokens of
    a clip that are of no frame."""

    pools = False
    extra = 0

    @property
    def prune(self) -> PruneConfig:
        return serving(self.info.ctx.model_config.hf_config)

    def frames_of(self, clip: Any) -> int:
        """Frames of the encoder of a clip, by the fields that vLLM made of it."""
        raise NotImplementedError

    def _get_prompt_updates(
        self, mm_items: Any, hf_processor_mm_kwargs: Mapping[str, Any], out_mm_kwargs: Any
    ) -> Sequence[PromptUpdate]:
        """vLLM's, but a clip takes as many places as it has tokens left, beside the text between its frames.

        All are the video token: which of them will be text is not known yet, and all get embeddings from the encoder.
        """
        updates = super()._get_prompt_updates(mm_items, hf_processor_mm_kwargs, out_mm_kwargs)
        video = self.info.get_hf_config().video_token_id

        def shortened(dense: PromptReplacement) -> PromptReplacement:
            def places(index: int) -> list[int]:
                clip, whole = out_mm_kwargs["video"][index], _full(dense.replacement, index)
                _check_pixels(clip)
                visual, frames = whole.count(video), self.frames_of(clip)
                units = (visual - self.extra) // frames
                self._check_schedule(units)
                left = retained_count(self.prune, frames, units, pools=self.pools) + self.extra
                return [video] * (len(whole) - visual + left)

            return replace(dense, replacement=places)

        return [
            shortened(u) if u.modality == "video" and isinstance(u, PromptReplacement) else u for u in updates
        ]

    def _check_schedule(self, units: int) -> None:
        """Raises ValueError if a frame of so many units is too small for the merges that are wanted: here it is the
        request that fails, in the encoder it would be vLLM."""
        vision, settings = self._vision, Settings(self.prune)
        inside = vision.dense if self.pools else units
        removals(
            self.prune.encoder,
            Depth(vision.used_blocks, inside, kept_units(inside, settings.keep), vision.prefix),
        )

    @cached_property
    def _vision(self) -> VisionShape:
        (found,) = model_shape(self.info.get_hf_config()).encoders
        assert isinstance(found, VisionShape)
        return found

    def _get_mm_hashes(self, inputs: Any) -> dict[str, list[str]]:
        """A clip that was pruned otherwise is another one, wherever it is kept."""
        hashes = dict(super()._get_mm_hashes(inputs))
        if "video" in hashes:
            hashes["video"] = [f"{h}-{self.prune.digest()}" for h in hashes["video"]]
        return hashes


def serving(model_config: Any) -> PruneConfig:
    """What the plug-in wrote into the model's configuration."""
    return PruneConfig.from_dict(getattr(model_config, ATTRIBUTE))


def _full(content: Any, index: int) -> Sequence[int]:
    """The ids that vLLM would put into the prompt."""
    found = content(index) if callable(content) else content
    return found.full if isinstance(found, PromptUpdateDetails) else found


def _check_pixels(clip: Any) -> None:
    """Raises ValueError for a video that was encoded elsewhere."""
    if "video_embeds" in clip:
        raise ValueError("video_embeds; allowed with videoprune inside vLLM: videos as frames or files")
