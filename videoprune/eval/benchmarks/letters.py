"""The rules by which the benchmarks' own tools read a letter from what a model said, their faults included.

A rule that finds nothing gives "". Each is written anew from its description; tests hold the cases.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping

# Video-MME's list lacks two commas, so these two pairs are one entry each and never match by themselves.
_VIDEO_MME_PREFIXES = (
    "The best answer is",
    "The correct answer is",
    "The answer is",
    "The answer",
    "The best option isThe correct option is",
    "Best answer:Best option:",
)
_EDGE = (",", ".", "!", "?", ";", ":", "'")
_NAMED = {
    "answer": ("the ", "", "the correct ", "correct ", "the best ", "best ", "my "),
    "option": ("the correct ", "correct ", "the best ", "best "),
    "choice": ("the ", "", "the correct ", "correct ", "my "),
}
_PHRASES = (
    *(f"{lead}{noun} is" for noun, leads in _NAMED.items() for lead in leads),
    *("i choose", "i select", "i pick"),
    *("옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは"),
)


def video_mme(text: str) -> str:
    """Video-MME's evaluation script: the first capital A to D anywhere, once its prefixes are gone.

    So "Best answer: C" is B and "A man walks" is A.
    """
    text = text.strip()
    for prefix in _VIDEO_MME_PREFIXES:
        text = text.replace(prefix, "")
    found = re.search("[ABCD]", text)
    return found[0] if found else ""


def lmms_eval(text: str, letters: str = "ABCD") -> str:
    """lmms-eval's matcher: every form a letter can be named in has a rank; the best rank wins, then the last place.

    Ranks: the text starts with it, ends with it, a phrase such as "the answer is" comes before it, (B), "B.",
    "B:", "B)", "B ", and only if nothing else is there, B anywhere.
    """
    text = text.strip()
    for char in (*_EDGE, '"'):
        text = text.strip(char)
    bare, padded = text.strip(), f" {text} "
    found: list[tuple[int, int, str]] = []  # rank, place, letter
    if not bare:
        return ""
    for form, rank in (("({})", 6), ("{}.", 5), ("{}:", 4), ("{})", 3), ("{} ", 2)):
        found += [(rank, padded.rfind(form.format(c)), c) for c in letters if form.format(c) in padded]
    for phrase in _PHRASES:
        place = padded.lower().find(phrase)
        if place >= 0:
            after = [(padded.find(c, place + len(phrase)), c) for c in letters]
            found += [(7, at, c) for at, c in after if at >= 0]
    for c in letters:
        if bare.startswith(c) and not bare[1:2].isalpha():
            found.append((10, 0, c))
        if bare.endswith(c) and not bare[-2:-1].isalpha():
            found.append((9, len(padded) - 1, c))
    found = found or [(0, padded.rfind(c), c) for c in letters if c in padded]
    return max(found, key=lambda f: f[:2])[2] if found else ""


def mmmu(text: str, options: Mapping[str, str], guess_seed: str | None = None) -> str:
    """The matcher that lmms-eval's NExT-QA task has from MMMU. options: letter to text.

    "(B)"; else "B "; else "B."; else, in more than five words, an option's text; of several the last one. With
    nothing found the tool guesses at random: so does this, from `guess_seed`; None gives "".
    """
    for char in _EDGE:
        text = text.strip(char)
    padded = f" {text} "
    candidates: list[tuple[int, str]] = []  # last place, letter
    for form, place in (("({})", "({})"), ("{} ", " {} "), ("{}.", " {} ")):
        candidates = [(padded.rfind(place.format(c)), c) for c in options if form.format(c) in padded]
        if candidates:
            break
    if not candidates and len(padded.split()) > 5:
        low = padded.lower()
        candidates = [(low.rfind(o.lower()), c) for c, o in options.items() if o.lower() in low]
    if candidates:
        return max(candidates, key=lambda c: c[0])[1]  # of equal places the first, as numpy's argmax
    return "" if guess_seed is None else random.Random(guess_seed).choice(sorted(options))


def ig_vlm(text: str, letters: str = "ABCDE") -> str:
    """IG-VLM's rule: the first character, unless "A:" or "A)" (then B ...) is found after "answer is"."""
    chosen = text[:1] if text[:1] and text[:1] in letters else ""
    if "answer is " in text:
        text = text[text.index("answer is") :]
    return next((c for c in letters if f"{c}:" in text or f"{c})" in text), chosen)
