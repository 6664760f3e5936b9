"""Exact search in NumPy, in this process: the reference that every other store is compared with.

`memory:` is a fresh collection of its own; `memory:name` is one that this process shares by name and
keeps until it ends. Everything is exact and nothing is durable. Rows are only ever appended: an upsert
marks the row it replaces as dead, and once the dead outnumber the living all arrays are rebuilt.
"""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearest import filters
from nearest.contract import (
    Capabilities,
    Dense,
    Float32,
    Fused,
    Gap,
    Hit,
    Metric,
    Page,
    Query,
    Record,
    Schema,
    Sparse,
    SparseVector,
    Store,
    StoreURL,
    Text,
    VectorSpec,
    check_schema,
    fused_search,
)
from nearest.errors import InvalidInput, NotACollection, SchemaMismatch, StorageError
from nearest.filters import Filter
from nearest.stores._bm25 import K1, Analyzer, B

REQUIRES: dict[str, str] = {}
KNOWN_GAPS: tuple[Gap, ...] = ()

_COMPACT_FROM = 256  # dead rows; below that a rebuild is not worth its time
_BLOCK = 2048  # rows converted to float64 at once, so that the copy stays in the processor's cache

Float64 = NDArray[np.float64]


# --- growing arrays --------------------------------------------------------------------------------


class _Rows:
    """An array (n, d) that grows at its end; appending costs the rows that are appended, on average."""

    def __init__(self, width: int) -> None:
        self._data: Float32 = np.empty((0, width), np.float32)
        self._used = 0

    @property
    def view(self) -> Float32:
        return self._data[: self._used]

    def append(self, rows: Float32) -> None:
        end = self._used + len(rows)
        if end > len(self._data):
            grown = np.empty((max(end, 2 * len(self._data), 16), self._data.shape[1]), np.float32)
            grown[: self._used] = self.view
            self._data = grown
        self._data[self._used : end] = rows
        self._used = end

    def keep(self, mask: NDArray[np.bool_]) -> None:
        self._data = self.view[mask]
        self._used = len(self._data)


class _VectorField:
    """One dense or multi-vector field: the vectors of all rows, (n, d) or (sum of t, d)."""

    def __init__(self, spec: VectorSpec) -> None:
        self.spec = spec
        self._vectors = _Rows(spec.dim)
        self._starts = array("q")  # where a row's vectors begin; used for multi-vectors alone
        self._lengths = array("q")

    def append(self, values: Sequence[Float32]) -> None:
        if self.spec.multi:
            start = len(self._vectors.view)
            for value in values:
                self._starts.append(start)
                self._lengths.append(len(value))
                start += len(value)
        rows = np.concatenate(values) if self.spec.multi else np.stack(values)
        self._vectors.append(unit(rows) if self.spec.metric == "cosine" else rows)

    def get(self, row: int) -> Float32:
        if self.spec.multi:
            start = self._starts[row]
            return np.array(self._vectors.view[start : start + self._lengths[row]])
        return np.array(self._vectors.view[row])

    def scores(self, query: Float32) -> Float64:
        """Of every row, dead ones too; (n,)."""
        if not self.spec.multi:
            return similarities(self.spec.metric, self._vectors.view, query[None])[:, 0]
        if not self._starts:
            return np.empty(0)
        each = similarities(self.spec.metric, self._vectors.view, query)
        best: Float64 = np.maximum.reduceat(each, np.array(self._starts), axis=0)
        # MaxSim: each query vector counts its best match (Khattab and Zaharia, 2020).
        total: Float64 = best.sum(axis=1)
        return total

    def keep(self, mask: NDArray[np.bool_]) -> None:
        if not self.spec.multi:
            self._vectors.keep(mask)
            return
        lengths = np.array(self._lengths)
        self._vectors.keep(np.repeat(mask, lengths))
        kept = lengths[mask]
        self._lengths = array("q", kept.tolist())
        self._starts = array("q", (np.cumsum(kept) - kept).tolist())


