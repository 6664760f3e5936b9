"""Pinecone, the serverless service, through its official client.

    pinecone://INDEX/NAMESPACE?region=us-east-1

A collection is a namespace of an index. The key comes from the environment, PINECONE_API_KEY. An index
that is not there is created with the collection; one that is there is shared, if its dimension and
metric are the collection's. Options:

    cloud, region   where a new index is made: aws, us-east-1
    host            the control plane, for an emulator or a private endpoint
    timeout         seconds for one request: 30
    wait            seconds until `wait()` gives up: 60

Schemas are kept as records of the namespace `nearest-schemas`, one a collection: the tags of an index are
too small for them and belong to all of its namespaces. The record is written last, so that its presence
means a complete creation.

A payload is kept as JSON text in `_json`; for filters, metadata is derived from it. For a path of object
keys `a.b`: `a.b#` lists its values as tokens that tell their types (`s` string, `t` instant, `n` number,
`b` boolean, `o` anything else), and `a.b#min`, `a.b#max`, `a.b#first`, `a.b#last` are the extremes of its
numbers and instants, which is all that an order comparison with any element of a list needs. Text and
derived metadata share Pinecone's 40 KB a record. Ids that are not printable ASCII are percent-encoded.

One sparse vector may stand beside the dense one, under cosine or dot, or alone. Their index then has the metric
dotproduct, which is the cosine too, since the dense vectors have unit length. It answers for the sum of both
products, so a search by one vector alone leaves the other out: a dense one by giving no sparse query, a sparse one
by a dense query of zeros. Whom a sparse search may find, those that share an index with it, is a condition on the
metadata `_terms`, the indices as hexadecimal, at most 11 bytes each; a record that has no sparse vector has none.

Not here: several sparse vectors, or one under l2 (Pinecone has neither), BM25 (Pinecone has it on indexes of its
Documents API, which this store does not use), HNSW parameters and quantization (the service chooses), zero vectors
(it refuses them). The client repeats a request of the data plane up to three times itself; it has no switch for
that.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import quote, unquote

import numpy as np

from nearest import filters
from nearest.contract import (
    Capabilities,
    Dense,
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
    check_schema,
    fused_search,
)
from nearest.errors import (
    AccessDenied,
    BatchFailed,
    CollectionDamaged,
    ConnectionFailed,
    InvalidInput,
    InvalidQuery,
    InvalidRecord,
    MissingDependency,
    NearestError,
    NotACollection,
    SchemaMismatch,
    StorageError,
    Throttled,
    TimedOut,
    UnsupportedError,
)
from nearest.filters import And, Comparison, Filter, Loose, Not, Or

if TYPE_CHECKING:
    from pinecone import Index, Pinecone

REQUIRES = {"pinecone": ">=10.2,<11"}
KNOWN_GAPS: tuple[Gap, ...] = ()

_SCHEMAS = "nearest-schemas"
# The fields of an index that the API of vectors uses.
_DENSE_FIELD, _SPARSE_FIELD = "_values", "_sparse_values"
_OPTIONS = ("cloud", "region", "host", "timeout", "wait")
_METRICS: Mapping[Metric, str] = {"cosine": "cosine", "dot": "dotproduct", "l2": "euclidean"}
# Pinecone's limits.
_MAX_DIM = 20_000
_MAX_METADATA = 40_960
_MAX_REQUEST = 2_000_000
_MAX_RESULT = 4_000_000
_MAX_RECORDS = 1000  # an upsert, a deletion
_MAX_PAGE = 100  # ids of a listing; records of a fetch by metadata, to stay within a result's size
_MAX_VALUES = 10_000  # of $in
_MAX_SPARSE = 1000  # values of a sparse vector
_MAX_URL = 6000  # bytes of ids in one fetch, whose ids stand in its URL
_FLOAT = 23  # bytes of a float32 as JSON, at most
_INDEX = 11  # bytes of a sparse index as JSON, at most, as number and as term
_REST = 700  # bytes of a record as JSON beside vector and metadata: id, names, punctuation
_PARALLEL = 8  # requests in flight

_JSON, _OWN_ID, _TERMS = "_json", "_id", "_terms"
_EMPTY = "-"  # the only term of a sparse vector without values
_FORMAT = {"_v": 1}  # metadata of every record: what a condition that holds for all asks for
_NOBODY = "%"  # an id that no record can have
_DIGEST = "%%"  # starts an id that only the record's metadata tells
_PRINTABLE = "".join(map(chr, range(32, 127))).replace("%", "")
_EXACT = 2**53  # float64, which metadata is kept in, holds integers exactly up to here
_LONG = 64  # characters; longer strings are compared by their digests

Metadata = dict[str, Any]
Parts = dict[str, Any]  # of a record's vectors: `values`, `sparse_values`
Prepared = tuple[Record, Metadata, int]  # and the metadata's size as JSON, in bytes
Item = TypeVar("Item")
Result = TypeVar("Result")


class PineconeStore(Store):
    capabilities = Capabilities(
        features=frozenset({"dense", "sparse", "cosine", "dot", "l2", "payload_index", "durable"}),
        filters=frozenset({"$eq", "$in", "$gt", "$gte", "$lt", "$lte", "$exists"}),
        read_your_writes=False,
        remote=True,
    )

    def __init__(self, index: Index, namespace: str, schema: Schema, patience: float) -> None:
        self.schema = schema
        self._dense, self._sparse = next(iter(schema.vectors), None), next(iter(schema.sparse), None)
        self._namespace = namespace
        self._patience = patience
        self._index: Index | None = index
        self._pool = ThreadPoolExecutor(_PARALLEL, "nearest-pinecone")
        self._lock = threading.Lock()
        self._written = 0  # the highest LSN of a write of ours
        self._deletions = 0
        self._covered = 0  # deletions that `_written` is known to come after

    def close(self) -> None:
        with self._lock:
            index, self._index = self._index, None
        if index is not None:
            self._pool.shutdown()
            index.close()

    @property
    def _open(self) -> Index:
        if self._index is None:
            raise StorageError(f"the collection {self._namespace!r} was closed; open it again")
        return self._index

    def _parallel(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Never called from the pool itself, where it could wait for its own place."""
        return [work(item) for item in items] if len(items) < 2 else list(self._pool.map(work, items))

    # --- writing ---

    def _check(self, record: Record) -> None:
        if self._dense is not None and not record.vectors[self._dense].any():
            raise InvalidRecord(f"record {record.id!r}: vector {self._dense!r} is zero, which Pinecone refuses")
        terms = 0 if (words := self._words(record)) is None else len(words.indices)
        if terms > _MAX_SPARSE:
            raise InvalidRecord(
                f"record {record.id!r}: sparse vector {self._sparse!r} has {terms} values; "
                f"Pinecone takes {_MAX_SPARSE}: leave out the smallest, or make smaller chunks"
            )
        # Within the limit, however it is written.
        if 20 * len(repr(record.payload)) + _INDEX * (terms + 2) < _MAX_METADATA:
            return
        _, metadata, size = self._prepared(record)
        if size > _MAX_METADATA:
            text, beside = len(metadata[_JSON].encode()), len(_dumps(metadata.get(_TERMS, ""))) - 2
            told = f", {beside} for its sparse vector's indices" if beside else ""
            raise InvalidRecord(
                f"record {record.id!r}: its payload needs {size} bytes of metadata, {text} of them as text{told}; "
                f"Pinecone takes {_MAX_METADATA}: shorten it, or make smaller chunks"
            )

    def _upsert(self, records: list[Record]) -> None:
        index = self._open
        requests = list(_requests([self._prepared(record) for record in records], self._dim))

        def send(request: list[Prepared]) -> NearestError | None:
            vectors = [
                {"id": _key(record.id), "metadata": metadata, **self._vectors(record)}
                for record, metadata, _ in request
            ]
            try:
                with _errors(InvalidRecord):
                    self._wrote(index.upsert(vectors=vectors, namespace=self._namespace))
            except NearestError as error:
                return error
            return None

        errors = self._parallel(send, requests)
        failed = {
            record.id: error
            for request, error in zip(requests, errors, strict=True)
            if error is not None
            for record, _, _ in request
        }
        if len(failed) == len(records):
            raise next(iter(failed.values()))
        if failed:
            first = next(iter(failed.values()))
            raise BatchFailed(f"{len(failed)} of {len(records)} records were not written: {first}", failed)

    @property
    def _dim(self) -> int:
        return 0 if self._dense is None else self.schema.vectors[self._dense].dim

    def _words(self, record: Record) -> SparseVector | None:
        return None if self._sparse is None else record.vectors.get(self._sparse)

    def _vectors(self, record: Record) -> Parts:
        dense, words = None if self._dense is None else record.vectors[self._dense], self._words(record)
        # An index without dense vectors wants a sparse one of every record; no search finds it without terms.
        return _parts_of(dense, words) or _probe(self.schema)

    def _prepared(self, record: Record) -> Prepared:
        key = _key(record.id)
        metadata = {_JSON: _dumps(record.payload), **_FORMAT, **_derived(record.payload)}
        if (words := self._words(record)) is not None:
            metadata[_TERMS] = _terms(words) or [_EMPTY]
        if key.startswith(_DIGEST):
            metadata[_OWN_ID] = record.id
        return record, metadata, len(_dumps(metadata).encode())

    def _wrote(self, response: Any) -> None:
        lsn = response.response_info.lsn_committed
        with self._lock:
            self._written = max(self._written, lsn or 0)

    def _delete(self, ids: list[str]) -> None:
        index = self._open
        keys = [_key(i) for i in ids]
        parts = [keys[start : start + _MAX_RECORDS] for start in range(0, len(keys), _MAX_RECORDS)]
        self._parallel(lambda part: self._remove(index, ids=part), parts)

    def _delete_where(self, where: Filter) -> None:
        condition = _condition(where)
        if condition is not None:
            self._remove(self._open, filter=condition)

    def _remove(self, index: Index, **chosen: Any) -> None:
        with contextlib.suppress(NotACollection), _errors():  # a namespace is not there before its first record
            index.delete(namespace=self._namespace, **chosen)
        with self._lock:
            self._deletions += 1

    def wait(self) -> None:
        """Until a query reports that it has seen the log sequence number (LSN) of the last write of this store."""
        index = self._open
        with self._lock:
            deletions, covered = self._deletions, self._covered
        if deletions > covered:
            # The client does not tell the LSN of a deletion; an update that finds no record gets a later one.
            with contextlib.suppress(NotACollection), _errors():
                self._wrote(index.update(id=_NOBODY, set_metadata=_FORMAT, namespace=self._namespace))
            with self._lock:
                self._covered = max(self._covered, deletions)
        _settle(index, self._namespace, self.schema, self._written, self._patience)

    # --- reading ---

    def filter_support(self, comparison: Comparison) -> filters.Support:
        return _support(comparison)

    def _get(self, ids: list[str], with_vectors: bool) -> list[Record]:
        return list(self._fetch([_key(i) for i in ids], with_vectors).values())

    def _fetch(self, keys: Sequence[str], with_vectors: bool) -> dict[str, Record]:
        """Records by their keys, in the order asked for."""
        index = self._open

        def fetch(part: list[str]) -> Mapping[str, Any]:
            with _errors():
                found: Mapping[str, Any] = index.fetch(ids=part, namespace=self._namespace).vectors
                return found

        found = {key: vector for part in self._parallel(fetch, list(_parts(keys))) for key, vector in part.items()}
        return {key: self._record(key, found[key], True, with_vectors) for key in keys if key in found}

    def _record(self, key: str, vector: Any, with_payload: bool, with_vectors: bool) -> Record:
        metadata = vector.metadata or {}
        if with_payload and _JSON not in metadata:
            raise CollectionDamaged(f"record {key!r} was not written by nearest; delete it, or use another namespace")
        payload = json.loads(metadata[_JSON]) if with_payload else {}
        vectors: dict[str, Any] = {}
        if with_vectors and self._dense is not None:
            vectors[self._dense] = np.asarray(vector.values, np.float32)
        if with_vectors and self._sparse is not None and _TERMS in metadata:
            vectors[self._sparse] = _sparse_vector(metadata[_TERMS], vector.sparse_values)
        return Record(metadata.get(_OWN_ID) or unquote(key), vectors, payload)

    def _count(self, where: Filter | None) -> int:
        # An update by filter, not carried out, tells how many records it would change; statistics take no filter.
        index, condition = self._open, _condition(where or filters.EVERYTHING)
        if condition is None:
            return 0
        with contextlib.suppress(NotACollection), _errors():
            answer = index.update(filter=condition, set_metadata=_FORMAT, dry_run=True, namespace=self._namespace)
            if answer.matched_records is not None:
                return answer.matched_records
        # Nothing told may mean none, for JSON may leave zeros out; or a service that does not count.
        count, cursor = 0, None
        while True:
            page = self._scan(cursor, _MAX_PAGE, where or filters.EVERYTHING, False)
            count, cursor = count + len(page.records), page.cursor
            if cursor is None:
                return count

    def _scan(self, cursor: str | None, limit: int, where: Filter | None, with_vectors: bool) -> Page:
        index, found = self._open, list[Record]()
        condition = None if where is None else _condition(where)
        if where is not None and condition is None:
            return Page([], None)
        while True:
            size = min(limit - len(found), _MAX_PAGE)
            with _errors():
                if condition is None:
                    listed = index.list_paginated(limit=size, pagination_token=cursor, namespace=self._namespace)
                    keys, following = [item.id for item in listed.vectors if item.id], listed.pagination
                else:
                    got = index.fetch_by_metadata(
                        filter=condition, limit=size, pagination_token=cursor, namespace=self._namespace
                    )
                    # An object's keys come in any order; a scan is stable.
                    keys, following = sorted(got.vectors), got.pagination
            if condition is None:
                found += self._fetch(keys, with_vectors).values()
            else:
                found += [self._record(key, got.vectors[key], True, with_vectors) for key in keys]
            cursor = following.next if following else None
            if not cursor or len(found) >= limit:
                return Page(found, cursor or None)

    def _search_many(self, queries: list[Query]) -> list[list[Hit]]:
        plain = [query for query in queries if not isinstance(query.find, Fused)]
        answers = iter(zip(plain, self._parallel(self._matches, plain), strict=True))
        fused = iter(self._fused([query for query in queries if isinstance(query.find, Fused)]))
        return [next(fused) if isinstance(query.find, Fused) else self._hits(*next(answers)) for query in queries]

    def _matches(self, query: Query) -> list[Any]:
        index, condition = self._open, _condition(query.where or filters.EVERYTHING)
        if condition is None:
            return []
        if query.where is None:
            condition = None
        if isinstance(query.find, Sparse):
            words = query.find.vector
            if len(words.indices) > _MAX_SPARSE:
                raise InvalidQuery(f"the query has {len(words.indices)} sparse values; Pinecone takes {_MAX_SPARSE}")
            if not words.values.any():
                return []
            shared = {_TERMS: {"$in": _terms(words)}}
            condition = shared if condition is None else {"$and": [condition, shared]}
            parts = _parts_of(np.zeros(self._dim) if self._dim else None, words)
        else:
            parts = _parts_of(np.asarray(cast("Dense", query.find).vector), None)
        whole = self._whole(query)
        with _errors():
            answer = index.query(
                **_asked(parts),
                top_k=query.k,
                namespace=self._namespace,
                filter=condition,
                include_values=whole and query.with_vectors,
                # Which of its values a sparse vector has is told by the metadata.
                include_metadata=whole and (query.with_payload or (query.with_vectors and bool(self._sparse))),
            )
        return list(answer.matches)

    def _whole(self, query: Query) -> bool:
        """Whether all that is asked for surely fits into one result; else ids come first, and records by them."""
        if not query.with_payload and not query.with_vectors:
            return True
        hit = _MAX_METADATA * (query.with_payload or bool(self._sparse)) + _REST
        if query.with_vectors:
            hit += _FLOAT * self._dim + (_FLOAT + _INDEX) * _MAX_SPARSE * bool(self._sparse)
        return query.k * hit <= _MAX_RESULT

    def _hits(self, query: Query, matches: list[Any]) -> list[Hit]:
        if not self._whole(query) or (not query.with_payload and any(m.id.startswith(_DIGEST) for m in matches)):
            records = self._fetch([match.id for match in matches], query.with_vectors)
        else:
            records = {m.id: self._record(m.id, m, query.with_payload, query.with_vectors) for m in matches}
        hits = [
            Hit(
                record.id,
                record.vectors,
                record.payload if query.with_payload else {},
                self._score(query.find, match.score),
            )
            for match in matches
            if (record := records.get(match.id)) is not None  # else deleted in between
        ]
        hits.sort(key=lambda hit: (-hit.score, hit.id))
        return hits

    def _score(self, find: object, score: float) -> float:
        match self.schema.vectors[find.using].metric if isinstance(find, Dense) else "dot":
            case "cosine":
                return min(1.0, max(-1.0, score))
            case "l2":  # the service reports the squared distance
                return 0.0 - math.sqrt(max(score, 0.0))
        return score

    def _fused(self, queries: list[Query]) -> list[list[Hit]]:
        """By ids and scores; the winners alone are fetched."""
        bare = [replace(query, with_payload=False, with_vectors=False) for query in queries]
        found = fused_search(self, bare) if bare else []
        return [self._filled(query, hits) for query, hits in zip(queries, found, strict=True)]

    def _filled(self, query: Query, hits: list[Hit]) -> list[Hit]:
        if not query.with_payload and not query.with_vectors:
            return hits
        records = self._fetch([_key(hit.id) for hit in hits], query.with_vectors)
        return [
            replace(hit, vectors=record.vectors, payload=record.payload if query.with_payload else {})
            for hit in hits
            if (record := records.get(_key(hit.id))) is not None
        ]

    def stats(self) -> dict[str, Any]:
        index, told = self._open, {"index": "Pinecone serverless; the service builds and keeps it"}
        with contextlib.suppress(NotACollection), _errors():
            described = index.describe_namespace(name=self._namespace)
            return {**told, "indexed": described.record_count, "disk_bytes": described.size_bytes}
        return told


