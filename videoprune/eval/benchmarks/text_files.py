"""Text files in whatever encoding they come: Unicode with or without a mark, Latin-1 or GB18030."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

_MARKS = (  # UTF-32's begins with UTF-16's
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DAMAGED = 0.1  # of the characters beyond ASCII: a file with no more of them broken is UTF-8 all the same


def read_text(path: Path) -> str:
    """The text of a file, line breaks as they are.

    A byte order mark says which Unicode it is, else it is UTF-8 if it can be (single damaged characters become
    U+FFFD), else GB18030 or Latin-1 (Windows-1252), whichever the bytes look like. Raises ValueError with the path
    for a file that is no text, OSError for one that cannot be read.
    """
    data = path.read_bytes()
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise ValueError(f"{path}: not the {encoding} that its first bytes say: {error}") from error
    if b"\0" in data:
        raise ValueError(f"{path}: no text: it holds zero bytes and no byte order mark")
    text = data.decode("utf-8", errors="replace")
    beyond = sum(char > "\x7f" for char in text)
    return text if text.count("\ufffd") <= _DAMAGED * beyond else _detected(path, data)


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, numbered from 1. Only line feeds end one: U+2028 and its like may stand in JSON."""
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            yield number, line


def _detected(path: Path, data: bytes) -> str:
    if find_spec("charset_normalizer") is None:
        raise ValueError(
            f"{path}: not UTF-8; other encodings need charset-normalizer: videoprune[benchmarks]"
        )
    from charset_normalizer import from_bytes

    best = from_bytes(data, cp_isolation=["gb18030", "cp1252"]).best()
    return str(best) if best is not None else data.decode("latin-1")
