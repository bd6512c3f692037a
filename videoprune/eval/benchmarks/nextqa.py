"""NExT-QA, multiple choice (Xiao et al. 2021): causal, temporal and descriptive questions, five options each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from videoprune.choice import parse_choice
from videoprune.eval.benchmarks import letters
from videoprune.eval.benchmarks.base import GRID, Benchmark, Recipe, bad_predictions, said
from videoprune.eval.benchmarks.folder import (
    VideoFinder,
    find_file,
    find_optional,
    read_csv,
    read_json,
    samples_of,
    text_of,
    whole_of,
)
from videoprune.eval.benchmarks.scores import Counts, Row, Scores, answer_notes, figures, of_all, questions_of
from videoprune.prompts import LETTERS
from videoprune.types import UNUSABLE, Sample
from videoprune.video.folder import VideoFolder

PLACES = ("nextqa", "NExT-QA", "NExT-QA/dataset/nextqa", "dataset/nextqa", "mc", "MC")
TYPES = ("CW", "CH", "TN", "TC", "DC", "DL", "DO")
_OPTIONS = ("a0", "a1", "a2", "a3", "a4")
_LETTERS = LETTERS[:5]


class NextVideos:
    """Finds NExTVideo/<folder>/<id>.mp4 by the published map, or <id>.mp4 in one folder, as lmms-eval has them."""

    def __init__(self, folder: Path, videos: VideoFolder) -> None:
        path = find_optional(folder, PLACES, ("map_vid_vidorID.json",))
        found = read_json(path) if path else {}
        if not isinstance(found, dict):
            raise ValueError(f"{path}: {type(found).__name__}; allowed: an object of video to folder/video")
        self.map: dict[str, str] = {str(k): str(v) for k, v in found.items()}
        self.finder = VideoFinder(videos, ("NExTVideo", "videos", "video", "data"), (".mp4", ".mkv", ".webm"))

    def find(self, video: str) -> tuple[str, str]:
        """Path, and "" or why there is none."""
        return self.finder.find(*dict.fromkeys((self.map.get(video, video), video)))


class NextQA(Benchmark):
    """Folder: <split>.csv, map_vid_vidorID.json, NExTVideo/<dddd>/<id>.mp4."""

    name = "nextqa"
    title = "NExT-QA"
    sizes = {"train": 34132, "val": 4996, "test": 8564}  # noqa: RUF012
    recipes = {"official": Recipe(), "lmms-eval": Recipe(), "ig-vlm": GRID}  # noqa: RUF012

    def _load(
        self, folder: Path, split: str, protocol: str, subtitles: bool, videos: VideoFolder
    ) -> list[Sample]:
        path = find_file(folder, PLACES, (f"{split}.csv",))
        rows = read_csv(path, ("video", "question", "answer", "qid", "type", *_OPTIONS))
        finder = NextVideos(folder, videos)

        def build(number: int, row: dict[str, Any]) -> Sample:
            options = tuple(text_of(row, name) for name in _OPTIONS)
            answer = whole_of(row, "answer")
            if answer not in set("01234"):
                raise ValueError(f"answer={row['answer']!r}; allowed: 0 to 4")
            video, qid, question = whole_of(row, "video"), whole_of(row, "qid"), text_of(row, "question")
            path, lost = finder.find(video)
            meta = {
                "video_id": video,
                "category": type_of(row, TYPES),
                "qid": qid,
                "options": "\n".join(options),
                "index": str(number),
            }
            return Sample(
                question_id=f"{video}_{qid}",
                video=path,
                question=question,
                options=tuple(o.strip() for o in options),
                answer=_LETTERS[int(answer)],
                meta=meta | ({UNUSABLE: lost} if lost else {}),
                prompt=prompt(question, options, protocol),
            )

        return samples_of(rows, build, path)

    def mark(self, row: Row, protocol: str) -> tuple[str, bool]:
        options = _options(row)
        if protocol == "ig-vlm":  # it compares the options' texts: of two equal ones either is right
            letter = letters.ig_vlm(said(row))
            return letter, bool(letter) and options[letter] == options[row["answer"]]
        if protocol == "lmms-eval":
            # What cannot be read is a guess; the seed makes it the same one every time.
            letter = letters.mmmu(said(row), options, guess_seed=str(row["question_id"]))
        else:
            letter = _letter(row)
        return letter, bool(letter) and letter == row["answer"]

    def each(self, rows: Sequence[Row], *, protocol: str, folder: Path | None = None) -> dict[str, Counts]:
        found: dict[str, Counts] = {protocol: [float(self.mark(row, protocol)[1]) for row in rows]}
        if protocol != "official":
            found["corrected"] = [float(_letter(row) == row["answer"]) for row in rows]
        return found

    def score(self, rows: Sequence[Row], *, split: str, protocol: str, folder: Path | None = None) -> Scores:
        self.check(split, protocol)
        rows = questions_of(rows)
        groups = [type_groups(row) for row in rows]
        videos = [str(row["video_id"]) for row in rows]
        order = (*TYPES, "C", "T", "D")
        counted = self.each(rows, protocol=protocol)
        metrics = {protocol: figures(of_all(counted[protocol]), groups, clusters=videos, order=order)}
        notes = answer_notes(rows, self.sizes[split])
        if protocol == "official" and any(r["outcome"] == "failed" for r in rows):
            notes.append("official: the script stops at the first question without a prediction")
        if protocol == "lmms-eval":
            guessed = sum(not letters.mmmu(said(row), _options(row)) for row in rows)
            notes.append(f"lmms-eval: {guessed} answers could not be read and are guesses")
        if protocol != "official":
            metrics["corrected"] = figures(of_all(counted["corrected"]), groups, order=order)
        return self.scores(split, protocol, rows, metrics, headline=protocol, notes=notes)

    def submission(self, rows: Sequence[Row], split: str) -> dict[str, Any]:
        """ "<video>_<qid>": prediction and answer as numbers 0 to 4; -1 where no option could be read."""
        return {
            f"nextqa_{split}.json": {
                row["question_id"]: {
                    "prediction": _LETTERS.find(letter) if (letter := _letter(row)) else -1,
                    "answer": _LETTERS.index(row["answer"]),
                }
                for row in rows
                if row["answer"]
            }
        }

    def predictions(self, content: Any) -> list[dict[str, Any]]:
        if not isinstance(content, dict):
            raise bad_predictions(self.name, content, '{"<video>_<qid>": {"prediction": 0 to 4, ...}}')
        rows = []
        for key, value in content.items():
            number = value.get("prediction") if isinstance(value, dict) else value
            if isinstance(number, bool) or not isinstance(number, int | float | str):
                raise bad_predictions(self.name, value, '{"prediction": 0 to 4}, or a text')
            plain = str(number).strip().removesuffix(".0")
            text = _LETTERS[int(plain)] if plain in set("01234") else "" if plain == "-1" else plain
            rows.append({"question_id": str(key), "text": text})
        return rows


def prompt(question: str, options: Sequence[str], protocol: str) -> str:
    """The text of a question; "" for the project's own prompt, as the authors of NExT-QA have none."""
    if protocol == "official":
        return ""
    if protocol == "lmms-eval":
        lines = [f"{c}. {o.strip()}" for c, o in zip(_LETTERS, options, strict=True)]
        return "\n".join([question.strip(), *lines])
    listed = " ".join(f"{c}:{o}." for c, o in zip(_LETTERS, options, strict=True))
    return (
        "Select correct option to answer the question. "
        f"The provided image arranges keyframes from a video in a grid view. Question: {question} {listed} \n"
        "Select the correct answer from the options. \nAnswer:"
    )


def type_groups(row: Row) -> list[str]:
    """The sub-type, TP counted in TN, and its first letter."""
    kind = "TN" if row["category"] == "TP" else str(row["category"])
    return [kind, kind[:1]]


def type_of(row: dict[str, Any], types: Sequence[str]) -> str:
    """The sub-type of a row of the file: one of `types`, or TP. Raises ValueError for others."""
    kind = text_of(row, "type")
    if kind not in (*types, "TP"):
        raise ValueError(f"type={kind!r}; allowed: {', '.join((*types, 'TP'))}")
    return kind


def _options(row: Row) -> dict[str, str]:
    texts = str(row.get("meta", {}).get("options", "")).split("\n")
    return dict(zip(_LETTERS, (t.strip() for t in texts), strict=False))


def _letter(row: Row) -> str:
    """The letter that a text names for certain."""
    options = tuple(_options(row).values())
    return parse_choice(said(row), 5, options if len(options) == 5 else ())
