"""Training clips, drawn straight from scenes. Shapes: B clips, T frames, S side, g cells along a grid's side."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from videoprune.eval.benchmarks.moving_shapes.hard_scene import SLOTS, HardScene, sample_hard_scene
from videoprune.eval.benchmarks.moving_shapes.render import ink, render
from videoprune.eval.benchmarks.moving_shapes.scene import CHARACTERS, COLORS, SHAPES, Scene, sample_scene

TRAIN_SEED = 1_000_000_000  # the benchmark's test clips use seeds below this
NUM_CLASSES = {"color": len(COLORS) + 1, "shape": len(SHAPES) + 1, "character": len(CHARACTERS) + 1}
_COLOR_INDEX = {name: i + 1 for i, name in enumerate(COLORS)}
_SHAPE_INDEX = {name: i + 1 for i, name in enumerate(SHAPES)}
_CHARACTER_INDEX = {name: i + 1 for i, name in enumerate(CHARACTERS)} | {"": 0}
HARD_SHARE = 0.6  # of what is drawn; the rest is of the standard split
NUM_FRAMES = 8  # of a standard clip


def frames_of(scene: Scene) -> int:
    return SLOTS if isinstance(scene, HardScene) else NUM_FRAMES


def clip_times(scene: Scene, jitter: float = 0.0) -> np.ndarray:
    """As decoded: the last frame at or before the middle of each of T equal parts."""
    count = frames_of(scene)
    return (np.arange(count) + 0.5 + jitter) / count * scene.duration


def worker_generator(seed: int) -> np.random.Generator:
    """Of training scenes; each worker of a loader has its own."""
    info = torch.utils.data.get_worker_info()
    return np.random.default_rng([TRAIN_SEED, seed, info.id if info else 0])


def least_cover(scene: Scene) -> float:
    """Share of a cell that an object must cover to own it."""
    return 0.15 if isinstance(scene, HardScene) else 0.25


def kept_first(scene: Scene, owner: Tensor) -> Tensor:
    """1 at tokens of objects that are there for a moment, 0 elsewhere: float32, as owner (T, n), -1 is none."""
    brief = {id(o) for o in scene.brief()} if isinstance(scene, HardScene) else set()
    marks = torch.tensor([*(float(id(o) in brief) for o in scene.objects), 0.0])
    return marks[owner]


def soften(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a codec and a resize do to a frame, roughly: a little blur, of random strength. uint8 (T, S, S, 3)."""
    mix = float(rng.uniform(0, 0.5))
    x = frames.astype(np.float32)
    blurred = x.copy()
    for axis in (1, 2):
        blurred = (np.roll(blurred, 1, axis) + 2 * blurred + np.roll(blurred, -1, axis)) / 4
    return np.clip((1 - mix) * x + mix * blurred, 0, 255).astype(np.uint8)


def local_masks(mask: np.ndarray, grid: int, cells: int = 8) -> np.ndarray:
    """A bool map (T, S, S) inside each cell of a grid: (T, g, g, cells * cells)."""
    frames, side = mask.shape[0], mask.shape[1]
    at = (np.arange(grid * cells) + 0.5) * side / (grid * cells)
    fine = mask[:, at.astype(int)][:, :, at.astype(int)]
    fine = fine.reshape(frames, grid, cells, grid, cells).transpose(0, 1, 3, 2, 4)
    return fine.reshape(frames, grid, grid, cells * cells)


def owner_to_grid(owner: np.ndarray, num_objects: int, grid: int, least: float = 0.25) -> np.ndarray:
    """Object of each cell, int64 (T, g, g): the one that covers most of it, if it covers `least`; else -1."""
    frames, side = owner.shape[0], owner.shape[1]
    cell = side // grid
    if not num_objects:
        return np.full((frames, grid, grid), -1)
    share = np.stack(
        [
            (owner == i).reshape(frames, grid, cell, grid, cell).mean(axis=(2, 4), dtype=np.float32)
            for i in range(num_objects)
        ]
    )
    best = share.argmax(0)
    return np.where(share.max(0) >= least, best, -1)


def dense_labels(scene: Scene, cells: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Per cell: color, shape, character (0 is background) and the centre of its object: (T, g, g, 5) float32."""
    table = np.zeros((len(times), len(scene.objects) + 1, 5), np.float32)
    for i, obj in enumerate(scene.objects):
        kinds = (_COLOR_INDEX[obj.color], _SHAPE_INDEX[obj.shape], _CHARACTER_INDEX[obj.character])
        for f, t in enumerate(times):
            table[f, i] = (*kinds, *obj.position(float(t), scene.duration))
    return table[np.arange(len(times))[:, None, None], cells]  # cell -1 reads the last row: zeros


def moments(scene: HardScene, count: int, rng: np.random.Generator) -> np.ndarray:
    """Times in `count` slots, most of them with an object that is there for a moment: (count,), ascending."""
    slot = scene.duration / SLOTS
    brief = [round(o.appears / slot) + i for o in scene.brief() for i in (0, 1)]
    rest = [s for s in range(SLOTS) if s not in brief]
    drawn = [
        brief[rng.integers(len(brief))] if rng.random() < 0.7 else rest[rng.integers(len(rest))]
        for _ in range(count)
    ]
    return (np.sort(drawn) + 0.5 + rng.uniform(-0.3, 0.02)) * slot


class DenseFrames(IterableDataset):
    """Batches of single frames with labels by grid: (uint8 (B, 3, S, S), {g: float32 (B, g, g, 5 + 128)})."""

    def __init__(self, batch: int, size: int, grids: tuple[int, ...], seed: int) -> None:
        self.batch, self.size, self.grids, self.seed = batch, size, grids, seed

    def __iter__(self) -> Iterator[tuple[Tensor, dict[int, Tensor]]]:
        rng = worker_generator(self.seed)
        while True:
            frames, labels = [], {g: [] for g in self.grids}
            for _ in range(self.batch // 2):
                hard = rng.random() < HARD_SHARE
                scene = sample_hard_scene(rng) if hard else sample_scene(rng)
                times = (
                    moments(scene, 2, rng) if hard else np.sort(rng.uniform(0.25, 1, size=2)) * scene.duration
                )
                pixels, owner = render(scene, times, self.size, noise=float(rng.uniform(2, 9)))
                strokes = ink(scene, times, self.size)
                frames.append(soften(pixels, rng))
                for g in self.grids:
                    cells = owner_to_grid(owner, len(scene.objects), g, least_cover(scene))
                    # The outline that a shape is read from, and the strokes of the characters.
                    maps = [local_masks(owner >= 0, g), local_masks(strokes, g)]
                    labels[g].append(
                        np.concatenate([dense_labels(scene, cells, times), *maps], -1, dtype=np.float32)
                    )
            x = torch.from_numpy(np.concatenate(frames)).permute(0, 3, 1, 2).contiguous()
            yield x, {g: torch.from_numpy(np.concatenate(v)) for g, v in labels.items()}
