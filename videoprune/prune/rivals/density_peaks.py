"""Density peaks over nearest neighbours (DPC-KNN), which HoliTom, FlashVID, FastVID and SparseVLM merge with.

Rodriguez and Laio, "Clustering by fast search and find of density peaks", Science 2014; Du et al., "Study on
density peaks clustering based on k-nearest neighbors", 2016.

Shapes: F frames, m tokens, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor


def density_peaks(x: Tensor, count: int, neighbors: int = 7) -> Tensor:
    """The cluster centre of each token: x (m, D) -> int64 (m,); a centre points at itself.

    The `count` tokens with the highest `peak_scores` are centres, the others join the nearest centre. Distances are
    Euclidean over sqrt(D). count: 1..m. neighbors: the token itself counts as one, and no more of them than centres.
    So a single centre has no neighbours to be told by: it is the earliest token (the authors' noise draws one). Raises
    ValueError for another count.
    """
    if not 1 <= count <= len(x):
        raise ValueError(f"count={count}; allowed: 1..{len(x)}, the tokens")
    if count == 1:
        return torch.zeros(len(x), dtype=torch.int64, device=x.device)
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    distance = torch.cdist(x, x) / x.shape[1] ** 0.5  # (m, m)
    scores = peak_scores(distance, min(neighbors, count))
    centres = scores.argsort(descending=True, stable=True)[:count].sort().values
    nearest = centres[distance[:, centres].argmin(dim=1)]
    return nearest.scatter(0, centres, centres)


def peak_scores(distance: Tensor, neighbors: int) -> Tensor:
    """Density times separation of each token: distances (..., m, m) -> (..., m).

    A token's density is exp(-mean squared distance to its `neighbors` nearest, itself included), its separation the
    smallest distance to a denser token, for the densest of all the largest distance of any two.
    Equal densities: the earlier counts as denser (the authors' programs add noise of 1e-6 instead).
    """
    tokens = distance.shape[-1]
    near = distance.topk(min(neighbors, tokens), dim=-1, largest=False).values
    density = torch.exp(-near.square().mean(dim=-1))  # (..., m)
    place = torch.arange(tokens, device=distance.device)
    mine, other = density[..., :, None], density[..., None, :]
    denser = (other > mine) | ((other == mine) & (place < place[:, None]))
    largest = distance.flatten(-2).amax(dim=-1)[..., None, None]
    return distance.where(denser, largest).amin(dim=-1) * density
