"""What rivals do inside the LLM, beside numbers of their authors' own code over the same made-up layers.

Shapes: S tokens, n tokens now, W width.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from scripts.original_numbers import _llm_prompts as made_up
from scripts.original_numbers import (
    aim_llm,
    fastv,
    flashvid_llm,
    framefusion,
    holitom_llm,
    pyramiddrop,
    sparsevlm,
)
from videoprune.config import LLMPrune, preset
from videoprune.prune.counts import cut_layers, cut_ratios, kept_at_cut
from videoprune.prune.llm_kinds import LayerChoice, LayerTokens
from videoprune.prune.merge import apply_rows
from videoprune.prune.registry import LLM
from videoprune.prune.rivals.llm import aim_scores

FOLDER = Path(__file__).parent / "originals"


def numbers(name: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f"{name}.npz") as found:
        return dict(found)


class Run:
    """A prompt on its way through made-up layers."""

    def __init__(self, prompt: made_up.Prompt) -> None:
        self.prompt = prompt
        self.x, self.at = torch.from_numpy(prompt.x), torch.arange(len(prompt.x))
        self.before = self.x  # what the last layer computed on
        self.next = 0
        self.counts: list[int] = []

    @property
    def visual(self) -> Tensor:
        return (self.at >= self.prompt.start) & (self.at < self.prompt.end)

    def tokens(self, wanted: int, layer: int, asks: Tensor | None, num_layers: int = 0) -> LayerTokens:
        """layer: whose attention is asked, that of the last or the next. asks: bool (S,), of the whole prompt;
        None: the last token."""
        x = self.x if layer == self.next else self.before
        rows = torch.ones_like(self.at, dtype=torch.bool) if asks is None else asks[self.at]

        def paid(last: bool) -> Tensor:
            part = slice(-1, None) if last else slice(None)
            found = torch.from_numpy(made_up.attention(x.numpy(), layer, part))
            return (found if last else found[:, rows]).mean(1)[None]

        return LayerTokens(
            self.visual[None],
            torch.ones_like(self.visual)[None],
            torch.tensor([wanted]),
            text_attention=paid,
            hidden=lambda: self.x[None],
            in_frame=((self.at - self.prompt.start) % self.prompt.each).where(self.visual, -1)[None],
            before=[[self.prompt.visual], *([n] for n in self.counts)],
            num_layers=num_layers,
        )

    def take(self, choice: LayerChoice | None) -> None:
        if choice is not None:
            places = torch.arange(len(self.at))
            goes = choice.kept[0] | ~self.visual
            if choice.into is not None:
                into = places.where(~self.visual, choice.into[0])
                self.x = apply_rows(self.x[None], into[None], choice.weight)[0]
            self.x, self.at = self.x[goes], self.at[goes]
        self.counts.append(int(self.visual.sum()))

    def layer(self, index: int) -> None:
        self.before, self.next = self.x, index + 1
        self.x = torch.from_numpy(made_up.behind_layer(self.x.numpy(), index))


def config(name: str, **more: object) -> LLMPrune:
    return LLMPrune(**{**preset(name).as_dict()["llm"], **more})


@pytest.mark.parametrize("number", range(len(flashvid_llm.CASES)))
def test_flashvid(number: int) -> None:
    prompt = made_up.prompt(*flashvid_llm.CASES[number], flashvid_llm.WIDTH)
    run, llm = Run(prompt), config("flashvid")
    run.take(
        LLM["fixed"].choose(run.tokens(kept_at_cut(prompt.visual, 0.3, llm), flashvid_llm.LAYER, None), llm)
    )
    assert run.at.tolist() == numbers("flashvid_llm")[f"kept{number}"].tolist()


@pytest.mark.parametrize("number", range(len(holitom_llm.CASES)))
def test_holitom(number: int) -> None:
    seed, frames, each, share = holitom_llm.CASES[number]
    run, llm, cut = (
        Run(made_up.prompt(seed, frames, each, holitom_llm.WIDTH)),
        config("holitom"),
        holitom_llm.CUT,
    )
    for layer in range(cut + 1):
        if layer == cut:
            wanted = kept_at_cut(frames * each, 1 - share, llm)
            run.take(LLM["holitom"].choose(run.tokens(wanted, cut - 1, None), llm))
        run.layer(layer)
    expected = torch.from_numpy(numbers("holitom_llm")[f"x{number}"])
    torch.testing.assert_close(run.x, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("number", range(len(framefusion.CASES)))
def test_framefusion(number: int) -> None:
    seed, frames, each, still, cost = framefusion.CASES[number]
    run = Run(made_up.prompt(seed, frames, each, framefusion.WIDTH, still=still))
    llm, found = config("framefusion", keep=cost), numbers("framefusion")
    for layer in range(framefusion.LAYERS):
        tokens = run.tokens(0, layer - 1, None, framefusion.LAYERS)
        run.take(LLM["framefusion"].choose(tokens, llm))
        run.layer(layer)
    assert run.counts == found[f"counts{number}"].tolist()
    assert run.at.tolist() == found[f"at{number}"].tolist()
    torch.testing.assert_close(run.x, torch.from_numpy(found[f"x{number}"]), atol=1e-4, rtol=1e-4)


def test_framefusions_cases_end_after_one_to_five_cuts_and_keep_their_budget() -> None:
    ends = set()
    for number, (_, frames, each, _, cost) in enumerate(framefusion.CASES):
        counts = numbers("framefusion")[f"counts{number}"].tolist()
        ends.add(len(set(counts)))
        assert sum(counts) / framefusion.LAYERS == pytest.approx(cost * frames * each, rel=0.04, abs=1)
    assert ends == {1, 2, 3, 4, 5}


@pytest.mark.parametrize("number", range(len(sparsevlm.CASES)))
def test_sparsevlm(number: int) -> None:
    """Clusters stand behind the kept tokens there: what is left is compared in one order."""
    seed, frames, each, retained, behind = sparsevlm.CASES[number]
    run = Run(made_up.prompt(seed, frames, each, sparsevlm.WIDTH, behind=behind))
    llm, method = config("sparsevlm"), LLM["sparsevlm"]
    question = torch.arange(len(run.at)) >= run.prompt.end
    asks = method.askers(run.x[None], run.visual[None], question[None])[0]
    assert 0 < asks.sum() < behind
    for layer in range(sparsevlm.LAYERS):
        if layer in (3, 7, 16):
            kept = sparsevlm.LISTS[retained][(3, 7, 16).index(layer)]
            wanted = with_clusters(int(run.visual.sum()), kept)
            run.take(method.choose(run.tokens(wanted, layer - 1, asks), llm))
        run.layer(layer)
    found = numbers("sparsevlm")
    assert run.counts[-1] == found[f"left{number}"].tolist()[0]
    expected = torch.from_numpy(found[f"x{number}"])
    torch.testing.assert_close(sorted_rows(run.x), sorted_rows(expected), atol=1e-4, rtol=1e-4)


def with_clusters(arrived: int, listed: int) -> int:
    """What the authors' list leaves of `arrived` tokens, clusters included."""
    kept = min(listed, arrived - 1)
    return kept + int((int((arrived - kept) * 0.3) + 1) / 10) + 1


