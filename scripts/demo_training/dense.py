"""Dense targets of the LLM's training: what each visual token should know, long before any answer is right.

Answers alone teach little per clip. Two cheap losses give hundreds of targets a clip: the projected token should
lie near the words for its object (so a question's word finds it) and tell where its object is; a few layers into the
LLM it should know what only several frames show: where its object came from and when; and a layer later what takes
all objects before it: how many stay, the how-manieth short event this is. Then a question is a look-up. The heads are
not kept.

Shapes: B clips, K visual tokens, W width of the LLM.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast

from demo_training.data import clip_times, frames_of
from videoprune.eval.benchmarks.moving_shapes.hard_scene import MAX_STEADY, SHOTS, SLOTS, HardScene
from videoprune.eval.benchmarks.moving_shapes.scene import CHARACTERS, COLORS, DIRECTIONS, SHAPES, Scene

IGNORE = -100
LAYER, LATER = 3, 4  # the heads read the hidden states after this many layers
KINDS = {"color": [*COLORS], "shape": [*SHAPES], "character": [*CHARACTERS]}
STATES = {
    "direction": [*DIRECTIONS, ""],
    "slot": [0, 1, 2, 3],
    "shot": [False, True],  # of the hard split: in the second one
    "moment": [False, True],  # of the hard split: not there for long
}
# Of the hard split, read later. A token sees what came before it alone.
SUMS = {
    "rank": [0, 1, 2, 3, 4],  # short events before its own
    "again": [False, True],  # in the second shot: its like was in the first one
    "staying": [*range(1, MAX_STEADY + 1)],  # objects that stay for this shot
}
_SEEN = 2  # frames of a shot before it is asked how many stay
_TEMPERATURE = 16.0
_PLACE_WEIGHT = 20.0  # of squared errors beside cross entropies
_NAMES = [*KINDS, *STATES, *SUMS]
_EARLY = len(KINDS) + len(STATES)


def token_labels(scene: Scene, owner: Tensor, frame: Tensor) -> Tensor:
    """Targets of tokens with objects owner (K,) (-1 is none) in frames frame (K,): int64 (K, 10), or IGNORE.

    A direction is asked for from the third frame on that shows the object.
    """
    if isinstance(scene, HardScene):
        return _hard_labels(scene, owner, frame)
    table = torch.full((len(scene.objects) + 1, len(_NAMES)), IGNORE)
    count = frames_of(scene)
    first = torch.full((len(scene.objects) + 1,), count)
    for i, o in enumerate(scene.objects):
        slot = round(o.appears / (0.19 * scene.duration))
        kinds = {"color": o.color, "shape": o.shape, "character": o.character}
        _note(table[i], {**kinds, "direction": o.direction, "slot": slot})
        first[i] = int(np.ceil(count * o.appears / scene.duration - 0.5))
    labels = table[owner]  # owner -1 reads the last row
    labels[:, _NAMES.index("direction")].masked_fill_(frame < first[owner] + 2, IGNORE)
    return labels


def _hard_labels(scene: HardScene, owner: Tensor, frame: Tensor) -> Tensor:
    table = torch.full((len(scene.objects) + 1, len(_NAMES)), IGNORE)
    rank = {id(o): i for i, o in enumerate(scene.brief())}
    cut = round(scene.cut / scene.duration * SLOTS)
    from_frame = torch.full((len(scene.objects) + 1,), SLOTS)
    for i, o in enumerate(scene.objects):
        late = o.appears >= scene.cut
        known = {"color": o.color, "shape": o.shape, "shot": late, "moment": id(o) in rank}
        known["staying"] = len(scene.steady(SHOTS[int(late)]))
        if id(o) in rank:
            known["rank"] = rank[id(o)]
        if late:
            known["again"] = len(scene.shots_of(o.name)) == 2
        _note(table[i], known)
        from_frame[i] = _SEEN + (cut if late else 0)
    labels = table[owner]
    labels[:, _NAMES.index("staying")].masked_fill_(frame < from_frame[owner], IGNORE)
    return labels


def _note(row: Tensor, known: dict[str, Any]) -> None:
    for name, value in known.items():
        row[_NAMES.index(name)] = (KINDS | STATES | SUMS)[name].index(value)


def token_places(scene: Scene, owner: Tensor, frame: Tensor) -> Tensor:
    """Centres of the tokens' objects now and at their first frame: (x, y, x, y) in [0, 1], or NaN, (K, 4)."""
    count = frames_of(scene)
    table = np.full((len(scene.objects) + 1, count, 4), np.nan, np.float32)
    times = clip_times(scene)
    for i, o in enumerate(scene.objects):
        for f, t in enumerate(times):
            table[i, f] = (*o.position(float(t), scene.duration), *o.start)
    return torch.from_numpy(table)[owner, frame]


