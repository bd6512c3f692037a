"""Rivals that merge or recycle between the layers of a stock causal LM, against runs by hand, layer by layer.

Shapes: n tokens left at a layer, W width, H heads. By hand: one row, plain loops over tokens, float64 attention.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from tests.plug.stock import GREEDY, KINDS, clips, inputs, stock_model
from tests.plug.test_llm_pass import CONFIGS, LAYERS, language_model, prompt
from videoprune import Engine
from videoprune.config import LLMPrune, PruneConfig, preset
from videoprune.plug.apply import apply
from videoprune.plug.current_pass import Pass, passing, trace
from videoprune.plug.joints import text_joints
from videoprune.plug.llm_door import LlmDoor
from videoprune.plug.settings import Settings
from videoprune.prune.registry import LLM
from videoprune.prune.rivals.framefusion import FrameFusion
from videoprune.types import VideoFrames

EACH = 4  # tokens of a frame
LAST = {"heads": "all", "queries": "last", "attention": "previous"}
METHODS = {
    "holitom": LLMPrune(method="holitom", layers=(0.5,), ratios=(0.3,), **LAST),
    "holitom_twice": LLMPrune(method="holitom", layers=(0.2, 0.7), ratios=(0.6, 0.3), **LAST),
    "framefusion": LLMPrune(method="framefusion", keep=0.4, **LAST),
    "framefusion_merges_all": LLMPrune(method="framefusion", keep=0.85, **LAST),
    "sparsevlm": LLMPrune(
        method="sparsevlm", layers=(0.2, 0.7), ratios=(0.6, 0.3), heads="all", attention="previous"
    ),
}


@pytest.fixture(autouse=True)
def small_clips_are_alike(monkeypatch):
    """Thresholds at which random hidden states merge for some layers, and clusters of more than one."""
    monkeypatch.setitem(LLM, "framefusion", FrameFusion(similarity=0.8, least=0.1))


def still(frames: list[int], text: list[int], seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`prompt` whose frames are alike, some places more than others."""
    x, mask, seen, positions = prompt([EACH * f for f in frames], text, seed)
    for row, count in enumerate(frames):
        start = int(seen[row].int().argmax())
        noise = torch.linspace(0.0, 1.2, EACH)[None, :, None]
        clip = x[row, start : start + EACH * count].view(count, EACH, -1)
        x[row, start : start + EACH * count] = (clip[:1] + noise * clip).flatten(0, 1)
    return x, mask, seen, positions


@contextmanager
def merging(model, config: LLMPrune, seen: Tensor, frames: int):
    decoder = model.base_model
    door = LlmDoor(model, decoder, text_joints(decoder))
    call = Pass(model, Settings(PruneConfig(llm=config)), visual=seen, frames=[EACH] * frames)
    try:
        with torch.no_grad(), passing(call), trace(places=True) as traces:
            yield traces
    finally:
        door.remove()


def pruned(model, config: LLMPrune, frames: list[int], x, mask, seen, positions):
    with merging(model, config, seen, sum(frames)) as traces:
        out = model(inputs_embeds=x, attention_mask=mask, position_ids=positions)
    return out.logits, traces


# By hand. A cut takes the hidden states of the prompt's tokens and says which of them go on, and as what.


@dataclass
class Cut:
    """hidden: (n, W). places: (n,), where each token is in the prompt. paid: (H, n, n), attention of the layer before.
    visual: dense visual tokens, first in the prompt. raters: prompt places whose attention counts."""

    layer: int
    hidden: Tensor
    places: list[int]
    paid: Tensor | None
    visual: int
    raters: list[int]

    @property
    def seen(self) -> list[int]:
        return [i for i, p in enumerate(self.places) if p < self.visual]

    def score(self, rows: list[int]) -> list[float]:
        assert self.paid is not None
        return self.paid[:, rows].mean((0, 1)).tolist()


Rule = Callable[[Cut], tuple[Tensor, list[int]]]  # hidden states (n, W), and which of the n go on


