"""Qdrant: a server, a cluster or the cloud service, 1.16 or newer, over HTTP or gRPC.

    qdrant://[KEY@]HOST[:6333]/COLLECTION?option=value&...

KEY is the API key (percent-encoded); without it the environment's NEAREST_QDRANT_API_KEY or QDRANT_API_KEY is
used. Options of the connection:
    tls         true or false; true where there is a key, else false. Trusts what the system trusts, or the file
                that SSL_CERT_FILE (HTTP) or GRPC_DEFAULT_SSL_ROOTS_FILE_PATH (gRPC) names
    grpc        true: everything over gRPC, which is faster where vectors are many; payloads are then at most
                20 levels deep
    grpc_port   6334
    timeout     seconds a call may take, 60
Options of creation, which an existing collection must agree with:
    shard_number, replication_factor, write_consistency_factor
                whole numbers of 1 or more; the server's own defaults
    on_disk     true: vectors stay on the disk, and quantized ones in memory

A collection's metadata keeps its schema, written last, so that it marks a complete creation. Words are searched
by a sparse vector of BM25 weights (Robertson and Zaragoza, 2009) which the server multiplies by the inverse
document frequency. Weights are set when a record is written, so the average length in them is a constant,
`AVERAGE_LENGTH`, not the collection's own.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
import zlib
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import numpy as np

from nearest import filters
from nearest.contract import (
    Capabilities,
    Dense,
    Fused,
    Gap,
    Page,
    QuantizationKind,
    Query,
    Record,
    Schema,
    Sparse,
    SparseVector,
    StoreURL,
    Text,
    canonical_json,
    check_schema,
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
    SchemaMismatch,
    StorageError,
    Throttled,
    TimedOut,
    UnsupportedError,
)
from nearest.filters import Comparison, Filter
from nearest.stores import _qdrant
from nearest.stores._bm25 import K1, Analyzer, B
from nearest.stores._grpc import RECONNECT, reaching
from nearest.stores._qdrant import ID_KEY, TIES, Dialect

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

REQUIRES = {"qdrant-client": ">=1.20,<2"}
KNOWN_GAPS = (
    Gap(
        "test_multi_vector_scores[l2]",
        "upstream",
        "the engine does not sum distances for multi-vectors under l2, so such a schema is refused",
    ),
)

AVERAGE_LENGTH = 128
"""Terms of a text of usual length, in BM25 weights: about what a chunk of 256 tokens has.

