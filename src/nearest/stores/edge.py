"""Qdrant Edge: the Qdrant engine in this process, on a folder. The embedded default.

A folder holds one collection: the engine's own files, `schema.json` (what the collection is; written
last, so that its presence means a complete creation) and `.lock` (held while the collection is open).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nearest import filters, fusion
from nearest.contract import (
    Capabilities,
    Dense,
    FieldKind,
    Fused,
    Gap,
    Hit,
    Page,
    Query,
    Record,
    Schema,
    Sparse,
    SparseVector,
    Store,
    StoreURL,
    Text,
    check_schema,
    explain_parts,
)
from nearest.errors import (
    CollectionDamaged,
    CollectionLocked,
    DiskFull,
    InvalidInput,
    InvalidRecord,
    MissingDependency,
    NearestError,
    NotACollection,
    ReadOnly,
    SchemaMismatch,
    StorageError,
    UnsupportedError,
)
from nearest.filters import Comparison, Filter
from nearest.stores import _qdrant
from nearest.stores._qdrant import ID_KEY

if TYPE_CHECKING:
    from types import ModuleType

    import qdrant_edge as qe
    from filelock import FileLock

REQUIRES = {"qdrant-edge-py": "==0.9.0"}
KNOWN_GAPS = (
    Gap(
        "test_multi_vector_scores[l2]",
        "upstream",
        "the engine does not sum distances for multi-vectors under l2, so such a schema is refused",
    ),
)
EMBEDDED = True

_SCHEMA_FILE = "schema.json"
_CREATING_FILE = "schema.json.creating"
_LOCK_FILE = ".lock"
_ENGINE_FILES = {"wal", "segments", "temp_segments", "edge_config.json"}
# The engine grows memory-mapped files; a mapped write on a full disk ends the process, so room is kept.
_SPARE_BYTES = 96 * 2**20
# Reciprocal ranks tie often, and the engine cuts among equals as it likes: this many more than k are asked for.
_TIES = 2
_NO_VECTOR = "nearest:none"


class EdgeStore(Store):
    capabilities = Capabilities(
        features=frozenset(
            {
                "dense", "sparse", "multi_vector", "named_vectors", "text", "native_fusion", "cosine", "dot", "l2",
                "hnsw", "scalar", "product", "binary", "payload_index", "durable", "exact",
            }
        ),
        filters=frozenset({"$eq", "$in", "$gt", "$gte", "$lt", "$lte", "$exists"}),
    )  # fmt: skip

    def __init__(self, folder: Path, schema: Schema, shard: qe.EdgeShard, engine: ModuleType, lock: FileLock) -> None:
        self.schema = schema
        self._folder = folder
        self._shard: qe.EdgeShard | None = shard
        self._qe = engine
        self._lock = lock
        self._build = _EdgeBuilder(engine)
        self._params: dict[tuple[int | None, bool], Any] = {}

    # --- opening ---

    @classmethod
    def open(cls, folder: Path, schema: Schema | None) -> EdgeStore:
        engine = _engine()
        if schema is not None:
            check_schema(schema, cls.capabilities)
            for name, spec in schema.vectors.items():
                if spec.multi and spec.metric == "l2":
                    raise UnsupportedError(
                        f"this store has no multi-vectors under l2 (vector {name!r}); use cosine or dot"
                    )
        exists = (folder / _SCHEMA_FILE).is_file()
        if not exists:
            _check_creatable(folder, schema)
        with _disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            lock = _lock(folder)
        try:
            with _disk_errors(folder):
                if exists:
                    found = _read_schema(folder)
                    _check_same(folder, found, schema)
                    shard = _load(engine, folder)
                else:
                    assert schema is not None
                    found = schema
                    shard = _create(engine, folder, schema)
            return cls(folder, found, shard, engine, lock)
        except BaseException:
            lock.release()
            raise

    def close(self) -> None:
        if self._shard is not None:
            shard, self._shard = self._shard, None
            try:
                with _disk_errors(self._folder):
                    shard.close()
            finally:
                self._lock.release()

    @property
    def _open(self) -> qe.EdgeShard:
        if self._shard is None:
            raise StorageError(f"the collection at {self._folder} was closed; open it again")
        return self._shard

    # --- writing ---

    def _upsert(self, records: list[Record]) -> None:
        points = [self._point(record) for record in records]
        # Once in the write-ahead log, once in the segment.
        _need_room(self._folder, 2 * sum(self._size(record) for record in records))
        with _disk_errors(self._folder):
            self._open.update(self._qe.UpdateOperation.upsert_points(points))

    def _point(self, record: Record) -> Any:
        if ID_KEY in record.payload:
            raise InvalidRecord(f"record {record.id!r}: the payload key {ID_KEY!r} is taken; rename yours")
        vectors = {
            name: self._qe.SparseVector(value.indices.tolist(), value.values.tolist())
            if isinstance(value, SparseVector)
            else value.tolist()
            for name, value in record.vectors.items()
        }
        point_id = _qdrant.point_id(record.id)
        payload = dict(record.payload) if point_id == record.id else {**record.payload, ID_KEY: record.id}
        return self._qe.Point(id=point_id, vector=vectors, payload=payload)

    @staticmethod
    def _size(record: Record) -> int:
        vectors = sum(v.values.nbytes * 2 if isinstance(v, SparseVector) else v.nbytes for v in record.vectors.values())
        return vectors + 2 * len(str(record.payload))

    def _delete(self, ids: list[str]) -> None:
        with _disk_errors(self._folder):
            self._open.update(self._qe.UpdateOperation.delete_points([_qdrant.point_id(i) for i in ids]))

    def _delete_where(self, where: Filter) -> None:
        with _disk_errors(self._folder):
            self._open.update(self._qe.UpdateOperation.delete_points_by_filter(self._filter(where)))

    def optimize(self) -> None:
        """Build the index. Raises DiskFull if there is no room for it; nothing that was written is lost then."""
        with _disk_errors(self._folder):
            self._open.optimize()

    def flush(self) -> None:
        with _disk_errors(self._folder):
            self._open.flush()

    # --- reading ---

    def filter_support(self, comparison: Comparison) -> filters.Support:
        return _qdrant.support(self.schema, comparison)

    def _filter(self, where: Filter | None) -> Any:
        return None if where is None else _qdrant.translate(where, self._build)

    def _get(self, ids: list[str], with_vectors: bool) -> list[Record]:
        with _disk_errors(self._folder):
            points = self._open.retrieve(
                [_qdrant.point_id(i) for i in ids], with_payload=True, with_vector=with_vectors
            )
        return [self._record(point) for point in points]

    def _count(self, where: Filter | None) -> int:
        with _disk_errors(self._folder):
            return self._open.count(self._qe.CountRequest(exact=True, filter=self._filter(where)))

    def _scan(self, cursor: str | None, limit: int, where: Filter | None, with_vectors: bool) -> Page:
        if cursor is not None and not _qdrant.is_uuid(cursor):
            raise InvalidInput(f"{cursor!r} is not a cursor of this store")
        request = self._qe.ScrollRequest(
            offset=cursor, limit=limit, filter=self._filter(where), with_payload=True, with_vector=with_vectors
        )
        with _disk_errors(self._folder):
            points, following = self._open.scroll(request)
        return Page([self._record(point) for point in points], None if following is None else str(following))

    def _search_many(self, queries: list[Query]) -> list[list[Hit]]:
        asked = [self._requests(query) for query in queries]
        requests = [request for each in asked for request in each]
        with _disk_errors(self._folder):
            if len(requests) == 1:
                answers = iter([self._open.query(requests[0])])
            else:
                answers = iter(self._open.query_batch(self._qe.QueryBatchRequest(requests)))
        return [self._answer(query, [next(answers) for _ in each]) for query, each in zip(queries, asked, strict=True)]

    def _requests(self, query: Query) -> list[Any]:
        qe, find = self._qe, query.find
        where, params = self._filter(query.where), self._search_params(query.ef, query.exact)
        # Without any payload a hit's own id is known only if it is a UUID.
        payload = query.with_payload or qe.PayloadSelector.Include([f'"{ID_KEY}"'])
        shown = {"with_payload": payload, "with_vector": query.with_vectors}
        if not isinstance(find, Fused):
            return [qe.QueryRequest(query.k, query=self._find(find), filter=where, params=params, **shown)]
        depth = max(find.candidates, query.k)
        parts = [{"limit": depth, "query": self._find(p), "filter": where, "params": params} for p in find.parts]
        if _native(query, find):
            prefetches = [qe.Prefetch(**part) for part in parts]
            fused = qe.Fusion.Rrf(k=find.rrf_k + 1)  # the engine counts ranks from 0
            return [qe.QueryRequest(query.k + _TIES, prefetches=prefetches, query=fused, **shown)]
        return [qe.QueryRequest(**part, with_payload=False) for part in parts]

    def _find(self, part: Dense | Sparse | Text) -> Any:
        match part:
            case Dense(vector, using):
                return self._qe.Query.Nearest(np.asarray(vector).tolist(), using=using)
            case Sparse(vector, using):
                sparse = self._qe.SparseVector(vector.indices.tolist(), vector.values.tolist())
                return self._qe.Query.Nearest(sparse, using=using)
            case Text(text):
                return self._qe.TextQuery(_qdrant.key(tuple((self.schema.text or "").split("."))), text)

    def _search_params(self, ef: int | None, exact: bool) -> Any:
        known = self._params.get((ef, exact))
        if known is None:
            index = self.schema.index
            quantization = None
            if index.quantization != "none":
                quantization = self._qe.QuantizationSearchParams(
                    rescore=index.rescore, oversampling=index.oversampling if index.rescore else None
                )
            known = self._qe.SearchParams(hnsw_ef=ef or index.ef, exact=exact, quantization=quantization)
            self._params[(ef, exact)] = known
        return known

    def _answer(self, query: Query, answers: list[Any]) -> list[Hit]:
        if isinstance(query.find, Fused) and not _native(query, query.find):
            return self._fuse(query, query.find, answers)
        scores = self._scores(query.find, answers[0])
        hits = [self._hit(point, score, query) for point, score in zip(answers[0], scores, strict=True)]
        hits.sort(key=lambda hit: (-hit.score, hit.id))
        return hits[: query.k]

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

    def _fuse(self, query: Query, find: Fused, answers: Sequence[Sequence[Any]]) -> list[Hit]:
        # Fused by the points' own ids (a UUID's number: the cheapest key); payloads are fetched for the k
        # best alone, and for those that tie with the last of them, since ties are broken by the user's ids.
        rankings: list[list[tuple[int, float]]] = [
            list(zip([point.id.int for point in points], self._scores(part, points), strict=True))
            for part, points in zip(find.parts, answers, strict=True)
        ]
        fused = fusion.scores(rankings, find.method, find.weights, find.rrf_k)
        if not fused:
            return []
        last = sorted(fused.values(), reverse=True)[: query.k][-1]
        best: list[Any] = [uuid.UUID(int=i) for i, score in fused.items() if score >= last]
        with _disk_errors(self._folder):
            found: Sequence[Any] = self._open.retrieve(best, with_payload=True, with_vector=query.with_vectors)
        told = explain_parts(find, rankings, (i.int for i in best)) if query.explain else {}
        hits = []
        for point in found:
            number = point.id.int
            hits.append(self._hit(point, fused[number], query, told.get(number)))
        hits.sort(key=lambda hit: (-hit.score, hit.id))
        return hits[: query.k]

    def _hit(self, point: Any, score: float, query: Query, explain: dict[str, Any] | None = None) -> Hit:
        record_id, vectors, payload = self._parts(point)
        return Hit(record_id, vectors, payload if query.with_payload else {}, score, explain)

    def _record(self, point: Any) -> Record:
        return Record(*self._parts(point))

    def _parts(self, point: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
        payload = point.payload or {}
        own = payload.pop(ID_KEY, None)
        vectors = self._vectors(point.vector) if point.vector else {}
        return str(point.id) if own is None else own, vectors, payload

    def _vectors(self, stored: dict[str, Any]) -> dict[str, Any]:
        return {
            name: np.asarray(value, np.float32)
            if name in self.schema.vectors
            else SparseVector(np.asarray(value.indices, np.uint32), np.asarray(value.values, np.float32))
            for name, value in stored.items()
        }


STORE = EdgeStore


def connect(url: StoreURL, schema: Schema | None) -> EdgeStore:
    """`edge:FOLDER`. With a schema a new or empty folder becomes a collection."""
    if not url.location:
        raise InvalidInput("edge: needs a folder, such as edge:./dir")
    if url.options:
        raise InvalidInput(f"edge: takes no options, got {', '.join(url.options)}")
    return EdgeStore.open(Path(url.location), schema)


def _native(query: Query, find: Fused) -> bool:
    """Whether the engine fuses: by reciprocal rank, without weights, and with no parts to explain."""
    return find.method == "rrf" and find.weights is None and not query.explain


class _EdgeBuilder:
    """Filter conditions in the embedded engine's classes."""

    def __init__(self, engine: ModuleType) -> None:
        self._qe = engine

    def match(self, field: str, value: str | bool) -> Any:
        # The binding takes a Python bool for an integer, but not NumPy's.
        exact = np.bool_(value) if isinstance(value, bool) else value
        return self._qe.FieldCondition(field, match=self._qe.MatchValue(exact))

    def match_any(self, field: str, values: list[str]) -> Any:
        return self._qe.FieldCondition(field, match=self._qe.MatchAny(values))

    def substring(self, field: str, text: str) -> Any:
        return self._qe.FieldCondition(field, match=self._qe.MatchSubstring(text))

    def numbers(self, field: str, bounds: dict[str, float]) -> Any:
        return self._qe.FieldCondition(field, range=self._qe.RangeFloat(**bounds))

    def dates(self, field: str, bounds: dict[str, str]) -> Any:
        # The engine parses upper-case T and Z only.
        upper = {name: text.upper() for name, text in bounds.items()}
        return self._qe.FieldCondition(field, range=self._qe.RangeDateTime(**upper))

    def is_empty(self, field: str) -> Any:
        return self._qe.IsEmptyCondition(field)

    def combine(self, *, must: Sequence[Any] = (), should: Sequence[Any] = (), must_not: Sequence[Any] = ()) -> Any:
        return self._qe.Filter(must=list(must) or None, should=list(should) or None, must_not=list(must_not) or None)


