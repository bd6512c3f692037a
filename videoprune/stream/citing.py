"""Which seconds of a stream an answer rests on."""

from __future__ import annotations

from collections.abc import Sequence

MOST = 5  # spans
_SHARE = 0.5  # of the tokens that the question kept

Span = tuple[float, float]


def cited_spans(steps: Sequence[Span], tokens: Sequence[int], *, most: int = MOST) -> tuple[Span, ...]:
    """Spans in seconds, the strongest first: the fewest time steps that have half of the tokens, neighbours joined.

    steps: first and last second of each, ascending. tokens: of each, those that reached the LLM's last layer.
    """
    wanted, chosen = _SHARE * sum(tokens), set[int]()
    for i in sorted(range(len(steps)), key=lambda i: (-tokens[i], -i)):
        if wanted <= 0 or not tokens[i]:
            break
        chosen.add(i)
        wanted -= tokens[i]
    runs: list[list[int]] = []
    for i in sorted(chosen):
        if runs and runs[-1][-1] == i - 1:
            runs[-1].append(i)
        else:
            runs.append([i])
    runs.sort(key=lambda run: -sum(tokens[i] for i in run))
    return tuple((steps[run[0]][0], steps[run[-1]][1]) for run in runs[:most])
