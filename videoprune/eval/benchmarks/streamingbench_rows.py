"""Questions of StreamingBench as published, in JSON (repository) or CSV (Hugging Face) -> samples and prompts."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videoprune.eval.benchmarks.folder import lines_of, read_csv, read_json, text_of
from videoprune.eval.benchmarks.stream_times import ASKED_AT, DUE, POLL, POLL_SINCE, POLLED, seconds_of
from videoprune.prompts import LETTERS, option_texts
from videoprune.types import Sample

SOUND = (
    "Emotion Recognition",
    "Scene Understanding",
    "Source Discrimination",
    "Multimodal Alignment",
)  # task types that need it
_BACK = 80  # seconds before a standing question that its polls show
_SCENES = ("1-25", "26-50")  # the parts of the zip of Scene Understanding, which its files are called after
_BEFORE = (
    "You are an advanced video question-answering AI assistant. You have been provided with {} and a multiple-choice "
    "question related to the video. Your task is to carefully analyze the video {}, choosing from the four options "
    "provided. Respond with only the letter (A, B, C, or D) of the correct option.\n\n"
)
_CHOICE = _BEFORE.format("some frames from the video", "and provide the best answer to question")
_IN_TURN = _BEFORE.format("a video", "and the provided context to answer the question")
_IN_TURN += "{}\n\nHere is the question. Answer it and don't confuse it with the previous conversation.\n"
_QUESTION = "Question: {}\n\nOptions:\n{}\n{}\n{}\n{}\n\nThe best option is:"
_PROACTIVE = (
    "You are an advanced image question-answering AI assistant. You have been provided with images and a question "
    "related to the images. Your task is to carefully analyze the images and provide the answer to the question. You "
    "need to carefully confirm whether the images content meet the conditions of the question, and then output the "
    "correct content.\n\nQuestion: {}\n\nThe answer is:\n"
)
_CONTEXT = (
    "Here are the contextual information related to the video. Please answer the questions based on the contextual "
    "information: "
)
_COLUMNS = ("question_id", "task_type", "question", "time_stamp")


@dataclass(frozen=True)
class Part:
    """One split. questions: how many. files: JSON first, which the official scripts read. types: those of its task
    types that are in the JSON, empty for all. folder: where the videos are unzipped to."""

    questions: int
    files: tuple[str, str]
    folder: str
    types: tuple[str, ...] = ()


PARTS = {
    "real": Part(2500, ("questions_real.json", "Real_Time_Visual_Understanding.csv"), "real"),
    "omni": Part(1000, ("questions_omni.json", "Omni_Source_Understanding.csv"), "omni", SOUND),
    "contextual": Part(
        500,
        ("questions_omni.json", "Contextual_Understanding.csv"),
        "omni",
        ("Misleading Context Understanding", "Anomaly Context Understanding"),
    ),
    "sqa": Part(250, ("questions_sqa.json", "Sequential_Question_Answering.csv"), "sqa"),
    "proactive": Part(250, ("questions_proactive.json", "Proactive_Output.csv"), "proactive"),
}


def published_rows(path: Path, split: str) -> list[Any]:
    """One row per question, each with its `question_id` and `video`: what its file may be called, best first."""
    part = PARTS[split]
    if path.suffix == ".csv":
        return [row | {"video": _called(row["question_id"], split)} for row in read_csv(path, _COLUMNS)]
    rows = flat_rows(read_json(path))
    kept = [r for r in rows if not isinstance(r, dict) or r.get("task_type") in part.types]
    return kept if part.types else rows


def flat_rows(entries: Any) -> list[Any]:
    """The nested form as one row per question. Its ids are this project's: the video's name and a number."""
    if not isinstance(entries, list):
        raise ValueError(f"{type(entries).__name__}; allowed: a list of videos with their questions")
    rows: list[Any] = []
    counts: dict[str, int] = {}
    flat = [e for entry in entries for e in (entry if isinstance(entry, list) else [entry])]
    for entry in flat:
        questions = entry.get("questions") if isinstance(entry, dict) else None
        if not isinstance(questions, list) or not isinstance(entry.get("video_path"), str):
            rows.append(entry)
            continue
        stem = Path(entry["video_path"]).stem
        sample, _, kind = stem.partition("_")[2].partition("_")
        names = (stem, f"sample_{sample}/video", f"{kind.replace('_', ' ')}/sample_{sample}/video")
        for question in questions:
            counts[stem] = counts.get(stem, 0) + 1
            shared = {
                "question_id": f"{stem}_{counts[stem]}",
                "video": names,
                "video_path": entry["video_path"],
            }
            rows.append(shared | question if isinstance(question, dict) else question)
    return rows


def _called(question_id: str, split: str) -> tuple[str, ...]:
    """What the video of a CSV's row may be called: "Counting_sample_12_3" is about sample 12 of that kind."""
    found = re.fullmatch(r"(.*)_sample_(\d+)_\d+", question_id.strip())
    if not found:
        return ()
    kind, number = found[1], found[2]
    ends = [PARTS[split].folder] if split not in ("omni", "contextual") else [kind.replace(" ", "_")]
    ends += [f"{ends[0]}_{part}" for part in _SCENES] if kind == "Scene Understanding" else []
    folders = [f"{end.replace('_', ' ')}/" for end in (kind, *ends)]
    return (
        *(f"sample_{number}_{end}" for end in ends),
        *(f"{f}sample_{number}/video" for f in ("", *folders)),
    )