STORE = PineconeStore


# --- opening and creating --------------------------------------------------------------------------


def connect(url: StoreURL, schema: Schema | None) -> PineconeStore:
    """`pinecone://INDEX/NAMESPACE`. With a schema a collection that is not there is created; see the module."""
    name, _, namespace = url.location.removeprefix("//").partition("/")
    if not url.location.startswith("//") or not name or not namespace:
        raise InvalidInput("pinecone: needs an index and a namespace, such as pinecone://my-index/my-collection")
    if not (len(name) <= 45 and name.isascii() and name.replace("-", "a").isalnum() and name == name.lower()):
        raise InvalidInput(f"{name!r} is no name of an index: at most 45 of a-z, 0-9 and -")
    if not (len(namespace) <= 512 and namespace.isascii() and namespace.isprintable()):
        raise InvalidInput(f"{namespace!r} is no name of a namespace: at most 512 printable ASCII characters")
    if namespace == _SCHEMAS:
        raise InvalidInput(f"the namespace {_SCHEMAS!r} keeps the schemas; give another one")
    options = {"cloud": "aws", "region": "us-east-1", "host": "", "timeout": "30", "wait": "60", **url.options}
    unknown = [option for option in options if option not in _OPTIONS]
    if unknown:
        raise InvalidInput(f"pinecone: has no option {unknown[0]!r}; there are {', '.join(_OPTIONS)}")
    timeout, patience = (_seconds(option, options[option]) for option in ("timeout", "wait"))
    if schema is not None:
        _check_holds(schema)
        for vector, spec in schema.vectors.items():
            if spec.dim > _MAX_DIM:
                raise InvalidInput(f"vector {vector!r} has dimension {spec.dim}; Pinecone takes up to {_MAX_DIM}")
        if len(_dumps(schema.to_json()).encode()) > _MAX_METADATA // 2:
            raise InvalidInput("the schema is too large for Pinecone's 40 KB a record; declare fewer fields")
    client = _client(options["host"], timeout)
    try:
        with _errors():
            described = _described(client, name)
            if described is None and schema is not None:
                described = _create_index(client, name, schema, options["cloud"], options["region"], patience)
        if described is None:
            raise NotACollection(f"Pinecone has no index {name!r} in this project; to make one, give a schema")
        with _errors():
            index = client.index(host=described.host)
        try:
            found = _read_schema(index, namespace)
            if found is None:
                found = _create(index, name, namespace, schema, _of_index(described), patience)
            _check_same(namespace, found, schema)
            return PineconeStore(index, namespace, found, patience)
        except BaseException:
            index.close()
            raise
    finally:
        client.close()


