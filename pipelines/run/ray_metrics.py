"""A run's figures for Prometheus, through the agent that Ray runs on every node (`pip install 'ray[default]'`; without
it they go nowhere)."""

from __future__ import annotations

from collections.abc import Iterable

from ray.util.metrics import Counter, Gauge

from pipelines.run.status import ActorStatus
from videoprune.result_row import ResultRow


class RunMetrics:
    """Names begin with ray_videoprune_ in what the agent exports."""

    def __init__(self) -> None:
        self.questions = Counter(
            "videoprune_questions", "Questions with a row, by outcome.", tag_keys=("outcome", "kind")
        )
        self.gauges = {
            "models": Gauge("videoprune_models", "Actors with a model."),
            "decoders": Gauge("videoprune_decoders", "Actors that decode."),
            "waiting": Gauge("videoprune_waiting_groups", "Groups that are decoded and wait for a model."),
            "busy": Gauge("videoprune_model_busy", "Share of the models' time in which they worked."),
        }

    def add(self, rows: Iterable[ResultRow]) -> None:
        for row in rows:
            self.questions.inc(1, {"outcome": row["outcome"], "kind": row["kind"]})

    def tell(self, status: ActorStatus) -> None:
        figures = {
            "models": status.models,
            "decoders": status.decoders,
            "waiting": status.waiting,
            "busy": status.busy() or 0.0,
        }
        for name, figure in figures.items():
            self.gauges[name].set(figure)
