"""The page chunker: no chunk crosses the end of a page; a page that is longer than the size is cut as `recursive` does.

Pages are those of the document (a PDF's, a presentation's slides); in a text that knows none, form feeds part them.
"""

from __future__ import annotations

import re
from itertools import pairwise

from tokenizers import Tokenizer

from nearest.chunkers import _cut
from nearest.contract import Document

_FORM_FEED = re.compile("\f")


class Page(_cut.Parted):
    """size, overlap: tokens, without the model's special ones; what overlaps is of one page."""

    name = "page"

    def parts(self, document: Document) -> list[_cut.Part]:
        known = [mark for mark in document.marks if mark.page is not None]
        turned = [b.start for a, b in pairwise(known) if a.page != b.page]
        starts = turned if known else [match.end() for match in _FORM_FEED.finditer(document.text)]
        return [_cut.Part(0), *(_cut.Part(start) for start in starts if 0 < start < len(document.text))]


def make(tokenizer: Tokenizer, *, size: int = _cut.DEFAULT_SIZE, overlap: int | None = None) -> Page:
    """overlap: an eighth of the size where it is not given.

    Raises InvalidInput unless 1 <= size and 0 <= overlap < size.
    """
    return Page(tokenizer, size, overlap)
