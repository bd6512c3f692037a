"""What a vision encoder has to say so that tokens can leave it: `Encoder`, and the two shapes that encoders come in,
frames in a batch (`Batched`) and frames in one packed sequence (`Packed`). `StockModel` adds the rest of a stock
video language model.

Shapes: F frames, P prefix tokens (CLS), N patches of a frame, u patches of a unit, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from videoprune.plug.current_pass import current
from videoprune.plug.encoder_goal import Layout
from videoprune.plug.encoder_pass import EncoderPass

NAN = float("nan")
Hook = tuple[nn.Module, Literal["pre", "post"], Callable[..., Any]]
Around = tuple[Any, str, Callable[..., Any]]


class Encoder:
    """One vision encoder. Subclasses name its parts; the defaults are the most common names.

    owner: what `apply` put on the model: the current pass is looked up by it. name: of the encoder in traces.
    """

    name: str = "vision"
    packed: ClassVar[bool] = False
    pools: ClassVar[bool] = False  # pooling mixes patches behind the encoder, tokens are chosen after it
    images_differ: ClassVar[bool] = False  # an image's patches reach the LLM in other numbers than its units
    prefix: int = 0
    owner: Any = None

    @property
    def vision(self) -> nn.Module:
        raise NotImplementedError

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """All blocks of the encoder."""
        raise NotImplementedError

    @property
    def used_blocks(self) -> int:
        """How many of them the LLM's features come through."""
        return len(self.blocks)

    def attention(self, block: nn.Module) -> nn.Module:
        return block.self_attn  # type: ignore[return-value]

    def windowed(self, index: int) -> bool:
        """Whether block `index` attends within windows instead of frames."""
        return False

    def layout(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Layout:
        """Where frames and units lie in one call, with its arguments: see `Batched`, `Packed`."""
        raise NotImplementedError

    def hooks(self) -> list[Hook]:
        """Hooks that bring what leaves the encoder back to the length that the model expects."""
        raise NotImplementedError

    def replaced(self) -> list[Around]:
        """(object, name, method) for methods that have to be replaced: see `Replacement`."""
        return []

    def run(self) -> EncoderPass | None:
        """What this encoder does in the current pass; None where nothing is pruned."""
        now = current(self.owner)
        return None if now is None else now.encoders.get(self.name)


class StockModel:
    """A stock video language model around an encoder. model_types: `config.model_type` of the models it takes."""

    model_types: ClassVar[tuple[str, ...]] = ()
    videos_are_images: ClassVar[bool] = False  # a video goes in as images, one a frame
    newline: ClassVar[bool] = False  # behind a clip's last frame stands a token that is of no frame

    def __init__(self, model: Any) -> None:
        self.model, self.core = model, model.model

    @property
    def vision(self) -> nn.Module:
        return self.core.vision_tower

    @property
    def language_model(self) -> nn.Module:
        return self.core.language_model

    @property
    def placeholders(self) -> tuple[int, ...]:
        """Ids whose places in the prompt visual tokens take."""
        config = self.core.config
        found = (getattr(config, f"{kind}_token_id", None) for kind in ("image", "video"))
        return tuple(i for i in found if i is not None)


class Batched(Encoder):
    """Frames in a batch: hidden states (F, P + N, D), patches row by row on a square grid."""

    blocks_path: ClassVar[str] = "encoder.layers"
    unit_side: int = 1
    fill: ClassVar[float | None] = NAN  # what dropped and merged patches hold behind the encoder
    core: Any

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return list(self.vision.get_submodule(self.blocks_path))  # type: ignore[call-overload]

    @property
    def used_blocks(self) -> int:
        layer = getattr(self.core.config, "vision_feature_layer", -1)
        if not isinstance(layer, int):
            raise ValueError(f"vision_feature_layer={layer}; allowed with pruning in the encoder: one layer")
        return len(self.blocks) + 1 + layer if layer < 0 else layer

    def layout(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Layout:
        """Called at the first block: (F, P + N, D)."""
        frames, tokens = args[0].shape[:2]
        side = round((tokens - self.prefix) ** 0.5) // self.unit_side
        return Layout(
            [tokens] * frames, unit=self.unit_side**2, prefix=self.prefix, grids=[(side, side)] * frames
        )

    def unit_order(self, patches: int, device: torch.device) -> Tensor:
        """Patches of a frame in the order of their units, (N,)."""
        side, u = round(patches**0.5), self.unit_side
        if side * side != patches or side % u:
            raise ValueError(f"{patches} patches a frame; allowed: a square of a multiple of {u} patches")
        grid = torch.arange(patches, device=device).view(side // u, u, side // u, u)
        return grid.transpose(1, 2).flatten()

    def to_units(self, x: Tensor) -> Tensor:
        """(F, P + N, D), patches row by row -> unit by unit."""
        if self.unit_side == 1:
            return x
        order = self.unit_order(x.shape[1] - self.prefix, x.device)
        return torch.cat([x[:, : self.prefix], x[:, self.prefix :][:, order]], 1)

    def to_grid(self, x: Tensor, run: EncoderPass) -> Tensor:
        """Packed (F * P + M * u, D) of the units that left -> (F, P + N, D) row by row, `fill` where nothing did."""
        front, units = run.rows.split(x)
        patches = run.dense[0] * run.unit  # frames in a batch have one size
        full = run.expand(units, fill=self.fill, end=True).flatten(0, 1).unflatten(0, (-1, patches))
        if self.unit_side > 1:
            full = full[:, self.unit_order(full.shape[1], x.device).argsort()]
        if front is None:
            return full
        return torch.cat([front if run.frames is None else run.frames.dense_prefix(front), full], 1)

    def hooks(self) -> list[Hook]:
        return [(self.vision, "post", self.expand_output)]

    def expand_output(self, module: nn.Module, args: Any, kwargs: Any, out: Any) -> Any:
        run = self.run()
        if run is None:
            return None
        states, used = out.get("hidden_states"), self.used_blocks
        if used < len(self.blocks):
            assert states is not None, "the model asks for the layer that its features come from"
            x = self.to_grid(last_cut(states[used], run), run)
            out["hidden_states"] = tuple(x if i == used else None for i in range(len(states)))
            return out
        if states is None or states[-1] is None:
            out.last_hidden_state = self.to_grid(last_cut(out.last_hidden_state, run), run)
            return out
        # The last of the hidden states is before the encoder's last norm.
        last, normed = run.after_last(states[-1].flatten(0, 1), out.last_hidden_state.flatten(0, 1))
        out["hidden_states"] = (*[None] * (len(states) - 1), self.to_grid(last, run))
        out.last_hidden_state = self.to_grid(normed, run)
        return out


def last_cut(x: Tensor, run: EncoderPass) -> Tensor:
    """METEOR's last cut falls behind the last block: (F, P + n, D) -> packed (F * P + M * u, D)."""
    return run.after(run.last_block, x.flatten(0, 1))[0]


class Packed(Encoder):
    """All frames in one sequence (N, D), patches already unit by unit, rotary rows beside them."""

    packed = True

    @staticmethod
    def grids(grid_thw: Tensor, side: int) -> list[tuple[int, int]]:
        """Rows and columns of the units of each frame, from (time, height, width) of each image or video."""
        return [(h // side, w // side) for t, h, w in grid_thw.tolist() for _ in range(t)]

    @staticmethod
    def frame_lengths(grid_thw: Tensor) -> list[int]:
        """Patches of each frame, from (time, height, width) of each image or video."""
        return [h * w for t, h, w in grid_thw.tolist() for _ in range(t)]

    def cut_input(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """A forward pre-hook on what follows the blocks: METEOR's last cut falls behind the last of them."""
        run = self.run()
        if run is None:
            return None
        x, _ = run.after(run.last_block, args[0])
        return (x, *args[1:]), kwargs

    def expand_features(self, module: nn.Module, args: Any, kwargs: Any, out: Tensor) -> Tensor | None:
        """A forward hook that puts the LLM's features, one row per unit that left, at their places among NaN."""
        run = self.run()
        return None if run is None else run.expand(out, fill=NAN, end=True)

    def expand_tap(self, module: nn.Module, args: Any, kwargs: Any, out: Tensor) -> Tensor | None:
        """The same for features that are tapped on the way (DeepStack)."""
        run = self.run()
        return None if run is None else run.expand(out, fill=NAN)
