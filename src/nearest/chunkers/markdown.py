"""The markdown chunker: cuts at headings, and inside a section that is too long as `recursive` does.

A section that fits the size with all its subsections is one chunk. Of another, its own text is cut for itself, and so
is each subsection; a heading without a text of its own goes with the subsection after it. Headings are those of
Markdown (ATX and setext, outside of code; CommonMark 0.31), or those of the document where its reader found some:
of reStructuredText, HTML, DOCX.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tokenizers import Tokenizer

from nearest.chunkers import _cut
from nearest.contract import Document

# A line that begins a fence, a heading, or is the row under one, from the end of the line before it.
_LINE = re.compile(
    r"\n {0,3}(?:(?P<fence>`{3,}+|~{3,}+)(?P<info>[^\n]*)"
    r"|(?P<level>\#{1,6})(?:[ \t]++(?P<title>[^\n]*)|(?=\r?$))"
    r"|(?P<row>=++|-++)[ \t]*\r?$)",
    re.MULTILINE,
)
_CLOSING_MARKS = re.compile(r"(?:^|[ \t])#+[ \t]*$")
_NOT_PARAGRAPH = re.compile(r"    | {0,3}(?:\t|>|[-*+][ \t]|\||\#{1,6}[ \t]|`{3}|~{3})|[ \t]*\r?$")
_ADORNMENT = re.compile(r"\s*[!-/:-@\[-`{-~]*\s*")
_TITLE = 300  # characters kept


class Markdown(_cut.Parted):
    """size, overlap: tokens, without the model's special ones; what overlaps is of one section."""

    name = "markdown"
    indents = True

    def parts(self, document: Document) -> list[_cut.Part]:
        return _marked(document) or list(_sections(document.text))

    def is_head(self, text: str, part: _cut.Part) -> bool:
        lines = [line for line in text.splitlines() if not _ADORNMENT.fullmatch(line)]
        title = part.headings[-1] if part.headings else ""
        return not lines or (len(lines) == 1 and " ".join(lines[0].split()).strip("# ")[:_TITLE] == title.strip("# "))


def _marked(document: Document) -> list[_cut.Part]:
    """The sections that the reader found; none if it found no heading. A new page does not begin one."""
    parts = [_cut.Part(0)]
    path: tuple[str, ...] = ()
    page: int | None = None
    for mark in document.marks:
        if mark.headings != path or (mark.headings and mark.page == page):
            if mark.start == parts[-1].start:
                parts.pop()
            parts.append(_cut.Part(mark.start, mark.headings, len(mark.headings)))
        path, page = mark.headings, mark.page
    return parts if any(part.headings for part in parts) else []


def _sections(text: str) -> Iterator[_cut.Part]:
    """Those of Markdown, by the source alone; what is before the first heading is a part too."""
    path: list[tuple[int, str]] = []
    fence = ""
    yield _cut.Part(0)
    for match in _LINE.finditer("\n" + text):
        start = match.start()
        if mark := match["fence"]:
            if not fence:
                fence = "" if mark[0] == "`" and "`" in match["info"] else mark
            elif mark.startswith(fence) and not match["info"].strip():
                fence = ""
            continue
        if fence:
            continue
        if hashes := match["level"]:
            level, title = len(hashes), _CLOSING_MARKS.sub("", (match["title"] or "").rstrip())
        else:
            above = text.rfind("\n", 0, max(start - 1, 0)) + 1
            title = text[above : max(start - 1, 0)]
            if not start or _NOT_PARAGRAPH.match(title):
                continue
            level, start = 1 if match["row"][0] == "=" else 2, above
        title = " ".join(title.split())[:_TITLE]
        while path and path[-1][0] >= level:
            path.pop()
        path.append((level, title))
        yield _cut.Part(start, tuple(title for _, title in path if title), len(path))


def make(tokenizer: Tokenizer, *, size: int = _cut.DEFAULT_SIZE, overlap: int | None = None) -> Markdown:
    """overlap: an eighth of the size where it is not given.

    Raises InvalidInput unless 1 <= size and 0 <= overlap < size.
    """
    return Markdown(tokenizer, size, overlap)
