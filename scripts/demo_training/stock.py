"""Demo models of stock classes (`shapes.py`), made of the first demo model's parts: encoder, then projector and LLM.

Shapes: B clips, T time steps of a clip, n tokens of a time step, K visual tokens kept, L places of a prompt before the
question, W width of the LLM.
"""

from __future__ import annotations

import importlib.util
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import AddedToken, PreTrainedTokenizerFast

from demo_training.asking import categories, encode, pool_of, question_blocks
from demo_training.clips import Group, RenderedClips, RenderedPairs
from demo_training.data import HARD_SHARE, dense_labels, frames_of, least_cover, local_masks, owner_to_grid
from demo_training.dense import IGNORE, LAYER, DenseHeads, alignment_loss, token_labels, token_places
from demo_training.encoders import train_dense
from demo_training.llm import ALIGNMENT, KNOWN
from demo_training.optim import Run
from demo_training.shapes import NUM_FRAMES, SPECIAL, StockShape
from demo_training.text import build_tokenizer, mc_prompt
from videoprune import apply, remove
from videoprune.config import EncoderPrune, PruneConfig
from videoprune.eval.benchmarks.moving_shapes.hard_scene import HardScene
from videoprune.eval.benchmarks.moving_shapes.questions import with_options
from videoprune.eval.benchmarks.moving_shapes.render import ink
from videoprune.eval.benchmarks.moving_shapes.scene import Scene

GROUP, CAPACITY, NEW_GROUPS = 8, 400, 0.2
DROPS = {False: (0.0, 0.3, 0.6), True: (0.0, 0.5, 0.5, 0.7, 0.7, 0.8)}  # share that goes at random, by split
MODES = [(0.3, 1.0), (0.35, 0.5), (0.35, 0.375)]  # (share of the steps, what EvoPrune keeps)


def build_tokenizers() -> PreTrainedTokenizerFast:
    tokenizer = build_tokenizer()
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [AddedToken(t, special=True) for t in SPECIAL.values()]}
    )
    return tokenizer


def train_encoder(
    shape: StockShape, out: Path, *, steps: int, batch: int, device: str, start: Path | None = None
) -> None:
    """Dense labels on clips, a label for every patch of every time step. The checkpoint is `out`/NAME-vision.pt.

    start: the folder of a trained model whose encoder it goes on from."""
    torch.manual_seed(0)
    model = (shape.new_vision(out) if start is None else shape.trained_vision(start)).to(device)

    def read(made: tuple[Group, np.ndarray]) -> tuple[Tensor, Tensor]:
        (scenes, frames, owners), times = made
        return shape.patches(model, frames.to(device)), _patch_labels(shape, scenes, owners.numpy(), times)

    def batches(step: int) -> RenderedPairs:
        return RenderedPairs(batch, shape.side, seed=step + 3)

    train_dense(out / f"{shape.name}-vision.pt", model, batches, read, steps=steps, peak=1e-3, warm=0.1)


