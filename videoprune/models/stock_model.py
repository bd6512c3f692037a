"""A stock video language model of transformers, encoded once and asked many times; the model's own code runs.

Shapes: F frames of the encoder, B prompts, V visual places of a prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText, AutoTokenizer

from videoprune.clock import now
from videoprune.config import PruneConfig
from videoprune.models.clip_features import Features, dropped, joined, split
from videoprune.models.inputs import Clip, PlainInputs, beginnings, groups_of, joined_tensors
from videoprune.models.loading import RANDOM, clip_shape, place_of
from videoprune.models.processor_inputs import ProcessorInputs
from videoprune.models.random_weights import random_model
from videoprune.models.shared_prefix import alike_until, prefilled, prefix_of_rows
from videoprune.models.survivors import EncoderRecord, record_of, stock_survivors
from videoprune.models.time_steps import clip_of_steps, time_steps
from videoprune.models.watching import Watch, watched
from videoprune.plug.apply import hooked, settings_for
from videoprune.plug.current_pass import Pass, passing, trace
from videoprune.plug.encoder_pass import EncoderPass
from videoprune.plug.installed import Installed
from videoprune.plug.llm_door import overflowed, visual_places
from videoprune.plug.prefix import Prefix, shared_layers
from videoprune.plug.prompt_trace import with_seconds
from videoprune.plug.settings import Settings, own_settings
from videoprune.prompts import check_positions
from videoprune.prune.registry import draws
from videoprune.types import Encoded, Survivors, TimeStep, Trace, VideoFrames

# Dense visual tokens of clips that are encoded together, unless one clip alone has more.
TOKENS_AT_ONCE = 8192


class StockVideoModel:
    """See `VideoModel` and `open_model`."""

    def __init__(self, name: str, config: Any, device: torch.device, dtype: torch.dtype | None) -> None:
        self.inputs: PlainInputs | ProcessorInputs
        if name.startswith(RANDOM):
            model: Any = random_model(name.removeprefix(RANDOM), dtype=dtype or torch.bfloat16)
            self.inputs = PlainInputs(model.config)
        else:
            where = place_of(name)
            model = AutoModelForImageTextToText.from_pretrained(where, dtype=dtype or "auto").eval()
            if "frame_size" in own_settings(config):  # a calibrated model's lambdas lie there too
                tokenizer = AutoTokenizer.from_pretrained(where, padding_side="left")
                self.inputs = PlainInputs(config, tokenizer)
            else:
                self.inputs = ProcessorInputs(where)
        self.module: nn.Module = model.to(device)
        self.model, self.device = model, device
        self.num_frames, self.frame_size = clip_shape(name, config)
        self.frames_per_step: int = getattr(config.vision_config, "temporal_patch_size", 1)

    @property
    def hooks(self) -> Installed:
        """What its calls are pruned by; put there again should somebody have removed it."""
        return hooked(self.model)

    def settings(self, prune: PruneConfig) -> Settings:
        return settings_for(self.model, prune)

    @torch.no_grad()
    def encode(
        self, clips: Sequence[VideoFrames], settings: Settings, *, survivors: bool = False
    ) -> list[Encoded]:
        """The question is not seen. Neighbours whose tensors fit together share a call, up to `TOKENS_AT_ONCE`; none
        do where something is drawn, so that a clip's draw is its own, or where survivors are asked for."""
        started = now(self.device)
        made = [self.inputs.clip(frames) for frames in clips]
        each = (now(self.device) - started) / max(1, len(clips))
        alone = survivors or draws(settings.config)
        groups = groups_of(made, [self._dense(clip) for clip in made], 1 if alone else TOKENS_AT_ONCE)
        return [e for group in groups for e in self._encode(group, settings, each, survivors)]

    def _encode(
        self, clips: list[Clip], settings: Settings, preprocess: float, survivors: bool
    ) -> Iterator[Encoded]:
        """One call of the encoder. preprocess: seconds that each clip has taken before. survivors: of one clip."""
        started = now(self.device)
        given = self._moved(joined_tensors(clips))
        prepared = now(self.device)
        kind = "video" if "pixel_values_videos" in given else "image"
        frames, dense = [clip.frames for clip in clips], [self._dense(clip) for clip in clips]
        with passing(Pass(self.hooks, settings, clips=frames)) as call:
            output = getattr(self.model.model, f"get_{kind}_features")(**given, return_dict=True)
        runs, done = call.encoded, now(self.device)
        chosen = sum(run.clock.seconds for run in runs)
        spent = {"encode": done - prepared - chosen, "encode_prune": chosen, "fuse": 0.0}
        outputs = split(output, dense, frames)
        marked = _marked(outputs, runs)
        record = record_of(runs[0] if runs else None, frames[0]) if survivors else None
        for i, end in enumerate(accumulate(frames)):
            mine, share = slice(end - frames[i], end), dense[i] / sum(dense)
            seconds = {"preprocess": preprocess + (prepared - started) * share}
            seconds |= {stage: value * share for stage, value in spent.items()}
            units = [u for run in runs for u in run.units()[mine]] or [(dense[i], dense[i])]
            counts = {"vision": (sum(u for u, _ in units), sum(u for _, u in units))}
            made = Features(outputs[i], kind, clips[i].without_pixels(), marked[i], tuple(call.frames[mine]))
            yield Encoded(Trace(dense[i], counts, dense[i] - marked[i], seconds=seconds), made, record)

    def _dense(self, clip: Clip) -> int:
        """Visual tokens of its prompt."""
        return int(self._visual(torch.tensor(clip.ids)).sum())

    @torch.no_grad()
    def answer(
        self,
        encoded: Sequence[Encoded],
        prompts: Sequence[str],
        settings: Settings,
        max_new_tokens: int,
        *,
        watch: Watch | None = None,
        places: bool = False,
    ) -> tuple[list[str], list[Trace]]:
        """What is the same for all questions about a clip is computed once for them."""
        features: list[Features] = [e.features for e in encoded]
        inputs = self.inputs([f.clip for f in features], prompts)
        text = inputs["attention_mask"].bool() & ~self._visual(inputs["input_ids"])
        check_positions(int(text.sum(1).max()), self.model.config.get_text_config().max_position_embeddings)
        inputs = self._moved(inputs)
        given = {features[0].kind: joined([f.output for f in features])}
        started = now(self.device)
        # A plain generation of greedy tokens; it is told what was encoded before, and which places are empty.
        frames = [n for f in features for n in f.frames]
        prefix = prefix_of_rows(
            encoded, settings.config.llm, self.device, lambda clips: self._prefix(clips, settings)
        )
        call = Pass(
            self.hooks, settings, marked=sum(f.marked for f in features), frames=frames, prefix=prefix
        )
        length = inputs["input_ids"].shape[1]
        with passing(call), trace(places=places or any(e.survivors is not None for e in encoded)) as traces:
            ids = self.model.generate(
                **inputs,
                **watched(watch, self.inputs.decode, length),
                mm_encoder_outputs=given,
                max_new_tokens=max_new_tokens,
                do_sample=False,
            )
        spent = now(self.device) - started
        texts = self.inputs.decode(ids[:, length:])
        return texts, with_seconds(traces, spent)

    def steps(self, encoded: Encoded, frames: VideoFrames) -> list[TimeStep]:
        return time_steps(encoded.features, frames.pts_seconds, newline=self.hooks.family.newline)

    def of_steps(self, steps: Sequence[TimeStep], like: Encoded) -> Encoded:
        """Raises ValueError where the processor gives so many frames other places than it gave each."""
        newline, known = self.hooks.family.newline, like.features
        # A step with a frame too few has its last one again.
        short = (
            s.pts_seconds + s.pts_seconds[-1:] * (self.frames_per_step - len(s.pts_seconds)) for s in steps
        )
        clip = self.inputs.layout([t for pts in short for t in pts], known.clip)
        dense, arrived = sum(s.dense for s in steps), sum(map(len, steps))
        if (places := self._dense(clip)) != dense + newline:
            raise ValueError(
                f"{len(steps)} time steps: {places} visual tokens in their prompt; allowed: {dense + newline}, as "
                "many as they were encoded to"
            )
        made = clip_of_steps(steps, known, clip, newline=newline)
        return Encoded(Trace(dense + newline, {"vision": (dense, arrived)}, arrived + newline), made)

    @torch.no_grad()
    def prefill(
        self, encoded: Sequence[Encoded], settings: Settings, *, grown_from: tuple[Encoded, int] | None = None
    ) -> list[Encoded]:
        return prefilled(encoded, self._prefix(encoded, settings, grown_from))

    def _known(
        self, inputs: dict[str, Tensor], grown_from: tuple[Encoded, int], settings: Settings
    ) -> Prefix | None:
        """What is known of the beginning of one prompt, without a question, from that about the clip it grew from."""
        clip, same = grown_from
        if clip.prefix is None or clip.prefix.made_with != settings.config.llm or not same:
            return None
        end = int(self._visual(inputs["input_ids"])[0].nonzero()[same - 1, 0]) + 1
        begins_alike = alike_until(end, inputs, self.inputs([clip.features.clip], [""]))
        return clip.prefix.until(end) if begins_alike else None

    def _prefix(
        self,
        encoded: Sequence[Encoded],
        settings: Settings,
        grown_from: tuple[Encoded, int] | None = None,
    ) -> Prefix | None:
        """What the LLM makes of the beginning of prompts about each clip; None where its first layer is cut already.
        grown_from: see `prefill`."""
        if not shared_layers(settings.config.llm, len(self.hooks.door.layers)):
            return None
        features: list[Features] = [e.features for e in encoded]
        inputs = self.inputs([f.clip for f in features], [""] * len(features))
        known = None if grown_from is None else self._known(inputs, grown_from, settings)
        inputs = self._moved(inputs)
        call = Pass(
            self.hooks,
            settings,
            marked=sum(f.marked for f in features),
            frames=[n for f in features for n in f.frames],
            prefix=known,
        )
        return self.hooks.door.begin(
            call,
            self.model.model,
            **inputs | beginnings(inputs, self.hooks.family.placeholders),
            mm_encoder_outputs={features[0].kind: joined([f.output for f in features])},
        )

    def survivors(self, encoded: Encoded, answered: Trace) -> dict[str, Survivors]:
        record: EncoderRecord = encoded.survivors
        assert answered.places is not None
        return {"vision": stock_survivors(record, answered.dense, answered.places)}

    def last_by_step(self, encoded: Encoded, answered: Trace, steps: int) -> list[int]:
        assert answered.places is not None
        each = answered.dense // steps
        found = torch.tensor([place // each for place in answered.places.last if place < each * steps])
        return found.long().bincount(minlength=steps).tolist()

    def text_tokens(self, encoded: Encoded, prompt: str) -> int:
        ids = self.inputs([encoded.features.clip], [prompt])["input_ids"]
        return int((~self._visual(ids)).sum())

    def _visual(self, ids: Tensor) -> Tensor:
        return visual_places(ids, self.hooks.family.placeholders)

    def _moved(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        dtype = self.model.dtype
        return {k: v.to(self.device, dtype if v.is_floating_point() else v.dtype) for k, v in tensors.items()}


def _marked(outputs: Sequence[Any], runs: Sequence[EncoderPass]) -> list[int]:
    """Places of each clip's features that hold no token. Raises ValueError if they are not those of the plans."""
    total = sum(run.marked for run in runs)
    if len(outputs) == 1:
        return [total]
    found: list[int] = torch.stack([dropped(one) for one in outputs]).tolist()
    if runs and sum(found) != total:
        raise ValueError(overflowed(sum(found), total, outputs[0].pooler_output[0].dtype))
    return found
