"""Video-MME (Fu et al. 2024): 900 videos, three questions of four options each, with or without subtitles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from videoprune.eval.benchmarks import letters
from videoprune.eval.benchmarks.base import Benchmark, Recipe, bad_predictions, clear_letter, said
from videoprune.eval.benchmarks.folder import VideoFinder, find_file, samples_of
from videoprune.eval.benchmarks.scores import (
    ALL,
    Counts,
    Figures,
    Row,
    Scores,
    answer_notes,
    figure,
    figures,
    of_all,
    questions_of,
)
from videoprune.eval.benchmarks.subtitles import need_pysubs2
from videoprune.eval.benchmarks.videomme_names import DOMAINS, DURATIONS, GROUPS
from videoprune.eval.benchmarks.videomme_rows import (
    flat_rows,
    prompt,
    published_rows,
    row_sample,
    subtitle_meta,
)
from videoprune.types import Sample
from videoprune.video.folder import LocalFolder, VideoFolder

VIDEOS_PER_DURATION = 300


class VideoMME(Benchmark):
    """Folder: videomme/*.parquet or test.jsonl / *.json, data/<videoID>.mp4, subtitle/<videoID>.srt."""

    name = "videomme"
    title = "Video-MME"
    sizes = {"test": 2700}  # noqa: RUF012
    recipes = {"official": Recipe(policy="middles"), "lmms-eval": Recipe(policy="ends")}  # noqa: RUF012
    has_subtitles = True

    def _load(
        self, folder: Path, split: str, protocol: str, subtitles: bool, videos: VideoFolder
    ) -> list[Sample]:
        patterns = ("test*.parquet", "test.jsonl", "test.json", "videomme*.json", "output_test_template.json")
        path = find_file(folder, ("videomme", "annotations"), patterns)
        finder = VideoFinder(videos, ("data", "videos", "video"), (".mp4", ".MP4", ".mkv"))
        texts = VideoFinder(LocalFolder(folder), ("subtitle", "subtitles"), (".srt", ".vtt"))
        if subtitles:
            need_pysubs2(folder)

        def build(number: int, row: dict[str, Any]) -> Sample:
            sample, name = row_sample(number, row)
            sample = finder.placed(sample, name)
            more = subtitle_meta(protocol, *texts.find(name)) if subtitles else {}
            text = prompt(row["question"], row["options"], protocol, subtitles)
            return replace(sample, meta=sample.meta | more, prompt=text)

        return samples_of(published_rows(path), build, path)

    def mark(self, row: Row, protocol: str) -> tuple[str, bool]:
        rule = letters.lmms_eval if protocol == "lmms-eval" else letters.video_mme
        letter = rule(said(row))
        return letter, bool(letter) and letter == row["answer"]

    def each(self, rows: Sequence[Row], *, protocol: str, folder: Path | None = None) -> dict[str, Counts]:
        marks = [self.mark(row, protocol) for row in rows]
        if protocol == "official":
            own: Counts = [float(right) if letter else None for letter, right in marks]
        else:
            own = [float(right) for _, right in marks]
        return {protocol: own, "corrected": [float(clear_letter(row) == row["answer"]) for row in rows]}

    def compared(self, protocol: str) -> str:
        return "corrected"

    def score(self, rows: Sequence[Row], *, split: str, protocol: str, folder: Path | None = None) -> Scores:
        self.check(split, protocol)
        rows = questions_of(rows)
        groups = [_groups(row) for row in rows]
        videos = [str(row["video_id"]) for row in rows]
        counted = self.each(rows, protocol=protocol)
        notes = answer_notes(rows, self.sizes[split])
        if protocol == "official":
            metrics = {"official": _of_answered(counted["official"], groups)}
            unread = counted["official"].count(None)
            if unread:
                notes.append(f"official: {unread} without a letter leave the denominator")
            notes += _refusals(rows)
        else:
            metrics = {"lmms-eval": figures(of_all(counted["lmms-eval"]), groups, order=GROUPS)}
        clear = of_all(counted["corrected"])
        metrics["corrected"] = figures(clear, groups, clusters=videos, order=GROUPS)
        return self.scores(split, protocol, rows, metrics, headline=protocol, notes=notes)

    def submission(self, rows: Sequence[Row], split: str) -> dict[str, Any]:
        """A list of videos with their questions and each `response`, as the evaluation script reads it."""
        videos: dict[str, dict[str, Any]] = {}
        for row in rows:
            meta = row["meta"]
            video = videos.setdefault(
                row["video_id"],
                {
                    "video_id": row["video_id"],
                    "duration": row["duration"],
                    "domain": meta.get("domain", ""),
                    "sub_category": meta.get("sub_category", ""),
                    "questions": [],
                },
            )
            video["questions"].append(
                {
                    "question_id": row["question_id"],
                    "task_type": row["category"],
                    "question": row["question"],
                    "options": meta.get("options", "").split("\n"),
                    "answer": row["answer"],
                    "response": said(row),
                }
            )
        return {"videomme_results.json": list(videos.values())}

    def predictions(self, content: Any) -> list[dict[str, Any]]:
        if not isinstance(content, list) or not all(
            isinstance(v, dict) and "questions" in v for v in content
        ):
            raise bad_predictions(self.name, content, "a list of videos with `questions` and each `response`")
        rows = []
        for number, row in enumerate(flat_rows(content), start=1):
            sample, _ = row_sample(number, row)
            meta = {k: v for k, v in sample.meta.items() if k not in ("video_id", "duration", "category")}
            rows.append(
                {
                    "question_id": sample.question_id,
                    "video_id": sample.meta["video_id"],
                    "duration": sample.meta["duration"],
                    "category": sample.meta["category"],
                    "question": sample.question,
                    "answer": sample.answer,
                    "text": str(row.get("response") or ""),
                    "meta": meta,
                }
            )
        return rows


def _groups(row: Row) -> list[str]:
    """Pooled groups, and for each duration the same groups within it."""
    meta = row.get("meta", {})
    kinds = [
        f"domain: {meta.get('domain', '')}",
        f"sub-category: {meta.get('sub_category', '')}",
        f"task: {row['category']}",
    ]
    return [row["duration"], *kinds, *(f"{row['duration']} · {kind}" for kind in kinds)]


def _of_answered(counted: Counts, groups: Sequence[Sequence[str]]) -> Figures:
    """Correct over answered, as the script counts; 0 where nothing is answered, as it prints."""
    if not counted:
        return {ALL: figure(0, 0)}
    kept = [(value, names) for value, names in zip(counted, groups, strict=True) if value is not None]
    found = figures([v for v, _ in kept], [g for _, g in kept], order=GROUPS)
    for names in groups:
        for name in names:
            found.setdefault(name, figure(0, 0))
    return {name: f if f["n"] else f | {"value": 0.0} for name, f in found.items()}


def _refusals(rows: Sequence[Row]) -> list[str]:
    """What the official script would stop at."""
    found = []
    for duration in DURATIONS:
        videos = {row["video_id"] for row in rows if row["duration"] == duration}
        if videos and len(videos) != VIDEOS_PER_DURATION:
            found.append(
                f"official: the script stops at {len(videos)} {duration} videos, it wants {VIDEOS_PER_DURATION}"
            )
    names = {row.get("meta", {}).get("domain", "") for row in rows} - set(DOMAINS)
    found += [f"official: the script knows no domain {name!r}" for name in sorted(names)]
    return found
