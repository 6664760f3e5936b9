"""Weaviate: a server, a cluster or the cloud service, 1.33 or newer, over its REST and gRPC interfaces.

    weaviate://[KEY@]HOST[:8080]/COLLECTION?option=value&...

KEY is the API key (percent-encoded); without it the environment's NEAREST_WEAVIATE_API_KEY or WEAVIATE_API_KEY is
used. Options of the connection:
    tls             true or false; true where there is a key, else false. Both ports are then 443 unless told
    grpc            the gRPC port, 50051
    grpc_host       where gRPC has a host of its own, as in the cloud service
    tenant          one tenant of a multi-tenant collection, as a collection of its own
    consistency     one, quorum or all: the replicas that must answer; the server's default is quorum
    timeout         seconds a call may take, 60
    async_indexing  true where the server has ASYNC_INDEXING: a search sees a write after `wait()` alone
Options of creation, which an existing collection keeps:
    index           hnsw, or flat (which is exact, and for small tenants)
    quantizer       scalar: rq (rotational, 8 bits; no training) or sq; binary: bq or rq (rotational, 1 bit)
    shards, replicas
                    whole numbers of 1 or more

A collection's description keeps its schema; it is made with the collection in one request, so that a creation is
complete or absent. Each record is an object under the UUIDv5 of its id, with these properties:

    record, payload   the id, and the payload as JSON text; neither is indexed
    tokens            text[] of whole values: what `tokens` makes of the payload. Weaviate's own properties
                      would need every field's type declared, would round integers, would not tell 1 from 1.0 from
                      a list, and filter dates of the years 1678 to 2262 alone; over tokens every comparison but a
                      substring is exact, on any field, declared or not (so no null or length index is needed)
    low_N, high_N     least and greatest value of the Nth declared field, by name, if integer, float or datetime:
                      numbers with a range index. Some value is above a bound exactly if the greatest is
    terms             the text's words as `_bm25.Analyzer` makes them, for Weaviate's BM25: it neither stems nor has
                      the same stop words, and a word must mean the same on every store
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import struct
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote, unquote, urlsplit

import numpy as np

from nearest import filters
from nearest.contract import (
    MAX_K,
    Capabilities,
    Dense,
    Fused,
    Gap,
    Hit,
    IndexParams,
    Page,
    Query,
    Record,
    Schema,
    Sparse,
    Store,
    StoreURL,
    Text,
    VectorSpec,
    canonical_json,
    check_schema,
    fused_search,
)
from nearest.errors import (
    AccessDenied,
    BatchFailed,
    CollectionDamaged,
    ConnectionFailed,
    DiskFull,
    InvalidInput,
    InvalidRecord,
    MissingDependency,
    NearestError,
    NotACollection,
    ReadOnly,
    SchemaMismatch,
    StorageError,
    Throttled,
    TimedOut,
    UnsupportedError,
)
from nearest.filters import ORDER_OPS, And, Comparison, Filter, Loose, Not, Or, Scalar
from nearest.stores._bm25 import K1, Analyzer, B
from nearest.stores._grpc import RECONNECT, reaching

if TYPE_CHECKING:
    from weaviate import WeaviateClient
    from weaviate.collections.classes.filters import _Filters as Condition

REQUIRES = {"weaviate-client": ">=4.20,<5"}
KNOWN_GAPS: tuple[Gap, ...] = ()
IDENTITY = ("tenant",)

_OLDEST = (1, 33)  # has the operator Not
_NAMESPACE = uuid.UUID("1c0ff7b2-30c4-5a5c-9d26-6f7c43d0a3ce")
_NIL = uuid.UUID(int=0)
_EXACT = 2**53  # Weaviate's numbers are float64, which holds integers exactly up to here
_LONG = 256  # characters of a string above which its token is a hash
_BATCH, _REQUESTS = 1000, 2  # objects a request, and requests at once: one is packed while another is indexed
_SEARCHES = 8  # requests at once
_IDS = 1000  # objects named in one request
_HYBRID = 100  # candidates that Weaviate's hybrid search takes of each part, or its limit if that is more
_POLL = 0.05  # seconds between questions whether vectors are indexed
_as_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


# --- payloads as tokens ----------------------------------------------------------------------------

_EVERY = "*"  # in all objects
_NONE = "!"  # in none


def tokens(payload: Mapping[str, Any]) -> list[str]:
    """What conditions are about, one token each; a path's keys are percent-encoded, so that marks tell where it ends.

    `*`, in all; `path`, which has a value; `path"text"`, `path'hash of a long text`, `path#number`, `path@instant`
    and `path!true`, for a value there or in a list there; the same after `path[]`, for an element of a list.
    """
    made = [_EVERY]
    _walk(payload, "", made)
    return made


def _walk(node: Mapping[str, Any], above: str, made: list[str]) -> None:
    for key, value in node.items():
        # No path of a condition reaches a key that is empty or has a dot.
        if value is None or not key or "." in key:
            continue
        path = above + _quoted(key)
        if isinstance(value, list):
            if value:
                made.append(path)
            for element in value:
                if isinstance(element, str | int | float):
                    token = _token(element)
                    made += (path + token, f"{path}[]{token}")
            continue
        made.append(path)
        if isinstance(value, dict):
            _walk(value, path + ".", made)
        else:
            made.append(path + _token(value))


@lru_cache(4096)
def _quoted(key: str) -> str:
    return quote(key, safe="")


def _token(value: Scalar) -> str:
    """Equal for two values exactly if the values are equal (of long texts, as surely as SHA-256 can say)."""
    if isinstance(value, bool):
        return "!true" if value else "!false"
    if isinstance(value, str):
        if (at := filters.instant(value)) is not None:
            return "@" + _digits((at - _EPOCH) // _MICROSECOND)
        if len(value) > _LONG:
            return "'" + hashlib.sha256(value.encode()).hexdigest()
        return f'"{_escaped(value)}"'
    return "#" + _digits(value)


def _escaped(text: str) -> str:
    # Weaviate's wildcard does not reach across the end of a line.
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _digits(value: float) -> str:
    """19 hexadecimal digits that sort as the numbers do: the next float64 not above it, and what is left."""
    whole = float(value) + 0.0  # -0 is 0
    if whole > value:
        whole = math.nextafter(whole, -math.inf)
    left = value - int(whole) if isinstance(value, int) else 0
    bits: int = struct.unpack(">Q", struct.pack(">d", whole))[0]
    # Floats sort by their bits once the sign is turned over, and of negative ones all bits.
    ordered = bits ^ (2**64 - 1) if bits >> 63 else bits | 1 << 63
    return f"{ordered:016x}{left:03x}"


def _beyond(digits: str, above: bool) -> Iterator[str]:
    """Prefixes of all texts of digits that sort above, or below, these."""
    for i, digit in enumerate(digits):
        for other in "0123456789abcdef":
            if other > digit if above else other < digit:
                yield digits[:i] + other


def _span(payload: Mapping[str, Any], path: tuple[str, ...], dates: bool) -> tuple[float, float] | None:
    """The least and the greatest value of a declared field, as float64; dates in microseconds since 1970."""
    found = filters.resolve(payload, path)
    values = [v for v in (found if isinstance(found, list) else (found,)) if v is not None]
    if not values:
        return None
    if dates:
        values = [(cast("datetime", filters.instant(v)) - _EPOCH) // _MICROSECOND for v in values]
    return float(min(values)) + 0.0, float(max(values)) + 0.0


# --- the store -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Creation:
    """What a collection is made with, beyond its schema."""

    index: str = "hnsw"
    quantizer: str = ""
    shards: int | None = None
    replicas: int | None = None


class WeaviateStore(Store):
    capabilities = Capabilities(
        features=frozenset(
            {
                "dense", "named_vectors", "text", "native_fusion", "cosine", "dot", "l2", "hnsw", "scalar", "product",
                "binary", "payload_index", "durable",
            }
        ),
        filters=frozenset({"$eq", "$in", *ORDER_OPS, "$exists"}),
        max_batch=10_000,
        remote=True,
    )  # fmt: skip

    def __init__(
        self, client: WeaviateClient, collection: Any, schema: Schema, place: str, options: Options, creation: Creation
    ) -> None:
        """On a collection that is there. place: what errors call it."""
        from weaviate.classes.data import DataObject
        from weaviate.classes.query import Filter as Where
        from weaviate.classes.query import MetadataQuery

        self.schema = schema
        self._client: WeaviateClient | None = client
        self._collection = collection
        self._place = place
        self._timeout = options.timeout
        self._tenant = options.tenant
        self._object: Any = DataObject
        self._where: Any = Where
        self._distance, self._scored = MetadataQuery(distance=True), MetadataQuery(score=True)
        self._flat = creation.index == "flat"
        self._vectors = _vector_names(schema)
        self._named = {ours: name for name, ours in self._vectors.items()}
        self._spans = [
            (number, tuple(path.split(".")), kind == "datetime")
            for number, (path, kind) in enumerate(sorted(schema.fields.items()))
            if kind in ("integer", "float", "datetime")
        ]
        self._ranged = {path: (number, dates) for number, path, dates in self._spans}
        self._text = None if schema.text is None else tuple(schema.text.split("."))
        self._analyzer = None if schema.text is None else Analyzer(schema.language)
        declared = type(self).capabilities
        self.capabilities = replace(  # type: ignore[misc]
            declared,
            features=declared.features - {"hnsw", "scalar", "product"} | {"exact"} if self._flat else declared.features,
            read_your_writes=not options.async_indexing,
        )

    def close(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            client.close()

    @property
    def _open(self) -> Any:
        if self._client is None:
            raise StorageError(f"{self._place} was closed; open it again")
        return self._collection

    def _errors(self) -> contextlib.AbstractContextManager[None]:
        return _errors(self._place)

    # --- writing ---

    def _upsert(self, records: list[Record]) -> None:
        batches = [records[start : start + _BATCH] for start in range(0, len(records), _BATCH)]
        failed: dict[str, NearestError] = {}
        if len(batches) == 1:
            self._write(records, failed)
        else:
            with ThreadPoolExecutor(_REQUESTS) as pool:
                list(pool.map(lambda batch: self._write(batch, failed), batches))
        if failed:
            failed = {record.id: failed[record.id] for record in records if record.id in failed}
            raise BatchFailed.of(failed, len(records))

    def _write(self, records: list[Record], failed: dict[str, NearestError]) -> None:
        self._send(records, [self._packed(record) for record in records], failed)

    def _packed(self, record: Record) -> Any:
        payload = record.payload
        properties: dict[str, Any] = {
            "record": record.id,
            "payload": _as_json(payload),
            "tokens": tokens(payload),
        }
        for number, path, dates in self._spans:
            if (span := _span(payload, path, dates)) is not None:
                properties[f"low_{number}"], properties[f"high_{number}"] = span
        if self._analyzer is not None and self._text is not None:
            text = filters.resolve(payload, self._text)
            if text:
                properties["terms"] = " ".join(self._analyzer.terms(text))
        vectors = {self._vectors[name]: vector.tolist() for name, vector in record.vectors.items()}
        return self._object(properties=properties, uuid=_uuid(record.id), vector=vectors or None)

    def _send(self, records: list[Record], objects: list[Any], failed: dict[str, NearestError]) -> None:
        """In one request, or in halves of it where that is larger than the server takes."""
        from weaviate.exceptions import WeaviateInsertManyAllFailedError

        try:
            with self._errors():
                try:
                    answer = self._open.data.insert_many(objects)
                except WeaviateInsertManyAllFailedError as error:
                    failed |= {record.id: _refusal(record.id, error.message) for record in records}
                    return
        except InvalidInput as error:
            if not error.context.get("too_large"):
                raise
            if len(records) == 1:
                failed[records[0].id] = InvalidRecord(f"record {records[0].id!r}: {error}; make its payload smaller")
                return
            half = len(records) // 2
            self._send(records[:half], objects[:half], failed)
            self._send(records[half:], objects[half:], failed)
            return
        for place, refused in answer.errors.items():
            record_id = records[place].id
            failed[record_id] = _refusal(record_id, refused.message)

    def _delete(self, ids: list[str]) -> None:
        for start in range(0, len(ids), _IDS):
            some = [_uuid(i) for i in ids[start : start + _IDS]]
            self._delete_some(self._where.by_id().contains_any(some))

    def _delete_where(self, where: Filter) -> None:
        condition = self._condition(where)
        while self._delete_some(condition):  # a call deletes 10,000 at most
            pass

    def _delete_some(self, condition: Condition) -> bool:
        """Whether any was there to delete."""
        with self._errors():
            done = self._open.data.delete_many(condition)
        if done.failed:
            raise StorageError(f"{self._place}: {done.failed} of {done.matches} records could not be deleted")
        return bool(done.successful)

    def wait(self) -> None:
        """Until all vectors are indexed; raises TimedOut after as many seconds as a call may take, without progress."""
        least, since = math.inf, time.monotonic()
        while (left := sum(shard.vector_queue_length for shard in self._shards())) > 0:
            if left < least:
                least, since = left, time.monotonic()
            elif time.monotonic() - since > self._timeout:
                raise TimedOut(f"{self._place}: {left} vectors wait to be indexed, and none was for {self._timeout} s")
            time.sleep(_POLL)

    def optimize(self) -> None:
        """Weaviate indexes by itself, when an object is written or, with async_indexing, soon after."""
        self.wait()

    def stats(self) -> dict[str, Any]:
        shards = self._shards()
        state = ", ".join(sorted({shard.vector_indexing_status.lower() for shard in shards}))
        waiting = sum(shard.vector_queue_length for shard in shards)
        indexed = max(0, sum(shard.object_count for shard in shards) - waiting) if self._vectors else 0
        return {"index": f"{'flat' if self._flat else 'hnsw'}, {state}", "indexed": indexed}

    def _shards(self) -> list[Any]:
        name = self._open.name
        with self._errors():
            assert self._client is not None
            nodes = self._client.cluster.nodes(name, output="verbose")
        shards = [shard for node in nodes for shard in node.shards or () if shard.collection == name]
        return [shard for shard in shards if self._tenant in (None, shard.name)]

    # --- conditions ---

    def filter_support(self, comparison: Comparison) -> filters.Support:
        # A text's token does not tell it from an element of a list; that of a long text or of a date, not its letters.
        substring = comparison.op == "$contains" and isinstance(comparison.value, str)
        return "superset" if substring else "exact"

    def _condition(self, where: Filter) -> Condition:
        # For what is listed, counted or deleted; a search takes the bare condition. What is inverted is so within all
        # numbers ever given to objects, unless an object must have something besides; and a range alone is cut at the
        # limit before it is sorted.
        return cast("Condition", self._where.all_of([self._token(_EVERY), self._translated(where)]))

    def _token(self, token: str) -> Any:
        return self._where.by_property("tokens").equal(token)

    def _translated(self, where: Filter) -> Any:
        match where:
            case And(()):
                return self._token(_EVERY)
            case Or(()):
                return self._token(_NONE)
            case And(parts):
                return self._where.all_of([self._translated(part) for part in parts])
            case Or(parts):
                return self._where.any_of([self._translated(part) for part in parts])
            case Not(part):
                return self._where.not_(self._translated(part))
            case Loose(part):
                return self._translated(part)
            case Comparison(path, op, value):
                return self._comparison(path, op, value)

    def _comparison(self, keys: tuple[str, ...], op: str, value: Scalar | tuple[Scalar, ...]) -> Any:
        path = ".".join(map(_quoted, keys))
        match op, value:
            case "$exists", _:
                return self._token(path)
            case "$in", tuple():
                some = list(dict.fromkeys(path + _token(one) for one in value))
                return self._where.by_property("tokens").contains_any(some) if some else self._token(_NONE)
            case "$eq", str() | int() | float():
                return self._token(path + _token(value))
            case "$contains", str() | int() | float():
                element = self._token(f"{path}[]{_token(value)}")
                if not isinstance(value, str):
                    return element
                likes = (f'{path}"*{_escaped(value)}*"', f"{path}'*", f"{path}@*")
                return self._where.any_of([element, *map(self._like, likes)])
            case _, str() | int() | float():
                return self._order(keys, path, op, value)
        raise AssertionError(f"{op} {value!r} was checked before")

    def _like(self, pattern: str) -> Any:
        return self._where.by_property("tokens").like(pattern)

    def _order(self, keys: tuple[str, ...], path: str, op: str, value: Scalar) -> Any:
        above = op in ("$gt", "$gte")
        number, dates = self._ranged.get(keys, (None, False))
        at = filters.instant(value) if isinstance(value, str) else None
        bound = value if at is None else (at - _EPOCH) // _MICROSECOND
        assert not isinstance(bound, str)
        if number is not None and dates == (at is not None) and abs(bound) < _EXACT:
            ends = self._where.by_property(f"high_{number}" if above else f"low_{number}")
            compare = {
                "$gt": ends.greater_than, "$gte": ends.greater_or_equal,
                "$lt": ends.less_than, "$lte": ends.less_or_equal,
            }[op]  # fmt: skip
            return compare(float(bound) + 0.0)
        token = _token(value)
        either = [self._like(f"{path}{token[0]}{prefix}*") for prefix in _beyond(token[1:], above)]
        return self._where.any_of([self._token(path + token), *either] if op in ("$gte", "$lte") else either)

    # --- reading ---

    def _shown(self, with_payload: bool, with_vectors: bool) -> dict[str, Any]:
        return {
            "return_properties": ["record", "payload"] if with_payload else ["record"],
            "include_vector": list(self._named) if with_vectors and self._named else False,
        }

    def _record(self, found: Any) -> Record:
        return Record(*self._parts(found))

    def _parts(self, found: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
        told = found.properties
        payload = json.loads(told["payload"]) if "payload" in told else {}
        return told["record"], {self._named[n]: np.asarray(v, np.float32) for n, v in found.vector.items()}, payload

    def _get(self, ids: list[str], with_vectors: bool) -> list[Record]:
        records: list[Record] = []
        for start in range(0, len(ids), _IDS):
            some = [_uuid(i) for i in ids[start : start + _IDS]]
            with self._errors():
                found = self._open.query.fetch_objects_by_ids(some, limit=len(some), **self._shown(True, with_vectors))
            records += map(self._record, found.objects)
        return records

    def _count(self, where: Filter | None) -> int:
        condition = None if where is None else self._condition(where)
        with self._errors():
            return int(self._open.aggregate.over_all(total_count=True, filters=condition).total_count)

    def _scan(self, cursor: str | None, limit: int, where: Filter | None, with_vectors: bool) -> Page:
        """In the order of UUIDs; 9,999 at most, since a request finds 10,000."""
        try:
            after = _NIL if cursor is None else uuid.UUID(cursor)
        except ValueError:
            raise InvalidInput(f"{cursor!r} is not a cursor of this store") from None
        limit = min(limit, MAX_K - 1)
        shown = self._shown(True, with_vectors)
        with self._errors():
            if where is None:
                found = self._open.query.fetch_objects(limit=limit + 1, after=after, **shown).objects
            else:  # Weaviate's own cursor takes no condition
                from weaviate.classes.query import Sort

                condition = self._where.by_property("_id").greater_than(str(after)) & self._condition(where)
                found = self._open.query.fetch_objects(
                    limit=limit + 1, filters=condition, sort=Sort.by_id(), **shown
                ).objects
        records = [self._record(one) for one in found[:limit]]
        return Page(records, str(found[limit - 1].uuid) if len(found) > limit else None)

    def _search_many(self, queries: list[Query]) -> list[list[Hit]]:
        """A request a query, as Weaviate has no other; several at once."""
        if len(queries) == 1:
            found = [self._search(queries[0])]
        else:
            with ThreadPoolExecutor(min(len(queries), _SEARCHES)) as pool:
                found = list(pool.map(self._search, queries))
        left = [query for query, hits in zip(queries, found, strict=True) if hits is None]
        fused = iter(fused_search(self, left) if left else ())  # comes back here, with all their parts as one batch
        return [next(fused) if hits is None else hits for hits in found]

    def _search(self, query: Query) -> list[Hit] | None:
        """None for what is to be fused here."""
        match query.find:
            case Dense():
                return self._dense(query, query.find)
            case Text(text):
                terms = self._terms(text)
                return self._lexical(query, terms) if terms else []
            case Fused():
                return self._hybrid(query, query.find)
            case Sparse():
                raise AssertionError(f"{query.find} was checked before")

    def _terms(self, text: str) -> str:
        assert self._analyzer is not None
        return " ".join(dict.fromkeys(self._analyzer.terms(text)))

    def _asked(self, query: Query, limit: int) -> dict[str, Any]:
        return {
            "limit": limit,
            "filters": None if query.where is None else self._translated(query.where),
            **self._shown(query.with_payload, query.with_vectors),
        }

    def _depth(self, query: Query, k: int) -> int:
        """The limit by which Weaviate looks at enough candidates, which are as many as its `ef`, or else its limit."""
        index = self.schema.index
        wanted = [k]
        if query.ef is not None and query.ef > index.ef and not self._flat:
            wanted.append(query.ef)
        if index.quantization != "none" and index.rescore:
            candidates = math.ceil(index.oversampling * k)
            wanted += [candidates] if candidates > index.ef or self._flat else []
        return min(max(wanted), MAX_K)

    def _dense(self, query: Query, find: Dense) -> list[Hit]:
        with self._errors():
            found = self._open.query.near_vector(
                near_vector=np.asarray(find.vector).tolist(),
                target_vector=self._vectors[find.using],
                return_metadata=self._distance,
                **self._asked(query, self._depth(query, query.k)),
            )
        metric = self.schema.vectors[find.using].metric
        scores = [_score(metric, one.metadata.distance) for one in found.objects]
        return self._hits(query, found.objects, scores)

    def _lexical(self, query: Query, terms: str) -> list[Hit]:
        with self._errors():
            found = self._open.query.bm25(
                terms,
                query_properties=["terms"],
                return_metadata=self._scored,
                **self._asked(query, query.k),
            )
        return self._hits(query, found.objects, [one.metadata.score for one in found.objects])

    def _fuses(self, query: Query, find: Fused) -> bool:
        """As far as the query alone tells; see `_hybrid`."""
        wide = max(find.candidates, query.k) >= _HYBRID
        return find.method == "normalized" and not query.explain and wide and all(find.weights or (1.0,))

    def _hybrid(self, query: Query, find: Fused) -> list[Hit] | None:
        """By Weaviate, where its fusion is the one that was asked for: relative scores, which are our normalized ones.

        Its ranked fusion counts from 60 and ranks from 0, which no `rrf_k` of 60 is; distances that are squared it
        normalizes as they are; and a part of no weight it leaves out.
        """
        from weaviate.classes.query import HybridFusion

        if not self._fuses(query, find):
            return None
        weights = find.weights or (1.0,) * len(find.parts)
        depth = max(find.candidates, query.k)
        match find.parts:
            case (Dense() as dense, Text(text)):
                alpha = weights[0] / sum(weights)
            case (Text(text), Dense() as dense):
                alpha = weights[1] / sum(weights)
            case _:
                return None
        terms = self._terms(text)
        if self.schema.vectors[dense.using].metric == "l2" or not terms or self._depth(query, depth) > depth:
            return None
        with self._errors():
            found = self._open.query.hybrid(
                terms,
                alpha=alpha,
                vector=np.asarray(dense.vector).tolist(),
                target_vector=self._vectors[dense.using],
                query_properties=["terms"],
                fusion_type=HybridFusion.RELATIVE_SCORE,
                return_metadata=self._scored,
                **self._asked(query, query.k if depth == _HYBRID else depth),
            )
        # Weaviate adds up float32.
        return self._hits(query, found.objects, [min(1.0, max(0.0, one.metadata.score)) for one in found.objects])

    def _hits(self, query: Query, found: Sequence[Any], scores: list[float]) -> list[Hit]:
        hits = [Hit(*self._parts(one), score) for one, score in zip(found, scores, strict=True)]
        hits.sort(key=lambda hit: (-hit.score, hit.id))
        return hits[: query.k]


STORE = WeaviateStore


def _uuid(record_id: str) -> uuid.UUID:
    return uuid.uuid5(_NAMESPACE, record_id)


def _vector_names(schema: Schema) -> dict[str, str]:
    """A vector's name in Weaviate: its own, or its number where Weaviate's names have no room for it."""
    return {
        name: name if re.fullmatch(r"(?!nearest_)[A-Za-z_][A-Za-z0-9_]{0,229}", name) else f"nearest_{number}"
        for number, name in enumerate(sorted(schema.vectors))
    }


def _score(metric: str, distance: float) -> float:
    if metric == "cosine":
        return min(1.0, max(-1.0, 1.0 - distance))
    return 0.0 - (math.sqrt(max(0.0, distance)) if metric == "l2" else distance)  # 0 is not -0


def _refusal(record_id: str, said: str) -> NearestError:
    """One record's error, from the server's words for it: it has no codes there."""
    known = _known_words(said, f"record {record_id!r}")
    return known or StorageError(f"record {record_id!r}: the server refused it: {said}")


# --- connecting ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Options:
    """How to reach a server, and which collection there."""

    host: str
    port: int
    grpc_host: str
    grpc_port: int
    collection: str
    tls: bool
    key: str | None
    tenant: str | None
    consistency: str | None
    timeout: float
    async_indexing: bool


def canonical(url: StoreURL) -> StoreURL:
    options, _ = _options(url)
    host = f"[{options.host}]" if ":" in options.host else options.host
    return replace(url, location=f"//{host}:{options.port}/{options.collection}")


def connect(url: StoreURL, schema: Schema | None) -> WeaviateStore:
    """The collection of the URL, which a schema makes if it is not there."""
    options, creation = _options(url)
    place = f"weaviate://{options.host}:{options.port}/{options.collection}"
    if options.tenant is not None:
        place += f"?tenant={options.tenant}"
    if schema is not None:
        _check_schema(schema, creation)
        if schema.text is not None:
            Analyzer(schema.language)  # raises for a language that it does not know
    client = _client(options, place)
    try:
        with _errors(place):
            client.connect()
            _without_retries(client, place)
            version = tuple(int(part) for part in re.findall(r"\d+", client.get_meta()["version"])[:2])
            if version < _OLDEST:
                raise UnsupportedError(
                    f"{place}: the server is Weaviate {'.'.join(map(str, version))}; "
                    f"{'.'.join(map(str, _OLDEST))} or newer is needed"
                )
            found, made = _find(client, options, schema, creation, place)
            collection = _collection(client, options)
        return WeaviateStore(client, collection, found, place, options, made)
    except BaseException:
        client.close()
        raise


def _options(url: StoreURL) -> tuple[Options, Creation]:
    known = {
        *("tls", "grpc", "grpc_host", "tenant", "consistency", "timeout", "async_indexing"),
        *("index", "quantizer", "shards", "replicas"),
    }
    if unknown := sorted(set(url.options) - known):
        raise InvalidInput(f"weaviate: has no option {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    try:
        parts = urlsplit("weaviate:" + url.location)
        host, port, key = parts.hostname, parts.port, unquote(parts.username or "") or None
    except ValueError:
        host = port = key = None
    name = unquote(parts.path.removeprefix("/")) if host else ""
    if not host or not name or parts.password is not None:
        raise InvalidInput(f"weaviate:{url.location.rpartition('@')[2]}: write weaviate://[KEY@]HOST[:PORT]/COLLECTION")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,254}", name):
        raise InvalidInput(f"collection {name!r}: Weaviate's names are a letter, then letters, digits and underscores")
    key = key or os.environ.get("NEAREST_WEAVIATE_API_KEY") or os.environ.get("WEAVIATE_API_KEY") or None

    def one_of(option: str, values: tuple[str, ...], default: str | None) -> Any:
        return _one_of(url.options, option, values, default)

    tls = one_of("tls", ("true", "false"), "true" if key else "false") == "true"
    tenant = url.options.get("tenant")
    if tenant is not None and not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", tenant):
        raise InvalidInput(f"tenant {tenant!r}: 1 to 64 letters, digits, hyphens and underscores")
    try:
        timeout = float(url.options.get("timeout", "60"))
    except ValueError:
        timeout = math.nan
    if not 0 < timeout < math.inf:
        raise InvalidInput(f"timeout must be a number of seconds above 0, got {url.options['timeout']!r}")
    options = Options(
        host=host,
        port=port or (443 if tls else 8080),
        grpc_host=url.options.get("grpc_host", host),
        grpc_port=_whole(url.options, "grpc") or (443 if tls else 50051),
        collection=name[0].upper() + name[1:],  # as Weaviate itself writes it
        tls=tls,
        key=key,
        tenant=tenant,
        consistency=one_of("consistency", ("one", "quorum", "all"), None),
        timeout=timeout,
        async_indexing=one_of("async_indexing", ("true", "false"), "false") == "true",
    )
    creation = Creation(
        index=one_of("index", ("hnsw", "flat"), "hnsw"),
        quantizer=one_of("quantizer", ("bq", "pq", "rq", "sq"), ""),
        shards=_whole(url.options, "shards"),
        replicas=_whole(url.options, "replicas"),
    )
    return options, creation


def _one_of(options: Mapping[str, str], name: str, values: tuple[str, ...], default: str | None) -> Any:
    value = options.get(name, default)
    if name in options and value not in values:
        raise InvalidInput(f"{name} must be {', '.join(values[:-1])} or {values[-1]}, got {value!r}")
    return value


def _whole(options: Mapping[str, str], name: str) -> int | None:
    if name not in options:
        return None
    if not re.fullmatch("[1-9][0-9]{0,8}", options[name]):
        raise InvalidInput(f"{name} must be a whole number of 1 or more, got {options[name]!r}")
    return int(options[name])


def _client(options: Options, place: str) -> WeaviateClient:
    try:
        from weaviate import WeaviateClient
        from weaviate.classes.init import AdditionalConfig, Auth, GrpcConfig, Timeout
        from weaviate.connect import ConnectionParams
    except ImportError as error:
        raise MissingDependency("the Weaviate client is not installed; run: pip install 'nearest[weaviate]'") from error
    seconds = options.timeout
    with _errors(place):
        return WeaviateClient(
            connection_params=ConnectionParams.from_params(
                http_host=options.host,
                http_port=options.port,
                http_secure=options.tls,
                grpc_host=options.grpc_host,
                grpc_port=options.grpc_port,
                grpc_secure=options.tls,
            ),
            auth_client_secret=None if options.key is None else Auth.api_key(options.key),
            additional_config=AdditionalConfig(
                timeout=Timeout(query=seconds, insert=seconds, init=seconds),
                grpc_config=GrpcConfig(channel_options=list(RECONNECT.items())),
            ),
            skip_init_checks=True,  # they ask a package registry for newer clients
        )


def _without_retries(client: WeaviateClient, place: str) -> None:
    """The client repeats what is not answered for a minute, and has no switch for it; repeating is a layer's matter."""
    import grpc  # type: ignore[import-untyped]
    from weaviate.proto.v1 import weaviate_pb2_grpc

    class Once(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]
        def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            call = continuation(details, request)
            if call.code() is grpc.StatusCode.UNAVAILABLE:
                raise ConnectionFailed(f"{place} cannot be reached over gRPC ({call.details()}); is its port right?")
            return call

    connection: Any = client._connection
    connection._grpc_stub = weaviate_pb2_grpc.WeaviateStub(  # type: ignore[no-untyped-call]
        grpc.intercept_channel(reaching(connection._grpc_channel), Once())
    )


