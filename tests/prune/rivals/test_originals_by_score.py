"""DivPrune and EVS beside the places that their authors' code keeps of the same tensors."""

from __future__ import annotations

import pytest
import torch

from scripts.original_numbers._cases import CLIPS, SHARES, tensors
from tests.prune.rivals.originals_of import originals
from videoprune.prune.rivals.divprune import divprune
from videoprune.prune.rivals.evs import evs
from videoprune.prune.rivals.max_min import max_min_order
from videoprune.prune.rivals.tokens import ClipTokens

EVERY = pytest.mark.parametrize(("name", "share"), [(clip, share) for clip in CLIPS for share in SHARES])


def clip_of(name: str) -> ClipTokens:
    return ClipTokens(torch.from_numpy(tensors(name)[0]))


@EVERY
def test_divprune(name: str, share: float) -> None:
    clip, expected = clip_of(name), originals("divprune")[f"{name} {share}"].tolist()
    keep = round(share * clip.num_tokens)
    assert divprune(clip, keep).keep[0].tolist() == sorted(expected)
    assert max_min_order(clip.x.flatten(0, 1)[None], keep)[0].tolist() == expected


@EVERY
def test_evs(name: str, share: float) -> None:
    """vLLM rounds down, so one token less may stay there; and the first frame stays where the share is less."""
    clip, expected = clip_of(name), originals("evs")[f"{name} {share}"].tolist()
    wanted = round(share * clip.num_tokens)
    if wanted < clip.per_frame:
        assert expected == list(range(clip.per_frame))
        with pytest.raises(ValueError, match=f"keep={wanted}; allowed for evs: {clip.per_frame}"):
            evs(clip, wanted)
    else:
        assert 0 <= wanted - len(expected) <= 1
    assert evs(clip, len(expected)).keep[0].tolist() == expected
