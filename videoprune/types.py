"""The values that travel between the stages. Frozen; each checks itself when it is made.

Shapes: B clips, T frames, N tokens, K kept tokens, D width, H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

OutcomeKind = Literal["complete", "truncated", "failed"]
# Key of `Sample.meta`: why a question cannot be asked, such as a video that is not there.
UNUSABLE = "unusable"


@dataclass(frozen=True)
class Outcome:
    """How reading one video ended.

    `complete`: every wanted frame was decoded. `truncated`: the stream ended or broke early; `last_pts` is the
    last time (seconds) that was decoded, `errors` the number of decoding errors. `failed`: no frame; see `reason`.
    """

    kind: OutcomeKind
    reason: str = ""
    last_pts: float | None = None
    errors: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("complete", "truncated", "failed"):
            raise ValueError(f"kind={self.kind!r}; allowed: complete, truncated, failed")
        if self.kind == "failed" and not self.reason:
            raise ValueError("reason=''; a failed outcome must say why")


@dataclass(frozen=True)
class VideoFrames:
    """Frames sampled from one video.

    pixels: uint8 (T, H, W, 3), RGB, upright (any rotation tag is applied).
    pts_seconds: presentation time of each frame, seconds, strictly ascending, from the stream's PTS.
    duration_seconds: end of the last frame minus start of the first, seconds, as far as the stream tells.
    fallback_reason: why the first backend did not answer; empty if it did.
    """

    pixels: Tensor
    pts_seconds: tuple[float, ...]
    duration_seconds: float
    path: str
    backend: str
    outcome: Outcome = field(default_factory=lambda: Outcome("complete"))
    fallback_reason: str = ""

    def __post_init__(self) -> None:
        if self.pixels.dtype != torch.uint8 or self.pixels.ndim != 4 or self.pixels.shape[-1] != 3:
            raise ValueError(
                f"pixels: {self.pixels.dtype} {tuple(self.pixels.shape)}; allowed: uint8 (T, H, W, 3)"
            )
        if len(self.pts_seconds) != self.pixels.shape[0]:
            raise ValueError(
                f"pts_seconds has {len(self.pts_seconds)} times for {self.pixels.shape[0]} frames"
            )
        if any(b <= a for a, b in zip(self.pts_seconds, self.pts_seconds[1:], strict=False)):
            raise ValueError(f"pts_seconds={self.pts_seconds}; must be strictly ascending")

    def __len__(self) -> int:
        return self.pixels.shape[0]


@dataclass(frozen=True)
class KeepPlan:
    """Which of N tokens stay and where the others go. A method decides it once; `prune.merge` applies it.

    keep: int64 (B, K), ascending positions of the survivors among the N tokens.
    into: int64 (B, N), for each token the index (0..K-1) of the survivor that it merges into, or -1: dropped.
    A survivor always points at itself.
    weight: (B, N), what each token counts in the sum that its survivor becomes; None: the mean of the group, by size.
    also: survivor, token, weight, each (M,), of tokens that count in further survivors' sums; survivors 0..B*K-1 and
    tokens 0..B*N-1 are numbered through the rows. Only beside `weight`.
    drops, merges: False promises that `into` holds no -1, or that each survivor is alone, which spares the device work.
    """

    keep: Tensor
    into: Tensor
    weight: Tensor | None = None
    also: tuple[Tensor, Tensor, Tensor] | None = None
    drops: bool = True
    merges: bool = True

    def __post_init__(self) -> None:
        if self.keep.ndim != 2 or self.into.ndim != 2 or self.keep.shape[0] != self.into.shape[0]:
            raise ValueError(
                f"keep {tuple(self.keep.shape)}, into {tuple(self.into.shape)}; allowed: (B, K) and (B, N)"
            )
        if self.weight is not None and self.weight.shape != self.into.shape:
            raise ValueError(f"weight {tuple(self.weight.shape)}; allowed: {tuple(self.into.shape)}, as into")
        if self.also is not None:
            shapes = [tuple(part.shape) for part in self.also]
            if self.weight is None or len(shapes) != 3 or shapes != [shapes[0][:1]] * 3:
                raise ValueError(f"also {shapes}; allowed: three of one length, beside weight")

    @property
    def num_kept(self) -> int:
        return self.keep.shape[1]

    @property
    def num_tokens(self) -> int:
        return self.into.shape[1]


@dataclass(frozen=True)
class VisualTokens:
    """Visual tokens that know where they came from.

    x: (B, N, D). size: float (B, N), how many dense patches each token stands for.
    origin: int64 (B, N, 3): frame, row, column of the surviving patch in its encoder's dense grid.
    encoder: int64 (B, N), index into `encoder_names`. grids: dense (rows, columns) of each encoder.
    pts_seconds: (B, T) seconds of the frames, NaN behind the last one of a shorter clip. mask: bool (B, N), False where
    a row is padding.
    """

    x: Tensor
    size: Tensor
    origin: Tensor
    encoder: Tensor
    encoder_names: tuple[str, ...]
    grids: tuple[tuple[int, int], ...]
    pts_seconds: Tensor
    mask: Tensor

    def __post_init__(self) -> None:
        lead = tuple(self.x.shape[:2])
        for name in ("size", "encoder", "mask"):
            shape = tuple(getattr(self, name).shape)
            if shape != lead:
                raise ValueError(f"{name}: shape {shape}; allowed: {lead}, as x has")
        if tuple(self.origin.shape) != (*lead, 3):
            raise ValueError(f"origin: shape {tuple(self.origin.shape)}; allowed: {(*lead, 3)}")
        if len(self.encoder_names) != len(self.grids):
            raise ValueError(f"grids: {len(self.grids)} for {len(self.encoder_names)} encoders")

    @property
    def num_tokens(self) -> int:
        return self.x.shape[1]

    def num_frames(self, row: int) -> int:
        """Frames of one clip, whether or not any of their tokens is left."""
        return int((~self.pts_seconds[row].isnan()).sum())


@dataclass(frozen=True)
class TimeStep:
    """What is left of one step of an encoder, a frame or in Qwen-VL two, as the LLM takes it: for streams.

    x: (K, W). place: int64 (K,), ascending, where among the step's `dense` places (several encoders behind each other).
    size: float (K,), how many tokens each stands for. deep: DeepStack features, (K, W) by level. pts_seconds: of the
    frames of the step. patches: as the encoder saw the step. grids: rows and columns of each encoder's places, where
    there are several.
    """

    x: Tensor
    place: Tensor
    size: Tensor
    dense: int
    pts_seconds: tuple[float, ...]
    deep: tuple[Tensor, ...] = ()
    patches: int = 0
    grids: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        for name in ("place", "size"):
            shape = tuple(getattr(self, name).shape)
            if shape != (len(self.x),):
                raise ValueError(
                    f"{name}: shape {shape}; allowed: {(len(self.x),)}, a number for each token of x"
                )
        if not self.pts_seconds:
            raise ValueError("pts_seconds=(); allowed: the time of each frame of the step")

    def __len__(self) -> int:
        return len(self.x)

    @property
    def num_bytes(self) -> int:
        """Memory that its tensors hold."""
        parts = (self.x, self.place, self.size, *self.deep)
        return sum(t.numel() * t.element_size() for t in parts)


@dataclass(frozen=True)
class Survivors:
    """What became of each token that the LLM would get of one encoder unpruned: for pictures.

    grid: rows and columns of a frame's n tokens. owner: int64 (F, n), the token that each one merged into, its own
    number where it did not merge, -1 where it was dropped. left, fused, last: bool (F, n), whether it leaves the
    encoder, reaches the LLM, and the LLM's last layer. F counts the encoder's frames: Qwen-VL joins two of the video.
    """

    grid: tuple[int, int]
    owner: Tensor
    left: Tensor
    fused: Tensor
    last: Tensor


@dataclass(frozen=True)
class Places:
    """Which of a prompt's dense visual tokens, counted from 0, reach the LLM (`fused`), and its last layer (`last`)."""

    fused: tuple[int, ...]
    last: tuple[int, ...]


