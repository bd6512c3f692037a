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


def ovobench_items() -> list[dict[str, Any]]:
    """An item of each task in the published form; the forward ones are asked at two or three times."""
    choice = ("EPM", "HLD", "ASI", "STU", "OJR", "ATR", "FPD", "ACR", "OCR")
    items: list[dict[str, Any]] = [
        {
            "id": i,
            "task": task,
            "video": f"COIN/v{i % 2}.mp4",
            "realtime": 1.25 + i,
            "question": f"what is seen {i}?",
            "answer": "red",
            "options": ["green", "red", "blue", "white"][: 2 + i % 3],
            "gt": i % 2,
        }
        for i, task in enumerate(choice)
    ]
    items.append(
        {"id": 9, "task": "CRR", "video": "COIN/v0.mp4", "question": "does it fall?", "answer": "it does"}
        | {"ask_time": 1, "clue_time": 3}
        | {"test_info": [{"realtime": 1, "type": 0}, {"realtime": 3.5, "type": 1}]}
    )
    items.append(
        {"id": 10, "task": "SSR", "video": "COIN/v1.mp4", "tutorial": "Tea", "all_steps": ["boil"]}
        | {"start_time": [2], "end_time": [3]}
        | {
            "test_info": [
                {"realtime": 2, "step": "boil", "type": 1},
                {"realtime": 4, "step": "boil", "type": 0},
            ]
        }
    )
    items.append(
        {
            "id": 11,
            "task": "REC",
            "video": "COIN/v1.mp4",
            "activity": "jump",
            "start_times": [1],
            "end_times": [2],
        }
        | {"test_info": [{"realtime": t, "count": c} for t, c in ((1, 0), (2, 1), (4, 12))]}
    )
    return items


def write_ovobench(folder: Path, items: Sequence[Any]) -> Path:
    write_json(folder / "ovo_bench_new.json", list(items))
    return folder


def streamingbench_entries(part: str) -> list[Any]:
    """Videos with their questions in the repository's JSON, lettered and bare options, odd times as published."""
    kinds = {
        "real": ("Counting", "Object Recognition"),
        "sqa": ("Sequential Question Answering",),
        "omni": ("Emotion Recognition", "Anomaly Context Understanding", "Misleading Context Understanding"),
        "proactive": ("Proactive Output",),
    }[part]
    found: list[Any] = []
    for i, stamp in enumerate(("00:00:01", "0:00:02", "00:03", "00:01:0", "00:00:02", "00:10:00")):
        kind = kinds[i % len(kinds)]
        question = {
            "task_type": kind,
            "question": f"What is {i}?",
            "time_stamp": stamp,
            "required_ability": "x",
        }
        if part == "proactive":
            due = {"ground_truth_time_stamp": "00:00:09", "ground_truth_output": "Goal"}
            question = {**question, "time_stamp": "00:00:02", **due}
        else:
            words = list(WORDS[:4]) if i % 2 else [f"{c}. {w}." for c, w in zip("ABCD", WORDS, strict=False)]
            question |= {"answer": "ABCD"[i % 4], "options": words}
        end = kind.replace(" ", "_") if part == "omni" else part
        entry = {
            "time": "[0 - 1]",
            "questions": [question],
            "video_path": f"./videos/sample_{i // 3}_{end}.mp4",
        }
        found.append(entry)
    return [found[:3], found[3:]] if part == "sqa" else found


def write_streamingbench(folder: Path) -> Path:
    for part in ("real", "sqa", "omni", "proactive"):
        write_json(folder / f"questions_{part}.json", streamingbench_entries(part))
    return folder
