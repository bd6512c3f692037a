"""Draw on frames which tokens are left: merged patches in one colour, patches whose token has gone in the dark.

Pure drawing on numpy pictures. After the pictures of ToMe (arXiv 2210.09461): a region that merged is painted in its
mean colour, and lines part it from others.

Shapes: H x W pixels, n = rows * columns patches of the dense grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

_DARK = 0.22
_GAP, _STRIP, _PAPER = 6, 24, (18, 20, 23)

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/%.,-:>() "
# Rows of 3 pixels, one octal digit each, from the top.
_ROWS = """
25755 65656 34443 65556 74647 74644 34553 55755 72227 11152 55655 44447 57755 65555 25552 65644 25563 65655 34216 72222
55557 55552 55775 55255 55222 71247 75557 26227 61247 61216 55711 74616 34757 71222 75757 75716 11244 51245 00002 00024
00700 02020 42124 12221 42224 00000
"""
_GLYPHS = dict(zip(_LETTERS, _ROWS.split(), strict=True))


def draw_tokens(
    image: Image, grid: tuple[int, int], owner: NDArray[np.int64], alive: NDArray[np.bool_]
) -> Image:
    """One frame with one encoder's tokens.

    image: uint8 (H, W, 3), which the grid of rows x columns patches covers. owner: (n,), the patch whose token each
    patch belongs to (its own number where nothing merged), -1 where it was dropped. alive: (n,), whether the token at
    a patch is still there. A patch is lit if its token is. Raises ValueError if the shapes disagree.
    """
    rows, columns = grid
    if owner.shape != (rows * columns,) or alive.shape != owner.shape:
        raise ValueError(
            f"owner {owner.shape}, alive {alive.shape}; allowed: ({rows * columns},) for grid={grid}"
        )
    if owner.size and (owner.max() >= owner.size or owner.min() < -1):
        raise ValueError(f"owner: {owner.min()}..{owner.max()}; allowed: -1..{owner.size - 1}")
    height, width = image.shape[:2]
    region = np.where((owner >= 0) & alive[owner], owner, -1)
    patch = _patch_of_pixels(height, width, rows, columns)
    label = region[patch]  # (H, W)
    out = image.astype(np.float32)
    counts = np.bincount(region[region >= 0], minlength=rows * columns)
    for token in np.flatnonzero(counts > 1):
        inside = label == token
        out[inside] = 0.25 * out[inside] + 0.75 * out[inside].mean(0)
    gone = label < 0
    out[gone] = _DARK * out[gone].mean(1, keepdims=True)
    out[_edges(label) & ~gone] *= 0.55
    return out.round().astype(np.uint8)


def draw_text(image: Image, text: str, at: tuple[int, int], *, scale: int = 2) -> Image:
    """A copy of `image` with `text` in white capitals, its upper left corner at row, column `at`; what does not fit
    is cut off, what has no letter is a space."""
    out = image.copy()
    row, column = at
    for letter in text.upper():
        glyph = _GLYPHS.get(letter, "00000")
        dots = np.array([[int(digit) >> (2 - bit) & 1 for bit in range(3)] for digit in glyph], bool)
        mask = dots.repeat(scale, 0).repeat(scale, 1)
        part = out[row : row + mask.shape[0], column : column + mask.shape[1]]
        part[mask[: part.shape[0], : part.shape[1]]] = 255
        column += 4 * scale
    return out


def sheet(tiles: Sequence[Sequence[tuple[str, Image]]]) -> Image:
    """Rows of titled pictures of one size as one picture, its sides even (video codecs want that)."""
    if not tiles or not tiles[0] or len({len(row) for row in tiles}) > 1:
        raise ValueError("tiles: allowed: at least one row of at least one picture, all rows as long")
    shapes = {picture.shape for row in tiles for _, picture in row}
    if len(shapes) > 1:
        raise ValueError(f"tiles: pictures of shapes {sorted(shapes)}; allowed: one shape")
    height, width = next(iter(shapes))[:2]
    rows, columns = len(tiles), len(tiles[0])
    size = (rows * (height + _STRIP + _GAP) + _GAP, columns * (width + _GAP) + _GAP)
    out = np.empty((size[0] + size[0] % 2, size[1] + size[1] % 2, 3), np.uint8)
    out[:] = _PAPER
    for i, row in enumerate(tiles):
        for j, (title, picture) in enumerate(row):
            top, left = _GAP + i * (height + _STRIP + _GAP), _GAP + j * (width + _GAP)
            strip = draw_text(out[top : top + _STRIP, left : left + width], title, (6, 1))
            out[top : top + _STRIP, left : left + width] = strip
            out[top + _STRIP : top + _STRIP + height, left : left + width] = picture
    return out


def _patch_of_pixels(height: int, width: int, rows: int, columns: int) -> NDArray[np.int64]:
    """The patch that each pixel lies in, (H, W)."""
    row = np.arange(height) * rows // height
    column = np.arange(width) * columns // width
    return np.asarray(row[:, None] * columns + column, np.int64)


def _edges(label: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Pixels whose right or lower neighbour belongs to another region."""
    out = np.zeros(label.shape, bool)
    out[:, :-1] |= label[:, :-1] != label[:, 1:]
    out[:-1] |= label[:-1] != label[1:]
    return out
