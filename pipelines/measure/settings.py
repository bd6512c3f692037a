"""Cells of a measurement of the time to the first token: which there are, in what order, and how one is measured.

A cell is one shape of model, number of frames and number of clips in a call. All its variants, the stock model, the
unpruned one and the methods at their retentions, take turns in one process on the same inputs.

Shapes: B clips in a call, L layers of the LLM.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pipelines.measure.alternating import rotated
from pipelines.measure.first_token import FirstTokenTimer, without_calibration
from pipelines.measure.methods import method_config
from videoprune.clock import now
from videoprune.config import PruneConfig
from videoprune.models.random_weights import random_inputs, random_model
from videoprune.plug.apply import apply, remove, trace

STOCK, BASELINE = "stock", "none"
_LONGEST = 300  # letters of a reason
REFUSALS = (RuntimeError, ValueError)  # out of memory, no kernel for these shapes, not for this family


@dataclass(frozen=True)
class Cell:
    """shape: as `random_model` takes it. concurrency: clips together in a call."""

    shape: str
    frames: int
    concurrency: int

    def __str__(self) -> str:
        return f"{self.shape} {self.frames} {self.concurrency}"


@dataclass(frozen=True)
class Variant:
    """label: `stock`, `none` or `method@retain`. prune: None for the stock model without `apply`."""

    method: str
    retain: float
    prune: PruneConfig | None

    @property
    def label(self) -> str:
        return self.method if self.method in (STOCK, BASELINE) else f"{self.method}@{self.retain:g}"


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
    """What was seen of one variant in one cell. runs: seconds by stage of each timed turn, by turn. visual: visual
    tokens on each of the L layers, by clip. prompt: tokens of the unpruned prompt, padding included. reason: why it
    could not be measured, "" if it was."""

    visual: tuple[tuple[int, ...], ...] = ()
    runs: dict[int, dict[str, float]] = field(default_factory=dict)
    peak_bytes: int | None = None
    prompt: int = 0
    reason: str = ""


def cells(shapes: Sequence[str], frames: Sequence[int], concurrency: Sequence[int]) -> list[Cell]:
    """Shape by shape, within it fewer frames first, then fewer clips."""
    return [Cell(s, f, c) for s in shapes for f in sorted(frames) for c in sorted(concurrency)]


def variants(methods: Sequence[str], retain: Sequence[float]) -> tuple[Variant, ...]:
    """The stock model, the unpruned one, and every method at every retention. Raises ValueError as `method_config`."""
    found = [Variant(STOCK, 1.0, None), Variant(BASELINE, 1.0, PruneConfig())]
    for method in methods:
        if method not in (STOCK, BASELINE):
            shares = sorted(retain, reverse=True)
            found += [Variant(method, r, without_calibration(method_config(method, r))) for r in shares]
    return tuple(found)


class LoadedModel:
    """A model of true shape with random weights, made on its device. loaded_bytes: what it takes there; None on a
    CPU. seconds: to make it."""

    def __init__(self, shape: str, setup: Setup) -> None:
        started = now(setup.device)
        self.shape, self.setup = shape, setup
        self.model = random_model(shape, dtype=getattr(torch, setup.dtype), device=setup.device)
        self.timer = FirstTokenTimer(self.model)
        self.cuda = self.timer.device.type == "cuda"
        self.loaded_bytes = torch.cuda.memory_allocated() if self.cuda else None
        self.seconds = now(setup.device) - started

    def take(self, variant: Variant, inputs: dict[str, Tensor], taken: Taken, turn: int | None) -> None:
        """One run of `variant`, noted in `taken`; turn: None to warm up. Raises what the model raises."""
        remove(self.model)
        gc.collect()  # what the variant before held lies in cycles of hooks
        if variant.prune is not None:
            apply(self.model, variant.prune)
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        seconds = self.timer.run(inputs)
        if self.cuda:
            peak = torch.cuda.max_memory_allocated() - (self.loaded_bytes or 0)
            taken.peak_bytes = max(peak, taken.peak_bytes or 0)
        seconds["choosing"] = 0.0
        if variant.prune is not None:
            seen = trace(self.model)
            taken.visual = seen.layers
            seconds |= {
                "choosing": seen.seconds,
                "choosing_before_llm": seen.encoder_seconds,
                "choosing_in_llm": seen.llm_seconds,
            }
        taken.prompt = inputs["input_ids"].shape[1]
        if turn is not None:
            taken.runs[turn] = seconds

    def release(self) -> None:
        """Give back what a variant that failed has left. Raises RuntimeError if the device itself is lost."""
        remove(self.model)
        free(self.setup.device)


def measure(
    loaded: LoadedModel,
    cell: Cell,
    wanted: Sequence[Variant],
    *,
    skip: Collection[str] = (),
    over: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[Variant, Taken]]:
    """Every variant of `cell`: those that fail as soon as they do, the others when all turns are over.

    skip: labels of variants that are known to fail. over: asked after every timed turn whether the time is spent;
    then the turns that are left are not taken. Raises what is neither out of memory nor a refusal.
    """
    setup = loaded.setup
    running = {v.label: v for v in wanted if v.label not in skip}
    taken = {label: Taken() for label in running}
    reason = ""
    try:
        inputs = random_inputs(
            loaded.model, cell.frames, text_tokens=setup.text, size=setup.size, clips=cell.concurrency
        )
    except REFUSALS as error:
        reason = explained(error)
    if reason:
        loaded.release()
        yield from ((v, Taken(reason=reason)) for v in running.values())
        return
    for turn in range(-setup.warmup, setup.runs):
        for label in rotated(list(running), turn):
            try:
                loaded.take(running[label], inputs, taken[label], turn if turn >= 0 else None)
            except REFUSALS as error:
                taken[label].reason = explained(error)
            if taken[label].reason:  # outside of `except`, whose traceback holds the tensors
                yield running.pop(label), taken[label]
                loaded.release()
        if turn >= 0 and over():
            break
    remove(loaded.model)
    for label, variant in running.items():
        yield variant, taken[label]


def free(device: str) -> None:
    """Give back what nothing holds any more. Raises RuntimeError if the device itself is lost."""
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()


def explained(error: Exception) -> str:
    """Type and first line of an error, cut where it gets long."""
    text = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {text}"[:_LONGEST]
