"""What a method has to say, by where it acts: inside the encoder, or at its end frame by frame.

Inside the LLM: `llm_kinds`. Over a whole clip at the encoder's end: `rivals.tokens.OverClip`. Behind the projector:
`fusion.Fusion`. `registry` has all methods by name. A method is a class without state, so threads may share it; it
decides without gradients, and what is merged by its plan passes them.

Shapes: F frames, n units of a frame (what becomes one token of the LLM), D width, d head width, B rows, H heads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from videoprune.config import EncoderPrune
from videoprune.prune.merge import apply_sized
from videoprune.types import KeepPlan

Product = tuple[int, int, int, int]  # b products of (m, k) with (k, n): b, m, k, n


@dataclass(frozen=True)
class Depth:
    """How far a frame has to shrink: from `units` to `final` units behind `num_blocks` blocks.

    prefix: tokens in front (CLS) that stay. cuts: units after each of METEOR's cuts where a budget over several
    encoders fixed them; None: the method's own way.
    """

    num_blocks: int
    units: int
    final: int
    prefix: int = 0
    cuts: tuple[int, ...] | None = None


@dataclass(frozen=True)
class BlockSize:
    """What a choice behind one block looks at: frames of `units` units of `unit` patches and `prefix` tokens.

    width, heads: of the encoder. first: whether it is the first removal.
    """

    frames: int
    units: int
    width: int
    heads: int
    unit: int = 1
    prefix: int = 0
    first: bool = True

    @property
    def tokens(self) -> int:
        return self.units * self.unit + self.prefix


def missing(name: str) -> Callable[..., Any]:
    """A stand-in for what was not given: it raises ValueError when it is called."""

    def raise_(*_: Any) -> Any:
        raise ValueError(f"{name}: not given; needed by this method")

    return raise_


_NO_ATTENTION, _NO_KEYS = missing("attention"), missing("keys")


@dataclass(frozen=True)
class BlockTokens:
    """The units of frames behind one block.

    x: (F, n, u * D), their patches side by side. first: whether this is the first removal. attention() -> (F, n), what
    each unit receives, 1 is the average. keys() -> (F, n, u * d), head means, side by side. The two are reckoned when
    they are called, and there only if `InsideEncoder.looks` says so; else they raise ValueError. prefix: tokens in
    front (CLS), of which x has none. order: int64 (F, n), each unit's place in the order that an `OrderedPlan` left;
    None: as they lie.
    """

    x: Tensor
    first: bool = True
    attention: Callable[[], Tensor] = _NO_ATTENTION
    keys: Callable[[], Tensor] = _NO_KEYS
    prefix: int = 0
    order: Tensor | None = None


@dataclass(frozen=True)
class OrderedPlan(KeepPlan):
    """A choice of a method that keeps its tokens in an order of its own from one removal to the next.

    order: int64 (B, K), each survivor's place in it; None: as they lie. Tokens themselves stay in ascending places.
    """

    order: Tensor | None = None

    @classmethod
    def of(cls, plan: KeepPlan, order: Tensor | None) -> OrderedPlan:
        """`plan` with an order."""
        return cls(**{f.name: getattr(plan, f.name) for f in fields(KeepPlan)}, order=order)


class InsideEncoder(ABC):
    """Removes units between the blocks of an encoder. source: the paper. merges: nothing is dropped, so every place has
    a survivor. by_content: `encoder.temporal` and `encoder.frames` may go with it."""

    source: ClassVar[str]
    merges: ClassVar[bool] = False
    by_content: ClassVar[bool] = False

    @abstractmethod
    def removals(self, config: EncoderPrune, depth: Depth) -> tuple[int, ...]:
        """Units to remove from a frame after each block; they sum to depth.units - depth.final."""

    @abstractmethod
    def decide(self, tokens: BlockTokens, remove: int, config: EncoderPrune) -> KeepPlan:
        """Which units go: a plan over (F, n) that keeps n - remove. Call `plan`, which checks it."""

    def looks(self, config: EncoderPrune) -> bool:
        """Whether `decide` asks for attention or keys."""
        return False

    def smallest(self, config: EncoderPrune, num_blocks: int, units: int) -> int:
        """The fewest of `units` units that its removals can leave."""
        return 1

    def operations(self, config: EncoderPrune, size: BlockSize) -> list[Product]:
        """The matrix products of one `decide`."""
        return []

    def at_end_operations(self, config: EncoderPrune, size: BlockSize, final: int) -> list[Product]:
        """The matrix products of `at_end`, from size.units to `final`."""
        return self.operations(config, replace(size, first=True)) if final < size.units else []

    def plan(self, tokens: BlockTokens, remove: int, config: EncoderPrune) -> KeepPlan:
        """`decide`, without gradients.

        Raises ValueError if `remove` is not in 0..n, or if the method asks for what is not there.
        """
        frames, count = tokens.x.shape[:2]
        if not 0 <= remove <= count:
            raise ValueError(f"remove={remove}; allowed: 0..{count}, the units of a frame")
        with torch.no_grad():
            plan = self.decide(tokens, remove, config)
        wanted = (frames, count - remove)
        assert tuple(plan.keep.shape) == wanted, f"{type(self).__name__} kept {plan.keep.shape}, not {wanted}"
        return plan

    def at_end(self, x: Tensor, final: int, config: EncoderPrune) -> tuple[Tensor, Tensor, KeepPlan]:
        """For an encoder that cannot lose tokens inside (ConvNeXt): reduce what leaves it, x (F, n, D), to `final`.

        -> tokens (F, final, D), sizes (F, final), and the plan.
        """
        plan = self.plan(BlockTokens(x), x.shape[1] - final, config)
        size = x.new_ones(x.shape[:2])
        (x,), size = apply_sized([x], plan, size)
        return x, size, plan


class ByFrame(ABC):
    """Keeps some places of each frame at the encoder's end and never looks at them: a control. draws: by chance."""

    source: ClassVar[str]
    draws: ClassVar[bool] = False

    @abstractmethod
    def plan(
        self,
        frames: int,
        tokens: int,
        keep: int,
        *,
        grid: tuple[int, int] | None = None,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
    ) -> KeepPlan:
        """`keep` of the `tokens` tokens of each frame stay: a plan over (frames, tokens). grid: rows and columns."""

    def kept(
        self,
        tokens: Sequence[int],
        keep: Sequence[int],
        grids: Sequence[tuple[int, int]] | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Which tokens of frames that follow each other stay, bool (sum of tokens,): keep[f] of frame f's tokens[f].

        grids: rows and columns of each frame, None where its tokens have no order row by row. Frames that are alike in
        all of this are asked for together.
        """
        shapes: Sequence[tuple[int, int] | None] = grids or [None] * len(tokens)
        kinds = list(zip(tokens, keep, shapes, strict=True))
        found = [torch.empty(0)] * len(kinds)
        for n, count, grid in dict.fromkeys(kinds):
            frames = [f for f, kind in enumerate(kinds) if kind == (n, count, grid)]
            places = self.plan(len(frames), n, count, grid=grid, generator=generator).keep.cpu()
            marks = torch.zeros(len(frames), n, dtype=torch.bool).scatter(1, places, True)
            for f, row in zip(frames, marks, strict=True):
                found[f] = row
        return torch.cat(found)


def attention_products(size: BlockSize) -> list[Product]:
    """The attention that units of a block receive: from CLS, or from all tokens where there is none."""
    rows, d, n = size.frames * size.heads, size.width // size.heads, size.tokens
    if size.prefix:
        return [(rows, 1, d, n)]
    return [(rows, n, d, n), (rows, 1, n, n)]


def pair_products(frames: int, tokens: int, width: int) -> Product:
    """Every other token of a frame against those between them: a bipartite match."""
    return (frames, -(-tokens // 2), width, tokens // 2)