It matters little: nDCG@10 on SciFact, whose abstracts have 151 on average, is 0.688 with 128, 0.686 with 151 and
0.681 with 256.
"""
_TEXT_VECTOR = "nearest-text"
# Key of the collection's metadata. It holds {"creating": schema}, and when creation is complete {"schema": schema}.
_MARK = "nearest"
_OLDEST = (1, 16)  # keeps metadata, and takes RRF's constant
_SUBSTRINGS = (1, 20)
_REQUEST_BYTES = 16 * 2**20  # half of what a server takes in one request unless told otherwise
_BYTES_A_NUMBER = 21  # of a float32 as JSON
_DEEPEST_GRPC = 20  # levels of a payload; gRPC messages nest at most 100 deep, and a level takes up to four
_POLL = 0.2  # seconds between questions whether an index is built


class QdrantStore(Dialect):
    capabilities = Capabilities(
        features=frozenset(
            {
                "dense", "sparse", "multi_vector", "named_vectors", "text", "native_fusion", "cosine", "dot", "l2",
                "hnsw", "scalar", "product", "binary", "payload_index", "durable", "exact",
            }
        ),
        filters=frozenset({"$eq", "$in", "$gt", "$gte", "$lt", "$lte", "$exists"}),
        max_batch=1000,
        remote=True,
    )  # fmt: skip

    def __init__(
        self,
        client: QdrantClient,
        collection: str,
        schema: Schema,
        *,
        version: tuple[int, int],
        place: str,
        grpc: bool,
    ) -> None:
        """On a collection that `open` found or made."""
        from qdrant_client import models

        self.schema = schema
        self._client: QdrantClient | None = client
        self._collection = collection
        self._place = place
        self._grpc = grpc
        self._models = models
        self._build = _ServerBuilder()
        self._names = [*schema.vectors, *schema.sparse]
        self._analyzer = None if schema.text is None else Analyzer(schema.language)
        self._text_path = tuple((schema.text or "").split("."))
        self._substrings = hasattr(models, "MatchSubstring") and version >= _SUBSTRINGS
        numbers = sum(spec.dim for spec in schema.vectors.values() if not spec.multi)
        fitting = max(1, _REQUEST_BYTES // (_BYTES_A_NUMBER * max(1, numbers)))
        most = min(type(self).capabilities.max_batch, fitting)
        self.capabilities = replace(type(self).capabilities, max_batch=most)  # type: ignore[misc]

    # --- opening ---

    @classmethod
    def open(
        cls,
        client: QdrantClient,
        collection: str,
        schema: Schema | None,
        creation: Creation | None = None,
        *,
        place: str = "",
        grpc: bool = False,
    ) -> QdrantStore:
        """The collection, which a schema makes if it is not there.

        client: of HTTP, gRPC (then `grpc` is true) or in local mode; the store closes it. place: what errors call
        the collection.
        """
        place, creation = place or f"Qdrant collection {collection!r}", creation or Creation()
        if schema is not None:
            _check_schema(schema, cls.capabilities)
        _check_name(collection)
        with _errors(place):
            version = _version(client)
            if version < _OLDEST:
                raise UnsupportedError(
                    f"{place}: the server is Qdrant {'.'.join(map(str, version))}; "
                    f"{'.'.join(map(str, _OLDEST))} or newer is needed"
                )
            mark = _read_mark(client, collection, place)
            if mark is None or "creating" in mark:
                if schema is None:
                    what = "no collection is there" if mark is None else "its creation was cut off"
                    raise NotACollection(f"{place}: {what}; to make it, give a schema")
                _create(client, collection, schema, creation, mark, place)
                mark = _read_mark(client, collection, place) or {}
            found = _schema_of(mark, place)
            _check_same(found, schema, place)
            creation.check(client.get_collection(collection).config.params, place)
        return cls(client, collection, found, version=version, place=place, grpc=grpc)

    def close(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            client.close()

    @property
    def _open(self) -> QdrantClient:
        if self._client is None:
            raise StorageError(f"{self._place} was closed; open it again")
        return self._client

    # --- writing ---

    def _check(self, record: Record) -> None:
        _qdrant.check(record)
        if self._grpc and _deeper(record.payload, _DEEPEST_GRPC):
            raise InvalidRecord(
                f"record {record.id!r}: the payload is nested deeper than {_DEEPEST_GRPC} levels, which gRPC cannot "
                "carry; flatten it, or connect with grpc=false"
            )

    def _upsert(self, records: list[Record]) -> None:
        points = [self._point(record) for record in records]
        failed: dict[str, NearestError] = {}
        self._send(records, points, failed)
        if failed:
            raise BatchFailed(f"{self._place}: {len(failed)} of {len(records)} records were refused", failed)

    def _send(self, records: list[Record], points: list[Any], failed: dict[str, NearestError]) -> None:
        """In one request, or in halves of it where the server takes no request as large."""
        try:
            with _errors(self._place):
                self._open.upsert(self._collection, points, wait=True)
        except InvalidInput as error:
            if not error.context.get("too_large"):
                raise
            if len(points) == 1:
                failed[records[0].id] = InvalidRecord(f"record {records[0].id!r}: {error}; make its payload smaller")
                return
            half = len(points) // 2
            self._send(records[:half], points[:half], failed)
            self._send(records[half:], points[half:], failed)

    def _point(self, record: Record) -> Any:
        models = self._models
        vectors: dict[str, Any] = {
            name: models.SparseVector(indices=value.indices.tolist(), values=value.values.tolist())
            if isinstance(value, SparseVector)
            else value.tolist()
            for name, value in record.vectors.items()
        }
        if self._analyzer is not None:
            text = filters.resolve(record.payload, self._text_path)
            terms = [] if text is None else self._analyzer.terms(text)
            if terms:
                vectors[_TEXT_VECTOR] = _weighted(terms, models)
        point_id = _qdrant.point_id(record.id)
        payload = _qdrant.packed(record, point_id)
        # Everything in it was checked already, and checking it again costs as much as all the rest here.
        return models.PointStruct.model_construct(id=point_id, vector=vectors, payload=payload)

    def _delete(self, ids: list[str]) -> None:
        if not ids:  # which the server refuses
            return
        points = self._models.PointIdsList(points=[_qdrant.point_id(i) for i in ids])
        with _errors(self._place):
            self._open.delete(self._collection, points, wait=True)

    def _delete_where(self, where: Filter) -> None:
        points = self._models.FilterSelector(filter=self._filter(where))
        with _errors(self._place):
            self._open.delete(self._collection, points, wait=True)

    def optimize(self) -> None:
        """Wait until the server has built the indexes that are due; it does so by itself."""
        while True:
            with _errors(self._place):
                info = self._open.get_collection(self._collection)
            if info.status == self._models.CollectionStatus.RED:
                raise StorageError(f"{self._place}: the server cannot build the index: {info.optimizer_status}")
            if info.status != self._models.CollectionStatus.YELLOW:
                return
            time.sleep(_POLL)

    def stats(self) -> dict[str, Any]:
        with _errors(self._place):
            info = self._open.get_collection(self._collection)
        fault = getattr(info.optimizer_status, "error", None)  # "ok" has none
        words = f"hnsw, {info.status.value}, {info.segments_count} segments" + (f", {fault}" if fault else "")
        indexed = info.indexed_vectors_count
        return {"index": words} if indexed is None else {"index": words, "indexed": indexed}

    # --- reading ---

    def filter_support(self, comparison: Comparison) -> filters.Support:
        if comparison.op == "$contains" and isinstance(comparison.value, str) and not self._substrings:
            return "none"
        return super().filter_support(comparison)

    def _filter(self, where: Filter | None) -> Any:
        return None if where is None else _qdrant.translate(where, self._build)

    def _shown(self, with_vectors: bool) -> list[str] | bool:
        """The user's vectors, without the one that is ours."""
        return self._names if with_vectors and self._names else False

    def _get(self, ids: list[str], with_vectors: bool) -> list[Record]:
        return [self._record(point) for point in self._fetch([_qdrant.point_id(i) for i in ids], with_vectors)]

    def _fetch(self, keys: list[Any], with_vectors: bool) -> Sequence[Any]:
        with _errors(self._place):
            return self._open.retrieve(
                self._collection, keys, with_payload=True, with_vectors=self._shown(with_vectors)
            )

    def _keys(self, points: Sequence[Any]) -> list[Hashable]:
        return [point.id for point in points]

    def _count(self, where: Filter | None) -> int:
        with _errors(self._place):
            return self._open.count(self._collection, self._filter(where), exact=True).count

    def _scan(self, cursor: str | None, limit: int, where: Filter | None, with_vectors: bool) -> Page:
        if cursor is not None and not _qdrant.is_uuid(cursor):
            raise InvalidInput(f"{cursor!r} is not a cursor of this store")
        with _errors(self._place):
            points, following = self._open.scroll(
                self._collection,
                scroll_filter=self._filter(where),
                limit=limit,
                offset=cursor,
                with_payload=True,
                with_vectors=self._shown(with_vectors),
            )
        return Page([self._record(point) for point in points], None if following is None else str(following))

    def _run(self, requests: list[Any]) -> Sequence[Sequence[Any]]:
        asked = [request for request in requests if request is not None]
        answers: Iterator[Any] = iter(())
        if asked:
            with _errors(self._place):
                answers = iter(self._open.query_batch_points(self._collection, asked))
        return [[] if request is None else next(answers).points for request in requests]

    def _requests(self, query: Query) -> list[Any]:
        models, find = self._models, query.find
        where, params = self._filter(query.where), self._search_params(query.ef, query.exact)
        # Without any payload a hit's own id is known only if it is a UUID.
        shown: dict[str, Any] = {
            "with_payload": query.with_payload or [f'"{ID_KEY}"'],
            "with_vector": self._shown(query.with_vectors),
        }
        depth = max(find.candidates, query.k) if isinstance(find, Fused) else query.k
        parts = [
            None if found is None else {**found, "limit": depth, "filter": where, "params": params}
            for found in map(self._find, find.parts if isinstance(find, Fused) else (find,))
        ]
        if not isinstance(find, Fused):
            return [None if part is None else models.QueryRequest(**part, **shown) for part in parts]
        if self._fuses(query, find):
            prefetches = [models.Prefetch(**part) for part in parts if part is not None]
            fused = models.RrfQuery(rrf=models.Rrf(k=find.rrf_k + 1))  # the engine counts ranks from 0
            request = models.QueryRequest(prefetch=prefetches, query=fused, limit=query.k + TIES, **shown)
            return [request if prefetches else None]
        return [None if part is None else models.QueryRequest(**part, with_payload=False) for part in parts]

    def _find(self, part: Dense | Sparse | Text) -> dict[str, Any] | None:
        """What to rank by; None where that can find nothing."""
        models = self._models
        match part:
            case Dense(vector, using):
                return {"query": np.asarray(vector).tolist(), "using": using}
            case Sparse(vector, using):
                indices, values = vector.indices.tolist(), vector.values.tolist()
            case Text(text):
                assert self._analyzer is not None
                indices = sorted(set(map(_index, self._analyzer.terms(text))))
                values, using = [1.0] * len(indices), _TEXT_VECTOR
        if not indices:
            return None
        return {"query": models.SparseVector(indices=indices, values=values), "using": using}

    def _search_params(self, ef: int | None, exact: bool) -> Any:
        models, index = self._models, self.schema.index
        quantization = None
        if index.quantization != "none":
            quantization = models.QuantizationSearchParams(
                rescore=index.rescore, oversampling=index.oversampling if index.rescore else None
            )
        return models.SearchParams(hnsw_ef=ef or index.ef, exact=exact, quantization=quantization)


