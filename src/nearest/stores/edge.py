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
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nearest.contract import (
    Capabilities,
    Dense,
    FieldKind,
    Fused,
    Gap,
    Page,
    Query,
    Record,
    Schema,
    Sparse,
    SparseVector,
    StoreURL,
    Text,
    check_schema,
)
from nearest.errors import (
    CollectionDamaged,
    CollectionLocked,
    DiskFull,
    InvalidInput,
    MissingDependency,
    NearestError,
    NotACollection,
    StorageError,
    UnsupportedError,
)
from nearest.filters import Comparison, Filter, Memo
from nearest.stores import _folder, _qdrant
from nearest.stores._qdrant import ID_KEY, TIES, Dialect

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
_ENGINE_FILES = {"wal", "segments", "temp_segments", "edge_config.json"}
# The engine grows memory-mapped files; a mapped write on a full disk ends the process, so room is kept.
_SPARE_BYTES = 96 * 2**20
_NO_VECTOR = "nearest:none"
# A filtered walk of the graph scores some 30 vectors for each of its `ef` (measured: 60,000 vectors, 384 dimensions, ef
# 16 to 200); where no more than that match, scoring all of them is as fast, and exact.
_WALKED = 30
# The graph keeps what shares one value connected, not what several conditions share: it then lost 5% of the
# neighbours of 5,200 matches, while scoring 10,000 takes under a millisecond.
_SCANNED = 10_000


class EdgeStore(Dialect):
    fresh = True
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
        self._translated = Memo(lambda where: _qdrant.translate(where, self._build))
        self._matching = Memo(self._estimate)

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
            lock = _folder.lock(folder)
        try:
            with _disk_errors(folder):
                if exists:
                    found = _read_schema(folder)
                    _folder.check_same(folder, found, schema)
                    shard = _load(engine, folder, found)
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

    def _check(self, record: Record) -> None:
        _qdrant.check(record)

    def _upsert(self, records: list[Record]) -> None:
        points = [self._point(record) for record in records]
        # Once in the write-ahead log, once in the segment.
        _need_room(self._folder, 2 * sum(self._size(record) for record in records))
        self._update(self._qe.UpdateOperation.upsert_points(points))

    def _update(self, operation: Any) -> None:
        with _disk_errors(self._folder):
            self._open.update(operation)
        self._matching.clear()

    def _point(self, record: Record) -> Any:
        vectors = {
            name: self._qe.SparseVector(value.indices.tolist(), value.values.tolist())
            if isinstance(value, SparseVector)
            else value.tolist()
            for name, value in record.vectors.items()
        }
        point_id = _qdrant.point_id(record.id)
        return self._qe.Point(id=point_id, vector=vectors, payload=_qdrant.packed(record, point_id))

    @staticmethod
    def _size(record: Record) -> int:
        vectors = sum(v.values.nbytes * 2 if isinstance(v, SparseVector) else v.nbytes for v in record.vectors.values())
        return vectors + 2 * len(str(record.payload))

    def _delete(self, ids: list[str]) -> None:
        self._update(self._qe.UpdateOperation.delete_points([_qdrant.point_id(i) for i in ids]))

    def _delete_where(self, where: Filter) -> None:
        self._update(self._qe.UpdateOperation.delete_points_by_filter(self._filter(where)))

    def optimize(self) -> None:
        """Build the index. Raises DiskFull if there is no room for it; nothing that was written is lost then."""
        with _disk_errors(self._folder):
            self._open.optimize()

    def flush(self) -> None:
        with _disk_errors(self._folder):
            self._open.flush()

    def stats(self) -> dict[str, Any]:
        with _disk_errors(self._folder):
            known = self._open.info()
            # Blocks, not lengths: the engine reserves room in its files that takes none on the disk.
            sizes = [path.stat().st_blocks * 512 for path in self._folder.rglob("*") if path.is_file()]
        state = f"HNSW, {known.segments_count} segments"
        return {"disk_bytes": sum(sizes), "indexed": known.indexed_vectors_count, "index": state}

    # --- reading ---

    def _filter(self, where: Filter | None) -> Any:
        return None if where is None else self._translated(where)

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

    def _run(self, requests: list[Any]) -> Sequence[Sequence[Any]]:
        with _disk_errors(self._folder):
            if len(requests) == 1:
                return [self._open.query(requests[0])]
            found: Sequence[Sequence[Any]] = self._open.query_batch(self._qe.QueryBatchRequest(requests))
            return found

    def _fetch(self, keys: list[Any], with_vectors: bool) -> Sequence[Any]:
        ids: list[Any] = [uuid.UUID(int=number) for number in keys]
        with _disk_errors(self._folder):
            return self._open.retrieve(ids, with_payload=True, with_vector=with_vectors)

    def _keys(self, points: Sequence[Any]) -> list[Hashable]:
        return [point.id.int for point in points]

    def _requests(self, query: Query) -> list[Any]:
        qe, find = self._qe, query.find
        where = self._filter(query.where)
        params = self._search_params(query.ef, query.exact or self._few(query))
        # Without any payload a hit's own id is known only if it is a UUID.
        payload = query.with_payload or qe.PayloadSelector.Include([f'"{ID_KEY}"'])
        shown = {"with_payload": payload, "with_vector": query.with_vectors}
        if not isinstance(find, Fused):
            return [qe.QueryRequest(query.k, query=self._find(find), filter=where, params=params, **shown)]
        depth = max(find.candidates, query.k)
        parts = [{"limit": depth, "query": self._find(p), "filter": where, "params": params} for p in find.parts]
        if self._fuses(query, find):
            prefetches = [qe.Prefetch(**part) for part in parts]
            fused = qe.Fusion.Rrf(k=find.rrf_k + 1)  # the engine counts ranks from 0
            return [qe.QueryRequest(query.k + TIES, prefetches=prefetches, query=fused, **shown)]
        return [qe.QueryRequest(**part, with_payload=False) for part in parts]

    def _few(self, query: Query) -> bool:
        """Whether so few records match that scoring all of them serves better than the graph."""
        if query.where is None or isinstance(query.find, Sparse | Text):
            return False
        asked = max(query.k, query.find.candidates) if isinstance(query.find, Fused) else query.k
        most = _WALKED * max(query.ef or self.schema.index.ef, asked)
        if not (isinstance(query.where, Comparison) and query.where.op == "$eq"):
            most = max(most, _SCANNED)
        return self._matching(query.where) <= most

    def _estimate(self, where: Filter) -> int:
        with _disk_errors(self._folder):
            count: int = self._open.count(self._qe.CountRequest(exact=False, filter=self._filter(where)))
        return count

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


