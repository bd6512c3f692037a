"""How long something takes, for people."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """ "4.2 s", "12 min", "3 h 20 min"."""
    if seconds < 99.5:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60:,} h {minutes % 60:02} min"