class DenseHeads(nn.Module):
    """Linear heads: on projected tokens (centre), on hidden states (each kind and state, both centres) and on later
    ones (sums)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.sizes = [len(v) for v in (KINDS | STATES).values()]
        self.linear = nn.Linear(width, sum(self.sizes))
        self.centre_norm, self.centre = nn.LayerNorm(width), nn.Linear(width, 2)
        self.places = nn.Linear(width, 4)
        self.late_norm, self.late_sizes = nn.LayerNorm(width), [len(v) for v in SUMS.values()]
        self.late = nn.Linear(width, sum(self.late_sizes))

    def loss(
        self, z: Tensor, hidden: tuple[Tensor, Tensor], labels: Tensor, places: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """z (B, K, W), hidden: the states behind LAYER and LATER layers, (B, K, W) each, labels (B, K, 10), places
        (B, K, 4) -> loss, and the share that is right by kind."""
        normed = self.norm(hidden[0])
        loss, facts = _cross_entropy(
            self.linear(normed).split(self.sizes, -1), labels[..., :_EARLY], _NAMES[:_EARLY]
        )
        sums, more = _cross_entropy(
            self.late(self.late_norm(hidden[1])).split(self.late_sizes, -1), labels[..., _EARLY:], [*SUMS]
        )
        loss, facts = loss + sums, facts | more
        there = ~places[..., 0].isnan()
        centre = self.centre(self.centre_norm(z))[there] - places[there][:, :2]
        both = self.places(normed)[there] - places[there]
        facts |= {"centre": both[:, :2].abs().mean().item(), "start": both[:, 2:].abs().mean().item()}
        return loss + _PLACE_WEIGHT * (centre.square().mean() + both.square().mean()), facts


def alignment_loss(
    z: Tensor, words: Tensor, tokenizer: PreTrainedTokenizerFast, labels: Tensor
) -> tuple[Tensor, dict[str, float]]:
    """Contrast of projected tokens z (B, K, W) with the embeddings words (V, W) of their objects' words."""
    logits = []
    for values in KINDS.values():
        ids = [i for v in values for i in tokenizer.encode(f" {v}")]
        assert len(ids) == len(values), "each word must be one token"
        logits.append(_TEMPERATURE * F.normalize(z, dim=-1) @ F.normalize(words[ids], dim=-1).T)
    return _cross_entropy(logits, labels, [*KINDS])


def _cross_entropy(
    logits: list[Tensor] | tuple[Tensor, ...], labels: Tensor, names: list[str]
) -> tuple[Tensor, dict[str, float]]:
    losses, right = [], {}
    for i, name in enumerate(names):
        known = labels[..., i] != IGNORE
        if known.any():
            target = labels[..., i][known]
            losses.append(F.cross_entropy(logits[i][known], target))
            right[name] = (logits[i][known].argmax(-1) == target).float().mean().item()
    return torch.stack(losses).mean() if losses else torch.zeros(()), right
