"""Optimisers of the LLM's training, their schedule, and checkpoints that resume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from demo_training.muon import Muon

_WARM, _HOLD = 150, 0.55  # steps of warming up; share of all steps at the full rate
_MUON_RATE = 12.0  # Muon's learning rate over AdamW's


class Run:
    """Muon for the LLM's matrices, AdamW for all else; the encoders stay as they are."""

    def __init__(self, model: nn.Module, heads: nn.Module, peak: float, steps: int) -> None:
        self.model, self.heads = model, heads
        matrices = [p for p in model.language_model.model.layers.parameters() if p.ndim == 2]
        taken = {id(p) for p in matrices}
        self.params = [p for m in (model, heads) for p in m.parameters() if p.requires_grad]
        rest = [p for p in self.params if id(p) not in taken]
        self.optimizers: list[torch.optim.Optimizer] = [
            Muon(matrices, lr=_MUON_RATE * peak, weight_decay=0.01),
            torch.optim.AdamW(rest, lr=peak, weight_decay=0.01, betas=(0.9, 0.98)),
        ]
        self.schedules = [
            torch.optim.lr_scheduler.LambdaLR(o, lambda s: _rate_share(s, steps)) for o in self.optimizers
        ]

    def update(self, loss: Tensor) -> None:
        for o in self.optimizers:
            o.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.params, 1.0)
        for part in (*self.optimizers, *self.schedules):
            part.step()

    def save(self, path: Path, step: int) -> None:
        """Written beside and moved, so a stop leaves a whole checkpoint."""
        trained = {k: v for k, v in self.model.state_dict().items() if not k.startswith("encoders.")}
        state = {
            "model": trained,
            "heads": self.heads.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "schedules": [s.state_dict() for s in self.schedules],
            "step": step,
        }
        torch.save(state, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)

    def resume(self, path: Path) -> int:
        """The step to go on from: 0 where there is no checkpoint."""
        if not path.exists():
            return 0
        state = torch.load(path, map_location="cpu", weights_only=True)
        missing, unexpected = self.model.load_state_dict(state["model"], strict=False)
        assert not unexpected, unexpected
        assert all(k.startswith("encoders.") for k in missing), missing
        self.heads.load_state_dict(state["heads"])
        for key, parts in (("optimizers", self.optimizers), ("schedules", self.schedules)):
            for part, saved in zip(parts, state[key], strict=True):
                part.load_state_dict(saved)
        return state["step"]


def _rate_share(step: int, steps: int) -> float:
    if step < _WARM:
        return (step + 1) / _WARM
    done = max(0.0, step / steps - _HOLD) / (1 - _HOLD)
    return 0.03 + 0.97 * 0.5 * (1 + float(np.cos(np.pi * min(done, 1.0))))