STORE = QdrantStore


# --- a URL -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Creation:
    """How a collection is laid out over a cluster and a disk; None: as the server does by default."""

    shard_number: int | None = None
    replication_factor: int | None = None
    write_consistency_factor: int | None = None
    on_disk: bool | None = None

    def check(self, params: Any, place: str) -> None:
        """Raises SchemaMismatch where the collection's parameters are others."""
        dense = params.vectors if isinstance(params.vectors, dict) else {}
        on_disk = [bool(one.on_disk) for one in dense.values()]
        for each in fields(self):
            asked = getattr(self, each.name)
            is_so = {asked, *on_disk} if each.name == "on_disk" else {asked, getattr(params, each.name)}
            if asked is not None and len(is_so) > 1:
                raise SchemaMismatch(f"{place} was made with another {each.name}; leave {each.name}={asked} out")


@dataclass(frozen=True, slots=True)
class _Address:
    """A URL's parts. place: the URL without key and options, for errors."""

    host: str
    port: int
    collection: str
    key: str | None = field(repr=False)
    place: str


_WHOLE = ("grpc_port", "timeout", "shard_number", "replication_factor", "write_consistency_factor")
_SWITCHES = ("tls", "grpc", "on_disk")


def canonical(url: StoreURL) -> StoreURL:
    return replace(url, location=_address(url.location).place.partition(":")[2])