class _Inverted:
    """Postings: for each key the rows that hold it and their weights, dead rows included."""

    def __init__(self) -> None:
        self._postings: dict[Any, tuple[array[int], array[float]]] = {}
        self._live: Counter[Any] = Counter()

    def add(self, row: int, weights: Iterable[tuple[Any, float]]) -> None:
        for key, weight in weights:
            rows, values = self._postings.setdefault(key, (array("q"), array("f")))
            rows.append(row)
            values.append(weight)
            self._live[key] += 1

    def forget(self, keys: Iterable[Any]) -> None:
        self._live.subtract(keys)

    def frequency(self, key: Any) -> int:
        """In how many living rows."""
        return self._live[key]

    def posting(self, key: Any) -> tuple[NDArray[np.int64], Float32]:
        rows, values = self._postings.get(key, (array("q"), array("f")))
        return np.array(rows, np.int64), np.array(values, np.float32)

    def keep(self, mask: NDArray[np.bool_]) -> None:
        moved = np.cumsum(mask) - 1
        for key in list(self._postings):
            rows, values = self.posting(key)
            alive = mask[rows]
            if alive.any():
                self._postings[key] = (array("q", moved[rows[alive]].tolist()), array("f", values[alive].tolist()))
            else:
                del self._postings[key]
                del self._live[key]


# --- scores ----------------------------------------------------------------------------------------


def unit(vectors: Float32) -> Float32:
    """The rows of (n, d) at length 1; none may be zero."""
    exact = vectors.astype(np.float64)
    scaled: Float32 = (exact / np.linalg.norm(exact, axis=1, keepdims=True)).astype(np.float32)
    return scaled


def similarities(metric: Metric, vectors: Float32, queries: Float32) -> Float64:
    """Every one of (n, d) against every one of (t, d), higher is better: (n, t).

    In float64, so that equal vectors score equal wherever they lie in the array. Under cosine the
    vectors are of unit length already.
    """
    wanted = queries.astype(np.float64)
    if metric == "cosine":
        wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    scores = np.empty((len(vectors), len(wanted)))
    for start in range(0, len(vectors), _BLOCK):
        block = vectors[start : start + _BLOCK].astype(np.float64)
        if metric == "l2":
            for i, query in enumerate(wanted):
                # Not by the expansion |x|^2 - 2xq + |q|^2, which loses close neighbours to rounding.
                gap = block - query
                scores[start : start + _BLOCK, i] = -np.sqrt(np.einsum("nd,nd->n", gap, gap))
        else:
            scores[start : start + _BLOCK] = block @ wanted.T
    return scores


class _TextIndex:
    """BM25 (Robertson and Zaragoza, 2009) over the collection's living records that hold a text."""

    def __init__(self, language: str) -> None:
        self._analyzer = Analyzer(language)
        self._terms = _Inverted()
        self._lengths = array("d")  # by row; 0 where there is no text
        self._texts: dict[int, list[str]] = {}
        self._total = 0

    def append(self, text: str | None) -> None:
        row = len(self._lengths)
        terms = [] if text is None else self._analyzer.terms(text)
        self._lengths.append(len(terms))
        if text is None:
            return
        counts = Counter(terms)
        self._terms.add(row, counts.items())
        self._texts[row] = list(counts)
        self._total += len(terms)

    def forget(self, row: int) -> None:
        if row in self._texts:
            self._terms.forget(self._texts.pop(row))
            self._total -= int(self._lengths[row])

    def scores(self, text: str, size: int) -> tuple[Float64, NDArray[np.bool_]]:
        """Of every row, and which rows hold a term of the text at all."""
        scores, found = np.zeros(size), np.zeros(size, np.bool_)
        count = len(self._texts)
        mean = self._total / count if count else 0.0
        lengths = np.array(self._lengths)
        for term in dict.fromkeys(self._analyzer.terms(text)):
            holding = self._terms.frequency(term)
            if not holding:
                continue
            rows, times = self._terms.posting(term)
            idf = np.log(1 + (count - holding + 0.5) / (holding + 0.5))
            scores[rows] += idf * times * (K1 + 1) / (times + K1 * (1 - B + B * lengths[rows] / mean))
            found[rows] = True
        return scores, found

    def keep(self, mask: NDArray[np.bool_]) -> None:
        moved = np.cumsum(mask) - 1
        self._terms.keep(mask)
        self._lengths = array("d", np.array(self._lengths)[mask].tolist())
        self._texts = {int(moved[row]): terms for row, terms in self._texts.items()}


# --- the collection --------------------------------------------------------------------------------