@dataclass(frozen=True)
class Trace:
    """Plain numbers about one prompt. All counts are visual tokens.

    dense: without any pruning. encoder: by encoder name, (tokens in, tokens out), where it ran in the same call.
    fused: handed to the LLM. llm_layers: those that each LLM layer computes on.
    seconds: wall time by stage; stages do not overlap: preprocess, encode, encode_prune, fuse of a clip; llm,
    llm_prune of an answer. places, survivors: only where they are asked for.
    """

    dense: int
    encoder: dict[str, tuple[int, int]]
    fused: int
    llm_layers: tuple[int, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    places: Places | None = None
    survivors: dict[str, Survivors] | None = None

    @property
    def llm_average(self) -> float:
        """Visual tokens averaged over the LLM's layers."""
        return sum(self.llm_layers) / len(self.llm_layers) if self.llm_layers else float(self.fused)

    @property
    def retention(self) -> float:
        """`llm_average` over the dense count: the figure that METEOR and PyramidDrop report."""
        return self.llm_average / self.dense if self.dense else 1.0

    def as_dict(self) -> dict[str, Any]:
        """The counts, for records."""
        return {
            "dense": self.dense,
            "encoder": {k: list(v) for k, v in self.encoder.items()},
            "fused": self.fused,
            "llm_layers": list(self.llm_layers),
            "llm_average": round(self.llm_average, 2),
            "retention": round(self.retention, 4),
        }


@dataclass(frozen=True)
class Encoded:
    """One clip after stages 1 and 2: it serves any number of questions.

    trace: counts and seconds up to here. features: what the model that made it takes back, and how its prompt says
    where the clip is; no pixels. survivors: what pictures of the clip need, where it was asked for. prefix: what the
    LLM makes of the clip before it sees a question, where it was asked for.
    """

    trace: Trace
    features: Any
    survivors: Any = None
    prefix: Any = None


@dataclass(frozen=True)
class Sample:
    """One question about one video. `options` is empty for an open question; `answer` is a letter or a text.

    prompt: the whole text a model is asked with, where a benchmark's protocol says it; "": `prompts.prompt` makes it.
    until: when it is asked, seconds from the video's first frame: what is shown from then on must not be used. None:
    after the video.
    """

    question_id: str
    video: str
    question: str
    options: tuple[str, ...] = ()
    answer: str = ""
    meta: dict[str, str] = field(default_factory=dict)
    prompt: str = ""
    until: float | None = None

    def __post_init__(self) -> None:
        if not self.question_id:
            raise ValueError("question_id=''; every question needs an id")
        if self.until is not None and not 0 < self.until < float("inf"):
            raise ValueError(f"until={self.until}; allowed: finite seconds above 0, or None")
        if self.options and len(self.options) < 2:
            raise ValueError(f"options={self.options}; allowed: none, or at least two")


@dataclass(frozen=True)
class Answer:
    """What the model said. `text` is the raw generation; `choice` the letter read from it, '' if none."""

    text: str
    choice: str
    trace: Trace


# Stages of one question, in order. Their seconds are disjoint: they add up to the whole.
ENCODE_STAGES = ("preprocess", "encode", "encode_prune", "fuse")
STAGES = ("decode", *ENCODE_STAGES, "llm", "llm_prune")
