"""The judge of open-ended answers: a language model says yes or no and gives 0 to 5 (Maaz et al. 2024, Video-ChatGPT).

The request's words are the same in Video-ChatGPT, Video-LLaVA, lmms-eval and IG-VLM, so they are here to the
byte. How a reply is read and what is averaged differs; each way has a name. Which model judges moves the numbers
by points, so its name and temperature belong to every number.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, get_args

from videoprune.prompts import whole_characters

Messages = list[dict[str, str]]
Rule = Literal["video-chatgpt", "lmms-eval", "ig-vlm"]

_SYSTEM = (
    "You are an intelligent chatbot designed for evaluating the correctness of generative outputs for "
    "question-answer pairs. Your task is to compare the predicted answer with the correct answer and determine "
    "if they match meaningfully. Here's how you can accomplish the task:------##INSTRUCTIONS: - Focus on the "
    "meaningful match between the predicted answer and the correct answer.\n- Consider synonyms or paraphrases "
    "as valid matches.\n- Evaluate the correctness of the prediction compared to the answer."
)
_TASK = (
    "Provide your evaluation only as a yes/no and score where the score is an integer value between 0 and 5, "
    "with 5 indicating the highest meaningful match. Please generate the response in the form of a Python "
    "dictionary string with keys 'pred' and 'score', where value of 'pred' is  a string of 'yes' or 'no' and "
    "value of 'score' is in INTEGER, not STRING.DO NOT PROVIDE ANY OTHER OUTPUT TEXT OR EXPLANATION. Only "
    "provide the Python dictionary string. For example, your response should look like this: "
    "{'pred': 'yes', 'score': 4.8}."
)


@dataclass(frozen=True)
class Reply:
    """What a judge said, and which model the server says it was."""

    text: str
    model: str = ""


class JudgeError(RuntimeError):
    """A judge gave no reply; the question counts as not judged and the run goes on."""


Complete = Callable[[Messages], Reply]


@dataclass(frozen=True)
class JudgeSettings:
    """What a verdict depends on beside the answer. temperature, max_tokens: None leaves them to the server."""

    model: str
    temperature: float | None = None
    max_tokens: int | None = None
    rule: Rule = "video-chatgpt"

    def __post_init__(self) -> None:
        if self.rule not in get_args(Rule):
            raise ValueError(f"rule={self.rule!r}; allowed: {', '.join(get_args(Rule))}")
        if self.temperature is not None and not 0 <= self.temperature <= 2:
            raise ValueError(f"temperature={self.temperature}; allowed: 0 to 2, or None")

    def key(self, messages: Messages) -> str:
        text = json.dumps([self.model, self.temperature, self.max_tokens, messages])
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Verdict:
    """pred: as the rule reads it, "" where nothing can be read. reason: why there is no verdict."""

    question_id: str
    pred: str = ""
    score: float = 0.0
    reply: str = ""
    served: str = ""
    reason: str = ""

    @property
    def yes(self) -> bool:
        return self.pred.strip().lower() == "yes"


class ReplyCache:
    """Replies in a file of JSON lines, so that no question is paid for twice. Safe to be killed at any moment."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._known: dict[str, Reply] = {}
        intact = 0
        for line in BytesIO(path.read_bytes()) if path.exists() else ():
            try:
                row = json.loads(line) if line.endswith(b"\n") else None
                self._known[row["key"]] = Reply(row["reply"], row["model"])  # type: ignore[index]
            except (ValueError, KeyError, TypeError):
                break  # torn while it was written: what follows is asked again
            intact += len(line)
        if path.exists():
            os.truncate(path, intact)

    def get(self, key: str) -> Reply | None:
        return self._known.get(key)

    def put(self, key: str, reply: Reply) -> None:
        row = json.dumps({"key": key, "reply": reply.text, "model": reply.model}, ensure_ascii=False)
        with self._lock:
            self._known[key] = reply
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(row + "\n")


def messages(question: str, answer: str, prediction: str) -> Messages:
    """The two messages of one question."""
    pair = f"Question: {question}\nCorrect Answer: {answer}\nPredicted Answer: {prediction}\n\n"
    start = "Please evaluate the following video-based question-answer pair:\n\n"
    return [
        {"role": "system", "content": _SYSTEM},
        {"role": "user", "content": start + whole_characters(pair) + _TASK},
    ]