class _Collection:
    """The data behind one or more `MemoryStore`s. Callers hold `lock`."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.lock = threading.RLock()
        self.rows: dict[str, int] = {}
        self.ids: list[str] = []
        self.payloads: list[dict[str, Any]] = []
        self._dense = {name: _VectorField(spec) for name, spec in schema.vectors.items()}
        self._sparse: dict[str, dict[int, SparseVector]] = {name: {} for name in schema.sparse}
        self._sparse_index = {name: _Inverted() for name in schema.sparse}
        self._text = None if schema.text is None else _TextIndex(schema.language)
        self._alive = bytearray()
        self._sorted: list[str] | None = []

    def append(self, records: Sequence[Record]) -> None:
        self.remove(record.id for record in records)
        for name, field in self._dense.items():
            field.append([record.vectors[name] for record in records])
        for record in records:
            row = len(self.ids)
            self.rows[record.id] = row
            self.ids.append(record.id)
            self.payloads.append(_copy(record.payload))
            self._alive.append(1)
            for name in self.schema.sparse:
                if (vector := record.vectors.get(name)) is not None:
                    self._sparse[name][row] = _copy_sparse(vector)
                    pairs = zip(vector.indices.tolist(), vector.values.tolist(), strict=True)
                    self._sparse_index[name].add(row, pairs)
            if self._text is not None:
                self._text.append(filters.resolve(record.payload, tuple((self.schema.text or "").split("."))))
        self._sorted = None

    def remove(self, ids: Iterable[str]) -> None:
        for record_id in ids:
            row = self.rows.pop(record_id, None)
            if row is None:
                continue
            self._sorted = None
            self._alive[row] = 0
            self.payloads[row] = {}
            for name, vectors in self._sparse.items():
                if row in vectors:
                    self._sparse_index[name].forget(vectors.pop(row).indices.tolist())
            if self._text is not None:
                self._text.forget(row)
        dead = len(self.ids) - len(self.rows)
        if dead > max(len(self.rows), _COMPACT_FROM):
            self._compact()

    def _compact(self) -> None:
        mask = self.alive
        moved = np.cumsum(mask) - 1
        for field in self._dense.values():
            field.keep(mask)
        for name, vectors in self._sparse.items():
            self._sparse[name] = {int(moved[row]): vector for row, vector in vectors.items()}
            self._sparse_index[name].keep(mask)
        if self._text is not None:
            self._text.keep(mask)
        self.payloads = [payload for payload, alive in zip(self.payloads, mask, strict=True) if alive]
        self.ids = [record_id for record_id, alive in zip(self.ids, mask, strict=True) if alive]
        self.rows = {record_id: row for row, record_id in enumerate(self.ids)}
        self._alive = bytearray(b"\1" * len(self.ids))

    @property
    def alive(self) -> NDArray[np.bool_]:
        return np.frombuffer(bytes(self._alive), np.bool_)

    def in_order(self) -> list[str]:
        if self._sorted is None:
            self._sorted = sorted(self.rows)
        return self._sorted

    def matches(self, row: int, where: Filter | None) -> bool:
        return where is None or filters.evaluate(where, self.payloads[row])

    def vectors(self, row: int) -> dict[str, Any]:
        found: dict[str, Any] = {name: field.get(row) for name, field in self._dense.items()}
        return found | {name: _copy_sparse(held[row]) for name, held in self._sparse.items() if row in held}

    def record(self, row: int, with_vectors: bool) -> Record:
        return Record(self.ids[row], self.vectors(row) if with_vectors else {}, _copy(self.payloads[row]))

    def search(self, query: Query) -> list[Hit]:
        scores, found = self._scores(query.find)
        rows = np.flatnonzero(found)
        # Scores are told in float32, like the vectors: what differs by less is a tie, and a cosine that rounding
        # of a stored vector raised above 1 is 1. Adding 0 turns -0 into 0.
        told = scores[rows].astype(np.float32) + np.float32(0)
        best: list[tuple[float, str, int]] = []
        for place in np.argsort(-told, kind="stable").tolist():
            score, row = float(told[place]), int(rows[place])
            if len(best) >= query.k and score < -best[-1][0]:
                break
            if self.matches(row, query.where):
                best.append((-score, self.ids[row], row))
        best.sort()
        return [
            Hit(
                record_id,
                self.vectors(row) if query.with_vectors else {},
                _copy(self.payloads[row]) if query.with_payload else {},
                -negated,
            )
            for negated, record_id, row in best[: query.k]
        ]

    def _scores(self, find: Dense | Sparse | Text | Fused) -> tuple[Float64, NDArray[np.bool_]]:
        """Of every row, and which rows are found: all by a dense vector, else those that share a key."""
        alive, size = self.alive, len(self.ids)
        match find:
            case Dense(vector, using):
                return self._dense[using].scores(np.asarray(vector, np.float32)), alive
            case Sparse(vector, using):
                scores, found = np.zeros(size), np.zeros(size, np.bool_)
                for key, weight in zip(vector.indices.tolist(), vector.values.tolist(), strict=True):
                    rows, values = self._sparse_index[using].posting(key)
                    scores[rows] += weight * values.astype(np.float64)
                    found[rows] = True
                return scores, found & alive
            case Text(text) if self._text is not None:
                scores, found = self._text.scores(text, size)
                return scores, found & alive
        raise AssertionError(f"{find} was checked before")


# --- the store -------------------------------------------------------------------------------------


class MemoryStore(Store):
    """A handle to one collection; closing it ends the handle, not a named collection's data."""

    capabilities = Capabilities(
        features=frozenset(
            {"dense", "sparse", "multi_vector", "named_vectors", "text", "cosine", "dot", "l2", "exact"}
        ),
        filters=frozenset({"$eq", "$in", *filters.ORDER_OPS, "$exists", "$contains"}),
    )

    def __init__(self, collection: _Collection) -> None:
        self.schema = collection.schema
        self._collection = collection
        self._closed = False

    @classmethod
    def create(cls, schema: Schema) -> MemoryStore:
        """A fresh collection of its own. Raises UnsupportedError for what cannot be held."""
        check_schema(schema, cls.capabilities)
        return cls(_Collection(schema))

    def stats(self) -> dict[str, Any]:
        return {"index": "none; search is exact"}

    def close(self) -> None:
        self._closed = True

    @property
    def _data(self) -> _Collection:
        if self._closed:
            raise StorageError("the collection was closed; open it again")
        return self._collection

    def _upsert(self, records: list[Record]) -> None:
        with self._data.lock:
            self._data.append(records)

    def _delete(self, ids: list[str]) -> None:
        with self._data.lock:
            self._data.remove(ids)

    def _delete_where(self, where: Filter) -> None:
        data = self._data
        with data.lock:
            data.remove([i for i, row in data.rows.items() if data.matches(row, where)])

    def _get(self, ids: list[str], with_vectors: bool) -> list[Record]:
        data = self._data
        with data.lock:
            return [data.record(data.rows[i], with_vectors) for i in ids if i in data.rows]

    def _count(self, where: Filter | None) -> int:
        data = self._data
        with data.lock:
            return sum(data.matches(row, where) for row in data.rows.values())

    def _scan(self, cursor: str | None, limit: int, where: Filter | None, with_vectors: bool) -> Page:
        data = self._data
        with data.lock:
            ids = data.in_order()
            found: list[Record] = []
            for place in range(0 if cursor is None else bisect_right(ids, cursor), len(ids)):
                row = data.rows[ids[place]]
                if not data.matches(row, where):
                    continue
                if len(found) == limit:
                    return Page(found, found[-1].id)
                found.append(data.record(row, with_vectors))
            return Page(found, None)

    def _search_many(self, queries: list[Query]) -> list[list[Hit]]:
        data = self._data
        with data.lock:  # for all of them, so that the parts of a fused query see one state
            return [fused_search(self, [q])[0] if isinstance(q.find, Fused) else data.search(q) for q in queries]


