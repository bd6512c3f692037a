"""What is asked of a MovingShapes stream at one moment: only what was shown before it is needed, or true.

The words are those of the split `hard`, which the demo models were trained on, as far as they fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from videoprune.eval.benchmarks.moving_shapes.hard_questions import NOT_SHOWN, QUARTERS
from videoprune.eval.benchmarks.moving_shapes.questions import Question, others
from videoprune.eval.benchmarks.moving_shapes.scene import COLORS, SHAPES
from videoprune.eval.benchmarks.moving_stream.scene import APART, Stream, Visit

TITLES = {
    "now": "What is there now",
    "recent": "The last half minute",
    "recall": "A few seconds long ago",
    "recur": "How often it came",
    "order": "What came first",
    "when": "When it was there",
    "not_yet": "Not shown yet",
    "alert": "Tell me when",
}
ASKED = tuple(kind for kind in TITLES if kind != "alert")  # with options; an alert has none
SETTLED = 4  # seconds before a moment in which nothing comes or goes
RECENT, LONG_AGO = 30, 60  # seconds
_EARLIER = 10  # seconds that lie between what counts as recent and what does not
_ABSENT_SHARE = 0.25
# Elsewhere in a sentence these words mislead the demo models, which never read them.
NOW, BEFORE = "Now: ", " shown before"


@dataclass(frozen=True)
class Asked:
    """A question at `t` seconds. clues: from when to when what it rests on was shown, nothing for what was not.

    due: of an alert, when its object comes next; None: not any more, or no alert.
    """

    t: int
    question: Question
    clues: tuple[tuple[int, int], ...] = ()
    due: int | None = None


class Moment:
    """The stream as it is known at `t` seconds."""

    def __init__(self, stream: Stream, t: int) -> None:
        self.stream, self.t = stream, t
        self.past = [v for v in stream.visits if v.start < t]
        self.now = [v for v in self.past if v.end >= t]
        self.names = {v.name for v in self.past}  # shown so far
        later = [v.name for v in stream.visits if v.start >= t]
        self.coming = [n for n in dict.fromkeys(later) if n not in self.names]
        self.unseen = [*self.coming, *stream.absent]

    @property
    def settled(self) -> bool:
        """Whether what is there now is there for some seconds, and something is."""
        edges = {t for v in self.stream.visits for t in (v.start, v.end)} | set(self.stream.starts)
        return bool(self.now) and not any(self.t - SETTLED < edge <= self.t for edge in edges)

    def single(self) -> list[Visit]:
        """Visits of objects that came once, and are gone."""
        counts: dict[str, int] = {}
        for v in self.past:
            counts[v.name] = counts.get(v.name, 0) + 1
        return [v for v in self.past if counts[v.name] == 1 and v.end < self.t]

    def shown_since(self, t: int) -> set[str]:
        return {v.name for v in self.past if v.end > t}


def ask(moment: Moment, kind: str, rng: np.random.Generator) -> Asked | None:
    """A question of that kind, or None if the moment has none."""
    return _KINDS[kind](moment, rng)


def _now(m: Moment, rng: np.random.Generator) -> Asked | None:
    form = int(rng.integers(4))
    if form == 0:
        earlier = [n for n in sorted(m.names) if n not in m.shown_since(m.t - _EARLIER)]
        return _which(m, "now", f"{NOW}Which of these objects is shown?", m.now, earlier, rng)
    v = m.now[int(rng.integers(len(m.now)))]
    color, shape = v.name.split()
    there = [n.name.split() for n in m.now]
    if form == 1 and sum(s == shape for _, s in there) == 1:
        wrong = _with_not_shown(color, [c for c, _ in there], COLORS, rng)
        return _asked(m, Question("now", f"{NOW}What color is the {shape}?", color, wrong), v)
    if form == 2 and sum(c == color for c, _ in there) == 1:
        wrong = _with_not_shown(shape, [s for _, s in there], SHAPES, rng)
        return _asked(m, Question("now", f"{NOW}What shape is the {color} object?", shape, wrong), v)
    places = [v for v in m.now if v.quarter]
    return _where(m, "now", places[int(rng.integers(len(places)))], rng, front=NOW) if places else None


def _recent(m: Moment, rng: np.random.Generator) -> Asked | None:
    """Mostly about what is gone already."""
    recent = [v for v in m.past if v.end >= m.t - RECENT + 2]
    gone = [v for v in recent if v.end <= m.t - SETTLED and v.name not in {n.name for n in m.now}]
    earlier = [n for n in sorted(m.names) if n not in m.shown_since(m.t - RECENT - _EARLIER)]
    return _which(
        m,
        "recent",
        "Which of these objects is shown in the half minute before?",
        gone or recent,
        earlier,
        rng,
    )


def _recall(m: Moment, rng: np.random.Generator) -> Asked | None:
    """A needle of the first half of what was shown, a minute ago at least."""
    old = [v for v in m.single() if v.end <= min(m.t - LONG_AGO, 0.5 * m.t) and v.quarter]
    needles = [v for v in old if v.end - v.start <= 5] or old
    if not needles:
        return None
    v = needles[int(rng.integers(len(needles)))]
    if rng.random() < 0.5:
        return _where(m, "recall", v, rng, end=BEFORE)
    return _which(m, "recall", f"Which of these objects is{BEFORE}?", [v], [], rng)


def _recur(m: Moment, rng: np.random.Generator) -> Asked | None:
    """How often something came that did not come often; one time in five it did not come at all."""
    counts = {n: len([v for v in m.past if v.name == n]) for n in sorted(m.names)}
    few = {n: c for n, c in counts.items() if c <= 4}
    wanted = int(rng.integers(5))
    fitting = [n for n, c in few.items() if c == wanted] if wanted else _look_alikes(m)
    if not fitting:
        return None
    name = fitting[int(rng.integers(len(fitting)))]
    near = [str(n) for n in range(6) if n != wanted and abs(n - wanted) <= 3]
    wrong = tuple(str(n) for n in rng.permutation(near))
    question = Question("recur", f"How many times is the {name} shown?", str(wanted), wrong)
    return _asked(m, question, *[v for v in m.past if v.name == name])


def _order(m: Moment, rng: np.random.Generator) -> Asked | None:
    """Four objects that came once each, some seconds apart."""
    found: list[Visit] = []
    single = m.single()
    for i in rng.permutation(len(single)):
        if len(found) < 4 and all(abs(single[i].start - v.start) >= APART for v in found):
            found.append(single[i])
    if len(found) < 4:
        return None
    word = ("first", "last")[int(rng.integers(2))]
    ordered = sorted(found, key=lambda v: v.start, reverse=word == "last")
    wrong = tuple(str(n) for n in rng.permutation([v.name for v in ordered[1:]]))
    question = Question("order", f"Which of these objects is shown {word}?", ordered[0].name, wrong)
    return _asked(m, question, *ordered)


def _when(m: Moment, rng: np.random.Generator) -> Asked | None:
    """In which part of what was shown so far."""
    span = span_of(m.t)
    whole = [v for v in m.single() if v.start // span == (v.end - 1) // span and v.end <= m.t // span * span]
    if not whole or m.t // span < 4:
        return None
    v = whole[int(rng.integers(len(whole)))]
    parts = [minutes(i * span, (i + 1) * span) for i in range(m.t // span)]
    answer = parts[v.start // span]
    wrong = tuple(str(p) for p in rng.permutation([p for p in parts if p != answer]))
    return _asked(m, Question("when", f"When is the {v.name} shown?", answer, wrong), v)


def _not_yet(m: Moment, rng: np.random.Generator) -> Asked | None:
    """Something that comes later, or never where nothing new does."""
    names = m.coming or _look_alikes(m)
    if not names:
        return None
    name = names[int(rng.integers(len(names)))]
    wrong = tuple(str(q) for q in rng.permutation(QUARTERS))
    return _asked(m, Question("not_yet", f"Where is the {name}{BEFORE}?", NOT_SHOWN, wrong))


def _alert(m: Moment, rng: np.random.Generator) -> Asked | None:
    """Something that was not shown so far and comes later; one in four, and where nothing new does, never comes."""
    first = {v.name: v for v in reversed(m.stream.visits)}
    names = sorted(n for n in m.coming if first[n].start >= m.t + SETTLED)
    if rng.random() < _ABSENT_SHARE or not names:
        names = sorted(m.stream.absent)
    name = names[int(rng.integers(len(names)))]
    text = f"Tell me when the {name} is shown."
    came = first.get(name)
    clues = ((came.start, came.end),) if came else ()
    return Asked(m.t, Question("alert", text, name, ()), clues, came.start if came else None)


_KINDS = {
    "now": _now,
    "recent": _recent,
    "recall": _recall,
    "recur": _recur,
    "order": _order,
    "when": _when,
    "not_yet": _not_yet,
    "alert": _alert,
}


def span_of(t: int) -> int:
    """Seconds of the parts that `when` asks about: at least four fit before `t`, and few enough to tell apart."""
    return next((s for s in (600, 300, 60) if t >= 4 * s), 20)


def minutes(start: int, end: int) -> str:
    """Part of a stream as people say it: 0:40 to 1:00."""
    return f"{start // 60}:{start % 60:02d} to {end // 60}:{end % 60:02d}"


def _asked(m: Moment, question: Question, *clues: Visit) -> Asked:
    return Asked(m.t, question, tuple((v.start, min(v.end, m.t)) for v in clues))


def _which(
    m: Moment, kind: str, text: str, true: Sequence[Visit], earlier: Sequence[str], rng: np.random.Generator
) -> Asked | None:
    """One of `true` among three that were shown at another time, or have not been shown at all."""
    if not true:
        return None
    v = true[int(rng.integers(len(true)))]
    near = [str(n) for n in rng.permutation(list(earlier))][:2]
    wrong = tuple(near + [str(n) for n in rng.permutation(_look_alikes(m))])
    return _asked(m, Question(kind, text, v.name, wrong), v) if len(wrong) >= 3 else None


def _where(
    m: Moment, kind: str, v: Visit, rng: np.random.Generator, *, front: str = "", end: str = ""
) -> Asked:
    wrong = _with_not_shown(v.quarter, [], QUARTERS, rng)
    return _asked(m, Question(kind, f"{front}Where is the {v.name}{end}?", v.quarter, wrong), v)


def _look_alikes(m: Moment) -> list[str]:
    """Names that have not been shown, best of which both the colour and the shape have."""
    colors, shapes = ({n.split()[part] for n in m.names} for part in (0, 1))
    near = [n for n in m.unseen if n.split()[0] in colors and n.split()[1] in shapes]
    return sorted(near if len(near) >= 3 else m.unseen)


def _with_not_shown(
    answer: str, near: list[str], pool: Iterable[str], rng: np.random.Generator
) -> tuple[str, ...]:
    return (NOT_SHOWN, *others(answer, [n for n in dict.fromkeys(near) if n != answer], pool, rng))