def _collection(client: WeaviateClient, options: Options) -> Any:
    from weaviate.classes.config import ConsistencyLevel

    # Everything was checked here already, and checking it again takes longer than the rest of a call.
    collection: Any = client.collections.use(options.collection, skip_argument_validation=True)
    if options.tenant is not None:
        collection = collection.with_tenant(options.tenant)
    if options.consistency is not None:
        collection = collection.with_consistency_level(ConsistencyLevel(options.consistency.upper()))
    return collection


# --- creation --------------------------------------------------------------------------------------


def _check_schema(schema: Schema, creation: Creation) -> None:
    check_schema(schema, WeaviateStore.capabilities)
    index, default = schema.index, IndexParams()
    kinds = {"none": (), "scalar": ("rq", "sq"), "product": ("pq",), "binary": ("bq", "rq")}[index.quantization]
    quantizer = creation.quantizer or next(iter(kinds), "")
    if quantizer not in (*kinds, ""):
        raise InvalidInput(f"quantizer={quantizer} is not one of {index.quantization} quantization")
    if not index.rescore and (quantizer in ("bq", "pq") or (quantizer and creation.index == "flat")):
        raise UnsupportedError(
            f"Weaviate always compares again what {creation.index} finds by {quantizer}; leave rescore on",
            feature="rescore",
        )
    if creation.index == "flat":
        if (index.m, index.ef_construct, index.ef) != (default.m, default.ef_construct, default.ef):
            raise UnsupportedError("index=flat has no HNSW parameters; leave them out", feature="hnsw")
        if quantizer in ("pq", "sq"):
            raise UnsupportedError(f"index=flat has no {quantizer}", feature=index.quantization)
    elif index.m < 4 or index.ef_construct < 4:
        raise UnsupportedError(
            f"Weaviate wants m and ef_construct of 4 or more, got {index.m} and {index.ef_construct}", feature="hnsw"
        )
    for name, spec in schema.vectors.items():
        if spec.dim > 65_535:
            raise UnsupportedError(f"vector {name!r}: Weaviate holds 65,535 dimensions at most, not {spec.dim}")


