"""Controls of whole clips: exact counts, known layouts, pooling against a loop."""

from __future__ import annotations

import torch
from hypothesis import given

from tests.prune.rivals.clips import FEW, clips_and_counts, even, kept_only, make_clip, middles, targets
from videoprune.prune.merge import apply_plan
from videoprune.prune.rivals.controls import frames, pool
from videoprune.prune.rivals.tokens import ClipTokens


def blank(count: int, rows: int, columns: int, *, grid: bool = True) -> ClipTokens:
    return ClipTokens(torch.zeros(count, rows * columns, 1), grid=(rows, columns) if grid else None)


def per_frame(clip: ClipTokens, target: list[int]) -> list[int]:
    n = clip.per_frame
    return [sum(i >= 0 and target[i] == i for i in range(t * n, t * n + n)) for t in range(clip.frames)]


@FEW
@given(clips_and_counts(max_frames=5, max_tokens=16))
def test_counts_by_frame(case: tuple[ClipTokens, int]) -> None:
    clip, keep = case
    n = clip.per_frame
    whole = per_frame(clip, targets(frames(clip, keep)))
    used = [t for t in range(clip.frames) if whole[t]]
    assert used == middles(clip.frames, -(-keep // n))
    assert [whole[t] for t in used] == [n] * (len(used) - 1) + [keep - n * (len(used) - 1)]
    pooled = targets(pool(clip, keep))
    assert per_frame(clip, pooled) == even(keep, clip.frames)
    counts = even(keep, clip.frames)
    assert all((pooled[i] >= 0) == (counts[i // n] > 0) for i in range(clip.num_tokens))


@FEW
@given(clips_and_counts(max_frames=2, max_tokens=30))
def test_pooled_groups_are_rectangles_around_their_survivor(case: tuple[ClipTokens, int]) -> None:
    clip, keep = case
    assert clip.grid is not None
    n, columns = clip.per_frame, clip.grid[1]
    target = targets(pool(clip, keep))
    for survivor in set(target) - {-1}:
        cells = [divmod(i % n, columns) for i in range(clip.num_tokens) if target[i] == survivor]
        assert {target[i] // n for i in range(clip.num_tokens) if target[i] == survivor} == {survivor // n}
        rows, places = {r for r, _ in cells}, {c for _, c in cells}
        assert len(cells) == len(rows) * len(places)
        for span, own in ((rows, survivor % n // columns), (places, survivor % n % columns)):
            assert sorted(span) == list(range(min(span), max(span) + 1))
            assert own == (min(span) + max(span)) // 2


def test_known_layouts() -> None:
    assert targets(pool(blank(1, 4, 4), 4)) == [0, 0, 2, 2, 0, 0, 2, 2, 8, 8, 10, 10, 8, 8, 10, 10]
    assert targets(pool(blank(1, 1, 6), 3)) == [0, 0, 2, 2, 4, 4]
    assert targets(pool(blank(1, 2, 3, grid=False), 2)) == [1, 1, 1, 4, 4, 4]
    assert targets(pool(blank(2, 1, 2), 1)) == [-1, -1, 2, 2]
    assert targets(frames(blank(1, 4, 4), 4)) == kept_only({5, 7, 13, 15}, 16)
    assert targets(frames(blank(1, 4, 4, grid=False), 4)) == kept_only({2, 6, 10, 14}, 16)
    assert targets(frames(blank(4, 1, 3), 5)) == kept_only({3, 4, 5, 9, 11}, 12)


def test_pooling_by_two_is_average_pooling() -> None:
    clip = make_clip(3, 36)
    small = apply_plan(clip.x.flatten(0, 1)[None], pool(clip, 27))
    picture = clip.x.view(3, 6, 6, -1).permute(0, 3, 1, 2)
    expected = torch.nn.functional.avg_pool2d(picture, 2).flatten(2).transpose(1, 2)
    torch.testing.assert_close(small.view(3, 9, -1), expected)
