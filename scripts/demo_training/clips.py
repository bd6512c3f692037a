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

from demo_training.data import TRAIN_SEED, owner_to_grid, soften
from videoprune.config import EncoderPrune, PruneConfig
from videoprune.eval.benchmarks.moving_shapes.render import render
from videoprune.eval.benchmarks.moving_shapes.scene import Scene, sample_scene
from videoprune.models.multi_encoder import MultiEncoderVLM

NUM_FRAMES = 8


@dataclass(frozen=True)
class EncodedClip:
    """Per encoder: tokens (T, K, D) half precision, dense positions (T, K), its object or -1 (T, K)."""

    scene: Scene
    x: dict[str, Tensor]
    kept: dict[str, Tensor]
    owner: dict[str, Tensor]


class RenderedClips(IterableDataset):
    """Groups of clips: (scenes, uint8 frames (n*T, S, S, 3), owners (n*T, S, S) int8)."""

    def __init__(self, group: int, size: int, seed: int) -> None:
        self.group, self.size, self.seed = group, size, seed

    def __iter__(self) -> Iterator[tuple[list[Scene], Tensor, Tensor]]:
        info = torch.utils.data.get_worker_info()
        rng = np.random.default_rng([TRAIN_SEED, self.seed, info.id if info else 0])
        while True:
            scenes, frames, owners = [], [], []
            for _ in range(self.group):
                scene = sample_scene(rng)
                # As decoded: the last frame at or before the middle of each of T equal parts.
                times = (np.arange(NUM_FRAMES) + 0.5 + rng.uniform(-0.06, 0.02)) / NUM_FRAMES * scene.duration
                pixels, owner = render(scene, times, self.size, noise=float(rng.uniform(3, 8)))
                scenes.append(scene)
                frames.append(soften(pixels, rng))
                owners.append(owner.astype(np.int8))
            yield scenes, torch.from_numpy(np.concatenate(frames)), torch.from_numpy(np.concatenate(owners))


@torch.no_grad()
def encode_group(
    model: MultiEncoderVLM, group: tuple[list[Scene], Tensor, Tensor], encoder: EncoderPrune
) -> list[EncodedClip]:
    scenes, frames, owners = group
    encoded = model.encode_frames(frames.to(model.device), PruneConfig(encoder=encoder))
    clips = [EncodedClip(scene, {}, {}, {}) for scene in scenes]
    for one, x, _, kept in encoded:
        cells = owner_to_grid(owners.numpy(), 4, one.grid[0]).reshape(len(owners), -1)
        owner = torch.from_numpy(cells).gather(1, kept.cpu())
        for i, clip in enumerate(clips):
            part = slice(i * NUM_FRAMES, (i + 1) * NUM_FRAMES)
            clip.x[one.name] = x[part].to("cpu", torch.float16)
            clip.kept[one.name] = kept[part].cpu()
            clip.owner[one.name] = owner[part]
    return clips


class ClipStore:
    """The newest `capacity` clips of each encoder setting."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.clips: dict[str, list[EncodedClip]] = {}
        self.owed = 0.0  # groups of new clips that the training is behind

    def add(self, mode: str, clips: list[EncodedClip]) -> None:
        held = self.clips.setdefault(mode, [])
        held.extend(clips)
        del held[: max(0, len(held) - self.capacity)]

    def draw(self, mode: str, count: int, rng: np.random.Generator) -> list[EncodedClip]:
        held = self.clips[mode]
        return [held[i] for i in rng.choice(len(held), size=count, replace=len(held) < count)]
