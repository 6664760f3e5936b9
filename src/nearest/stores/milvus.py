"""Milvus: a server or Zilliz Cloud (`milvus://host:19530/name`), or Milvus Lite in this process (`milvus:./file.db`).

`milvus://[user:password@]host[:port]/[database/]collection`, or `milvus:PATH?collection=name` (`nearest` by default).
A file needs milvus-lite too, which `nearest[milvus]` does not bring: `pip install 'milvus-lite>=3.2,<4'`.
Options, `?name=value`:
    token, secure         an API key or `user:password`; `true` for TLS (also the default on port 443)
    timeout               seconds that a call may take, 60
    consistency           strong (default), session, bounded or eventually; the last two need `wait()` after a write
    index                 hnsw, hnsw_sq, hnsw_pq, ivf_flat, ivf_sq8, ivf_pq, ivf_rabitq, scann, diskann, flat (exact)
                          or autoindex; by default hnsw, or what the schema's quantization asks for: hnsw_sq (scalar),
                          hnsw_pq (product), ivf_rabitq (binary); on Zilliz Cloud autoindex
    nlist, nprobe         of the IVF kinds and SCANN: cells, and cells that a search visits
    subvectors            of the product quantizers; by default a quarter of the dimension (16x)
    search_list           of DISKANN: candidates
    partition_key         a payload field; records are laid out by its value, and `$eq` and `$in` on it read those alone
    partitions, shards    how many of either
    terms                 `array` or `text`: how filter terms are kept; by default what is fast there (see `_milvus.py`)
What the layout depends on (index, nlist, subvectors, and from partition_key on) is kept when a collection is made, and
may be left out when it is opened. An option that the index has no use for is refused. Milvus Lite has hnsw, ivf_flat,
flat and autoindex, and no quantization here, as it does not rescore.

How a record lies in Milvus' fields, and what a condition becomes, is in `_milvus.py`.

The schema is a property of the collection, set in the call that creates it; indexes that a crash kept from being
made are made by the next opening.

Milvus Lite's approximate indexes lose neighbours under a condition that few satisfy: a graph passes by those that do.
There a search under a condition first asks for up to 1,000 vectors that satisfy it; if that is all of them, they are
compared here, exactly, else the graph is searched with an `ef` that finds the neighbours of as few, as it is at once
by the next search under that condition, until this store writes.

Not offered: multi-vectors, and sparse vectors, since Milvus prunes by the largest weights (WAND, MaxScore), which takes
weights for positive, and nearest's may be negative.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import math
import re
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote, urlsplit

import numpy as np

from nearest.contract import (
    Capabilities,
    Dense,
    Feature,
    Fused,
    Gap,
    Hit,
    Page,
    Query,
    Record,
    Schema,
    Store,
    StoreURL,
    Text,
    check_schema,
    fused_search,
)
from nearest.errors import (
    AccessDenied,
    CollectionDamaged,
    CollectionLocked,
    ConnectionFailed,
    InvalidInput,
    MissingDependency,
    NearestError,
    NotACollection,
    SchemaMismatch,
    StorageError,
    Throttled,
    TimedOut,
    UnsupportedError,
)
from nearest.filters import Comparison, Filter, Support
from nearest.stores._bm25 import K1, B
from nearest.stores._grpc import RECONNECT, Reach
from nearest.stores._milvus import EXACT_FILTERS, MAX_TERMS, MAX_TEXT, TERM_LENGTH, Columns, quoted

if TYPE_CHECKING:
    from pymilvus import MilvusClient  # type: ignore[import-untyped]

SCHEMES = ("milvus",)
REQUIRES = {"pymilvus": ">=3.0,<4"}
KNOWN_GAPS: tuple[Gap, ...] = ()
IDENTITY = ("collection",)

_LITE = "milvus-lite>=3.2,<4"  # for files alone, so it is not in REQUIRES; this module uses its server
_MARK = "nearest"  # the collection property that holds the schema and the layout
_COLLECTION = "nearest"  # of a file, where its URL names none
_MAX_ID = 2_048  # bytes of 512 characters
_MAX_FIELDS = 64
_SLICE_BYTES = 32 * 2**20  # a server takes messages of 64 MiB
_SLICE_ROWS = 10_000
_PAGE_BYTES = 16 * 2**20
_FEW = 1000  # vectors that a condition leaves, which are compared here where the database's index is no good at it
_PASSED = 2  # times k, matches that a graph must pass by
_KEPT = 100  # conditions known to leave more than a few
_PAGE_ROWS = 1_001  # one more than a usual page of a scan, which tells whether another follows
_TIES = 2  # reciprocal ranks tie often, and Milvus cuts among equals as it likes
_CONSISTENCY = {"strong": "Strong", "session": "Session", "bounded": "Bounded", "eventually": "Eventually"}


# --- what a server can do --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Kind:
    """An index of Milvus. since: the server's version; lite: whether Milvus Lite has it."""

    index_type: str
    quantization: str = "none"
    since: tuple[int, int] = (2, 5)
    lite: bool = False
    rescores: bool = True

    @property
    def hnsw(self) -> bool:
        return self.index_type.startswith("HNSW")

    @property
    def options(self) -> set[str]:
        """Those of the URL that only some kinds have."""
        found: set[str] = set()
        if self.index_type.startswith("IVF") or self.index_type == "SCANN":
            found |= {"nlist", "nprobe"}
        if self.index_type.endswith("_PQ"):
            found.add("subvectors")
        if self.index_type == "DISKANN":
            found.add("search_list")
        return found