STORE = EdgeStore


def connect(url: StoreURL, schema: Schema | None) -> EdgeStore:
    """`edge:FOLDER`. With a schema a new or empty folder becomes a collection."""
    if not url.location:
        raise InvalidInput("edge: needs a folder, such as edge:./dir")
    if url.options:
        raise InvalidInput(f"edge: takes no options, got {', '.join(url.options)}")
    return EdgeStore.open(Path(url.location), schema)


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
    leftovers = _ENGINE_FILES | {_folder.LOCK_FILE, _CREATING_FILE}
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


def _read_schema(folder: Path) -> Schema:
    try:
        return Schema.from_json(json.loads((folder / _SCHEMA_FILE).read_text()))
    except (ValueError, KeyError, TypeError) as error:
        raise CollectionDamaged(f"{folder / _SCHEMA_FILE} cannot be read ({error}); restore it from a backup") from None


def _load(engine: ModuleType, folder: Path, schema: Schema) -> Any:
    try:
        segments = len(list((folder / "segments").iterdir()))
        settings = engine.EdgeConfig(**_vectors(engine, schema), max_search_threads=_threads(segments))
        return engine.EdgeShard.load(str(folder), settings)
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
    index = schema.index
    quantization = {
        "none": lambda: None,
        "scalar": lambda: engine.ScalarQuantizationConfig(engine.ScalarType.Int8, quantile=0.99),
        "product": lambda: engine.ProductQuantizationConfig(engine.CompressionRatio.X16),
        "binary": engine.BinaryQuantizationConfig,
    }[index.quantization]()
    return engine.EdgeConfig(
        **_vectors(engine, schema),
        # Values with more vectors than this (in KiB) get links of their own; below, the engine scans; see `_few`.
        hnsw_config=engine.HnswIndexConfig(m=index.m, ef_construct=index.ef_construct, full_scan_threshold=1_000),
        quantization_config=quantization,
        max_search_threads=_threads(os.cpu_count() or 1),
    )


def _vectors(engine: ModuleType, schema: Schema) -> dict[str, Any]:
    metrics = {"cosine": engine.Distance.Cosine, "dot": engine.Distance.Dot, "l2": engine.Distance.Euclid}
    maxsim = engine.MultiVectorConfig(engine.MultiVectorComparator.MaxSim)
    # No graph of multi-vectors: each comparison is of all tokens with all, so building one takes seconds a record.
    scanned = engine.HnswIndexConfig(m=0, ef_construct=schema.index.ef_construct, full_scan_threshold=10_000)
    return {
        "vectors": {
            name: engine.EdgeVectorParams(
                spec.dim,
                metrics[spec.metric],
                multivector_config=maxsim if spec.multi else None,
                hnsw_config=scanned if spec.multi else None,
            )
            for name, spec in schema.vectors.items()
        },
        # The engine wants one vector field at least, so a collection of texts alone has one that stays empty.
        "sparse_vectors": {
            name: engine.EdgeSparseVectorParams() for name in schema.sparse or (() if schema.vectors else (_NO_VECTOR,))
        },
    }


def _threads(segments: int) -> int:
    """That read the segments of a collection at once.

    One of two segments is the one written to, mostly empty: there handing a search to threads costs more than it gains.
    """
    return min(segments, os.cpu_count() or 1) if segments > 2 else 1


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
        enable_hnsw=False,  # links between the texts that share a word: no search follows them, and building takes 3x
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
    _folder.raise_disk_error(error, folder)
    if "WouldBlock" in str(error):
        raise CollectionLocked(f"{folder} is open in another process; close it there and try again") from error
