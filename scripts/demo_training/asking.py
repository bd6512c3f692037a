"""What is asked of a training clip of either split: questions with and without options, and listings.

Shapes: B clips, Q text tokens of all questions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast

from demo_training.dense import IGNORE
from demo_training.text import mc_prompt, open_prompt
from videoprune.eval.benchmarks.moving_shapes import hard_questions
from videoprune.eval.benchmarks.moving_shapes.hard_questions import NOT_SHOWN
from videoprune.eval.benchmarks.moving_shapes.hard_scene import SHOTS, HardScene
from videoprune.eval.benchmarks.moving_shapes.questions import CATEGORIES, Question, questions, with_options
from videoprune.eval.benchmarks.moving_shapes.scene import COLORS, SHAPES, Scene

# Texts about a clip, by whether it is of the hard split.
MC_PER_CLIP, OPEN_PER_CLIP, LOOK_UPS_PER_CLIP = {False: 3, True: 4}, {False: 4, True: 1}, {False: 0, True: 1}
NAMES_LOOKED_UP = 8  # in one text
# How often each category is asked: those that come late, more.
WEIGHTS = dict.fromkeys(CATEGORIES, 1.0) | {"relation": 3.0, "order": 1.5, "direction": 1.5}
HARD_WEIGHTS = dict.fromkeys(hard_questions.CATEGORIES, 1.0) | {
    "count": 2.0,
    "order": 1.3,
    "shot": 1.3,
    "present": 0.8,
}
_NOT_SHOWN_WEIGHT = 0.5
# Of a labelled token in the loss: the answers that are wanted are short beside listings and look-ups.
_TOKEN_WEIGHTS = {"options": 3.0, "open": 3.0}


class Clip(Protocol):
    @property
    def scene(self) -> Scene: ...


C = TypeVar("C", bound=Clip)


def categories(scene: Scene) -> Sequence[str]:
    return hard_questions.CATEGORIES if isinstance(scene, HardScene) else CATEGORIES


def pool_of(scene: Scene, rng: np.random.Generator) -> list[Question]:
    if isinstance(scene, HardScene):
        return hard_questions.questions(scene, rng)
    return questions(scene, rng)


def asked(scene: Scene, rng: np.random.Generator) -> Iterator[Question]:
    """One or two questions of each category, for a look on the way."""
    pool = pool_of(scene, rng)
    for category in categories(scene):
        yield from [q for q in pool if q.category == category][:2]


def exam(
    tokenizer: PreTrainedTokenizerFast,
    scene: Scene,
    rng: np.random.Generator,
    answer: Callable[[Tensor, Tensor, list[int]], Tensor],
) -> Iterator[tuple[str, bool]]:
    """The category of each question of `asked`, with options, and whether all of its answer is told.

    answer: ids and labels (1, Q) of all texts side by side, and their lengths -> logits of the labelled tokens (n, V).
    """
    found = [*asked(scene, rng)]
    texts = [_with_options(tokenizer, q, rng) for q in found]
    ids, labels = (torch.tensor([[i for text in texts for i in text[part]]]) for part in (0, 1))
    logits = answer(ids, labels, [len(ids) for ids, _ in texts])
    hits = logits.argmax(-1).cpu() == labels[labels != IGNORE]
    known = [sum(i != IGNORE for i in text) for _, text in texts]
    for q, told in zip(found, hits.split(known), strict=True):
        yield q.category, bool(told.all())


def by_category(clips: Sequence[C], right: Callable[[C], Iterable[tuple[str, bool]]]) -> str:
    """Shares that are right, by split and category."""
    found: dict[tuple[bool, str], list[bool]] = {}
    for clip in clips:
        for category, hit in right(clip):
            found.setdefault((isinstance(clip.scene, HardScene), category), []).append(hit)
    return " | ".join(
        " ".join(f"{c} {np.mean(v):.2f}" for (h, c), v in found.items() if h == hard)
        + f" mean {np.mean([np.mean(v) for (h, _), v in found.items() if h == hard]):.3f}"
        for hard in (False, True)
    )


def _shares(scene: Scene, pool: list[Question]) -> np.ndarray:
    """How often each of the pool is asked, (n,); they sum to 1."""
    weights = HARD_WEIGHTS if isinstance(scene, HardScene) else WEIGHTS
    alike = Counter(q.category for q in pool)
    found = np.array(
        [
            weights[q.category] / alike[q.category] * (_NOT_SHOWN_WEIGHT if q.answer == NOT_SHOWN else 1)
            for q in pool
        ]
    )
    return found / found.sum()


class Blocks(NamedTuple):
    """Texts about B clips, side by side: ids and labels (B, Q), the length and the kind of each text."""

    ids: Tensor
    labels: Tensor
    lengths: list[int]
    kinds: list[str]

    def loss(self, logits: Tensor) -> Tensor:
        """Cross entropy of logits (n, V) of the labelled tokens, in the order of labels[labels != IGNORE]."""
        weight = torch.tensor([_TOKEN_WEIGHTS.get(kind, 1.0) for kind in self._kind_of_labels()])
        found = F.cross_entropy(logits, self._known().to(logits.device), reduction="none")
        return (found * weight.to(found)).sum() / weight.sum()

    def right(self, logits: Tensor) -> dict[str, float]:
        """Share of the labelled tokens that logits tell, by kind."""
        hits, kind = logits.argmax(-1).cpu() == self._known(), self._kind_of_labels()
        return {k: hits[torch.from_numpy(kind == k)].float().mean().item() for k in dict.fromkeys(self.kinds)}

    def _known(self) -> Tensor:
        return self.labels[self.labels != IGNORE]

    def _kind_of_labels(self) -> np.ndarray:
        return np.repeat(self.kinds, self.lengths)[(self.labels != IGNORE).nonzero()[:, 1]]


def question_blocks(
    tokenizer: PreTrainedTokenizerFast, clips: Sequence[Clip], rng: np.random.Generator
) -> Blocks:
    """Questions with and without options, a listing and, of hard clips, look-ups. The clips are of one split."""
    hard = isinstance(clips[0].scene, HardScene)
    kinds = ["options"] * MC_PER_CLIP[hard] + ["open"] * OPEN_PER_CLIP[hard]
    blocks: list[list[tuple[list[int], list[int]]]] = [[] for _ in kinds]
    for clip in clips:
        pool = pool_of(clip.scene, rng)
        for b, i in enumerate(rng.choice(len(pool), size=len(blocks), p=_shares(clip.scene, pool))):
            q = pool[i]
            # "Which of these" needs its options.
            if kinds[b] == "options" or "of these" in q.text:
                blocks[b].append(_with_options(tokenizer, q, rng))
            else:
                blocks[b].append(encode(tokenizer, open_prompt(q.text), q.answer))
    listed = [listing(c.scene, rng) for c in clips]
    blocks.append([encode(tokenizer, open_prompt(text), answer) for text, answer in listed])
    blocks += [[look_ups(tokenizer, c.scene, rng) for c in clips] for _ in range(LOOK_UPS_PER_CLIP[hard])]
    kinds += ["listing"] + ["look-ups"] * LOOK_UPS_PER_CLIP[hard]
    lengths = [max(len(ids) for ids, _ in block) for block in blocks]
    pad = tokenizer.pad_token_id
    ids = [[i + [pad] * (n - len(i)) for i, _ in b] for b, n in zip(blocks, lengths, strict=True)]
    labels = [[t + [IGNORE] * (n - len(t)) for _, t in b] for b, n in zip(blocks, lengths, strict=True)]
    return Blocks(
        torch.cat([torch.tensor(b) for b in ids], 1),
        torch.cat([torch.tensor(b) for b in labels], 1),
        lengths,
        kinds,
    )


def listing(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    """A request to list all objects in some order, and the list.

    To go on after "red" the model must find the red object's tokens, and to go on after an object the next one in
    space or time: what the questions need, many times a clip.
    """
    if isinstance(scene, HardScene):
        return _hard_listing(scene, rng)
    kinds = ["color", "shape", "across", "down", *(["order"] * 2 if scene.staggered else [])]
    kind = kinds[int(rng.integers(len(kinds)))]
    if kind == "color":
        found = sorted(scene.objects, key=lambda o: list(COLORS).index(o.color))
        texts = [f"{o.name} {o.character} {o.direction or 'still'}" for o in found]
        return "List the objects.", ", ".join(texts)
    if kind == "shape":
        found = sorted(scene.objects, key=lambda o: SHAPES.index(o.shape))
        texts = [f"{o.shape} {o.color} {o.direction or 'still'} {o.character}" for o in found]
        return "List the shapes.", ", ".join(texts)
    if kind == "order":
        return "List the objects as they appear.", ", ".join(o.name for o in scene.in_order())
    axis, text = (0, "left to right") if kind == "across" else (1, "above to below")
    found = sorted(scene.objects, key=lambda o: o.position(scene.duration, scene.duration)[axis])
    return f"List the objects from {text} at the end.", ", ".join(o.name for o in found)


def _hard_listing(scene: HardScene, rng: np.random.Generator) -> tuple[str, str]:
    """Those that are there for a moment in order of time, or those of a shot row by row, numbered: counting aloud."""
    if rng.random() < 0.5:
        found = scene.brief()
        texts = [f"{o.name} {hard_questions.quarter(o)}" for o in found]
        return "List the objects that are shown for a moment.", ", ".join(texts)
    shot = SHOTS[int(rng.integers(2))]
    stay = sorted(scene.steady(shot), key=lambda o: (int(o.start[1] * 4), o.start[0]))
    texts = [f"{number} {o.name}" for number, o in enumerate(stay, start=1)]
    return f"List the objects that stay for the whole {shot} shot.", ", ".join(texts)


def look_ups(
    tokenizer: PreTrainedTokenizerFast, scene: Scene, rng: np.random.Generator
) -> tuple[list[int], list[int]]:
    """NAMES_LOOKED_UP names in one text, each followed by when and where it is shown; only that is labelled.

    Finding what has this colour and this shape among look-alikes is what nearly every question of a hard clip needs;
    questions alone teach it a few times a clip, with hundreds of words around.
    """
    assert isinstance(scene, HardScene)
    brief = [o.name for o in scene.brief()]
    stay = sorted({o.name for o in scene.objects} - set(brief))
    absent = hard_questions.look_alikes(scene, rng)
    drawn = [*rng.permutation(brief)[:3], *rng.permutation(stay)[:2], *absent]
    ids = tokenizer.encode(open_prompt("When are these objects shown?"))
    labels = [IGNORE] * len(ids)
    for name in rng.permutation(drawn[:NAMES_LOOKED_UP]):
        called, told = tokenizer.encode(f" {name}"), tokenizer.encode(f" {_fact(scene, str(name))}")
        ids, labels = [*ids, *called, *told], [*labels, *[IGNORE] * len(called), *told]
    return ids, labels


def _fact(scene: HardScene, name: str) -> str:
    shots = scene.shots_of(name)
    if not shots:
        return hard_questions.NOT_SHOWN
    first = min((o for o in scene.objects if o.name == name), key=lambda o: o.appears)
    return f"{shots[0] if len(shots) == 1 else 'both'} {hard_questions.quarter(first)}"


def _with_options(
    tokenizer: PreTrainedTokenizerFast, q: Question, rng: np.random.Generator
) -> tuple[list[int], list[int]]:
    """Labelled is the option's text, not its letter: binding letters stayed at chance for 1,400 steps."""
    options, _ = with_options(q, rng)
    return encode(tokenizer, mc_prompt(q.text, options), q.answer)


def encode(tokenizer: PreTrainedTokenizerFast, prompt: str, answer: str) -> tuple[list[int], list[int]]:
    """Ids of a prompt with its answer, and the labels: the answer's alone."""
    before = tokenizer.encode(prompt)
    after = [*tokenizer.encode(f" {answer}"), tokenizer.eos_token_id]
    return before + after, [IGNORE] * len(before) + after
