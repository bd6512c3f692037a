"""Encoded training clips in a rolling store, so that rendering and encoding are shared by several steps.

Shapes: T frames, K tokens of an encoder in a frame, D its width, N tokens of a clip.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from demo_training.data import (
    HARD_SHARE,
    NUM_FRAMES,
    clip_times,
    frames_of,
    least_cover,
    moments,
    owner_to_grid,
    soften,
    worker_generator,
)
from videoprune.clock import Stopwatch
from videoprune.config import EncoderPrune, PruneConfig
from videoprune.eval.benchmarks.moving_shapes.hard_scene import SLOTS, HardScene, sample_hard_scene
from videoprune.eval.benchmarks.moving_shapes.render import render
from videoprune.eval.benchmarks.moving_shapes.scene import Scene, sample_scene
from videoprune.models.multi_encoder import MultiEncoderVLM


@dataclass(frozen=True)
class EncodedClip:
    """Per encoder: tokens (T, K, D) half precision, dense positions (T, K), its object or -1 (T, K)."""

    scene: Scene
    x: dict[str, Tensor]
    kept: dict[str, Tensor]
    owner: dict[str, Tensor]


Group = tuple[list[Scene], Tensor, Tensor]


class RenderedClips(IterableDataset):
    """Groups of clips of one split: (scenes, uint8 frames (n*T, S, S, 3), owners (n*T, S, S) int8).

    hard: of which split; None: HARD_SHARE of the groups are of the hard one.
    """

    def __init__(self, group: int, size: int, seed: int, hard: bool | None = None) -> None:
        self.group, self.size, self.seed, self.hard = group, size, seed, hard

    def __iter__(self) -> Iterator[Group]:
        rng = worker_generator(self.seed)
        while True:
            hard = self.hard if self.hard is not None else bool(rng.random() < HARD_SHARE)
            made = []
            for _ in range(self.group):
                scene = sample_hard_scene(rng) if hard else sample_scene(rng)
                made.append((scene, clip_times(scene, float(rng.uniform(-0.06, 0.02)))))
            yield _rendered(made, self.size, rng)


class RenderedPairs(IterableDataset):
    """The same with NUM_FRAMES frames of each clip: of the hard split pairs of slots, mostly with a short event.

    Each group comes with the times of its frames in seconds, (n, T).
    """

    def __init__(self, group: int, size: int, seed: int) -> None:
        self.group, self.size, self.seed = group, size, seed

    def __iter__(self) -> Iterator[tuple[Group, np.ndarray]]:
        rng = worker_generator(self.seed)
        while True:
            made = []
            for _ in range(self.group):
                scene = sample_hard_scene(rng) if rng.random() < HARD_SHARE else sample_scene(rng)
                made.append(
                    (scene, _pairs(scene, rng) if isinstance(scene, HardScene) else clip_times(scene))
                )
            yield _rendered(made, self.size, rng), np.stack([times for _, times in made])


def _pairs(scene: HardScene, rng: np.random.Generator) -> np.ndarray:
    """Times in both slots of NUM_FRAMES / 2 pairs."""
    slot = scene.duration / SLOTS
    first = np.floor(moments(scene, NUM_FRAMES // 2, rng) / slot) // 2 * 2
    return (np.stack([first, first + 1], 1).reshape(-1) + 0.5 + rng.uniform(-0.3, 0.02)) * slot


def _rendered(made: list[tuple[Scene, np.ndarray]], size: int, rng: np.random.Generator) -> Group:
    frames, owners = [], []
    for scene, times in made:
        pixels, owner = render(scene, times, size, noise=float(rng.uniform(3, 8)))
        frames.append(soften(pixels, rng))
        owners.append(owner.astype(np.int8))
    return (
        [s for s, _ in made],
        torch.from_numpy(np.concatenate(frames)),
        torch.from_numpy(np.concatenate(owners)),
    )


@torch.no_grad()
def encode_group(model: MultiEncoderVLM, group: Group, encoder: EncoderPrune) -> list[EncodedClip]:
    scenes, frames, owners = group
    settings = model.settings(PruneConfig(encoder=encoder))
    generator = torch.Generator().manual_seed(0)
    encoded = model.encode_frames(frames.to(model.device), settings, generator, Stopwatch())
    clips = [EncodedClip(scene, {}, {}, {}) for scene in scenes]
    count, most = frames_of(scenes[0]), max(len(s.objects) for s in scenes)
    cells = {
        g: owner_to_grid(owners.numpy(), most, g, least_cover(scenes[0])).reshape(len(owners), -1)
        for g in {one.grid[0] for one in encoded}
    }
    for one in encoded:
        kept = one.plan.keep.cpu()
        owner = torch.from_numpy(cells[one.grid[0]]).gather(1, kept)
        for i, clip in enumerate(clips):
            part = slice(i * count, (i + 1) * count)
            clip.x[one.name] = one.x[part].to("cpu", torch.float16)
            clip.kept[one.name] = kept[part]
            clip.owner[one.name] = owner[part]
    return clips


def merging(keep: float) -> EncoderPrune:
    """EvoPrune's merging to this share, as the presets have it: no token is protected."""
    return EncoderPrune(method="evoprune", keep=keep, critical_ratio=0.0)


class ClipStore:
    """The newest `capacity` clips of each encoder setting and split."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.clips: dict[tuple[str, bool], list[EncodedClip]] = {}
        self.owed = 0.0  # groups of new clips that the training is behind

    def add(self, mode: str, hard: bool, clips: list[EncodedClip]) -> None:
        held = self.clips.setdefault((mode, hard), [])
        held.extend(clips)
        del held[: max(0, len(held) - self.capacity)]

    def draw(self, mode: str, hard: bool, count: int, rng: np.random.Generator) -> list[EncodedClip]:
        held = self.clips[mode, hard]
        return [held[i] for i in rng.choice(len(held), size=count, replace=len(held) < count)]