def _seconds(option: str, given: str) -> float:
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise InvalidInput(f"pinecone: {option} must be a number of seconds above 0, got {given!r}")
    return seconds


def _client(host: str, timeout: float) -> Pinecone:
    try:
        from pinecone import Pinecone, RetryConfig
    except ImportError as error:
        raise MissingDependency("this store needs pinecone; run: pip install 'nearest[pinecone]'") from error
    key = os.environ.get("PINECONE_API_KEY", "")
    if not key:
        raise AccessDenied("Pinecone needs a key; set the environment variable PINECONE_API_KEY")
    with _errors():
        return Pinecone(api_key=key, host=host or None, timeout=timeout, retry_config=RetryConfig(max_retries=0))


def _described(client: Pinecone, name: str) -> Any:
    import pinecone

    try:
        return client.indexes.describe(name)
    except pinecone.NotFoundError:
        return None


def _check_holds(schema: Schema) -> None:
    """Raises UnsupportedError for what no index of Pinecone can hold."""
    check_schema(schema, PineconeStore.capabilities)
    if len(schema.sparse) > 1:
        raise UnsupportedError(
            f"a Pinecone index holds one sparse vector, the schema has {list(schema.sparse)}; "
            "keep each in a collection of its own, on an index of its own"
        )
    for name, spec in schema.vectors.items():
        if schema.sparse and spec.metric == "l2":
            raise UnsupportedError(
                f"Pinecone has no sparse vectors beside l2 (vector {name!r}); use cosine or dot, "
                "or keep them in a collection of their own, on an index of its own"
            )


