"""What the figures in a folder depend on: others must not be added to them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pipelines.run.results import write_whole


def keep_facts(
    out: Path, mine: Mapping[str, Any], *, growing: str, free: Collection[str] = (), restart: bool = False
) -> dict[str, Any]:
    """Keep `mine` in `out`/run.json, and return it with what stood there before.

    growing: the fact that is a mapping to which entries may be added. free: facts that may differ. restart: the
    folder is emptied. Raises ValueError if it holds figures of others.
    """
    path, found = out / "run.json", dict(mine)
    if path.exists() and not restart:
        theirs = json.loads(path.read_text())
        before = theirs.get(growing, {})
        other = [k for k, v in mine.items() if k not in (growing, *free) and v != theirs.get(k)]
        other += [f"{growing}: {k}" for k, v in mine[growing].items() if before.get(k, v) != v]
        if other:
            raise ValueError(
                f"out={out}: holds figures of another {', '.join(other)}; allowed: an --out folder of its own, "
                "or --restart where the command has it"
            )
        found[growing] = {**before, **mine[growing]}
    write_whole(path, json.dumps(found, indent=1))
    return found