def connect(url: StoreURL, schema: Schema | None) -> QdrantStore:
    """`qdrant://HOST:6333/COLLECTION`; see the module for keys and options. With a schema it makes the collection."""
    address, options = _address(url.location), _options(url.options)
    tls = options.pop("tls", address.key is not None)
    grpc = options.pop("grpc", False)
    connection = {"grpc_port": options.pop("grpc_port", 6334), "timeout": options.pop("timeout", 60)}
    creation = Creation(**options)
    if schema is not None:
        _check_schema(schema, QdrantStore.capabilities)
    _check_name(address.collection)
    client = _client()(
        host=address.host,
        port=address.port,
        https=tls,
        api_key=address.key,
        prefer_grpc=grpc,
        grpc_options=dict(RECONNECT),
        check_compatibility=False,  # by a thread of its own that warns; `open` checks the version
        **connection,
    )
    try:
        if grpc:
            remote: Any = client._client
            remote._init_grpc_channel()
            remote._grpc_channel_pool = [reaching(channel) for channel in remote._grpc_channel_pool]
        return QdrantStore.open(client, address.collection, schema, creation, place=address.place, grpc=grpc)
    except BaseException:
        client.close()
        raise


def _client() -> type[QdrantClient]:
    try:
        from qdrant_client import QdrantClient
    except ImportError as error:
        raise MissingDependency("the qdrant store needs qdrant-client; run: pip install 'nearest[qdrant]'") from error
    return QdrantClient


