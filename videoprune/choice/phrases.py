"""The words that say of a letter whether it is the answer. Case does not matter but in letters themselves.

For text that `clean` has made: without typographic quotes and dashes.
"""

from __future__ import annotations

import re

_ASIAN = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
WORD = rf"[^\W{_ASIAN}]"  # a character of a word in a script that writes blanks between words
OPEN = r"[(\[{<\"'「『【《]{0,6}"
CLOSE = r"[)\]}>\"'」』】》]{0,6}"
# A letter by itself: no part of a word, of "A.M.", "B-boy", "D'Arcy", "C++".
ALONE = (
    rf"(?<!{WORD})(?<!\b[A-Za-z]\.)(?<![A-Za-z0-9][-'&])([A-Za-z])"
    rf"(?!{WORD}|[+#]|['-][A-Za-z]|\.[A-Za-z]\b)"
)
MENTION = re.compile(ALONE)
HEAD = re.compile(rf"[\W_]*?{OPEN}{ALONE}")
HEAD_OF_CLAUSE = re.compile(rf"(?:[^\w.!?;]|\.{{2,}}|…)*?{OPEN}{ALONE}")

_NOUN = r"(?:options?|choices?|letter|选项|選項)"
_BE = r"(?:is|are|was|be|would\s+be|must\s+be|should\s+be|could\s+be|has\s+to\s+be)"
_FILLER = (
    rf"(?:[\s,]*\b(?:(?:the\s+)?{_NOUN}|answer|likely|probably|most|definitely|clearly|indeed|therefore|thus|obviously|"
    r"simply|actually|either|I\s+think|I\s+believe|in\s+fact)\b)*"
)
_LINK = rf"(?:\s*\b{_BE}\b)?\s*(?:[:=]|[-=]+>|-)?"
# "answer", "the answer to the question is", "answer based on the video:".
_TO = r"(?:to|for|from|in|on|based|according|therefore|thus|then)"
_ANSWER = rf"\banswers?\b(?:\s*,?\s*{_TO}\b[^.:\n]{{0,100}}?(?=\s*\bis\b|:))?"
_CHOSEN = (
    r"\b(?:choose|chose|select|pick|opt\s+for|go\s+with|going\s+with|went\s+with|vote\s+for|lean(?:ing)?\s+"
    r"(?:to|towards?))\b"
)
_ASIAN_NOUN = r"(?:答案|(?:故|应|應|我)?[选選](?:择|擇|项|項)?|答えは|正解は|정답은?|답은?)"
_ASIAN_ANSWER = rf"{_ASIAN_NOUN}(?:应该|應該)?(?:是|为|為|选|選)?"
STRONG = re.compile(
    rf"(?:(?:{_ANSWER}|\b(?:correct|right|best|final|my)\s+(?:option|choice|letter|one)\b|{_CHOSEN}){_FILLER}"
    rf"{_LINK}{_FILLER}|{_ASIAN_ANSWER}\s*:?)",
    re.IGNORECASE,
)
WEAK = re.compile(
    rf"(?:\b(?:so|thus|hence|therefore)\b|\b(?:it|this|that)(?:'s|\s+(?:is|must\s+be|should\s+be|has\s+to\s+be))\b|\b(?:leaves|leaving|corresponds?\s+"
    rf"to|points?\s+to|matches|say|guess)\b|\bnot\s+{OPEN}[A-Za-z]{CLOSE},?\s+but\b){_FILLER}\s*:?",
    re.IGNORECASE,
)
NAMED = re.compile(rf"\b{_NOUN}\s*(?:is\b)?\s*:?\s*{OPEN}$|(?:选项|選項)\s*$", re.IGNORECASE)

