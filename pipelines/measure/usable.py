"""Which settings a model can do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pipelines.measure.bracket import bracketed
from pipelines.measure.calibration import TrainingClip, clips_like, needs_lambda, with_lambda
from pipelines.measure.calls import ReadClip
from pipelines.measure.methods import method_config
from pipelines.measure.plan import BASELINE, Setting
from pipelines.measure.turns import WARM_UP_TOKENS
from videoprune.config import PruneConfig
from videoprune.engine import Engine
from videoprune.models.multi_encoder import MultiEncoderVLM
from videoprune.plug.settings import calibration_key
from videoprune.prune.counts import with_fixed_shares

_CALIBRATION_CLIPS = 12


def usable_settings(
    engine: Engine,
    methods: Sequence[str],
    retain: Sequence[float],
    probe: TrainingClip,
    lambdas: Path | None,
    *,
    clips: Callable[[], Sequence[ReadClip]] = lambda: (),
    shares: Path | None = None,
) -> tuple[tuple[Setting, ...], list[dict[str, str]]]:
    """The unpruned model and every method at every retention that the model and the method allow, as the clip `probe`
    tells; the others with the reason. probe: of as few frames as will be measured. lambdas: the file of those that had
    to be solved for; None: none is, the weights are random. clips: on which the shares of methods that cannot hit a
    retention are searched for, without any they are taken as they are; shares: the file of what was found. Raises
    ValueError for a method that is none."""
    found, refused = [Setting(BASELINE, 1.0, PruneConfig())], []
    for method in (m for m in methods if m != BASELINE):
        for share in sorted(retain, reverse=True):
            try:
                prune = _calibrated(engine, method, method_config(method, share), lambdas)
                ready = engine.with_prune(prune)
                encoded = ready.encode([probe.frames])  # shows ratios out of reach, too
                ready.answer(encoded, probe.samples[:1], max_new_tokens=WARM_UP_TOKENS)
                found += bracketed(engine, Setting(method, share, prune), clips(), shares)
            except ValueError as error:
                if str(error).startswith("method="):  # a name that is none: nothing was measured yet
                    raise
                refused.append({"method": f"{method}@{share:g}", "reason": str(error)})
    return tuple(found), refused


def _calibrated(engine: Engine, method: str, prune: PruneConfig, lambdas: Path | None) -> PruneConfig:
    if not needs_lambda(engine, prune):
        return prune
    several = isinstance(engine.model, MultiEncoderVLM)
    if lambdas is None or not (several or method == "meteor"):
        return with_fixed_shares(prune)
    clips = lambda: clips_like(engine, _CALIBRATION_CLIPS)  # noqa: E731
    return with_lambda(engine, prune, lambdas, calibration_key(prune), clips)
