"""OVO-Bench (Li et al. 2025): questions asked while a video runs, about what was, what is, and what is to come."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from videoprune.choice import parse_choice
from videoprune.eval.benchmarks.base import Benchmark, Recipe, bad_predictions, said
from videoprune.eval.benchmarks.folder import VideoFinder, find_file, read_json, samples_of
from videoprune.eval.benchmarks.ovobench_rows import GROUPS, TASKS, flat_rows, row_sample
from videoprune.eval.benchmarks.scores import (
    ALL,
    Counts,
    Figures,
    Row,
    Scores,
    answer_notes,
    figures,
    of_all,
    questions_of,
)
from videoprune.types import Sample
from videoprune.video.folder import VideoFolder

OFFICIAL, CORRECTED = "official", "corrected"
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


class OVOBench(Benchmark):
    """Folder: ovo_bench_new.json, src_videos/<video> or the published clips in chunked_videos/<id>[_<i>].mp4."""

    name = "ovobench"
    title = "OVO-Bench"
    sizes = {"test": 3035}  # noqa: RUF012
    recipes = {  # noqa: RUF012
        "official": Recipe(frames=64, policy="ends"),
        "exact": Recipe(frames=64, policy="ends"),
        "recent": Recipe(frames=4, policy="last", fps=1.0),
    }

    def _load(
        self, folder: Path, split: str, protocol: str, subtitles: bool, videos: VideoFolder
    ) -> list[Sample]:
        path = find_file(folder, ("data", "annotations"), ("ovo_bench_new.json", "ovo_bench*.json"))
        places = ("src_videos", "data/src_videos", "chunked_videos", "data/chunked_videos")
        finder = VideoFinder(videos, places, (".mp4", ".mkv", ".webm"))

        def build(number: int, row: dict[str, Any]) -> Sample:
            sample, names = row_sample(number, row, exact=protocol == "exact")
            return finder.placed(sample, *names)

        return samples_of(flat_rows(read_json(path)), build, path)

    def mark(self, row: Row, protocol: str) -> tuple[str, bool]:
        return _clear(row), _official(row)

    def each(self, rows: Sequence[Row], *, protocol: str, folder: Path | None = None) -> dict[str, Counts]:
        return {
            OFFICIAL: [float(_official(row)) for row in rows],
            CORRECTED: [float(_clear(row) == row["answer"]) for row in rows],
        }

    def compared(self, protocol: str) -> str:
        return CORRECTED

    def score(self, rows: Sequence[Row], *, split: str, protocol: str, folder: Path | None = None) -> Scores:
        self.check(split, protocol)
        rows = questions_of(rows)
        tasks = [str(row["category"]) for row in rows]
        counted = self.each(rows, protocol=protocol)
        metrics = {name: _means(of_all(values), tasks) for name, values in counted.items()}
        lost = [group for group, names in GROUPS.items() if not set(names) & set(tasks)]
        notes = answer_notes(rows, self.sizes[split])
        notes += [f"official: the script stops without {group} questions" for group in lost]
        return self.scores(split, protocol, rows, metrics, headline=OFFICIAL, notes=notes)

    def submission(self, rows: Sequence[Row], split: str) -> dict[str, Any]:
        """The file that score.py reads, forward items with the responses at each of their times."""
        found: dict[str, list[Any]] = {group: [] for group in GROUPS}
        forward: dict[Any, dict[str, Any]] = {}
        for row in rows:
            if TASKS[row["category"]] == "forward":
                item, test = (json.loads(row["meta"][key]) for key in ("item", "test"))
                known = forward.setdefault(item["id"], item | {"test_info": []})
                known["test_info"].append(test | {"response": said(row)})
                continue
            found[TASKS[row["category"]]].append(
                {
                    "id": int(row["question_id"]) if row["question_id"].isdigit() else row["question_id"],
                    "video": row["video_id"],
                    "task": row["category"],
                    "question": row["question"],
                    "response": said(row),
                    "ground_truth": row["answer"],
                }
            )
        found["forward"] = list(forward.values())
        return {"ovobench_results.json": found}

    def predictions(self, content: Any) -> list[dict[str, Any]]:
        if not isinstance(content, dict) or not GROUPS.keys() <= content.keys():
            raise bad_predictions(
                self.name, content, "an object with the lists backward, realtime and forward"
            )
        rows = []
        for group in ("backward", "realtime"):
            rows += [
                _predicted(r, str(r["id"]), r["response"], str(r["ground_truth"])) for r in content[group]
            ]
        for row in flat_rows(content["forward"]):
            item, test = row["item"], row["test"]
            answer = str(test["count"]) if item["task"] == "REC" else ("No", "Yes")[test["type"]]
            rows.append(_predicted(item, f"{item['id']}_{row['number']}", test.get("response"), answer))
        return rows


def _predicted(item: dict[str, Any], question_id: str, response: Any, answer: str) -> dict[str, Any]:
    """A row of one response. Some of the repository's models wrote lists of one text."""
    text = response[0] if isinstance(response, list) and response else response
    return {
        "question_id": question_id,
        "video_id": str(item.get("video", "")),
        "category": str(item["task"]),
        "question": str(item.get("question", "")),
        "answer": answer,
        "text": str(text or ""),
        "meta": {"group": TASKS[item["task"]]},
    }


def _official(row: Row) -> bool:
    """The repository's score of one response: the answer somewhere in the text; of a count, all digits in a row."""
    text, answer = said(row), str(row["answer"])
    if row["category"] == "REC":
        return "".join(re.findall(r"\d+", text)) == answer
    if row["category"] in ("SSR", "CRR") and text == answer[0]:
        return True
    return answer in text


def _clear(row: Row) -> str:
    """The answer that a text names for certain, "" if none: what the official rule means to read."""
    text = said(row)
    if row["category"] == "REC":
        words = re.findall(r"\d+|[a-z]+", text.lower())
        found = {str(_NUMBERS.index(w)) if w in _NUMBERS else str(int(w)) for w in words if _is_number(w)}
        return found.pop() if len(found) == 1 else ""
    if row["category"] in ("SSR", "CRR"):
        told = {w[0] for w in re.findall(r"[a-z]+", text.lower()) if w in ("yes", "no")}
        told = told or {text.strip().strip(".").lower()} & {"y", "n"}
        return {"y": "Yes", "n": "No"}[told.pop()] if len(told) == 1 else ""
    options = tuple(str(row.get("meta", {}).get("options", "")).split("\n"))
    known = options if len(options) > 1 else ()
    return parse_choice(text, len(known) or 5, known)


def _is_number(word: str) -> bool:
    return word in _NUMBERS or (word.isascii() and word.isdigit())


def _means(values: Sequence[float], tasks: Sequence[str]) -> Figures:
    """By task; of a group the mean of its tasks, over all the mean of the groups, as the script prints them."""
    found = figures(values, [[task] for task in tasks], order=tuple(TASKS))
    share = {t: 100 * f["sum"] / f["n"] for t, f in found.items() if t != ALL and f["n"]}
    means: dict[str, float] = {}
    for group, names in GROUPS.items():
        there = [share[t] for t in names if t in share]
        part = [found[t] for t in names]
        value = sum(there) / len(there) if there else None
        found[group] = {
            "value": None if value is None else round(value, 4),
            "n": sum(f["n"] for f in part),
            "sum": sum(f["sum"] for f in part),
        }
        means |= {} if value is None else {group: value}
    found[ALL]["value"] = round(sum(means.values()) / len(means), 4) if means else None
    return {ALL: found[ALL], **{g: found[g] for g in GROUPS}, **{t: found[t] for t in TASKS}}
