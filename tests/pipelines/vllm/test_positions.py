"""Positions that travel beside embeddings, in steps that see any part of a clip."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from pipelines.vllm.positions import COLUMNS, Shifts, as_columns, from_columns, plain_and_shifts, three_rows

DTYPES = (torch.float16, torch.bfloat16, torch.float32)


@pytest.mark.parametrize("dtype", DTYPES)
def test_columns_are_exact_in_every_dtype(dtype: torch.dtype) -> None:
    edges = torch.tensor([0, 1, 255, 256, 257, 511, 65535, 65536, 2**24 - 1])
    positions = torch.stack([edges, edges.flip(0), edges.roll(2)])
    columns = as_columns(positions, torch.empty(0, dtype=dtype))
    assert columns.dtype == dtype
    assert columns.shape == (len(edges), COLUMNS)
    assert torch.equal(from_columns(columns), positions)
    assert torch.equal(from_columns(columns[3:5]), positions[:, 3:5])  # a step may see a part


def test_a_position_as_one_number_would_be_rounded() -> None:
    assert torch.tensor(257).to(torch.bfloat16).long() != 257


def test_shifts_are_of_one_step() -> None:
    shifts, positions = Shifts(8), torch.arange(6).expand(3, -1)
    assert torch.equal(shifts.added(positions), positions)
    added = torch.tensor([[3, 4], [5, 6], [7, 8]])
    shifts.write(torch.tensor([1, 4]), added)
    expected = positions.clone()
    expected[:, [1, 4]] += added
    first = shifts.added(positions)
    assert torch.equal(first, expected)
    address = first.data_ptr()
    shifts.clear()
    again = shifts.added(positions)
    assert torch.equal(again, positions)
    assert again.data_ptr() == address  # a recorded CUDA graph reads there
    shifts.write(torch.tensor([5]), torch.ones(3, 1, dtype=torch.int64))
    shifts.write(
        torch.tensor([0]), torch.ones(3, 1, dtype=torch.int64)
    )  # the next step, without a word in between
    assert shifts.added(positions)[0].tolist() == [1, 1, 2, 3, 4, 5]


def test_images_and_clips_are_told_apart_by_their_width() -> None:
    image, clip = torch.randn(3, 5), torch.randn(2, 5)
    positions = torch.tensor([[0, 9], [1, 300], [2, 70000]])
    wide = torch.cat([clip, as_columns(positions, clip)], 1)
    plain, shifts = plain_and_shifts([image, wide, image[:1]], 5)
    assert [p.shape for p in plain] == [(3, 5), (2, 5), (1, 5)]
    assert torch.equal(plain[1], clip)
    assert torch.equal(shifts[:, 3:5], positions)
    assert not shifts[:, [0, 1, 2, 5]].any()


def test_three_rows_fill_half_a_head() -> None:
    for head in (20, 32, 64, 128):
        text = SimpleNamespace(rope_parameters={"rope_type": "default", "rope_theta": 1e4}, head_dim=head)
        three_rows(text)
        assert len(text.rope_parameters["mrope_section"]) == 3
        assert sum(text.rope_parameters["mrope_section"]) == head // 2
    with pytest.raises(ValueError, match="rope_type='yarn'; allowed"):
        three_rows(SimpleNamespace(rope_parameters={"rope_type": "yarn"}, head_dim=64))