Held = tuple[int | None, str | None, bool]  # dimension and metric of the dense vectors, whether there are sparse ones


def _of_schema(schema: Schema) -> Held:
    for spec in schema.vectors.values():
        return spec.dim, "dotproduct" if schema.sparse else _METRICS[spec.metric], bool(schema.sparse)
    return None, None, True


def _of_index(described: Any) -> Held:
    dimension, fields = getattr(described, "dimension", None), described.schema.fields
    return dimension, getattr(described, "metric", None) if dimension else None, _SPARSE_FIELD in fields


def _words_of(held: Held) -> str:
    dimension, metric, sparse = held
    dense = [] if dimension is None else [f"dimension {dimension} and {metric}"]
    return ", ".join(dense + (["sparse vectors"] if sparse else []))


def _create_index(client: Pinecone, name: str, schema: Schema, cloud: str, region: str, patience: float) -> Any:
    import pinecone

    dimension, metric, sparse = _of_schema(schema)
    fields: dict[str, Any] = {}
    if dimension is not None:
        fields[_DENSE_FIELD] = {"type": "dense_vector", "dimension": dimension, "metric": metric}
    if sparse:
        fields[_SPARSE_FIELD] = {"type": "sparse_vector"}
    with contextlib.suppress(pinecone.ConflictError):  # another process was faster
        return client.indexes.create(
            name=name,
            schema={"fields": fields},
            deployment={"deployment_type": "managed", "cloud": cloud, "region": region},
            timeout=max(1, math.ceil(patience)),
        )
    return client.indexes.describe(name)