def sorted_rows(x: Tensor) -> Tensor:
    return x[x[:, 0].argsort()]


@pytest.mark.parametrize("listed", sparsevlm.LISTS.values())
def test_sparsevlms_totals_are_parted_as_its_list_says(listed: tuple[int, ...]) -> None:
    parts: Callable[[int, int], tuple[int, int]] = LLM["sparsevlm"].parts  # type: ignore[attr-defined]
    arrived = 576
    for kept in listed:
        total = with_clusters(arrived, kept)
        assert parts(arrived, total) == (kept, total - kept)
        arrived = total


def test_sparsevlms_preset_is_its_list_at_576_tokens() -> None:
    llm, arrived = config("sparsevlm"), 576
    for kept, ratio in zip(sparsevlm.LISTS[192], llm.ratios, strict=True):
        arrived = with_clusters(arrived, kept)
        assert kept_at_cut(576, ratio, llm) == arrived


@pytest.mark.parametrize("number", range(len(fastv.CASES)))
def test_fastv(number: int) -> None:
    seed, frames, each, leaves = fastv.CASES[number]
    run = Run(made_up.prompt(seed, frames, each, fastv.WIDTH))
    llm, found = config("fastv", ratios=(1 - leaves,)), numbers("fastv")
    assert cut_layers(llm, 32) == (fastv.CUT,)
    for layer in range(fastv.CUT + 1):
        if layer == fastv.CUT:
            wanted = kept_at_cut(frames * each, 1 - leaves, llm)
            run.take(LLM[llm.method].choose(run.tokens(wanted, layer - 1, None), llm))
        run.layer(layer)
    assert run.at.tolist() == found[f"at{number}"].tolist()
    torch.testing.assert_close(run.x, torch.from_numpy(found[f"x{number}"]), atol=1e-4, rtol=1e-4)


