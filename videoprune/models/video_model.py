"""What the engine asks of a video language model, whatever it is made of: `VideoModel`, and `open_model`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import nn

from videoprune.config import PruneConfig
from videoprune.models.loading import RANDOM, model_config
from videoprune.models.multi_encoder_config import MultiEncoderConfig
from videoprune.models.watching import Watch
from videoprune.plug.settings import Settings
from videoprune.types import Encoded, Survivors, TimeStep, Trace, VideoFrames


class VideoModel(Protocol):
    """Weights that any number of engines share: each call says what it is pruned by.

    num_frames: that clips are best sampled to. frame_size: height and width that frames are best decoded to; None: as
    they are. frames_per_step: that an encoder joins to one time step.
    """

    module: nn.Module
    num_frames: int
    frames_per_step: int
    frame_size: tuple[int, int] | None

    def settings(self, prune: PruneConfig) -> Settings:
        """`prune` for this model. Raises ValueError for what it cannot do."""
        ...

    def encode(
        self, clips: Sequence[VideoFrames], settings: Settings, *, survivors: bool = False
    ) -> list[Encoded]:
        """Stages 1 and 2. survivors: keep what pictures of them need."""
        ...

    def steps(self, encoded: Encoded, frames: VideoFrames) -> list[TimeStep]:
        """A clip by time step. frames: that it was encoded from."""
        ...

    def of_steps(self, steps: Sequence[TimeStep], like: Encoded) -> Encoded:
        """One clip of these time steps, ascending in time. like: a clip with frames of the same size."""
        ...

    def prefill(
        self, encoded: Sequence[Encoded], settings: Settings, *, grown_from: tuple[Encoded, int] | None = None
    ) -> list[Encoded]:
        """The clips with what the LLM makes of them before it sees a question.

        grown_from: for one clip, another that went through here, and how many dense tokens at the front of both are the
        same: those are not computed again, where the model can tell that all before them is the same too."""
        ...

    def answer(
        self,
        encoded: Sequence[Encoded],
        prompts: Sequence[str],
        settings: Settings,
        max_new_tokens: int,
        *,
        watch: Watch | None = None,
        places: bool = False,
    ) -> tuple[list[str], list[Trace]]:
        """Stage 3 and decoding: one prompt for each clip. Traces have the seconds of the whole batch, and places where
        these are asked for."""
        ...

    def last_by_step(self, encoded: Encoded, answered: Trace, steps: int) -> list[int]:
        """Of a clip of so many time steps, the tokens of each that reached the LLM's last layer."""
        ...

    def survivors(self, encoded: Encoded, answered: Trace) -> dict[str, Survivors]:
        """What became of each token, by encoder, of a clip that was encoded with survivors=True."""
        ...

    def text_tokens(self, encoded: Encoded, prompt: str) -> int:
        """Tokens of a prompt about the clip that are no visual ones."""
        ...


def open_model(
    name: str, *, device: str | None = None, dtype: torch.dtype | None = None, num_frames: int | None = None
) -> VideoModel:
    """Load a model for inference.

    name: `demo`, `llava-demo`, `qwen-demo`, a folder, a name on a hub, or `random:` and a name from configs/models:
    true shape, random weights, to measure speed with. device: None takes a GPU where there is one. dtype: None takes
    what the weights are stored in on a GPU, float32 on a CPU; bfloat16 for random weights. num_frames: None takes the
    model's own number. Raises ValueError for what is no model that can be pruned.
    """
    from videoprune.models.multi_encoder_model import MultiEncoderModel
    from videoprune.models.stock_model import StockVideoModel

    config: Any = model_config(name)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if dtype is None and (name.startswith(RANDOM) or device == "cpu"):
        dtype = torch.bfloat16 if name.startswith(RANDOM) else torch.float32
    kind = MultiEncoderModel if config.model_type == MultiEncoderConfig.model_type else StockVideoModel
    model: VideoModel = kind(name, config, torch.device(device), dtype)
    model.num_frames = num_frames or model.num_frames
    return model
