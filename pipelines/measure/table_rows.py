"""What docs/tables.md measures: each table as rows, each row as a preset and what is changed in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from videoprune.config import Schedule


@dataclass(frozen=True)
class TableRow:
    """One run. changes: dotted fields of the preset. like: take the settings of that row of the same table,
    which must come before, with the share that its LLM stage was measured to keep as `llm.keep`; `control`
    then replaces the methods of every stage in use (`random`) or of the LLM's alone (`fixed`, `random_llm`).
    solve: look for the lambda of `adaptive` on training clips where the model is not calibrated for the share; else
    it gets what a user gets. several_encoders: it is about how they share something, so it says nothing of a model
    with one.
    """

    name: str
    preset: str = "none"
    changes: Mapping[str, Any] = field(default_factory=dict)
    like: str = ""
    control: Literal["random", "random_llm", "fixed"] = "random"
    solve: bool = False
    several_encoders: bool = False


@dataclass(frozen=True)
class TableSpec:
    title: str
    text: str
    rows: tuple[TableRow, ...]


def _presets() -> tuple[TableRow, ...]:
    names = ("light", "balanced", "aggressive", "evoprune", "meteor")
    pairs = ((TableRow(n, n), TableRow(f"{n}, random", like=n)) for n in names)
    return tuple(row for pair in pairs for row in pair)


def _budgets() -> tuple[TableRow, ...]:
    return tuple(
        TableRow(
            f"{method} to {keep:g}, {rule}",
            changes={"encoder.method": method, "encoder.keep": keep, "encoder.budget": rule},
            several_encoders=True,
        )
        for method in ("meteor", "evoprune")
        for keep in (0.25, 0.1)
        for rule in ("rank", "equal", "reverse")
    )


def _fusions() -> tuple[TableRow, ...]:
    kinds = {
        "cooperative, mean": {"fusion.method": "cooperative", "fusion.redundancy": "mean"},
        "cooperative, sum": {"fusion.method": "cooperative", "fusion.redundancy": "sum"},
        "separate": {"fusion.method": "separate"},
        "random": {"fusion.method": "random"},
    }
    return tuple(
        TableRow(
            f"{name}, to {keep:g}",
            changes={**changes, "fusion.keep": keep},
            several_encoders="sum" in name,
        )
        for keep in (0.2, 0.1)
        for name, changes in kinds.items()
    )


def _llm() -> tuple[TableRow, ...]:
    rows: list[TableRow] = []
    for keep in (0.5, 0.3):
        adaptive = {"llm.method": "adaptive", "llm.keep": keep}
        top = f"adaptive, top heads, to {keep:g}"
        rows += [
            TableRow(top, changes={**adaptive, "llm.top_heads": 3}, solve=True),
            TableRow(
                f"adaptive, all heads, to {keep:g}", changes={**adaptive, "llm.heads": "all"}, solve=True
            ),
            TableRow(f"fixed, to {keep:g}", like=top, control="fixed"),
            TableRow(f"random, to {keep:g}", like=top, control="random_llm"),
        ]
    return tuple(rows)


def _schedules() -> tuple[TableRow, ...]:
    """EvoPrune's own; `constant` is ToMe's."""
    names = [name for name in get_args(Schedule) if name != "constant"]
    return tuple(
        TableRow(f"{name}, to {keep:g}", "evoprune", {"encoder.schedule": name, "encoder.keep": keep})
        for keep in (0.25, 0.15)
        for name in names
    )


def _scores() -> tuple[TableRow, ...]:
    parts: dict[str, dict[str, Any]] = {
        "full score": {},
        "no diversity": {"encoder.lambda_div": 0.0},
        "diversity with the other sign": {"encoder.lambda_div": -0.1},
        "no protection by attention": {"encoder.critical_ratio": 0.0},
        "soft attention term": {"encoder.lambda_att": 0.1},
        "keys compared": {"encoder.metric": "keys"},
        "attention not in proportion": {"encoder.proportional_attention": False},
    }
    return tuple(
        TableRow(f"{name}, to {keep:g}", "evoprune", {**changes, "encoder.keep": keep})
        for keep in (0.25, 0.15)
        for name, changes in parts.items()
    )


TABLES: dict[str, TableSpec] = {
    "presets": TableSpec(
        "Presets and random controls",
        "Each control drops at random, in the same stages and to the same counts as the preset above it.",
        _presets(),
    ),
    "budgets": TableSpec(
        "How the encoders share the budget",
        "Stage 1 alone. By the rank of the features, equally, or against the rank.",
        _budgets(),
    ),
    "fusion": TableSpec(
        "Fusion",
        "Stage 2 alone: encoders against each other, each for itself, or at random. Of one encoder: the most "
        "different tokens by what they show and when (cooperative), by what they show alone (separate), or random.",
        _fusions(),
    ),
    "llm": TableSpec(
        "Pruning inside the LLM",
        "Stage 3 alone. `fixed` and `random` keep the same share at each cut for every question, on average "
        "what the adaptive row above them was measured to keep.",
        _llm(),
    ),
    "schedules": TableSpec(
        "When EvoPrune merges",
        "EvoPrune alone; the rows differ in where the merges fall.",
        _schedules(),
    ),
    "scores": TableSpec(
        "The parts of EvoPrune's score",
        "EvoPrune alone, with one part changed at a time.",
        _scores(),
    ),
}
