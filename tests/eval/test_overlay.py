"""Overlays against a loop over pixels."""

from __future__ import annotations

import numpy as np
import pytest

from videoprune.eval.overlay import draw_text, draw_tokens, sheet


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def slow_regions(height, width, grid, owner, alive):
    """The token that each pixel shows, -1: none."""
    rows, columns = grid
    out = np.full((height, width), -1)
    for y in range(height):
        for x in range(width):
            token = owner[(y * rows // height) * columns + x * columns // width]
            if token >= 0 and alive[token]:
                out[y, x] = token
    return out


@pytest.mark.parametrize(("height", "width", "grid"), [(12, 16, (3, 4)), (13, 17, (3, 4)), (5, 7, (1, 1))])
@pytest.mark.parametrize("seed", range(3))
def test_every_pixel_shows_its_token(height, width, grid, seed):
    rng = np.random.default_rng(seed)
    n = grid[0] * grid[1]
    tokens = np.sort(rng.choice(n, max(1, n // 2), replace=False))
    owner = rng.choice(np.append(tokens, -1), n)
    owner[tokens] = tokens
    alive = np.isin(np.arange(n), tokens) & (rng.random(n) < 0.8)
    image = picture(height, width)
    out = draw_tokens(image, grid, owner, alive).astype(float)
    region = slow_regions(height, width, grid, owner, alive)
    sizes = {t: int((owner == t).sum()) for t in tokens}
    means = {t: image[region == t].mean(0) for t in tokens if (region == t).any()}
    for y in range(height):
        for x in range(width):
            token, source = region[y, x], image[y, x].astype(float)
            if token < 0:
                wanted = np.full(3, 0.22 * source.mean())
            else:
                wanted = source if sizes[token] == 1 else 0.25 * source + 0.75 * means[token]
                right = x + 1 < width and region[y, x + 1] != token
                below = y + 1 < height and region[y + 1, x] != token
                wanted = wanted * 0.55 if right or below else wanted
            assert np.abs(out[y, x] - wanted).max() <= 0.51, (y, x)


def test_all_tokens_alone_leave_the_picture_as_it_is_but_for_lines():
    image = picture(20, 20)
    out = draw_tokens(image, (2, 2), np.arange(4), np.ones(4, bool))
    inner = np.ones((20, 20), bool)
    inner[9], inner[:, 9] = False, False
    assert np.array_equal(out[inner], image[inner])
    assert (out[~inner] <= image[~inner]).all()
    none = draw_tokens(image, (2, 2), np.full(4, -1), np.zeros(4, bool))
    assert none.max() <= 0.22 * 255 + 1


def test_text_has_its_pixels_and_is_cut_at_the_edge():
    blank = np.zeros((6, 12, 3), np.uint8)
    out = draw_text(blank, "i%", (0, 0), scale=1)
    assert blank.max() == 0
    lit = ["".join("#" if p else "." for p in row) for row in out[:, :, 0] > 0]
    assert lit[:5] == ["###.#.#.....", ".#....#.....", ".#...#......", ".#..#.......", "###.#.#....."]
    assert draw_text(blank, "WIDE WORDS THAT DO NOT FIT", (4, 2), scale=3).shape == blank.shape
    assert draw_text(blank, "é ", (0, 0)).max() == 0


def test_sheet_places_every_picture_and_has_even_sides():
    tiles = [[("a", picture(11, 13, 2 * r + c)) for c in range(2)] for r in range(3)]
    out = sheet(tiles)
    assert out.shape[0] % 2 == out.shape[1] % 2 == 0
    for r, row in enumerate(tiles):
        for c, (_, tile) in enumerate(row):
            top, left = 6 + r * (11 + 24 + 6) + 24, 6 + c * (13 + 6)
            assert np.array_equal(out[top : top + 11, left : left + 13], tile)


def test_mistakes_are_named():
    image, every = picture(8, 8), np.arange(4)
    with pytest.raises(ValueError, match=r"owner \(3,\)"):
        draw_tokens(image, (2, 2), every[:3], np.ones(3, bool))
    with pytest.raises(ValueError, match=r"alive \(5,\)"):
        draw_tokens(image, (2, 2), every, np.ones(5, bool))
    with pytest.raises(ValueError, match=r"owner: 0\.\.4"):
        draw_tokens(image, (2, 2), np.array([0, 1, 2, 4]), np.ones(4, bool))
    for tiles in ([], [[]], [[("a", image)], []]):
        with pytest.raises(ValueError, match="at least one"):
            sheet(tiles)
    with pytest.raises(ValueError, match="one shape"):
        sheet([[("a", image), ("b", picture(8, 6))]])
