"""What the pruned models of all families share: where survivors stand in a prompt (`positions`), and the count that was
promised.

Shapes: S tokens of a prompt, K units of a clip that are left, U of all its frames, W width of an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from vllm.multimodal.inputs import (
    MultiModalFeatureSpec,
    MultiModalFieldConfig,
    MultiModalFieldElem,
    MultiModalKwargsItem,
    PlaceholderRange,
)

from pipelines.vllm.placeholders import serving
from pipelines.vllm.positions import Shifts, as_columns, plain_and_shifts
from videoprune.prune.counts import retained_count


class PrunedVideos:
    """Goes before vLLM's class of a family, whose methods these override. pools, extra: as in `CountedVideos`."""

    pools: ClassVar[bool] = False
    extra: ClassVar[int] = 0
    config: Any

    def begin(self, vllm_config: Any, width: int) -> None:
        """width: of what the encoder gives for each token. To be called when vLLM's class has made its modules."""
        self.prune = serving(vllm_config.model_config.hf_config)
        self.width = width
        self.shifts = Shifts(vllm_config.scheduler_config.max_num_batched_tokens)

    def dense_ids(self, fields: MultiModalKwargsItem) -> list[int]:
        """What a clip would be in an unpruned prompt."""
        raise NotImplementedError

    def unpruned_positions(self, ids: list[int], features: list[MultiModalFeatureSpec]) -> Tensor:
        """Positions (3, S) of a prompt in which nothing is pruned: vLLM's own."""
        return super().get_mrope_input_positions(ids, features)[0]  # type: ignore[misc]

    def get_mrope_input_positions(
        self, input_tokens: list[int], mm_features: list[MultiModalFeatureSpec]
    ) -> tuple[Tensor, int]:
        """Those of the unpruned prompt; a clip's places all get that of its first one (see `positions`)."""
        ids, features, places, end = list[int](), list[MultiModalFeatureSpec](), list[int](), 0
        for feature in sorted(mm_features, key=lambda f: f.mm_position.offset):
            start, length = feature.mm_position.offset, feature.mm_position.length
            places += range(len(ids), len(ids) + start - end)
            ids += input_tokens[end:start]
            end = start + length
            if feature.modality == "video":
                assert feature.data is not None
                dense = self.dense_ids(feature.data)
                places += [len(ids)] * length
            else:
                dense = input_tokens[start:end]
                places += range(len(ids), len(ids) + length)
            features.append(replace(feature, mm_position=PlaceholderRange(len(ids), len(dense))))
            ids += dense
        places += range(len(ids), len(ids) + len(input_tokens) - end)
        ids += input_tokens[end:]
        unpruned = self.unpruned_positions(ids, features)
        return unpruned[:, places], int(unpruned.max()) + 1 - len(input_tokens)

    def embed_input_ids(
        self,
        input_ids: Tensor,
        multimodal_embeddings: Sequence[Tensor] | None = None,
        *,
        is_multimodal: Tensor | None = None,
    ) -> Tensor:
        """vLLM's, of embeddings without the columns; what these say is added to the positions of the same step."""
        self.shifts.clear()
        given = multimodal_embeddings
        if given is not None and len(given):
            given, shifts = plain_and_shifts(list(given), self.width)
            assert is_multimodal is not None
            self.shifts.write(is_multimodal.nonzero()[:, 0], shifts)
        found: Tensor = super().embed_input_ids(input_ids, given, is_multimodal=is_multimodal)  # type: ignore[misc]
        return found

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        positions = self.shifts.added(positions)
        return super().forward(input_ids, positions, intermediate_tensors, inputs_embeds, **kwargs)  # type: ignore[misc]

    def with_positions(
        self, embeddings: Tensor, left: Tensor, frames: int, fields: MultiModalKwargsItem
    ) -> Tensor:
        """A clip's embeddings, text between frames included, with the columns that say where they stand.

        left: bool (U,), of its units, on the CPU. -> (places of the clip, W + COLUMNS). Raises RuntimeError if others
        are left than the prompt has places for."""
        promised = retained_count(self.prune, frames, len(left) // frames, pools=self.pools)
        if int(left.sum()) != promised:
            raise RuntimeError(f"{int(left.sum())} tokens of a clip are left, {promised} were promised")
        ids = self.dense_ids(fields)
        whole = PlaceholderRange(0, len(ids))
        feature = MultiModalFeatureSpec(fields, "video", "", whole)
        positions = self.unpruned_positions(ids, [feature])
        places = torch.tensor(ids) == self.config.video_token_id
        stays = torch.ones_like(places)
        stays[places] = torch.cat([left, left.new_ones(self.extra)])
        columns = as_columns((positions - positions[:, :1])[:, stays].to(embeddings.device), embeddings)
        return torch.cat([embeddings, columns], 1)


def video_fields(**fields: Any) -> MultiModalKwargsItem:
    """One clip's fields, as vLLM holds them of a request."""
    field = MultiModalFieldConfig.batched("video").field
    return MultiModalKwargsItem({k: MultiModalFieldElem(data=v, field=field) for k, v in fields.items()})
