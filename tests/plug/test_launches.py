"""What pruning launches in one prefill beside the stock model: as many operations however many tokens there are, and
hardly a wait."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pipelines.measure.launches import launches
from tests.plug.stock import EVERYWHERE, KINDS, clips, inputs, stock_model
from videoprune.plug.apply import apply

# Five merges in the encoder, stage 2, two cuts in the LLM.
KERNELS = 480
# Grids are read from the device; windows of unlike lengths have to be counted there behind every merge.
WAITS = dict.fromkeys(KINDS, 3) | {"video_llama_3": 6, "qwen2_5_vl": 23}


def counted(model: Any, batch: dict[str, Tensor]) -> tuple[int, int]:
    with torch.no_grad(), launches() as found:
        model(**batch)
    return sum(found.kernels.values()), sum(found.waits.values())


@pytest.mark.parametrize("kind", KINDS)
def test_choosing_launches_as_much_for_any_number_of_tokens(kind: str) -> None:
    more = []
    for frames in (4, 12):
        model = stock_model(kind)
        batch = inputs(kind, clips(kind, 1, frames), [[5, 6, 7]])
        stock = counted(model, batch)
        apply(model, EVERYWHERE)
        model(**batch)  # what the first call looks up
        pruned = counted(model, batch)
        more.append((pruned[0] - stock[0], pruned[1] - stock[1]))
    (few, waits), (many, waits_of_many) = more
    assert 0 < max(few, many) <= KERNELS
    assert many <= few + 10
    assert max(waits, waits_of_many) <= WAITS[kind]
