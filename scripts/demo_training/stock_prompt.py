"""Clips of the demo models of stock classes on their way into the LLM: encoded, kept in a store, made a prompt of.

Shapes: B clips, T time steps of a clip, n tokens of a time step, K visual tokens kept, L places of a prompt before the
question, W width of the LLM.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from demo_training.blocks import attention_by_blocks, block_ids
from demo_training.clips import Group, RenderedClips, merging
from demo_training.data import HARD_SHARE, frames_of, kept_first, least_cover, owner_to_grid
from demo_training.dense import IGNORE, LATER, LAYER, token_labels, token_places
from demo_training.shapes import StockShape
from videoprune import apply, remove
from videoprune.config import PruneConfig
from videoprune.eval.benchmarks.moving_shapes.scene import Scene

GROUP, CAPACITY, NEW_GROUPS = 8, 400, 0.2
DROPS = {False: (0.0, 0.3, 0.6), True: (0.0, 0.5, 0.5, 0.7, 0.7, 0.8)}  # share that goes at random, by split
MODES = [(0.3, 1.0), (0.35, 0.5), (0.35, 0.375)]  # (share of the steps, what EvoPrune keeps)


@dataclass(frozen=True)
class Encoded:
    """One clip: what the projector reads (T, n, D) in half precision, its units' objects (T, n), kept units (T, n)."""

    scene: Scene
    x: dict[str, Tensor]
    owner: Tensor
    kept: Tensor


@torch.no_grad()
def encode_group(shape: StockShape, model: Any, group: Group, keep: float) -> list[Encoded]:
    scenes, frames, owners = group
    if keep < 1:
        apply(model, PruneConfig(encoder=merging(keep)))
    x, kept = shape.encode(model, frames.to(model.device), len(scenes))
    remove(model)
    step = shape.frames_per_step
    most, least = max(len(s.objects) for s in scenes), least_cover(scenes[0])
    cells = owner_to_grid(owners.numpy()[step - 1 :: step], most, shape.tokens_side, least)
    owner = torch.from_numpy(cells).flatten(1)
    t = frames_of(scenes[0]) // step
    return [
        Encoded(
            s,
            {k: v[i * t : (i + 1) * t].cpu().half() for k, v in x.items()},
            owner[i * t : (i + 1) * t],
            kept[i * t : (i + 1) * t].cpu(),
        )
        for i, s in enumerate(scenes)
    ]


@dataclass(frozen=True)
class Prefix:
    """The prompt before the question with K visual tokens: embeddings (B, L', W), places (B, L'), and of the visual
    tokens alone their features (B, K, W), labels (B, K, 10), object places (B, K, 4) and where they are (B, K)."""

    embeds: Tensor
    places: Tensor
    z: Tensor
    labels: Tensor
    objects: Tensor
    at: Tensor
    deepstack: list[Tensor]


def prefix(
    shape: StockShape, model: Any, layout: Tensor, clips: list[Encoded], keep: float, drop: float
) -> Prefix:
    """keep: EvoPrune's share. drop: share of the rest that goes at random, but nothing that is shown for a moment: what
    has no token left cannot be answered. layout: ids of the prompt's start (L,)."""
    x = {k: torch.stack([c.x[k] for c in clips]).float().to(model.device) for k in clips[0].x}
    kept = torch.stack([c.kept for c in clips])  # (B, T, n)
    z, taps, kept = shape.project(model, x, kept, keep)  # (B, T*n, W), NaN-free, and which are there
    kept = kept.flatten(1)
    count = int(kept.sum(1).min())
    count = max(8, round((1 - drop) * count))
    first = torch.stack([kept_first(c.scene, c.owner) for c in clips]).flatten(1)
    score = torch.rand(kept.shape) + first
    chosen = score.where(kept, -1.0).topk(count, 1).indices.sort(1).values  # (B, K)
    frame = torch.arange(kept.shape[1]) // (kept.shape[1] // clips[0].kept.shape[0]) * shape.frames_per_step
    frame = (frame + shape.frames_per_step - 1)[chosen]
    owner = torch.stack([c.owner for c in clips]).flatten(1).gather(1, chosen)
    rows = zip(clips, owner, frame, strict=True)
    known = [(token_labels(c.scene, o, f), token_places(c.scene, o, f)) for c, o, f in rows]
    visual = torch.nonzero(shape.droppable(layout, model)).flatten()  # places of the visual tokens
    gone = torch.ones(len(clips), len(layout), dtype=torch.bool)
    gone[:, visual] = False
    gone.scatter_(1, visual[chosen], True)
    places = gone.nonzero()[:, 1].view(len(clips), -1)  # survivors and text, in order
    full = model.model.get_input_embeddings()(layout.to(z.device)).expand(len(clips), -1, -1).clone()
    full = shape.fixed(model, full)
    full = full.index_copy(1, visual.to(z.device), z)
    spread = places[..., None].to(z.device)
    at = torch.searchsorted(places, visual[chosen])
    deep = []
    for tap in taps:
        whole = torch.zeros_like(full).index_copy(1, visual.to(z.device), tap)
        deep.append(whole.gather(1, spread.expand(-1, -1, full.shape[2])))
    return Prefix(
        full.gather(1, spread.expand(-1, -1, full.shape[2])),
        places,
        z.gather(1, chosen[..., None].expand(-1, -1, z.shape[2]).to(z.device)),
        torch.stack([k[0] for k in known]).to(z.device),
        torch.stack([k[1] for k in known]).to(z.device),
        at,
        deep,
    )


