"""Sentence boundaries, by punctuation; for languages that end sentences with . ! ? and those that use 。 or ।."""

from __future__ import annotations

import re

_CITED = r"(?:\[\d+(?:\s*,\s*\d+)*\]|【\d[^】\n]*】)*"  # a citation belongs to what is before it
_END = re.compile(
    rf"(?P<mark>[.!?…؟])[\"'”’»)\]]*{_CITED}(?=\s)"
    rf"|[。！？।][”’」』）)\]]*{_CITED}"
    r"|\n\s*\n"
    r"|\n(?=\s*(?:[-*•]|\d{1,3}[.)])\s)"  # items of a list
)
_WORD_BEFORE = re.compile(r"(?:^|[\s(\[\"'“‘])([^\s(\[\"'“‘]+)$")
# After these a full stop ends nothing; initials and the like of "e.g." are met by their form.
_ABBREVIATIONS = frozenset(
    """
    approx ca cf co corp dept dr ed eds est fig figs gen gov inc jr lt ltd mr mrs ms op pp prof rep rev sec sen
    sgt sr st vol vs
    """.split()  # noqa: SIM905
)
_SHORT = re.compile(r"[A-Z]|(?:[^\W\d_]\.)+[^\W\d_]")


def spans(text: str) -> list[tuple[int, int]]:
    """(start, end) of each sentence, without the spaces around it; together they hold all that is not blank."""
    found: list[tuple[int, int]] = []
    start = 0
    for match in _END.finditer(text):
        if match["mark"] == "." and _goes_on(text, match.start(), match.end()):
            continue
        _append(found, text, start, match.end())
        start = match.end()
    _append(found, text, start, len(text))
    return found


def _goes_on(text: str, dot: int, after: int) -> bool:
    """Whether a full stop belongs to an abbreviation, or what follows is no beginning."""
    following = text[after : after + 40].lstrip()
    if following[:1].islower():
        return True
    before = _WORD_BEFORE.search(text[max(0, dot - 24) : dot])
    word = before[1] if before else ""
    return word.lower() in _ABBREVIATIONS or _SHORT.fullmatch(word) is not None


def _append(found: list[tuple[int, int]], text: str, start: int, end: int) -> None:
    piece = text[start:end]
    stripped = piece.strip()
    if stripped:
        begin = start + piece.index(stripped[0])
        found.append((begin, begin + len(stripped)))
