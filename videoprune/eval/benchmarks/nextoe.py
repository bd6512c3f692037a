"""NExT-QA, open-ended (NExT-OE, Xiao et al. 2021): the same kinds of questions, answered in a phrase, by WUPS."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from videoprune.eval import wups
from videoprune.eval.benchmarks.base import Benchmark, Recipe, bad_predictions, said
from videoprune.eval.benchmarks.folder import (
    find_file,
    find_optional,
    read_csv,
    read_json,
    samples_of,
    text_of,
    whole_of,
)
from videoprune.eval.benchmarks.nextqa import NextVideos, type_groups, type_of
from videoprune.eval.benchmarks.scores import Counts, Row, Scores, answer_notes, figures, of_all, questions_of
from videoprune.eval.benchmarks.text_files import read_text
from videoprune.types import UNUSABLE, Sample
from videoprune.video.folder import VideoFolder

PLACES = ("nextoe", "NExT-OE", "NExT-OE/dataset/nextqa", "dataset/nextqa", "oe", "OE", "nextqa")
TYPES = ("CW", "CH", "TN", "TC", "DB", "DC", "DL", "DO")
_EXACT = ("DB", "DC")
_THRESHOLD = 0.9
_HEADLINE = "WUPS@0"


class NextOE(Benchmark):
    """Folder: <split>.csv, add_reference_answer_<split>.json, stopwords.txt, the videos as for NExT-QA."""

    name = "nextoe"
    title = "NExT-OE"
    sizes = {"train": 37523, "val": 5343, "test": 9178}  # noqa: RUF012
    recipes = {"official": Recipe(), "lmms-eval": Recipe(max_new_tokens=64)}  # noqa: RUF012

    def _load(
        self, folder: Path, split: str, protocol: str, subtitles: bool, videos: VideoFolder
    ) -> list[Sample]:
        path = find_file(folder, PLACES, (f"{split}.csv",))
        rows = read_csv(path, ("video", "question", "answer", "qid", "type"))
        if rows and "a0" in rows[0]:
            raise ValueError(
                f"{path}: has columns a0 to a4, so it is NExT-QA's; NExT-OE has a file of its own"
            )
        second = _second_references(folder, split)
        finder = NextVideos(folder, videos)

        def build(number: int, row: dict[str, Any]) -> Sample:
            video, qid, question = whole_of(row, "video"), whole_of(row, "qid"), text_of(row, "question")
            kind = type_of(row, TYPES)
            path, lost = finder.find(video)
            meta = {"video_id": video, "category": kind, "qid": qid, "index": str(number)}
            if video in second:
                meta["second_answer"] = second[video].get(qid, "")
            return Sample(
                question_id=f"{video}_{qid}",
                video=path,
                question=question,
                answer=text_of(row, "answer"),
                meta=meta | ({UNUSABLE: lost} if lost else {}),
                prompt=prompt(question, protocol),
            )

        return samples_of(rows, build, path)

    def mark(self, row: Row, protocol: str) -> tuple[str, bool]:
        """The text, and whether it equals the answer; WUPS is worked out over the whole file."""
        text = said(row).strip()
        return text, bool(text) and text.casefold() == str(row["answer"]).strip().casefold()

    def each(self, rows: Sequence[Row], *, protocol: str, folder: Path | None = None) -> dict[str, Counts]:
        return self._each(_words(folder), rows, protocol)

    def compared(self, protocol: str) -> str:
        return _HEADLINE

    def _each(self, words: wups.Words, rows: Sequence[Row], protocol: str) -> dict[str, Counts]:
        zero, nine, faulty = zip(*(_wups(words, row) for row in rows), strict=True) if rows else ((), (), ())
        found: dict[str, Counts] = {_HEADLINE: list(zero), "WUPS@0.9": list(nine)}
        return found | ({"lmms-eval WUPS@0.9": list(faulty)} if protocol == "lmms-eval" else {})

    def score(self, rows: Sequence[Row], *, split: str, protocol: str, folder: Path | None = None) -> Scores:
        self.check(split, protocol)
        rows = questions_of(rows)
        words = _words(folder)
        groups = [type_groups(row) for row in rows]
        order = (*TYPES, "C", "T", "D")
        videos = [str(row["video_id"]) for row in rows]
        metrics = {
            name: figures(
                of_all(counted), groups, clusters=videos if name == _HEADLINE else None, order=order
            )
            for name, counted in self._each(words, rows, protocol).items()
        }
        notes = answer_notes(rows, self.sizes[split])
        if protocol == "lmms-eval":
            notes.append("lmms-eval: its WUPS@0.9 has threshold 0 for second references")
        if not words.sentences:
            notes.append("punkt is not there: full stops inside an answer are not cut off")
        more = {"word_data": words.source}
        return self.scores(split, protocol, rows, metrics, headline=_HEADLINE, notes=notes, more=more)

    def submission(self, rows: Sequence[Row], split: str) -> dict[str, Any]:
        """{video: {qid: text}}; "" where there is no answer, as the script stops at a missing one."""
        found: dict[str, dict[str, str]] = {}
        for row in rows:
            if row["answer"]:
                found.setdefault(row["video_id"], {})[row["meta"]["qid"]] = said(row)
        return {f"nextoe_{split}.json": found}

    def predictions(self, content: Any) -> list[dict[str, Any]]:
        if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
            raise bad_predictions(self.name, content, '{"<video>": {"<qid>": "text"}}')
        return [
            {"question_id": f"{video}_{qid}", "text": str(text)}
            for video, answers in content.items()
            for qid, text in answers.items()
        ]


def prompt(question: str, protocol: str) -> str:
    """The authors have no prompt; under `official` the project's own asks for a short phrase."""
    if protocol == "lmms-eval":
        return f"{question.strip()}\nAnswer a question using a short phrase or sentence."
    return f"{question.strip()}?\nAnswer with a short phrase."


def _wups(words: wups.Words, row: Row) -> tuple[float, float, float]:
    """WUPS@0, WUPS@0.9, and what lmms-eval takes for the latter."""
    if row.get("outcome") == "failed":
        return 0.0, 0.0, 0.0
    exact = row["category"] in _EXACT
    references = [str(row["answer"])]
    second = row.get("meta", {}).get("second_answer")
    both = references + ([second] if second is not None else [])
    text = said(row)
    zero, nine = (wups.score(words, text, both, t, exact=exact) for t in (0.0, _THRESHOLD))
    if not second or exact:
        return zero, nine, nine
    first = wups.score(words, text, references, _THRESHOLD, exact=False)
    return zero, nine, max(first, wups.score(words, text, [second], 0.0, exact=False))


@cache  # its own caches fill with every answer
def _words(folder: Path | None) -> wups.Words:
    if folder is None:
        raise ValueError("folder=None; NExT-OE's scores need its folder (--data) for stopwords.txt")
    return wups.Words(_stopwords(folder))


def _second_references(folder: Path, split: str) -> dict[str, dict[str, str]]:
    path = find_optional(folder, PLACES, (f"add_reference_answer_{split}.json",))
    found = read_json(path) if path else {}
    if not isinstance(found, dict) or not all(isinstance(v, dict) for v in found.values()):
        raise ValueError(f'{path}: allowed: {{"<video>": {{"<qid>": "answer"}}}}')
    return found


def _stopwords(folder: Path) -> list[str]:
    """The published list; lmms-eval's has a header line."""
    path = find_file(folder, (*PLACES, "NExT-OE"), ("stopwords.txt", "stopwords.csv"))
    words = read_text(path).split()
    return words[1:] if path.suffix == ".csv" else words