def answer_logits(
    shape: StockShape,
    model: Any,
    layout: Tensor,
    start: Prefix,
    ids: Tensor,
    labels: Tensor,
    lengths: list[int],
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """As `llm.answer_logits`, at the positions that tokens have in a whole prompt."""
    core, before = model.model.language_model, start.embeds.shape[1]
    embeds = torch.cat([start.embeds, core.embed_tokens(ids)], 1)
    block = block_ids(before, lengths)
    positions = shape.positions(model, layout)  # (P, L)
    first = int(positions.max()) + 1
    text = torch.cat([torch.arange(first, first + n) for n in lengths])
    rows = positions[:, start.places]  # (P, B, L')
    rows = torch.cat([rows, text.expand(rows.shape[0], rows.shape[1], -1)], 2)
    with attention_by_blocks(core.config):
        hidden = _hidden_states(
            core, embeds, block.to(embeds.device), rows.to(embeds.device), start.deepstack
        )
    last = hidden[-1][:, before - 1 : -1]
    at = start.at[..., None].expand(-1, -1, embeds.shape[2]).to(embeds.device)
    return model.lm_head(last[labels != IGNORE]), (hidden[LAYER].gather(1, at), hidden[LATER].gather(1, at))


def _hidden_states(
    core: Any, x: Tensor, block: Tensor, positions: Tensor, deepstack: list[Tensor]
) -> list[Tensor]:
    """States before each layer, then the normed end. DeepStack features are added behind the first layers."""
    rope = core.rotary_emb(x, positions if positions.shape[0] > 1 else positions[0])
    states = []
    for i, layer in enumerate(core.layers):
        states.append(x)
        x = layer(x, attention_mask=block, position_embeddings=rope)
        if i < len(deepstack):
            x = torch.cat([x[:, : deepstack[i].shape[1]] + deepstack[i], x[:, deepstack[i].shape[1] :]], 1)
    return [*states, core.norm(x)]


class Store:
    """Encoded clips by split and by EvoPrune's share; NEW_GROUPS new groups come for every draw."""

    def __init__(self, shape: StockShape, model: Any, step: int) -> None:
        self.shape, self.model, self.owed = shape, model, 0.0
        self.clips: dict[tuple[bool, float], list[Encoded]] = {
            (hard, keep): [] for hard in (False, True) for _, keep in MODES
        }
        self.loaders = {
            hard: iter(
                DataLoader(RenderedClips(GROUP, shape.side, step + 7, hard), batch_size=None, num_workers=1)
            )
            for hard in (False, True)
        }

    def draw(self, keep: float, count: int, rng: np.random.Generator) -> list[Encoded]:
        while self.owed >= 1 or min(map(len, self.clips.values())) < 2 * count:
            hard, share = min(self.clips, key=lambda key: len(self.clips[key]) / (1 + key[0]))
            group = encode_group(self.shape, self.model, next(self.loaders[hard]), share)
            self.clips[hard, share] = (self.clips[hard, share] + group)[-CAPACITY * (1 + hard) :]
            self.owed = max(0.0, self.owed - 1)
        self.owed += NEW_GROUPS
        held = self.clips[bool(rng.random() < HARD_SHARE), keep]
        return [held[i] for i in rng.choice(len(held), count, replace=False)]
