"""reStructuredText: the text as it is written; the header's fields and the title are metadata.

No docutils: it would resolve directives (and read the files they include) only to lose the source's form.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from nearest.contract import Document, Reader
from nearest.readers import _decode, _values

# `Name: value` as in a PEP, or `:Name: value`.
_FIELD = re.compile(r":?([A-Za-z][\w -]{0,40}?):(?:[ \t]+(.*))?")
_ADORNMENT = re.compile(r"([!-/:-@\[-`{-~])\1+")
_HEADER = 200  # lines


class RestructuredText(Reader):
    extensions = (".rst", ".rest")

    def read(self, path: Path, document_id: str) -> Iterator[Document]:
        """One document; `title` is that of the header, else the first section's.

        Raises Unreadable, see `_decode`.
        """
        text = _decode.read_text(path)
        yield Document(document_id, text, {"source": document_id, **_values.title(section(text)), **header(text)})


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


def section(text: str) -> str:
    """The first section's title: a line with a row of punctuation under it."""
    lines = text.splitlines()
    for over, line, under in zip(["", *lines], lines, lines[1:], strict=False):
        title, row = line.strip(), under.rstrip()
        if (
            title
            and _ADORNMENT.fullmatch(row)
            and not _ADORNMENT.fullmatch(title)
            and len(row) >= min(len(title), 4)
            and (line[0] not in " \t" or over.rstrip() == row)
        ):
            return title
    return ""


READER = RestructuredText
