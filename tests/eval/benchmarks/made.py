"""Made-up rows in the published formats of the five benchmarks, of any size, and their folders."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from videoprune.eval.benchmarks import videomme_names as videomme

WORDS = ("cat", "dog", "boy", "girl", "ball", "run", "jump", "red", "tree", "water")
STOPWORDS = ("a", "the", "is", "of", "to", "on")


def write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def videomme_rows(videos_per_duration: int) -> list[dict[str, Any]]:
    """Three questions a video; every sub-category and task type comes in turn."""
    rng = random.Random(0)
    subs = [(domain, sub) for domain, group in videomme.DOMAINS.items() for sub in group]
    rows: list[dict[str, Any]] = []
    for place in range(3 * videos_per_duration):
        domain, sub = subs[place % len(subs)]
        for q in range(3):
            options = [
                f"{letter}. {word}." for letter, word in zip("ABCD", rng.sample(WORDS, 4), strict=True)
            ]
            rows.append(
                {
                    "video_id": f"{place + 1:03d}",
                    "duration": videomme.DURATIONS[place // videos_per_duration],
                    "domain": domain,
                    "sub_category": sub,
                    "url": f"https://www.youtube.com/watch?v=made_{place + 1:03d}",
                    "videoID": f"made_{place + 1:03d}",
                    "question_id": f"{place + 1:03d}-{q + 1}",
                    "task_type": videomme.TASK_TYPES[len(rows) % 12],
                    "question": f"What is seen {q}?",
                    "options": options,
                    "answer": rng.choice("ABCD"),
                }
            )
    return rows


def nextqa_rows(questions: int, per_video: int = 9) -> list[dict[str, Any]]:
    rng = random.Random(1)
    kinds = ("CW", "CH", "TN", "TC", "TP", "DO", "DL", "DC")
    rows = []
    for i in range(questions):
        options = rng.sample(WORDS, 5)
        rows.append(
            {"video": 2400000000 + i // per_video, "frame_count": 100, "width": 64, "height": 48}
            | {"question": f"why does the boy {WORDS[i % 10]}", "answer": rng.randrange(5)}
            | {"qid": i % per_video, "type": kinds[i % len(kinds)]}
            | {f"a{k}": option for k, option in enumerate(options)}
        )
    return rows


def nextoe_rows(questions: int, per_video: int = 9) -> list[dict[str, Any]]:
    rng = random.Random(2)
    kinds = ("CW", "CH", "TN", "TC", "TP", "DB", "DO", "DL", "DC")
    return [
        {"video": 2400000000 + i // per_video, "frame_count": 100, "width": 64, "height": 48}
        | {"question": f"what does the {WORDS[i % 10]} do", "answer": " ".join(rng.sample(WORDS, 2))}
        | {"qid": i % per_video, "type": kinds[i % len(kinds)]}
        for i in range(questions)
    ]


def msvd_rows(questions: int, first_id: int = 37348, first_video: int = 1451) -> list[dict[str, Any]]:
    starts = ("what", "who", "how", "when", "where")
    return [
        {
            "answer": WORDS[i % 10],
            "id": first_id + i,
            "question": f"{starts[i % 5]} is it?",
            "video_id": first_video + i * 504 // max(questions, 504),
        }
        for i in range(questions)
    ]


def activitynet_rows(questions: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Ten questions a video, stray white space as in the published ones. Types 8 to 0 come in this order."""
    asked, told = [], []
    for i in range(questions):
        name = f"Aa_-{i // 10:07d}"
        question_id = f"v_{name}_{i % 10 + 1}"
        text = f"\nwhat is the {WORDS[i % 10]}" if i % 97 == 0 else f"what is the  {WORDS[i % 10]} "
        asked.append({"video_name": name, "question": text, "question_id": question_id})
        told.append({"answer": WORDS[i % 10], "type": 8 - i % 9, "question_id": question_id})
    return asked, told


def write_videomme(folder: Path, rows: Sequence[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def write_nextqa(folder: Path, rows: Sequence[dict[str, Any]], split: str = "test") -> Path:
    write_csv(folder / f"{split}.csv", rows)
    videos = dict.fromkeys(row["video"] for row in rows)
    write_json(folder / "map_vid_vidorID.json", {str(v): f"{i % 1000:04d}/{v}" for i, v in enumerate(videos)})
    return folder


def write_nextoe(folder: Path, rows: Sequence[dict[str, Any]], split: str = "test") -> Path:
    write_nextqa(folder, rows, split)
    (folder / "stopwords.txt").write_text("\n".join(STOPWORDS) + "\n", encoding="utf-8")
    second: dict[str, dict[str, str]] = {}
    first_half = list(dict.fromkeys(str(r["video"]) for r in rows))[::2]
    for row in rows:
        if str(row["video"]) in first_half:
            second.setdefault(str(row["video"]), {})[str(row["qid"])] = "the ball"
    write_json(folder / f"add_reference_answer_{split}.json", second)
    return folder


def write_msvd(folder: Path, rows: Sequence[dict[str, Any]], split: str = "test") -> Path:
    write_json(folder / f"{split}_qa.json", rows)
    videos = dict.fromkeys(row["video_id"] for row in rows)
    lines = "".join(f"clip_{v}_1_9 vid{v}\n" for v in videos)
    (folder / "youtube_mapping.txt").write_text(lines, encoding="utf-8")
    return folder


def write_activitynet(folder: Path, questions: int, split: str = "test") -> Path:
    asked, told = activitynet_rows(questions)
    write_json(folder / f"{split}_q.json", asked)
    write_json(folder / f"{split}_a.json", told)
    return folder
