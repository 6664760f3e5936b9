"""Plain text, and files without an extension (README, Makefile), which are text unless they look binary."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nearest.contract import Document, Reader
from nearest.readers import _decode


class Text(Reader):
    extensions = (
        "",
        *(".txt", ".text", ".log", ".org", ".adoc", ".tex"),
        *(".cfg", ".conf", ".ini", ".toml", ".yaml", ".yml"),
    )

    def read(self, path: Path, document_id: str) -> Iterator[Document]:
        """One document, the text as it is; raises Unreadable, see `_decode`."""
        yield Document(document_id, _decode.read_text(path), {"source": document_id})


READER = Text
