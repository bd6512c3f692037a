"""What Prometheus reads: counters of questions and streams, times of stages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pipelines.stream.feed import Feed

_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
STAGES = ("queue", "encode", "prefill", "generate")
_COUNTERS = {
    "received": "frames that came to be taken",
    "dropped": "frames that a newer one replaced",
    "skipped": "frames that came while the stream was paused",
    "broken": "frames that could not be decoded or were refused",
    "still": "frames that showed nothing new",
    "encoded": "time steps that were encoded",
    "reconnects": "times that the source was connected again",
}
_GAUGES = {
    "tokens": "visual tokens held",
    "bytes": "bytes that these and the LLM's shared beginning take",
    "viewers": "viewers of the stream",
}


class Metrics:
    """Of one server; several in a process do not meet."""

    def __init__(self, feeds: Callable[[], list[Feed]], waiting: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self._questions = Counter(
            "videoprune_questions", "questions by how they ended", ["outcome"], registry=self.registry
        )
        self._first = Histogram(
            "videoprune_time_to_first_token_seconds",
            "from a question's arrival to its first token",
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._stages = Histogram(
            "videoprune_stage_seconds", "of a question", ["stage"], buckets=_BUCKETS, registry=self.registry
        )
        self.registry.register(_Streams(feeds, waiting))

    def asked(self, outcome: str) -> None:
        """A question is over: answered, cancelled, refused, late, queue_late or failed."""
        self._questions.labels(outcome).inc()

    def standing(self, outcome: str) -> None:
        """One asking of a standing question is over."""
        self._questions.labels(f"standing_{outcome}").inc()

    def took(self, seconds: Mapping[str, float]) -> None:
        """The stages of an answer."""
        for stage in STAGES:
            self._stages.labels(stage).observe(seconds.get(stage, 0.0))
        self._first.observe(sum(s for stage, s in seconds.items() if stage != "generate"))

    def text(self) -> bytes:
        return generate_latest(self.registry)


class _Streams(Collector):
    """Reads the streams when it is asked: nothing is kept of one that is closed."""

    def __init__(self, feeds: Callable[[], list[Feed]], waiting: Callable[[], int]) -> None:
        self._feeds, self._waiting = feeds, waiting

    def collect(self) -> Iterable[Metric]:
        states = [feed.state() for feed in self._feeds()]
        families: list[Metric] = []
        for name, text in _COUNTERS.items():
            family = CounterMetricFamily(f"videoprune_stream_{name}", text, labels=["stream"])
            for state in states:
                family.add_metric([state["name"]], state[name])
            families.append(family)
        for name, text in _GAUGES.items():
            gauge = GaugeMetricFamily(f"videoprune_stream_{name}", text, labels=["stream"])
            for state in states:
                gauge.add_metric([state["name"]], state[name])
            families.append(gauge)
        families.append(GaugeMetricFamily("videoprune_streams", "open streams", value=len(states)))
        families.append(
            GaugeMetricFamily("videoprune_questions_waiting", "questions in the queue", value=self._waiting())
        )
        return families

    def describe(self) -> Iterable[Metric]:
        return []