STORE = MemoryStore

_named: dict[str, _Collection] = {}
_naming = threading.Lock()


def connect(url: StoreURL, schema: Schema | None) -> MemoryStore:
    """`memory:` makes a fresh collection, `memory:name` opens the one of that name or, with a schema, makes it.

    Raises NotACollection without a schema where there is none, and SchemaMismatch for another schema.
    """
    if url.options:
        raise InvalidInput(f"memory: takes no options, got {', '.join(url.options)}")
    name = url.location
    with _naming:
        found = _named.get(name)
        if found is None:
            if schema is None:
                raise NotACollection(f"no collection {url.text} in this process; to make one, give a schema")
            store = MemoryStore.create(schema)
            if name:
                _named[name] = store._collection
            return store
        if schema is not None and schema != found.schema:
            was, now = found.schema.to_json(), schema.to_json()
            differing = [f"{part} was {was[part]}, now {now[part]}" for part in was if was[part] != now[part]]
            raise SchemaMismatch(f"{url.text} was made with another schema: {'; '.join(differing)}")
        return MemoryStore(found)


def _copy(value: Any) -> Any:
    """JSON, so that no caller shares what is stored."""
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copy(item) for item in value]
    return value


def _copy_sparse(vector: SparseVector) -> SparseVector:
    return SparseVector(vector.indices.copy(), vector.values.copy())