# --- a folder's life -------------------------------------------------------------------------------


def _engine() -> ModuleType:
    try:
        import qdrant_edge
    except ImportError as error:
        raise MissingDependency("the embedded store needs qdrant-edge-py; run: pip install nearest") from error
    return qdrant_edge


def _check_creatable(folder: Path, schema: Schema | None) -> None:
    if folder.exists() and not folder.is_dir():
        raise NotACollection(f"{folder} is a file; give a folder")
    leftovers = _ENGINE_FILES | {_LOCK_FILE, _CREATING_FILE}
    strangers = sorted(p.name for p in folder.iterdir() if p.name not in leftovers) if folder.exists() else []
    engine_alone = folder.exists() and not (folder / _CREATING_FILE).exists() and (folder / "segments").exists()
    if strangers or engine_alone:
        raise NotACollection(f"{folder} is not a collection of nearest and not empty; give another folder")
    if schema is None:
        raise NotACollection(f"{folder} holds no collection; to make one, give a schema")
    _need_room(next(place for place in (folder, *folder.absolute().parents) if place.exists()), 0)


def _need_room(folder: Path, size: int) -> None:
    need = size + _SPARE_BYTES
    free = shutil.disk_usage(folder).free
    if free < need:
        raise DiskFull(
            f"{folder}: {free >> 20} MiB are free and this write wants {need >> 20} MiB; nothing of it was written; "
            "free some space and run it again",
            free=free,
            need=need,
        )


