"""How records lie in the fields of Milvus, and conditions in its expressions.

`id`: the primary key. `payload`: the whole payload as one JSON text, as Milvus' own JSON fields would alter numbers.
`vector_0`, ...: the dense vectors in the schema's order. `text` and `text_sparse`: the words of the text field, stemmed
here so that they are the same on every server, counted and scored by Milvus' BM25 function.

`terms`: for every value in the payload one hash of its path and the value, and one of its path and type. They make
equality exact on any field, declared or not, in lists too: a missing field, null and [] have no term, and `"5"`, `5`
and `true` have different ones. A server finds them by an inverted index over an array; Milvus Lite reads arrays row by
row in Python but matches text in native code, so there they are one text.

`low_0`, `high_0`, ...: the least and the greatest value of each declared integer, float and datetime field: an element
of a list is above x when the greatest is. Order comparisons on other fields are only narrowed to records that hold a
number (or a date) there, and `$contains` to those whose text holds its words.

No field is nullable, so no condition depends on what a version of Milvus takes null for. Terms are hexadecimal digits,
so that only ids have to be quoted.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable
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


def _terms(payload: Any) -> set[str]:
    """Every term of a payload; keys that no path reaches (with a dot, or empty) have none."""
    found: set[str] = set()

    def inside(prefix: str, members: dict[str, Any]) -> None:
        for key, value in members.items():
            if not key or "." in key or value is None:
                continue
            path = prefix + key
            for item in value if isinstance(value, list | tuple) else (value,):
                kind, text = _value(item)
                found.add(_type_term(path, kind))
                if kind != "other":
                    found.add(_hash(kind, path, text))
            if isinstance(value, dict):
                inside(f"{path}.", value)

    inside("", payload)
    return found


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
        self.as_array = layout["terms"] == "array"
        self.partition_key: str | None = layout.get("partition_key")
        self.text = None if schema.text is None else tuple(schema.text.split("."))
        self.analyzer = None if self.text is None else Analyzer(schema.language)
        self.vector_bytes = 4 * sum(spec.dim for spec in schema.vectors.values())

    def row(self, record: Record) -> tuple[dict[str, Any], int]:
        """What Milvus is given for a record, and about how many bytes that is. Raises InvalidRecord."""
        payload = json.dumps(record.payload, ensure_ascii=False, separators=(",", ":"))
        terms = _terms(record.payload)
        row: dict[str, Any] = {"id": record.id, "payload": payload}
        size = self._fits(record, "the payload as JSON", payload)
        if len(terms) > MAX_TERMS:
            raise InvalidRecord(
                f"record {record.id!r}: the payload holds too many different values to filter by ({len(terms)} terms; "
                f"at most {MAX_TERMS}); keep long lists elsewhere"
            )
        row["terms"] = list(terms) if self.as_array else " ".join(terms)
        for name, column in self.vectors.items():
            row[column] = record.vectors[name]
        for path, (kind, low, high) in self.ranges.items():
            row[low], row[high] = self._bounds(kind, filters.resolve(record.payload, tuple(path.split("."))))
        if self.analyzer is not None and self.text is not None:
            row["text"] = " ".join(self.analyzer.terms(filters.resolve(record.payload, self.text) or ""))
            size += self._fits(record, "the text", row["text"])
        if self.partition_key is not None:
            row["partition"] = self._partition_of(record)
        return row, size + 25 * len(terms) + self.vector_bytes

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
        return (min(values), max(values)) if values else (0, 0)

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
                return self._any(_type_term(path, kind) for kind in _TYPES)
            case "$eq":
                return self._equal(path, (value,))
            case "$in":
                return self._equal(path, cast("tuple[Any, ...]", value))
            case "$contains":
                element = self._any([_term(path, value)])
                if not isinstance(value, str):
                    return element
                # Letters and digits stand in the payload's text as they are; what lies between is left open.
                pattern = re.sub(r"(\W|_)+", "%", value).strip("%")
                text = self._any([_type_term(path, "text"), _type_term(path, "date")])
                return f"({element}) or (({text}) and payload like {quoted(f'%{pattern}%')})"
        marked = self._any([_type_term(path, "date" if isinstance(value, str) else "number")])
        known = self._range(comparison)
        return marked if known is None else f"({marked}) and {self._ordered(known, comparison)}"

    def _equal(self, path: str, values: tuple[Any, ...]) -> str:
        terms = [_term(path, value) for value in values]
        if not terms:
            return _NOTHING
        matched = self._any(terms)
        if path != self.partition_key:
            return matched
        return f"(partition in {json.dumps(terms)}) and ({matched})"

    def _any(self, terms: Iterable[str]) -> str:
        wanted = list(terms)
        if not self.as_array:
            return " or ".join(f'terms like "%{term}%"' for term in wanted)
        if len(wanted) == 1:
            return f'array_contains(terms, "{wanted[0]}")'
        return f"array_contains_any(terms, {json.dumps(wanted)})"

    @staticmethod
    def _ordered(known: tuple[str, str, str], comparison: Comparison) -> str:
        """On the greatest value for above, on the least for below."""
        kind, low, high = known
        op, bound = comparison.op, comparison.value
        above = op in ("$gt", "$gte")
        if kind == "float":
            value = float(cast("float", bound))
            strict = op in ("$gt", "$lt") and abs(value) < _EXACT
            return f"{high if above else low} {'>' if above else '<'}{'' if strict else '='} {value!r}"
        if isinstance(bound, str):
            bound = _micros(bound)
        # In whole numbers, and so that the literal is never -2^63, which Milvus cannot read.
        if above:
            least = math.floor(cast("float", bound)) + 1 if op == "$gt" else math.ceil(cast("float", bound))
            if least == _INT64[0] or least not in _INT64:
                return _NOTHING if least > 0 else _EVERYTHING
            return f"{high} >= {least}"
        beyond = math.ceil(cast("float", bound)) if op == "$lt" else math.floor(cast("float", bound)) + 1
        if beyond == _INT64[0] or beyond not in _INT64:
            return _EVERYTHING if beyond > 0 else _NOTHING
        return f"{low} < {beyond}"
