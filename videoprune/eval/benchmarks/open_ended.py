"""What MSVD-QA and ActivityNet-QA share: paired files, prompts, exact match, files of predictions."""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from videoprune.eval.benchmarks.base import bad_predictions, said
from videoprune.eval.benchmarks.folder import read_json
from videoprune.eval.benchmarks.scores import Counts, Figures, Row, figures, of_all

_IDS = ("question_id", "id")
_TEXTS = ("pred", "prediction", "text")
EXACT, LOOSE = "exact match", "exact match, case and punctuation ignored"


def paired_rows(questions: Path, answers: Path) -> list[Any]:
    """Rows of two lists that belong together: by question_id, whatever their order."""
    asked, told = read_json(questions), read_json(answers)
    if not isinstance(asked, list) or not isinstance(told, list):
        raise ValueError(f"{questions}, {answers}: allowed: a list in each")
    by_id = {row.get("question_id"): row for row in told if isinstance(row, dict)}
    return [row | by_id.get(row.get("question_id"), {}) if isinstance(row, dict) else row for row in asked]


def own_prompt(question: str) -> str:
    """The project's own prompt for one-word answers: the authors' models had a list of answers, not a prompt."""
    plain = " ".join(question.split()).rstrip("?")
    return f"{plain}?\nAnswer with one word or a short phrase."


def grid_prompt(question: str) -> str:
    """IG-VLM's prompt for LLaVA-1.6. A question that ends in "?" has two, as there; roles are the template's."""
    return (
        "The provided image arranges keyframes from a video in a grid view. Answer concisely with overall "
        "content and context of the video, highlighting any significant events, characters, or objects that "
        f"appear throughout the frames. Question: {question}? \nAnswer: In the video,"
    )


def exact(row: Row) -> str:
    """What is compared: the text without white space around it."""
    return said(row).strip()


def is_exact(row: Row) -> bool:
    """Whether text and answer are the same string, as the authors count."""
    return row.get("outcome") != "failed" and exact(row) == row["answer"]


def exact_counts(rows: Sequence[Row]) -> dict[str, Counts]:
    """Exact match, and the same without case, punctuation and repeated white space: what each row counts."""
    return {EXACT: [float(is_exact(r)) for r in rows], LOOSE: [float(_is_loosely(r)) for r in rows]}


def exact_metrics(
    rows: Sequence[Row], groups: Sequence[Sequence[str]], order: Sequence[str]
) -> dict[str, Figures]:
    """The figures of `exact_counts`."""
    videos, counted = [str(row["video_id"]) for row in rows], exact_counts(rows)
    return {
        EXACT: figures(of_all(counted[EXACT]), groups, clusters=videos, order=order),
        LOOSE: figures(of_all(counted[LOOSE]), groups, order=order),
    }


def judge_lines(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """What evaluators with a judge read, one object per question that has an answer."""
    return [
        {"id": r["question_id"], "question": r["question"], "answer": r["answer"], "pred": exact(r)}
        for r in rows
        if r["answer"]
    ]


def listed_predictions(name: str, content: Any) -> list[dict[str, Any]]:
    """Rows from a list of objects with an id and a text, or from {id: text}.

    In the judges' forms (id, question, answer, pred; or question_id, Q, A, pred) `answer` is the truth; in
    ActivityNet-QA's form (question_id, answer) it is the prediction.
    """
    forms = "a list of {question_id or id, pred}, of {question_id, answer}, or {id: text}"
    if isinstance(content, dict):
        content = [{"question_id": key, "pred": value} for key, value in content.items()]
    if not isinstance(content, list):
        raise bad_predictions(name, content, forms)
    rows = []
    for item in content:
        if not isinstance(item, dict):
            raise bad_predictions(name, item, forms)
        key = next((item[k] for k in _IDS if k in item), None)
        text = next((item[k] for k in _TEXTS if k in item), None)
        answer, question = item.get("answer", item.get("A")), item.get("question", item.get("Q"))
        if text is None:
            text, answer = answer, None
        if key is None or text is None:
            raise bad_predictions(name, item, forms)
        row = {"question_id": str(key), "text": str(text)}
        row |= {"answer": str(answer)} if answer is not None else {}
        rows.append(row | ({"question": str(question)} if question is not None else {}))
    return rows


def _is_loosely(row: Row) -> bool:
    return row.get("outcome") != "failed" and _plain(exact(row)) == _plain(str(row["answer"]))


def _plain(text: str) -> str:
    return " ".join(text.casefold().translate(str.maketrans("", "", string.punctuation)).split())