def row_sample(number: int, row: dict[str, Any], split: str, context: str) -> Sample:
    """A row as a Sample without its video. context: earlier questions and answers about it, see `context_after`."""
    asked_at = seconds_of(text_of(row, "time_stamp"))
    names = row.get("video") or ()
    if not names:
        raise ValueError(f"question_id={row.get('question_id')!r}; allowed: ..._sample_<number>_<number>")
    question_id, question = text_of(row, "question_id"), text_of(row, "question")
    meta = {
        "video_id": str(names[0]),
        "category": text_of(row, "task_type"),
        "index": str(number),
        ASKED_AT: str(asked_at),
    }
    meta |= {"sound": "not given"} if split == "omni" else {}
    if split == "proactive":
        due, output = seconds_of(text_of(row, "ground_truth_time_stamp")), text_of(row, "ground_truth_output")
        poll = f'{question} Is it the right time to output "{output}"? You can only answer yes or no.'
        meta |= {DUE: str(due), POLL: _PROACTIVE.format(poll), POLL_SINCE: str(max(0, asked_at - _BACK))}
        text = _PROACTIVE.format(question)
        return Sample(question_id, "", question, (), output, meta, text, until=float(due + POLLED))
    options = shown_options(row)
    answer = text_of(row, "answer").strip()
    if answer not in list(LETTERS[:4]):
        raise ValueError(f"answer={answer!r}; allowed: A, B, C, D")
    before = _IN_TURN.format(context) if split == "sqa" else _CHOICE
    meta["options"] = lines_of(options)
    text = before + _QUESTION.format(question, *options)
    return Sample(question_id, "", question, option_texts(options), answer, meta, text, until=float(asked_at))


def shown_options(row: dict[str, Any]) -> list[str]:
    """The four options that the script shows: the first four of the list, lettered where the first is not."""
    options = row.get("options")
    if isinstance(options, str):
        try:
            options = ast.literal_eval(options)
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise ValueError(f"options={options!r}; allowed: a list of texts") from error
    if not isinstance(options, list) or len(options) < 4 or not all(isinstance(o, str) for o in options):
        raise ValueError(f"options={options!r}; allowed: a list of four texts")
    if options[0].startswith("A."):
        return options[:4]
    return [f"{letter}. {option}" for letter, option in zip(LETTERS, options[:4], strict=False)]


def context_after(context: str, row: dict[str, Any], options: Sequence[str]) -> str:
    """What the next question about the same video is told of those before it, with their true answers."""
    return (context or _CONTEXT) + (
        f"At timestamp {row['time_stamp']}, the following question and answer occurred: Question: {row['question']}; "
        f"Options: {', '.join(options)}; Answer: {row['answer']}; "
    )
