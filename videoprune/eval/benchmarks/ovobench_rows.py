"""Items of OVO-Bench as published -> one sample per time that is asked about, and the prompts of its repository."""

from __future__ import annotations

import json
import math
from typing import Any

from videoprune.eval.benchmarks.folder import lines_of, text_of
from videoprune.eval.benchmarks.stream_times import ASKED_AT
from videoprune.prompts import LETTERS
from videoprune.types import Sample

GROUPS = {
    "backward": ("EPM", "ASI", "HLD"),
    "realtime": ("OCR", "ACR", "ATR", "STU", "FPD", "OJR"),
    "forward": ("REC", "SSR", "CRR"),
}
TASKS = {task: group for group, tasks in GROUPS.items() for task in tasks}
_NOTHING_ELSE = "Do not include any additional text or explanation in your response.\n"
# With the blanks at line ends, the spelling and the quotation marks of the repository's constant.py.
_CHOICE = (
    "\nQuestion: {}\nOptions:\n{}\n\nRespond only with the letter corresponding to your chosen option "
    "(e.g., A, B, C). \n" + _NOTHING_ELSE
)
_COUNT = (
    "\nYou're watching a video in which people may perform a certain type of action repetively. \nThe person "
    "performing this kind of action are referred to as 'they' in the following statement.\nYou're task is to count how "
    "many times have different people in the video perform this kind of action in total.\n"
    "One complete motion counts as one. \nNow, answer the following question: {}\n"
    "Provide your answer as a single number (e.g., 0, 1, 2, 3…) indicating the total count.\n" + _NOTHING_ELSE
)
_STEP = (
    "\nYou're watching a tutorial video which contain a sequential of steps. \nThe following is one step from the "
    "whole procedures: \n{}\nYour task is to determine if the man or woman in the video is currently performing this "
    "step.\nAnswer only with “Yes” or “No”.\n" + _NOTHING_ELSE
)
_CLUE = (
    "\nYou're responsible of answering questions based on the video content. \nThe following question are relevant to "
    "the latest frames, i.e. the end of the video.\n{}\nDecide whether existing visual content, especially latest "
    "frames, i.e. frames that near the end of the video, provide enough information for answering the question.\n"
    "Answer only with “Yes” or “No”.\n" + _NOTHING_ELSE
)


def flat_rows(items: Any) -> Any:
    """One row per question: a forward item has one for each of its `test_info`, numbered as its clips are."""
    if not isinstance(items, list):
        return items
    rows: list[Any] = []
    for item in items:
        tests = item.get("test_info") if isinstance(item, dict) else None
        if not isinstance(tests, list):
            rows.append(item)
            continue
        shared = {k: v for k, v in item.items() if k != "test_info"}
        rows += [{"item": shared, "test": test, "number": i} for i, test in enumerate(tests)]
    return rows


def row_sample(number: int, row: dict[str, Any], *, exact: bool) -> tuple[Sample, tuple[str, str]]:
    """A row as a Sample without its video, and what the video may be called: the source, the repository's own clip.

    exact: it ends at the very time of the question; else, as those clips do, at the next whole second.
    """
    item, test = row.get("item", row), row.get("test", row)
    if not isinstance(test, dict):
        raise ValueError(f"test_info={test!r}; allowed: objects")
    task, name = text_of(item, "task"), text_of(item, "video")
    if task not in TASKS:
        raise ValueError(f"task={task!r}; allowed: {', '.join(TASKS)}")
    if not isinstance(item.get("id"), int | str):
        raise ValueError(f"id={item.get('id')!r}; allowed: a number")
    question_id = f"{item['id']}_{row['number']}" if "number" in row else f"{item['id']}"
    realtime = _seconds(test)
    meta = {
        "video_id": name,
        "category": task,
        "group": TASKS[task],
        "index": str(number),
        ASKED_AT: f"{realtime:g}",
    }
    if TASKS[task] == "forward":
        question, answer, text = _forward(task, item, test)
        meta |= {"item": json.dumps(item), "test": json.dumps(test)}
        options: tuple[str, ...] = ()
    else:
        question, answer, options = _choice(item)
        listed = "; ".join(f"{LETTERS[i]}. {option}" for i, option in enumerate(options)) + ";"
        text = _CHOICE.format(question, listed)
        meta["options"] = lines_of(options)
    until = realtime if exact else float(math.ceil(realtime))
    sample = Sample(question_id, "", question, options, answer, meta, text, until=until)
    return sample, (name.removesuffix(".mp4"), question_id)


def _choice(item: dict[str, Any]) -> tuple[str, str, tuple[str, ...]]:
    """Question, letter and options of a backward or real-time item."""
    options, gt = item.get("options"), item.get("gt")
    if (
        not isinstance(options, list)
        or not 2 <= len(options) <= 26
        or not all(isinstance(o, str) for o in options)
    ):
        raise ValueError(f"options={options!r}; allowed: a list of 2 to 26 texts")
    if not isinstance(gt, int) or not 0 <= gt < len(options):
        raise ValueError(f"gt={gt!r}; allowed: 0 to {len(options) - 1}")
    return text_of(item, "question"), LETTERS[gt], tuple(options)


def _forward(task: str, item: dict[str, Any], test: dict[str, Any]) -> tuple[str, str, str]:
    """Question, answer and prompt of one time of a forward item."""
    if task == "REC":
        if not isinstance(test.get("count"), int):
            raise ValueError(f"count={test.get('count')!r}; allowed: a whole number")
        question = f"How many times did they {text_of(item, 'activity')}?"
        return question, str(test["count"]), _COUNT.format(question)
    if test.get("type") not in (0, 1):
        raise ValueError(f"type={test.get('type')!r}; allowed: 0, 1")
    question, answer = text_of(*((test, "step") if task == "SSR" else (item, "question"))), ("No", "Yes")
    return question, answer[test["type"]], (_STEP if task == "SSR" else _CLUE).format(question)


def _seconds(test: dict[str, Any]) -> float:
    value = test.get("realtime")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"realtime={value!r}; allowed: seconds above 0")
    return float(value)
