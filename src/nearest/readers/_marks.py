"""Marks of a document from where its pages and sections begin."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from operator import itemgetter

from nearest.contract import Mark

PAGE_BREAK = "\f"  # between the pages of a text, as printers and pdftotext have it
_TITLE = 300
_DEPTH = 10


def marks(headings: Iterable[tuple[int, int, str]] = (), pages: Iterable[int] = ()) -> tuple[Mark, ...]:
    """headings: offset, level (1 is the outermost) and title of each, by offset. pages: the offset of each page.

    A section ends where one of its own level or of one further out begins.
    """
    numbered: Iterable[tuple[int, int, str | None]] = ((start, number, None) for number, start in enumerate(pages, 1))
    path: list[tuple[int, str]] = []
    page: int | None = None
    made: dict[int, Mark] = {}
    for start, number, title in heapq.merge(numbered, headings, key=itemgetter(0)):
        if title is None:
            page = number
        elif words := " ".join(title.split())[:_TITLE]:
            while path and path[-1][0] >= number:
                path.pop()
            path = [*path[: _DEPTH - 1], (number, words)]
        made[start] = Mark(start, page, tuple(words for _, words in path))
    return tuple(made.values())
