"""What to prune, where, and how much: frozen dataclasses, presets by name, unknown keys refused by name."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

Schedule = Literal["mean", "skip", "first", "last", "increasing", "decreasing", "constant"]
BudgetRule = Literal["rank", "equal", "reverse"]
Stage = Literal["encoder", "fusion", "llm"]


@dataclass(frozen=True)
class EncoderPrune:
    """Stage 1, inside the vision encoders.

    method: `evoprune` merges (EvoPrune), `meteor` drops at the ends of the depth's thirds (METEOR, stage 1),
    `random` and `uniform` are controls that drop at the encoder's end; the others are rivals that choose there among
    all tokens of a clip; `prune/registry.py` has them all. keep: tokens at the encoders' ends over
    dense tokens, all encoders together. budget: how encoders share it (METEOR); `rank` needs ranks in the model's
    config. schedule: where EvoPrune's merges fall; `constant` is ToMe's, which `tome` always has. merges: how many of
    the schedule's places EvoPrune merges at, spread over them; 0: all. Fewer merges launch fewer kernels. lambda_div,
    lambda_att: weights of the diversity penalty and of the soft attention term in EvoPrune's pair score;
    critical_ratio: share of tokens that attention protects.
    metric: what is compared, head-mean keys or hidden states, which lost less on MovingShapes (docs/tables.md).
    neighbors: k of the local density, among destinations.
    proportional_attention: add log(size) to later attention logits (ToMe).
    frames: every frame keeps the same share, or one exact budget for the clip goes where something new is.
    temporal: share of all removals, at most, that merge a token into the same place of the frame before, after a
    quarter of the blocks: the stillest of the clip, none whose cosine with that place is below `still`. One of the
    two, with `evoprune` and a stock model.
    """

    method: str = "none"
    keep: float = 1.0
    budget: BudgetRule = "equal"
    schedule: Schedule = "skip"
    merges: int = 0
    metric: Literal["keys", "hidden"] = "hidden"
    lambda_div: float = 0.1
    lambda_att: float = 0.0
    critical_ratio: float = 0.1
    neighbors: int = 5
    proportional_attention: bool = True
    frames: Literal["equal", "novelty"] = "equal"
    temporal: float = 0.0
    still: float = 0.98

    def __post_init__(self) -> None:
        _known("encoder", self.method)
        _in_range("encoder.keep", self.keep, 0.0, 1.0, open_low=True)
        _in_range("encoder.critical_ratio", self.critical_ratio, 0.0, 1.0)
        _in_range("encoder.neighbors", self.neighbors, 1, 10_000)
        _in_range("encoder.merges", self.merges, 0, 1_000)
        _in_range("encoder.temporal", self.temporal, 0.0, 1.0)
        _in_range("encoder.still", self.still, -1.0, 1.0, open_low=True)
        if self.merges and self.schedule == "constant":
            raise ValueError(
                f"encoder.merges={self.merges} with encoder.schedule='constant', which merges in every block; "
                "allowed: 0"
            )
        if self.temporal and self.frames != "equal":
            raise ValueError(
                f"encoder.frames={self.frames!r} with encoder.temporal={self.temporal}, which follows the content by "
                "itself; allowed: equal"
            )
        for name, value in (("frames", self.frames != "equal"), ("temporal", self.temporal)):
            if value and self.method != "none" and self.method not in (allowed := _by_content()):
                raise ValueError(
                    f"encoder.{name}={getattr(self, name)!r} with encoder.method={self.method!r}; allowed: "
                    f"{', '.join(allowed)}"
                )


@dataclass(frozen=True)
class FusionPrune:
    """Stage 2, after projection (METEOR, stage 2).

    keep: tokens handed to the LLM over tokens that arrive. redundancy: `sum` as METEOR writes it, or `mean`, in
    which an encoder with more tokens does not weigh more. scope: compare within a frame, or over the whole clip.
    A model of one encoder has no other to compare with: there the tokens that differ most from each other stay, always
    over the whole clip (`prune/fusion.py`), and redundancy and scope mean nothing.
    """

    method: str = "none"
    keep: float = 1.0
    redundancy: Literal["sum", "mean"] = "mean"
    scope: Literal["frame", "clip"] = "frame"

    def __post_init__(self) -> None:
        _known("fusion", self.method)
        _in_range("fusion.keep", self.keep, 0.0, 1.0, open_low=True)


@dataclass(frozen=True)
class LLMPrune:
    """Stage 3, inside the LLM (METEOR, stage 3).

    layers: where to prune, as fractions of depth: before layer round(f * L). METEOR prunes before layers 4, 12 and
    20 of 32: 0.125, 0.375, 0.625. keep: wanted share of the fused tokens, averaged over the layers. All but
    `adaptive` keep `ratios` of the fused tokens at the cuts, or a geometric row that gives `keep` where `ratios` is
    empty; a ratio of 0 leaves text alone. `fixed` keeps those that text attends to most, `aim` those that rank
    highest by PageRank over the attention among all tokens (AIM, arXiv 2412.03248), `random` and `uniform` are
    controls. `holitom` is `fixed`, but merges what leaves (HoliTom, arXiv 2505.21334); `sparsevlm` asks the text that
    has to do with the clip, and recycles some of what leaves (SparseVLM, arXiv 2410.04417); `framefusion` merges and
    prunes where and as much as it finds, to the average `keep` (FrameFusion, arXiv 2501.01986), and takes no
    other pruning before it. `adaptive` keeps lambda_ * (attention that text pays, summed over the top heads); lambda_ =
    None looks it up in the model's calibration for `keep`. heads: the `top` top_heads of them, or `all`.
    queries: which text rows count: every token after the visual ones, or the last.
    attention: whose attention ranks: the `next` layer's, which is the first to compute on fewer tokens (METEOR,
    PyramidDrop), or the `previous` one's, the last that computed on all (FastV, AIM).
    rounding: of a share of a token: to the nearest count (half a token to the even one), up (FlashVID) or down
    (PyramidDrop, AIM).
    """

    method: str = "none"
    keep: float = 1.0
    layers: tuple[float, ...] = (0.125, 0.375, 0.625)
    ratios: tuple[float, ...] = ()
    lambda_: float | None = None
    heads: Literal["top", "all"] = "top"
    top_heads: int = 5
    queries: Literal["text", "last"] = "text"
    attention: Literal["next", "previous"] = "next"
    rounding: Literal["nearest", "up", "down"] = "nearest"

    def __post_init__(self) -> None:
        _known("llm", self.method)
        _in_range("llm.keep", self.keep, 0.0, 1.0, open_low=True)
        _in_range("llm.top_heads", self.top_heads, 1, 10_000)
        for f in self.layers:
            _in_range("llm.layers", f, 0.0, 1.0, open_high=True)
        for r in self.ratios:
            _in_range("llm.ratios", r, 0.0, 1.0)
        if self.ratios and len(self.ratios) != len(self.layers):
            raise ValueError(
                f"llm.ratios={self.ratios}; allowed: none, or one for each of llm.layers={self.layers}"
            )
        if list(self.layers) != sorted(self.layers):
            raise ValueError(f"llm.layers={self.layers}; allowed: ascending fractions of depth")
        if any(b > a for a, b in zip(self.ratios, self.ratios[1:], strict=False)):
            raise ValueError(f"llm.ratios={self.ratios}; allowed: shares that do not grow with depth")
        if self.lambda_ is not None and self.lambda_ < 0:
            raise ValueError(f"llm.lambda_={self.lambda_}; allowed: 0 or more, or null")


@dataclass(frozen=True)
class PruneConfig:
    """All three stages. `seed` drives the random controls."""

    encoder: EncoderPrune = field(default_factory=EncoderPrune)
    fusion: FusionPrune = field(default_factory=FusionPrune)
    llm: LLMPrune = field(default_factory=LLMPrune)
    seed: int = 0

    def __post_init__(self) -> None:
        before = {"encoder": self.encoder.method, "fusion": self.fusion.method}
        if _needs_frames(self.llm) and (given := {k: v for k, v in before.items() if v != "none"}):
            raise ValueError(
                f"llm.method={self.llm.method!r} with {', '.join(f'{k}.method={v!r}' for k, v in given.items())}; "
                "allowed: none of them, since it compares whole frames"
            )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PruneConfig:
        """Build from nested plain values. Raises ValueError that names an unknown key or an impossible value."""
        return _build(cls, data, prefix="")

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def replace(self, **changes: Any) -> PruneConfig:
        """A copy with dotted or top-level fields changed: `cfg.replace(**{"llm.lambda_": 50})`."""
        data = self.as_dict()
        for key, value in changes.items():
            part, _, name = key.partition(".")
            if name:
                if not isinstance(data.get(part), dict):
                    raise ValueError(
                        f"{key}: unknown key; allowed: {', '.join(f.name for f in dataclasses.fields(self))}"
                    )
                data[part] = {**data[part], name: value}
            else:
                data[part] = value
        return type(self).from_dict(data)

    def digest(self) -> str:
        """12 hex digits that name this configuration in records."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()[:12]