def _read_schema(index: Index, namespace: str) -> Schema | None:
    with contextlib.suppress(NotACollection), _errors():
        marks = index.fetch(ids=[namespace], namespace=_SCHEMAS).vectors
        if namespace in marks:
            try:
                return Schema.from_json(json.loads((marks[namespace].metadata or {})["schema"]))
            except (ValueError, KeyError, TypeError) as error:
                raise CollectionDamaged(
                    f"the schema of {namespace!r} in the namespace {_SCHEMAS!r} cannot be read ({error}); restore it"
                ) from None
    return None


def _create(
    index: Index,
    name: str,
    namespace: str,
    schema: Schema | None,
    there: Held,
    patience: float,
) -> Schema:
    """Writes the schema, which makes a namespace a collection; gives back what then stands there."""
    if schema is None:
        raise NotACollection(f"the namespace {namespace!r} of {name!r} holds no collection; to make one, give a schema")
    wanted = _of_schema(schema)
    if there[:2] != wanted[:2] or wanted[2] > there[2]:
        raise SchemaMismatch(
            f"the index {name!r} is for {_words_of(there)}, the schema for {_words_of(wanted)}; give another index"
        )
    with _errors():
        if index.list_paginated(namespace=namespace, limit=1).vectors:
            raise NotACollection(
                f"the namespace {namespace!r} of {name!r} holds records that nearest did not write; give another one"
            )
        mark = {"id": namespace, **_probe(schema), "metadata": {"schema": _dumps(schema.to_json())}}
        written = index.upsert(vectors=[mark], namespace=_SCHEMAS)
    lsn = written.response_info.lsn_committed if written.response_info else None
    _settle(index, _SCHEMAS, schema, lsn or 0, patience)
    return _read_schema(index, namespace) or schema


