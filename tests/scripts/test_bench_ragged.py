"""scripts/bench_ragged.py: what it counts, and that both ways compute the same."""

from __future__ import annotations

import torch

from scripts.bench_ragged import counted, lengths_of, main, prefill, text_model
from tests.plug.stock import text_config
from videoprune.plug.ragged_rows import RaggedRows

SHAPE = "llava-onevision-0.5b"


def test_lengths_differ():
    assert lengths_of(4, 16) == [16, 14, 12, 10]
    assert lengths_of(1, 16) == [16]


def test_ragged_rows_grow_with_the_tokens_and_dense_masks_with_their_square():
    ragged = [counted(SHAPE, 1, 4, n, "ragged") for n in (2048, 4096, 8192)]
    dense = [counted(SHAPE, 1, 4, n, "dense") for n in (2048, 4096, 8192)]
    assert 1.9 < ragged[1] / ragged[0] < 2.1
    assert 1.9 < ragged[2] / ragged[1] < 2.1
    for n, more in zip((2048, 4096, 8192), (d - r for d, r in zip(dense, ragged, strict=True)), strict=True):
        assert more > 0.9 * 2 * 4 * n * n  # bfloat16
    assert counted(SHAPE, 1, 1, 2048, "dense") == counted(SHAPE, 1, 1, 2048, "ragged")


def test_both_ways_compute_the_same(monkeypatch):
    class Tiny:
        def get_text_config(self):
            return self

        def to_dict(self):
            return text_config()

    monkeypatch.setattr("scripts.bench_ragged.random_config", lambda shape: Tiny())
    model = text_model("tiny", 2).float()
    hidden = torch.randn(3, 12, 32)
    lengths = lengths_of(3, 12)
    with torch.no_grad():
        dense, ragged = (prefill(model, hidden, mask) for mask in (None, RaggedRows(lengths)))
    for row, length in enumerate(lengths):
        torch.testing.assert_close(ragged[row, -length:], dense[row, -length:], atol=1e-5, rtol=1e-4)


def test_the_table(capsys):
    main(["--batch", "1", "2", "--tokens", "256", "--layers", "1"])
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 4
    assert rows[2].startswith("| 1 | 256 | 0 |")
