"""DOCX: paragraphs, lists and tables in their order, headings by their styles."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nearest.contract import Document, Reader
from nearest.errors import Unreadable
from nearest.readers import _extra
from nearest.readers._marks import marks

REQUIRES = {"python-docx": ">=1.1,<2"}

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_HEADING = re.compile(r"heading ([1-9])", re.IGNORECASE)
_TEXT = {f"{_W}t": None, f"{_W}tab": "\t", f"{_W}br": "\n", f"{_W}cr": "\n", f"{_W}noBreakHyphen": "-"}


class Docx(Reader):
    extensions = (".docx", ".docm")
    content_type = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
    isolated = True

    def read(self, path: Path, document_id: str) -> Iterator[Document]:
        """One document; metadata: title, author, created, modified, language, as the file tells them.

        Raises Unreadable for a file that is damaged, encrypted, or without text.
        """
        with _extra.needed():
            import docx

        with _extra.archive(path):
            file: Any = docx.Document(str(path))
        levels = {style.style_id: level for style in file.styles if (level := _level(style)) is not None}
        blocks: list[str] = []
        headings: list[tuple[int, int, str]] = []
        length, before = 0, ""
        for kind, text in _blocks(file.element.body, levels):
            text = _extra.clean(text)
            if blocks:
                blocks.append("\n" if kind == before in ("item", "row") else "\n\n")
                length += len(blocks[-1])
            if isinstance(kind, int):
                headings.append((length, kind, text))
                text = f"{'#' * min(kind, 6)} {' '.join(text.split())}"
            blocks.append(f"- {text}" if kind == "item" else text)
            length += len(blocks[-1])
            before = str(kind)
        if not blocks:
            raise Unreadable("has no text")
        told = file.core_properties
        metadata = _extra.facts(
            title=told.title, author=told.author, created=told.created, modified=told.modified, language=told.language
        )
        yield Document(document_id, "".join(blocks), {"source": document_id, **metadata}, marks(headings))


def _level(style: Any) -> int | None:
    """The level of a heading's style; the title's is 1 as well."""
    name = style.name or ""
    if name.lower() == "title":
        return 1
    found = _HEADING.fullmatch(name)
    return int(found[1]) if found else None


def _blocks(parent: Any, levels: dict[str, int]) -> Iterator[tuple[str | int, str]]:
    """Kind (a heading's level, `item`, `row` or `paragraph`) and text of all that is not blank."""
    for element in parent:
        if element.tag == f"{_W}p":
            text = _text(element).strip()
            if text:
                yield _kind(element, levels), text
        elif element.tag == f"{_W}tbl":
            for row in _outermost(element, f"{_W}tr"):
                cells = [" ".join(_text(cell).split()) for cell in _outermost(row, f"{_W}tc")]
                if any(cells):
                    yield "row", " | ".join(cells)
        elif element.tag in (f"{_W}sdt", f"{_W}sdtContent", f"{_W}ins", f"{_W}customXml"):
            yield from _blocks(element, levels)


def _outermost(parent: Any, tag: str) -> Iterator[Any]:
    """The rows of a table or the cells of a row, but not those of a table in a cell: they are the cell's text."""
    for element in parent:
        if element.tag == tag:
            yield element
        else:  # a content control or the like around some of them
            yield from _outermost(element, tag)


def _kind(paragraph: Any, levels: dict[str, int]) -> str | int:
    properties = paragraph.find(f"{_W}pPr")
    if properties is None:
        return "paragraph"
    style = properties.find(f"{_W}pStyle")
    name = "" if style is None else style.get(f"{_W}val", "")
    if name in levels:
        return levels[name]
    return "item" if properties.find(f"{_W}numPr") is not None or name.startswith("List") else "paragraph"


def _text(element: Any) -> str:
    parts: list[str] = []
    for part in element.iter(*_TEXT, f"{_W}p"):
        if part.tag == f"{_W}p":
            parts.append("\n" if parts else "")
        else:
            parts.append(_TEXT[part.tag] or part.text or "")
    return "".join(parts)


READER = Docx