def _address(location: str) -> _Address:
    wrong = InvalidInput("a Qdrant URL is written qdrant://HOST:6333/COLLECTION, with the API key, if any, as KEY@HOST")
    try:
        parts = urlsplit(location if location.startswith("//") else "")
        host, port = parts.hostname, parts.port or 6333
    except ValueError:
        raise wrong from None
    collection = unquote(parts.path.removeprefix("/"))
    if not host or not collection or parts.fragment:
        raise wrong
    key = unquote(parts.password or parts.username or "")
    key = key or os.environ.get("NEAREST_QDRANT_API_KEY") or os.environ.get("QDRANT_API_KEY") or ""
    shown = f"[{host}]" if ":" in host else host
    return _Address(shown, port, collection, key or None, f"qdrant://{shown}:{port}/{collection}")


def _options(given: Mapping[str, str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, value in given.items():
        if name in _WHOLE:
            if not value.isascii() or not value.isdigit() or int(value) < 1:
                raise InvalidInput(f"qdrant: {name} must be a whole number of 1 or more, got {value!r}")
            options[name] = int(value)
        elif name in _SWITCHES:
            if value not in ("true", "false"):
                raise InvalidInput(f"qdrant: {name} must be true or false, got {value!r}")
            options[name] = value == "true"
        else:
            known = ", ".join(sorted([*_WHOLE, *_SWITCHES]))
            raise InvalidInput(f"qdrant: there is no option {name!r}; there are {known}")
    return options


# --- a collection's life ---------------------------------------------------------------------------


def _check_name(collection: str) -> None:
    if not 1 <= len(collection) <= 255 or collection in (".", "..") or re.search(r'[<>:"/\\|?*\x00\x1f]', collection):
        raise InvalidInput(
            f"{collection!r} is no name for a Qdrant collection; give 1 to 255 characters without any of "
            '< > : " / \\ | ? *'
        )


def _check_schema(schema: Schema, capabilities: Capabilities) -> None:
    check_schema(schema, capabilities)
    for name, spec in schema.vectors.items():
        if spec.multi and spec.metric == "l2":
            raise UnsupportedError(f"this store has no multi-vectors under l2 (vector {name!r}); use cosine or dot")
    for name in (*schema.vectors, *schema.sparse):
        if name == _TEXT_VECTOR or name in (".", "..") or re.search(r'[<>:"/\\|?*\x00\x1f]', name):
            raise InvalidInput(f"Qdrant does not take the vector name {name!r}; give another")
    if schema.text is not None:
        Analyzer(schema.language)


def _version(client: QdrantClient) -> tuple[int, int]:
    numbers = re.match(r"(\d+)\.(\d+)", client.info().version)
    return (int(numbers[1]), int(numbers[2])) if numbers else _OLDEST


def _read_mark(client: QdrantClient, collection: str, place: str) -> dict[str, str] | None:
    """What creation wrote: {"schema": ...} or {"creating": ...}; None where there is no such collection."""
    if not client.collection_exists(collection):
        return None
    mark = (client.get_collection(collection).config.metadata or {}).get(_MARK)
    if not isinstance(mark, dict) or not mark.keys() & {"schema", "creating"}:
        raise NotACollection(f"{place}: the collection was not made by nearest; give another name")
    return mark


def _schema_of(mark: Mapping[str, str], place: str) -> Schema:
    try:
        return Schema.from_json(json.loads(mark["schema"]))
    except (ValueError, KeyError, TypeError) as error:
        raise CollectionDamaged(f"{place}: its schema cannot be read ({error}); restore it from a backup") from None


def _check_same(found: Schema, asked: Schema | None, place: str) -> None:
    if asked is None or found == asked:
        return
    was, now = found.to_json(), asked.to_json()
    differing = [f"{name} was {was[name]}, now {now[name]}" for name in was if was[name] != now[name]]
    raise SchemaMismatch(f"{place} was made with another schema: {'; '.join(differing)}")


def _create(
    client: QdrantClient,
    collection: str,
    schema: Schema,
    creation: Creation,
    mark: Mapping[str, str] | None,
    place: str,
) -> None:
    """Every step may be repeated, so that a creation that was cut off is finished by the next."""
    text = canonical_json(schema.to_json())
    if mark is not None and mark["creating"] != text:
        client.delete_collection(collection)  # of another schema; nothing was acknowledged yet
        mark = None
    if mark is None:
        try:
            client.create_collection(collection, **_layout(schema, creation), metadata={_MARK: {"creating": text}})
        except Exception:
            # Another process may have been first, or the server have made it and the answer been lost.
            theirs = _read_mark(client, collection, place)
            if theirs is None:
                raise
            if "schema" in theirs or theirs["creating"] != text:
                return
    for path, kind in schema.fields.items():
        client.create_payload_index(collection, _qdrant.key(tuple(path.split("."))), _kinds()[kind], wait=True)
    client.update_collection(collection, metadata={_MARK: {"schema": text}})


def _layout(schema: Schema, creation: Creation) -> dict[str, Any]:
    from qdrant_client import models

    metrics = {"cosine": models.Distance.COSINE, "dot": models.Distance.DOT, "l2": models.Distance.EUCLID}
    maxsim = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    index, on_disk = schema.index, creation.on_disk
    inverted = models.SparseIndexParams(on_disk=on_disk)
    sparse = {name: models.SparseVectorParams(index=inverted) for name in schema.sparse}
    if schema.text is not None:
        sparse[_TEXT_VECTOR] = models.SparseVectorParams(index=inverted, modifier=models.Modifier.IDF)
    return {
        "vectors_config": {
            name: models.VectorParams(
                size=spec.dim,
                distance=metrics[spec.metric],
                on_disk=on_disk,
                multivector_config=maxsim if spec.multi else None,
                # No graph of these: a comparison is of all tokens with all, so building one takes seconds a record.
                hnsw_config=models.HnswConfigDiff(m=0) if spec.multi else None,
            )
            for name, spec in schema.vectors.items()
        },
        "sparse_vectors_config": sparse or None,
        "hnsw_config": models.HnswConfigDiff(m=index.m, ef_construct=index.ef_construct),
        "quantization_config": _quantization(index.quantization, on_disk),
        # A server may be set to refuse conditions on fields that are not indexed; ours hold on any field.
        "strict_mode_config": models.StrictModeConfig(
            unindexed_filtering_retrieve=True, unindexed_filtering_update=True
        ),
        "shard_number": creation.shard_number,
        "replication_factor": creation.replication_factor,
        "write_consistency_factor": creation.write_consistency_factor,
    }


def _quantization(kind: QuantizationKind, in_memory: bool | None) -> Any:
    from qdrant_client import models

    match kind:
        case "none":
            return None
        case "scalar":
            scalar = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99, always_ram=in_memory)
            return models.ScalarQuantization(scalar=scalar)
        case "product":
            product = models.ProductQuantizationConfig(compression=models.CompressionRatio.X16, always_ram=in_memory)
            return models.ProductQuantization(product=product)
        case "binary":
            return models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=in_memory))


