"""How records lie in the fields of Milvus, and conditions in its expressions.

`id`: the primary key. `payload`: the whole payload as one JSON text, as Milvus' own JSON fields would alter numbers.
`vector_0`, ...: the dense vectors in the schema's order. `text` and `text_sparse`: the words of the text field, stemmed
here so that they are the same on every server, counted and scored by Milvus' BM25 function.

A term is a hash of a path, a type and a value: equal where the filter language takes values for equal, so that `"5"`,
`5` and `true` differ and instants do not depend on how they are written. `value_0`, ...: of each declared field the
term of its one value; "" if it has none, "*" if it has several, whose terms are then in `many`. `terms`: of every other
field the terms of its values, and of its path with their types. They make equality exact on any field, in lists too. A
server finds terms by an inverted index over an array; Milvus Lite reads arrays row by row in Python but matches text in
native code, so there `many` and `terms` are one text each.

`low_0`, `high_0`, ...: the least and the greatest value of each declared integer, float and datetime field: an element
of a list is above x when the greatest is. A record without a value there has bounds that nothing is below or above.
Order comparisons on other fields are only narrowed to records that hold a number (or a date) there, and `$contains` to
those whose payload holds its words.

No field is nullable, so no condition depends on what a version of Milvus takes null for. Terms are hexadecimal digits,
so that only ids have to be quoted.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, cast

import numpy as np

from nearest import filters
from nearest.contract import Record, Schema
from nearest.errors import InvalidRecord
from nearest.filters import And, Comparison, Filter, Loose, Not, Or, Support
from nearest.stores._bm25 import Analyzer

EXACT_FILTERS = frozenset({"$eq", "$in", "$exists"})
MAX_TEXT = 65_535  # bytes, Milvus' limit of a VARCHAR
MAX_TERMS = 2_600  # of 24 characters and a space, within MAX_TEXT; an array holds 4,096
TERM_LENGTH = 24

_EXACT = 2**53  # up to here float64 holds every integer
_INT64 = range(-(2**63), 2**63)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HUGE = sys.float_info.max
_SEVERAL = "*"  # in place of a term
_EVERYTHING, _NOTHING = 'id != ""', 'id == ""'


def _hash(kind: str, path: str, value: str) -> str:
    """24 hexadecimal digits."""
    # With the path's length, as paths and values may hold any character.
    return hashlib.blake2b(f"{kind}{len(path)}:{path}{value}".encode(), digest_size=TERM_LENGTH // 2).hexdigest()


@lru_cache(maxsize=4096)
def _type_term(path: str, kind: str) -> str:
    return _hash("type:", path, kind)


def _value(item: Any) -> tuple[str, str]:
    """Type and text of a value: the same for values that are equal in the filter language, and for no others."""
    if isinstance(item, str):
        moment = filters.instant(item)
        return ("text", item) if moment is None else ("date", moment.isoformat())
    if isinstance(item, bool):
        return "bool", str(item)
    if isinstance(item, int):
        return "number", str(item)
    if isinstance(item, float):
        return "number", str(int(item)) if item.is_integer() else repr(item)
    return "other", ""


_TYPES = ("bool", "number", "text", "date", "other")


def _term(path: str, item: Any) -> str:
    kind, text = _value(item)
    return _hash(kind, path, text)


def _values(payload: Any) -> Iterator[tuple[str, str, str]]:
    """Path, type and text of every value of a payload; keys that no path reaches (with a dot, or empty) have none."""

    def inside(prefix: str, members: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
        for key, value in members.items():
            if not key or "." in key or value is None:
                continue
            path = prefix + key
            for item in value if isinstance(value, list | tuple) else (value,):
                yield path, *_value(item)
            if isinstance(value, dict):
                yield from inside(f"{path}.", value)

    return inside("", payload)


def _micros(text: str) -> int:
    moment = filters.instant(text)
    assert moment is not None
    return (moment - _EPOCH) // timedelta(microseconds=1)


def quoted(text: str) -> str:
    """As a literal of Milvus' expressions, with the only escapes that both Milvus and Milvus Lite read."""
    for plain, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        text = text.replace(plain, escaped)
    return f'"{text}"'


