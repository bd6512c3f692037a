"""How visual tokens are thinned from step to step while the demo model's LLM learns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from demo_training.clips import merging
from videoprune.config import EncoderPrune

# Share of its tokens that a hard clip keeps, over a standard one that has a quarter of them; some keep as many.
HARD_TOKENS, AS_MANY = 0.3, 0.3
# Where a setting keeps all and a hard clip does not, it keeps a share of its tokens between these.
HARD_MOST = (0.15, 0.45)
_ALL = (1.0, 1.0)


@dataclass(frozen=True)
class Mode:
    """How visual tokens are thinned: an encoder setting, then a share of the dense ones at most, chosen by `pick`.

    keep: that share is drawn between these two. `pick` is random, cooperative or objects; random and objects leave
    what is shown for a moment: what has no token left cannot be answered.
    """

    encoder: str
    pick: str
    keep: tuple[float, float]

    def tokens(self, dense: int, hard: bool, rng: np.random.Generator, whole: float) -> int:
        """whole: how often a hard clip keeps all too, where a setting keeps all."""
        if self.keep == _ALL:
            all_of_it = not hard or rng.random() < whole
            return dense if all_of_it else round(dense * float(rng.uniform(*HARD_MOST)))
        few = hard and rng.random() >= AS_MANY
        return round(dense * float(rng.uniform(*self.keep)) * (HARD_TOKENS if few else 1))


ENCODER_MODES = {
    "none": EncoderPrune(),
    "evo50": merging(0.5),
    "evo37": merging(0.375),
    "meteor50": EncoderPrune(method="meteor", keep=0.5),
}
CURRICULUM = [(1.0, Mode("none", "objects", (0.05, 0.1)))]
UNMERGED = [
    (0.33, Mode("none", "objects", (0.05, 0.12))),
    (0.22, Mode("none", "random", (0.12, 0.4))),
    (0.10, Mode("none", "cooperative", (0.12, 0.3))),
    (0.35, Mode("none", "random", _ALL)),
]
MIXTURE = [
    (0.35, Mode("none", "random", _ALL)),
    (0.12, Mode("none", "random", (0.1, 0.4))),
    (0.10, Mode("none", "cooperative", (0.1, 0.3))),
    (0.19, Mode("evo50", "cooperative", (0.12, 0.4))),
    (0.15, Mode("evo50", "random", (0.12, 0.5))),
    (0.09, Mode("meteor50", "cooperative", (0.12, 0.3))),
]
