"""MovingShapes pixels: signed distances give each object's coverage, a drifting grey texture lies behind.

A scene has no resolution, so the same scene can be drawn at any size. Shapes: S side in pixels, T frames.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from videoprune.eval.benchmarks.moving_shapes.scene import COLORS, MovingObject, Scene

_FONT = {  # 5 x 7 dots
    "2": "01110 10001 00001 00110 01000 10000 11111",
    "3": "11111 00010 00100 00010 00001 10001 01110",
    "4": "00010 00110 01010 10010 11111 00010 00010",
    "5": "11111 10000 11110 00001 00001 10001 01110",
    "7": "11111 00001 00010 00100 01000 01000 01000",
    "9": "01110 10001 10001 01111 00001 00010 01100",
    "E": "11111 10000 10000 11110 10000 10000 11111",
    "H": "10001 10001 10001 11111 10001 10001 10001",
    "K": "10001 10010 10100 11000 10100 10010 10001",
    "T": "11111 00100 00100 00100 00100 00100 00100",
}
_CHARACTER_HEIGHT = 0.13  # of the frame's side: a fine detail of about 15 pixels at 112


def render(
    scene: Scene, times: NDArray[np.float64], size: int, *, noise: float = 6.0
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw `scene` at `times` seconds.

    Returns uint8 frames (T, S, S, 3) RGB and the object at each pixel, int64 (T, S, S): index in
    `scene.objects`, or -1. `noise` is the standard deviation of the sensor noise, in grey levels.
    """
    rng = np.random.default_rng(scene.background_seed)
    grounds = {scene.background_seed: _texture(rng, size)}
    frames = np.empty((len(times), size, size, 3), np.float32)
    owner = np.full((len(times), size, size), -1, np.int64)
    shade = [rng.uniform(0.88, 1.06) for _ in scene.objects]
    for f, t in enumerate(times):
        seed, drifted = scene.ground(float(t))
        if seed not in grounds:
            grounds[seed] = _texture(np.random.default_rng(seed), size)
        texture, drift = grounds[seed]
        shift = np.round(drift * drifted * size).astype(int)
        frames[f] = np.roll(texture, tuple(shift), axis=(0, 1))[:size, :size]
        for index, obj in enumerate(scene.objects):
            if obj.visible(float(t)):
                _draw(frames[f], owner[f], index, obj, obj.position(float(t), scene.duration), shade[index])
    frames += rng.standard_normal(frames.shape[:3], dtype=np.float32)[..., None] * noise
    return np.clip(frames, 0, 255).astype(np.uint8), owner


def ink(scene: Scene, times: NDArray[np.float64], size: int) -> NDArray[np.bool_]:
    """Where the characters' strokes are, bool (T, S, S): a label for training, not part of a clip."""
    found = np.zeros((len(times), size, size), bool)
    for f, t in enumerate(times):
        for obj in scene.objects:
            if obj.visible(float(t)) and obj.character:
                x0, x1, y0, y1, x, y = _window(obj, obj.position(float(t), scene.duration), size)
                found[f, y0:y1, x0:x1] |= _character(obj.character, x, y, size) > 0.5
    return found


def _window(
    obj: MovingObject, center: tuple[float, float], size: int
) -> tuple[int, int, int, int, NDArray[np.float32], NDArray[np.float32]]:
    """Pixels x0..x1, y0..y1 around an object, and their centres relative to its own, in sides."""
    reach = obj.radius * 1.05
    x0, x1 = (int(np.clip(f, 0, size)) for f in ((center[0] - reach) * size, (center[0] + reach) * size + 1))
    y0, y1 = (int(np.clip(f, 0, size)) for f in ((center[1] - reach) * size, (center[1] + reach) * size + 1))
    x = ((np.arange(x0, x1) + 0.5) / size - center[0]).astype(np.float32)
    y = ((np.arange(y0, y1) + 0.5) / size - center[1]).astype(np.float32)
    return x0, x1, y0, y1, x, y