def read_reply(text: str, rule: Rule) -> tuple[str, float] | None:
    """Verdict and score of a reply, None where the rule cannot read it.

    video-chatgpt: the whole reply is a dictionary. lmms-eval: its first {...}; the score is cut to an integer,
    the verdict becomes yes or no. ig-vlm: as the first, once a full stop at the end is gone.
    """
    try:
        if rule == "lmms-eval":
            text = "{" + text.split("{")[1].split("}")[0] + "}"
        elif rule == "ig-vlm":
            text = text.removesuffix(".")
        found = ast.literal_eval(text.strip() if rule == "lmms-eval" else text)
        pred, score = found["pred"], found["score"]
        if not isinstance(pred, str) or isinstance(score, bool):
            return None
        if rule == "lmms-eval":
            return _yes_or_no(pred) or pred, float(int(score))
        return pred, float(score)
    except (ValueError, SyntaxError, KeyError, TypeError, IndexError, MemoryError, RecursionError):
        return None


def judge_rows(
    rows: Sequence[Mapping[str, Any]],
    complete: Complete,
    settings: JudgeSettings,
    cache: ReplyCache,
    *,
    attempts: int = 3,
    workers: int = 1,
) -> Iterator[Verdict]:
    """A verdict per row, in order. Rows without an answer are not asked about.

    attempts: how often a reply that cannot be read is asked for; only once at temperature 0, where the same would
    come back. workers: questions under way at once.
    """
    attempts = 1 if settings.temperature == 0 else attempts
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(lambda row: _judge(row, complete, settings, cache, attempts), rows)


def summarize_verdicts(verdicts: Sequence[Verdict], settings: JudgeSettings) -> dict[str, Any]:
    """Accuracy (percent) and mean score as the rule's authors average, and over all questions as `corrected`.

    video-chatgpt, lmms-eval: yes / (yes + no), where a verdict with "no" in it, "unknown" too, is a no and one
    with neither is neither; scores are cut to integers. The first averages replies that can be read (its tool
    asks until it can); the second takes the others for no and 0. ig-vlm: exactly "yes" over all questions; scores
    as they are. corrected: yes over all questions, whatever the reason one has no yes.
    """
    asked = [v for v in verdicts if v.reason != "no answer"]
    read = [v for v in asked if not v.reason]
    lost = len(asked) - len(read) if settings.rule == "lmms-eval" else 0
    if settings.rule == "ig-vlm":
        accuracy = _ratio(sum(v.pred == "yes" for v in read), len(asked))
        score = _ratio(sum(v.score for v in read), len(read))
    else:
        said = [_yes_or_no(v.pred) for v in read]
        yes, no = said.count("yes"), said.count("no") + lost
        accuracy = _ratio(yes, yes + no)
        score = _ratio(sum(int(v.score) for v in read), len(read) + lost)
    sure = sum(v.yes for v in read)
    reasons = [v.reason for v in verdicts if v.reason]
    return {
        "rule": settings.rule,
        "model": settings.model,
        "served": sorted({v.served for v in verdicts if v.served}),
        "temperature": settings.temperature,
        "max_tokens": settings.max_tokens,
        "accuracy": None if accuracy is None else round(100 * accuracy, 4),
        "score": None if score is None else round(score, 4),
        "corrected": None if not verdicts else round(100 * sure / len(verdicts), 4),
        "questions": len(verdicts),
        "judged": len(read),
        "unparsable": reasons.count("unparsable"),
        "no_answer": reasons.count("no answer"),
        "no_reply": len(reasons) - reasons.count("unparsable") - reasons.count("no answer"),
    }


def _judge(
    row: Mapping[str, Any], complete: Complete, settings: JudgeSettings, cache: ReplyCache, attempts: int
) -> Verdict:
    name = str(row["question_id"])
    if row.get("outcome") == "failed":
        return Verdict(name, reason="no answer")
    asked = messages(str(row["question"]), str(row["answer"]), str(row["text"]))
    key = settings.key(asked)
    reply = cache.get(key)
    if reply is None:
        for _ in range(attempts):
            try:
                reply = complete(asked)
            except JudgeError as error:
                return Verdict(name, reason=str(error))
            if read_reply(reply.text, settings.rule) is not None:
                break
        assert reply is not None
        cache.put(key, reply)
    found = read_reply(reply.text, settings.rule)
    if found is None:
        return Verdict(name, reply=reply.text, served=reply.model, reason="unparsable")
    return Verdict(name, *found, reply=reply.text, served=reply.model)


def _yes_or_no(pred: str) -> str:
    low = pred.lower()
    return "yes" if "yes" in low else "no" if "no" in low else ""


def _ratio(total: float, count: int) -> float | None:
    return total / count if count else None
