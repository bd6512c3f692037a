"""What `videoprune eval NAME` asks: the questions of a benchmark, how they are shown, and how answers are scored."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.run.results import write_whole
from pipelines.run.stages import ClipItem, group_by_video
from videoprune.eval.benchmarks.base import Benchmark, Recipe
from videoprune.eval.benchmarks.folder import VideoFinder
from videoprune.eval.benchmarks.moving_shapes.load import load
from videoprune.eval.benchmarks.moving_shapes.make import make_benchmark, split_of
from videoprune.eval.benchmarks.moving_shapes.splits import Split, split_named
from videoprune.eval.benchmarks.moving_stream.make import NAME as MOVING_STREAM
from videoprune.eval.benchmarks.moving_stream.make import make_streams
from videoprune.eval.benchmarks.registry import benchmark
from videoprune.eval.benchmarks.scores import Counts, Row, Scores
from videoprune.eval.benchmarks.stream_times import is_standing
from videoprune.eval.metrics import is_correct
from videoprune.result_row import ResultRow
from videoprune.types import UNUSABLE, Sample
from videoprune.video.folder import VideoFolder
from videoprune.video.remote.address import Stored, is_remote

MOVING_SHAPES = "moving-shapes"
CLIPS, STREAMS = 200, 10  # made where their number is not said
ACCURACY = "accuracy"


STREAM = "stream"  # key of `Task.facts`: how a stream was watched


def right_or_wrong(rows: Sequence[Row]) -> dict[str, Counts]:
    """What each question counts where a benchmark has no metrics of its own."""
    return {ACCURACY: [float(is_correct(row)) for row in rows]}


@dataclass(frozen=True)
class Task:
    """A benchmark to be run. recipe: with what the user changed. label: for a folder's name.

    mark: puts prediction and correct into a row. finish: rows and the folder of a run -> what goes into
    summary.json beside the common figures; writes the official form of the predictions. each: by metric, what each row
    counts; compared: the metric that runs are compared by. score: what the benchmark says of rows. stored: by address,
    what a listing says of remote videos. standing: how many questions are left out because they wait for something.
    """

    title: str
    label: str
    samples: list[Sample]
    recipe: Recipe = field(default_factory=Recipe)
    facts: dict[str, Any] = field(default_factory=dict)
    mark: Callable[[ResultRow], ResultRow] | None = None
    finish: Callable[[Sequence[ResultRow], Path], dict[str, Any]] | None = None
    each: Callable[[Sequence[Row]], dict[str, Counts]] = right_or_wrong
    compared: str = ACCURACY
    score: Callable[[Sequence[Row]], Scores] | None = None
    stored: Mapping[str, Stored] = field(default_factory=dict)
    standing: int = 0

    def items(self) -> list[ClipItem]:
        """Its videos with their questions."""
        return [replace(item, known=self.stored.get(item.video)) for item in group_by_video(self.samples)]

    def digest(self) -> str:
        """Changes with all that decides an answer beside model and pruning; "" for moving-shapes as it is."""
        if self.mark is None and self.recipe == Recipe() and STREAM not in self.facts:
            return ""
        text = json.dumps(self.facts, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def missing(self) -> list[str]:
        """Why each video that is not there cannot be read."""
        found = {s.video: s.meta.get(UNUSABLE, "") for s in self.samples}
        return [reason or video for video, reason in found.items() if reason or not _may_be_there(video)]


def _may_be_there(video: str) -> bool:
    """A remote one that was not listed shows when it is fetched."""
    return is_remote(video) or Path(video).is_file()


def open_task(args: argparse.Namespace, videos: VideoFolder | None = None) -> Task:
    """The task that the arguments of `videoprune eval` name. videos: where they lie, if not in the benchmark's folder.

    Raises ValueError for what does not fit together."""
    if args.benchmark == MOVING_SHAPES:
        return _moving_shapes(args, videos)
    found = benchmark(args.benchmark)
    split = chosen_split(found, args.split)
    found.check(split, args.protocol)
    recipe = _recipe(found.recipes[args.protocol], args)
    folder = _folder(found, args)
    loaded = found.load(folder, split=split, protocol=args.protocol, subtitles=args.subtitles, videos=videos)
    streams = getattr(args, "executor", "local") == STREAM
    samples = [s for s in loaded if streams or not is_standing(s)]
    if not samples:
        raise ValueError(
            f"split={split!r}; all its questions are standing ones, which only --executor {STREAM} asks"
        )
    facts = {
        "name": found.name,
        "split": split,
        "protocol": args.protocol,
        "subtitles": args.subtitles,
        "frames": recipe.frames or "as the model is best given",
        "policy": recipe.policy,
        "columns": recipe.columns,
        "max_new_tokens": recipe.max_new_tokens,
    }
    facts |= {name: value for name in ("fps", "window") if (value := getattr(recipe, name)) is not None}
    subtitles = "-subtitles" if args.subtitles else ""
    return Task(
        title=f"{found.title} {split}, protocol {args.protocol}",
        label=f"{found.name}-{split}-{args.protocol}{subtitles}-",
        samples=shard_of(samples[: args.limit], args.shard),
        recipe=recipe,
        facts=facts,
        mark=partial(marked, found, args.protocol),
        finish=partial(_finish, found, split, args.protocol, folder),
        each=partial(found.each, protocol=args.protocol, folder=folder),
        compared=found.compared(args.protocol),
        score=partial(found.score, split=split, protocol=args.protocol, folder=folder),
        stored=videos.stored if videos else {},
        standing=len(loaded) - len(samples),
    )


def _folder(found: Benchmark, args: argparse.Namespace) -> Path:
    """The benchmark's folder; streams are made where there is none."""
    if args.data is not None:
        return Path(args.data)
    if found.name != MOVING_STREAM:
        raise ValueError(
            f"data=None; {found.title} must be given with --data: see docs/benchmarks/{found.name}.md"
        )
    clips = args.clips or STREAMS
    folder = Path("runs") / f"{MOVING_STREAM}-{args.minutes:g}min-{args.seed}-{clips}"
    return make_streams(folder, streams=clips, seed=args.seed, minutes=args.minutes)


