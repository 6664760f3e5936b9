"""PPTX: the text of each slide and its notes. A slide is a page, its title a heading; a form feed parts them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nearest.contract import Document, Reader
from nearest.errors import Unreadable
from nearest.readers import _extra
from nearest.readers._marks import PAGE_BREAK, marks

REQUIRES = {"python-pptx": ">=1,<2"}

_MAX_DEPTH = 20  # of groups in groups


class Pptx(Reader):
    extensions = (".pptx", ".pptm")
    content_type = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
    isolated = True

    def read(self, path: Path, document_id: str) -> Iterator[Document]:
        """One document; metadata: title, author, created, modified, language and pages (slides).

        Raises Unreadable for a file that is damaged, encrypted, or without text.
        """
        with _extra.needed():
            import pptx

        with _extra.archive(path):
            file: Any = pptx.Presentation(str(path))
        starts: list[int] = []
        headings: list[tuple[int, int, str]] = []
        slides: list[str] = []
        length = 0
        for slide in file.slides:
            title = slide.shapes.title
            heading = _extra.clean(" ".join(title.text_frame.text.split())) if title is not None else ""
            if heading:
                headings.append((length, 1, heading))
            blocks = [f"# {heading}"] if heading else []
            blocks += _texts([shape for shape in slide.shapes if title is None or shape.shape_id != title.shape_id], 0)
            if slide.has_notes_slide and (notes := slide.notes_slide.notes_text_frame) is not None:
                blocks += [f"Notes: {notes.text.strip()}"] if notes.text.strip() else []
            starts.append(length)
            slides.append(_extra.clean("\n\n".join(blocks)).replace(PAGE_BREAK, " "))
            length += len(slides[-1]) + len(PAGE_BREAK)
        if not any(slides):
            raise Unreadable("has no text; its slides may be images")
        told = file.core_properties
        metadata = _extra.facts(
            title=told.title, author=told.author, created=told.created, modified=told.modified, language=told.language
        )
        metadata = {"source": document_id, **metadata, "pages": len(slides)}
        yield Document(document_id, PAGE_BREAK.join(slides), metadata, marks(headings, starts))


def _texts(shapes: Any, depth: int) -> Iterator[str]:
    for shape in shapes:
        if shape.has_text_frame and (text := shape.text_frame.text.replace("\v", "\n").strip()):
            yield text
        elif getattr(shape, "has_table", False) and shape.has_table:
            rows = (" | ".join(" ".join(cell.text.split()) for cell in row.cells) for row in shape.table.rows)
            if table := "\n".join(row for row in rows if row.strip(" |")):
                yield table
        elif hasattr(shape, "shapes") and depth < _MAX_DEPTH:
            yield from _texts(shape.shapes, depth + 1)


READER = Pptx
