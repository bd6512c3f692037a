"""What a prefill did, as plain numbers: a `Trace` for each prompt of the batch, where somebody asks for it.

Shapes: B rows, S tokens of the prompt, n tokens of it left.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from videoprune.plug.current_pass import Pass, traces
from videoprune.plug.encoder_pass import EncoderPass
from videoprune.plug.llm_pass import Prefill
from videoprune.types import Places, Trace


def dense_traces(now: Pass, visual: Tensor, num_layers: int) -> None:
    """A prefill in which nothing was dropped. visual: bool (B, S)."""
    asked = traces()
    if asked is None:
        return
    counts = visual.sum(1).tolist()
    for dense, encoder in zip(counts, _encoders(now, counts), strict=True):
        every = tuple(range(dense))
        asked.found.append(
            Trace(
                dense,
                encoder,
                fused=dense,
                llm_layers=(dense,) * num_layers,
                seconds={"encode_prune": _encode_seconds(now) / len(counts), "llm_prune": 0.0},
                places=Places(every, every) if asked.places else None,
            )
        )


def pruned_traces(now: Pass, prefill: Prefill, visual: Tensor, places: Tensor) -> None:
    """A prefill that is done. visual: bool (B, S). places: (B, n), where its tokens were in the prompt."""
    asked = traces()
    if asked is None:
        return
    dense, rows = visual.sum(1).tolist(), len(visual)
    found = _places(prefill, visual, places) if asked.places else [None] * rows
    seconds, encoders = prefill.clock.seconds / rows, _encoders(now, dense)
    for row in range(rows):
        layers = tuple(counts[row] for counts in prefill.counts)
        asked.found.append(
            Trace(
                dense[row],
                encoders[row],
                fused=layers[0],
                llm_layers=layers,
                seconds={"encode_prune": _encode_seconds(now) / rows, "llm_prune": seconds},
                places=found[row],
            )
        )


def _places(prefill: Prefill, visual: Tensor, places: Tensor) -> list[Places]:
    rank = (visual.long().cumsum(1) - 1).gather(1, places)  # (B, n), which visual token each one is
    last = rank.gather(1, prefill.order)
    return [
        Places(tuple(r[v].tolist()), tuple(a[b].tolist()))
        for r, v, a, b in zip(rank, prefill.prompt.visual, last, prefill.visual, strict=True)
    ]


def _encode_seconds(now: Pass) -> float:
    """Spent on choosing and merging in the encoders, where they ran in the same call."""
    return sum(run.clock.seconds for run in now.encoders_of_call())


def _encoders(now: Pass, dense: Sequence[int]) -> list[dict[str, tuple[int, int]]]:
    """By row, tokens of its clip before and after each encoder; empty where clips cannot be told apart.

    dense: visual tokens of each row.
    """
    found: list[dict[str, tuple[int, int]]] = [{} for _ in dense]
    for run in now.encoders_of_call():
        shares = _by_row(run, dense)
        if shares is None:
            return [{} for _ in dense]
        for row, units in zip(found, shares, strict=True):
            before, after = row.get(run.name, (0, 0))
            row[run.name] = (before + sum(u for u, _ in units), after + sum(u for _, u in units))
    return found


def _by_row(run: EncoderPass, dense: Sequence[int]) -> list[list[tuple[int, int]]] | None:
    """Frames of one pass of an encoder, by row of the prompt; None: it cannot be told."""
    if len(dense) == 1:
        return [run.units()]
    frames, found = run.units(), []
    for tokens in dense:  # frames follow each other row by row, and a unit is one visual token
        own: list[tuple[int, int]] = []
        while frames and sum(u for u, _ in own) < tokens:
            own.append(frames.pop(0))
        found.append(own)
    if not frames and [sum(u for u, _ in own) for own in found] == list(dense):
        return found
    clips = iter(run.units_by_clip())  # pooled, or images beside a video
    if len(run.units_by_clip()) != sum(n > 0 for n in dense):
        return None
    return [next(clips) if n else [] for n in dense]
