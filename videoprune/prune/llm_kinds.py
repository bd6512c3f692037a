"""What a method inside the LLM has to say: `InsideLLM`, and `Ranking` for one that only drops.

A method is a class without state, so threads may share it; it decides without gradients, and what is merged by its
choice passes them.

Shapes: B rows, n tokens at a cut, H heads, d head width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from videoprune.config import LLMPrune
from videoprune.prune.kinds import Product, missing
from videoprune.prune.select import top_k_mask, top_mask

_NO_TEXT, _NO_QUERIES = missing("text_attention"), missing("queries_keys")
_NO_HIDDEN = missing("hidden")


@dataclass(frozen=True)
class CutSize:
    """What a cut inside the LLM looks at: `tokens` arrive, text included, `asking` of them are the question.

    hidden, heads, kv_heads, head_dim: of the LLM. visual: how many of the tokens are visual, kept: how many of those
    stay. first: whether it is the first cut.
    """

    tokens: int
    asking: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    visual: int = 0
    kept: int = 0
    first: bool = True


@dataclass(frozen=True)
class LayerTokens:
    """The tokens that arrive at a cut inside the LLM.

    visual: bool (B, n), visual tokens. valid: bool (B, n), False at padding. wanted: int64 (B,), how many visual tokens
    the cut's fixed share leaves, at most those there. scale: (B,), factor of lambda by row, or None. generator: of
    random methods. text_attention(last) -> (B, H, n), what the question, or its last token, pays to each token.
    queries_keys() -> rotated q (B, H, n, d), k (B, Hk, n, d), scale of the logits. hidden() -> (B, n, W), what the
    layer behind the cut would compute on. The three are reckoned when called. in_frame: int64 (B, n), each visual
    token's place in its frame, -1 at all others; None unless the method says `needs_frames`. before: visual tokens of
    each row at the start and in each layer so far. num_layers: of the LLM. same: what is `wanted` of every row; None:
    of each another number.
    """

    visual: Tensor
    valid: Tensor
    wanted: Tensor
    scale: Tensor | None = None
    generator: torch.Generator | None = None
    text_attention: Callable[[bool], Tensor] = _NO_TEXT
    queries_keys: Callable[[], tuple[Tensor, Tensor, float]] = _NO_QUERIES
    hidden: Callable[[], Tensor] = _NO_HIDDEN
    in_frame: Tensor | None = None
    before: Sequence[Sequence[int]] = ()
    num_layers: int = 0
    same: int | None = None


@dataclass(frozen=True)
class LayerChoice:
    """What a cut leaves. kept: bool (B, n), the visual tokens that stay. into: int64 (B, n), for each visual token the
    place of the one that it ends in, itself if it stays, or -1: dropped; None: all others are dropped. weight: (B, n),
    what each counts in the sum that its survivor becomes; None: the mean of the group. as_wanted: True promises that as
    many stay as `LayerTokens.wanted` says, so that nobody has to ask the device."""

    kept: Tensor
    into: Tensor | None = None
    weight: Tensor | None = None
    as_wanted: bool = False


class InsideLLM(ABC):
    """Takes visual tokens away before some layers of the LLM: they are dropped, or merge into others.

    source: the paper. needs_attention: it calls text_attention or queries_keys. needs_frames: it reads `in_frame`, so
    nothing may leave before the LLM. by_lambda: counts are its own, by `llm.lambda_`. by_content: counts are its own,
    by what it sees, and average `llm.keep` over the layers. All others leave `LayerTokens.wanted`.
    """

    source: ClassVar[str]
    needs_attention: ClassVar[bool] = False
    needs_frames: ClassVar[bool] = False
    by_lambda: ClassVar[bool] = False
    by_content: ClassVar[bool] = False

    @abstractmethod
    def decide(self, tokens: LayerTokens, config: LLMPrune) -> LayerChoice | None:
        """Which visual tokens stay, and into which the others merge; None: all stay. Call `choose`, which checks it."""

    def askers(self, x: Tensor, visual: Tensor, question: Tensor) -> Tensor:
        """Which tokens of the question count in `LayerTokens.text_attention`, bool (B, n).

        Asked once, of the embeddings x (B, n, W). visual, question: bool (B, n), the visual tokens, and all tokens
        behind the last of them.
        """
        return question

    def shares(self, config: LLMPrune, num_layers: int) -> dict[int, float] | None:
        """By layer before which it acts, the share of the visual tokens that is left there, on average; None: as
        `llm.layers`, `llm.ratios` and `llm.keep` say."""
        return None

    def operations(self, config: LLMPrune, size: CutSize) -> list[Product]:
        """The matrix products of one cut."""
        return []

    def choose(self, tokens: LayerTokens, config: LLMPrune) -> LayerChoice | None:
        """`decide`, without gradients. Raises ValueError if more is asked for than is there, and without `llm.lambda_`
        if the method needs it."""
        if self.by_lambda and config.lambda_ is None:
            raise ValueError(f"llm.lambda_=None; needed for llm.method={config.method!r}")
        with torch.no_grad():
            return self.decide(tokens, config)


class Ranking(InsideLLM):
    """Keeps those visual tokens that score highest, and drops the others."""

    @abstractmethod
    def rank(self, tokens: LayerTokens, config: LLMPrune) -> tuple[Tensor, Tensor]:
        """How many stay, int64 (B,), often `tokens.wanted`, and scores (B, n), the highest of which stay."""

    def decide(self, tokens: LayerTokens, config: LLMPrune) -> LayerChoice | None:
        counts, scores = self.rank(tokens, config)
        assert scores.shape == tokens.visual.shape, f"{type(self).__name__}: scores {tuple(scores.shape)}"
        as_wanted = counts is tokens.wanted
        if not as_wanted:  # counts of its own are checked
            return LayerChoice(top_k_mask(scores, counts, tokens.visual))
        wanted = counts if tokens.same is None else tokens.same
        return LayerChoice(top_mask(scores, wanted, tokens.visual), as_wanted=True)