def _find(
    client: WeaviateClient, options: Options, schema: Schema | None, creation: Creation, place: str
) -> tuple[Schema, Creation]:
    """The schema of the collection that is there, or now made, and what it was made with."""
    name, collections = options.collection, client.collections
    if not collections.exists(name):
        if schema is None:
            raise NotACollection(f"{place}: no collection is there; to make it, give a schema")
        _create(client, options, schema, creation)
    config = collections.use(name).config.get()
    found, made = _read_mark(config.description, place)
    if schema is not None and found != schema:
        was, now = found.to_json(), schema.to_json()
        differing = [f"{part} was {was[part]}, now {now[part]}" for part in was if was[part] != now[part]]
        raise SchemaMismatch(f"{place} was made with another schema: {'; '.join(differing)}")
    missing = sorted(set(_vector_names(found).values()) - set(config.vector_config or ()))
    if missing:
        raise CollectionDamaged(f"{place}: the vector {missing[0]!r} is gone; restore the collection from a backup")
    many = config.multi_tenancy_config.enabled
    if many and options.tenant is None:
        raise InvalidInput(f"{place} has tenants; name one by ?tenant=NAME")
    if options.tenant is not None:
        if not many:
            raise InvalidInput(f"{place}: the collection has no tenants; leave ?tenant= out")
        if not collections.use(name).tenants.exists(options.tenant):
            if schema is None:
                raise NotACollection(f"{place}: no such tenant; to make it, give a schema")
            collections.use(name).tenants.create(options.tenant)
    return found, made