def _kinds() -> dict[str, Any]:
    from qdrant_client.models import PayloadSchemaType as Kind

    return {
        "keyword": Kind.KEYWORD, "integer": Kind.INTEGER, "float": Kind.FLOAT, "bool": Kind.BOOL,
        "datetime": Kind.DATETIME,
    }  # fmt: skip


# --- texts, payloads, conditions -------------------------------------------------------------------


def _weighted(terms: list[str], models: Any) -> Any:
    """BM25's weight of each term of a text, all but the inverse document frequency."""
    counts = Counter(map(_index, terms))
    norm = K1 * (1 - B + B * len(terms) / AVERAGE_LENGTH)
    weights = [times * (K1 + 1) / (times + norm) for times in counts.values()]
    return models.SparseVector(indices=list(counts), values=weights)


def _index(term: str) -> int:
    """A term's place in the sparse vector; distinct for words of up to four bytes, else seldom shared."""
    return zlib.crc32(term.encode())


def _deeper(value: Any, levels: int) -> bool:
    if isinstance(value, dict):
        return levels == 0 or any(_deeper(item, levels - 1) for item in value.values())
    return isinstance(value, list) and (levels == 0 or any(_deeper(item, levels - 1) for item in value))


class _ServerBuilder:
    """Filter conditions in the server's models."""

    def __init__(self) -> None:
        from qdrant_client import models

        self._models = models

    def match(self, field: str, value: str | bool) -> Any:
        return self._models.FieldCondition(key=field, match=self._models.MatchValue(value=value))

    def match_any(self, field: str, values: list[str]) -> Any:
        return self._models.FieldCondition(key=field, match=self._models.MatchAny(any=values))

    def substring(self, field: str, text: str) -> Any:
        return self._models.FieldCondition(key=field, match=self._models.MatchSubstring(substring=text))

    def numbers(self, field: str, bounds: dict[str, float]) -> Any:
        return self._models.FieldCondition(key=field, range=self._models.Range(**bounds))

    def dates(self, field: str, bounds: dict[str, str]) -> Any:
        instants: dict[str, Any] = {name: filters.instant(text) for name, text in bounds.items()}
        return self._models.FieldCondition(key=field, range=self._models.DatetimeRange(**instants))

    def is_empty(self, field: str) -> Any:
        return self._models.IsEmptyCondition(is_empty=self._models.PayloadField(key=field))

    def combine(self, *, must: Sequence[Any] = (), should: Sequence[Any] = (), must_not: Sequence[Any] = ()) -> Any:
        return self._models.Filter(
            must=list(must) or None, should=list(should) or None, must_not=list(must_not) or None
        )


