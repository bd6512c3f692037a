"""Dense training of the encoders of stock classes, on clips.

Shapes: B clips, T time steps of a clip, g patches along a side.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from demo_training.clips import Group, RenderedPairs
from demo_training.data import dense_labels, least_cover, local_masks, owner_to_grid
from demo_training.encoders import train_dense
from demo_training.shapes import StockShape
from videoprune.eval.benchmarks.moving_shapes.render import ink
from videoprune.eval.benchmarks.moving_shapes.scene import Scene


def train_encoder(
    shape: StockShape, out: Path, *, steps: int, batch: int, device: str, start: Path | None = None
) -> None:
    """Dense labels on clips, a label for every patch of every time step. The checkpoint is `out`/NAME-vision.pt.

    start: the folder of a trained model whose encoder it goes on from."""
    torch.manual_seed(0)
    model = (shape.new_vision(out) if start is None else shape.trained_vision(start)).to(device)

    def read(made: tuple[Group, np.ndarray]) -> tuple[Tensor, Tensor]:
        (scenes, frames, owners), times = made
        return shape.patches(model, frames.to(device)), _patch_labels(shape, scenes, owners.numpy(), times)

    def batches(step: int) -> RenderedPairs:
        return RenderedPairs(batch, shape.side, seed=step + 3)

    train_dense(out / f"{shape.name}-vision.pt", model, batches, read, steps=steps, peak=1e-3, warm=0.1)


def _patch_labels(shape: StockShape, scenes: list[Scene], owners: np.ndarray, times: np.ndarray) -> Tensor:
    """(B*T, g, g, 5 + 128), patches of the last frame of each time step, row by row."""
    found, frames = [], times.shape[1]
    last = range(shape.frames_per_step - 1, frames, shape.frames_per_step)
    for i, scene in enumerate(scenes):
        owner, when = owners[i * frames : (i + 1) * frames][last], times[i][last]
        cells = owner_to_grid(owner, len(scene.objects), shape.grid, least_cover(scene))
        maps = [local_masks(owner >= 0, shape.grid), local_masks(ink(scene, when, shape.side), shape.grid)]
        found.append(np.concatenate([dense_labels(scene, cells, when), *maps], -1, dtype=np.float32))
    return torch.from_numpy(np.concatenate(found))