def _create(client: WeaviateClient, options: Options, schema: Schema, creation: Creation) -> None:
    from weaviate.classes.config import Configure, DataType, Property, StopwordsPreset, Tokenization
    from weaviate.exceptions import UnexpectedStatusCodeError

    stored: dict[str, Any] = {"index_filterable": False, "index_searchable": False, "skip_vectorization": True}
    properties = [
        Property(name="record", data_type=DataType.TEXT, **stored),
        Property(name="payload", data_type=DataType.TEXT, **stored),
        Property(
            name="tokens",
            data_type=DataType.TEXT_ARRAY,
            tokenization=Tokenization.FIELD,
            **{**stored, "index_filterable": True},
        ),
    ]
    for number, (_, kind) in enumerate(sorted(schema.fields.items())):
        if kind in ("integer", "float", "datetime"):
            properties += [
                Property(
                    name=f"{end}_{number}",
                    data_type=DataType.NUMBER,
                    index_filterable=False,
                    index_range_filters=True,
                    skip_vectorization=True,
                )
                for end in ("low", "high")
            ]
    if schema.text is not None:
        properties.append(
            Property(
                name="terms",
                data_type=DataType.TEXT,
                tokenization=Tokenization.WHITESPACE,
                **{**stored, "index_searchable": True},
            )
        )
    names = _vector_names(schema)
    made: dict[str, Any] = {"nearest": 1, "schema": schema.to_json(), "index": creation.index}
    try:
        client.collections.create(
            options.collection,
            description=canonical_json(made),
            properties=properties,
            vector_config=[
                Configure.Vectors.self_provided(name=names[name], vector_index_config=_index(spec, schema, creation))
                for name, spec in schema.vectors.items()
            ]
            or Configure.Vectors.self_provided(),
            inverted_index_config=Configure.inverted_index(bm25_b=B, bm25_k1=K1, stopwords_preset=StopwordsPreset.NONE),
            multi_tenancy_config=Configure.multi_tenancy(enabled=True) if options.tenant is not None else None,
            sharding_config=None if creation.shards is None else Configure.sharding(desired_count=creation.shards),
            replication_config=None if creation.replicas is None else Configure.replication(factor=creation.replicas),
        )
    except UnexpectedStatusCodeError as error:
        # Another process may have made it meanwhile; what it made is checked next.
        if error.status_code != 422 or not client.collections.exists(options.collection):
            raise