def by_hand(model, x: Tensor, visual: int, rule: Rule, later: int = 0) -> Tensor:
    """Logits (S, V) of the tokens behind the clip. later: tokens behind the prompt, which have no say."""
    places, hidden, paid = list(range(x.shape[0])), x, None
    rope = model.model.rotary_emb(x[None], torch.arange(x.shape[0])[None])
    near = (x[:visual].double() @ x[visual : len(x) - later].double().T).softmax(1).mean(0)
    raters = [visual + i for i, r in enumerate(near.tolist()) if r > sum(near.tolist()) / len(near)]
    with torch.no_grad():
        for i, layer in enumerate(model.model.layers):
            n = len(places) - later
            cut = Cut(i, hidden[:n].clone(), places[:n], paid, visual, raters)
            prompt_part, go = rule(cut)
            hidden = torch.cat([prompt_part[go], hidden[n:]])
            places = [places[g] for g in go] + places[n:]
            own = tuple(r[:, places] for r in rope)
            paid = attention(layer, hidden, own)[:, : len(go), : len(go)]
            bias = torch.full((len(places),) * 2, torch.finfo(torch.float32).min).triu(1)
            hidden = layer(hidden[None], attention_mask=bias[None, None], position_embeddings=own)[0]
        return model.lm_head(model.model.norm(hidden))[len([p for p in places if p < visual]) :]


