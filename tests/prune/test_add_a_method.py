"""docs/add-a-method.md: its code runs, and what it adds works like any other method."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from tests.plug.stock import clips, inputs, stock_model
from tests.prune.choices import ENCODER, FRAMES, UNITS, block, check, fusion_tokens, layer, llm_config
from tests.prune.rivals.clips import make_clip
from videoprune.config import PruneConfig
from videoprune.cost.shapes import LanguageShape, ModelShape, VisionShape
from videoprune.cost.token_flow import token_flow
from videoprune.plug.apply import apply
from videoprune.plug.current_pass import trace
from videoprune.prune.fusion import fuse_clips, fuse_plan
from videoprune.prune.registry import BY_FRAME, FUSION, INSIDE, LLM, OVER_CLIP, ClipTokens

PAGE = Path(__file__).parents[2] / "docs" / "add-a-method.md"


@pytest.fixture
def added():
    """What the page's code leaves behind; the registry is as it was afterwards."""
    tables = [(t, dict(t)) for t in (INSIDE, BY_FRAME, OVER_CLIP, FUSION, LLM)]
    space: dict[str, object] = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL):
        exec(compile(code, str(PAGE), "exec"), space)
    yield space
    for table, before in tables:
        table.clear()
        table.update(before)


def test_the_page_on_adding_one_runs(added):
    check(INSIDE["halfway"].plan(block(), 5, ENCODER), FRAMES, UNITS, UNITS - 5)
    check(INSIDE["halfway"].at_end(block().x, 4, ENCODER)[2], FRAMES, UNITS, 4)
    check(BY_FRAME["first"].plan(2, 9, 4), 2, 9, 4)
    clip = make_clip(FRAMES, UNITS)
    check(OVER_CLIP["most_attended"].choose(clip, [5, 2], [2, 1]), 1, FRAMES * UNITS, 7)
    assert OVER_CLIP["most_attended"].knobs == ("power",)
    with pytest.raises(ValueError, match="attention=None; most_attended needs it"):
        OVER_CLIP["most_attended"](ClipTokens(clip.x), 5)
    z, encoder, frame = fusion_tokens()
    check(fuse_plan(z, encoder, 7, method="longest", group=frame), 1, 18, 7)
    check(fuse_clips("longest", z[0], [7], [[6, 6, 6]]), 1, 18, 7)
    choice = LLM["any_head"].choose(layer(), llm_config("any_head"))
    assert choice is not None
    assert choice.kept.sum(1).tolist() == [4, 5]


def test_what_the_page_adds_is_reckoned_like_any_other(added):
    vision = VisionShape("vision", 6, 6, 32, 4, 48, 2, 48, 4, (6, 6), projects_all=True)
    shape = ModelShape("any", (vision,), LanguageShape(6, 32, 4, 2, 8, 48, 64))
    flow = token_flow(shape, added["config"], 4, prompt_tokens=160)
    assert flow.encoders[0].stretches == tuple((n,) * 4 for n in (36, 36, 36, 36, 18, 18))
    assert flow.visual[0] == 36  # a half of a half of 4 x 36
    assert flow.visual[-1] < 36
    assert flow.pruning
    assert flow.encoders[0].pruning
    rival = PruneConfig.from_dict({"encoder": {"method": "most_attended", "keep": 0.25}})
    assert token_flow(shape, rival, 4, prompt_tokens=160).visual == (36,) * 6


@pytest.mark.parametrize("kind", ["internvl", "qwen2_5_vl"])
@pytest.mark.parametrize("encoder", ["halfway", "first", "most_attended"])
def test_a_stock_model_takes_what_the_page_adds(added, kind, encoder):
    model, batch = stock_model(kind), inputs(kind, clips(kind, 2, 4), [[7, 8, 9], [10, 11]])
    prune = added["config"].replace(
        **{"encoder.method": encoder, "encoder.keep": 1 / 3, "fusion.method": "none"}
    )
    dense = {"internvl": 4 * 9, "qwen2_5_vl": 4 * 12}[kind]
    with torch.no_grad(), trace() as seen:
        apply(model, prune)(**batch)
    for one in seen:
        assert one.llm_layers[0] == dense // 3
        assert one.llm_layers[-1] < dense // 3
