"""Which frames to take: from presentation times (PTS) to frame indices. Pure; the one sampler of all readers.

Shapes: F frames in the stream. Times are seconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

Policy = Literal["uniform", "fps", "keyframe", "timestamps", "middles", "ends", "starts", "last"]
_WITH_RATE = ("fps", "last")

# Times such as 0.1 + 0.2 must still hit the frame at 0.3. A tick of the usual 1/90000 s clock is ten times
# longer.
_SLACK = 1e-6


@dataclass(frozen=True)
class Sampling:
    """How to choose frames.

    policy: `uniform` takes the frame shown in the middle of each of `max_frames` equal spans of time; `fps`
    one frame per 1/fps seconds from the first frame on; `keyframe` the keyframes; `timestamps` the frames
    shown at the times that `timestamps` names, in the stream's own clock (which need not start at 0).
    Three count frames instead of time, as protocols of benchmarks do: `middles` the middle of each of
    `max_frames` equal runs of frames, `ends` an even row from the first frame to the last, `starts` every k-th
    from the first on, k = F // max_frames. Each gives all frames where there are no more than asked. `last` takes
    the newest frame and those shown 1/fps, 2/fps ... seconds before it.
    max_frames: the most frames that all but `timestamps` give; `fps` and `keyframe` are thinned evenly to it.
    `timestamps` is as long as its list. until: seconds from the first frame; frames from then on are as if they were
    not there. window: only frames of so many seconds before `until`, or before the end; one at least.
    Raises ValueError for an impossible value or an option that its policy does not use.
    """

    policy: Policy = "uniform"
    max_frames: int = 8
    fps: float | None = None
    timestamps: tuple[float, ...] = ()
    until: float | None = None
    window: float | None = None

    def __post_init__(self) -> None:
        if self.policy not in get_args(Policy):
            raise ValueError(f"policy={self.policy!r}; allowed: {', '.join(get_args(Policy))}")
        if not isinstance(self.max_frames, int) or isinstance(self.max_frames, bool) or self.max_frames < 1:
            raise ValueError(f"max_frames={self.max_frames!r}; allowed: a whole number of at least 1")
        if (self.fps is not None) != (self.policy in _WITH_RATE):
            need = "a number" if self.policy in _WITH_RATE else "None"
            raise ValueError(f"fps={self.fps}; allowed: {need} with policy={self.policy!r}")
        for name in ("fps", "until", "window"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name}={value}; allowed: a finite number above 0")
        if bool(self.timestamps) != (self.policy == "timestamps"):
            raise ValueError(
                f"timestamps={self.timestamps}; allowed: some with policy='timestamps', none with others"
            )
        if not all(math.isfinite(t) for t in self.timestamps):
            raise ValueError(f"timestamps={self.timestamps}; allowed: finite seconds")


def frame_indices(
    pts: ArrayLike,
    keyframes: Sequence[bool] | NDArray[np.bool_],
    sampling: Sampling,
    *,
    end: float | None = None,
) -> list[int]:
    """Indices of the frames to take, ascending, none twice.

    pts: (F,) seconds, strictly ascending. keyframes: (F,). end: when the last frame stops being shown; by
    default the last PTS plus the median gap. A frame is shown from its PTS to the next one's. `uniform` gives
    exactly min(max_frames, F) frames: where one long frame fills several spans, the nearest free frames stand
    in.
    """
    times = np.asarray(pts, dtype=np.float64)  # (F,)
    keys = np.asarray(keyframes, dtype=bool)
    if times.ndim != 1 or keys.shape != times.shape:
        raise ValueError(f"pts {times.shape}, keyframes {keys.shape}; allowed: one row of equal length each")
    if times.size == 0:
        return []
    if not np.all(np.diff(times) > 0):
        raise ValueError("pts: must be strictly ascending")
    stop = stream_end(times) if end is None else max(end, float(times[-1]))
    seen, stop = _seen(times, stop, sampling)
    chosen = _chosen(times[seen], keys[seen], sampling, stop)
    return [seen.start + int(i) for i in chosen]


def _seen(pts: NDArray[np.float64], end: float, sampling: Sampling) -> tuple[slice, float]:
    """The frames that may be taken, one at least, and when the last of them ends."""
    stop = end if sampling.until is None else min(end, float(pts[0]) + sampling.until)
    last = pts.size if sampling.until is None else _before(pts, float(pts[0]) + sampling.until)
    first = 0 if sampling.window is None else _before(pts, stop - sampling.window)
    last = max(last, 1)  # the first frame is there at 0, before any `until`
    return slice(min(first, last - 1), last), stop


def _before(pts: NDArray[np.float64], seconds: float) -> int:
    """How many frames start before that."""
    return int(np.searchsorted(pts, seconds - _SLACK, side="left"))


def _chosen(
    times: NDArray[np.float64], keys: NDArray[np.bool_], sampling: Sampling, stop: float
) -> NDArray[np.int64]:
    """Indices among `times`, (F,), of the frames that may be taken. stop: when the last of them ends."""
    if sampling.policy == "uniform":
        return _uniform(times, stop, sampling.max_frames)
    if sampling.policy == "fps":
        assert sampling.fps is not None
        return _thin(_per_second(times, stop, sampling.fps), sampling.max_frames)
    if sampling.policy == "last":
        assert sampling.fps is not None
        return _newest(times, sampling.max_frames, sampling.fps)
    if sampling.policy == "keyframe":
        found = np.flatnonzero(keys)
        return _thin(found if found.size else np.zeros(1, dtype=np.int64), sampling.max_frames)
    if sampling.policy != "timestamps":
        return np.asarray(counted_indices(times.size, sampling.max_frames, sampling.policy))
    return np.unique(_shown_at(times, np.asarray(sampling.timestamps)))


def counted_indices(frames: int, count: int, policy: str) -> list[int]:
    """Indices of `count` of `frames` frames by number alone; all of them where there are no more.

    policy: `middles`, as Video-MME's tool takes them: runs of (frames - 1) / count, their bounds rounded (halves
    to even), the middle rounded down. `ends`: numpy's linspace with both ends, as integers. `starts`: 0, k, 2k.
    """
    if count >= frames:
        return list(range(frames))
    if policy == "middles":
        bounds = [round((frames - 1) / count * i) for i in range(count + 1)]
        return sorted({(a + b) // 2 for a, b in pairwise(bounds)})
    if policy == "ends":
        return sorted({int(i) for i in np.linspace(0, frames - 1, count, dtype=int)})
    return [i * (frames // count) for i in range(count)]


def stream_end(pts: NDArray[np.float64]) -> float:
    """When the last frame ends, seconds, if the stream does not say: the last PTS plus the median gap."""
    return float(pts[-1] + (np.median(np.diff(pts)) if pts.size > 1 else 0.0))


def _shown_at(pts: NDArray[np.float64], times: NDArray[np.float64]) -> NDArray[np.int64]:
    """The last frame with pts <= t for each t; the first frame for times before it."""
    return np.maximum(np.searchsorted(pts, times + _SLACK, side="right") - 1, 0)


def _uniform(pts: NDArray[np.float64], end: float, count: int) -> NDArray[np.int64]:
    if count >= pts.size:
        return np.arange(pts.size)
    middles = pts[0] + (np.arange(count) + 0.5) / count * (end - pts[0])  # (count,)
    free = np.ones(pts.size, dtype=bool)
    homeless = []
    for i, t in zip(_shown_at(pts, middles), middles, strict=True):
        if free[i]:
            free[i] = False
        else:
            homeless.append(t)
    for t in homeless:
        free[np.argmin(np.where(free, np.abs(pts - t), np.inf))] = False
    return np.flatnonzero(~free)


def _per_second(pts: NDArray[np.float64], end: float, fps: float) -> NDArray[np.int64]:
    """Frames that are on screen at one of the times start + k / fps.

    Frame i is, if the first such time at or after its PTS lies before the next frame's PTS. Counting per
    frame, not per time, stays small when a broken stream spans years.
    """
    first = np.ceil((np.append(pts, max(end, pts[-1] + 2 * _SLACK)) - pts[0] - _SLACK) * fps)  # (F + 1,)
    first[0] = 0
    return np.flatnonzero(first[:-1] < first[1:])


def _newest(pts: NDArray[np.float64], count: int, fps: float) -> NDArray[np.int64]:
    """Frames shown at the last PTS - k / fps, k < count, as far as there are any."""
    times = pts[-1] - np.arange(count) / fps
    return np.unique(_shown_at(pts, times[times >= pts[0] - _SLACK]))


def _thin(indices: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The middles of `count` equal parts of the row, or the whole row where it is no longer than that."""
    if indices.size <= count:
        return indices
    return indices[((np.arange(count) + 0.5) * indices.size / count).astype(np.int64)]
