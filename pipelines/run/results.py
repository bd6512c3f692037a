"""results.jsonl: one line per question, only ever appended to, on the disk before the next clip begins.

A run may be killed at any moment. Whole lines stay; a line that was being written is cut off on the next
start. A question may have several lines, for failures are tried again; the last one counts.
"""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any

from pipelines.run.row_index import Row, RowIndex, StoredRows
from videoprune.models.loading import RANDOM, demo_names, model_folder, stock_config
from videoprune.video.remote.address import Stored, is_remote

_HASHED_WHOLE = 64 * 2**20  # bytes; of larger weights, size and time of change stand for the content


class Results:
    """The file of one run, and what it holds by question_id: rows stay on the disk. A context manager.

    Raises ValueError if another process writes the same file, or a line other than the last is no JSON
    object.
    """

    def __init__(self, path: Path, *, restart: bool = False) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = path.open("a+b")
        try:
            _lock(self._file.fileno(), path)
            if restart:
                self._file.truncate(0)
            self.index, self._end = self._load()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Results:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write `rows` in one piece and wait until the disk has them."""
        if not rows:
            return
        lines = [encoded(json.dumps(row, ensure_ascii=False) + "\n") for row in rows]
        self._file.write(b"".join(lines))
        self._file.flush()
        os.fsync(self._file.fileno())
        for row, line in zip(rows, lines, strict=True):
            self.index.put(row, self._end)
            self._end += len(line)

    def rows(self, questions: Iterable[str]) -> StoredRows:
        """The last row of each; KeyError for a question without one."""
        return StoredRows(self.path, array("q", map(self.index.start, questions)))

    def _load(self) -> tuple[RowIndex, int]:
        """The index, and where the file ends, which is cut behind its last whole line."""
        index, end, torn = RowIndex(), 0, 0
        self._file.seek(0)
        for number, line in enumerate(self._file, start=1):  # which only line feeds end
            if torn:
                raise ValueError(f"{self.path}, line {torn}: not a row of results; allowed: JSON objects")
            row = _parse(line)
            if row is None:
                torn = number
                continue
            index.put(row, end)
            end += len(line)
        if torn:
            self._file.truncate(end)  # torn while it was written
        return index, end


def read_rows(path: Path) -> dict[str, Row]:
    """The rows of a finished or running run by question_id, without touching the file."""
    rows: dict[str, Row] = {}
    for line in BytesIO(path.read_bytes()):
        row = _parse(line)
        if row is not None:
            rows[row["question_id"]] = row
    return rows


def row_key(question_id: str, video: str, model: str, digest: str) -> str:
    """16 hex digits for what a row was made from: fingerprints of video and model, `PruneConfig.digest`."""
    return hashlib.sha256(encoded("\n".join((question_id, video, model, digest)))).hexdigest()[:16]


def video_fingerprint(path: str, known: Stored | None = None) -> str:
    """Size and time of change of a file; "missing" where there is none. Of a remote one, the address and what its store
    says (known), if that was asked."""
    if is_remote(path):
        return f"{path} {known.size} {known.tag}" if known else path
    try:
        found = os.stat(path)
    except OSError:
        return "missing"
    return f"{found.st_size}-{found.st_mtime_ns}"


def model_fingerprint(name: str) -> str:
    """12 hex digits over the model's configuration, tokenizer and weights; of a hub model, over name and commit."""
    stock = stock_config(name)
    if name.startswith(RANDOM):
        assert stock is not None
        return hashlib.sha256(stock.to_json_string().encode()).hexdigest()[:12]
    if name not in demo_names() and stock is not None and not Path(name).is_dir():
        return hashlib.sha256(f"{name} {stock._commit_hash}".encode()).hexdigest()[:12]
    folder = model_folder(name)
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix not in (".json", ".jinja", ".txt", ".safetensors", ".bin"):
            continue
        total.update(f"{path.name} {path.stat().st_size} ".encode())
        small = path.stat().st_size <= _HASHED_WHOLE
        total.update(path.read_bytes() if small else str(path.stat().st_mtime_ns).encode())
    return total.hexdigest()[:12]


def write_whole(path: Path, text: str) -> None:
    """Write `path` in one step: it holds the old text or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partly = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    partly.write_bytes(encoded(text))
    os.replace(partly, path)


def encoded(text: str) -> bytes:
    r"""UTF-8. Half a surrogate pair, which has none, becomes \\uXXXX: what JSON calls it."""
    return text.encode("utf-8", errors="backslashreplace")


def _parse(line: bytes) -> Row | None:
    if not line.endswith(b"\n"):
        return None
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("question_id"), str) else None


def _lock(descriptor: int, path: Path) -> None:
    """Refuse a file that another process writes. Where the system has no such lock, go without."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise ValueError(f"{path}: another run writes it; name another folder or wait for it") from error