_KINDS = {
    "hnsw": _Kind("HNSW", lite=True),
    "hnsw_sq": _Kind("HNSW_SQ", "scalar"),
    "hnsw_pq": _Kind("HNSW_PQ", "product"),
    "ivf_flat": _Kind("IVF_FLAT", lite=True),
    "ivf_sq8": _Kind("IVF_SQ8", "scalar", rescores=False),
    "ivf_pq": _Kind("IVF_PQ", "product", rescores=False),
    "ivf_rabitq": _Kind("IVF_RABITQ", "binary", since=(2, 6)),
    "scann": _Kind("SCANN"),
    "diskann": _Kind("DISKANN"),
    "flat": _Kind("FLAT", lite=True),
    "autoindex": _Kind("AUTOINDEX", lite=True),
}
_BY_QUANTIZATION = {"none": "hnsw", "scalar": "hnsw_sq", "product": "hnsw_pq", "binary": "ivf_rabitq"}

_ALWAYS: frozenset[Feature] = frozenset(
    {"dense", "named_vectors", "text", "native_fusion", "cosine", "dot", "l2", "durable"}
)


@dataclass(frozen=True, slots=True)
class _Server:
    """What answers: its version, and whether it is Milvus Lite or Zilliz Cloud (which choose their indexes)."""

    version: tuple[int, int]
    lite: bool = False
    cloud: bool = False

    @classmethod
    def of(cls, told: str) -> _Server:
        """From what it tells: `milvus_lite-3.2.2`, `v2.6.1`, `Zilliz Cloud ... (Compatible with Milvus 2.6)`."""
        found = re.search(r"(\d+)\.(\d+)", told)
        if found is None:
            raise UnsupportedError(f"the server calls itself {told!r}, which names no version of Milvus")
        version = (int(found[1]), int(found[2]))
        lite, cloud = "lite" in told.lower(), "zilliz" in told.lower()
        if not lite and version < (2, 5):
            raise UnsupportedError(f"the server is {told}; Milvus 2.5 or newer is needed, for its BM25")
        return cls(version, lite, cloud)

    def has(self, kind: _Kind) -> bool:
        if self.lite:
            return kind.lite
        return kind.index_type == "AUTOINDEX" if self.cloud else self.version >= kind.since

    def features(self) -> frozenset[Feature]:
        own: set[Feature] = set() if self.lite else {"payload_index"}
        if self.has(_KINDS["hnsw"]):
            own.add("hnsw")
        own |= {cast("Feature", quantization) for quantization, name in _BY_QUANTIZATION.items()
                if quantization != "none" and self.has(_KINDS[name])}  # fmt: skip
        return _ALWAYS | own


# --- a URL -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Address:
    """Where, as whom, and how. shown: for messages, without the password."""

    shown: str
    path: Path | None
    uri: str
    token: str = field(repr=False)
    database: str
    collection: str
    timeout: float
    consistency: str
    layout: dict[str, Any]
    nprobe: int | None
    search_list: int | None

    @property
    def call(self) -> dict[str, Any]:
        """What every call to the client is given: its deadline."""
        return {"timeout": self.timeout, "retry_on_rate_limit": False}


def _address(url: StoreURL) -> _Address:
    options = dict(url.options)
    known = {
        "collection", "token", "secure", "timeout", "consistency", "index", "nlist", "nprobe", "subvectors",
        "search_list", "partition_key", "partitions", "shards", "terms",
    }  # fmt: skip
    if unknown := sorted(options.keys() - known):
        raise InvalidInput(f"milvus: has no option {', '.join(unknown)}; there are {', '.join(sorted(known))}")

    def choice(name: str, values: Iterable[str]) -> str | None:
        value = options.get(name)
        if value is not None and value not in values:
            raise InvalidInput(f"milvus: {name} must be one of {', '.join(values)}, got {value!r}")
        return value

    def whole(name: str) -> int | None:
        value = options.get(name)
        if value is not None and not (value.isascii() and value.isdigit() and 0 < int(value) <= 65_536):
            raise InvalidInput(f"milvus: {name} must be an integer from 1 to 65536, got {value!r}")
        return None if value is None else int(value)

    layout = {
        "index": choice("index", _KINDS),
        "nlist": whole("nlist"),
        "subvectors": whole("subvectors"),
        "partition_key": options.get("partition_key") or None,
        "partitions": whole("partitions"),
        "shards": whole("shards"),
        "terms": choice("terms", ("array", "text")),
    }
    try:
        timeout = float(options.get("timeout", "60"))
    except ValueError:
        timeout = math.nan
    if not 0 < timeout <= 86_400:
        raise InvalidInput(f"milvus: timeout must be seconds, got {options['timeout']!r}")
    path, uri, token, database = None, "", options.get("token", ""), ""
    if url.location.startswith("//"):
        if "collection" in options:
            raise InvalidInput("milvus: the collection is the last part of the path: milvus://host:19530/collection")
        uri, user, database, collection = _endpoint(url, choice("secure", ("true", "false")))
        token = token or user
        shown = f"milvus:{uri.partition(':')[2]}/{collection}"
    else:
        if not url.location:
            raise InvalidInput("milvus: needs a server or a file: milvus://host:19530/collection or milvus:./file.db")
        if token or "secure" in options:
            raise InvalidInput("milvus: a file has neither token nor TLS")
        path = Path(url.location).absolute()
        collection = options.get("collection", _COLLECTION)
        shown = f"milvus:{url.location}?collection={collection}"
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,254}", collection):
        raise InvalidInput(
            f"{collection!r} cannot name a collection of Milvus: letters, digits and _, not starting with a digit, "
            "at most 255 characters"
        )
    consistency = _CONSISTENCY[choice("consistency", _CONSISTENCY) or "strong"]
    return _Address(
        shown, path, uri, token, database, collection, timeout, consistency,
        {name: value for name, value in layout.items() if value is not None}, whole("nprobe"), whole("search_list"),
    )  # fmt: skip


