"""One `Pass` for each call of a model: made at the door that the call comes through, read by the hooks, gone with it.

A pass lives in a ContextVar, so that threads and tasks never see each other's. Nothing of a call lies on the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from videoprune.types import Trace

if TYPE_CHECKING:
    from videoprune.plug.encoder_pass import EncoderPass
    from videoprune.plug.kept_keys import KeptKeys
    from videoprune.plug.prefix import Prefix
    from videoprune.plug.settings import Settings


@dataclass(eq=False)
class Pass:
    """One call. owner: what `apply` put on the model that is called; hooks of another model do not read it.

    visual: bool (B, S), which places of the prompt visual tokens take, until the prefill has begun; None where there
    is no prompt. prompt_tokens: S of the prompt that `generate` was given: what stands behind it in a prefill are
    drafts of another model; prompts: B. images: within a call for the features of images, each of which stands alone.
    clips: frames of each clip, where the caller says it; None: read off the prompts.
    cuts: in a model of several encoders, by name of those that lose tokens inside: tokens of a frame after each of
    METEOR's cuts. generator: of random controls, None: each encoder's own. encoders: what runs of each encoder, by
    name; encoded: all that ran. frames: patches of each frame that an encoder has seen, 0 for images whose patches are
    no frame. marked: places without a token in features that were made before. layers: what the LLM's layers do now:
    a prefill, or a step, which reads `keys`. door: the module that the call came to. prefix: what the LLM has made of
    the prompts' beginnings before, a row for each. beginnings: what this call makes of its prompts, which are such
    beginnings, goes there.
    """

    owner: Any
    settings: Settings
    visual: Tensor | None = None
    prompt_tokens: int | None = None
    prompts: int | None = None
    images: bool = False
    clips: Sequence[int] | None = None
    cuts: Mapping[str, tuple[int, ...]] | None = None
    generator: torch.Generator | None = None
    encoders: dict[str, EncoderPass] = field(default_factory=dict)
    encoded: list[EncoderPass] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    marked: int | None = None
    layers: Any = None
    keys: KeptKeys | None = None
    door: Any = None
    prefix: Prefix | None = None
    beginnings: list[Prefix] | None = None
    outer: Pass | None = None
    token: Token[Pass | None] | None = None

    def __post_init__(self) -> None:
        if self.visual is not None and self.prompts is None:
            self.prompts = len(self.visual)

    def calls(self) -> Iterator[Pass]:
        """This call, and those of the same model around it, from the inside out."""
        call: Pass | None = self
        while call is not None and call.owner is self.owner:
            yield call
            call = call.outer

    def prompt(self) -> Tensor | None:
        """Visual places of the prompts that this call is about, though an outer call was given them."""
        return next((c.visual for c in self.calls() if c.visual is not None), None)

    def shared(self) -> tuple[Prefix | None, list[Prefix] | None]:
        """`prefix` and `beginnings` of this call, though an outer one was given them."""
        found = (
            (c.prefix, c.beginnings) for c in self.calls() if c.prefix is not None or c.beginnings is not None
        )
        return next(found, (None, None))

    def expected_marks(self, rows: int) -> int | None:
        """Places without a token that a prefill of `rows` rows must find; None: features from elsewhere, not known."""
        call = next((c for c in self.calls() if c.encoded or c.marked is not None), None)
        if call is None or not all(run.countable for run in call.encoded):
            return None
        marks = sum(run.marked for run in call.encoded) + (call.marked or 0)
        return marks * self._repeats(rows)

    def encoders_of_call(self) -> list[EncoderPass]:
        """What ran of the encoders for this call, in it or in the one around it."""
        return next((c.encoded for c in self.calls() if c.encoded), [])

    def frames_of(self, rows: int) -> int | None:
        """Frames that a prefill of `rows` rows is about, all together; None: not known, or not of one size."""
        found = next((c.frames for c in self.calls() if c.frames), [])
        return len(found) * self._repeats(rows) if len(set(found)) == 1 and found[0] else None

    def _repeats(self, rows: int) -> int:
        """How often a prefill of `rows` rows has each prompt: beams and samples repeat it."""
        prompts = [c.prompts for c in self.calls() if c.prompts is not None]
        return rows // (prompts[-1] if prompts else rows)

    def drafted(self, tokens: int) -> int:
        """How many of a prefill's `tokens` stand behind the prompt."""
        given = next((c.prompt_tokens for c in self.calls() if c.prompt_tokens is not None), tokens)
        return max(0, tokens - given)


@dataclass
class Traces:
    """Collects the traces of the passes within `trace`. places: which tokens survive is noted too."""

    found: list[Trace]
    places: bool


_PASS: ContextVar[Pass | None] = ContextVar("videoprune_pass", default=None)
_TRACES: ContextVar[Traces | None] = ContextVar("videoprune_traces", default=None)


def current(owner: Any) -> Pass | None:
    """The pass that hooks of `owner` belong to, or None outside one."""
    found = _PASS.get()
    return found if found is not None and found.owner is owner else None


def current_keys() -> KeptKeys | None:
    """What the cache of the step under way holds."""
    found = _PASS.get()
    return None if found is None else found.keys


def open_pass(new: Pass) -> None:
    """Begin a pass. `close_pass` must follow, in the same context."""
    new.outer = _PASS.get()
    new.token = _PASS.set(new)


def close_pass(done: Pass) -> None:
    assert done.token is not None
    _PASS.reset(done.token)
    done.token = done.outer = None


@contextmanager
def passing(new: Pass) -> Iterator[Pass]:
    """`new` is the current pass within."""
    open_pass(new)
    try:
        yield new
    finally:
        close_pass(new)


@contextmanager
def trace(*, places: bool = False) -> Iterator[list[Trace]]:
    """What pruned models do within, in this thread: a `Trace` for each prompt of each prefill, in their order.

    places: note as well which visual tokens survive; it costs a wait for the GPU.
    """
    found: list[Trace] = []
    token = _TRACES.set(Traces(found, places))
    try:
        yield found
    finally:
        _TRACES.reset(token)


def traces() -> Traces | None:
    """Where traces go now; None where nobody asks for them."""
    return _TRACES.get()