def chosen_split(found: Benchmark, split: str | None) -> str:
    """The split asked for, or the only one there is: a number must never hide which split it is of."""
    if split is None and len(found.sizes) > 1:
        raise ValueError(f"split=None; name one for {found.name} with --split: {', '.join(found.sizes)}")
    return split or next(iter(found.sizes))


def marked(found: Benchmark, protocol: str, row: ResultRow) -> ResultRow:
    """The row with what the protocol reads from its text."""
    if row["outcome"] == "failed":
        return row
    prediction, correct = found.mark(row, protocol)
    return {**row, "prediction": prediction, "correct": correct}


def shard_of(samples: Sequence[Sample], shard: tuple[int, int] | None) -> list[Sample]:
    """Part i of n (from 1), by video, so that no video is in two parts."""
    if shard is None:
        return list(samples)
    number, of = shard
    taken = set(list(dict.fromkeys(s.video for s in samples))[number - 1 :: of])
    return [sample for item in group_by_video(samples) if item.video in taken for sample in item.samples]


def write_submission(files: dict[str, Any], out: Path) -> list[str]:
    """Write what `Benchmark.submission` returned; a name in .jsonl holds a line per entry."""
    for name, content in files.items():
        if name.endswith(".jsonl"):
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
        else:
            text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        write_whole(out / name, text)
    return list(files)


def _finish(
    found: Benchmark, split: str, protocol: str, folder: Path, rows: Sequence[ResultRow], out: Path
) -> dict[str, Any]:
    names = write_submission(found.submission([r for r in rows if r["answer"]], split), out)
    try:
        scores = found.score(rows, split=split, protocol=protocol, folder=folder).as_dict()
    except ValueError as error:  # word data that is not installed must not cost the answers
        return {"scores": None, "scores_reason": str(error), "submission": names}
    return {"scores": scores, "submission": names}


def _recipe(recipe: Recipe, args: argparse.Namespace) -> Recipe:
    return replace(
        recipe,
        frames=args.frames or recipe.frames,
        max_new_tokens=args.max_new_tokens or recipe.max_new_tokens,
    )


def _moving_shapes(args: argparse.Namespace, videos: VideoFolder | None) -> Task:
    if args.subtitles or args.protocol != "official":
        raise ValueError(f"benchmark={MOVING_SHAPES}; has no --protocol or --subtitles")
    if videos and args.data is None:
        raise ValueError(
            f"data=None; {MOVING_SHAPES} with videos elsewhere needs the folder of its test.jsonl"
        )
    split, samples = moving_shapes(args.data, args.clips or CLIPS, args.seed, args.limit, args.split)
    samples = [_elsewhere(s, videos) for s in samples] if videos else samples
    recipe = _recipe(Recipe(frames=split.frames), args)
    facts = {"name": MOVING_SHAPES, "frames": recipe.frames, "max_new_tokens": recipe.max_new_tokens}
    hard = split.name != "standard"
    return Task(
        f"MovingShapes, split {split.name}" if hard else "MovingShapes",
        moving_shapes_label(split, args.data, args.seed),
        shard_of(samples, args.shard),
        recipe,
        facts | ({"split": split.name} if hard else {}),
        stored=videos.stored if videos else {},
    )


def moving_shapes_label(split: Split, data: str | None, seed: int) -> str:
    """Of folders: clips of one seed do not go where those of another are."""
    seeded = f"seed{seed}-" if data is None and seed else ""
    return f"{split.name}-{seeded}" if split.name != "standard" else seeded


def _elsewhere(sample: Sample, videos: VideoFolder) -> Sample:
    """With its video in another folder, by the same name."""
    return VideoFinder(videos, ("data",), (".mp4",)).placed(sample, Path(sample.video).stem)


def moving_shapes(
    data: str | None, clips: int, seed: int, limit: int | None, split: str | None = None
) -> tuple[Split, list[Sample]]:
    """The split and the questions in folder `data`; by default one of `clips` clips, made where it is missing.

    split: None takes what the folder holds, or standard. Raises ValueError if the folder holds another one.
    """
    if data is not None:
        found = split_of(Path(data))
        if split not in (None, found):
            raise ValueError(f"split={split!r}; data={data} holds {found}")
        return split_named(found), load(Path(data), limit)
    one = split_named(split or "standard")
    mark = "" if one.name == "standard" else f"{one.name}-"
    folder = Path("runs") / f"moving-shapes-{mark}{seed}-{clips}"
    make_benchmark(folder, clips=clips, seed=seed, split=one.name)
    return one, load(folder, limit)
