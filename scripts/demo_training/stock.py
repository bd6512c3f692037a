"""Demo models of stock classes (`shapes.py`), made of the first demo model's parts: encoder, then projector and LLM.

Shapes: B clips, T time steps of a clip, n tokens of a time step, K visual tokens kept, L places of a prompt before the
question, W width of the LLM.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AddedToken, PreTrainedTokenizerFast

from demo_training.asking import by_category, exam, question_blocks
from demo_training.clips import RenderedClips
from demo_training.data import NUM_FRAMES, frames_of
from demo_training.dense import DenseHeads, alignment_loss
from demo_training.llm import ALIGNMENT, KNOWN, means
from demo_training.optim import Run
from demo_training.shapes import SPECIAL, StockShape
from demo_training.stock_prompt import DROPS, MODES, Encoded, Store, answer_logits, encode_group, prefix
from demo_training.text import build_tokenizer
from videoprune.eval.benchmarks.moving_shapes.hard_scene import HardScene


def build_tokenizers() -> PreTrainedTokenizerFast:
    tokenizer = build_tokenizer()
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [AddedToken(t, special=True) for t in SPECIAL.values()]}
    )
    return tokenizer


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
    store = Store(shape, model, step)
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
        texts = question_blocks(tokenizer, clips, rng)
        labels = texts.labels
        logits, hidden = answer_logits(
            shape, model, layout, start, texts.ids.to(device), labels.to(device), texts.lengths
        )
        answers = texts.loss(logits)
        words = model.model.language_model.embed_tokens.weight
        aligned, _ = alignment_loss(start.z, words, tokenizer, start.labels)
        dense, facts = heads.loss(start.z, hidden, start.labels, start.objects)
        run.update(answers + ALIGNMENT * aligned + KNOWN * dense)
        step += 1
        split = "hard" if isinstance(scene, HardScene) else "standard"
        right = {f"{split} {kind}": share for kind, share in texts.right(logits).items()}
        shown.append({split: answers.item(), **right, **facts})
        if step % 25 == 0:
            print(f"{step} {means(shown[-25:])} {time.perf_counter() - started:.0f}s", flush=True)
        if step % 300 == 0 or step == steps:
            print(step, evaluate(shape, model, tokenizer, held_out), flush=True)
        if step % 50 == 0 or step == steps:
            run.save(out / f"{shape.name}.pt", step)


@torch.no_grad()
def evaluate(shape: StockShape, model: Any, tokenizer: Any, clips: list[Encoded]) -> str:
    """Exact answers by split and category on held-out clips, with every token."""
    rng = np.random.default_rng(3)

    def right(clip: Encoded) -> Iterator[tuple[str, bool]]:
        layout = shape.layout(tokenizer, clip.scene.duration, frames_of(clip.scene))
        start = prefix(shape, model, layout, [clip], 1.0, 0.0)
        device = start.embeds.device
        return exam(
            tokenizer,
            clip.scene,
            rng,
            lambda ids, labels, lengths: answer_logits(
                shape, model, layout, start, ids.to(device), labels.to(device), lengths
            )[0],
        )

    return by_category(clips, right)


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
        "image_size": shape.side,
    }
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if importlib.util.find_spec("torchvision"):
        shape.processor(tokenizer).save_pretrained(folder)
    else:
        print(f"{folder}: no processor_config.json written (an older one stays): that needs torchvision")
    size = sum(f.stat().st_size for f in folder.glob("*.safetensors"))
    print(f"{folder}: step {state['step']}, {size / 2**20:.1f} MiB of weights")