def _endpoint(url: StoreURL, secure: str | None) -> tuple[str, str, str, str]:
    """The client's URI, the credentials, the database, the collection."""
    wrong = InvalidInput("milvus: write milvus://[user:password@]host[:port]/[database/]collection")
    try:
        parts = urlsplit(url.location)
        host, port = parts.hostname, parts.port or 19530
    except ValueError:
        raise wrong from None
    names = [unquote(name) for name in parts.path.split("/")[1:]]
    if not host or not 1 <= len(names) <= 2 or not all(names):
        raise wrong
    tls = secure == "true" or (secure is None and port == 443)
    user = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else ""
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if tls else 'http'}://{shown}:{port}", user, names[0] if len(names) == 2 else "", names[-1]


# --- Milvus Lite in this process -------------------------------------------------------------------


class _Local:
    """A Milvus Lite database that this process serves to itself, for as long as a store uses it."""

    _open: dict[Path, _Local] = {}  # noqa: RUF012 -- shared by the process, under `_opening`
    _opening = threading.Lock()

    def __init__(self, path: Path) -> None:
        try:
            from milvus_lite import exceptions  # type: ignore[import-untyped]
            from milvus_lite.adapter.grpc.server import start_server_in_thread  # type: ignore[import-untyped]
        except ImportError as error:
            raise MissingDependency(f"a Milvus file needs milvus-lite; run: pip install '{_LITE}'") from error
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._server, self.database, port = start_server_in_thread(str(path))
        except exceptions.DataDirLockedError as error:
            raise CollectionLocked(f"{path} is open in another process; close it there and try again") from error
        except exceptions.ManifestCorruptedError as error:
            raise CollectionDamaged(f"{path} cannot be opened ({error}); restore it from a backup") from error
        except OSError as error:
            raise StorageError(f"{path} cannot be opened ({error}); check the path and its permissions") from error
        logging.getLogger("milvus_lite").addHandler(logging.NullHandler())  # or Python prints what it also raises
        self.path = path
        self.uri = f"http://127.0.0.1:{port}"
        self.writing = threading.Lock()  # Milvus Lite takes one writer at a time
        self._users = 0

    @classmethod
    def use(cls, path: Path) -> _Local:
        with cls._opening:
            local = cls._open.get(path) or cls(path)
            cls._open[path] = local
            local._users += 1
            return local

    def leave(self) -> None:
        with self._opening:
            self._users -= 1
            if self._users == 0:
                del self._open[self.path]
                self._stop()

    def _stop(self) -> None:
        self._server.stop(0).wait()
        self.database.close()

    @classmethod
    def end(cls) -> None:
        for local in list(cls._open.values()):
            local._stop()


atexit.register(_Local.end)


# --- the store -------------------------------------------------------------------------------------


