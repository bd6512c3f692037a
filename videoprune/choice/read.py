"""Reads from an answer the letter that it names for certain."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from string import ascii_uppercase

from videoprune.choice import phrases
from videoprune.choice.clean import clean, plain

_WHOLE = re.compile(r"[\W_]*([A-Za-z])[\W_]*")
_NEAR = 80  # characters before a letter in which a "not" or an "or" of its own stands


def parse_choice(text: str, num_options: int, options: Sequence[str] = ()) -> str:
    """The letter that `text` chooses, or "" if it chooses none, or none for certain.

    Read is what `clean` leaves of the text, in this order: it is a letter ("B", " b.", "(B)", "**B**"); it says
    which is the answer ("The answer is B", "I choose B", "option b is correct"; of several the last); it starts
    with a letter ("B. red", "B) red", "B - red", "B" alone on the first line; "B red" if that is option B); it
    concludes ("so (B)"); it ends with a letter alone; it has a letter in brackets or after "option", and no
    other. A letter that is denied ("A is wrong", "not B") is no choice; nor are two ("A or B", "both A and B"),
    nor an article ("A man walks", unless option A is "man walks"), nor the pronoun "I".
    A letter that is out of range, or none: the text, its first line or what follows "answer is" equals exactly
    one of `options`, which hold no letters.
    Raises ValueError unless 2 <= num_options <= 26, and `options` is empty or has that many.
    """
    if not 2 <= num_options <= len(ascii_uppercase):
        raise ValueError(f"num_options={num_options}; allowed: 2 to {len(ascii_uppercase)}")
    if options and len(options) != num_options:
        raise ValueError(f"options has {len(options)} entries; allowed: none, or num_options={num_options}")
    return _Reader(clean(text), ascii_uppercase[:num_options], [plain(o) for o in options]).choice()


class _Reader:
    """Its methods give a letter, "" for a choice that is not certain, None where they find none."""

    def __init__(self, text: str, letters: str, options: Sequence[str]) -> None:
        self.text, self.letters, self.options = text, letters, options
        self.longest = 2 * max(map(len, options), default=0) + _NEAR

    def choice(self) -> str:
        steps = (self._whole, self._stated, self._leading, self._concluded, self._last, self._marked)
        found = next((found for step in steps if (found := step()) is not None), None)
        return found or self._by_text() or ""

    def _whole(self) -> str | None:
        found = _WHOLE.fullmatch(self.text)
        return found[1].upper() if found and found[1].upper() in self.letters else None

    def _stated(self) -> str | None:
        """What the last sentence says that calls a letter the answer, before it or behind it."""
        found = [*self._after(phrases.STRONG), *self._confirmed()]
        return max(found)[1] if found else None

    def _confirmed(self) -> Iterator[tuple[int, str]]:
        for mention, letter in self._mentions():
            ends = (mention.end(), self._behind(letter, mention.end()))
            if any(phrases.CONFIRMED.match(self.text, end) for end in ends):
                joined = self._before(phrases.JOINED_BEFORE, mention.start(1))
                yield mention.start(), "" if joined else letter

    def _leading(self) -> str | None:
        labels = [f for f in phrases.LABEL.finditer(self.text) if not self._denied(f)]
        if [f[1].upper() for f in labels[:2]] == ["A", "B"]:  # the options again, one after the other
            return None
        found = self._at(0)
        return "" if found and any(f[1].upper() != found and self._is_line(f) for f in labels) else found

    def _is_line(self, label: re.Match[str]) -> bool:
        """Whether a line holds nothing but the label and the text of its option."""
        end = self._behind(label[1], label.end(1))
        return end > label.end(1) and bool(phrases.REST_OF_LINE.match(self.text, end))

    def _concluded(self) -> str | None:
        found = list(self._after(phrases.WEAK, strong=False))
        return max(found)[1] if found else None

    def _last(self) -> str | None:
        """A letter alone at the end, or a last line such as "B. blue" if no other line has such a letter."""
        found = phrases.LAST.search(self.text)
        if found and found[1] in self.letters and not self._denied(found):
            return "" if self._before(phrases.JOINED_BEFORE, found.start(1)) else found[1]
        start = self.text.rfind("\n") + 1
        labels = {f[1] for f in phrases.LABEL.finditer(self.text) if not self._denied(f)}
        return self._at(start) if start and len(labels) == 1 else None

    def _marked(self) -> str | None:
        found = set()
        for mention, letter in self._mentions():
            around = self.text[max(0, mention.start(1) - 1) : mention.end() + 1]
            if f"{around[:1]}{around[-1:]}" in ("()", "[]", "{}") or self._before(
                phrases.NAMED, mention.start(1)
            ):
                found.add("" if self._joined(letter, mention.end()) else letter)
        return (found.pop() if len(found) == 1 else "") if found else None

    def _after(self, phrase: re.Pattern[str], strong: bool = True) -> Iterator[tuple[int, str]]:
        """Places of a phrase and the letter that follows each."""
        for found in phrase.finditer(self.text):
            if self._before(phrases.NEGATED, found.start()):
                continue
            letter = self._at(found.end(), strong=strong)
            if not letter and strong:  # two letters may be an option: "A and B"
                said = self._by_text(self.text[found.end() : found.end() + self.longest])
                letter = letter if said is None else said
            if letter is not None:
                yield found.end(), letter

    def _at(self, start: int, *, strong: bool = False) -> str | None:
        """The letter that stands at a place of the text."""
        head = phrases.HEAD_OF_CLAUSE if start else phrases.HEAD
        found = head.match(self.text, start)
        if found is None or found[1].upper() not in self.letters or not self._names(found, strong=strong):
            return None
        if self._denied(found):
            return None
        return "" if self._joined(found[1], found.end()) else found[1].upper()

    def _names(self, found: re.Match[str], *, strong: bool = False, mention: bool = False) -> bool:
        """Whether a letter by itself stands for an option: it is no article, and no word of one letter.

        strong: it is said to be the answer. mention: it may go on as a sentence about the option, "A is ...".
        """
        letter, end = found[1], found.end()
        if self._behind(letter, end) > end:
            return True
        if letter.islower():
            return bool(phrases.LOWER_STOP.match(self.text, end))
        if phrases.STOP.match(self.text, end) or phrases.ASIAN_NEXT.match(self.text, end):
            return True
        if letter == "I":
            return False
        more = phrases.VERB if strong or mention else phrases.REASON
        return bool(more.match(self.text, end)) or (strong and letter != "A")

    def _mentions(self) -> Iterator[tuple[re.Match[str], str]]:
        """Letters that stand for options and are not denied."""
        for found in phrases.MENTION.finditer(self.text):
            letter = found[1].upper()
            named = self._names(found, mention=True) or self._before(phrases.NAMED, found.start(1))
            if letter in self.letters and named and not self._denied(found):
                yield found, letter

    def _denied(self, found: re.Match[str]) -> bool:
        end, start = found.end(1), found.start(1)
        behind = self._behind(found[1], end)
        return any(phrases.DENIED.match(self.text, place) for place in (end, behind)) or self._before(
            phrases.REFUSED_BEFORE, start
        )

    def _before(self, phrase: re.Pattern[str], place: int) -> bool:
        """Whether a phrase ends at a place of the text."""
        return bool(phrase.search(self.text, max(0, place - _NEAR), place))

    def _joined(self, letter: str, end: int) -> bool:
        """Whether another letter stands beside the one that ends at `end`, as in "A or B"."""
        for place in {end, self._behind(letter, end)}:
            other = phrases.JOINED.match(self.text, place)
            listed = phrases.LISTED.match(self.text, place)
            if listed and not (listed[1].isupper() and phrases.STOP.match(self.text, listed.end())):
                listed = None
            for found in (other, listed):
                if (
                    found
                    and found[1].upper() != letter.upper()
                    and self._names(found, mention=True)
                    and not self._denied(found)
                ):
                    return True
        return False

    def _behind(self, letter: str, end: int) -> int:
        """Where the text of the letter's option ends, if it follows the letter; else `end`.

        Behind "A" without a mark the option must end the clause: "A red ball" does not name an option "red".
        """
        place = ascii_uppercase.index(letter.upper())
        option = self.options[place] if place < len(self.options) else ""
        if not option:
            return end
        words = r"\s+".join(map(re.escape, option.split()))
        loose = letter.islower() or letter == "A"
        close = r"(?=\W*(?:$|\n)|[.,;:!?)])" if loose and phrases.BLANK.match(self.text, end) else r"(?!\w)"
        marks = r"[\s.:)\]}(-]+[\"']?"
        found = re.compile(marks + words + close + r"[\"')]*", re.IGNORECASE).match(self.text, end)
        return found.end() if found else end

    def _by_text(self, text: str | None = None) -> str | None:
        """The letter of the one option that equals the text, or its first line where no other line is one."""
        text = self.text if text is None else text
        lines = [line for line in (plain(t) for t in text.strip().split("\n")) if line]
        whole = self._equal({plain(text)})
        if whole is None and lines and self._equal({lines[0]}):
            whole = self._equal(set(lines))
        return whole

    def _equal(self, said: set[str]) -> str | None:
        same = [i for i, option in enumerate(self.options) if option and option in said]
        return (ascii_uppercase[same[0]] if len(same) == 1 else "") if same else None