def _lock(folder: Path) -> FileLock:
    from filelock import FileLock, Timeout

    lock = FileLock(folder / _LOCK_FILE, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise CollectionLocked(
            f"{folder} is open in another process (or elsewhere in this one); close it there and try again",
            folder=str(folder),
        ) from None
    return lock


def _read_schema(folder: Path) -> Schema:
    try:
        return Schema.from_json(json.loads((folder / _SCHEMA_FILE).read_text()))
    except (ValueError, KeyError, TypeError) as error:
        raise CollectionDamaged(f"{folder / _SCHEMA_FILE} cannot be read ({error}); restore it from a backup") from None


def _check_same(folder: Path, found: Schema, asked: Schema | None) -> None:
    if asked is None or found == asked:
        return
    was, now = found.to_json(), asked.to_json()
    differing = [f"{name} was {was[name]}, now {now[name]}" for name in was if was[name] != now[name]]
    raise SchemaMismatch(f"{folder} was made with another schema: {'; '.join(differing)}", folder=str(folder))


def _load(engine: ModuleType, folder: Path) -> Any:
    try:
        return engine.EdgeShard.load(str(folder))
    except Exception as error:
        _raise_known(error, folder)
        raise CollectionDamaged(f"{folder} cannot be opened ({error}); restore it from a backup") from error


def _create(engine: ModuleType, folder: Path, schema: Schema) -> Any:
    for name in _ENGINE_FILES:  # of a creation that a crash cut off; nothing was acknowledged yet
        target = folder / name
        shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
    creating = folder / _CREATING_FILE
    with creating.open("w") as file:
        json.dump(schema.to_json(), file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    shard = engine.EdgeShard.create(str(folder), _config(engine, schema))
    for path, kind in schema.fields.items():
        index = engine.UpdateOperation.create_field_index(_qdrant.key(tuple(path.split("."))), _field(engine, kind))
        shard.update(index)
    if schema.text is not None:
        key = _qdrant.key(tuple(schema.text.split(".")))
        shard.update(engine.UpdateOperation.create_field_index(key, _text_index(engine, schema.language)))
    shard.flush()
    creating.rename(folder / _SCHEMA_FILE)
    return shard


def _config(engine: ModuleType, schema: Schema) -> Any:
    metrics = {"cosine": engine.Distance.Cosine, "dot": engine.Distance.Dot, "l2": engine.Distance.Euclid}
    maxsim = engine.MultiVectorConfig(engine.MultiVectorComparator.MaxSim)
    index = schema.index
    quantization = {
        "none": lambda: None,
        "scalar": lambda: engine.ScalarQuantizationConfig(engine.ScalarType.Int8, quantile=0.99),
        "product": lambda: engine.ProductQuantizationConfig(engine.CompressionRatio.X16),
        "binary": engine.BinaryQuantizationConfig,
    }[index.quantization]()
    return engine.EdgeConfig(
        vectors={
            name: engine.EdgeVectorParams(
                spec.dim, metrics[spec.metric], multivector_config=maxsim if spec.multi else None
            )
            for name, spec in schema.vectors.items()
        },
        # The engine wants one vector field at least, so a collection of texts alone has one that stays empty.
        sparse_vectors={
            name: engine.EdgeSparseVectorParams() for name in schema.sparse or (() if schema.vectors else (_NO_VECTOR,))
        },
        hnsw_config=engine.HnswIndexConfig(m=index.m, ef_construct=index.ef_construct, full_scan_threshold=10_000),
        quantization_config=quantization,
    )  # fmt: skip


def _field(engine: ModuleType, kind: FieldKind) -> Any:
    return {
        "keyword": engine.PayloadSchemaType.Keyword,
        "integer": engine.PayloadSchemaType.Integer,
        "float": engine.PayloadSchemaType.Float,
        "bool": engine.PayloadSchemaType.Bool,
        "datetime": engine.PayloadSchemaType.Datetime,
    }[kind]


def _text_index(engine: ModuleType, language: str) -> Any:
    name = language.capitalize()
    if not hasattr(engine.SnowballLanguage, name) or not hasattr(engine.Language, name):
        raise InvalidInput(f"language {language!r} has no stemmer here; english, french, german and others have")
    return engine.TextIndexParams(
        tokenizer=engine.TokenizerType.Word,
        lowercase=True,
        stopwords=getattr(engine.Language, name),
        stemmer=engine.SnowballParams(getattr(engine.SnowballLanguage, name)),
        scoring=True,
    )


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """What the engine and the operating system say, as ours."""
    try:
        yield
    except NearestError:
        raise
    except Exception as error:
        _raise_known(error, folder)
        raise StorageError(f"{folder}: the engine refused: {error}") from error
    except BaseException as error:
        # A panic in the engine is not an Exception; anything else (Ctrl-C) passes.
        if type(error).__name__ != "PanicException":
            raise
        raise CollectionDamaged(f"{folder}: the engine failed ({error}); open the collection again") from error


def _raise_known(error: Exception, folder: Path) -> None:
    said = str(error)
    number = error.errno if isinstance(error, OSError) else None
    if (
        number == 28
        or "No space left" in said
        or "os error 28" in said
        or "isk is full" in said
        or "Not enough space" in said
    ):
        raise DiskFull(f"{folder}: the disk is full; free some space and run it again ({said})") from error
    if number in (13, 30) or "Read-only file system" in said or "Permission denied" in said:
        raise ReadOnly(f"{folder} cannot be written ({said}); check its permissions, or copy it elsewhere") from error
    if "WouldBlock" in said:
        raise CollectionLocked(f"{folder} is open in another process; close it there and try again") from error
