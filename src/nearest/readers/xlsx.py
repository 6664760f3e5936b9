"""XLSX: a document a sheet, a line a row, each cell with the name of its column, which a chunk would else lose."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from nearest.contract import Document, Failure, Reader
from nearest.errors import Unreadable
from nearest.readers import _extra, _values
from nearest.readers._marks import marks

REQUIRES = {"defusedxml": ">=0.7,<1", "openpyxl": ">=3.1,<4"}

MAX_TEXT = 16_000_000  # characters of a sheet
_MAX_COLUMNS = 1_000
_MAX_ROWS = 1_048_576  # that a sheet can have


class Xlsx(Reader):
    extensions = (".xlsx", ".xlsm")
    content_type = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
    isolated = True

    def read(self, path: Path, document_id: str) -> Iterator[Document | Failure]:
        """The sheets that hold something, under `document_id#Sheet`; hidden ones too. The first row names the columns.

        Values are as they were calculated when the file was saved. Raises Unreadable for a file that is damaged,
        encrypted, or without values.
        """
        with _extra.needed():
            import defusedxml  # type: ignore[import-untyped]  # noqa: F401 -- openpyxl uses it where it is
            import openpyxl  # type: ignore[import-untyped]

        with _extra.archive(path):
            book: Any = openpyxl.load_workbook(path, read_only=True, data_only=True, keep_links=False)
        told = book.properties
        facts = _extra.facts(title=told.title, author=told.creator, created=told.created, modified=told.modified)
        empty = True
        for sheet in book.worksheets:
            name = f"{document_id}#{_extra.clean(sheet.title)}"
            text = _lines(sheet)
            if text is None:
                yield Failure(name, f"has over {MAX_TEXT // 1_000_000} million characters; export it as CSV")
            elif text:
                metadata = {"source": document_id, **facts, "sheet": _extra.clean(sheet.title)}
                yield Document(name, text, metadata, marks([(0, 1, sheet.title)]))
            else:
                continue
            empty = False
        if empty:
            raise Unreadable("has no values")


def _lines(sheet: Any) -> str | None:
    """`Column: value | ...`, a line a row; None if it is too long."""
    names: list[str] | None = None
    lines: list[str] = []
    length = 0
    # A sheet may declare another size than it has; and with none its rows are as long as their cells, those between
    # two far apart empty, where they would else all be filled up to the widest.
    sheet.reset_dimensions()
    for row in sheet.iter_rows(values_only=True, max_row=_MAX_ROWS):
        cells = [_cell(value) for value in row[:_MAX_COLUMNS]]
        if not any(cells):
            continue
        if names is None:
            names = cells
            header = " | ".join(filter(None, cells))
            continue
        names += [""] * (len(cells) - len(names))
        line = " | ".join(_values.labelled(zip(names, cells, strict=False)))
        lines.append(line)
        length += len(line) + 1
        if length > MAX_TEXT:
            return None
    if names is not None and not lines:
        return header
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == time() else value.isoformat(" ")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return " ".join(_extra.clean(str(value)).split())


READER = Xlsx
