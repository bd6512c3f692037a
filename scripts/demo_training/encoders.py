"""Stage 1 of the demo model: each vision encoder learns dense labels of single frames, on its own.

Every cell under an object names the object's colour, shape and character and where its centre is, so any token
that survives pruning knows its object.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset
from transformers import AutoModel, CLIPVisionConfig, ConvNextV2Config, PreTrainedConfig, SiglipVisionConfig

from demo_training.data import NUM_CLASSES, DenseFrames
from videoprune.models.multi_encoder import MultiEncoderVLM

SIZE = 112
WIDTH = 128


def encoder_configs() -> dict[str, PreTrainedConfig]:
    """A ViT without CLS, a ViT with CLS, a ConvNeXt: 7 x 7, 8 x 8 and 7 x 7 tokens for a frame.

    Each sees the frame at its own size. Small patches learn far faster than patches of 16 at full size, which
    stayed near chance on shape; characters are left to the ConvNeXt, which sees most pixels.
    """
    vit = {"hidden_size": WIDTH, "intermediate_size": 3 * WIDTH, "num_attention_heads": 4, "patch_size": 8}
    return {
        "siglip": SiglipVisionConfig(**vit, num_hidden_layers=8, image_size=56, vision_use_head=False),
        "clip": CLIPVisionConfig(**vit, num_hidden_layers=8, image_size=64, projection_dim=WIDTH),
        "convnext": ConvNextV2Config(
            num_stages=3, hidden_sizes=[32, 64, WIDTH], depths=[2, 2, 4], patch_size=4, image_size=SIZE
        ),
    }


def features(name: str, model: nn.Module, pixels: Tensor) -> Tensor:
    """(B, 3, S, S) -> (B, N, D), patches only."""
    x = model(pixel_values=pixels).last_hidden_state
    if name == "convnext":
        return x.flatten(2).transpose(1, 2)
    return x[:, 1:] if name == "clip" else x


class DenseHead(nn.Module):
    """Reads colour, shape, character, centre and the local outline and strokes (8 x 8 each) off one token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.sizes = [*NUM_CLASSES.values(), 2, 64, 64]
        self.linear = nn.Linear(width, sum(self.sizes))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.linear(self.norm(x)).split(self.sizes, -1)


def dense_loss(outputs: tuple[Tensor, ...], labels: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Cross entropy of the three kinds and squared error of the centre; background cells weigh a tenth."""
    labels = labels.flatten(1, 2)  # (B, N, 5 + 128)
    on_object = labels[..., 0] > 0
    weight = torch.where(on_object, 1.0, 0.1)
    loss = torch.zeros(())
    hits = {}
    for i, name in enumerate(NUM_CLASSES):
        target = labels[..., i].long()
        ce = F.cross_entropy(outputs[i].flatten(0, 1), target.flatten(), reduction="none").view_as(weight)
        loss = loss + (ce * weight).sum() / weight.sum()
        hits[name] = (outputs[i].argmax(-1) == target)[on_object].float().mean().item()
    hits["background"] = (outputs[0].argmax(-1) == 0)[~on_object].float().mean().item()
    error = (outputs[3] - labels[..., 3:5])[on_object]
    hits["centre"] = error.abs().mean().item()
    outline = F.binary_cross_entropy_with_logits(outputs[4], labels[..., 5:69])
    strokes = F.binary_cross_entropy_with_logits(outputs[5], labels[..., 69:], reduction="none")
    strokes = (strokes * weight[..., None]).mean() / weight.mean()
    hits |= {"outline": outline.item(), "strokes": strokes.item()}
    return loss + 20 * error.square().mean() + 4 * outline + 4 * strokes, hits


def normalize(pixels: Tensor, size: int) -> Tensor:
    """uint8 (B, 3, S, S) to [-1, 1] (mean and standard deviation 0.5) at `size` pixels."""
    x = pixels.float() / 127.5 - 1
    return x if x.shape[-1] == size else F.interpolate(x, (size, size), mode="bilinear", antialias=True)


def train_encoders(
    out: Path, *, steps: int, batch: int, device: str, only: str | None = None, start: Path | None = None
) -> None:
    """Train each encoder for `steps` steps; checkpoints are `out`/NAME.pt. start: a trained model to go on from."""
    trained = None if start is None else MultiEncoderVLM.from_pretrained(start, dtype=torch.float32).encoders
    for name, config in encoder_configs().items():
        if only in (None, name):
            torch.manual_seed(0)
            model = AutoModel.from_config(config) if trained is None else trained[name].requires_grad_(True)
            _train_encoder(name, config, model.to(device), out / f"{name}.pt", steps, batch)


def _train_encoder(
    name: str, config: PreTrainedConfig, model: nn.Module, path: Path, steps: int, batch: int
) -> None:
    grid, device = 8 if name == "clip" else 7, next(model.parameters()).device

    def read(made: tuple[Tensor, dict[int, Tensor]]) -> tuple[Tensor, Tensor]:
        pixels, labels = made
        return features(name, model, normalize(pixels.to(device), config.image_size)), labels[grid]

    def batches(step: int) -> DenseFrames:
        return DenseFrames(batch, SIZE, (grid,), seed=step)

    train_dense(path, model, batches, read, steps=steps, peak=1.2e-3, warm=0.05)


def train_dense(
    path: Path,
    model: nn.Module,
    batches: Callable[[int], IterableDataset],
    read: Callable[[Any], tuple[Tensor, Tensor]],
    *,
    steps: int,
    peak: float,
    warm: float,
) -> None:
    """Train `model` with a `DenseHead` on top. Resumes from `path`, written every 250 steps.

    batches: made for the step to go on from, so that a resumed run sees new ones. read: a batch -> what the model
    makes of it (B, N, D), and labels. warm: share of the steps in which the rate rises to `peak`.
    """
    device = next(model.parameters()).device
    head = DenseHead(WIDTH).to(device)
    params = [*model.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(params, lr=1e-3, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=steps + 1, pct_start=warm)
    step, parts = 0, {"model": model, "head": head, "optimizer": optimizer, "schedule": schedule}
    if path.exists():
        state = torch.load(path, map_location=device, weights_only=True)
        for key, part in parts.items():
            part.load_state_dict(state[key])
        step = state["step"]
    loader = iter(DataLoader(batches(step), batch_size=None, num_workers=1))
    started = time.perf_counter()
    while step < steps:
        x, labels = read(next(loader))
        loss, hits = dense_loss(head(x), labels.to(device))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        schedule.step()
        step += 1
        if step % 50 == 0:
            shown = " ".join(f"{k} {v:.3f}" for k, v in hits.items())
            seconds = time.perf_counter() - started
            print(f"{path.stem} {step} loss {loss.item():.3f} {shown} {seconds:.0f}s", flush=True)
        if step % 250 == 0 or step == steps:
            saved = {k: p.state_dict() for k, p in parts.items()}
            torch.save(saved | {"step": step}, path.with_suffix(".tmp"))
            path.with_suffix(".tmp").replace(path)  # so a stop leaves a whole checkpoint
