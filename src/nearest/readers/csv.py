"""CSV and TSV: one document a row, its columns named by the first row."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path

from nearest.contract import Document, Failure, Reader
from nearest.errors import Unreadable
from nearest.readers import _decode, _values

_DELIMITERS = ",\t;|"
_SAMPLE_LINES = 50
_KNOWN = {*_values.ID_NAMES, *_values.TEXT_NAMES, "title"}


class Csv(Reader):
    extensions = (".csv", ".tsv")
    content_type = "text/csv"

    def read(self, path: Path, document_id: str) -> Iterator[Document | Failure]:
        """The documents of the rows; a bad row is a Failure, a blank one nothing.

        The text is the column `text`, `content` or `body`, else the only one that holds more than numbers, else all
        of those as lines `name: value`, which are metadata too; the id `_id` or `id`; the others are metadata, with
        plain numbers as numbers and empty cells as null. The delimiter is found out. Raises Unreadable, see
        `_decode`; without a column to be the text; and for a column that is named twice.
        """
        # The limit is the process's own: raised, and never lowered again under another's feet.
        csv.field_size_limit(max(csv.field_size_limit(), _decode.MAX_LINE))
        lines = _lines(path)
        sample = list(islice(lines, _SAMPLE_LINES))
        delimiter = _delimiter(sample)
        rows = csv.reader(chain(sample, lines), delimiter=delimiter, strict=True)
        try:
            names = _names(next(filter(None, rows), []))
        except csv.Error as error:
            raise Unreadable(f"its header is no row of cells: {error}") from None
        text_name = _values.first(dict.fromkeys(names), _values.TEXT_NAMES)
        parts: list[str] = []
        if text_name is None:
            parts = _texts(names, _parsed(sample, delimiter)[1:])
            text_name = parts[0] if len(parts) == 1 else "text"
        verbatim = {text_name, "title", *_values.ID_NAMES}
        while True:
            line = rows.line_num + 1
            try:
                row = next(rows, None)
            except csv.Error as error:
                # Python's word for a quote that is still open at the end.
                reason = "a quote is never closed, which hides all after it" if "end of data" in str(error) else error
                yield Failure(f"{document_id}#{line}", f"line {line}: {reason}")
                continue
            if row is None:
                return
            if not any(row):
                continue
            if len(row) > len(names):
                reason = (
                    f"line {line}: has {len(row)} cells, the header {len(names)}; quote cells that hold {delimiter!r}"
                )
                yield Failure(f"{document_id}#{line}", reason)
                continue
            row += [""] * (len(names) - len(row))
            cells = {n: cell if n in verbatim else _values.scalar(cell) for n, cell in zip(names, row, strict=True)}
            if len(parts) > 1:
                cells["text"] = "\n".join(_values.labelled(p for p in zip(names, row, strict=True) if p[0] in parts))
            yield _values.document(cells, text_name, document_id, line)


def _lines(path: Path) -> Iterator[str]:
    for number, line in enumerate(_decode.read_lines(path), 1):
        if line is None:
            raise Unreadable(f"line {number} is over {_decode.MAX_LINE >> 20} million characters")
        yield line


def _parsed(sample: list[str], delimiter: str) -> list[list[str]]:
    """The whole rows of a sample, as far as they can be read."""
    rows: list[list[str]] = []
    with suppress(csv.Error):
        for row in csv.reader(sample, delimiter=delimiter, strict=True):
            rows.append(row)
    return [row for row in rows if row]


def _delimiter(sample: list[str]) -> str:
    """The one that gives the most rows as many cells as the header has, then the one with most columns."""

    def fit(delimiter: str) -> tuple[float, int]:
        rows = _parsed(sample, delimiter)
        width = len(rows[0]) if rows else 0
        alike = sum(len(row) == width for row in rows) / max(1, len(rows))
        return (alike, width) if width > 1 else (0.0, 0)

    return max(_DELIMITERS, key=fit)


def _names(header: list[str]) -> list[str]:
    """The columns' names; those that mean something here in lower case, so that `ID` and `Text` do."""
    names = [name.strip() or f"column {i}" for i, name in enumerate(header, 1)]
    names = [name.casefold() if name.casefold() in _KNOWN else name for name in names]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise Unreadable(f"has the column {twice[0]!r} twice")
    return names


def _texts(names: list[str], rows: list[list[str]]) -> list[str]:
    """The columns that hold more than numbers, for a table of which none is named as the text."""
    texts = [
        name
        for i, name in enumerate(names)
        if name not in _KNOWN and any(isinstance(_values.scalar(row[i]), str) for row in rows if i < len(row))
    ]
    if not texts:
        raise Unreadable(f"has no column named {', '.join(_values.TEXT_NAMES)}; it has {', '.join(names)}")
    return texts


READER = Csv