# What may follow a letter that is no article: the end, punctuation, a dash, some words.
STOP = re.compile(rf"\s*$|{CLOSE}(?:$|[).\],:;!?…/|。、\n(])|[)\]}}>\"'」』】》]|\s*\n|\s+[-:=(>|&/+]|-\s")
LOWER_STOP = re.compile(rf"\s*$|{CLOSE}(?:\s*$|[).\]:!])|[)\]}}>\"']")
_REASONS = r"because|since|as|due|given|based|which|and\s+not|but\s+not"
REASON = re.compile(rf"\s+(?:{_REASONS})\b")
VERB = re.compile(
    rf"\s+(?:{_REASONS}|is|was|would|must|should|can|cannot|could|does|seems|appears|looks|and|or|nor|matches|fits|best|"
    r"correctly|describes|\w+n't)\b"
)
BLANK = re.compile(r"\s+\w")
ASIAN_NEXT = re.compile(rf"\s?[{_ASIAN}]")

_ADVERB = (
    r"(?:(?:clearly|also|definitely|obviously|just|be|simply|both|all|probably|likely|therefore|thus)\s+)*"
)
DENIED = re.compile(
    rf"{CLOSE}(?:\s*[:.,(-]?\s*(?:wrong|incorrect|false|✗|✘|❌)|\s*[:-]\s*no\b|\s+{_ADVERB}\w+n't\b|\s+cannot\b"
    r"|\s+(?:is|are|was|were|seems?|looks?|appears?|can|could|would|does|do|did|must|should|has|have|may|might)"
    rf"\s+{_ADVERB}(?:not|never|wrong|incorrect|false|inaccurate|unlikely|impossible|irrelevant|out|ruled|excluded|"
    r"eliminated|discarded|contradicted|unsupported)\b|\s*[是为為]?\s*(?:错|錯|不))",
    re.IGNORECASE,
)
_REFUSED = (
    r"(?:\bnot|n't|\bnever|\bneither|\bnor|\bexcept|\bexclud(?:e|es|ed|ing)|\beliminat(?:e|es|ed|ing)|\brul(?:e|es|ed|"
    r"ing)\s+out|\brather\s+than|\binstead\s+of|\bthan|\breject(?:s|ed|ing)?|\bdiscard(?:s|ed|ing)?|不是|不选|不選|排除)"
)
REFUSED_BEFORE = re.compile(
    rf"{_REFUSED}\s*(?:\b(?:be|is|it|the|answer|correct|say|think)\s+)*(?:{_NOUN}\s*)?{OPEN}$", re.IGNORECASE
)
NEGATED = re.compile(
    r"(?:\bnot|n't|\bnever|\bcannot|\bno|\bwithout|不)\s+(?:(?:be|the|a|to)\s+)*$", re.IGNORECASE
)
CONFIRMED = re.compile(
    rf"{CLOSE}(?:\s+(?:is|are|was|seems|looks|appears|would\s+be|must\s+be|should\s+be|has\s+to\s+be)\s+"
    r"(?:(?:to\s+be|the|a|an|my|more|most|clearly|definitely|indeed|obviously|likely|also|probably|only|therefore|thus|best)"
    r"\s+)*(?:correct|right|best|true|accurate|answer|option|choice|likely)\b|\s+(?:fits|matches|best\s+\w+s)\b|\s*是?正确|\s*是?正確)",
    re.IGNORECASE,
)

_AND = r"(?:and|or|nor|&|\+|/|和|或|与|及|以及)"
JOINED = re.compile(
    rf"{CLOSE}\s*[,;]?\s*{_AND}\s*(?:(?:also|maybe|perhaps|{_NOUN})\s+)*{OPEN}{ALONE}", re.IGNORECASE
)
LISTED = re.compile(
    rf"{CLOSE}(?:\s*[,、|]\s*|\s+|(?<=[)\]}}])(?=[(\[{{]))(?:{_NOUN}\s+)?{OPEN}{ALONE}", re.IGNORECASE
)
JOINED_BEFORE = re.compile(
    rf"(?<!{WORD})[A-Za-z]{CLOSE}\s*(?:[,、;]?\s*{_AND}|[,、])\s*(?:{_NOUN}\s+)?{OPEN}$", re.IGNORECASE
)
LABEL = re.compile(rf"(?:^|\s){OPEN}{ALONE}[).:](?=\s)")
REST_OF_LINE = re.compile(r"\W*?(?:\n|$)")
LAST = re.compile(rf"(?:^|[,:;.!?]\s+){OPEN}{ALONE}{CLOSE}[.!。]?\s*$")
