"""Density peaks over nearest neighbours (DPC-KNN), the clustering that HoliTom and FlashVID merge with.

Rodriguez and Laio, "Clustering by fast search and find of density peaks", Science 2014; Du et al., "Study on
density peaks clustering based on k-nearest neighbors", 2016.

Shapes: m tokens, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor


def density_peaks(x: Tensor, count: int, neighbors: int = 7) -> Tensor:
    """The cluster centre of each token: x (m, D) -> int64 (m,); a centre points at itself.

    d = Euclidean distance / sqrt(D). A token's density is exp(-mean squared d to its nearest `neighbors` other
    tokens), its separation the smallest d to a denser token, for the densest of all the largest d. The `count`
    tokens with the highest density * separation are centres, the others join the nearest centre.
    Equal densities: the earlier counts as denser (programs add noise instead). count: 1..m.
    """
    tokens = x.shape[0]
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    distance = torch.cdist(x, x) / x.shape[1] ** 0.5  # (m, m)
    place = torch.arange(tokens, device=x.device)
    if tokens == 1:
        return place
    others = distance.clone().fill_diagonal_(torch.inf)
    near = others.topk(min(neighbors, tokens - 1), dim=1, largest=False).values
    density = torch.exp(-near.square().mean(dim=1))
    denser = (density[None] > density[:, None]) | (
        (density[None] == density[:, None]) & (place[None] < place[:, None])
    )
    separation = distance.masked_fill(~denser, torch.inf).amin(dim=1)
    separation = separation.where(denser.any(dim=1), distance.amax(dim=1))
    centres = (density * separation).argsort(descending=True, stable=True)[:count].sort().values
    nearest = centres[distance[:, centres].argmin(dim=1)]
    return nearest.scatter(0, centres, centres)
