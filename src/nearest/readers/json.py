"""JSON: a document an object of a list, or one of the whole file.

An object with a text (`text`, `content` or `body`) is read as a line of JSONL is; any other as lines `path: value`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nearest.contract import Document, Failure, Reader
from nearest.errors import Unreadable
from nearest.readers import _decode, _values


class Json(Reader):
    extensions = (".json",)
    content_type = "application/json"
    isolated = True

    def read(self, path: Path, document_id: str) -> Iterator[Document | Failure]:
        """The documents; a bad one in a list is a Failure, under its id or `document_id#number`.

        Raises Unreadable, see `_decode`, and for what is no JSON or holds nothing.
        """
        text = _decode.read_text(path)
        try:
            value = json.loads(text, parse_constant=_values.refuse)
        except ValueError as error:
            raise Unreadable(f"is not JSON: {error}") from None
        del text
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            for number, item in enumerate(value, 1):
                yield _document(item, document_id, number)
            return
        if isinstance(value, dict) and _values.first(value, _values.TEXT_NAMES):
            yield _document(value, document_id, 1)
            return
        lines = "\n".join(_lines(value))
        if not lines:
            raise Unreadable("holds no values")
        yield Document(document_id, lines, {"source": document_id})


def _document(row: dict[str, Any], source: str, number: int) -> Document | Failure:
    name = _values.first(row, _values.TEXT_NAMES)
    if name is not None:
        return _values.document(row, name, source, number, unit="item")
    names = {key: row[key] for key in _values.ID_NAMES if key in row}
    return _values.document({**names, "text": "\n".join(_lines(row))}, "text", source, number, unit="item")


def _lines(value: Any, at: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _lines(item, f"{at}.{key}" if at else key)
    elif isinstance(value, list):
        for item in value:
            yield from _lines(item, at)
    elif value is not None and value != "":
        shown = value if isinstance(value, str) else json.dumps(value)
        yield f"{at}: {shown}" if at else shown


READER = Json