def config_dir() -> Path:
    """The folder of the YAML files: beside the package in a checkout, inside it when installed."""
    inside = Path(__file__).parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "configs"


def preset_names() -> tuple[str, ...]:
    return tuple(sorted(p.stem for p in (config_dir() / "presets").glob("*.yaml")))


def preset(name: str) -> PruneConfig:
    """The preset `name` from configs/presets. Raises ValueError with the known names."""
    path = config_dir() / "presets" / f"{name}.yaml"
    if name not in preset_names():
        raise ValueError(f"preset={name!r}; allowed: {', '.join(preset_names())}")
    return PruneConfig.from_dict(yaml.safe_load(path.read_text()) or {})


def _known(stage: Stage, method: str) -> None:
    """Raises ValueError for a method that the registry does not have. `none` loads no torch."""
    if method == "none":
        return
    from videoprune.prune.registry import names

    if method not in names(stage):
        raise ValueError(f"{stage}.method={method!r}; allowed: {', '.join(('none', *names(stage)))}")


def _by_content() -> tuple[str, ...]:
    """Methods that `encoder.temporal` and `encoder.frames` may go with."""
    from videoprune.prune.registry import INSIDE

    return tuple(name for name, method in INSIDE.items() if method.by_content)


def _needs_frames(config: LLMPrune) -> bool:
    if config.method == "none":
        return False
    from videoprune.prune.registry import LLM

    return LLM[config.method].needs_frames