def _check_same(namespace: str, found: Schema, asked: Schema | None) -> None:
    if asked is None or found == asked:
        return
    was, now = found.to_json(), asked.to_json()
    differing = [f"{name} was {was[name]}, now {now[name]}" for name in was if was[name] != now[name]]
    raise SchemaMismatch(f"{namespace!r} was made with another schema: {'; '.join(differing)}", namespace=namespace)


def _probe(schema: Schema) -> Parts:
    """A vector, where one must be given and any will do."""
    if schema.vectors:
        (spec,) = schema.vectors.values()
        return {"values": [1.0] + [0.0] * (spec.dim - 1)}
    return {"sparse_values": {"indices": [0], "values": [1.0]}}


def _settle(index: Index, namespace: str, schema: Schema, lsn: int, patience: float) -> None:
    """Until queries see the write of this LSN. A service that reports none (an emulator) has nothing to wait for."""
    deadline, pause = time.monotonic() + patience, 0.005
    while lsn > 0:
        with _errors():
            info = index.query(**_asked(_probe(schema)), top_k=1, namespace=namespace).response_info
        reached = info.lsn_reconciled if info else None
        if reached is None or reached >= lsn:
            return
        if time.monotonic() + pause > deadline:
            raise TimedOut(
                f"after {patience:g} s Pinecone had indexed {namespace!r} up to LSN {reached}, not yet {lsn}; "
                "wait again, or give more time with the option wait=SECONDS",
            )
        time.sleep(pause)  # there is nothing to be notified by
        pause = min(2 * pause, 1.0)


# --- records as Pinecone takes them ----------------------------------------------------------------


def _parts_of(dense: Any, words: SparseVector | None) -> Parts:
    """Vectors as the client takes them. Zeros, which a sparse vector may tell, are kept by its terms alone."""
    parts: Parts = {} if dense is None else {"values": dense.tolist()}
    if words is not None and words.values.any():
        kept = words.values != 0
        parts["sparse_values"] = {"indices": words.indices[kept].tolist(), "values": words.values[kept].tolist()}
    return parts


