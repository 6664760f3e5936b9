"""CSV and TSV: one document a row, its columns named by the first row."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from typing import Self

from nearest.contract import Document, Failure, Reader
from nearest.errors import Unreadable
from nearest.readers import _decode, _values

_DELIMITERS = ",\t;|"
_SAMPLE_LINES = 50
_MAX_COLUMNS = 10_000
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
        sample = _sample(path)
        delimiter = _delimiter(sample)
        lines = _Lines(path)
        rows = csv.reader(lines, delimiter=delimiter, strict=True)
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
            line = lines.number + 1
            lines.row = 0
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


class _Lines:
    """The lines of a file; csv.Error, which costs its row alone, for a line or a row that is too long."""

    def __init__(self, path: Path) -> None:
        self._lines = _decode.read_lines(path)
        self.number = 0  # of the last line
        self.row = 0  # characters of the row so far; a quote that is open goes on over lines

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.number += 1
        self.row += _decode.MAX_LINE + 1 if line is None else len(line)
        if line is None or self.row > _decode.MAX_LINE:
            raise csv.Error(f"is over {_decode.MAX_LINE >> 20} million characters, or a quote is never closed")
        return line


def _sample(path: Path) -> list[str]:
    sample: list[str] = []
    with closing(_decode.read_lines(path)) as lines:
        for line in islice(lines, _SAMPLE_LINES):
            if line is None or sum(map(len, sample)) + len(line) > _decode.MAX_LINE:
                break
            sample.append(line)
    return sample


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
    if len(header) > _MAX_COLUMNS:
        raise Unreadable(f"has {len(header):,} columns, over {_MAX_COLUMNS:,}")
    names = [name.strip() or f"column {i}" for i, name in enumerate(header, 1)]
    names = [name.casefold() if name.casefold() in _KNOWN else name for name in names]
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
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