def _patch_labels(shape: StockShape, scenes: list[Scene], owners: np.ndarray, times: np.ndarray) -> Tensor:
    """(B*T, g, g, 5 + 128), patches of the last frame of each time step, row by row."""
    found, frames = [], times.shape[1]
    last = range(shape.frames_per_step - 1, frames, shape.frames_per_step)
    for i, scene in enumerate(scenes):
        owner, when = owners[i * frames : (i + 1) * frames][last], times[i][last]
        cells = owner_to_grid(owner, len(scene.objects), shape.grid, least_cover(scene))
        maps = [local_masks(owner >= 0, shape.grid), local_masks(ink(scene, when, shape.side), shape.grid)]
        found.append(np.concatenate([dense_labels(scene, cells, when), *maps], -1, dtype=np.float32))
    return torch.from_numpy(np.concatenate(found))


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
        apply(model, PruneConfig(encoder=EncoderPrune(method="evoprune", keep=keep, critical_ratio=0.0)))
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
    tokens alone their features (B, K, W), labels (B, K, 7), object places (B, K, 4) and where they are (B, K)."""

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
    """keep: EvoPrune's share. drop: share of the rest that goes at random. layout: ids of the prompt's start (L,)."""
    x = {k: torch.stack([c.x[k] for c in clips]).float().to(model.device) for k in clips[0].x}
    kept = torch.stack([c.kept for c in clips])  # (B, T, n)
    z, taps, kept = shape.project(model, x, kept, keep)  # (B, T*n, W), NaN-free, and which are there
    kept = kept.flatten(1)
    count = int(kept.sum(1).min())
    count = max(8, round((1 - drop) * count))
    chosen = (torch.rand(kept.shape) + kept.float()).topk(count, 1).indices.sort(1).values  # (B, K)
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
) -> tuple[Tensor, Tensor]:
    """As `llm.answer_logits`, at the positions that tokens have in a whole prompt."""
    core, before = model.model.language_model, start.embeds.shape[1]
    embeds = torch.cat([start.embeds, core.embed_tokens(ids)], 1)
    block = torch.cat([torch.zeros(before), *[torch.full((n,), i + 1.0) for i, n in enumerate(lengths)]])
    allowed = ((block[:, None] == block) | (block == 0)).tril()
    bias = torch.zeros(allowed.shape).masked_fill_(~allowed, torch.finfo(torch.float32).min)[None, None]
    positions = shape.positions(model, layout)  # (P, L)
    first = int(positions.max()) + 1
    text = torch.cat([torch.arange(first, first + n) for n in lengths])
    rows = positions[:, start.places]  # (P, B, L')
    rows = torch.cat([rows, text.expand(rows.shape[0], rows.shape[1], -1)], 2)
    hidden = _hidden_states(core, embeds, bias.to(embeds.device), rows.to(embeds.device), start.deepstack)
    last = hidden[-1][:, before - 1 : -1]
    middle = hidden[LAYER].gather(1, start.at[..., None].expand(-1, -1, embeds.shape[2]).to(embeds.device))
    return model.lm_head(last[labels != IGNORE]), middle


def _hidden_states(
    core: Any, x: Tensor, bias: Tensor, positions: Tensor, deepstack: list[Tensor]
) -> list[Tensor]:
    """States before each layer, then the normed end. DeepStack features are added behind the first layers."""
    rope = core.rotary_emb(x, positions if positions.shape[0] > 1 else positions[0])
    states = []
    for i, layer in enumerate(core.layers):
        states.append(x)
        x = layer(x, attention_mask=bias, position_embeddings=rope)
        if i < len(deepstack):
            x = torch.cat([x[:, : deepstack[i].shape[1]] + deepstack[i], x[:, deepstack[i].shape[1] :]], 1)
    return [*states, core.norm(x)]


class _LlmParts(nn.Module):
    """What is trained, under the names that `Run` looks for: its matrices are the LLM's layers."""

    def __init__(self, model: Any, rest: list[nn.Module | nn.Parameter]) -> None:
        super().__init__()
        self.language_model = nn.Module()
        self.language_model.model = model.model.language_model
        self.modules_ = nn.ModuleList([m for m in rest if isinstance(m, nn.Module)])
        self.parameters_ = nn.ParameterList([p for p in rest if isinstance(p, nn.Parameter)])