class Columns:
    """How a schema's records lie in Milvus' fields, both ways."""

    def __init__(self, schema: Schema, layout: dict[str, Any]) -> None:
        self.schema = schema
        self.vectors = {name: f"vector_{i}" for i, name in enumerate(schema.vectors)}
        ordered = [(path, kind) for path, kind in schema.fields.items() if kind in ("integer", "float", "datetime")]
        self.ranges = {path: (kind, f"low_{i}", f"high_{i}") for i, (path, kind) in enumerate(ordered)}
        self.values = {path: f"value_{i}" for i, path in enumerate(schema.fields)}
        self.as_array = layout["terms"] == "array"
        self.partition_key: str | None = layout.get("partition_key")
        self.text = None if schema.text is None else tuple(schema.text.split("."))
        self.analyzer = None if self.text is None else Analyzer(schema.language)
        self.vector_bytes = 4 * sum(spec.dim for spec in schema.vectors.values())

    def row(self, record: Record) -> tuple[dict[str, Any], int]:
        """What Milvus is given for a record, and about how many bytes that is. Raises InvalidRecord."""
        payload = json.dumps(record.payload, ensure_ascii=False, separators=(",", ":"))
        row: dict[str, Any] = {"id": record.id, "payload": payload}
        size = self._fits(record, "the payload as JSON", payload)
        terms = self._add_terms(row, record)
        for name, column in self.vectors.items():
            row[column] = record.vectors[name]
        for path, (kind, low, high) in self.ranges.items():
            row[low], row[high] = self._bounds(kind, filters.resolve(record.payload, tuple(path.split("."))))
        if self.analyzer is not None and self.text is not None:
            row["text"] = " ".join(self.analyzer.terms(filters.resolve(record.payload, self.text) or ""))
            size += self._fits(record, "the text", row["text"])
        if self.partition_key is not None:
            row["partition"] = self._partition_of(record)
        return row, size + (TERM_LENGTH + 1) * terms + self.vector_bytes

    def _add_terms(self, row: dict[str, Any], record: Record) -> int:
        """Sets `value_0`, ..., `many` and `terms`; gives the number of terms."""
        terms: set[str] = set()
        many: set[str] = set()
        own: dict[str, set[str]] = {}
        for path, kind, text in _values(record.payload):
            if path in self.values:
                own.setdefault(path, set()).add(_SEVERAL if kind == "other" else _hash(kind, path, text))
                continue
            terms.add(_type_term(path, kind))
            if kind != "other":
                terms.add(_hash(kind, path, text))
        for path, column in self.values.items():
            held = own.get(path, set())
            row[column] = next(iter(held)) if len(held) == 1 else _SEVERAL if held else ""
            if len(held) > 1:
                many.update(held - {_SEVERAL})
        if len(terms) > MAX_TERMS or len(many) > MAX_TERMS:
            raise InvalidRecord(
                f"record {record.id!r}: the payload holds too many different values to filter by "
                f"({len(terms) + len(many)} terms; at most {MAX_TERMS}); keep long lists elsewhere"
            )
        row["many"], row["terms"] = (list(many), list(terms)) if self.as_array else (" ".join(many), " ".join(terms))
        return len(terms) + len(many) + len(self.values)

    @staticmethod
    def _fits(record: Record, what: str, text: str) -> int:
        size = len(text) if text.isascii() else len(text.encode())
        if size > MAX_TEXT:
            raise InvalidRecord(
                f"record {record.id!r}: {what} has {size} bytes; Milvus holds {MAX_TEXT}; use smaller chunks"
            )
        return size

    @staticmethod
    def _bounds(kind: str, value: Any) -> tuple[Any, Any]:
        values = [v for v in (value if isinstance(value, list | tuple) else (value,)) if v is not None]
        if kind == "datetime":
            values = [_micros(v) for v in values]
        elif kind == "float":
            values = [float(v) for v in values]
        if values:
            return min(values), max(values)
        return (_HUGE, -_HUGE) if kind == "float" else (_INT64[-1], _INT64[0])

    def _partition_of(self, record: Record) -> str:
        assert self.partition_key is not None
        value = filters.resolve(record.payload, tuple(self.partition_key.split(".")))
        if isinstance(value, list | tuple | dict):
            raise InvalidRecord(
                f"record {record.id!r}: payload.{self.partition_key} is the partition key and needs one value or none"
            )
        return "" if value is None else _term(self.partition_key, value)

    def record(self, row: Any, with_payload: bool, with_vectors: bool) -> Record:
        vectors = {name: np.array(row[column], np.float32) for name, column in self.vectors.items()} \
            if with_vectors else {}  # fmt: skip
        return Record(row["id"], vectors, json.loads(row["payload"]) if with_payload else {})

    def fields(self, with_payload: bool, with_vectors: bool) -> list[str]:
        return ["id", *(["payload"] if with_payload else []), *(self.vectors.values() if with_vectors else [])]

    # Conditions.

    def support(self, comparison: Comparison) -> Support:
        if comparison.op in EXACT_FILTERS:
            return "exact"
        if comparison.op != "$contains" and (known := self._range(comparison)) is not None:
            kind, bound = known[0], comparison.value
            # Larger integers of a float field are rounded.
            return "exact" if kind != "float" or abs(cast("float", bound)) < _EXACT else "superset"
        return "superset"

    def _range(self, comparison: Comparison) -> tuple[str, str, str] | None:
        """The declared field that an order comparison is about, if both are of one kind."""
        known = self.ranges.get(".".join(comparison.path))
        if known is None or isinstance(comparison.value, str) != (known[0] == "datetime"):
            return None
        return known

    def expression(self, condition: Filter | None) -> str:
        match condition:
            case None:
                return ""
            case And(parts):
                return self._joined(" and ", parts, _EVERYTHING)
            case Or(parts):
                return self._joined(" or ", parts, _NOTHING)
            case Not(part):
                return f"not ({self.expression(part)})"
            case Comparison() | Loose():
                return self._compared(condition.part if isinstance(condition, Loose) else condition)

    def _joined(self, word: str, parts: tuple[Filter, ...], empty: str) -> str:
        return word.join(f"({self.expression(part)})" for part in parts) or empty

    def _compared(self, comparison: Comparison) -> str:
        path, value = ".".join(comparison.path), comparison.value
        match comparison.op:
            case "$exists":
                return self._present(path, _TYPES)
            case "$eq":
                return self._equal(path, (value,))
            case "$in":
                return self._equal(path, cast("tuple[Any, ...]", value))
            case "$contains":
                element = self._equal(path, (value,))
                if not isinstance(value, str):
                    return element
                # Letters and digits stand in the payload's text as they are; what lies between is left open.
                pattern = re.sub(r"(\W|_)+", "%", value).strip("%")
                text = self._present(path, ("text", "date"))
                return f"({element}) or (({text}) and payload like {quoted(f'%{pattern}%')})"
        known = self._range(comparison)
        if known is None:
            return self._present(path, ("date",) if isinstance(value, str) else ("number",))
        return self._ordered(known, comparison)

    def _present(self, path: str, kinds: Iterable[str]) -> str:
        """A value of one of these types is there; of a declared field, any value."""
        column = self.values.get(path)
        if column is not None:
            return f'{column} != ""'
        return self._any("terms", [_type_term(path, kind) for kind in kinds])

    def _equal(self, path: str, values: tuple[Any, ...]) -> str:
        terms = [_term(path, value) for value in values]
        if not terms:
            return _NOTHING
        column = self.values.get(path)
        if column is None:
            matched = self._any("terms", terms)
        else:
            matched = f"{column} in {json.dumps(terms)} or {self._any('many', terms)}"
        return matched if path != self.partition_key else f"(partition in {json.dumps(terms)}) and ({matched})"

    def _any(self, column: str, terms: list[str]) -> str:
        if not self.as_array:
            return " or ".join(f'{column} like "%{term}%"' for term in terms)
        if len(terms) == 1:
            return f'array_contains({column}, "{terms[0]}")'
        return f"array_contains_any({column}, {json.dumps(terms)})"

    @staticmethod
    def _ordered(known: tuple[str, str, str], comparison: Comparison) -> str:
        """On the greatest value for above, on the least for below; what all values satisfy asks for presence alone."""
        kind, low, high = known
        most: Any = _HUGE if kind == "float" else _INT64[-1]
        present = f"({low} < {most!r} or {high} > {-most!r})"  # null in a list has no bounds
        op, bound = comparison.op, comparison.value
        above = op in ("$gt", "$gte")
        if kind == "float":
            value = float(cast("float", bound))
            strict = op in ("$gt", "$lt") and abs(value) < _EXACT
            if not strict and value == (-_HUGE if above else _HUGE):
                return present
            return f"{high if above else low} {'>' if above else '<'}{'' if strict else '='} {value!r}"
        if isinstance(bound, str):
            bound = _micros(bound)
        # In whole numbers, and so that the literal is never -2^63, which Milvus cannot read.
        if above:
            least = math.floor(cast("float", bound)) + 1 if op == "$gt" else math.ceil(cast("float", bound))
            if least <= _INT64[0]:
                return present
            return f"{high} >= {least}" if least in _INT64 else _NOTHING
        beyond = math.ceil(cast("float", bound)) if op == "$lt" else math.floor(cast("float", bound)) + 1
        if beyond > _INT64[-1]:
            return present
        return f"{low} < {beyond}" if beyond > _INT64[0] else _NOTHING
