"""Does what a plan of `speedup --engine vllm` says and keeps what it sees: rates.jsonl, a line per method, number of
requests in flight and run; answers.jsonl, a line per method and question. Both only grow; what they have is not
measured again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pipelines.measure.run import Mark, answer_key, answer_line, is_open, said_row
from pipelines.measure.turns import explained, rotated
from pipelines.run.results import Results
from pipelines.run.row_index import Row
from pipelines.run.rows import failed_rows
from pipelines.run.stages import ClipItem, Failure
from pipelines.vllm.clip_files import ClipFile, ClipFiles
from pipelines.vllm.rates import Asking, requests_of_turn, take_rates
from pipelines.vllm.speed_plan import VllmPlan, turn_key
from pipelines.vllm.worker_process import WorkerError
from videoprune.choice import answer_of
from videoprune.neighbours import neighbours
from videoprune.prompts import prompt
from videoprune.result_row import ResultRow
from videoprune.types import Sample, Trace

_BATCH = 32  # questions that a worker is asked for answers at once


@dataclass
class SpeedTurns:
    """make: the worker of a label. failed: why a label was not measured any more, filled as it goes."""

    plan: VllmPlan
    clips: ClipFiles
    make: Callable[[str], Asking]
    rates: Results
    answers: Results
    mark: Mark | None = None
    advance: Callable[[int], None] = lambda steps: None
    failed: dict[str, str] = field(default_factory=dict)

    def take(self) -> None:
        """All that is missing. Workers end with it, however it ends."""
        groups = [[label] for label in self.plan.labels] if self.plan.apart else [self.plan.labels]
        for labels in groups:
            if self._is_whole(labels):
                continue
            workers: dict[str, Asking] = {}
            try:
                for label in labels:
                    self._begin(label, workers)
                self._take_rates(labels, workers)
                self._ask(labels, workers)
            except BaseException:
                for worker in workers.values():
                    worker.kill()
                raise
            for worker in workers.values():
                worker.close()

    def _is_whole(self, labels: Sequence[str]) -> bool:
        runs = any(self._missing_runs(labels, count) for count in self.plan.in_flight)
        return not runs and not any(self._to_answer(label, i) for label in labels for i in self._indices())

    def _missing_runs(self, labels: Sequence[str], count: int) -> list[int]:
        return self.plan.missing_runs(labels, count, self.rates.index)

    def _begin(self, label: str, workers: dict[str, Asking]) -> None:
        """One after the other: what vLLM measures of the memory while it loads must be its own doing."""
        worker = self.make(label)
        try:
            worker.begin()
        except WorkerError as error:
            self._fail(label, worker, error)
        except BaseException:
            worker.kill()
            raise
        else:
            workers[label] = worker

    def _fail(self, label: str, worker: Asking, error: WorkerError) -> None:
        worker.kill()
        self.failed[label] = explained(error)

    def _take_rates(self, labels: Sequence[str], workers: dict[str, Asking]) -> None:
        for count in self.plan.in_flight:
            there = [label for label in labels if label in workers]
            runs = self._missing_runs(there, count)
            if not runs or not self.clips.first():
                continue
            for turn in take_rates(workers, count, runs, partial(self._requests, count)):
                if turn.reason:
                    self.failed[turn.label] = turn.reason
                    continue
                named = {"setting": turn.label, "in_flight": count, "run": turn.number}
                key = {"question_id": turn_key(turn.label, count, turn.number)}
                self.rates.append([key | named | turn.value])
                self.advance(1)

    def _requests(self, in_flight: int, run: int) -> list[tuple[str, str]]:
        """The clips go on from run to run, and begin again where they end; so do a clip's questions."""
        clips, wanted = self.clips.first(), self.plan.requests or requests_of_turn(in_flight)
        found = []
        for number in range(run * wanted, (run + 1) * wanted):
            turn, place = divmod(number, len(clips))
            samples = clips[place].clip.item.samples
            found.append((str(clips[place].path), prompt(samples[turn % len(samples)])))
        return found

    def _ask(self, labels: Sequence[str], workers: dict[str, Asking]) -> None:
        """All questions that have no answer yet; clips are decoded once for all workers."""
        if not self.plan.answers:
            return
        left = [i for i in self._indices() if any(self._open(label, i) for label in labels)]
        for number, group in enumerate(neighbours(left, self._fits)):
            clips = {i: self.clips.of(i) for i in group}
            for label in rotated(labels, number):
                self._ask_worker(label, [i for i in group if self._open(label, i)], clips, workers)
            for i in group:
                self.clips.drop(i)

    def _fits(self, group: list[int], index: int) -> bool:
        return sum(len(self._samples(i)) for i in (*group, index)) <= _BATCH

    def _ask_worker(
        self,
        label: str,
        group: Sequence[int],
        clips: dict[int, ClipFile | Failure],
        workers: dict[str, Asking],
    ) -> None:
        for i in group:
            if isinstance(lost := clips[i], Failure):
                self._keep_lost(label, i, lost)
        asked = [
            (clip, s) for i in group if isinstance(clip := clips[i], ClipFile) for s in clip.clip.item.samples
        ]
        if label not in workers or not asked:
            return
        requests = [(str(clip.path), prompt(sample)) for clip, sample in asked]
        try:
            said = workers[label].ask("answers", asked=requests)["answers"]
        except WorkerError as error:
            self._fail(label, workers.pop(label), error)
            return
        self.answers.append(
            [self._answer(label, clip, s, one) for (clip, s), one in zip(asked, said, strict=True)]
        )
        self.advance(len(asked))

    def _keep_lost(self, label: str, index: int, why: Failure) -> None:
        failed = zip(self._samples(index), failed_rows(self.clips.items[index], why), strict=True)
        rows = [self._row(label, sample, row) for sample, row in failed]
        self.answers.append([row for row in rows if not self.answers.index.failed_so(row)])

    def _answer(self, label: str, clip: ClipFile, sample: Sample, said: dict[str, Any]) -> Row:
        if "text" not in said:
            (failed,) = failed_rows(ClipItem(sample.video, (sample,)), Failure(**said))
            return self._row(label, sample, failed)
        answer = answer_of(said["text"], sample, Trace(0, {}, 0))
        row = self._row(label, sample, said_row(sample, answer, clip.clip))
        return row | {"prompt_tokens": said["prompt_tokens"]}

    def _row(self, label: str, sample: Sample, row: ResultRow) -> Row:
        return answer_line(label, self.plan.frames, sample, row, self.mark)

    def _samples(self, index: int) -> tuple[Sample, ...]:
        return self.clips.items[index].samples

    def _indices(self) -> range:
        return range(len(self.clips.items))

    def _open(self, label: str, index: int) -> bool:
        samples, frames = self._samples(index), self.plan.frames
        return self.plan.answers and is_open(label, frames, samples, self.answers.index)

    def _to_answer(self, label: str, index: int) -> bool:
        """Whether a worker is needed for it: not for a clip that could not be read before and still cannot."""
        if not self._open(label, index):
            return False
        keys = (answer_key(label, self.plan.frames, s) for s in self._samples(index))
        known = all(key in self.answers.index for key in keys)
        return not (known and isinstance(self.clips.of(index), Failure))
