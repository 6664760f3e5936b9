"""Parquet: one document a row, as in CSV; read by batches, so that memory stays flat."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from nearest.contract import Document, Failure, Reader
from nearest.errors import Unreadable
from nearest.readers import _decode, _extra, _values

REQUIRES = {"pyarrow": ">=18"}

_BATCH = 256  # rows


class Parquet(Reader):
    extensions = (".parquet", ".pq")
    content_type = "application/vnd.apache.parquet"
    isolated = True

    def read(self, path: Path, document_id: str) -> Iterator[Document | Failure]:
        """The documents of the rows; the text is the column `text`, `content` or `body`, else the only one of strings.

        Several of strings are the text as lines `name: value`, and metadata too, as are the other columns, but for
        bytes and vectors. Raises Unreadable for a file that is damaged, or
        without a column to be the text.
        """
        with _extra.needed():
            import pyarrow as pa  # type: ignore[import-untyped]
            import pyarrow.parquet as pq  # type: ignore[import-untyped]

        with _decode.opened(path) as file:
            if not file.read(1):
                raise Unreadable("is empty")
        try:
            pa.set_cpu_count(1)
            with pq.ParquetFile(path) as table:
                schema = table.schema_arrow
                names = [field.name for field in schema if not _left_out(pa.types, field.type)]
                parts = _texts(pa.types, schema)
                text_name = parts[0] if len(parts) == 1 else "text"
                number = 0
                for batch in table.iter_batches(_BATCH, columns=names, use_threads=False):
                    for row in batch.to_pylist():
                        number += 1
                        plain = {name: _plain(value) for name, value in row.items()}
                        if len(parts) > 1:
                            plain["text"] = "\n".join(_values.labelled((name, row[name]) for name in parts))
                        yield _values.document(plain, text_name, document_id, number, unit="row")
        except pa.ArrowException as error:
            raise Unreadable(f"is damaged: {error}") from None


def _left_out(types: Any, kind: Any) -> bool:
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return bool(types.is_floating(kind.value_type))
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind))


def _texts(types: Any, schema: Any) -> list[str]:
    """The column that is named as the text, else all of strings."""
    name = _values.first(dict.fromkeys(schema.names), _values.TEXT_NAMES)
    if name is not None:
        return [name]
    texts = [
        str(field.name)
        for field in schema
        if (types.is_string(field.type) or types.is_large_string(field.type))
        and field.name not in (*_values.ID_NAMES, "title")
    ]
    if not texts:
        raise Unreadable(f"has no column named {', '.join(_values.TEXT_NAMES)}; it has {', '.join(schema.names)}")
    return texts


def _plain(value: Any) -> Any:
    """As JSON holds it."""
    match value:
        case datetime():
            return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()
        case date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case Decimal():
            return float(value) if value.is_finite() else None
        case float() if value != value or value in (float("inf"), float("-inf")):
            return None
        case bytes():
            return base64.b64encode(value).decode()
        case dict():
            return {str(name): _plain(item) for name, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
    return value


READER = Parquet