def test_fastvs_preset_is_that_of_the_paper() -> None:
    assert cut_ratios(config("fastv"), 32) == (0.5,)  # K = 2, R = 50 %


@pytest.mark.parametrize("number", range(len(pyramiddrop.CASES)))
def test_pyramiddrop(number: int) -> None:
    seed, frames, each, behind = pyramiddrop.CASES[number]
    run = Run(made_up.prompt(seed, frames, each, pyramiddrop.WIDTH, behind=behind))
    llm, found, counts = config("pyramiddrop"), numbers("pyramiddrop"), []
    cuts = dict(zip(cut_layers(llm, pyramiddrop.LAYERS), cut_ratios(llm, pyramiddrop.LAYERS), strict=True))
    for layer in range(pyramiddrop.LAYERS):
        if layer in cuts:
            wanted = kept_at_cut(frames * each, cuts[layer], llm)
            run.take(LLM[llm.method].choose(run.tokens(wanted, layer, None), llm))
        counts.append(int(run.visual.sum()))
        run.layer(layer)
    assert counts == found[f"counts{number}"].tolist()
    assert run.at.tolist() == found[f"at{number}"].tolist()
    torch.testing.assert_close(run.x, torch.from_numpy(found[f"x{number}"]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("number", range(len(aim_llm.CASES)))
def test_aim(number: int) -> None:
    frames, each, *_, width = aim_llm.CASES[number]
    q, k = aim_llm.queries_and_keys(number, aim_llm.CUT - 1)
    valid = torch.ones(1, q.shape[2], dtype=torch.bool)
    at = torch.arange(q.shape[2])
    visual = (at >= aim_llm.START) & (at < aim_llm.START + frames * each)
    llm, found, scale = config("aim"), numbers("aim_llm"), width**-0.5
    scores = aim_scores(q, k, scale=scale, valid=valid)
    torch.testing.assert_close(scores[0], torch.from_numpy(found[f"scores{number}"]), atol=1e-6, rtol=1e-4)

    cuts, ratios = cut_layers(llm, aim_llm.LAYERS), cut_ratios(llm, aim_llm.LAYERS)
    counts = [kept_at_cut(frames * each, ratio, llm) for ratio in ratios]
    before = [frames * each] * cuts[0]
    assert [*before, *counts] == found[f"counts{number}"].tolist()[: len(before) + len(counts)]
    tokens = LayerTokens(visual[None], valid, torch.tensor(counts[:1]), queries_keys=lambda: (q, k, scale))
    choice = LLM[llm.method].choose(tokens, llm)
    assert choice is not None
    assert at[choice.kept[0] | ~visual].tolist() == found[f"at{number}"].tolist()