def _in_range(
    name: str, value: float, low: float, high: float, *, open_low: bool = False, open_high: bool = False
) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"{name}={value!r}; allowed: a number")
    if value < low or value > high or (open_low and value == low) or (open_high and value == high):
        left, right = "(" if open_low else "[", ")" if open_high else "]"
        raise ValueError(f"{name}={value}; allowed: a number in {left}{low}, {high}{right}")


def _build(cls: type, data: Mapping[str, Any], *, prefix: str) -> Any:
    if not isinstance(data, Mapping):
        raise ValueError(f"{prefix or 'config'}={data!r}; allowed: a mapping of {cls.__name__}'s fields")
    hints = get_type_hints(cls)
    names = {f.name for f in dataclasses.fields(cls)}
    for key in data:
        if key not in names:
            raise ValueError(
                f"{prefix}{key}: unknown key; allowed: {', '.join(prefix + n for n in sorted(names))}"
            )
    return cls(**{key: _convert(hints[key], value, f"{prefix}{key}") for key, value in data.items()})


def _convert(hint: Any, value: Any, name: str) -> Any:
    """Check `value` against the annotation `hint`; lists become tuples, whole numbers become floats."""
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else _build(hint, value, prefix=f"{name}.")  # type: ignore[arg-type]
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise ValueError(f"{name}={value!r}; allowed: {', '.join(map(str, get_args(hint)))}")
        return value
    if get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{name}={value!r}; allowed: a list of numbers")
        return tuple(_convert(float, v, name) for v in value)
    if value is None and type(None) in get_args(hint):
        return None
    number = float in (hint, *get_args(hint))
    allowed = (int, float) if number else hint
    if not isinstance(value, allowed) or (isinstance(value, bool) and hint is not bool):
        raise ValueError(f"{name}={value!r}; allowed: {'a number' if number else hint.__name__}")
    return float(value) if number else value
