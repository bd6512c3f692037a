"""What a prefill did, as plain numbers: a `Trace` for each prompt of the batch, where somebody asks for it.

Shapes: B rows, S tokens of the prompt, n tokens of it left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

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
    dense = visual.sum(1).tolist()
    every = [tuple(range(n)) for n in dense]
    asked.found += _traces(
        now,
        dense,
        dense,
        [(n,) * num_layers for n in dense],
        0.0,
        [Places(all_, all_) for all_ in every] if asked.places else None,
    )


def pruned_traces(now: Pass, prefill: Prefill) -> None:
    """A prefill that is done."""
    asked = traces()
    if asked is None:
        return
    asked.found += _traces(
        now,
        prefill.prompt.dense.sum(1).tolist(),
        prefill.fused.tolist(),
        list(zip(*prefill.counts, strict=True)),
        prefill.clock.seconds,
        _places(prefill) if asked.places else None,
    )


def _traces(
    now: Pass,
    dense: Sequence[int],
    fused: Sequence[int],
    layers: Sequence[tuple[int, ...]],
    llm_seconds: float,
    places: Sequence[Places] | None,
) -> list[Trace]:
    """By row: dense visual tokens, those that enter the LLM, those of each layer, and which ones they are. llm_seconds:
    choosing, of all rows."""
    encoder_seconds = sum(run.clock.seconds for run in now.encoders_of_call())
    seconds = {"encode_prune": encoder_seconds / len(dense), "llm_prune": llm_seconds / len(dense)}
    return [
        Trace(tokens, encoder, entered, counts, dict(seconds), places[row] if places else None)
        for row, (tokens, encoder, entered, counts) in enumerate(
            zip(dense, _encoders(now, dense), fused, layers, strict=True)
        )
    ]


def _places(prefill: Prefill) -> list[Places]:
    prompt = prefill.prompt
    rank = (prompt.dense.long().cumsum(1) - 1).gather(
        1, prompt.places
    )  # (B, n), which visual token each one is
    last = rank.gather(1, prefill.order)
    return [
        Places(tuple(r[v].tolist()), tuple(a[b].tolist()))
        for r, v, a, b in zip(rank, prompt.visual, last, prefill.visual, strict=True)
    ]


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
    by_clip = run.units_by_clip()  # pooled, or images beside a video
    if len(by_clip) != sum(n > 0 for n in dense):
        return None
    clips = iter(by_clip)
    return [next(clips) if n else [] for n in dense]


def with_seconds(traces: Sequence[Trace], spent: float) -> list[Trace]:
    """Traces of one batch with the seconds of each prompt's share: choosing, and all the rest."""
    chosen = sum(t.seconds["llm_prune"] for t in traces)
    each = (spent - chosen) / max(1, len(traces))
    return [replace(t, seconds={"llm": each, "llm_prune": t.seconds["llm_prune"]}) for t in traces]