def attention(layer, hidden: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    """Causal attention of every head, (H, n, n), float64."""
    own, x = layer.self_attn, layer.input_layernorm(hidden)
    q, k = own.q_proj(x).unflatten(1, (-1, 8)), own.k_proj(x).unflatten(1, (-1, 8))
    q, k = (own.q_norm(q), own.k_norm(k)) if hasattr(own, "q_norm") else (q, k)
    cos, sin = (r[0].double()[:, None] for r in rope)
    q, k = (t.double() * cos + torch.cat([-t[..., 4:], t[..., :4]], -1).double() * sin for t in (q, k))
    logits = torch.einsum("qhd,khd->hqk", q, k.repeat_interleave(2, 1)) * 8**-0.5
    return logits.masked_fill(torch.ones(logits.shape[1:]).triu(1).bool(), float("-inf")).softmax(-1)


def keep_on(cut: Cut) -> tuple[Tensor, list[int]]:
    return cut.hidden, list(range(len(cut.places)))


def leaving(cut: Cut, gone: set[int]) -> list[int]:
    return [i for i in range(len(cut.places)) if i not in gone]


def holitom_rule(cuts: dict[int, float]) -> Rule:
    def rule(cut: Cut) -> tuple[Tensor, list[int]]:
        if cut.layer not in cuts:
            return keep_on(cut)
        score, x = cut.score([-1]), cut.hidden
        best = sorted(cut.seen, key=lambda i: -score[i])[: round(cut.visual * cuts[cut.layer])]
        rest, merged = [i for i in cut.seen if i not in best], x.clone()
        for i in rest:
            alike = [float(torch.cosine_similarity(x[i], x[j], dim=0)) for j in best]
            into = best[max(range(len(best)), key=alike.__getitem__)]
            merged[into] = (merged[into] + x[i]) / 2
        return merged, leaving(cut, set(rest))

    return rule


def framefusion_rule(average: float, seen_steps: list[str]) -> Rule:
    """The state of the authors' module: sparsities so far, and what is finished."""
    sparsities: list[float] = []
    state = {"step": "merge"}

    def share() -> float:
        left, spent = 1.0, 0.0
        for s in sparsities:
            left *= 1 - s
            spent += left
        return max(0.0, 1 - (LAYERS * average - spent) / ((LAYERS - len(sparsities)) * left))

    def rule(cut: Cut) -> tuple[Tensor, list[int]]:
        seen, x = cut.seen, cut.hidden
        if state["step"] == "rest":
            return keep_on(cut)
        seen_steps.append(state["step"])
        if state["step"] == "prune":
            state["step"], score = "rest", cut.score([-1])
            stay = round(len(seen) * (1 - share()))
            return x, leaving(cut, set(sorted(seen, key=lambda i: -score[i])[stay:]))
        before = {i: max((j for j in seen if j < i and same_place(cut, i, j)), default=None) for i in seen}
        alike = {
            i: float(torch.cosine_similarity(x[i], x[j], dim=0)) for i, j in before.items() if j is not None
        }
        goes = [i for i in seen if alike.get(i, -2) >= 0.8]
        if len(goes) / len(seen) < share():
            sparsities.append(len(goes) / len(seen))
            state["step"] = "prune" if sparsities[-1] < 0.1 else "merge"
        else:
            goes = sorted(alike, key=lambda i: -alike[i])[: int(share() * len(seen))]
            state["step"] = "rest"
        groups: dict[int, list[int]] = {}
        for i in seen:
            first = i
            while first in goes:
                first = before[first]  # type: ignore[assignment]
            groups.setdefault(first, []).append(i)
        merged = x.clone()
        for first, members in groups.items():
            merged[first] = sum(x[m] for m in members) / len(members)
        return merged, leaving(cut, set(goes))

    return rule


def same_place(cut: Cut, i: int, j: int) -> bool:
    return cut.places[i] % EACH == cut.places[j] % EACH


def sparsevlm_rule(cuts: dict[int, float]) -> Rule:
    def rule(cut: Cut) -> tuple[Tensor, list[int]]:
        if cut.layer not in cuts:
            return keep_on(cut)
        score, x = cut.score([cut.places.index(r) for r in cut.raters]), cut.hidden
        wanted = round(cut.visual * cuts[cut.layer])
        # What the authors' counts come to, by trying all numbers of chosen tokens.
        left = len(cut.seen)
        fits = [k for k in range(left) if k + (int((left - k) * 0.3) + 1) // 10 + 1 == wanted]
        best = sorted(cut.seen, key=lambda i: -score[i])
        chosen, again = best[: fits[-1]], best[fits[-1] :][: int((left - fits[-1]) * 0.3) + 1]
        merged, centres = x.clone(), clusters_by_hand(x[again], wanted - fits[-1])
        for centre in set(centres):
            merged[again[centre]] = x[[a for a, c in zip(again, centres, strict=True) if c == centre]].mean(0)
        stay = {*chosen, *(again[c] for c in centres)}
        return merged, leaving(cut, {i for i in cut.seen if i not in stay})

    return rule


def clusters_by_hand(x: Tensor, count: int) -> list[int]:
    far = [[float((a - b).double().norm()) / len(a) ** 0.5 for b in x] for a in x]
    dense = [-sum(d**2 for d in sorted(row)[:count]) / count for row in far]
    most, members = max(map(max, far)), range(len(x))

    def denser(j: int, i: int) -> bool:
        return (dense[j], -j) > (dense[i], -i)

    parent = [min([far[i][j] for j in members if denser(j, i)], default=most) for i in members]
    score = [p * torch.tensor(d).exp().item() for p, d in zip(parent, dense, strict=True)]
    centres = sorted(members, key=lambda i: (-score[i], i))[:count]
    return [i if i in centres else min(centres, key=lambda c: far[i][c]) for i in members]


RULES: dict[str, Callable[[list[str]], Rule]] = {
    "holitom": lambda steps: holitom_rule({3: 0.3}),
    "holitom_twice": lambda steps: holitom_rule({1: 0.6, 4: 0.3}),
    "framefusion": lambda steps: framefusion_rule(0.4, steps),
    "framefusion_merges_all": lambda steps: framefusion_rule(0.85, steps),
    "sparsevlm": lambda steps: sparsevlm_rule({1: 0.6, 4: 0.3}),
}


@pytest.mark.parametrize("kind", list(CONFIGS))
@pytest.mark.parametrize("name", list(METHODS))
def test_merging_equals_a_run_by_hand(kind: str, name: str) -> None:
    model, frames, steps = language_model(kind), 16, []
    x, mask, seen, positions = still([frames], [7])
    logits, (traced,) = pruned(model, METHODS[name], [frames], x, mask, seen, positions)
    expected = by_hand(model, x[0], EACH * frames, RULES[name](steps))
    torch.testing.assert_close(logits[0, -7:], expected, atol=5e-5, rtol=1e-3)
    assert traced.llm_layers[-1] < EACH * frames / 2 or name == "framefusion_merges_all"
    if name == "framefusion":
        assert steps[:2] == ["merge", "merge"]
        assert steps[-1] == "prune"
    if name == "framefusion_merges_all":
        assert steps[-1] == "merge"
        assert traced.llm_layers[-1] < EACH * frames
    if name.startswith("framefusion"):
        assert sum(traced.llm_layers) / LAYERS == pytest.approx(METHODS[name].keep * EACH * frames, abs=1.5)
    else:
        assert traced.llm_layers[-1] == round(0.3 * EACH * frames)


@pytest.mark.parametrize("name", list(METHODS))
def test_steps_behind_the_prompt_equal_a_run_by_hand(name: str) -> None:
    """One by one or many together, from the cache that merging left."""
    model, frames = language_model(), 12
    x, mask, seen, positions = still([frames], [6])
    later = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(4))
    expected = by_hand(model, torch.cat([x, later], 1)[0], EACH * frames, RULES[name]([]), later=5)[-5:]
    for parts in ([5], [1] * 5):
        with merging(model, METHODS[name], seen, frames):
            out = model(inputs_embeds=x, attention_mask=mask, position_ids=positions, use_cache=True)
            found, at = [], EACH * frames + 6
            assert out.past_key_values.get_seq_length() == at
            for one in later.split(parts, 1):
                given = {"inputs_embeds": one, "position_ids": at + torch.arange(one.shape[1])[None]}
                found.append(model(**given, past_key_values=out.past_key_values).logits)
                at += one.shape[1]
        torch.testing.assert_close(torch.cat(found, 1)[0], expected, atol=5e-5, rtol=1e-3)


@pytest.mark.parametrize("name", list(METHODS))
@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_a_batch_equals_the_rows_alone(name: str, kernel: str) -> None:
    """Rows of other lengths, other counts and other steps, padding on the left: prefill and decoding."""
    model, config = language_model(attention=kernel), METHODS[name]
    frames, text = [10, 3, 16, 6], [5, 9, 4, 6]
    x, mask, seen, positions = still(frames, text)
    logits, traces = pruned(model, config, frames, x, mask, seen, positions)
    with merging(model, config, seen, sum(frames)):
        ids = model.generate(inputs_embeds=x, attention_mask=mask, max_new_tokens=5, do_sample=False)
    for i in range(4):
        start = x.shape[1] - EACH * frames[i] - text[i]
        own = [t[i : i + 1, start:] for t in (x, mask, seen, positions)]
        alone, (one,) = pruned(model, config, frames[i : i + 1], *own)
        torch.testing.assert_close(logits[i, -text[i] :], alone[0, -text[i] :], atol=5e-5, rtol=1e-3)
        assert one.llm_layers == traces[i].llm_layers
        assert one.places == traces[i].places
        with merging(model, config, own[2], frames[i]):
            said = model.generate(
                inputs_embeds=own[0], attention_mask=own[1], max_new_tokens=5, do_sample=False
            )
        assert torch.equal(said[0], ids[i])


@pytest.mark.parametrize("name", list(METHODS))
def test_sdpa_and_eager_agree(name: str) -> None:
    rows = still([12, 5], [5, 7])
    a, b = (pruned(language_model(attention=k), METHODS[name], [12, 5], *rows)[0] for k in ("sdpa", "eager"))
    torch.testing.assert_close(a[:, -5:], b[:, -5:], atol=5e-5, rtol=1e-3)


@pytest.mark.parametrize("name", ["holitom", "framefusion", "sparsevlm"])
def test_keep_all_is_the_stock_model(name: str) -> None:
    model = language_model()
    x, mask, seen, positions = still([8], [5])
    with torch.no_grad():
        stock = model(inputs_embeds=x, attention_mask=mask, position_ids=positions).logits
    logits, (traced,) = pruned(model, LLMPrune(method=name, keep=1.0), [8], x, mask, seen, positions)
    assert traced.llm_layers == (EACH * 8,) * LAYERS
    torch.testing.assert_close(logits, stock, atol=1e-5, rtol=1e-5)


def test_raters_are_the_words_near_the_picture() -> None:
    x, _, seen, _ = still([10], [6])
    picture = x[0, : EACH * 10].mean(0)
    x[0, -6:] = torch.randn(6, 32, generator=torch.Generator().manual_seed(3)) - picture
    assert LLM["sparsevlm"].askers(x, seen, ~seen)[0, -6:].sum() < 6
    x[0, -3] = 3 * picture
    assert LLM["sparsevlm"].askers(x, seen, ~seen)[0].nonzero()[:, 0].tolist() == [43]


def test_the_raters_decide_what_stays(monkeypatch) -> None:
    model, config = language_model(), METHODS["sparsevlm"]
    x, mask, seen, positions = still([10], [6])
    found = []
    for rater in (41, 44):
        one = torch.arange(46)[None] == rater
        monkeypatch.setattr(type(LLM["sparsevlm"]), "askers", lambda self, x, v, q, one=one: one)
        found.append(pruned(model, config, [10], x, mask, seen, positions)[1][0].places.last)
    assert found[0] != found[1]


def test_frames_that_are_not_known_are_refused() -> None:
    model = language_model()
    x, mask, seen, positions = still([8], [5])
    with pytest.raises(
        ValueError, match=r"llm.method='framefusion': \[32\] visual tokens, not known of which frames"
    ):
        pruned(model, METHODS["framefusion"], [], x, mask, seen, positions)
    with pytest.raises(ValueError, match=r"\[32\] visual tokens, 5 frames; allowed: clips of one encoder"):
        pruned(model, METHODS["framefusion"], [5], x, mask, seen, positions)
    for part in ("encoder", "fusion"):
        changes = {"llm": {"method": "framefusion"}, part: {"method": "random", "keep": 0.5}}
        with pytest.raises(
            ValueError, match=f"llm.method='framefusion' with {part}.method='random'; allowed: none"
        ):
            PruneConfig.from_dict(changes)


# Stock models: the frames are those that the encoder has seen.

TOKENS = {
    "llava_onevision": 16,
    "qwen2_5_vl": 12,
    "qwen3_vl": 12,
    "video_llama_3": 12,
}  # of a frame; others 9


@pytest.fixture
def places(monkeypatch) -> list[list[int]]:
    """What FrameFusion is told of places in frames, by row of each prefill."""
    found: list[list[int]] = []

    def merged(self, x: Tensor, in_frame: Tensor, share: float) -> Tensor:
        found.append(in_frame.tolist())
        return torch.arange(len(x))

    monkeypatch.setattr(FrameFusion, "merged", merged)
    return found


def expected_places(kind: str, frames: int) -> list[int]:
    newline = [-1] if kind == "llava_onevision" else []
    return [*range(TOKENS.get(kind, 9))] * frames + newline


@pytest.mark.parametrize("kind", KINDS)
def test_a_stock_model_tells_where_in_its_frame_a_token_is(kind, places) -> None:
    batch = inputs(kind, clips(kind, 2, 4), [[7, 8, 9], [10, 11]])
    model = apply(stock_model(kind), PruneConfig(llm=METHODS["framefusion"]))
    with torch.no_grad():
        model(**batch)
    assert places == [expected_places(kind, 4)] * 2


@pytest.mark.parametrize("kind", KINDS)
def test_and_so_in_every_beam(kind, places) -> None:
    batch = inputs(kind, clips(kind, 2, 4), [[7, 8, 9], [10, 11]])
    how = {"max_new_tokens": 2, "num_beams": 2, **GREEDY}
    try:
        stock_model(kind).generate(**batch, **how)
    except ValueError as error:  # LLaVA-NeXT-Video of transformers 5.18
        pytest.skip(f"the stock {kind} itself: {error}")
    model = apply(stock_model(kind), PruneConfig(llm=METHODS["framefusion"]))
    model.generate(**batch, **how)
    assert places == [expected_places(kind, 4)] * 4


@pytest.mark.parametrize("name", ["llava-demo", "qwen-demo"])
def test_an_engine_tells_it_of_clips_that_were_encoded_before(name, places) -> None:
    engine = Engine(name, preset("framefusion"), device="cpu")
    size = engine.frame_size or (56, 56)
    made = []
    for seed in (0, 1):
        pixels = torch.randint(0, 256, (8, *size, 3), generator=torch.Generator().manual_seed(seed))
        made.append(VideoFrames(pixels.to(torch.uint8), tuple(map(float, range(8))), 8.0, "noise", "none"))
    first, second = engine.encode(made)
    engine.answer([first, second], ["What moves?", "Why?"], max_new_tokens=1)
    engine.answer([first], ["What moves?", "Why?"], max_new_tokens=1)
    assert len(places) == 4
    tail = first.trace.dense % 4
    steps = places[0].count(0)
    assert all(p == [*range(first.trace.dense // steps)] * steps + [-1] * tail for p in places)
    assert steps in (4, 8)
    assert engine.prefill([first])[0].prefix is None  # its first layer cuts: nothing is shared
    with pytest.raises(ValueError, match="framefusion' with encoder"):
        engine.with_prune(preset("framefusion").replace(**{"encoder.method": "random", "encoder.keep": 0.5}))


@pytest.mark.parametrize("kind", ["llava_onevision", "qwen2_5_vl"])
@pytest.mark.parametrize("name", ["holitom", "framefusion", "sparsevlm"])
def test_a_stock_model_takes_them(kind, name) -> None:
    batch = inputs(kind, clips(kind, 2, 4), [[7, 8, 9], [10, 11]])
    model = apply(stock_model(kind), PruneConfig(llm=METHODS[name]))
    with torch.no_grad(), trace() as traces:
        model(**batch)
    for one in traces:
        assert one.fused == one.dense
        assert one.llm_layers[-1] < one.dense
    many = model.generate(**batch, max_new_tokens=3, **GREEDY)
    for row in range(2):
        alone = inputs(kind, clips(kind, 2, 4)[row : row + 1], [[[7, 8, 9], [10, 11]][row]])
        assert torch.equal(model.generate(**alone, max_new_tokens=3, **GREEDY)[0, -3:], many[row, -3:])
