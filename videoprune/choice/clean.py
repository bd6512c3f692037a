"""What a model said, without what its template, its reasoning and its mark-up put around it."""

from __future__ import annotations

import re

# Full-width characters, typographic quotes and dashes.
_TYPOGRAPHY = {"\u3000": " ", "\xa0": " ", "‘": "'", "’": "'", "“": '"', "”": '"', "–": " - ", "—": " - "}
_ASCII: dict[int, int | str] = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_ASCII |= {ord(char): ascii_ for char, ascii_ in _TYPOGRAPHY.items()}
_NESTED = 5  # tags or boxes in one another
_THOUGHT_ENDS = re.compile(r"[<◁]/think(?:ing)?[>▷]", re.IGNORECASE)
_THOUGHT_BEGINS = re.compile(r"[<◁]think(?:ing)?[>▷]", re.IGNORECASE)
_TOKEN = (
    r"<\|[^|<>\n]{1,40}\|>|</?s>|\[/?INST\]"
    r"|<(?:eos|bos|pad|unk|start_of_turn|end_of_turn|end_of_utterance|end_of_text)>"
)
_TOKENS = re.compile(_TOKEN)
# What a chat template writes before an answer: tokens, and the name of the role.
_TURN = re.compile(rf"\s*(?:(?:{_TOKEN})\s*|(?i:assistant|model)[ \t]*(?:(?={_TOKEN})|[:\n])\s*)*")
_TAG = re.compile(r"<(answer|final_answer)>(.*?)(?:</\1>|$)", re.IGNORECASE | re.DOTALL)
_STRAY_TAG = re.compile(r"</?(?:answer|final_answer)>", re.IGNORECASE)
_BOXED = re.compile(r"\\+f?boxe?d?\s*\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)(?:\}|$)")
_BETWEEN_BOXES = re.compile(r"[\s$,;]*(?:(?:and|or)\b)?[\s$]*")
_LATEX_FONT = re.compile(r"\\(?:text|math)(?:bf|rm|it|sf|tt)?\s*\{((?:[^{}]|\{[^{}]*\})*)(?:\}|$)")
_DOLLARS = re.compile(r"\$\s*([A-Za-z])\s*\$")
_MARKS = re.compile(r"[*`]|\\(?=[()\[\]])|(?m:^\s*(?:#+|>)\s)|(?<!\w)_+|_+(?!\w)")
_AROUND = " .,:;!\"'*()[]{}<>`。、"


def clean(text: str) -> str:
    r"""The part of `text` that answers, as plain text.

    Reasoning up to `</think>` goes (a `<think>` that is never closed leaves what comes before it), the tokens of
    chat templates go, with what a model says after the first that ends its turn. Of `<answer>...</answer>` or
    `\boxed{...}` the content is what counts, of several the last. Full-width characters, quotes and dashes
    become ASCII, marks of Markdown and LaTeX go.
    """
    text = _THOUGHT_ENDS.split(text.translate(_ASCII))[-1]
    text = _THOUGHT_BEGINS.split(text)[0]
    text = text[_TURN.match(text).end() :]  # type: ignore[union-attr]  # it matches the empty text
    text = _LATEX_FONT.sub(r"\1", _TOKENS.split(text)[0])
    for _ in range(_NESTED):
        text = _inside(text)
    return without_marks(_STRAY_TAG.sub("", text)).strip()


def without_marks(text: str) -> str:
    """`text` without the marks of Markdown, and of LaTeX around single letters."""
    return _MARKS.sub("", _DOLLARS.sub(r"\1", text))


def plain(text: str) -> str:
    """`text` for comparing: lower case, one blank between words, no marks, nothing around it."""
    return " ".join(without_marks(text.translate(_ASCII)).casefold().split()).strip(_AROUND)


def _inside(text: str) -> str:
    """The content of the last answer tag or box, or `text` where there is none."""
    if tags := _TAG.findall(text):
        return str(tags[-1][1])
    boxes = list(_BOXED.finditer(text))
    if len(boxes) > 1 and _BETWEEN_BOXES.fullmatch(text[boxes[-2].end() : boxes[-1].start()]):
        return f"{boxes[-2][1]} or {boxes[-1][1]}"
    return boxes[-1][1] if boxes else text
