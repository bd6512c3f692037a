"""Cells of a measurement of the time to the first token: which there are, in what order, and how one is measured.

A cell is one shape of model, number of frames and number of clips in a call. All its settings, the stock model, the
unpruned one and the methods at their retentions, take turns in one process on the same inputs.

Shapes: B clips in a call, L layers of the LLM.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pipelines.measure.first_token import FirstTokenTimer, generate
from pipelines.measure.launches import launches
from pipelines.measure.memory import peak_above, warm_peak
from pipelines.measure.plan import Setting
from pipelines.measure.turns import WARM_UP_TOKENS, explained, take_turns
from videoprune import apply, remove, trace
from videoprune.clock import now
from videoprune.models.random_weights import random_inputs, random_model

REFUSALS = (Exception,)  # out of memory, no kernel for these shapes, not for this family: a row says it


@dataclass(frozen=True)
class Cell:
    """shape: as `random_model` takes it. concurrency: clips together in a call."""

    shape: str
    frames: int
    concurrency: int

    def __str__(self) -> str:
        return f"{self.shape} {self.frames} {self.concurrency}"


@dataclass(frozen=True)
class Setup:
    """How all cells of a run are measured. size: height and width of frames in pixels, for encoders that take any.
    text: tokens of the question. runs: timed turns, after `warmup` others."""

    device: str
    dtype: str = "bfloat16"
    size: tuple[int, int] = (448, 448)
    text: int = 40
    runs: int = 5
    warmup: int = 1

    def __post_init__(self) -> None:
        if torch.device(self.device).type == "cuda" and not torch.cuda.is_available():
            raise ValueError(f"device={self.device!r}, but torch finds no GPU; allowed here: cpu")
        if not isinstance(getattr(torch, self.dtype, None), torch.dtype):
            raise ValueError(f"dtype={self.dtype!r}; allowed: a type of torch, such as bfloat16 or float32")
        if self.runs < 1 or self.warmup < 0:
            raise ValueError(f"runs={self.runs}, warmup={self.warmup}; allowed: from 1 on, from 0 on")


@dataclass
class Taken:
    """What was seen of one setting in one cell. runs: seconds by stage of each timed turn, by turn. visual: visual
    tokens on each of the L layers, by clip. peak_bytes: above the loaded model and the inputs. kernels, waits: launched
    up to the first token, and how often the host waits for one, as `launches` counts. prompt: tokens of the unpruned
    prompt, padding included. reason: why it could not be measured, "" if it was."""

    visual: tuple[tuple[int, ...], ...] = ()
    runs: dict[int, dict[str, float]] = field(default_factory=dict)
    peak_bytes: int | None = None
    kernels: int | None = None
    waits: int | None = None
    prompt: int = 0
    reason: str = ""


def cells(shapes: Sequence[str], frames: Sequence[int], concurrency: Sequence[int]) -> list[Cell]:
    """Shape by shape, within it fewer frames first, then fewer clips."""
    return [Cell(s, f, c) for s in shapes for f in sorted(frames) for c in sorted(concurrency)]


class LoadedModel:
    """A model of true shape with random weights, made on its device. seconds: to make it."""

    def __init__(self, shape: str, setup: Setup) -> None:
        started = now(setup.device)
        self.shape, self.setup = shape, setup
        self.model = random_model(shape, dtype=getattr(torch, setup.dtype), device=setup.device)
        self.timer = FirstTokenTimer(self.model)
        self.seconds = now(setup.device) - started

    def prepare(self, setting: Setting) -> None:
        remove(self.model)
        gc.collect()  # what the setting before held lies in cycles of hooks
        if setting.prune is not None:
            apply(self.model, setting.prune)

    def take(self, setting: Setting, inputs: dict[str, Tensor], taken: Taken, turn: int) -> None:
        """One run of `setting`, noted in `taken`; turn: negative to warm up. Raises what the model raises."""
        self.prepare(setting)
        if turn < 0:
            generate(self.model, inputs, WARM_UP_TOKENS)
            return
        seconds: dict[str, float] = {}
        if self.timer.device.type == "cuda":
            peak = peak_above(lambda: seconds.update(self._time(inputs, taken)), self.setup.device)
            taken.peak_bytes = max(peak or 0, taken.peak_bytes or 0)
        else:  # where the kernel has to be asked, asking slows the run: see `measure_memory`
            seconds = self._time(inputs, taken)
        taken.prompt = inputs["input_ids"].shape[1]
        taken.runs[turn] = seconds

    def _time(self, inputs: dict[str, Tensor], taken: Taken) -> dict[str, float]:
        """Seconds by stage, choosing tokens among them, which lies within the others."""
        with trace() as traces:
            seconds = self.timer.run(inputs)
        taken.visual = tuple(t.llm_layers for t in traces)
        before, inside = (
            sum(t.seconds.get(stage, 0.0) for t in traces) for stage in ("encode_prune", "llm_prune")
        )
        chosen = {"choosing": before + inside, "choosing_before_llm": before, "choosing_in_llm": inside}
        return seconds | (chosen if traces else {"choosing": 0.0})

    def release(self) -> None:
        """Give back what a setting that failed has left. Raises RuntimeError if the device itself is lost."""
        remove(self.model)
        free(self.setup.device)


def measure(
    loaded: LoadedModel,
    cell: Cell,
    wanted: Sequence[Setting],
    *,
    over: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[Setting, Taken]]:
    """Every setting of `cell`: those that fail as soon as they do, the others when all turns are over.

    over: asked after every timed turn whether the time is spent; then the turns that are left are not taken. Raises
    what is neither out of memory nor a refusal.
    """
    by_label = {s.label: s for s in wanted}
    taken = {label: Taken() for label in by_label}
    inputs, reason = _inputs(loaded, cell)
    if reason:
        loaded.release()
        yield from ((s, Taken(reason=reason)) for s in wanted)
        return
    once = lambda label, turn: loaded.take(by_label[label], inputs, taken[label], turn)  # noqa: E731
    setup = loaded.setup
    turns = take_turns(
        list(by_label), once, runs=setup.runs, warmup=setup.warmup, refusals=REFUSALS, over=over
    )
    for turn in turns:
        if turn.reason:
            taken[turn.label].reason = turn.reason
            yield by_label[turn.label], taken[turn.label]
            loaded.release()
    remove(loaded.model)
    yield from ((by_label[label], one) for label, one in taken.items() if not one.reason)


def measure_memory(loaded: LoadedModel, cell: Cell, seen: Sequence[tuple[Setting, Taken]]) -> None:
    """Note the peak of settings that have none: each once more, untimed."""
    inputs, _ = _inputs(loaded, cell)
    for setting, taken in seen:
        if taken.peak_bytes is None:
            loaded.prepare(setting)
            taken.peak_bytes = warm_peak(lambda: generate(loaded.model, inputs, 1), loaded.setup.device)
    remove(loaded.model)


def measure_launches(loaded: LoadedModel, cell: Cell, seen: Sequence[tuple[Setting, Taken]]) -> None:
    """Note what each setting launches: each once more, untimed."""
    inputs, _ = _inputs(loaded, cell)
    for setting, taken in seen:
        loaded.prepare(setting)
        with launches() as found:
            generate(loaded.model, inputs, 1)
        taken.kernels, taken.waits = found.kernels.total(), found.waits.total()
    remove(loaded.model)


def _inputs(loaded: LoadedModel, cell: Cell) -> tuple[dict[str, Tensor], str]:
    """Prompts of the cell, or why there are none."""
    size, text = loaded.setup.size, loaded.setup.text
    try:
        made = random_inputs(loaded.model, cell.frames, text_tokens=text, size=size, clips=cell.concurrency)
    except REFUSALS as error:
        return {}, explained(error)
    return made, ""


def free(device: str) -> None:
    """Give back what nothing holds any more. Raises RuntimeError if the device itself is lost."""
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