def _texture(rng: np.random.Generator, size: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """A tinted grey texture of three octaves (S, S, 3), which wraps, and its drift in sides per second."""
    grey = np.zeros((size, size), np.float32)
    for cells, weight in ((4, 22.0), (9, 14.0), (20, 9.0)):
        coarse = rng.standard_normal((cells, cells)).astype(np.float32)
        grey += weight * _stretch(coarse, size)
    tint = rng.uniform(70, 150) + rng.uniform(-14, 14, size=3)
    return grey[..., None] + tint.astype(np.float32), rng.uniform(-0.08, 0.08, size=2)


def _stretch(coarse: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Bilinear, wrapping enlargement of (c, c) to (S, S)."""
    c = coarse.shape[0]
    at = np.arange(size) * c / size
    low = at.astype(int)
    frac = (at - low).astype(np.float32)
    rows = coarse[low] * (1 - frac)[:, None] + coarse[(low + 1) % c] * frac[:, None]
    return rows[:, low] * (1 - frac) + rows[:, (low + 1) % c] * frac


def _draw(
    frame: NDArray[np.float32],
    owner: NDArray[np.int64],
    index: int,
    obj: MovingObject,
    center: tuple[float, float],
    shade: float,
) -> None:
    size = frame.shape[0]
    x0, x1, y0, y1, x, y = _window(obj, center, size)
    distance = _signed_distance(obj.shape, x[None, :], y[:, None], obj.radius)
    cover = np.clip(0.5 - distance * size, 0, 1)[..., None]
    color = np.asarray(COLORS[obj.color], np.float32) * shade
    region = frame[y0:y1, x0:x1]
    if obj.character:
        ink = np.float32(20.0 if color @ (0.30, 0.59, 0.11) > 120 else 245.0)
        mark = _character(obj.character, x, y, size)[..., None]
        color = color * (1 - mark) + ink * mark
    region[:] = region * (1 - cover) + color * cover
    owner[y0:y1, x0:x1][cover[..., 0] > 0.5] = index


def _signed_distance(
    shape: str, x: NDArray[np.float32], y: NDArray[np.float32], r: float
) -> NDArray[np.floating]:
    """Distance to the outline, negative inside; exact or a bound that is exact near the outline."""
    ax, ay = np.abs(x), np.abs(y)
    if shape == "circle":
        return np.hypot(x, y) - 0.95 * r
    if shape == "square":
        return np.maximum(ax, ay) - 0.80 * r
    if shape == "diamond":
        return (ax + ay - 1.05 * r) * np.float32(0.7071)
    if shape == "cross":
        arm, long = 0.40 * r, 0.98 * r
        return np.minimum(np.maximum(ax - arm, ay - long), np.maximum(ax - long, ay - arm))
    corners = 3 if shape == "triangle" else 5
    return _polygon_distance(shape, corners, x, y, r)


def _polygon_distance(
    shape: str, corners: int, x: NDArray[np.float32], y: NDArray[np.float32], r: float
) -> NDArray[np.floating]:
    if shape == "triangle":
        edge = np.float32(0.52 * r)
        distance = np.full(np.broadcast_shapes(x.shape, y.shape), -np.inf, np.float32)
        for i in range(corners):
            a = np.pi / 2 + 2 * np.pi * i / corners
            distance = np.maximum(distance, x * np.cos(a) + y * np.sin(a) - edge)
        return distance
    # A star: fold the plane into one tenth, then measure to the edge between a tip and a notch.
    angle = np.abs((np.arctan2(x, -y) + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)
    length = np.hypot(x, y)
    px, py = length * np.cos(angle), length * np.sin(angle)
    tip, notch = 1.05 * r, 0.55 * r
    ex, ey = notch * np.cos(np.pi / 5) - tip, notch * np.sin(np.pi / 5)
    return ((px - tip) * ey - py * ex) / np.float32(np.hypot(ex, ey))


@lru_cache(maxsize=64)
def _dots(character: str) -> NDArray[np.float32]:
    dots = np.array([[c == "1" for c in row] for row in _FONT[character].split()], np.float32)
    return np.pad(dots, 1)


def _character(
    character: str, x: NDArray[np.float32], y: NDArray[np.float32], size: int
) -> NDArray[np.floating]:
    """Coverage of the character's ink at the pixel centres (len(y), len(x)): bilinear over the 5 x 7 dots."""
    cell = max(_CHARACTER_HEIGHT / 7, 1.0 / size)
    dots = _dots(character)
    col, row = x / cell + dots.shape[1] / 2, y / cell + dots.shape[0] / 2
    # A dot is a square of side `cell`: overlap of each pixel with each dot, along each axis.
    wide = 1.0 / (size * cell)
    along_x = _overlap(col, wide, dots.shape[1])
    along_y = _overlap(row, wide, dots.shape[0])
    return along_y @ dots @ along_x.T


def _overlap(at: NDArray[np.float32], width: float, count: int) -> NDArray[np.float32]:
    """Share of each pixel [at - w/2, at + w/2] that lies in each of `count` unit cells: (len(at), count)."""
    low, high = at[:, None] - width / 2, at[:, None] + width / 2
    cell = np.arange(count, dtype=np.float32)
    return np.clip(np.minimum(high, cell + 1) - np.maximum(low, cell), 0, None).astype(np.float32) / width