def _asked(parts: Parts) -> Parts:
    """The same as a query has them."""
    names = {"values": "vector", "sparse_values": "sparse_vector"}
    return {names[part]: value for part, value in parts.items()}


def _terms(words: SparseVector) -> list[str]:
    return [f"{index:x}" for index in words.indices.tolist()]


def _sparse_vector(terms: Sequence[str], told: Any) -> SparseVector:
    values = dict(zip(told.indices, told.values, strict=True)) if told else {}
    indices = [int(term, 16) for term in terms if term != _EMPTY]
    return SparseVector(np.array(indices, np.uint32), np.array([values.get(i, 0.0) for i in indices], np.float32))


def _key(record_id: str) -> str:
    """A record id in printable ASCII, up to 512 characters; a longer one becomes a digest."""
    if record_id.isascii() and record_id.isprintable() and "%" not in record_id:
        return record_id
    quoted = quote(record_id, safe=_PRINTABLE)
    return quoted if len(quoted) <= 512 else _DIGEST + _digest(record_id)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=20).hexdigest()


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _requests(prepared: Iterable[Prepared], dim: int) -> Iterator[list[Prepared]]:
    """Parts of a batch that are within the limits of one request."""
    part: list[Prepared] = []
    total = 0
    for each in prepared:
        size = each[2] + _FLOAT * dim + (_FLOAT + _INDEX) * len(each[1].get(_TERMS, ())) + _REST
        if part and (total + size > _MAX_REQUEST or len(part) == _MAX_RECORDS):
            yield part
            part, total = [], 0
        part.append(each)
        total += size
    if part:
        yield part


def _parts(keys: Iterable[str]) -> Iterator[list[str]]:
    """Keys that fit into one fetch."""
    part: list[str] = []
    total = 0
    for key in keys:
        size = len(quote(key)) + len("&ids=")
        if part and (total + size > _MAX_URL or len(part) == _MAX_PAGE):
            yield part
            part, total = [], 0
        part.append(key)
        total += size
    if part:
        yield part


def _derived(payload: Mapping[str, Any]) -> Metadata:
    """What conditions ask for; see the module. Keys that no path reaches are left out."""
    metadata: Metadata = {}
    below: list[tuple[str, Mapping[str, Any]]] = [("", payload)]
    while below:
        prefix, here = below.pop()
        for key, value in here.items():
            if value is None or value == [] or not key or "." in key or (not prefix and key.startswith("$")):
                continue
            path = prefix + key
            values = value if isinstance(value, list) else (value,)
            field = _label(path) + "#"
            metadata[field] = list(dict.fromkeys(_token(v) for v in values))
            numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
            if numbers:
                metadata[field + "min"], metadata[field + "max"] = min(numbers), max(numbers)
            instants = [at for v in values if isinstance(v, str) and (at := _instant(v)) is not None]
            if instants:
                metadata[field + "first"], metadata[field + "last"] = min(instants), max(instants)
            if isinstance(value, Mapping):
                below.append((path + ".", value))
    return metadata


def _label(text: str) -> str:
    """The text, or a digest of a long one; no two texts have one label."""
    return text if len(text) <= _LONG and text[:1] != "#" and "\0" not in text else "#" + _digest(text)


def _token(value: Any) -> str:
    """Equal for equal values alone: integers and floats are one type, dates are instants."""
    if isinstance(value, bool):
        return "b1" if value else "b0"
    if isinstance(value, str):
        at = _instant(value)
        return f"t{at}" if at is not None else "s" + _label(value)
    if isinstance(value, int):
        return f"n{value}"
    if isinstance(value, float):
        return f"n{int(value)}" if value.is_integer() and abs(value) < 2**64 else f"n{value!r}"
    return "o"


def _instant(text: str) -> int | None:
    """Microseconds since 1970."""
    at = filters.instant(text)
    if at is None:
        return None
    since = at - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


# --- conditions ------------------------------------------------------------------------------------

_INCLUSIVE = {"$gt": "$gte", "$lt": "$lte"}
_COMPLEMENT = {"$gt": "$lte", "$gte": "$lt", "$lt": "$gte", "$lte": "$gt"}


def _support(node: Comparison) -> filters.Support:
    """How Pinecone runs one comparison on the derived metadata.

    Order is exact while the bound is: what is stored may be rounded, but not across a number below 2^53.
    `$contains` asks for the element, or where it may be a part of a string, for any value at all.
    """
    if node.path[0].startswith("$") or any("." in part for part in node.path):
        return "none"
    if isinstance(node.value, tuple) and len(node.value) > _MAX_VALUES:
        return "none"
    if node.op == "$contains":
        return "superset"
    if node.op in filters.ORDER_OPS and abs(_bound(node.value)) >= _EXACT:
        return "superset"
    return "exact"


