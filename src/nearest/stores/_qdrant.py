"""The dialect of the Qdrant family: ids, payloads, filters and what is found, for every store of that family.

How a condition is spelled (`Builder`) and how the engine is called (`Dialect`) differ between the embedded engine's
classes and the server's models; what they mean, and which conditions Qdrant runs exactly, does not.

Qdrant keeps payloads as JSON that it reads without the last care: a float of more than 15 digits may come back one
unit in the last place off. `packed` keeps such a payload as text beside, so that records come back as they were;
conditions are about what the engine read, so there a stored float of that many digits may count as its neighbour.
"""

from __future__ import annotations

import copy
import json
import uuid
from abc import abstractmethod
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, cast

import numpy as np

from nearest import filters
from nearest.contract import (
    Dense,
    Fused,
    Hit,
    Query,
    Record,
    Schema,
    Sparse,
    SparseVector,
    Store,
    Text,
    explain_parts,
    fused_scores,
)
from nearest.errors import InvalidRecord
from nearest.filters import And, Comparison, Filter, Loose, Not, Or, Scalar

ID_KEY = "nearest:id"
"""Payload key that keeps the user's own id where the point's UUID does not tell it."""
EXACT_KEY = "nearest:json"
"""Payload key that keeps the whole payload as JSON text where the engine would alter a float."""
TIES = 2
"""Reciprocal ranks tie often, and the engine cuts among equals as it likes: this many more than k are asked for."""

_FETCHED = 1000  # points a call
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


def check(record: Record) -> None:
    """Raises InvalidRecord for a payload key that is taken."""
    for taken in (ID_KEY, EXACT_KEY):
        if taken in record.payload:
            raise InvalidRecord(f"record {record.id!r}: the payload key {taken!r} is taken; rename yours")


def packed(record: Record, point: str) -> dict[str, Any]:
    """The payload of the point that holds a record, which has passed `check`."""
    payload = dict(record.payload)
    if not _survives(payload):
        payload[EXACT_KEY] = json.dumps(record.payload, ensure_ascii=False, separators=(",", ":"))
    if point != record.id:
        payload[ID_KEY] = record.id
    return payload


def _survives(value: Any) -> bool:
    """Whether the engine's reader of JSON, exact for decimals of up to 15 digits, alters no float within."""
    if isinstance(value, float):
        text = repr(value)
        return len(text) <= 16 and "e" not in text
    if isinstance(value, dict):
        return all(map(_survives, value.values()))
    return not isinstance(value, list) or all(map(_survives, value))


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


# --- what is found ---------------------------------------------------------------------------------