class MilvusStore(Store):
    """One collection. `capabilities` of the class are those of a Milvus 2.6 server; an instance has its server's."""

    capabilities = Capabilities(_Server((2, 6)).features(), EXACT_FILTERS, max_batch=_SLICE_ROWS, remote=True)

    def __init__(
        self, address: _Address, local: _Local | None, client: MilvusClient, server: _Server,
        schema: Schema, layout: dict[str, Any],
    ) -> None:  # fmt: skip
        self.schema = schema
        self._address = address
        self._local = local
        self._server = server
        self._client: MilvusClient | None = client
        self._closing = threading.Lock()
        self._layout = layout
        self._kind = _KINDS[layout["index"]]
        self._columns = Columns(schema, layout)
        self.capabilities = _capabilities(server, self._kind, address)  # type: ignore[misc]  # as the server allows
        self._many: dict[Filter, int] = {}  # conditions that leave more than a few, and records at that time
        self._page = max(1, min(_PAGE_ROWS, _PAGE_BYTES // (self._columns.vector_bytes + 1)))

    # --- opening ---

    @classmethod
    def open(cls, address: _Address, schema: Schema | None) -> MilvusStore:
        if address.path is not None and not address.path.exists():  # Milvus Lite makes it by looking
            if schema is None:
                raise _missing(address)
            _choose(address, _Server((3, 2), lite=True), schema)
        local = None if address.path is None else _Local.use(address.path)
        client = None
        try:
            with _errors(address):
                client = _connect(address, local)
                server = _Server.of(client.get_server_version(**address.call))
                found = _describe(client, address)
                if found is None:
                    if schema is None:
                        raise _missing(address)
                    _create(client, address, server, schema)
                    found = _describe(client, address)
                    if found is None:
                        raise StorageError(f"{address.shown} was made and is gone; is another process removing it?")
                kept, layout = found
                _check_same(address, kept, layout, schema)
                _check_used(address, layout["index"])
                store = cls(address, local, client, server, kept, layout)
                store._complete(client)
            return store
        except BaseException:
            if client is not None:
                client.close()
            if local is not None:
                local.leave()
            raise

    def _complete(self, client: MilvusClient) -> None:
        """Make the indexes that are missing (of a new collection, or after a crash), and load it."""
        name = self._address.collection
        there = set(client.list_indexes(name, **self._address.call))
        wanted = client.prepare_index_params()
        missing = [index for index in self._indexes() if index[0] not in there]
        for column, index_type, metric, params in missing:
            more = {"metric_type": metric, "params": params} if metric else {}
            wanted.add_index(column, index_type=index_type, index_name=column, **more)
        if missing:
            client.create_index(name, wanted, **self._address.call)
        client.load_collection(name, **self._address.call)

    def _indexes(self) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
        metrics = {"cosine": "COSINE", "dot": "IP", "l2": "L2"}
        for name, column in self._columns.vectors.items():
            spec = self.schema.vectors[name]
            yield (
                column,
                self._kind.index_type,
                metrics[spec.metric],
                _build_params(self.schema, self._layout, spec.dim),
            )
        if self._columns.analyzer is not None:
            yield "text_sparse", "SPARSE_INVERTED_INDEX", "BM25", {"bm25_k1": K1, "bm25_b": B}
        if not self._server.lite:  # which scans columns faster than it builds such an index
            bounds = [column for _, *both in self._columns.ranges.values() for column in both]
            for column in ("terms", "many", *self._columns.values.values(), *bounds):
                yield column, "INVERTED", "", {}

    def close(self) -> None:
        with self._closing:
            client, self._client = self._client, None
        if client is not None:
            try:
                client.close()
            finally:
                if self._local is not None:
                    self._local.leave()

    @property
    def _open(self) -> MilvusClient:
        client = self._client
        if client is None:
            raise StorageError(f"{self._address.shown} was closed; open it again")
        return client

    @contextlib.contextmanager
    def _writing(self) -> Iterator[MilvusClient]:
        with contextlib.nullcontext() if self._local is None else self._local.writing, _errors(self._address):
            try:
                yield self._open
            finally:
                self._many.clear()

    # --- writing ---

    def _check(self, record: Record) -> None:
        # A small payload is within all limits, however it is written.
        if self._columns.partition_key is not None or len(repr(record.payload)) > MAX_TEXT // 20:
            self._columns.row(record)

    def _upsert(self, records: list[Record]) -> None:
        rows = [self._columns.row(record) for record in records]
        for part in _slices(rows):
            with self._writing() as client:
                client.upsert(self._address.collection, part, **self._address.call)

    def _delete(self, ids: list[str]) -> None:
        for start in range(0, len(ids), _PAGE_ROWS):
            self._delete_by(_among(ids[start : start + _PAGE_ROWS]))

    def _delete_where(self, where: Filter) -> None:
        self._delete_by(self._columns.expression(where))

    def _delete_by(self, expression: str) -> None:
        with self._writing() as client:
            client.delete(
                self._address.collection,
                filter=expression,
                consistency_level=self._address.consistency,
                **self._address.call,
            )

    def optimize(self) -> None:
        """Seal what was written, and return when it is indexed."""
        name = self._address.collection
        with self._writing() as client:
            client.flush(name, **self._address.call)
        if self._local is not None:
            self._local.database.get_collection(name)._wait_for_bg()
            return
        with _errors(self._address):
            while any(
                int(self._open.describe_index(name, column, **self._address.call).get("pending_index_rows", 0))
                for column in self._columns.vectors.values()
            ):
                time.sleep(0.5)  # Milvus tells of progress only when asked

    def wait(self) -> None:
        """Under a weaker consistency: until a read that waits for every earlier write has come back."""
        self._query('id == ""', ["id"], 1, consistency="Strong")

    def stats(self) -> dict[str, Any]:
        told: dict[str, Any] = {"index": self._kind.index_type}
        with _errors(self._address):
            if self._columns.vectors:
                index = self._open.describe_index(self._address.collection, "vector_0", **self._address.call)
                loaded = self._open.get_load_state(self._address.collection, **self._address.call)["state"]
                told["index"] = f"{self._kind.index_type}, {index['state']}, {loaded.name}"
                told["indexed"] = int(index["indexed_rows"])
        if self._local is not None:
            folder = Path(self._local.database.get_collection(self._address.collection).data_dir)
            told["disk_bytes"] = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            del told["indexed"]  # Milvus Lite tells the number of records
        return told

    # --- reading ---

    def filter_support(self, comparison: Comparison) -> Support:
        return self._columns.support(comparison)

    def _query(
        self, expression: str, fields: list[str], limit: int | None = None, consistency: str | None = None, **more: Any
    ) -> list[Any]:
        if limit is not None:
            more["limit"] = limit
        with _errors(self._address):
            found: list[Any] = self._open.query(
                self._address.collection, filter=expression, output_fields=fields,
                consistency_level=consistency or self._address.consistency, **more, **self._address.call,
            )  # fmt: skip
        return found

    def _get(self, ids: list[str], with_vectors: bool) -> list[Record]:
        fields = self._columns.fields(True, with_vectors)
        size = self._page if with_vectors else _PAGE_ROWS
        return [
            self._columns.record(row, True, with_vectors)
            for start in range(0, len(ids), size)
            for row in self._query(_among(ids[start : start + size]), fields)
        ]

    def _count(self, where: Filter | None) -> int:
        return int(self._query(self._columns.expression(where), ["count(*)"])[0]["count(*)"])

    def _scan(self, cursor: str | None, limit: int, where: Filter | None, with_vectors: bool) -> Page:
        """In order of the primary key, from after the cursor, which is an id."""
        fields = self._columns.fields(True, with_vectors)
        condition = f"({self._columns.expression(where)}) and " if where is not None else ""
        records: list[Record] = []
        last = cursor or ""
        while len(records) <= limit:
            want = min(limit + 1 - len(records), self._page if with_vectors else _PAGE_ROWS)
            # As the client's iterator asks: only then are pages in the key's order. On a server one may be short
            # before the end.
            rows = self._query(
                f"{condition}id > {quoted(last)}", fields, want, iterator="True", reduce_stop_for_best="True"
            )
            records += [self._columns.record(row, True, with_vectors) for row in rows]
            if not rows or (self._server.lite and len(rows) < want and len(records) <= limit):
                return Page(records, None)
            last = records[-1].id
        return Page(records[:limit], records[limit - 1].id)

    def _search_many(self, queries: list[Query]) -> list[list[Hit]]:
        answers: list[list[Hit]] = [[] for _ in queries]
        together: dict[Any, list[int]] = {}
        fused: list[int] = []
        for i, query in enumerate(queries):
            if isinstance(query.find, Fused):
                if self._fuses(query, query.find):
                    answers[i] = self._hybrid(query, query.find)
                else:
                    fused.append(i)
            elif self._data(query.find) is not None:
                field, _ = self._target(query.find)
                shape = (field, query.k, query.where, query.ef, query.with_payload, query.with_vectors)
                together.setdefault(shape, []).append(i)
        for same in together.values():
            for i, hits in zip(same, self._batch([queries[i] for i in same]), strict=True):
                answers[i] = hits
        if fused:
            # Comes back here, with all parts of all queries as one batch.
            for i, hits in zip(fused, fused_search(self, [queries[i] for i in fused]), strict=True):
                answers[i] = hits
        return answers

    def _data(self, find: Any) -> Any:
        """What Milvus is to look for: a vector or words; None for a text without a searchable word."""
        if isinstance(find, Dense):
            return find.vector
        assert isinstance(find, Text)
        assert self._columns.analyzer is not None
        return " ".join(self._columns.analyzer.terms(find.text)) or None

    def _target(self, find: Any) -> tuple[str, str]:
        """The field that is searched, and the metric of the contract."""
        if isinstance(find, Dense):
            return self._columns.vectors[find.using], self.schema.vectors[find.using].metric
        return "text_sparse", "bm25"

    def plan(self, query: Query) -> dict[str, list[str]]:
        plan = super().plan(query)
        if self._selective(query.where, query.find):
            plan["completed"].append(f"where, up to {_FEW} matches")
        return plan

    def _selective(self, where: Filter | None, find: Any) -> bool:
        """Whether the database would lose neighbours if few satisfy the condition."""
        if isinstance(find, Fused):
            return any(self._selective(where, part) for part in find.parts)
        approximate = self._kind.index_type != "FLAT" and isinstance(find, Dense)
        return self._server.lite and where is not None and approximate

    def _batch(self, queries: list[Query]) -> list[list[Hit]]:
        first = queries[0]
        field, metric = self._target(first.find)
        params = self._search_params(metric, first.k, first.ef)
        if first.where is not None and self._selective(first.where, first.find):
            most = min(_FEW, _PAGE_BYTES // (4 * len(self._data(first.find))))
            size = self._many.get(first.where)
            if size is None:
                rows = self._query(self._columns.expression(first.where), ["id", field], most + 1)
                if len(rows) <= most:
                    return self._compared(queries, rows, field, metric)
                with _errors(self._address):
                    told = self._open.get_collection_stats(self._address.collection, **self._address.call)
                if len(self._many) >= _KEPT:
                    self._many.clear()
                size = self._many[first.where] = int(told["row_count"])
            if self._kind.index_type in ("HNSW", "AUTOINDEX"):  # which is HNSW there
                enough = min(math.ceil(_PASSED * first.k * size / most), size)
                params["ef"] = max(params.get("ef", first.ef or self.schema.index.ef), enough)
        with _errors(self._address):
            found = self._open.search(
                self._address.collection, data=[self._data(query.find) for query in queries], anns_field=field,
                filter=self._columns.expression(first.where), limit=first.k,
                output_fields=self._columns.fields(first.with_payload, first.with_vectors)[1:],
                search_params={"params": params},
                consistency_level=self._address.consistency, **self._address.call,
            )  # fmt: skip
        return [self._hits(hits, metric, first) for hits in found]

    def _compared(self, queries: list[Query], rows: list[Any], field: str, metric: str) -> list[list[Hit]]:
        """The best of these rows, which have ids and vectors, for queries that differ in their vectors alone."""
        if not rows:
            return [[] for _ in queries]
        first, ids = queries[0], [row["id"] for row in rows]
        vectors = np.array([row[field] for row in rows], np.float64)
        best: list[list[tuple[str, float]]] = []
        for query in queries:
            wanted = np.asarray(self._data(query.find), np.float64)
            distances = ((vectors - wanted) ** 2).sum(1) if metric == "l2" else vectors @ wanted
            nearer = 1 if metric == "l2" else -1
            ranked = sorted(zip(ids, distances.tolist(), strict=True), key=lambda pair: (nearer * pair[1], pair[0]))
            best.append(ranked[: first.k])
        entities: dict[str, Any] = {i: {} for some in best for i, _ in some}
        fields = self._columns.fields(first.with_payload, first.with_vectors)
        if len(fields) > 1:
            shown, size = list(entities), self._page if first.with_vectors else _PAGE_ROWS
            parts = [self._query(_among(shown[at : at + size]), fields) for at in range(0, len(shown), size)]
            entities = {row["id"]: row for part in parts for row in part}  # without what was deleted in between
        return [
            self._hits(
                [{"id": i, "distance": d, "entity": entities[i]} for i, d in some if i in entities], metric, first
            )
            for some in best
        ]

    def _search_params(self, metric: str, k: int, ef: int | None) -> dict[str, Any]:
        if metric == "bm25":
            return {}
        index = self.schema.index
        params: dict[str, Any] = {}
        if self._kind.hnsw:
            params["ef"] = max(ef or index.ef, k)
        elif self._kind.index_type == "DISKANN":
            params["search_list"] = max(self._address.search_list or index.ef, k)
        elif self._kind.index_type.startswith("IVF") or self._kind.index_type == "SCANN":
            if self._address.nprobe is not None:
                params["nprobe"] = self._address.nprobe
            if self._kind.index_type == "SCANN":
                params["reorder_k"] = math.ceil(k * index.oversampling)
        if self._kind.quantization != "none" and self._kind.rescores and index.rescore:
            params["refine_k"] = index.oversampling
        return params

    def _hits(self, found: Any, metric: str, query: Query) -> list[Hit]:
        hits: list[Hit] = []
        for row in found:
            distance = float(row["distance"])
            match metric:
                case "cosine":
                    score = min(1.0, max(-1.0, distance))
                case "l2":
                    score = -math.sqrt(max(distance, 0.0))
                case "bm25":
                    score = abs(distance)  # Milvus Lite negates it
                case _:
                    score = distance
            record = self._columns.record({**row["entity"], "id": row["id"]}, query.with_payload, query.with_vectors)
            hits.append(Hit(record.id, record.vectors, record.payload, score + 0.0))  # -0.0 becomes 0.0
        hits.sort(key=lambda hit: (-hit.score, hit.id))
        return hits[: query.k]

    def _fuses(self, query: Query, find: Fused) -> bool:
        """Whether Milvus' own fusion means the same: by reciprocal rank, unweighted, with no parts to explain."""
        return (
            find.method == "rrf"
            and find.weights is None
            and find.rrf_k > 0
            and not query.explain
            and not self._selective(query.where, find)
            and all(self._data(part) is not None for part in find.parts)
        )

    def _hybrid(self, query: Query, find: Fused) -> list[Hit]:
        from pymilvus import AnnSearchRequest, RRFRanker

        depth = max(find.candidates, query.k)
        expression = self._columns.expression(query.where)
        requests = []
        for part in find.parts:
            field, metric = self._target(part)
            params = {"params": self._search_params(metric, depth, query.ef)}
            requests.append(AnnSearchRequest([self._data(part)], field, params, depth, expr=expression))
        with _errors(self._address):
            found = self._open.hybrid_search(
                self._address.collection, requests, RRFRanker(find.rrf_k), limit=query.k + _TIES,
                output_fields=self._columns.fields(query.with_payload, query.with_vectors)[1:],
                consistency_level=self._address.consistency, **self._address.call,
            )  # fmt: skip
        return self._hits(found[0], "rrf", query)


STORE = MilvusStore


def canonical(url: StoreURL) -> StoreURL:
    address = _address(url)
    if address.path is not None:
        kept = {name: value for name, value in url.options.items() if (name, value) != ("collection", _COLLECTION)}
        return replace(url, location=str(address.path.resolve()), options=kept)
    database = f"{address.database}/" if address.database not in ("", "default") else ""
    return replace(url, location=f"{address.uri.partition(':')[2]}/{database}{address.collection}")


def ledger(url: StoreURL) -> Path | None:
    """Of a collection in a file, beside that file."""
    if url.location.startswith("//"):
        return None
    named = f".{url.options['collection']}" if "collection" in url.options else ""
    return Path(f"{url.location}{named}.nearest")


def connect(url: StoreURL, schema: Schema | None) -> MilvusStore:
    """Opens the collection of a URL (see the module), or with a schema makes it."""
    return MilvusStore.open(_address(url), schema)


def _slices(rows: Sequence[tuple[dict[str, Any], int]]) -> Iterator[list[dict[str, Any]]]:
    """As many rows as one message takes."""
    part: list[dict[str, Any]] = []
    size = 0
    for row, own in rows:
        if part and (len(part) == _SLICE_ROWS or size + own > _SLICE_BYTES):
            yield part
            part, size = [], 0
        part.append(row)
        size += own
    if part:
        yield part


def _among(ids: Sequence[str]) -> str:
    return f"id in [{', '.join(quoted(i) for i in ids)}]"


# --- a collection's life ---------------------------------------------------------------------------


def _connect(address: _Address, local: _Local | None) -> MilvusClient:
    try:
        import grpc  # type: ignore[import-untyped]
        from pymilvus import MilvusClient
    except ImportError as error:
        raise MissingDependency("this store needs pymilvus; run: pip install 'nearest[milvus]'") from error
    logging.getLogger("pymilvus.decorators").setLevel(logging.CRITICAL)  # it prints what it also raises
    client = MilvusClient(
        uri=address.uri if local is None else local.uri,
        token=address.token,
        db_name=address.database,
        timeout=min(address.timeout, 10),
        dedicated=True,
        grpc_options=dict(RECONNECT),
    )
    connection = client._get_connection()
    reach = Reach(connection._channel)

    def give_up(error: Exception) -> bool:
        if isinstance(error, grpc.RpcError):
            reach.after(error)
        raise error

    # Given a deadline the client repeats a call until then, but asks this first; a layer retries.
    connection._on_rpc_error = give_up
    return client


def _missing(address: _Address) -> NotACollection:
    return NotACollection(f"{address.shown} holds no collection; to make one, give a schema")


def _describe(client: MilvusClient, address: _Address) -> tuple[Schema, dict[str, Any]] | None:
    """The schema and the layout that a collection was made with; None where there is none."""
    if not client.has_collection(address.collection, **address.call):
        return None
    mark = client.describe_collection(address.collection, **address.call).get("properties", {}).get(_MARK)
    if mark is None:
        raise NotACollection(f"{address.shown} is not a collection of nearest; give another name")
    try:
        kept = json.loads(mark)
        return Schema.from_json(kept["schema"]), kept["layout"]
    except (ValueError, KeyError, TypeError) as error:
        raise CollectionDamaged(f"{address.shown}: its property {_MARK!r} cannot be read ({error})") from None


def _check_same(address: _Address, found: Schema, layout: dict[str, Any], asked: Schema | None) -> None:
    if asked is not None and asked != found:
        was, now = found.to_json(), asked.to_json()
        differing = [f"{name} was {was[name]}, now {now[name]}" for name in was if was[name] != now[name]]
        raise SchemaMismatch(f"{address.shown} was made with another schema: {'; '.join(differing)}")
    other = [f"{name} was {layout.get(name)}, now {v}" for name, v in address.layout.items() if layout.get(name) != v]
    if other:
        raise SchemaMismatch(f"{address.shown} was made with other options: {'; '.join(other)}; leave them out")


def _check_used(address: _Address, index: str) -> None:
    """Raises InvalidInput for options that such an index has no use for."""
    given = {"nlist", "subvectors"} & address.layout.keys()
    given |= {name for name in ("nprobe", "search_list") if getattr(address, name) is not None}
    for name in sorted(given - _KINDS[index].options):
        having = ", ".join(other for other, kind in _KINDS.items() if name in kind.options)
        raise InvalidInput(f"milvus: index={index} has no {name}; leave it out (it belongs to {having})")


def _capabilities(server: _Server, kind: _Kind, address: _Address) -> Capabilities:
    features = set(server.features())
    if not kind.hnsw:
        features.discard("hnsw")
    if kind.index_type == "FLAT":
        features.add("exact")
    sees = address.consistency in ("Strong", "Session")
    remote = address.path is None  # what a file holds, this process serves to itself
    return Capabilities(frozenset(features), EXACT_FILTERS, read_your_writes=sees, max_batch=_SLICE_ROWS, remote=remote)


def _choose(address: _Address, server: _Server, schema: Schema) -> dict[str, Any]:
    """The layout of a new collection. Raises UnsupportedError, or InvalidInput for options that contradict."""
    index = schema.index
    name = address.layout.get("index") or ("autoindex" if server.cloud else _BY_QUANTIZATION[index.quantization])
    kind = _KINDS[name]
    asked_for = index.quantization != "none"
    check_schema(schema, _capabilities(server, kind, address))
    if not server.has(kind):
        has = ", ".join(other for other, k in _KINDS.items() if server.has(k))
        raise UnsupportedError(f"this server has no index {name}; it has {has}")
    if asked_for and kind.quantization != index.quantization:
        raise InvalidInput(f"index={name} is not {index.quantization} quantization; leave one of them out")
    if asked_for and index.rescore and not kind.rescores:
        raise UnsupportedError(f"index={name} does not rescore; say rescore=False, or leave the index out")
    if "partitions" in address.layout and "partition_key" not in address.layout:
        raise InvalidInput("milvus: partitions are those of a partition_key; name that too")
    _check_used(address, name)
    for vector, spec in schema.vectors.items():
        if not 2 <= spec.dim <= 32_768:
            raise UnsupportedError(f"vector {vector!r} has dimension {spec.dim}; Milvus holds 2 to 32768")
    return {
        **address.layout,
        "index": name,
        "terms": address.layout.get("terms") or ("text" if server.lite else "array"),
    }


def _create(client: MilvusClient, address: _Address, server: _Server, schema: Schema) -> None:
    from pymilvus import DataType, Function, FunctionType

    layout = _choose(address, server, schema)
    columns = Columns(schema, layout)
    table = client.create_schema(auto_id=False, enable_dynamic_field=False)
    table.add_field("id", DataType.VARCHAR, is_primary=True, max_length=_MAX_ID)
    table.add_field("payload", DataType.VARCHAR, max_length=MAX_TEXT)
    array = {"element_type": DataType.VARCHAR, "max_capacity": MAX_TERMS, "max_length": TERM_LENGTH}
    for column in ("terms", "many"):
        if columns.as_array:
            table.add_field(column, DataType.ARRAY, **array)
        else:
            table.add_field(column, DataType.VARCHAR, max_length=MAX_TEXT)
    for column in columns.values.values():
        table.add_field(column, DataType.VARCHAR, max_length=TERM_LENGTH)
    for name, column in columns.vectors.items():
        table.add_field(column, DataType.FLOAT_VECTOR, dim=schema.vectors[name].dim)
    for kind, low, high in columns.ranges.values():
        for column in (low, high):
            table.add_field(column, DataType.DOUBLE if kind == "float" else DataType.INT64)
    if columns.partition_key is not None:
        table.add_field("partition", DataType.VARCHAR, max_length=TERM_LENGTH, is_partition_key=True)
    if columns.analyzer is not None:
        # The words come stemmed and in lower case; these only part them.
        tokenizer = {"tokenizer": "standard" if server.lite else "whitespace"}
        table.add_field("text", DataType.VARCHAR, max_length=MAX_TEXT, enable_analyzer=True, analyzer_params=tokenizer)
        table.add_field("text_sparse", DataType.SPARSE_FLOAT_VECTOR)
        table.add_function(Function("bm25", FunctionType.BM25, ["text"], ["text_sparse"]))
    if len(table.fields) > _MAX_FIELDS:
        raise UnsupportedError(
            f"the schema takes {len(table.fields)} fields of Milvus, which has {_MAX_FIELDS}; a declared integer, "
            "float or datetime takes three, a keyword or bool one: declare fewer"
        )
    more: dict[str, Any] = {}
    if "partitions" in layout:
        more["num_partitions"] = layout["partitions"]
    if "shards" in layout:
        more["num_shards"] = layout["shards"]
    mark = json.dumps({"schema": schema.to_json(), "layout": layout})
    try:
        client.create_collection(
            address.collection,
            schema=table,
            properties={_MARK: mark},
            consistency_level="Strong",
            **more,
            **address.call,
        )
    except Exception:
        # Another process may have made it in the meantime; what it made is compared by the caller.
        if not client.has_collection(address.collection, **address.call):
            raise


def _build_params(schema: Schema, layout: dict[str, Any], dim: int) -> dict[str, Any]:
    kind, index = _KINDS[layout["index"]], schema.index
    params: dict[str, Any] = {}
    if kind.hnsw:
        params |= {"M": index.m, "efConstruction": index.ef_construct}
    elif "nlist" in layout and "nlist" in kind.options:  # collections of before this was checked may have it
        params["nlist"] = layout["nlist"]
    if kind.index_type == "HNSW_SQ":
        params["sq_type"] = "SQ8"
    elif kind.index_type in ("HNSW_PQ", "IVF_PQ"):
        wanted = layout.get("subvectors") or max(1, dim // 4)
        params |= {"m": max(m for m in range(1, min(wanted, dim) + 1) if dim % m == 0), "nbits": 8}
    if kind.quantization != "none" and kind.rescores and index.rescore:
        params |= {"refine": True, "refine_type": "FP32"}
    return params


# --- errors ----------------------------------------------------------------------------------------

_CODE_TOO_MANY_REQUESTS = 4  # a full queue
_CODE_TIMED_OUT = 10001  # inside of the server


@contextlib.contextmanager
def _errors(address: _Address) -> Iterator[None]:
    """What the client raises, as ours."""
    try:
        yield
    except NearestError:
        raise
    except Exception as error:
        raise _ours(error, address) from error


def _ours(error: Exception, address: _Address) -> NearestError:
    import grpc
    from pymilvus.exceptions import MilvusException  # type: ignore[import-untyped]

    where = address.shown
    status = _status(error)
    said = (
        str(getattr(error, "message", "")) or (status.details() if isinstance(status, grpc.Call) else "") or str(error)
    )
    code = status.code() if isinstance(status, grpc.Call) else getattr(error, "code", None)
    lower = said.lower()

    def told(*words: str) -> bool:
        return any(word in lower for word in words)

    if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED) or told(
        "auth check fail", "permission deny", "permissiondenied", "unauthenticated"
    ):
        return AccessDenied(f"{where}: the server refuses these credentials ({said}); check user, password or token")
    if code in (grpc.StatusCode.DEADLINE_EXCEEDED, _CODE_TIMED_OUT):
        return TimedOut(f"{where} did not answer within {address.timeout:g} s; try again, or give ?timeout=seconds")
    if code == 8 or code == grpc.StatusCode.RESOURCE_EXHAUSTED or told("rate limit exceeded"):
        if told("message larger than max", "received message larger"):
            return InvalidInput(f"{where}: the message is over the server's limit ({said}); ask for less at once")
        return Throttled(f"{where} is asked too much ({said}); slow down")
    if code == _CODE_TOO_MANY_REQUESTS:
        return Throttled(f"{where} is asked too much ({said}); slow down")
    if (
        code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED, 2)
        or told("fail connecting", "failed to connect")
        # A connection that broke in the middle of a call; gRPC has no code of its own for that.
        or (isinstance(code, grpc.StatusCode) and told("rst_stream", "stream removed", "goaway", "connection reset"))
    ):
        return ConnectionFailed(f"{where} cannot be reached ({said}); is the server up, and host and port right?")
    if code == 100:
        return NotACollection(f"{where} is not there any more ({said})")
    if code == 9 or told("quota exceeded"):
        return StorageError(f"{where} refuses writes ({said}); free memory or disk of the server")
    if isinstance(error, MilvusException) and error.retriable:
        return ConnectionFailed(f"{where} cannot serve this now ({said}); try again")
    if isinstance(error, MilvusException) and (error.is_input_error or code in (6, 1100) or told("invalid")):
        return InvalidInput(f"{where}: Milvus refused: {said}")
    return StorageError(f"{where}: Milvus failed: {said}")


def _status(error: BaseException | None) -> BaseException | None:
    """The error of the transport below the client's own, if there is one."""
    import grpc

    while error is not None and not isinstance(error, grpc.RpcError):
        # The client raises errors from themselves.
        error = error.__cause__ if error.__cause__ is not error else None
    return error
