"""Finds and reads the files of a published benchmark: what was looked for, where, and what was found instead."""

from __future__ import annotations

import csv
import io
import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from videoprune.eval.benchmarks.text_files import numbered_lines, read_text
from videoprune.types import UNUSABLE, Sample
from videoprune.video.folder import VideoFolder

_TRAILING = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[\]}])', re.DOTALL)
_WHOLE = re.compile(r"(-?\d+)(?:\.0+)?")
_LIMIT = threading.Lock()


def contents(folder: Path) -> str:
    """The first names in a folder, or what it is instead."""
    if not folder.exists():
        return "no such folder"
    if not folder.is_dir():
        return "a file"
    names = sorted(p.name for p in folder.iterdir())
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return (", ".join(names[:5]) or "an empty folder") + more


def find_file(folder: Path, places: Sequence[str], patterns: Sequence[str]) -> Path:
    """The first file that one of `patterns` (globs) names in `folder` or its sub-folders `places`, in that order.

    Raises ValueError that says what was looked for, where, and what is in the folder.
    """
    for pattern in patterns:
        for place in ("", *places):
            found = sorted((folder / place).glob(pattern)) if (folder / place).is_dir() else []
            if found:
                return found[0]
    where = ", ".join(f"{folder / place}" for place in ("", *places))
    raise ValueError(
        f"folder={folder}: looked for {' or '.join(patterns)} in {where}; found {contents(folder)}"
    )


def find_optional(folder: Path, places: Sequence[str], patterns: Sequence[str]) -> Path | None:
    """As `find_file`, None where there is none."""
    try:
        return find_file(folder, places, patterns)
    except ValueError:
        return None


class VideoFinder:
    """Finds videos by their names without extension. places: sub-folders of `folder`, tried in order.

    A video that is not there gives the path it should have had and a sentence that says what was looked for.
    """

    def __init__(self, folder: VideoFolder, places: Sequence[str], extensions: Sequence[str]) -> None:
        self.folder, self.extensions = folder, tuple(extensions)
        self.places = [place for place in (*places, "") if folder.has_folder(place)] or [places[0]]

    def find(self, *stems: str) -> tuple[str, str]:
        """Path, and "" or why there is none. stems: the names the video may have, best first."""
        for place in self.places:
            for stem in stems:
                for extension in self.extensions:
                    name = f"{place}/{stem}{extension}" if place else f"{stem}{extension}"
                    if self.folder.has(name):
                        return self.folder.path(name), ""
        looked = " or ".join(dict.fromkeys(stems))
        where = ", ".join(self.folder.path(place) for place in self.places)
        first = self.folder.path(f"{self.places[0]}/{stems[0]}{self.extensions[0]}".lstrip("/"))
        return first, f"missing: no {looked} ({' '.join(self.extensions)}) in {where}"

    def placed(self, sample: Sample, *stems: str) -> Sample:
        """The sample with its video, or with why there is none."""
        video, lost = self.find(*stems)
        return replace(sample, video=video, meta=sample.meta | ({UNUSABLE: lost} if lost else {}))


def read_json(path: Path) -> Any:
    """A JSON file; commas before a closing bracket, as in Video-MME's template, are forgiven.

    Raises ValueError with the path where it is no JSON.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except ValueError:
        try:
            return json.loads(_TRAILING.sub(lambda m: m[1] or "", text))
        except ValueError as error:
            raise ValueError(f"{path}: no JSON: {error}") from error


def read_json_lines(path: Path) -> list[Any]:
    """One JSON value per line; empty lines are left out. Raises ValueError with the number of a broken line."""
    found = []
    for number, line in numbered_lines(path):
        try:
            found.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: no JSON: {error}") from error
    return found


def read_csv(path: Path, columns: Iterable[str]) -> list[dict[str, str]]:
    """Rows of a CSV with a header, all cells as text, however long. See `read_text` for encodings.

    Raises ValueError if one of `columns` is not there, or if it is no CSV.
    """
    text = read_text(path)
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        with _cells_of(len(text)):
            names = reader.fieldnames or []
            lost = [c for c in columns if c not in names]
            if lost:
                raise ValueError(
                    f"{path}: no column {', '.join(lost)}; found {', '.join(names) or 'no header'}"
                )
            return [{k: v or "" for k, v in row.items() if isinstance(k, str)} for row in reader]
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: no CSV: {error}") from error


@contextmanager
def _cells_of(length: int) -> Iterator[None]:
    """Lets cells be that long while a file is read; the limit is one for the whole process, so it is put back."""
    with _LIMIT:
        before = csv.field_size_limit()
        csv.field_size_limit(max(before, length))
        try:
            yield
        finally:
            csv.field_size_limit(before)


def read_parquet(path: Path) -> list[dict[str, Any]]:
    """Rows of a parquet file. Raises ValueError that names the extra where pyarrow is not installed."""
    if find_spec("pyarrow") is None:
        raise ValueError(f"{path}: reading parquet needs pyarrow; install videoprune[benchmarks]")
    import pyarrow.parquet

    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    return rows


def text_of(row: dict[str, Any], name: str, *, empty: bool = False) -> str:
    """A cell that must be a text. Raises ValueError where it is none, or is empty and must not be."""
    value = row.get(name)
    if not isinstance(value, str) or not (value.strip() or empty):
        raise ValueError(f"{name}={value!r}; allowed: a text{'' if empty else ' that is not empty'}")
    return value


def lines_of(options: Iterable[str]) -> str:
    """Options as a row's meta holds them, a line each."""
    return "\n".join(" ".join(option.split("\n")) for option in options)


def whole_of(row: dict[str, Any], name: str) -> str:
    """A cell's text, a whole number without the ".0" that tools such as pandas write behind one."""
    value = text_of(row, name).strip()
    found = _WHOLE.fullmatch(value)
    return found[1] if found else value


def samples_of(
    rows: Sequence[Any], build: Callable[[int, dict[str, Any]], Sample], path: Path
) -> list[Sample]:
    """A Sample per row, in order. A row that cannot be read, or repeats an id, becomes one with the reason.

    Its id is then "row <number>" (from 1, the header not counted). Raises ValueError if there are no rows or
    none of them can be read.
    """
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"{path}: no rows")
    samples: list[Sample] = []
    seen: set[str] = set()
    reasons: list[str] = []
    for number, row in enumerate(rows, start=1):
        try:
            if not isinstance(row, dict):
                raise ValueError(f"{row!r}; allowed: an object")
            sample = build(number, row)
            if sample.question_id in seen:
                raise ValueError(f"question_id={sample.question_id!r} appears twice")
        except (ValueError, KeyError, TypeError) as error:
            reasons.append(f"bad row: {path.name}, row {number}: {error}")
            meta = {UNUSABLE: reasons[-1], "video_id": f"row {number}", "index": str(number)}
            sample = Sample(f"row {number}", f"row {number}", "", meta=meta)
        seen.add(sample.question_id)
        samples.append(sample)
    if len(reasons) == len(rows):
        raise ValueError(f"{path}: none of the {len(rows)} rows can be read; {reasons[0]}")
    return samples
