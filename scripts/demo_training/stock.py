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

from demo_training.clips import RenderedClips
from demo_training.data import dense_labels, local_masks, owner_to_grid
from demo_training.dense import IGNORE, LAYER, DenseHeads, alignment_loss, token_labels, token_places
from demo_training.encoders import train_dense
from demo_training.llm import ALIGNMENT, KNOWN, question_blocks
from demo_training.optim import Run
from demo_training.shapes import NUM_FRAMES, SPECIAL, StockShape
from demo_training.text import build_tokenizer, mc_prompt
from videoprune import apply, remove
from videoprune.config import EncoderPrune, PruneConfig
from videoprune.eval.benchmarks.moving_shapes.questions import CATEGORIES, questions, with_options
from videoprune.eval.benchmarks.moving_shapes.render import ink
from videoprune.eval.benchmarks.moving_shapes.scene import Scene

GROUP, CAPACITY, NEW_GROUPS = 8, 1000, 0.2
MODES = [(0.3, 1.0), (0.35, 0.5), (0.35, 0.375)]  # (share of the steps, what EvoPrune keeps)


def build_tokenizers() -> PreTrainedTokenizerFast:
    tokenizer = build_tokenizer()
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [AddedToken(t, special=True) for t in SPECIAL.values()]}
    )
    return tokenizer