# --- errors ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def _errors(place: str) -> Iterator[None]:
    """What the client and the server say, as ours."""
    try:
        yield
    except NearestError:
        raise
    except Exception as error:
        raise _ours(error, place) from error


def _ours(error: Exception, place: str) -> NearestError:
    import grpc  # type: ignore[import-untyped]
    import httpx
    from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
    from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

    match error:
        case ResourceExhaustedResponse():
            return _throttled(place, str(error), error.retry_after_s)
        case QdrantException():  # its time to wait is a date, say
            return _throttled(place, str(error), None)
        case UnexpectedResponse():
            return _of_status(error.status_code or 0, _told(error.content), error.headers.get("Retry-After"), place)
        case ResponseHandlingException(source=httpx.TimeoutException()):
            return _timed_out(place)
        case ResponseHandlingException(source=httpx.TransportError() as source):
            return _unreachable(place, str(source) or type(source).__name__)
        case ResponseHandlingException() | json.JSONDecodeError():
            return StorageError(f"{place}: the answer is not Qdrant's ({_short(str(error))}); check host and port")
        case grpc.RpcError():
            return _of_grpc(error, place)
    return StorageError(f"{place}: the client failed: {_short(str(error))}")


def _of_status(status: int, said: str, wait: str | None, place: str) -> NearestError:
    match status:
        case 401 | 403:
            return _denied(place, said)
        case 404:
            return NotACollection(f"{place}: not found ({said}); it was deleted, or this is not a Qdrant server")
        case 408 | 504:
            return _timed_out(place)
        case 429 | 503:
            return _throttled(place, said, float(wait) if wait and wait.isascii() and wait.isdigit() else None)
        case 413:
            return _too_large(place, said)
        case 400 if "larger than" in said or "too large" in said:
            return _too_large(place, said)
        case 501:
            return _unknown(place, said)
        case 507:
            return _full(place, said)
        case 500 if "No space left" in said:
            return _full(place, said)
        case _ if status >= 500:
            return ConnectionFailed(f"{place}: the server failed ({status}: {said}); try again, or see its log")
    return InvalidInput(f"{place}: the server refused ({status}: {said})")


