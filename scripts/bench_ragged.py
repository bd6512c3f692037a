"""Peak bytes of an LLM's prefill when rows of a batch keep different counts: a dense mask as the stock model makes it
against `RaggedRows`, which attend one by one.

    PYTHONPATH=. python scripts/bench_ragged.py --batch 1 4 8 --tokens 4096 16384 --measure

Layers have the width of LLaVA-OneVision-0.5B's LLM, in bfloat16; the peak is of one layer, so few of them are enough.
Counted: bytes of live tensors, on shapes alone. Measured: resident memory, each cell in a process of its own.

Shapes: B rows, n tokens of the longest, W width.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModel, Qwen2Config

from pipelines.measure.live_bytes import LiveBytes
from pipelines.measure.memory import peak_above
from videoprune.eval.summary import markdown_table
from videoprune.models.random_weights import random_config
from videoprune.plug.attention import causal_mask
from videoprune.plug.ragged_rows import RaggedRows

HOW = ("dense", "ragged")
_HEAD = (
    "rows",
    "tokens",
    "mask MiB",
    *(f"{how}, {kind} MiB" for kind in ("counted", "measured") for how in HOW),
)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--tokens", type=int, nargs="+", default=[4096, 16384], help="of the longest row")
    parser.add_argument("--shape", default="llava-onevision-0.5b")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--measure", action="store_true", help="resident memory too")
    parser.add_argument("--one", nargs=3, metavar=("ROWS", "TOKENS", "HOW"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        print(measured(args.shape, args.layers, int(args.one[0]), int(args.one[1]), args.one[2]))
        return
    rows = [row_of(args, batch, tokens) for tokens in args.tokens for batch in args.batch]
    print(markdown_table(rows, _HEAD), end="")


def row_of(args: argparse.Namespace, batch: int, tokens: int) -> dict[str, str]:
    mask = 2 * batch * tokens**2 if batch > 1 else 0  # one row has no padding, and no mask
    found = {"rows": str(batch), "tokens": f"{tokens:,}", "mask MiB": mib(mask)}
    for how in HOW:
        found[f"{how}, counted MiB"] = mib(counted(args.shape, args.layers, batch, tokens, how))
        found[f"{how}, measured MiB"] = ""
        if args.measure:
            command = [sys.executable, __file__, "--shape", args.shape, "--layers", str(args.layers)]
            one = ["--one", str(batch), str(tokens), how]
            done = subprocess.run([*command, *one], capture_output=True, text=True)
            worked = not done.returncode and done.stdout.strip().isdigit()
            found[f"{how}, measured MiB"] = mib(int(done.stdout)) if worked else "failed"
    return found


def lengths_of(batch: int, tokens: int) -> list[int]:
    """What each row keeps: from all of the tokens down to about half, none as many as another."""
    return [tokens - tokens * row // (2 * batch) for row in range(batch)]


def counted(shape: str, layers: int, batch: int, tokens: int, how: str) -> int:
    """Bytes of live tensors at the peak; nothing is computed."""
    mask = RaggedRows(lengths_of(batch, tokens)) if how == "ragged" else None
    with FakeTensorMode(), torch.no_grad():
        model = text_model(shape, layers)
        hidden = torch.empty(batch, tokens, model.config.hidden_size, dtype=torch.bfloat16)
        with LiveBytes() as found:
            prefill(model, hidden, mask)
    return found.peak


def measured(shape: str, layers: int, batch: int, tokens: int, how: str) -> int:
    """Resident bytes at the peak, above the weights and what enters. Raises OSError where the kernel does not tell."""
    model = text_model(shape, layers)
    hidden = torch.rand(batch, tokens, model.config.hidden_size).to(torch.bfloat16)
    with torch.no_grad():
        for warm in (hidden[:, :64].contiguous(), hidden):  # the first loads code
            mask = RaggedRows(lengths_of(batch, warm.shape[1])) if how == "ragged" else None
            found = peak_above(lambda: prefill(model, warm, mask), "cpu")  # noqa: B023
    if found is None:
        raise OSError("the kernel does not tell the peak of a process")
    return found


def text_model(shape: str, layers: int) -> Any:
    """The LLM's layers, without words: random weights."""
    text = random_config(shape).get_text_config().to_dict() | {"num_hidden_layers": layers, "vocab_size": 8}
    text.pop("layer_types", None)
    return AutoModel.from_config(Qwen2Config(**text), dtype=torch.bfloat16).eval()


def prefill(model: nn.Module, hidden: Tensor, ragged: RaggedRows | None) -> Tensor:
    """All layers on hidden (B, n, W). ragged: None: with a dense mask where there is more than one row."""
    batch, tokens = hidden.shape[:2]
    mask: Tensor | None = ragged
    if ragged is None and batch > 1:
        starts = tokens - torch.tensor(lengths_of(batch, tokens))
        mask = causal_mask(torch.arange(tokens) >= starts[:, None], hidden.dtype)
    rope = model.rotary_emb(hidden, torch.arange(tokens)[None])  # type: ignore[operator]
    for layer in model.layers:  # type: ignore[union-attr]
        hidden = layer(hidden, attention_mask=mask if batch > 1 else None, position_embeddings=rope)
    return hidden


def mib(count: int) -> str:
    return f"{count / 2**20:,.0f}"


if __name__ == "__main__":
    main()
