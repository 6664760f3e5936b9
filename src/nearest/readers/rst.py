"""reStructuredText: the text as it is written; the header's fields and the title are metadata.

No docutils: it would resolve directives (and read the files they include) only to lose the source's form.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from nearest.contract import Document, Reader
from nearest.readers import _decode, _values
from nearest.readers._marks import marks

# `Name: value` as in a PEP, or `:Name: value`.
_FIELD = re.compile(r":?([A-Za-z][\w -]{0,40}?):(?:[ \t]+(.*))?")
_ADORNMENT = re.compile(r"([!-/:-@\[-`{-~])\1+")
# A row may be that over the next title, so it is looked at and not taken.
_UNDERLINED = re.compile(
    r"^(?:(?P<over>([!-/:-@\[-`{-~])\2+)[ \t]*\r?\n)?"
    r"(?P<title>[^\S\n]*\S[^\n]*)\n"
    r"(?=(?P<row>([!-/:-@\[-`{-~])\5+)[ \t]*\r?$)",
    re.MULTILINE,
)
_HEADER = 200  # lines


class RestructuredText(Reader):
    extensions = (".rst", ".rest")
    content_type = "text/x-rst"

    def read(self, path: Path, document_id: str) -> Iterator[Document]:
        """One document with its sections as headings; `title` is that of the header, else the first section's.

        Raises Unreadable, see `_decode`.
        """
        text = _decode.read_text(path)
        headings = list(sections(text))
        title = headings[0][2] if headings else ""
        metadata = {"source": document_id, **_values.title(title), **header(text)}
        yield Document(document_id, text, metadata, marks(headings))


def header(text: str) -> dict[str, str]:
    """The fields at the top as text, by name in lower case; none unless there are two or more."""
    fields: dict[str, str] = {}
    name = ""
    for line in text.lstrip("\n").split("\n", _HEADER)[:_HEADER]:
        line = line.rstrip()
        if not line:
            break
        if line[0] in " \t" and name:
            fields[name] = f"{fields[name]} {line.strip()}".strip()
        elif found := _FIELD.fullmatch(line):
            name = re.sub(r"[ -]+", "_", found[1].strip().lower())
            fields[name] = found[2] or ""
        else:
            return {}
    return {name: value for name, value in fields.items() if value} if len(fields) > 1 else {}


def sections(text: str) -> Iterator[tuple[int, int, str]]:
    """Offset, level and title of each section: a line with a row of punctuation under it, or over and under it.

    Levels are numbered by the first use of their punctuation, as docutils does.
    """
    levels: list[str] = []
    for found in _UNDERLINED.finditer(text):
        over, line, row = found["over"] or "", found["title"], found["row"]
        title = line.strip()
        framed = over == row
        if _ADORNMENT.fullmatch(title) or len(row) < min(len(title), 4) or (line[0] in " \t" and not framed):
            continue
        style = row[0] * (2 if framed else 1)
        if style not in levels:
            levels.append(style)
        yield found.start("over" if framed else "title"), levels.index(style) + 1, title


READER = RestructuredText
