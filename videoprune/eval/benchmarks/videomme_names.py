"""The names that Video-MME groups its questions by, in the order of its tables."""

from __future__ import annotations

DURATIONS = ("short", "medium", "long")
DOMAINS: dict[str, tuple[str, ...]] = {
    "Knowledge": (
        "Humanity & History",
        "Literature & Art",
        "Biology & Medicine",
        "Finance & Commerce",
        "Astronomy",
        "Geography",
        "Law",
        "Life Tip",
        "Technology",
    ),
    "Film & Television": ("Animation", "Movie & TV Show", "Documentary", "News Report"),
    "Sports Competition": ("Esports", "Basketball", "Football", "Athletics", "Other Sports"),
    "Artistic Performance": ("Stage Play", "Magic Show", "Variety Show", "Acrobatics"),
    "Life Record": (
        "Handicraft",
        "Food",
        "Fashion",
        "Daily Life",
        "Travel",
        "Pet & Animal",
        "Exercise",
    ),
    "Multilingual": ("Multilingual",),
}
TASK_TYPES = (
    "Temporal Perception",
    "Spatial Perception",
    "Attribute Perception",
    "Action Recognition",
    "Object Recognition",
    "OCR Problems",
    "Counting Problem",
    "Temporal Reasoning",
    "Spatial Reasoning",
    "Action Reasoning",
    "Object Reasoning",
    "Information Synopsis",
)
GROUPS = (
    *DURATIONS,
    *(f"domain: {d}" for d in DOMAINS),
    *(f"sub-category: {s}" for subs in DOMAINS.values() for s in subs),
    *(f"task: {t}" for t in TASK_TYPES),
)
