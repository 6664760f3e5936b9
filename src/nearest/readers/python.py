"""Python source: the text as it is, in the encoding that it declares (PEP 263)."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from nearest.contract import Document, Reader
from nearest.readers import _decode, _values

# Not by `ast`: a file that does not parse has a docstring too.
_DOCSTRING = re.compile(r"(?:[ \t\f]*(?:#[^\n]*)?\r?\n)*+[rRuU]?(\"\"\"|'''|\"|')")


class Python(Reader):
    extensions = (".py", ".pyi", ".pyw")
    content_type = "text/x-python"

    def read(self, path: Path, document_id: str) -> Iterator[Document]:
        """One document; `title` is the first line of the module's docstring.

        Raises Unreadable, see `_decode`; a syntax error is no failure.
        """
        text = _decode.read_text(path, declared=declared)
        metadata = {"source": document_id, "language": "python", **_values.title(summary(text))}
        yield Document(document_id, text, metadata)


def declared(data: bytes) -> str | None:
    """The encoding that the first two lines declare, if it is a known one and not UTF-8."""
    try:
        name = tokenize.detect_encoding(io.BytesIO(data).readline)[0]
    except SyntaxError:
        return None
    return None if name.startswith("utf-8") else name


def summary(text: str) -> str:
    """The first line of the module's docstring, or nothing."""
    found = _DOCSTRING.match(text)
    if not found:
        return ""
    end = text.find(found[1], found.end())
    lines = text[found.end() : end].strip().splitlines() if end >= 0 else []
    return lines[0] if lines and (len(found[1]) == 3 or "\n" not in text[found.end() : end]) else ""


READER = Python
