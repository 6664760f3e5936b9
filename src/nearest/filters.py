"""The filter language: one meaning of `where` on every store.

    {"year": {"$gte": 2020, "$lt": 2024}, "$or": [{"lang": "en"}, {"tags": {"$contains": "draft"}}]}

`parse` turns that into a small tree of `And`, `Or`, `Not` and `Comparison`, which is all a store
translates; `evaluate` is the reference that every store is held against.

The meaning rests on one idea: a field has *values*. A scalar is its own single value; a list's elements
are its values; a missing field, null and an empty list have none. A comparison holds when any value
satisfies it, and everything else follows from that:

- `$eq: null` and `$exists: false` hold when there is no value.
- `$ne`, `$nin` and `$not` are exact complements, so `$ne` and `$nin` match a missing field.
- An order comparison against a missing field is false.
- Types do not mix: "5" is not 5, true is not 1. Integers and floats compare as numbers.
- RFC 3339 strings (date-times with an offset, and full dates, which mean midnight UTC) compare as
  instants, for order and for equality, to the microsecond.
- `$contains` is a substring of a string (case-sensitive), or an element of a list.
- Dots reach into nested objects, not into lists of objects.

A collection's conditions are about the metadata of documents. Fields that begin with `_chunk.` are the passage's own:
`_chunk.page`, `_chunk.headings`, `_chunk.text`, `_chunk.start`, `_chunk.facts.words` (see `nearest.ingest.facts`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Generic, Literal, TypeVar, cast

from nearest.errors import InvalidFilter

Op = Literal["$eq", "$in", "$gt", "$gte", "$lt", "$lte", "$exists", "$contains"]
Scalar = str | int | float | bool

ORDER_OPS: tuple[Op, ...] = ("$gt", "$gte", "$lt", "$lte")
OPERATORS = ("$eq", "$ne", *ORDER_OPS, "$in", "$nin", "$and", "$or", "$not", "$exists", "$contains")
OWN = "_chunk"
MAX_DEPTH = 32
_INT64 = range(-(2**63), 2**63)
_KEPT = 256  # conditions, of a Memo
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Comparison:
    """One field against one value. `$eq: null` is parsed to `$exists: false`, `$ne` to `Not($eq)`.

    value: a scalar; for `$in` a tuple of scalars; for `$exists` always True.
    """

    path: tuple[str, ...]
    op: Op
    value: Scalar | tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class And:
    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or:
    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    part: Filter


@dataclass(frozen=True, slots=True)
class Loose:
    """A comparison for which a store may match more than it should, never less.

    Only `upper_bound` makes these: the caller promises to complete the result with `evaluate`.
    """

    part: Comparison


Filter = And | Or | Not | Comparison | Loose

EVERYTHING = And(())
NOTHING = Or(())


# --- parsing ---------------------------------------------------------------------------------------


def parse(where: Mapping[str, Any] | Filter | None) -> Filter | None:
    """The tree of a `where` condition; None, or a tree that is already parsed, is returned as it is.

    Raises InvalidFilter with the path of the fault: `where.$and[1].year: $gt needs a number or a date,
    got list`.
    """
    if where is None or isinstance(where, And | Or | Not | Comparison | Loose):
        return where
    return _parse_node(where, "where", 0)


def _parse_node(node: Any, at: str, depth: int) -> Filter:
    if depth > MAX_DEPTH:
        raise InvalidFilter(f"{at}: nested deeper than {MAX_DEPTH} levels; flatten the condition")
    if not isinstance(node, Mapping):
        raise InvalidFilter(f"{at}: needs an object of conditions, got {_name(node)}")
    if not node:
        raise InvalidFilter(f"{at}: the object is empty; leave `where` out to match everything")
    parts: list[Filter] = []
    for key, value in node.items():
        if not isinstance(key, str):
            raise InvalidFilter(f"{at}: field names are strings, got {_name(key)}")
        here = f"{at}.{key}"
        if key in ("$and", "$or"):
            if not isinstance(value, list | tuple):
                raise InvalidFilter(f"{here}: needs a list of conditions, got {_name(value)}")
            if not value:
                raise InvalidFilter(f"{here}: the list is empty; give at least one condition")
            branches = tuple(_parse_node(v, f"{here}[{i}]", depth + 1) for i, v in enumerate(value))
            parts.append(And(branches) if key == "$and" else Or(branches))
        elif key == "$not":
            parts.append(Not(_parse_node(value, here, depth + 1)))
        elif key.startswith("$"):
            if key in OPERATORS:
                raise InvalidFilter(f'{here}: {key} belongs under a field: {{"field": {{"{key}": ...}}}}')
            raise InvalidFilter(f"{here}: unknown operator {key}; known are {', '.join(OPERATORS)}")
        else:
            path = tuple(key.split("."))
            if not all(path):
                raise InvalidFilter(f"{here}: a field name has an empty part")
            parts.append(_parse_field(path, value, here, depth + 1))
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def _parse_field(path: tuple[str, ...], condition: Any, at: str, depth: int) -> Filter:
    if depth > MAX_DEPTH:
        raise InvalidFilter(f"{at}: nested deeper than {MAX_DEPTH} levels; flatten the condition")
    if not isinstance(condition, Mapping):
        return _comparison(path, "$eq", condition, at, implicit=True)
    if not condition:
        raise InvalidFilter(f"{at}: the object is empty; give an operator such as $eq")
    parts: list[Filter] = []
    for op, value in condition.items():
        if not isinstance(op, str) or not op.startswith("$"):
            raise InvalidFilter(
                f'{at}: expected an operator, got {op!r}; reach into objects with dots: "{".".join(path)}.{op}"'
            )
        if op == "$not":
            parts.append(Not(_parse_field(path, value, f"{at}.$not", depth + 1)))
        elif op in ("$and", "$or"):
            raise InvalidFilter(f'{at}: {op} belongs above the field: {{"{op}": [{{...}}, {{...}}]}}')
        elif op == "$ne":
            parts.append(Not(_comparison(path, "$eq", value, at, shown="$ne")))
        elif op == "$nin":
            parts.append(Not(_comparison(path, "$in", value, at, shown="$nin")))
        elif op in OPERATORS:
            parts.append(_comparison(path, cast("Op", op), value, at))
        else:
            raise InvalidFilter(f"{at}: unknown operator {op}; known are {', '.join(OPERATORS)}")
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def _comparison(
    path: tuple[str, ...], op: Op, value: Any, at: str, *, shown: str | None = None, implicit: bool = False
) -> Filter:
    shown = shown or op
    if op == "$in":
        if not isinstance(value, list | tuple | set | frozenset):
            raise InvalidFilter(f"{at}: {shown} needs a list, got {_name(value)}")
        scalars = tuple(_scalar(v, at, f"{shown}[{i}]") for i, v in enumerate(value) if v is not None)
        among = Comparison(path, "$in", scalars)
        return Or((among, _absent(path))) if any(v is None for v in value) else among
    if op == "$exists":
        if not isinstance(value, bool):
            raise InvalidFilter(f"{at}: $exists needs true or false, got {_name(value)}")
        return Comparison(path, "$exists", True) if value else _absent(path)
    if op in ORDER_OPS:
        if isinstance(value, bool) or not isinstance(value, int | float | str | date):
            raise InvalidFilter(f"{at}: {shown} needs a number or a date, got {_name(value)}")
        bound = _scalar(value, at, shown)
        if isinstance(bound, str) and instant(bound) is None:
            raise InvalidFilter(
                f"{at}: {shown} needs a number or a date, got the string {bound!r}; dates are "
                "RFC 3339, such as 2024-05-31 or 2024-05-31T12:00:00Z"
            )
        return Comparison(path, op, bound)
    if op == "$eq" and value is None:
        return _absent(path)
    if implicit and isinstance(value, list | tuple | set | frozenset):
        raise InvalidFilter(f'{at}: a list is not a value to equal; use {{"$in": [...]}}')
    return Comparison(path, op, _scalar(value, at, shown))


def _absent(path: tuple[str, ...]) -> Filter:
    return Not(Comparison(path, "$exists", True))


def _scalar(value: Any, at: str, shown: str) -> Scalar:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise InvalidFilter(f"{at}: {shown} got a datetime without a time zone; give it one")
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        if value not in _INT64:
            raise InvalidFilter(f"{at}: {shown} got an integer over 64 bits")
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidFilter(f"{at}: {shown} needs a finite number, got {value}")
        return value
    raise InvalidFilter(f"{at}: {shown} needs a string, a number or a boolean, got {_name(value)}")


def _name(value: Any) -> str:
    return {dict: "object", type(None): "null", bool: "boolean", str: "string"}.get(type(value), type(value).__name__)


# --- evaluating ------------------------------------------------------------------------------------


def evaluate(condition: Filter | None, payload: Mapping[str, Any]) -> bool:
    """Whether a payload satisfies a condition: the reference for every store."""
    match condition:
        case None:
            return True
        case And(parts):
            return all(evaluate(p, payload) for p in parts)
        case Or(parts):
            return any(evaluate(p, payload) for p in parts)
        case Not(part):
            return not evaluate(part, payload)
        case Loose(part):
            return evaluate(part, payload)
        case Comparison(path, op, value):
            field = resolve(payload, path)
            if op == "$contains" and isinstance(field, str):
                return isinstance(value, str) and value in field
            if op == "$contains" and not isinstance(field, list | tuple):
                return False
            if field is None:
                return False
            values = field if isinstance(field, list | tuple) else (field,)
            if op == "$exists":
                return len(values) > 0
            if op == "$in":
                return any(_equal(v, w) for v in values for w in cast("tuple[Scalar, ...]", value))
            if op in ("$eq", "$contains"):
                return any(_equal(v, value) for v in values)
            return any(_ordered(v, op, value) for v in values)


def resolve(payload: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """The value at a path of object keys; None where any part is missing."""
    here: Any = payload
    for part in path:
        if not isinstance(here, Mapping):
            return None
        here = here.get(part)
    return here


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, bool) or isinstance(b, bool):
        return isinstance(a, bool) and isinstance(b, bool) and a == b
    if isinstance(a, int | float) and isinstance(b, int | float):
        return a == b
    if isinstance(a, str) and isinstance(b, str):
        return a == b or ((x := instant(a)) is not None and x == instant(b))
    return False


def _ordered(a: Any, op: Op, b: Any) -> bool:
    if isinstance(b, str):
        x, y = (instant(a) if isinstance(a, str) else None), instant(b)
        return x is not None and y is not None and _holds(x, op, y)
    if isinstance(a, bool) or not isinstance(a, int | float):
        return False
    return _holds(a, op, b)


def _holds(a: Any, op: Op, b: Any) -> bool:
    return bool(a > b if op == "$gt" else a >= b if op == "$gte" else a < b if op == "$lt" else a <= b)


_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d))?", re.ASCII
)


def instant(text: str) -> datetime | None:
    """The instant that an RFC 3339 date-time (with offset) or full date names; None for any other string.

    A full date is midnight UTC. Fractions are kept to the microsecond.
    """
    if len(text) < 10 or text[4] != "-" or (m := _RFC3339.fullmatch(text)) is None:
        return None
    year, month, day, hour, minute, second, fraction, offset = m.groups()
    try:
        if hour is None:
            return datetime(int(year), int(month), int(day), tzinfo=UTC)
        zone = "+00:00" if offset in "Zz" else offset
        micro = (fraction or "0")[:6].ljust(6, "0")
        stamp = f"{year}-{month}-{day}T{hour}:{minute}:{second}.{micro}{zone}"
        return datetime.fromisoformat(stamp).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


# --- transforming ----------------------------------------------------------------------------------


class Memo(Generic[T]):
    """What a function gives for a condition, kept for the last few. By identity, since to `==` True is 1."""

    def __init__(self, make: Callable[[Filter], T]) -> None:
        self._make = make
        self._kept: dict[int, tuple[Filter, T]] = {}  # the tree too, so that its id stays its own

    def __call__(self, condition: Filter) -> T:
        known = self._kept.get(id(condition))
        if known is not None:
            return known[1]
        made = self._make(condition)
        if len(self._kept) >= _KEPT:
            self.clear()
        self._kept[id(condition)] = (condition, made)
        return made

    def clear(self) -> None:
        self._kept = {}


def comparisons(condition: Filter | None) -> Iterator[Comparison]:
    """Every comparison of a tree."""
    match condition:
        case And(parts) | Or(parts):
            for p in parts:
                yield from comparisons(p)
        case Not(part) | Loose(part):
            yield from comparisons(part)
        case Comparison():
            yield condition


def under(condition: Filter | None, prefix: str) -> Filter | None:
    """The same condition on fields that live one object deeper: `year` becomes `prefix.year`.

    What begins with `_chunk.` stays outside of that object: `_chunk.page` becomes `page`.
    """
    match condition:
        case None:
            return None
        case And(parts):
            return And(tuple(cast("Filter", under(p, prefix)) for p in parts))
        case Or(parts):
            return Or(tuple(cast("Filter", under(p, prefix)) for p in parts))
        case Not(part):
            return Not(cast("Filter", under(part, prefix)))
        case Loose(part):
            return Loose(cast("Comparison", under(part, prefix)))
        case Comparison(path, op, value):
            return Comparison(path[1:] if is_own(path) else (prefix, *path), op, value)


def is_own(path: tuple[str, ...]) -> bool:
    """Whether a field is a passage's own, and not of its document's metadata."""
    return path[0] == OWN and len(path) > 1


def payload_path(field: str) -> str:
    """Where a field of a collection's conditions is in a record's payload."""
    return field.removeprefix(f"{OWN}.") if is_own(tuple(field.split("."))) else f"metadata.{field}"


def about_own(condition: Filter | None) -> bool:
    """Whether some field of a condition is a passage's own."""
    match condition:
        case And(parts) | Or(parts):
            return any(map(about_own, parts))
        case Not(part) | Loose(part):
            return about_own(part)
        case Comparison(path):
            return is_own(path)
    return False


Support = Literal["exact", "superset", "none"]


def upper_bound(condition: Filter, support: Callable[[Comparison], Support]) -> tuple[Filter, bool]:
    """The tightest condition that a store can run and that loses no match, and whether it is exact.

    Comparisons that the store supports exactly stay. Under an even number of `Not`s one that it can
    only over-match becomes `Loose`, and one that it cannot run becomes EVERYTHING; under an odd number
    both become NOTHING (a lower bound), so that the complement stays an upper bound.
    """
    exact = True

    def walk(node: Filter, positive: bool) -> Filter:
        nonlocal exact
        match node:
            case And(parts):
                return And(tuple(walk(p, positive) for p in parts))
            case Or(parts):
                return Or(tuple(walk(p, positive) for p in parts))
            case Not(part):
                return Not(walk(part, not positive))
            case Loose():
                return node
            case Comparison():
                how = support(node)
                if how == "exact":
                    return node
                exact = False
                if not positive:
                    return NOTHING
                return Loose(node) if how == "superset" else EVERYTHING

    return walk(condition, True), exact
