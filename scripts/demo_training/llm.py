"""Stage 2 of the demo model: projectors and LLM learn to answer, the encoders stay as they are.

All questions of a clip share one visual prefix in one sequence; a mask keeps them apart. How the visual tokens
are thinned changes from step to step: objects first (a curriculum), then nothing, random drops, EvoPrune's
merging and METEOR's fusion.

Shapes: B clips, K visual tokens, Q text tokens of all questions, L = K + Q, W width of the LLM.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast

from demo_training.asking import by_category, exam, question_blocks
from demo_training.blocks import attention_by_blocks, block_ids
from demo_training.clips import ClipStore, EncodedClip, RenderedClips, encode_group
from demo_training.data import HARD_SHARE, NUM_FRAMES, frames_of, kept_first
from demo_training.dense import (
    IGNORE,
    LATER,
    LAYER,
    DenseHeads,
    alignment_loss,
    token_labels,
    token_places,
)
from demo_training.encoders import SIZE
from demo_training.modes import CURRICULUM, ENCODER_MODES, MIXTURE, UNMERGED, Mode
from demo_training.multi_encoder import build_model
from demo_training.optim import Run
from demo_training.text import build_tokenizer
from videoprune.config import EncoderPrune
from videoprune.eval.benchmarks.moving_shapes.hard_scene import SLOTS
from videoprune.models.encoded_frames import EncodedFrames
from videoprune.models.multi_encoder import MultiEncoderVLM
from videoprune.prune.fusion import fuse_plan
from videoprune.prune.merge import drop_others, gather

ALIGNMENT, KNOWN = 0.3, 0.5  # weights of the dense losses
STRETCHED = 0.6  # share of the steps whose visual tokens stand at positions of a longer prompt
HARD_STEPS = 0.75  # share of the steps on hard clips, which take longest to learn
GROUP = 8  # clips that are drawn and encoded together
NEW_GROUPS_PER_STEP = 0.1  # so a clip serves in about twenty steps, with other questions and other tokens
AT_LEAST = 16  # clips of every setting in use, of each split


def train_llm(
    out: Path,
    *,
    steps: int,
    curriculum: int,
    unmerged: int,
    batch: int,
    peak: float,
    device: str,
    start: Path | None = None,
    llm: Path | None = None,
    whole: float = 0.4,
) -> None:
    """`curriculum` steps on object tokens, then `unmerged` steps without pruning inside the encoders, then the mixture.

    start: a trained model's folder to go on from, with the encoders that are in `out`. llm: a stock model's folder to
    take the LLM from. whole: of the steps on all tokens, the share of hard clips that keep them. Resumes from
    `out`/llm.pt; `out`/llm_unmerged.pt keeps the end of the second part.
    """
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(out / "tokenizer")
    model = build_model(out, tokenizer, start, llm).to(device)
    heads = DenseHeads(model.language_model.config.hidden_size).to(device)
    run = Run(model, heads, peak, steps)
    step = run.resume(out / "llm.pt")
    rng = np.random.default_rng([17, step])
    loaders = {
        hard: iter(DataLoader(RenderedClips(GROUP, SIZE, step, hard), batch_size=None, num_workers=1))
        for hard in (False, True)
    }
    held_out = [
        clip
        for hard in (False, True)
        for clip in encode_group(model, next(iter(RenderedClips(24, SIZE, 2**31, hard))), EncoderPrune())
    ]
    dense = sum(one.dense for one in model.towers)
    store, started, shown = ClipStore(400), time.perf_counter(), []
    while step < steps:
        modes = CURRICULUM if step < curriculum else UNMERGED if step < curriculum + unmerged else MIXTURE
        mode = modes[rng.choice(len(modes), p=np.array([w for w, _ in modes]))][1]
        if _wants_clips(store, modes):
            name, new = _least_filled(store, modes)
            store.add(name, new, encode_group(model, next(loaders[new]), ENCODER_MODES[name]))
            continue
        hard = bool(rng.random() < HARD_STEPS)
        keep = mode.tokens(dense * (SLOTS if hard else NUM_FRAMES), hard, rng, whole)
        rows = max(1, min(batch, round(batch * 330 / (keep + 165))))  # about as many tokens in every step
        drawn = store.draw(mode.encoder, hard, rows, rng)
        loss, answers, facts = clip_loss(model, heads, tokenizer, drawn, mode.pick, keep, rng)
        run.update(loss)
        step += 1
        store.owed += NEW_GROUPS_PER_STEP
        shown.append({f"{'hard' if hard else 'standard'} {k}": v for k, v in answers.items()} | facts)
        if step % 25 == 0:
            print(f"{step} {means(shown[-25:])} {time.perf_counter() - started:.0f}s", flush=True)
        if step % 300 == 0 or step == steps:
            print(step, evaluate(model, tokenizer, held_out), flush=True)
        if step % 50 == 0 or step == steps:
            run.save(out / "llm.pt", step)
        if step == curriculum + unmerged:
            run.save(out / "llm_unmerged.pt", step)


def means(facts: list[dict[str, float]]) -> str:
    names = dict.fromkeys(n for f in facts for n in f)
    return " ".join(f"{n} {np.mean([f[n] for f in facts if n in f]):.3f}" for n in names)


def _wants_clips(store: ClipStore, modes: list[tuple[float, Mode]]) -> bool:
    """New clips at a steady rate, and at least `AT_LEAST` of every setting in use, of both splits."""
    if any(
        len(store.clips.get((m.encoder, hard), [])) < AT_LEAST for _, m in modes for hard in (False, True)
    ):
        return True
    if store.owed < 1:
        return False
    store.owed -= 1
    return True


def _least_filled(store: ClipStore, modes: list[tuple[float, Mode]]) -> tuple[str, bool]:
    """The setting and split that are furthest behind their share of the steps."""
    share: dict[tuple[str, bool], float] = {}
    for w, m in modes:
        for hard, part in ((False, 1 - HARD_SHARE), (True, HARD_SHARE)):
            share[m.encoder, hard] = share.get((m.encoder, hard), 0) + w * part
    held = {name: len(store.clips.get(name, [])) for name in share}
    return min(share, key=lambda n: (held[n] >= AT_LEAST, held[n] / share[n]))


def visual_prefix(
    model: MultiEncoderVLM, clips: list[EncodedClip], pick: str, keep: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """`keep` projected tokens of each clip by `pick`, or all for None, frame by frame, encoder by encoder: (B, K, W),
    and their dense targets: labels (B, K, 10) and places (B, K, 4)."""
    names, frames = list(clips[0].x), frames_of(clips[0].scene)
    when = torch.linspace(0, 1, frames).repeat(len(clips)).to(model.device)
    parts, owners, encoders = [], [], []
    for i, one in enumerate(model.towers):
        x = torch.stack([c.x[names[i]] for c in clips]).flatten(0, 1).float().to(model.device)
        kept = torch.stack([c.kept[names[i]] for c in clips]).flatten(0, 1).to(model.device)
        found = EncodedFrames(names[i], one.grid, x, torch.ones_like(x[..., 0]), drop_others(kept, one.dense))
        parts.append(model.projectors[names[i]](x, found.coordinates(when)))
        owners.append(torch.stack([c.owner[names[i]] for c in clips]))
        encoders.append(torch.full((x.shape[1],), i))
    per_frame = sum(p.shape[1] for p in parts)
    z = torch.cat(parts, 1).view(len(clips), -1, parts[0].shape[-1])  # (B, T*K, W)
    owner = torch.cat(owners, 2).flatten(1)  # (B, T*K)
    frame = torch.arange(frames).repeat_interleave(per_frame)
    known = [
        torch.stack([f(c.scene, o, frame) for c, o in zip(clips, owner, strict=True)]).to(z.device)
        for f in (token_labels, token_places)
    ]
    if keep is None or keep >= z.shape[1]:
        return z, known[0], known[1]
    if pick == "cooperative":
        encoder = torch.cat(encoders).repeat(frames)
        plan = fuse_plan(z.detach(), encoder, keep, method="cooperative", group=frame)
    else:
        score = torch.rand(z.shape[:2]) + torch.stack(
            [kept_first(c.scene, o) for c, o in zip(clips, owner, strict=True)]
        )
        if pick == "objects":
            score = score + 0.8 * (owner >= 0)
        plan = drop_others(score.topk(keep, 1).indices.sort(1).values.to(z.device), z.shape[1])
    return gather(z, plan), gather(known[0], plan), gather(known[1], plan)


def answer_logits(
    model: MultiEncoderVLM,
    z: Tensor,
    ids: Tensor,
    labels: Tensor,
    lengths: list[int],
    places: Tensor | None = None,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Logits that predict each labelled token, in the order of labels[labels != IGNORE], (n, V), and the visual
    tokens' hidden states after `LAYER` and after `LATER` layers (B, K, W). places: positions of the visual tokens (K,),
    ascending; None: 0 to K - 1."""
    visual = z.shape[1]
    places = (torch.arange(visual) if places is None else places) * model.config.visual_step
    end = float(places[-1]) + 1
    embeds = torch.cat([z, model.language_model.get_input_embeddings()(ids)], 1)
    positions = torch.cat([places, *[end + torch.arange(n) for n in lengths]])
    core = model.language_model.model
    with attention_by_blocks(core.config):
        out = core(
            inputs_embeds=embeds,
            attention_mask={"full_attention": block_ids(visual, lengths).to(z.device)},
            position_ids=positions[None].to(z.device),
            use_cache=False,
            output_hidden_states=True,
        )
    before = out.last_hidden_state[:, visual - 1 : -1]  # (B, Q, W): the token before each text token
    early, late = (out.hidden_states[i][:, :visual] for i in (LAYER, LATER))
    return model.language_model.lm_head(before[labels != IGNORE]), (early, late)