class Dialect(Store):
    """Searches and records as every store of the family has them; a store adds how its engine is called.

    A point, as the engines tell it, has `id`, `payload`, `vector` (by name) and, if it was searched for, `score`.
    fresh: its payload is made anew at each reading.
    """

    fresh: ClassVar[bool] = False

    @abstractmethod
    def _requests(self, query: Query) -> list[Any]:
        """One request, or one for each part of a query that is fused here."""

    @abstractmethod
    def _run(self, requests: list[Any]) -> Sequence[Sequence[Any]]:
        """The points that each request finds, best first."""

    @abstractmethod
    def _fetch(self, keys: list[Any], with_vectors: bool) -> Sequence[Any]:
        """The points of some keys, with their payloads."""

    @abstractmethod
    def _keys(self, points: Sequence[Any]) -> list[Hashable]:
        """What names a point, as cheaply as the engine's ids allow."""

    def filter_support(self, comparison: Comparison) -> filters.Support:
        return support(self.schema, comparison)

    def _fuses(self, query: Query, find: Fused) -> bool:
        """By reciprocal rank, without weights, and with no parts to explain."""
        return find.method == "rrf" and find.weights is None and not query.explain

    def _search_many(self, queries: list[Query]) -> list[list[Hit]]:
        asked = [self._requests(query) for query in queries]
        answers = iter(self._run([request for each in asked for request in each]))
        found = [[next(answers) for _ in each] for each in asked]
        fused = {
            i: self._fused(query, query.find, found[i])
            for i, query in enumerate(queries)
            if isinstance(query.find, Fused) and not self._fuses(query, query.find)
        }
        wanted = Counter(key for best in fused.values() for key in best) if fused else {}
        points = self._points(list(wanted), any(query.with_vectors for query in queries)) if wanted else {}
        hits = [
            [self._hit(points[key], *told, query, wanted[key] > 1) for key, told in fused[i].items() if key in points]
            if i in fused
            else self._answer(query, found[i][0])
            for i, query in enumerate(queries)
        ]
        for some in hits:
            some.sort(key=lambda hit: (-hit.score, hit.id))
        return [some[: query.k] for query, some in zip(queries, hits, strict=True)]

    def _answer(self, query: Query, points: Sequence[Any]) -> list[Hit]:
        scores = self._scores(query.find, points)
        return [self._hit(point, score, None, query) for point, score in zip(points, scores, strict=True)]

    def _points(self, keys: list[Any], with_vectors: bool) -> dict[Hashable, Any]:
        """Without those that were deleted meanwhile."""
        found: dict[Hashable, Any] = {}
        for start in range(0, len(keys), _FETCHED):
            points = self._fetch(keys[start : start + _FETCHED], with_vectors)
            found.update(zip(self._keys(points), points, strict=True))
        return found

    def _scores(self, part: Dense | Sparse | Text | Fused, points: Sequence[Any]) -> list[float]:
        """The contract's scores of what the engine found, best first."""
        scores = [point.score for point in points]
        if isinstance(part, Dense) and scores:
            spec = self.schema.vectors[part.using]
            if spec.metric == "l2":  # the engine reports a distance
                return [-score for score in scores]
            # Rounding takes a cosine a little beyond 1.
            if spec.metric == "cosine" and not spec.multi and (scores[0] > 1 or scores[-1] < -1):
                return [min(1.0, max(-1.0, score)) for score in scores]
        return scores

    def _fused(
        self, query: Query, find: Fused, answers: Sequence[Sequence[Any]]
    ) -> dict[Hashable, tuple[float, dict[str, Any] | None]]:
        """Score and explanation of the k best by their keys, and of those that tie with the last of them.

        Ties are broken by the user's ids, which are in the payloads, and those are fetched for the best alone.
        """
        rankings: list[list[tuple[Hashable, float]]] = [
            list(zip(self._keys(points), self._scores(part, points), strict=True))
            for part, points in zip(find.parts, answers, strict=True)
        ]
        fused = fused_scores(find, rankings)
        if not fused:
            return {}
        last = sorted(fused.values(), reverse=True)[: query.k][-1]
        best = [key for key, score in fused.items() if score >= last]
        told = explain_parts(find, rankings, best) if query.explain else {}
        return {key: (fused[key], told.get(key)) for key in best}

    def _hit(self, point: Any, score: float, explain: dict[str, Any] | None, query: Query, shared: bool = False) -> Hit:
        """shared: another query found the point too, and each hit's payload is its own."""
        record_id, payload = self._own(point)
        if shared and not self.fresh:
            payload = copy.deepcopy(payload)
        vectors = self._vectors(point.vector) if query.with_vectors else {}
        return Hit(record_id, vectors, payload if query.with_payload else {}, score, explain)

    def _record(self, point: Any) -> Record:
        record_id, payload = self._own(point)
        return Record(record_id, self._vectors(point.vector) if point.vector else {}, payload)

    def _own(self, point: Any) -> tuple[str, dict[str, Any]]:
        """A record's id and payload, as they were given."""
        payload = dict(point.payload or {})
        own = payload.pop(ID_KEY, None)
        if EXACT_KEY in payload:
            payload = json.loads(payload[EXACT_KEY])
        return str(point.id) if own is None else own, payload

    def _vectors(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: np.asarray(value, np.float32)
            if name in self.schema.vectors
            else SparseVector(np.asarray(value.indices, np.uint32), np.asarray(value.values, np.float32))
            for name, value in stored.items()
        }