def train_stock(
    shape: StockShape,
    out: Path,
    demo: Path,
    *,
    steps: int,
    batch: int,
    peak: float,
    device: str,
    go_on: Path | None = None,
) -> None:
    """Projector and LLM on clips of both splits, the encoder frozen. Resumes from `out`/NAME.pt.

    go_on: the folder of a trained model of this shape that it starts from, instead of the first demo model's LLM.
    """
    tokenizer = build_tokenizers()
    model = shape.build(out, demo, tokenizer).to(device)
    if go_on is not None:
        shape.go_on(model, go_on, tokenizer)
    heads = DenseHeads(model.config.text_config.hidden_size).to(device)
    run = Run(_LlmParts(model, shape.trained(model)), heads, peak, steps)
    step = run.resume(out / f"{shape.name}.pt")
    rng = np.random.default_rng([23, step])
    store = _Store(shape, model, step)
    held_out = [
        clip
        for hard in (False, True)
        for clip in encode_group(shape, model, next(iter(RenderedClips(32, shape.side, 2**31, hard))), 1.0)
    ]
    started, shown = time.perf_counter(), []
    while step < steps:
        keep = MODES[rng.choice(len(MODES), p=[w for w, _ in MODES])][1]
        clips = store.draw(keep, batch, rng)
        scene = clips[0].scene
        layout = shape.layout(tokenizer, scene.duration, frames_of(scene))
        drop = float(rng.choice(DROPS[isinstance(scene, HardScene)]))
        start = prefix(shape, model, layout, clips, keep, drop)
        ids, labels, lengths = question_blocks(tokenizer, clips, rng)
        logits, hidden = answer_logits(
            shape, model, layout, start, ids.to(device), labels.to(device), lengths
        )
        answers = F.cross_entropy(logits, labels[labels != IGNORE].to(device))
        words = model.model.language_model.embed_tokens.weight
        aligned, _ = alignment_loss(start.z, words, tokenizer, start.labels)
        dense, facts = heads.loss(start.z, hidden, start.labels, start.objects)
        run.update(answers + ALIGNMENT * aligned + KNOWN * dense)
        step += 1
        shown.append({"hard" if isinstance(scene, HardScene) else "standard": answers.item(), **facts})
        if step % 25 == 0:
            names = dict.fromkeys(n for f in shown[-25:] for n in f)
            means = " ".join(f"{n} {np.mean([f[n] for f in shown[-25:] if n in f]):.3f}" for n in names)
            print(f"{step} {means} {time.perf_counter() - started:.0f}s", flush=True)
        if step % 100 == 0 or step == steps:
            print(step, evaluate(shape, model, tokenizer, held_out), flush=True)
            run.save(out / f"{shape.name}.pt", step)


class _Store:
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


@torch.no_grad()
def evaluate(shape: StockShape, model: Any, tokenizer: Any, clips: list[Encoded]) -> str:
    """Exact answers by split and category on held-out clips, with every token."""
    rng = np.random.default_rng(3)
    right: dict[tuple[bool, str], list[bool]] = {}
    for clip in clips:
        scene, hard = clip.scene, isinstance(clip.scene, HardScene)
        layout = shape.layout(tokenizer, scene.duration, frames_of(scene))
        start = prefix(shape, model, layout, [clip], 1.0, 0.0)
        pool = pool_of(scene, rng)
        for category in categories(scene):
            for q in [q for q in pool if q.category == category][:2]:
                options, _ = with_options(q, rng)
                ids, labels = (
                    torch.tensor([part]) for part in encode(tokenizer, mc_prompt(q.text, options), q.answer)
                )
                ids, labels = ids.to(start.embeds.device), labels.to(start.embeds.device)
                logits, _ = answer_logits(shape, model, layout, start, ids, labels, [ids.shape[1]])
                after = labels[labels != IGNORE].tolist()
                right.setdefault((hard, category), []).append(logits.argmax(-1).tolist() == after)
    return " | ".join(
        " ".join(f"{c} {np.mean(v):.2f}" for (h, c), v in right.items() if h == hard)
        + f" mean {np.mean([np.mean(v) for (h, _), v in right.items() if h == hard]):.3f}"
        for hard in (False, True)
    )


def export_stock(shape: StockShape, out: Path, demo: Path, folder: Path) -> None:
    """A folder that `from_pretrained` loads: half-precision weights, tokenizer, and processors where torchvision is."""
    tokenizer = build_tokenizers()
    model = shape.build(out, demo, tokenizer)
    state = torch.load(out / f"{shape.name}.pt", map_location="cpu", weights_only=True)
    _LlmParts(model, shape.trained(model)).load_state_dict(state["model"])
    model.requires_grad_(True)
    model.config.videoprune = {
        "num_frames": NUM_FRAMES,
        "frame_size": shape.side,
        "image_size": getattr(shape, "image", shape.side),
    }
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if importlib.util.find_spec("torchvision"):
        shape.processor(tokenizer).save_pretrained(folder)
    size = sum(f.stat().st_size for f in folder.glob("*.safetensors"))
    print(f"{folder}: step {state['step']}, {size / 2**20:.1f} MiB of weights")
