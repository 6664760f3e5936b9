"""The dialect of the Qdrant family: ids, field paths and filters, for every store of that family.

How a condition is spelled (`Builder`) differs between the embedded engine's classes and the server's
models; what it means, and which conditions Qdrant runs exactly, does not.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, Protocol, cast

from nearest import filters
from nearest.contract import Schema
from nearest.filters import And, Comparison, Filter, Loose, Not, Or, Scalar

ID_KEY = "nearest:id"
"""Payload key that keeps the user's own id where the point's UUID does not tell it."""

# Qdrant compares numbers as float64, which holds integers exactly up to here.
_EXACT = 2**53
_NAMESPACE = uuid.UUID("6f0f7a3e-55a1-5d0c-9c5e-3c1f0d5a7b42")


def point_id(record_id: str) -> str:
    """A record id as Qdrant takes it: itself if it is a UUID in canonical form, else its UUIDv5."""
    return record_id if is_uuid(record_id) else str(uuid.uuid5(_NAMESPACE, record_id))


def is_uuid(text: str) -> bool:
    if len(text) != 36:
        return False
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def key(path: tuple[str, ...]) -> str:
    """A payload path with every part quoted, so that brackets and spaces are plain characters."""
    return ".".join(f'"{part}"' for part in path)


def support(schema: Schema, node: Comparison) -> filters.Support:
    """How Qdrant runs one comparison.

    It reads more strings as dates than RFC 3339 does, so a date is exact only on a field whose values
    were checked; `$contains` cannot tell a string from an element of a list, so it over-matches.
    """
    if any('"' in part or "\\" in part for part in node.path):
        return "none"
    if node.op == "$exists":
        return "exact"
    values = node.value if isinstance(node.value, tuple) else (node.value,)
    kinds = [_support_value(schema, node, value) for value in values]
    return "none" if "none" in kinds else "superset" if "superset" in kinds else "exact"


def _support_value(schema: Schema, node: Comparison, value: Scalar) -> filters.Support:
    kind = schema.fields.get(".".join(node.path))
    # An index of dates takes a number for seconds since 1970.
    if isinstance(value, int | float) and not isinstance(value, bool) and (abs(value) >= _EXACT or kind == "datetime"):
        return "none"
    if node.op == "$contains":
        return "superset"
    if isinstance(value, str) and kind != "datetime" and filters.instant(value) is not None:
        return "superset"
    return "exact"


class Builder(Protocol):
    """Spells conditions in one client's classes."""

    def match(self, field: str, value: str | bool) -> Any: ...
    def match_any(self, field: str, values: list[str]) -> Any: ...
    def substring(self, field: str, text: str) -> Any: ...
    def numbers(self, field: str, bounds: dict[str, float]) -> Any: ...
    def dates(self, field: str, bounds: dict[str, str]) -> Any: ...
    def is_empty(self, field: str) -> Any: ...
    def combine(self, *, must: Sequence[Any] = (), should: Sequence[Any] = (), must_not: Sequence[Any] = ()) -> Any: ...


def translate(condition: Filter, build: Builder) -> Any:
    """A whole condition as the client's filter object."""
    match condition:
        case And(parts):
            return build.combine(must=[translate(part, build) for part in parts])
        case Or(()):
            return build.combine(must_not=[build.combine()])
        case Or(parts):
            return build.combine(should=[translate(part, build) for part in parts])
        case Not(part):
            return build.combine(must_not=[translate(part, build)])
        case Loose(part):
            return translate(part, build)
        case Comparison(path, op, value):
            field = key(path)
            match op:
                case "$exists":
                    return build.combine(must_not=[build.is_empty(field)])
                case "$in":
                    return _any_of(field, cast("tuple[Scalar, ...]", value), build)
                case "$eq":
                    return _either(_equal(field, cast("Scalar", value), build), build)
                case "$contains":
                    either = _equal(field, cast("Scalar", value), build)
                    if isinstance(value, str):
                        either.append(build.substring(field, value))
                    return _either(either, build)
                case _:
                    bounds = {op[1:]: cast("Any", value)}
                    ranged = build.dates if isinstance(value, str) else build.numbers
                    return build.combine(must=[ranged(field, bounds)])


def _any_of(field: str, values: tuple[Scalar, ...], build: Builder) -> Any:
    plain = [v for v in values if isinstance(v, str) and filters.instant(v) is None]
    either = [build.match_any(field, plain)] if plain else []
    for value in values:
        if not isinstance(value, str) or filters.instant(value) is not None:
            either += _equal(field, value, build)
    return _either(either, build) if either else translate(filters.NOTHING, build)


def _either(conditions: list[Any], build: Builder) -> Any:
    return build.combine(must=conditions) if len(conditions) == 1 else build.combine(should=conditions)


def _equal(field: str, value: Scalar, build: Builder) -> list[Any]:
    """Conditions of which any means equality."""
    if isinstance(value, bool):
        return [build.match(field, value)]
    if isinstance(value, str):
        same = [build.match(field, value)]
        if filters.instant(value) is not None:
            same.append(build.dates(field, {"gte": value, "lte": value}))
        return same
    return [build.numbers(field, {"gte": value, "lte": value})]
