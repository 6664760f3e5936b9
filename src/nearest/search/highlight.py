"""Where a passage speaks of the query: the words they share, by their stems, and the sentences that hold most."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Span = tuple[int, int]
"""start and end, in characters of the text."""


@dataclass(frozen=True, slots=True)
class Highlight:
    """terms: each word of the text that the query has as well. sentences: the best of those with such words, best
    first. Both are empty where they share none: the passage was found by its meaning."""

    terms: list[Span]
    sentences: list[Span]


def highlight(
    query: str,
    text: str,
    *,
    terms: Callable[[str], Sequence[str]],
    sentences: Callable[[str], Sequence[Span]],
    best: int = 2,
) -> Highlight:
    """terms: a text to its search terms, as BM25 counts them. sentences: a text to the spans of its sentences.

    A sentence's score is the sum over the query's different terms in it of 1 / how often the text has that term,
    so that a rare word counts more; ties go to the earlier.
    """
    wanted = set(terms(query))
    found = [(span, hits) for span in words(text) if (hits := wanted.intersection(terms(text[span[0] : span[1]])))]
    counts = Counter(term for _, hits in found for term in hits)
    scored: list[tuple[float, Span]] = []
    for start, end in sentences(text):
        inside = {term for (at, _), hits in found if start <= at < end for term in hits}
        if inside:
            scored.append((sum(1 / counts[term] for term in inside), (start, end)))
    scored.sort(key=lambda pair: (-pair[0], pair[1]))
    return Highlight([span for span, _ in found], [span for _, span in scored[:best]])


def words(text: str) -> list[Span]:
    """Runs of letters, digits and the marks that belong to them."""
    spans: list[Span] = []
    start: int | None = None
    for i, c in enumerate(text):
        if c.isalnum() or (not c.isascii() and unicodedata.category(c)[0] == "M"):
            start = i if start is None else start
        elif start is not None:
            spans.append((start, i))
            start = None
    if start is not None:
        spans.append((start, len(text)))
    return spans