def _index(spec: VectorSpec, schema: Schema, creation: Creation) -> Any:
    from weaviate.classes.config import Configure, VectorDistances

    index, kinds = schema.index, Configure.VectorIndex
    distance = {
        "cosine": VectorDistances.COSINE, "dot": VectorDistances.DOT, "l2": VectorDistances.L2_SQUARED,
    }[spec.metric]  # fmt: skip
    default = {"none": "", "scalar": "rq", "product": "pq", "binary": "bq"}[index.quantization]
    # Of the candidates that it finds, HNSW compares as many again (flat, as many as the limit, if that is more).
    kept = None if creation.index == "flat" else MAX_K if index.rescore else 0
    quantizer: Any
    match creation.quantizer or default:
        case "rq":
            quantizer = kinds.Quantizer.rq(bits=8 if index.quantization == "scalar" else 1, rescore_limit=kept)
        case "sq":
            quantizer = kinds.Quantizer.sq(rescore_limit=kept)
        case "bq":
            quantizer = kinds.Quantizer.bq(rescore_limit=kept)
        case "pq":
            # 16 times smaller: a byte for four dimensions.
            quantizer = kinds.Quantizer.pq(segments=spec.dim // 4 if spec.dim % 4 == 0 else None)
        case _:
            quantizer = kinds.Quantizer.none()  # the server may have another default
    if creation.index == "flat":
        return kinds.flat(distance_metric=distance, quantizer=quantizer)
    return kinds.hnsw(
        distance_metric=distance,
        max_connections=index.m,
        ef_construction=index.ef_construct,
        ef=index.ef,
        quantizer=quantizer,
    )


def _read_mark(description: str | None, place: str) -> tuple[Schema, Creation]:
    try:
        mark = json.loads(description or "")
        assert mark["nearest"] == 1
    except (ValueError, KeyError, TypeError, AssertionError):
        raise NotACollection(f"{place}: the collection was not made by nearest; give another name") from None
    try:
        return Schema.from_json(mark["schema"]), Creation(index=mark["index"])
    except (ValueError, KeyError, TypeError) as error:
        raise CollectionDamaged(f"{place}: its description cannot be read ({error}); restore it") from None


# --- errors ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def _errors(place: str) -> Iterator[None]:
    """What the client raises, as ours."""
    try:
        yield
    except NearestError:
        raise
    except Exception as error:
        raise _known(error, place) from error


def _known(error: Exception, place: str) -> NearestError:
    from weaviate import exceptions as theirs

    said = str(getattr(error, "message", "") or error)
    code = _grpc_code(error)
    status = getattr(error, "status_code", None) if isinstance(error, theirs.UnexpectedStatusCodeError) else None
    if isinstance(error, theirs.InsufficientPermissionsError | theirs.AuthenticationFailedError) or status in (
        401,
        403,
    ):
        return AccessDenied(f"{place}: the key is wrong, missing, or lacks the right ({said})")
    if code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return AccessDenied(f"{place}: the key is wrong, missing, or lacks the right ({said})")
    if isinstance(error, theirs.WeaviateClosedClientError):
        return StorageError(f"{place} was closed; open it again")
    if code == "RESOURCE_EXHAUSTED" and "larger than max" in said:
        return InvalidInput(f"{place}: larger than the server takes in one request ({said})", too_large=True)
    if status in (429, 503) or code == "RESOURCE_EXHAUSTED":
        return Throttled(f"{place}: the server is asked too much, or not ready ({said}); try again later")
    if code == "DEADLINE_EXCEEDED" or _is_timeout(error):
        return TimedOut(f"{place} did not answer in time; try again, or give a longer ?timeout=")
    if known := _known_words(said, place):
        return known
    if status in (502, 504) or code == "UNAVAILABLE" or _is_broken(error):
        return ConnectionFailed(f"{place} cannot be reached ({said}); is it running, and are host and ports right?")
    if status == 422 or isinstance(error, theirs.WeaviateInvalidInputError):
        return InvalidInput(f"{place}: the server refused: {said}")
    return StorageError(f"{place}: the server failed: {said}")


def _known_words(said: str, place: str) -> NearestError | None:
    """Errors of the database itself, which come without a code of their own."""
    low = said.lower()
    if "could not find class" in low or "class not found" in low or "tenant not found" in low:
        return NotACollection(f"{place}: the collection or the tenant is gone ({said})")
    if "no space left" in low:
        return DiskFull(f"{place}: the server's disk is full ({said}); make room there")
    if "read-only" in low or "read only" in low:
        return ReadOnly(f"{place}: the server takes no writes ({said}); its disk may be nearly full")
    if "deadline exceeded" in low:
        return TimedOut(f"{place}: the server did not finish in time ({said}); try again")
    if "cannot reach enough replicas" in low or "cannot achieve consistency level" in low:
        return ConnectionFailed(f"{place}: too few replicas answered ({said}); try again")
    if "memory" in low and ("pressure" in low or "not enough" in low):
        return Throttled(f"{place}: the server is short of memory ({said}); try again later")
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what led to it: the client keeps little of that in its own."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _grpc_code(error: BaseException) -> str:
    codes = (one.code().name for one in _chain(error) if hasattr(one, "code") and callable(one.code))
    return next(codes, "")


def _is_timeout(error: BaseException) -> bool:
    import httpx
    from weaviate.exceptions import WeaviateTimeoutError

    return any(isinstance(one, httpx.TimeoutException | WeaviateTimeoutError) for one in _chain(error))


def _is_broken(error: BaseException) -> bool:
    import httpx
    from weaviate.exceptions import WeaviateConnectionError, WeaviateStartUpError

    kinds = httpx.TransportError | WeaviateConnectionError | WeaviateStartUpError
    return any(isinstance(one, kinds) for one in _chain(error))