def train_encoder(shape: StockShape, out: Path, *, steps: int, batch: int, device: str) -> None:
    """Dense labels on clips, a label for every patch of every time step. The checkpoint is `out`/NAME-vision.pt."""
    torch.manual_seed(0)
    model = shape.new_vision(out).to(device)

    def read(made: tuple[list[Scene], Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        scenes, frames, owners = made
        return shape.patches(model, frames.to(device)), _patch_labels(shape, scenes, owners.numpy())

    def batches(step: int) -> RenderedClips:
        return RenderedClips(batch, shape.side, seed=step + 3)

    train_dense(out / f"{shape.name}-vision.pt", model, batches, read, steps=steps, peak=1e-3, warm=0.1)


def _patch_labels(shape: StockShape, scenes: list[Scene], owners: np.ndarray) -> Tensor:
    """(B*T, g, g, 5 + 128), patches of the last frame of each time step, row by row."""
    found = []
    for i, scene in enumerate(scenes):
        last = range(shape.frames_per_step - 1, NUM_FRAMES, shape.frames_per_step)
        owner = owners[i * NUM_FRAMES : (i + 1) * NUM_FRAMES][last]
        times = (np.array(last) + 0.5) / NUM_FRAMES * scene.duration
        cells = owner_to_grid(owner, len(scene.objects), shape.grid)
        maps = [local_masks(owner >= 0, shape.grid), local_masks(ink(scene, times, shape.side), shape.grid)]
        found.append(np.concatenate([dense_labels(scene, cells, times), *maps], -1, dtype=np.float32))
    return torch.from_numpy(np.concatenate(found))


@dataclass(frozen=True)
class Encoded:
    """One clip: what the projector reads (T, n, D) in half precision, its units' objects (T, n), kept units (T, n)."""

    scene: Scene
    x: dict[str, Tensor]
    owner: Tensor
    kept: Tensor


@torch.no_grad()
def encode_group(
    shape: StockShape, model: Any, group: tuple[list[Scene], Tensor, Tensor], keep: float
) -> list[Encoded]:
    scenes, frames, owners = group
    if keep < 1:
        apply(model, PruneConfig(encoder=EncoderPrune(method="evoprune", keep=keep, critical_ratio=0.0)))
    x, kept = shape.encode(model, frames.to(model.device))
    remove(model)
    step = shape.frames_per_step
    owner = torch.from_numpy(owner_to_grid(owners.numpy()[step - 1 :: step], 4, shape.tokens_side)).flatten(1)
    t = NUM_FRAMES // step
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
    tokens alone their features (B, K, W), labels (B, K, 5), object places (B, K, 4) and where they are (B, K)."""

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
    shape: StockShape, out: Path, demo: Path, *, steps: int, batch: int, peak: float, device: str
) -> None:
    """Projector and LLM, the encoder frozen. Resumes from `out`/NAME.pt."""
    tokenizer = build_tokenizers()
    model = shape.build(out, demo, tokenizer).to(device)
    heads = DenseHeads(model.config.text_config.hidden_size).to(device)
    run = Run(_LlmParts(model, shape.trained(model)), heads, peak, steps)
    step = run.resume(out / f"{shape.name}.pt")
    rng = np.random.default_rng([23, step])
    loader = iter(DataLoader(RenderedClips(GROUP, shape.side, seed=step + 7), batch_size=None, num_workers=1))
    held_out = encode_group(shape, model, next(iter(RenderedClips(48, shape.side, seed=2**31))), 1.0)
    stores: dict[float, list[Encoded]] = {keep: [] for _, keep in MODES}
    started, shown, owed = time.perf_counter(), [], 0.0
    while step < steps:
        least = min(stores, key=lambda k: len(stores[k]))
        if owed >= 1 or len(stores[least]) < 64:
            stores[least] = (stores[least] + encode_group(shape, model, next(loader), least))[-CAPACITY:]
            owed = max(0.0, owed - 1)
            continue
        keep = MODES[rng.choice(len(MODES), p=[w for w, _ in MODES])][1]
        clips = [stores[keep][i] for i in rng.choice(len(stores[keep]), batch, replace=False)]
        layout = shape.layout(tokenizer, clips[0].scene.duration)
        start = prefix(shape, model, layout, clips, keep, float(rng.choice([0.0, 0.3, 0.6])))
        ids, labels, lengths = question_blocks(tokenizer, clips, rng)
        logits, hidden = answer_logits(
            shape, model, layout, start, ids.to(device), labels.to(device), lengths
        )
        answers = F.cross_entropy(logits, labels[labels != IGNORE].to(device))
        words = model.model.language_model.embed_tokens.weight
        aligned, _ = alignment_loss(start.z, words, tokenizer, start.labels)
        dense, facts = heads.loss(start.z, hidden, start.labels, start.objects)
        run.update(answers + ALIGNMENT * aligned + KNOWN * dense)
        step, owed = step + 1, owed + NEW_GROUPS
        shown.append({"answers": answers.item(), **facts})
        if step % 25 == 0:
            names = dict.fromkeys(n for f in shown[-25:] for n in f)
            means = " ".join(f"{n} {np.mean([f[n] for f in shown[-25:] if n in f]):.3f}" for n in names)
            print(f"{step} {means} {time.perf_counter() - started:.0f}s", flush=True)
        if step % 100 == 0 or step == steps:
            print(step, evaluate(shape, model, tokenizer, held_out), flush=True)
            run.save(out / f"{shape.name}.pt", step)


@torch.no_grad()
def evaluate(shape: StockShape, model: Any, tokenizer: Any, clips: list[Encoded]) -> str:
    """Exact answers by category on held-out clips, with every token."""
    rng = np.random.default_rng(3)
    right: dict[str, list[bool]] = {c: [] for c in CATEGORIES}
    for clip in clips:
        layout = shape.layout(tokenizer, clip.scene.duration)
        start = prefix(shape, model, layout, [clip], 1.0, 0.0)
        pool = questions(clip.scene, rng)
        for category in CATEGORIES:
            for q in [q for q in pool if q.category == category][:2]:
                options, _ = with_options(q, rng)
                before = tokenizer.encode(mc_prompt(q.text, options))
                after = [*tokenizer.encode(f" {q.answer}"), tokenizer.eos_token_id]
                ids, labels = torch.tensor([before + after]), torch.tensor([[IGNORE] * len(before) + after])
                ids, labels = ids.to(start.embeds.device), labels.to(start.embeds.device)
                logits, _ = answer_logits(shape, model, layout, start, ids, labels, [ids.shape[1]])
                right[category].append(logits.argmax(-1).tolist() == after)
    shown = " ".join(f"{c} {np.mean(v):.2f}" for c, v in right.items() if v)
    return f"{shown} | mean {np.mean([np.mean(v) for v in right.values() if v]):.3f}"


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
