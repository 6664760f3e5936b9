"""Markdown: the text as it is written, since models and people read it well; front matter is metadata."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from nearest.contract import Document, Reader
from nearest.readers import _decode, _values
from nearest.readers._marks import marks

_FRONT = re.compile(r"---[ \t]*\r?\n((?:.*\n){0,200}?)(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)")
_FIELD = re.compile(r"([A-Za-z_][\w-]*):(?:[ \t]+(.*))?")
_QUOTED = re.compile(r"'((?:[^']|'')*)'|\"([^\"\\]*)\"")
_NOT_PLAIN = re.compile(r"[\[\]{}>|*&!%@`,?\"'-]|.*(?:: | #|:$)")
_WORDS = {"true": True, "false": False, "null": None, "~": None}

_FENCE = re.compile(r" {0,3}(```+|~~~+)")
_ATX = re.compile(r" {0,3}#{1,6}[ \t]+(?=[^\s#])")
_PARAGRAPH = re.compile(r"(?!    |[\t>*|-]).*\S")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*")


class Markdown(Reader):
    extensions = (".md", ".markdown", ".mdown", ".mdx")
    content_type = "text/markdown"

    def read(self, path: Path, document_id: str) -> Iterator[Document]:
        """One document with its headings; `title` is that of the front matter, else the first heading.

        Raises Unreadable, see `_decode`.
        """
        text = _decode.read_text(path)
        front, body = front_matter(text)
        found = list(headings(body))
        title = found[0][2] if found else ""
        metadata = {"source": document_id, **_values.title(title), **front}
        yield Document(document_id, body, metadata, marks(found))


def front_matter(text: str) -> tuple[dict[str, str | int | float | bool | None], str]:
    """The fields between `---` lines at the top, and the text after them.

    Only where each is plainly `name: value`: YAML's lists, blocks and references need YAML, and stay text.
    """
    found = _FRONT.match(text)
    if not found:
        return {}, text
    fields: dict[str, str | int | float | bool | None] = {}
    for line in found[1].splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        field = _FIELD.fullmatch(line.rstrip())
        if not field or field[1] in fields:
            return {}, text
        value = (field[2] or "").strip()
        if quoted := _QUOTED.fullmatch(value):
            fields[field[1]] = quoted[1].replace("''", "'") if quoted[1] is not None else quoted[2]
        elif _NOT_PLAIN.match(value) and not isinstance(_values.scalar(value), int | float):
            return {}, text
        else:
            fields[field[1]] = _WORDS[value.lower()] if value.lower() in _WORDS else _values.scalar(value)
    body = text[found.end() :]
    return (fields, body) if fields and body.strip() else ({}, text)


def headings(text: str) -> Iterator[tuple[int, int, str]]:
    """Offset, level and title of the headings outside of code."""
    fence, before = "", ""
    skipped = _FRONT.match(text)
    at = skipped.end() if skipped else 0
    above = at  # where the line before began
    for whole in text[at:].splitlines(keepends=True):
        line = whole.rstrip("\r\n\v\f\x1c\x1d\x1e\x85\u2028\u2029")
        if found := _FENCE.match(line):
            if not fence:
                fence = found[1]
            elif found[1].startswith(fence) and not line.strip(" `~"):
                fence = ""
        elif not fence:
            if atx := _ATX.match(line):
                marked = line[atx.end() :].rstrip()
                plain = marked.rstrip("#")
                yield at, line[: atx.end()].count("#"), plain if plain[-1:] in (" ", "\t") else marked
            elif (row := _UNDERLINE.fullmatch(line)) and _PARAGRAPH.match(before):
                yield above, 1 if row[1][0] == "=" else 2, before
        before = "" if fence else line
        above = at
        at += len(whole)


READER = Markdown