def _of_grpc(error: Any, place: str) -> NearestError:
    from grpc import StatusCode as Code

    said = _short(error.details() or "")
    match error.code():
        case Code.UNAVAILABLE:
            return _unreachable(place, said)
        case Code.DEADLINE_EXCEEDED:
            return _timed_out(place)
        case Code.UNAUTHENTICATED | Code.PERMISSION_DENIED:
            return _denied(place, said)
        case Code.RESOURCE_EXHAUSTED | Code.OUT_OF_RANGE if "larger than" in said or "too large" in said:
            return _too_large(place, said)
        case Code.RESOURCE_EXHAUSTED:
            return _throttled(place, said, None)
        case Code.NOT_FOUND:
            return NotACollection(f"{place}: not found ({said}); it was deleted")
        case Code.UNIMPLEMENTED:
            return _unknown(place, said)
        case Code.DATA_LOSS:
            return CollectionDamaged(f"{place}: the server has lost data ({said}); restore it from a backup")
        case _ if "No space left" in said:
            return _full(place, said)
        case Code.INVALID_ARGUMENT | Code.OUT_OF_RANGE | Code.ALREADY_EXISTS | Code.FAILED_PRECONDITION:
            return InvalidInput(f"{place}: the server refused ({said})")
    return ConnectionFailed(f"{place}: the server failed ({error.code().name}: {said}); try again, or see its log")


def _told(content: bytes) -> str:
    """The message in the server's answer."""
    text = content.decode(errors="replace")
    with contextlib.suppress(ValueError, KeyError, TypeError):
        text = json.loads(text)["status"]["error"]
    return _short(text)


def _short(text: str) -> str:
    line = " ".join(str(text).split())
    return line if len(line) <= 300 else line[:297] + "..."


def _too_large(place: str, said: str) -> InvalidInput:
    return InvalidInput(f"{place}: the server takes no request as large ({said})", too_large=True)


def _throttled(place: str, said: str, wait: float | None) -> Throttled:
    context = {} if wait is None else {"retry_after": float(wait)}
    return Throttled(f"{place}: the server is asked too much ({_short(said)}); slow down and try again", **context)


def _timed_out(place: str) -> TimedOut:
    return TimedOut(f"{place}: no answer in time; try again, or give it longer with timeout=SECONDS in the URL")


def _unreachable(place: str, said: str) -> ConnectionFailed:
    return ConnectionFailed(
        f"{place}: cannot be reached ({_short(said)}); check that it runs, its host and port, and tls=true or tls=false"
    )


def _denied(place: str, said: str) -> AccessDenied:
    return AccessDenied(
        f"{place}: access was denied ({said}); check the API key in the URL (KEY@HOST) or in NEAREST_QDRANT_API_KEY"
    )


def _unknown(place: str, said: str) -> UnsupportedError:
    return UnsupportedError(f"{place}: the server does not know this call ({said}); is it Qdrant, and new enough?")


def _full(place: str, said: str) -> DiskFull:
    return DiskFull(f"{place}: the server's disk is full ({said}); free some space there and try again")