def stretched(kept: int, dense: int, rng: np.random.Generator) -> Tensor | None:
    """Positions of `kept` tokens as if they lay among up to `dense` (randomized positions, Ruoss et al. 2023): long
    prompts are learned for the price of short ones."""
    if kept >= dense or rng.random() >= STRETCHED:
        return None
    among = int(rng.integers(kept, dense + 1))
    return torch.from_numpy(np.sort(rng.choice(among, kept, replace=False)))


def clip_loss(
    model: MultiEncoderVLM,
    heads: DenseHeads,
    tokenizer: PreTrainedTokenizerFast,
    clips: list[EncodedClip],
    pick: str,
    keep: int,
    rng: np.random.Generator,
) -> tuple[Tensor, dict[str, float], dict[str, float]]:
    """The answers' loss with the dense ones, what there is to show of the answers, and of the visual tokens."""
    texts = question_blocks(tokenizer, clips, rng)
    labels = texts.labels
    z, targets, places = visual_prefix(model, clips, pick, keep)
    dense = sum(one.dense for one in model.towers) * frames_of(clips[0].scene)
    logits, hidden = answer_logits(
        model,
        z,
        texts.ids.to(z.device),
        labels.to(z.device),
        texts.lengths,
        stretched(z.shape[1], dense, rng),
    )
    answers = texts.loss(logits)
    words = model.language_model.get_input_embeddings().weight
    aligned, _ = alignment_loss(z, words, tokenizer, targets)
    known, right = heads.loss(z, hidden, targets, places)
    told = {"loss": answers.item(), **texts.right(logits)}
    return answers + ALIGNMENT * aligned + KNOWN * known, told, right


@torch.no_grad()
def evaluate(model: MultiEncoderVLM, tokenizer: PreTrainedTokenizerFast, clips: list[EncodedClip]) -> str:
    """Exact answers by split and category on held-out clips, with every token."""
    rng = np.random.default_rng(3)

    def right(clip: EncodedClip) -> Iterator[tuple[str, bool]]:
        z, _, _ = visual_prefix(model, [clip], "random", None)
        return exam(
            tokenizer,
            clip.scene,
            rng,
            lambda ids, labels, lengths: answer_logits(
                model, z, ids.to(z.device), labels.to(z.device), lengths
            )[0],
        )

    return by_category(clips, right)
