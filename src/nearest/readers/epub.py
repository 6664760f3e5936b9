"""EPUB: the chapters in reading order, as the HTML that they are. By the format's own files, without a library."""

from __future__ import annotations

import posixpath
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from nearest.contract import Document, Reader
from nearest.errors import Unreadable
from nearest.readers import _decode, _extra, html
from nearest.readers._marks import marks
from nearest.readers._markup import Markup

REQUIRES = {"defusedxml": ">=0.7,<1", "lxml": ">=6,<7"}

_CONTAINER = "META-INF/container.xml"


class Epub(Reader):
    extensions = (".epub",)
    content_type = "application/epub+zip"
    isolated = True

    def read(self, path: Path, document_id: str) -> Iterator[Document]:
        """One document; metadata: title, author, created, language. Raises Unreadable for a file that is damaged."""
        with _extra.archive(path) as book:
            if "META-INF/encryption.xml" in book.namelist() and "META-INF/rights.xml" in book.namelist():
                raise Unreadable("is protected (DRM); only its reading program can open it")
            container = _xml(book, _CONTAINER)
            place = next((e.get("full-path") for e in container.iter() if _tag(e) == "rootfile"), None)
            if not place:
                raise Unreadable("is damaged: it names no package")
            package = _xml(book, place)
            markup = Markup()
            for name in _spine(package, posixpath.dirname(place)):
                try:
                    data = book.read(name)
                except KeyError:
                    continue  # a chapter that is listed and missing
                if data.strip():
                    body = html.parse(_decode.decode(data, html.declared(data))).find(".//body")
                    if body is not None:
                        markup.add(body)
        text = _extra.clean(markup.text)
        if not text.strip():
            raise Unreadable("has no text")
        told: dict[str, list[str]] = {}
        for element in package.iter():
            if element.text:
                told.setdefault(_tag(element), []).append(element.text)
        metadata = _extra.facts(
            title=told.get("title", [""])[0],
            author=", ".join(told.get("creator", [])),
            created=told.get("date", [""])[0],
            language=told.get("language", [""])[0],
        )
        yield Document(document_id, text, {"source": document_id, **metadata}, marks(markup.headings))


def _xml(book: zipfile.ZipFile, name: str) -> Any:
    with _extra.needed():
        from defusedxml import DefusedXmlException  # type: ignore[import-untyped]
        from defusedxml.ElementTree import ParseError, fromstring  # type: ignore[import-untyped]

    try:
        return fromstring(book.read(name))
    except KeyError:
        raise Unreadable(f"is no EPUB: it has no {name}") from None
    except (ParseError, DefusedXmlException) as error:
        raise Unreadable(f"is damaged: {name}: {error}") from None


def _tag(element: Any) -> str:
    return str(element.tag).rpartition("}")[2]


def _spine(package: Any, folder: str) -> Iterator[str]:
    """Names of the chapters' files, in reading order."""
    files = {e.get("id"): e.get("href") for e in package.iter() if _tag(e) == "item" and e.get("href")}
    for element in package.iter():
        if _tag(element) == "itemref" and (place := files.get(element.get("idref"))):
            yield posixpath.normpath(posixpath.join(folder, unquote(place)))


READER = Epub
