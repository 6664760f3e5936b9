"""HTML as text: headings, items and rows marked as in Markdown, so that the form stays to be seen."""

from __future__ import annotations

import re
from typing import Any

# An element of lxml, which has no types of its own.
Element = Any

_SKIPPED = {
    *("script", "style", "noscript", "template", "svg", "math", "nav", "iframe", "object"),
    *("select", "button", "textarea"),
}
_LEVELS = {f"h{level}": level for level in range(1, 7)}
_BLOCKS = {
    *("p", "div", "section", "article", "main", "header", "footer", "aside", "figure", "figcaption", "blockquote"),
    *("ul", "ol", "dl", "dt", "dd", "table", "form", "fieldset", "address", "details", "summary", "hr", "caption"),
    *("list", "quote", "body", "thead", "tbody", "tfoot"),
}
_SPACES = re.compile(r"[^\S\n]+")
_LINE = re.compile(r" ?\n\s*")


class Markup:
    """The text of elements of HTML, or of the trees that trafilatura makes, one after the other.

    text: all of it. headings: offset, level and title of each.
    """

    def __init__(self) -> None:
        self.headings: list[tuple[int, int, str]] = []
        self._parts: list[str] = []
        self._length = 0
        self._before = ""
        self._kind = "p"  # of the block that is being put together
        self._inline: list[str] = []

    @property
    def text(self) -> str:
        return "".join(self._parts)

    def add(self, root: Element) -> None:
        self._walk(root)
        self._end()

    def _walk(self, element: Element) -> None:
        tag = element.tag
        if not isinstance(tag, str):  # a comment, or a processing instruction
            return
        tag = tag.rpartition("}")[2].lower()
        if tag in _SKIPPED:
            return
        if tag == "head":  # trafilatura's heading
            tag = element.get("rend") or "h2"
        if tag == "pre" or (tag == "code" and "\n" in (element.text or "".join(element.itertext()))):
            self._end()
            self._emit("pre", "".join(element.itertext()).strip("\n"))
            return
        if tag in ("br", "lb"):
            self._inline.append("\n")
            return
        kind = self._begin(tag)
        self._inline.append(_SPACES.sub(" ", (element.text or "").replace("\n", " ")))
        for child in element:
            self._walk(child)
            self._inline.append(_SPACES.sub(" ", (child.tail or "").replace("\n", " ")))
        if tag in ("td", "th", "cell"):
            self._inline.append(" | ")
        elif kind:
            self._end()

    def _begin(self, tag: str) -> str:
        """The kind of block that an element is, if it is one."""
        if tag in _LEVELS:
            kind = tag
        elif tag in ("li", "item"):
            kind = "item"
        elif tag in ("tr", "row"):
            kind = "row"
        elif tag in _BLOCKS:
            kind = "p"
            # What is in an item, a heading or a row is a part of it.
            if (self._kind != "p" and not "".join(self._inline).strip()) or self._kind == "row":
                return ""
        else:
            return ""
        self._end()
        self._kind = kind
        return kind

    def _end(self) -> None:
        text = _LINE.sub("\n", _SPACES.sub(" ", "".join(self._inline))).strip()
        kind, self._inline, self._kind = self._kind, [], "p"
        if kind == "row":
            text = " ".join(text.split()).removesuffix("|").strip()
        if text.strip(" |"):
            self._emit(kind, text)

    def _emit(self, kind: str, text: str) -> None:
        if not text.strip():
            return
        if self._parts:
            self._append("\n" if kind == self._before in ("item", "row") else "\n\n")
        if kind in _LEVELS:
            text = " ".join(text.split())
            self.headings.append((self._length, _LEVELS[kind], text))
            text = f"{'#' * _LEVELS[kind]} {text}"
        elif kind == "item":
            text = f"- {text}"
        self._append(text)
        self._before = kind

    def _append(self, text: str) -> None:
        self._parts.append(text)
        self._length += len(text)

    def page_break(self) -> None:
        """A blank line; what comes is another part of the source."""
        self._before = ""
