"""Words for BM25: what stores share that count terms themselves (Robertson and Zaragoza, 2009)."""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Callable

from nearest.errors import InvalidInput

K1, B = 1.2, 0.75


class Analyzer:
    """Text to terms: words of letters and digits, lower case, without stop words, stemmed by Snowball.

    Raises InvalidInput for a language that has no Snowball stemmer. Stop words are known for English. May be used from
    several threads.
    """

    def __init__(self, language: str) -> None:
        import snowballstemmer  # type: ignore[import-untyped]

        try:
            self._stem: Callable[[str], str] = snowballstemmer.stemmer(language).stemWord
        except KeyError:
            known = ", ".join(sorted(snowballstemmer.algorithms()))
            raise InvalidInput(f"language {language!r} has no stemmer; there are {known}") from None
        self._stop = frozenset(_STOP_WORDS.get(language, "").split())
        self._stemming = threading.Lock()  # a stemmer works on one word at a time
        self._known: dict[str, str] = {}

    def terms(self, text: str) -> list[str]:
        return [self._stemmed(word) for word in _words(text.lower()) if word not in self._stop]

    def _stemmed(self, word: str) -> str:
        known = self._known.get(word)
        if known is None:
            with self._stemming:
                known = self._known[word] = self._stem(word)
        return known


def _words(text: str) -> list[str]:
    if text.isascii():
        return re.findall("[a-z0-9]+", text)
    # A combining mark belongs to the letter before it, or words of Indic scripts would fall apart.
    letters = (c if c.isalnum() or unicodedata.category(c)[0] == "M" else " " for c in text)
    return "".join(letters).split()


_STOP_WORDS = {
    "english": """
    a an the
    i me my mine myself we us our ours ourselves you your yours yourself yourselves
    he him his himself she her hers herself it its itself they them their theirs themselves
    this that these those who whom whose which what
    am is are was were be been being do does did doing done have has had having
    will would shall should can could may might must
    and or but if because as while until though than so nor
    of at by for with about against between into through during before after above below to from
    up down in out on off over under again further then once
    here there when where why how all any both each few more most other some such
    no not only own same too very just now
    s t d ll m o re ve y don ain aren couldn didn doesn hadn hasn haven isn ma mightn mustn needn
    shan shouldn wasn weren won wouldn
    """,
}
