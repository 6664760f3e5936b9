"""JSONL: one document a line, in BEIR's form (`_id`, `title`, `text`, `metadata`) or plain (`id`, `text`, …)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from nearest.contract import Document, Failure, Reader
from nearest.readers import _decode, _values


class Jsonl(Reader):
    extensions = (".jsonl", ".ndjson")
    content_type = "application/x-ndjson"

    def read(self, path: Path, document_id: str) -> Iterator[Document | Failure]:
        """The documents of the lines, see `_values.document`; a bad line is a Failure, a blank one nothing.

        Raises Unreadable, see `_decode`.
        """
        for number, line in enumerate(_decode.read_lines(path), 1):
            at = f"{document_id}#{number}"
            if line is None:
                yield Failure(at, f"line {number}: is over {_decode.MAX_LINE >> 20} million characters")
                continue
            if line.isspace():
                continue
            try:
                row = json.loads(line, parse_constant=_values.refuse)
            except RecursionError:
                yield Failure(at, f"line {number}: is nested too deeply")
                continue
            except ValueError as error:
                yield Failure(at, f"line {number}: not JSON ({error})")
                continue
            if not isinstance(row, dict):
                yield Failure(at, f"line {number}: is {type(row).__name__}, not an object")
                continue
            name = _values.first(row, _values.TEXT_NAMES) or _values.TEXT_NAMES[0]
            yield _values.document(row, name, document_id, number)


READER = Jsonl
