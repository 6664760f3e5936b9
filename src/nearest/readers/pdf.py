"""PDF: the text by page, with the outline as headings. Pages are parted by a form feed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearest.contract import Document, Reader
from nearest.errors import Unreadable
from nearest.readers import _extra
from nearest.readers._marks import PAGE_BREAK, marks

if TYPE_CHECKING:
    from pypdf import PdfReader

REQUIRES = {"pypdf[crypto]": ">=7,<8"}

MAX_PAGES = 20_000
_MAX_ENTRIES = 20_000  # of an outline


class Pdf(Reader):
    extensions = (".pdf",)
    content_type = "application/pdf"
    isolated = True

    def read(self, path: Path, document_id: str) -> Iterator[Document]:
        """One document; metadata: title, author, created, modified, language and pages, as the file tells them.

        Raises Unreadable for a file that is damaged, that no password opens, or that holds images only.
        """
        with _extra.needed():
            from pypdf import PdfReader
            from pypdf.errors import PyPdfError

        _extra.check_size(path)
        try:
            pdf = PdfReader(path)
            if pdf.is_encrypted:
                self._decrypt(pdf)
            if len(pdf.pages) > MAX_PAGES:
                raise Unreadable(f"has {len(pdf.pages):,} pages, over {MAX_PAGES:,}; split it")
            # A font without names for its glyphs gives control characters, the page break among them.
            pages = [_extra.clean(page.extract_text()).replace(PAGE_BREAK, " ").rstrip() for page in pdf.pages]
        except PyPdfError as error:
            raise Unreadable(f"is damaged: {error}") from None
        if not any(pages):
            images = any(_has_image(page) for page in pdf.pages[:20])
            hint = "its pages are images; run OCR over it first (ocrmypdf, say)" if images else "its pages are blank"
            raise Unreadable(f"has no text: {hint}")
        starts = [0]
        for page in pages[:-1]:
            starts.append(starts[-1] + len(page) + len(PAGE_BREAK))
        headings: list[tuple[int, int, str]] = []
        with suppress(PyPdfError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            headings = _headings(pdf, pages, starts)
        yield Document(
            document_id,
            PAGE_BREAK.join(pages),
            {"source": document_id, **_metadata(pdf), "pages": len(pages)},
            marks(headings, starts),
        )

    def _decrypt(self, pdf: PdfReader) -> None:
        from pypdf.errors import DependencyError

        try:
            if any(pdf.decrypt(password) for password in ("", *self.passwords)):
                return
        except DependencyError:
            with _extra.needed():
                raise ImportError(name="cryptography") from None
        tried = f"none of the {len(self.passwords)} passwords opens it" if self.passwords else "give its password"
        raise Unreadable(f"is encrypted; {tried} (--passwords FILE, or passwords=[...])")


def _headings(pdf: PdfReader, pages: list[str], starts: list[int]) -> list[tuple[int, int, str]]:
    """The entries of the outline, each where its title stands on its page, or at the page's start."""
    found: list[tuple[int, int, str]] = []

    def visit(entries: list[Any], level: int) -> None:
        for entry in entries:
            if len(found) >= _MAX_ENTRIES:
                return
            if isinstance(entry, list):
                visit(entry, level + 1)
                continue
            number = pdf.get_destination_page_number(entry)
            title = _extra.clean(str(entry.title or ""))
            if number is not None and 0 <= number < len(pages):
                at = max(pages[number].find(title), 0)
                found.append((starts[number] + at, level, title))

    visit(pdf.outline, 1)
    return sorted(found, key=lambda heading: heading[0])


def _metadata(pdf: PdfReader) -> dict[str, Any]:
    """What the file tells of itself; what is damaged in it is left out."""
    told: dict[str, str | datetime | None] = {}
    for name, attribute in (
        ("title", "title"),
        ("author", "author"),
        ("created", "creation_date"),
        ("modified", "modification_date"),
    ):
        with suppress(Exception):
            told[name] = getattr(pdf.metadata, attribute)
    with suppress(Exception):  # PDF 2.0 has these in XMP alone
        more = pdf.xmp_metadata
        if more is not None:
            titles = more.dc_title or {}
            told["title"] = told.get("title") or titles.get("x-default") or next(iter(titles.values()), None)
            told["author"] = told.get("author") or ", ".join(filter(None, more.dc_creator or []))
    with suppress(Exception):
        language = pdf.root_object.get("/Lang")
        told["language"] = None if language is None else str(language)
    return _extra.facts(**told)


def _has_image(page: Any) -> bool:
    with suppress(Exception):
        return bool(list(page.images.keys()))
    return False


READER = Pdf