def _bound(value: Any) -> int | float:
    """The number that an order comparison is with."""
    at = _instant(value) if isinstance(value, str) else value
    assert at is not None  # `filters.parse` takes numbers and dates alone
    return cast("int | float", at)


def _condition(where: Filter) -> Metadata | None:
    """A condition in Pinecone's language; None where nothing satisfies it."""
    translated = _translated(where, negated=False)
    if isinstance(translated, bool):
        return {key: {"$eq": value} for key, value in _FORMAT.items()} if translated else None
    return translated


def _translated(node: Filter, negated: bool) -> Metadata | bool:
    """There is no `$not`: it is pushed down to the comparisons. True and False hold for all and for none."""
    match node:
        case Not(part):
            return _translated(part, not negated)
        case And(parts) | Or(parts):
            every = isinstance(node, And) is not negated
            translated = [_translated(part, negated) for part in parts]
            if (not every) in translated:
                return not every
            left = [part for part in translated if not isinstance(part, bool)]
            if len(left) < 2:
                return left[0] if left else every
            return {"$and" if every else "$or": left}
        case Loose(part):
            return _translated(part, negated)
        case Comparison():
            return _compared(node, negated)


def _compared(node: Comparison, negated: bool) -> Metadata | bool:
    field = _label(".".join(node.path)) + "#"
    if node.op == "$exists" or (node.op == "$contains" and isinstance(node.value, str)):
        return {field: {"$exists": not negated}}
    if node.op in filters.ORDER_OPS:
        bound, op = _bound(node.value), str(node.op)
        greatest = op in ("$gt", "$gte")
        if isinstance(node.value, str):
            field += "last" if greatest else "first"
        else:
            field += "max" if greatest else "min"
        if abs(bound) >= _EXACT:
            bound, op = float(bound), _INCLUSIVE.get(op, op)
        if not negated:
            return {field: {op: bound}}
        # Whether a negative operator matches a missing field, Pinecone does not say.
        return {"$or": [{field: {"$exists": False}}, {field: {_COMPLEMENT[op]: bound}}]}
    values = node.value if isinstance(node.value, tuple) else (node.value,)
    tokens = list(dict.fromkeys(_token(value) for value in values))
    if not tokens:
        return negated
    if not negated:
        return {field: {"$in": tokens}}
    return {"$or": [{field: {"$exists": False}}, {field: {"$nin": tokens}}]}


# --- errors ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def _errors(refused: type[NearestError] = InvalidInput) -> Iterator[None]:
    """What the client raises, as ours. refused: for a request that the service will never take."""
    import pinecone

    try:
        yield
    except pinecone.PineconeError as error:
        raise _ours(error, refused) from error


def _ours(error: Exception, refused: type[NearestError]) -> NearestError:
    import pinecone

    status, said = getattr(error, "status_code", None), str(error)
    match error:
        case pinecone.PineconeTimeoutError():
            return TimedOut(
                f"Pinecone did not answer in time ({said}); try again; more time is given by timeout= and wait="
            )
        case pinecone.PineconeConnectionError():
            return ConnectionFailed(f"Pinecone cannot be reached ({said}); check the network and the option host=")
        case pinecone.UnauthorizedError():
            return AccessDenied(f"Pinecone refused the key ({said}); check PINECONE_API_KEY")
        case pinecone.ForbiddenError() | pinecone.PaymentRequiredError():
            return AccessDenied(f"Pinecone does not allow it ({said}); check the key's rights and the plan's limits")
        case pinecone.NotFoundError():
            return NotACollection(f"Pinecone has nothing there ({said})")
        case pinecone.RateLimitError():
            return Throttled(f"Pinecone is asked too much ({said}); try again later", **_pause(error))
        case pinecone.ServiceError() if status == 503:
            return Throttled(f"Pinecone is busy ({said}); try again later", **_pause(error))
        case pinecone.ServiceError() | pinecone.ResponseParsingError():
            return ConnectionFailed(f"Pinecone failed ({said}); try again, and see its status page")
        case pinecone.IndexInitFailedError() | pinecone.IndexTerminatedError():
            return NotACollection(f"the index is not usable ({said}); delete it, or give another one")
    return refused(f"Pinecone refused: {said}")


def _pause(error: Any) -> dict[str, float]:
    """`retry_after`, if the service said it, in seconds."""
    try:
        return {"retry_after": float((error.headers or {})["retry-after"])}
    except (KeyError, ValueError):
        return {}
