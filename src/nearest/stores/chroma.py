"""Chroma, as a server (`chroma run`, Chroma Cloud) or embedded on a folder.

    chroma://HOST:PORT/COLLECTION?ssl=true&tenant=T&database=D&timeout=60
    chroma:FOLDER/COLLECTION

Options of both: `sync_threshold` (writes between two saves of the index to disk, from 2; Chroma's own default is
1000), at creation. Of a server: `ssl`, `tenant`, `database`, `timeout` (seconds, 60 if not given) and `key_header`
(`x-chroma-token`, or `authorization` for a proxy that wants a bearer token). The API key is read from the environment
variable CHROMA_API_KEY, so that no URL holds it.

Chroma's metadata are flat, hold no null and lose the last digit of a float, so the payload is kept whole as one JSON
text (key `payload`), and keys that conditions run on are derived beside it for every path that a condition can name;
see "filters" below. Chroma's upsert merges metadata, so keys that a record no longer has are removed with it; two
processes that write the same record of a server at the same moment can leave such a key behind.

A folder is for one process: another one that opens the same collection is refused. Chroma saves an index by writing
over its files, so a process that is killed meanwhile leaves one that cannot be read; in a folder a copy of the last
whole one is kept beside (`.COLLECTION.saved`) and put back, and Chroma's WAL brings it up to date. A server has no
such copy. A query's `ef` cannot be less than the schema's, since Chroma has it in the collection alone; more is had by
asking for as many hits. `exact` reads the vectors of all matching records.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import shutil
import sqlite3
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast
from urllib.parse import unquote, urlsplit

import numpy as np

from nearest import filters
from nearest.contract import (
    Capabilities,
    Dense,
    Fused,
    Gap,
    Hit,
    Page,
    Query,
    Record,
    Schema,
    Store,
    StoreURL,
    check_schema,
    fused_search,
)
from nearest.errors import (
    AccessDenied,
    BatchFailed,
    CollectionDamaged,
    CollectionLocked,
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
from nearest.filters import And, Comparison, Filter, Loose, Not, Op, Or, Scalar

if TYPE_CHECKING:
    from chromadb.api.client import Client
    from chromadb.api.models.Collection import Collection
    from chromadb.api.types import QueryResult
    from filelock import FileLock

T = TypeVar("T")

REQUIRES = {"chromadb": ">=1.5,<2"}
KNOWN_GAPS: tuple[Gap, ...] = ()
IDENTITY = ("tenant", "database")

_SCHEMA = "nearest"  # the collection's metadata under which its schema is
_PAYLOAD = "payload"
_SPACES = {"cosine": "cosine", "dot": "ip", "l2": "l2"}
_OPTIONS = {"sync_threshold"}
_DEFAULTS = {"tenant": "default_tenant", "database": "default_database"}  # Chroma's own
_SERVER_OPTIONS = {"ssl", "tenant", "database", "timeout", "key_header"}
_KEY_HEADERS = {"x-chroma-token": "{}", "authorization": "Bearer {}"}
_KEY_VARIABLE = "CHROMA_API_KEY"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{1,510}[a-zA-Z0-9]", re.ASCII)
_REQUEST_BYTES = 16 * 2**20
_MOST_BYTES = 40 * 2**20  # of a body that a server takes
_VARIABLES = 10_000  # values in one statement, of which SQLite takes 32,766 and Chroma writes some twice
_RACES = 5  # reads begun again because a record was deleted while they ran


class ChromaStore(Store):
    capabilities = Capabilities(
        features=frozenset({"dense", "cosine", "dot", "l2", "hnsw", "payload_index", "durable", "exact"}),
        # $eq and $in: of strings up to _LONG characters; see filter_support.
        filters=frozenset({"$eq", "$in", *filters.ORDER_OPS, "$exists"}),
        max_batch=5_000,
    )

    def __init__(
        self, place: str, client: Client, collection: Collection, schema: Schema, folder: Path | None = None
    ) -> None:
        self.schema = schema
        self._place = place
        self._client: Client | None = client
        self._collection = collection
        self._folder = folder
        self.capabilities = replace(self.capabilities, remote=folder is None)  # type: ignore[misc]  # as it is reached
        ((self._name, self._spec),) = schema.vectors.items()
        self._most = client.get_max_batch_size()
        if self._most < 1:  # the server does not say
            self._most = self.capabilities.max_batch
        self._writing = threading.Lock()
        self._saved: _Saved | None = None
        self._on_close = contextlib.ExitStack()

    def close(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            with self._on_close:
                with _opening:
                    client.close()
                if self._saved is not None:
                    self._saved.close()

    @property
    def _open(self) -> Collection:
        if self._client is None:
            raise StorageError(f"the collection at {self._place} was closed; open it again")
        return self._collection

    # --- writing ---

    def _upsert(self, records: list[Record]) -> None:
        failed: dict[str, NearestError] = {}
        with self._writing:  # so that no other thread changes what `_write` replaces
            for batch, rows in self._batches(records):
                failed |= self._write(batch, rows)
                self._keep()
        if failed:
            raise BatchFailed.of(failed, len(records))

    def _batches(self, records: list[Record]) -> Iterator[tuple[list[Record], list[dict[str, Any]]]]:
        """Records and their metadata, by what one call takes."""
        batch: list[Record] = []
        rows: list[dict[str, Any]] = []
        size = 0
        for record in records:
            row = _derive(record.payload)
            more = 2 * len(row[_PAYLOAD]) + 6 * self._spec.dim
            if batch and (len(batch) == self._most or size + more > _REQUEST_BYTES):
                yield batch, rows
                batch, rows, size = [], [], 0
            batch.append(record)
            rows.append(row)
            size += more
        if batch:
            yield batch, rows

    def _write(self, batch: list[Record], rows: list[dict[str, Any]]) -> dict[str, NearestError]:
        """The records that are too large by themselves, and why."""
        ids = [record.id for record in batch]
        if self._folder is None and len(batch) == 1 and len(rows[0][_PAYLOAD].encode()) >= _MOST_BYTES:
            # A server hangs up before it has read it all, which would look like a failure of the network.
            told = f"record {ids[0]!r}: its payload is too large for a server, which takes {_MOST_BYTES >> 20} MiB"
            return {ids[0]: InvalidRecord(told)}
        old = self._read(lambda: self._open.get(ids=ids, include=["metadatas"]))
        if old["ids"]:
            by_id = dict(zip(ids, rows, strict=True))
            for record_id, metadata in zip(old["ids"], old["metadatas"] or (), strict=True):
                row = by_id[record_id]
                row.update(dict.fromkeys(metadata.keys() - row.keys()))  # None removes
        vectors: Any = [record.vectors[self._name] for record in batch]
        metadatas: Any = rows
        try:
            self._call(lambda: self._open.upsert(ids=ids, embeddings=vectors, metadatas=metadatas))
        except InvalidRecord as error:  # too large
            if len(batch) == 1:
                return {ids[0]: InvalidRecord(f"record {ids[0]!r}: {error}")}
            half = len(batch) // 2
            return self._write(batch[:half], rows[:half]) | self._write(batch[half:], rows[half:])
        return {}

    def _delete(self, ids: list[str]) -> None:
        with self._writing:
            for part in _parts(ids, self._most):
                self._call(lambda part=part: self._open.delete(ids=part))  # type: ignore[misc]
                self._keep()

    def _delete_where(self, where: Filter) -> None:
        native = _translate(where)
        if native is True:
            self._delete(self._ids(None))
        elif native is not False:
            with self._writing:
                self._call(lambda: self._open.delete(where=native))
                self._keep()

    def _keep(self) -> None:
        if self._saved is not None:
            self._call(self._saved.keep)

    # --- reading ---

    def filter_support(self, comparison: Comparison) -> filters.Support:
        return _support(comparison)

    def _get(self, ids: list[str], with_vectors: bool) -> list[Record]:
        return [record for part in _parts(ids, self._most) for record in self._records(with_vectors, ids=part)]

    def _count(self, where: Filter | None) -> int:
        native = None if where is None else _translate(where)
        if native is False:
            return 0
        return self._call(self._open.count) if native in (None, True) else len(self._ids(native))

    def _scan(self, cursor: str | None, limit: int, where: Filter | None, with_vectors: bool) -> Page:
        # Chroma's order is that of the first writing, by a number of its own.
        start = 0
        if cursor is not None:
            if not (cursor.isascii() and cursor.isdigit()):
                raise InvalidInput(f"{cursor!r} is not a cursor of this store")
            start = int(cursor)
        native = None if where is None else _translate(where)
        if native is False:
            return Page([], None)
        native = None if native is True else native
        records = self._records(with_vectors, where=native, limit=limit + 1, offset=start)
        return Page(records[:limit], str(start + limit) if len(records) > limit else None)

    def _records(self, with_vectors: bool, **which: Any) -> list[Record]:
        include: Any = ["metadatas", "embeddings"] if with_vectors else ["metadatas"]
        got = self._read(lambda: self._open.get(include=include, **which))
        vectors = got["embeddings"]
        return [
            Record(record_id, {} if vectors is None else {self._name: _vector(vectors[i])}, payload)
            for i, (record_id, payload) in enumerate(zip(got["ids"], _payloads(got["metadatas"] or ()), strict=True))
        ]

    def _ids(self, where: Any) -> list[str]:
        return self._read(lambda: self._open.get(where=where, include=[]))["ids"]

    # --- searching ---

    def _search_many(self, queries: list[Query]) -> list[list[Hit]]:
        answers: list[list[Hit]] = [[] for _ in queries]
        together: dict[str, tuple[list[int], Any, int]] = {}
        fused = [i for i, query in enumerate(queries) if isinstance(query.find, Fused)]
        if fused:
            # Comes back here, with all parts of all queries as one batch.
            for i, hits in zip(fused, fused_search(self, [queries[i] for i in fused]), strict=True):
                answers[i] = hits
        for i, query in enumerate(queries):
            if isinstance(query.find, Fused):
                continue
            native = None if query.where is None else _translate(query.where)
            if native is False:
                continue
            native = None if native is True else native
            if query.exact:
                answers[i] = self._exact(query, native, self._ids(native), [])
                continue
            # hnswlib keeps as many candidates as it is asked for hits, so this is how a query gets more.
            depth = max(query.k, query.ef or 0)
            key = repr((native, depth, query.with_payload, query.with_vectors))
            together.setdefault(key, ([], native, depth))[0].append(i)
        for places, native, depth in together.values():
            for some in _parts(places, max(1, _VARIABLES // depth)):  # the ids of all hits are variables of one SQL
                for i, hits in zip(some, self._nearest([queries[i] for i in some], native, depth), strict=True):
                    answers[i] = hits
        return answers

    def _nearest(self, queries: list[Query], where: Any, depth: int) -> Iterator[list[Hit]]:
        include: Any = ["distances"]
        include += ["metadatas"] if queries[0].with_payload else []
        include += ["embeddings"] if queries[0].with_vectors else []
        vectors: Any = [cast("Dense", query.find).vector for query in queries]

        def query() -> QueryResult:
            got = self._open.query(query_embeddings=vectors, n_results=depth, where=where, include=include)
            if got["metadatas"] is not None and any(None in metadatas for metadatas in got["metadatas"]):
                raise _moved(self._place)
            return got

        got = self._read(query)
        for place, asked in enumerate(queries):
            metadatas = got["metadatas"][place] if got["metadatas"] is not None else None
            stored = got["embeddings"][place] if got["embeddings"] is not None else None
            scores = self._scores((got["distances"] or [])[place])
            ids = got["ids"][place]
            payloads = [{} for _ in ids] if metadatas is None else _payloads(metadatas)
            hits = [
                Hit(record_id, {} if stored is None else {self._name: _vector(stored[n])}, payloads[n], scores[n])
                for n, record_id in enumerate(ids)
            ]
            hits.sort(key=lambda hit: (-hit.score, hit.id))
            yield self._filled(asked, where, hits[: asked.k])

    def _scores(self, distances: Sequence[float]) -> list[float]:
        match self._spec.metric:
            case "cosine":
                return [min(1.0, max(-1.0, 1.0 - d)) for d in distances]
            case "dot":
                return [1.0 - d for d in distances]
            case "l2":
                return [-math.sqrt(max(0.0, d)) for d in distances]

    def _filled(self, query: Query, where: Any, hits: list[Hit]) -> list[Hit]:
        """The hits, with those that the graph did not reach: k wherever k records match."""
        if len(hits) == query.k or (where is None and self._call(self._open.count) <= len(hits)):
            return hits
        found = {hit.id for hit in hits}
        missing = [record_id for record_id in self._ids(where) if record_id not in found]
        return self._exact(query, where, missing, hits) if missing else hits

    def _exact(self, query: Query, where: Any, ids: list[str], hits: list[Hit]) -> list[Hit]:
        """The best k of some hits and of the records of these ids, which are compared here."""
        asked = np.asarray(cast("Dense", query.find).vector, np.float64)
        ranked = [(-hit.score, hit.id) for hit in hits]
        for part in _parts(ids, self._most):
            got = self._read(lambda part=part: self._open.get(ids=part, include=["embeddings"]))  # type: ignore[misc]
            if not got["ids"]:
                continue
            stored = np.asarray(got["embeddings"], np.float64)
            if self._spec.metric == "l2":
                scores = -np.sqrt(((stored - asked) ** 2).sum(axis=1))
            else:
                scores = stored @ asked
                if self._spec.metric == "cosine":
                    scores = scores.clip(-1.0, 1.0)
            ranked += zip((-scores).tolist(), got["ids"], strict=True)
            ranked = sorted(ranked)[: query.k]
        known = {hit.id: hit for hit in hits}
        unknown = [record_id for _, record_id in ranked if record_id not in known]
        fetched = {record.id: record for record in self._get(unknown, query.with_vectors)} if unknown else {}
        best: list[Hit] = []
        for negated, record_id in ranked:
            if record_id in known:
                best.append(known[record_id])
            elif record_id in fetched:
                record = fetched[record_id]
                best.append(Hit(record_id, record.vectors, record.payload if query.with_payload else {}, -negated))
        return best

    # --- facts ---

    def stats(self) -> dict[str, Any]:
        kind = "hnsw" if self._collection.configuration_json.get("hnsw") else "spann"
        told: dict[str, Any] = {"index": f"{kind}, built while writing", "indexed": self._call(self._open.count)}
        if self._folder is not None:  # of all collections in it
            files = (file for file in self._folder.rglob("*") if file.is_file())
            told["disk_bytes"] = sum(file.stat().st_size for file in files)
        return told

    # --- calls ---

    def _call(self, work: Callable[[], T]) -> T:
        with _errors(self._place):
            return work()

    def _read(self, work: Callable[[], T]) -> T:
        """As `_call`. Chroma reads its two indexes one after the other, and fails if a record goes in between."""
        for _ in range(_RACES):
            try:
                return self._call(work)
            except ConnectionFailed as error:
                if "moved" not in error.context:
                    raise
        return self._call(work)


STORE = ChromaStore


def _vector(value: Any) -> Any:
    return np.array(value, np.float32)


def _payloads(metadatas: Sequence[Any]) -> list[dict[str, Any]]:
    """One call for all of them, which is half the time."""
    payloads: list[dict[str, Any]] = json.loads("[" + ",".join([metadata[_PAYLOAD] for metadata in metadatas]) + "]")
    return payloads


def _parts(items: list[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


# --- opening ---------------------------------------------------------------------------------------

# Chroma keeps one system a folder, shared by its clients and counted, without a lock of its own.
_opening = threading.Lock()


def canonical(url: StoreURL) -> StoreURL:
    kept = {name: value for name, value in url.options.items() if _DEFAULTS.get(name) != value}
    if not url.location.startswith("//"):
        return replace(url, location=str(Path(url.location).resolve()), options=kept)
    host, port, name, _ = _endpoint(url)
    return replace(url, location=f"//{host}:{port}/{name}", options=kept)


def ledger(url: StoreURL) -> Path | None:
    """Of an embedded collection in the same folder."""
    return None if url.location.startswith("//") else Path(f"{url.location}.nearest")


def connect(url: StoreURL, schema: Schema | None) -> ChromaStore:
    """Opens a collection; with a schema it is created where there is none.

    Raises InvalidInput for a bad URL, option or name, NotACollection, SchemaMismatch, and what goes wrong on the way.
    """
    server = url.location.startswith("//")
    known = _OPTIONS | (_SERVER_OPTIONS if server else set())
    unknown = sorted(url.options.keys() - known)
    if unknown:
        raise InvalidInput(f"chroma: has no option {unknown[0]!r} here; there are {', '.join(sorted(known))}")
    threshold = _number(url.options, "sync_threshold", 2) if "sync_threshold" in url.options else None
    if schema is not None:
        check_schema(schema, ChromaStore.capabilities)
    try:
        import chromadb  # noqa: F401
    except ImportError as error:
        raise MissingDependency("the Chroma store needs chromadb; run: pip install 'nearest[chroma]'") from error
    if server:
        return _connect_server(url, schema, threshold)
    return _connect_folder(url, schema, threshold)


def _endpoint(url: StoreURL) -> tuple[str, int, str, bool]:
    """Host (an IPv6 address in brackets), port, the collection's name, and whether TLS is used."""
    try:
        parts = urlsplit(f"http:{url.location}")
        host, port, name = parts.hostname, parts.port, unquote(parts.path.removeprefix("/"))
    except ValueError as error:
        raise InvalidInput(f"chroma:{url.location}: {error}; write chroma://host:8000/collection") from None
    if not host or not name or parts.username is not None:
        raise InvalidInput(
            "a Chroma server is written chroma://host:8000/collection; its key goes into " + _KEY_VARIABLE
        )
    _check_name(name)
    ssl = url.options.get("ssl", "false")
    if ssl not in ("true", "false"):
        raise InvalidInput(f"ssl must be true or false, got {ssl!r}")
    return f"[{host}]" if ":" in host else host, port or (443 if ssl == "true" else 8000), name, ssl == "true"


def _connect_server(url: StoreURL, schema: Schema | None, threshold: float | None) -> ChromaStore:
    import chromadb
    import httpx

    shown, port, name, ssl = _endpoint(url)
    header = url.options.get("key_header", "x-chroma-token")
    if header not in _KEY_HEADERS:
        raise InvalidInput(f"key_header must be one of {', '.join(_KEY_HEADERS)}, got {header!r}")
    timeout = _number(url.options, "timeout", 0.001) if "timeout" in url.options else 60.0
    key = os.environ.get(_KEY_VARIABLE)
    headers = {header: _KEY_HEADERS[header].format(key)} if key else {}
    place = f"chroma://{shown}:{port}/{name}"
    base = f"{'https' if ssl else 'http'}://{shown}:{port}"
    with _errors(place):
        # Chroma's client waits for ever while it connects, so whether there is a server is seen before.
        httpx.get(f"{base}/api/v2/heartbeat", timeout=timeout, headers=headers).raise_for_status()
        client: Any = chromadb.HttpClient(
            host=shown,
            port=port,
            ssl=ssl,
            headers=dict(headers),
            settings=_settings(),
            tenant=url.options.get("tenant", _DEFAULTS["tenant"]),
            database=url.options.get("database", _DEFAULTS["database"]),
        )
    client._server._session.timeout = timeout  # there is no public way, and the default is none
    try:
        return _open_collection(place, client, name, schema, threshold, None)
    except BaseException:
        client.close()
        raise


def _connect_folder(url: StoreURL, schema: Schema | None, threshold: float | None) -> ChromaStore:
    import chromadb

    path = Path(url.location)
    if not url.location or url.location.endswith("/") or path.parent == path:
        raise InvalidInput("chroma: needs a folder and a collection's name, such as chroma:./dir/collection")
    folder, name = path.parent, path.name
    _check_name(name)
    if folder.exists() and not folder.is_dir():
        raise NotACollection(f"{folder} is a file; give a folder")
    if schema is None and not (folder / "chroma.sqlite3").is_file():
        raise NotACollection(f"{folder} holds no collection; to make one, give a schema")
    place = f"chroma:{path}"
    with contextlib.ExitStack() as undo:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            undo.callback(_lock(folder, name).release)
        except PermissionError as error:
            raise ReadOnly(f"{folder} cannot be written ({error.strerror})") from None
        except OSError as error:
            raise StorageError(f"{folder} cannot be used: {error}") from None
        with _errors(place), _opening:
            client: Any = chromadb.PersistentClient(folder.resolve(), settings=_settings())
        try:
            store = _open_collection(place, client, name, schema, threshold, folder)
            with _errors(place):
                store._saved = _Saved(folder, name, str(store._collection.id))
                store._saved.restore()
            store._call(store._collection.count)  # brings the index up to date, and perhaps saves it
            store._keep()
        except BaseException:
            with _opening:
                client.close()
            raise
        store._on_close = undo.pop_all()
        return store


def _open_collection(
    place: str, client: Client, name: str, schema: Schema | None, threshold: float | None, folder: Path | None
) -> ChromaStore:
    try:
        collection = _find(place, client, name)
    except NotACollection:
        if schema is None:
            raise NotACollection(f"there is no collection at {place}; to make one, give a schema") from None
        collection = _create(place, client, name, schema, threshold)
    found = _schema_of(place, collection)
    if schema is not None and found != schema:
        was, now = found.to_json(), schema.to_json()
        differing = [f"{part} was {was[part]}, now {now[part]}" for part in was if was[part] != now[part]]
        raise SchemaMismatch(f"{place} was made with another schema: {'; '.join(differing)}", place=place)
    return ChromaStore(place, client, collection, found, folder)


def _find(place: str, client: Client, name: str) -> Collection:
    with _errors(place):
        return client.get_collection(name, embedding_function=None)


def _create(place: str, client: Client, name: str, schema: Schema, threshold: float | None) -> Collection:
    """One call makes the collection and its mark, so that neither is ever seen without the other."""
    (spec,) = schema.vectors.values()
    hnsw: dict[str, Any] = {
        "space": _SPACES[spec.metric],
        "max_neighbors": schema.index.m,
        "ef_construction": schema.index.ef_construct,
        "ef_search": schema.index.ef,
    }
    if threshold is not None:
        hnsw["sync_threshold"] = int(threshold)
    configuration: Any = {"hnsw": hnsw}
    metadata = {_SCHEMA: json.dumps(schema.to_json())}
    try:
        with _errors(place):
            return client.create_collection(
                name, configuration=configuration, metadata=metadata, embedding_function=None
            )
    except StorageError as error:
        if "already exists" not in str(error):  # another one was faster
            raise
        return _find(place, client, name)


def _schema_of(place: str, collection: Collection) -> Schema:
    text = (collection.metadata or {}).get(_SCHEMA)
    if not isinstance(text, str):
        raise NotACollection(
            f"{place} was not made by nearest; give another name, and copy its records with its client"
        )
    try:
        return Schema.from_json(json.loads(text))
    except (ValueError, KeyError, TypeError) as error:
        raise CollectionDamaged(f"the schema of {place} cannot be read ({error}); restore it from a backup") from None


def _settings() -> Any:
    from chromadb.config import Settings

    return Settings(anonymized_telemetry=False)


def _lock(folder: Path, name: str) -> FileLock:
    # Chroma itself locks nothing, and a second process would search an index that misses what the first one writes.
    from filelock import FileLock, Timeout

    lock = FileLock(folder / f".{name}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise CollectionLocked(
            f"{folder / name} is open in another process (or elsewhere in this one); close it there and try again",
            folder=str(folder),
        ) from None
    return lock


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"{name!r} cannot be a collection's name in Chroma: 3 to 512 characters of a-z, A-Z, 0-9, '.', '_' and "
            "'-', with a letter or a digit at both ends"
        )


def _number(options: Mapping[str, str], name: str, least: float) -> float:
    try:
        value = float(options[name])
    except ValueError:
        value = math.nan
    if not least <= value <= 2**31:
        raise InvalidInput(f"{name} must be a number of {least} or more, got {options[name]!r}")
    return value


class _Saved:
    """The last whole index of a collection in a folder, for when saving the next one is cut off.

    Chroma notes which write an index is saved up to (`max_seq_id`) after saving it, and only then forgets the WAL
    before. So a copy made at the same number is one that the WAL continues.
    """

    def __init__(self, folder: Path, name: str, collection: str) -> None:
        self._copy = folder / f".{name}.saved"
        self._copying = folder / f".{name}.saving"
        self._opened = folder / f".{name}.open"
        self._database = sqlite3.connect(folder / "chroma.sqlite3", check_same_thread=False)
        ((self._segment,),) = self._database.execute(
            "SELECT id FROM segments WHERE collection = ? AND scope = 'VECTOR'", (collection,)
        )
        self._index = folder / self._segment

    def _number(self) -> str:
        row = self._database.execute("SELECT seq_id FROM max_seq_id WHERE segment_id = ?", (self._segment,)).fetchone()
        return "none" if row is None else f"{self._segment}:{row[0]}"

    def _kept(self) -> str:
        try:
            return (self._copy / "number").read_text()
        except FileNotFoundError:
            return "none"

    def restore(self) -> None:
        """Puts the copy back if the collection was not closed, and no index was saved since."""
        if self._opened.exists() and self._kept() == self._number():
            shutil.rmtree(self._index, ignore_errors=True)
            if self._copy.exists():
                shutil.copytree(self._copy, self._index, ignore=shutil.ignore_patterns("number"))
        self._opened.touch()

    def keep(self) -> None:
        """Copies the index if it was saved since the last copy."""
        number = self._number()
        if number == self._kept():
            return
        shutil.rmtree(self._copying, ignore_errors=True)
        shutil.copytree(self._index, self._copying)
        (self._copying / "number").write_text(number)
        shutil.rmtree(self._copy, ignore_errors=True)
        self._copying.rename(self._copy)

    def close(self) -> None:
        self._database.close()
        self._opened.unlink(missing_ok=True)


# --- errors ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def _errors(place: str) -> Iterator[None]:
    try:
        yield
    except NearestError:
        raise
    except Exception as error:
        known = _known(place, error)
        if known is None:
            raise
        raise known from error


def _known(place: str, error: Exception) -> NearestError | None:
    import httpx
    from chromadb import errors

    # The client wraps what it met in errors of no kind.
    chain: list[BaseException] = [error]
    while (before := chain[-1].__cause__ or chain[-1].__context__) is not None and before not in chain:
        chain.append(before)
    said = str(error) or type(error).__name__
    for fault in chain:
        match fault:
            case httpx.HTTPStatusError():
                return _refused(place, fault.response.status_code, said, fault.response.headers.get("retry-after"))
            case httpx.TimeoutException():
                return _late(place)
            case httpx.InvalidURL():
                return InvalidInput(f"{place}: {fault}")
            case httpx.TransportError():
                return ConnectionFailed(f"{place} does not answer ({fault}); is the server running, is the host right?")
            case errors.ChromaError() if not isinstance(fault, errors.InternalError):
                return _refused(place, fault.code(), said, None)
    if isinstance(error, errors.InternalError):
        return _failed(place, said)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return DiskFull(f"{place}: the disk is full; free some space and run it again")
    if isinstance(error, OSError | sqlite3.Error):
        return _failed(place, said)
    if isinstance(error, ValueError):
        return InvalidInput(f"{place}: {said}")
    return None


def _refused(place: str, status: int, said: str, retry_after: str | None) -> NearestError:
    match status:
        case 401 | 403:
            return AccessDenied(f"{place} refuses: set a right key in {_KEY_VARIABLE}, and see its rights ({said})")
        case 404:
            return NotACollection(f"{place} is not there: the collection, the tenant or the database ({said})")
        case 408 | 504:
            return _late(place)
        case 413:
            return InvalidRecord(f"larger than what {place} takes in one request; split it")
        case 429 | 503:
            told = {"retry_after": float(retry_after)} if retry_after and retry_after.isdigit() else {}
            return Throttled(f"{place} is asked too much; try again later ({said})", **told)
        case _ if status >= 500:
            return _failed(place, said) if "Error executing" in said else ConnectionFailed(f"{place} failed ({said})")
        case _:
            return InvalidInput(f"{place} refuses: {said}")


def _late(place: str) -> TimedOut:
    return TimedOut(f"{place} did not answer in time; try again, or raise the option timeout")


def _failed(place: str, said: str) -> NearestError:
    if "Error finding id" in said or "Error getting embedding" in said:
        return _moved(place)
    if "too many SQL variables" in said or "Expression tree is too large" in said:
        return UnsupportedError(f"{place}: the condition is too large for Chroma; split it into several")
    if "disk is full" in said:
        return DiskFull(f"{place}: the disk is full; free some space and run it again")
    if "readonly database" in said:
        return ReadOnly(f"{place} cannot be written")
    if "database is locked" in said:
        return CollectionLocked(f"{place} is being written by another process; try again")
    return StorageError(f"{place}: {said}")


def _moved(place: str) -> ConnectionFailed:
    return ConnectionFailed(
        f"{place}: records were deleted while they were read, again and again; try again", moved=True
    )


# --- filters ---------------------------------------------------------------------------------------
#
# Beside the payload each path that a condition can name has derived keys:
#   k:path   the kind of its value, `_Kind`; for a list that is not empty LIST
#   s: d: i: f:   the value itself: a string, an instant (microseconds since 1970), an integer (also a float without a
#            fraction, within 64 bits), any other float (as an integer of the same order, since Chroma's WAL rounds
#            floats). For a list an array of those of its elements that are of this kind.
#   e:path   for a list, an array of its elements' kinds
#   dmin: dmax: imin: imax: fmin: fmax:   for a list, the least and the greatest of each kind that has an order
# In Chroma `$in` and orders look at single values alone, `$contains` at arrays alone, and `$nin` and `$not_contains`
# are their complements, missing keys included. Orders have no complement that includes missing keys, which the kinds
# make up for.


class _Kind(IntEnum):
    LIST = 0
    STRING = 1
    LONG = 2  # a string of more than _LONG characters: its kind alone is kept
    INSTANT = 3
    INTEGER = 4
    FLOAT = 5
    TRUE = 6
    FALSE = 7
    OTHER = 8  # an object; in a list also null and a list


_LONG = 256
_MANY = 64  # values of one `$in`; every one costs a subquery for lists
_LETTERS = {_Kind.STRING: "s", _Kind.INSTANT: "d", _Kind.INTEGER: "i", _Kind.FLOAT: "f"}
_ORDERED = frozenset({_Kind.INSTANT, _Kind.INTEGER, _Kind.FLOAT})
_KINDS = [int(kind) for kind in _Kind]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LEAST, _GREATEST = -(2**63), 2**63 - 1
_OPPOSITE = {"$gt": "$lte", "$gte": "$lt", "$lt": "$gte", "$lte": "$gt"}


def _derive(payload: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {_PAYLOAD: json.dumps(payload, ensure_ascii=False, separators=(",", ":"))}
    _derive_into(row, "", payload)
    return row


def _derive_into(row: dict[str, Any], above: str, payload: Mapping[str, Any]) -> None:
    for key, value in payload.items():
        if value is None or value == [] or not key or "." in key:  # no value, or out of a condition's reach
            continue
        path = above + key
        if isinstance(value, list | tuple):
            row[f"k:{path}"] = 0
            elements = [_classify(element) for element in value]
            row[f"e:{path}"] = sorted({int(kind) for kind, _ in elements})
            for kind in {kind for kind, stored in elements if stored is not None}:
                values = sorted({stored for other, stored in elements if other is kind})
                letter = _LETTERS[kind]
                row[f"{letter}:{path}"] = values
                if kind in _ORDERED:
                    row[f"{letter}min:{path}"] = values[0]
                    row[f"{letter}max:{path}"] = values[-1]
            continue
        kind, stored = _classify(value)
        row[f"k:{path}"] = int(kind)
        if stored is not None:
            row[f"{_LETTERS[kind]}:{path}"] = stored
        elif isinstance(value, Mapping):
            _derive_into(row, path + ".", value)


def _classify(value: Any) -> tuple[_Kind, Any]:
    """A value's kind, and how it is stored; None where the kind says it all."""
    if isinstance(value, str):
        if (instant := filters.instant(value)) is not None:
            return _Kind.INSTANT, (instant - _EPOCH) // timedelta(microseconds=1)
        return (_Kind.STRING, value) if len(value) <= _LONG else (_Kind.LONG, None)
    if isinstance(value, bool):
        return (_Kind.TRUE if value else _Kind.FALSE), None
    if isinstance(value, int):
        return _Kind.INTEGER, value
    if isinstance(value, float):
        if value.is_integer() and _LEAST <= value <= _GREATEST:
            return _Kind.INTEGER, int(value)
        return _Kind.FLOAT, _sortable(value)
    return _Kind.OTHER, None


def _sortable(value: float) -> int:
    """An integer of 64 bits; integers of two floats are in the floats' order."""
    (bits,) = struct.unpack("<q", struct.pack("<d", value + 0.0))
    return int(bits) if bits >= 0 else int(bits) ^ _GREATEST


def _support(comparison: Comparison) -> filters.Support:
    value = comparison.value
    match comparison.op:
        case "$contains":
            return "superset" if isinstance(value, str) else "exact"
        case "$eq":
            return "superset" if _classify(value)[0] is _Kind.LONG else "exact"
        case "$in":
            values = cast("tuple[Scalar, ...]", value)
            whole = len(values) <= _MANY and all(_classify(v)[0] is not _Kind.LONG for v in values)
            return "exact" if whole else "superset"
        case _:
            return "exact"


Native = dict[str, Any] | bool  # a `where` of Chroma; True and False: all and none, for which Chroma has no words


def _translate(node: Filter, positive: bool = True) -> Native:
    """A condition, or its complement."""
    match node:
        case Not(part):
            return _translate(part, not positive)
        case Loose(part):
            return _loose(part)
        case Comparison(path, op, value):
            return _compare(".".join(path), op, value, positive)
    # A complement of `And` is an `Or` of complements. Equalities of one field go together into one `$in`.
    conjunction = isinstance(node, And) == positive
    parts: list[Native] = []
    equal: dict[str, list[Scalar]] = {}
    for child, sign in _flatten(node, positive):
        if isinstance(child, Comparison) and child.op in ("$eq", "$in") and sign != conjunction:
            values = child.value if isinstance(child.value, tuple) else (child.value,)
            equal.setdefault(".".join(child.path), []).extend(values)
        else:
            parts.append(_translate(child, sign))
    parts += [_equal(path, values, not conjunction) for path, values in equal.items()]
    return _join("$and" if conjunction else "$or", parts)


def _flatten(node: And | Or, positive: bool) -> Iterator[tuple[Filter, bool]]:
    for part in node.parts:
        sign = positive
        while isinstance(part, Not):
            part, sign = part.part, not sign
        if isinstance(part, And | Or) and (isinstance(part, And) == sign) == (isinstance(node, And) == positive):
            yield from _flatten(part, sign)
        else:
            yield part, sign


def _compare(path: str, op: Op, value: Any, positive: bool) -> Native:
    if op == "$exists":
        return {f"k:{path}": {"$in" if positive else "$nin": _KINDS}}
    if op == "$eq":
        return _equal(path, [value], positive)
    if op == "$in":
        return _equal(path, value, positive)
    if op == "$contains":
        return _join("$or" if positive else "$and", _elements(path, _by_key(path, [value]), positive))
    parts: list[Native] = []
    for kind, order, bound in _bounds(op, value):
        letter = _LETTERS[kind]
        one, extreme = f"{letter}:{path}", f"{letter}{'max' if op in ('$gt', '$gte') else 'min'}:{path}"
        if positive:
            parts += [{one: {order: bound}}, {extreme: {order: bound}}]
        else:
            within = {_OPPOSITE[order]: bound}
            parts.append(_join("$or", [{f"k:{path}": {"$nin": [int(kind)]}}, {one: within}]))
            parts.append(_join("$or", [{f"e:{path}": {"$not_contains": int(kind)}}, {extreme: within}]))
    return _join("$or" if positive else "$and", parts)


def _loose(comparison: Comparison) -> Native:
    """At least what matches."""
    path = ".".join(comparison.path)
    match comparison:
        case Comparison(_, "$contains", str(text)):
            strings = [int(kind) for kind in (_Kind.STRING, _Kind.LONG, _Kind.INSTANT)]
            elements = _elements(path, _by_key(path, [text]), True)
            return _join("$or", [{f"k:{path}": {"$in": strings}}, *elements])
        case Comparison(_, "$in", tuple(values)) if len(values) > _VARIABLES:
            return _compare(path, "$exists", True, True)
        case Comparison(_, "$in", tuple(values)) if len(values) > _MANY:
            single: list[Native] = [{key: {"$in": stored}} for key, stored in _by_key(path, values).items()]
            return _join("$or", [{f"k:{path}": {"$in": [int(_Kind.LIST)]}}, *single])
    return _compare(path, comparison.op, comparison.value, True)


def _equal(path: str, values: Sequence[Scalar], positive: bool) -> Native:
    by_key = _by_key(path, values)
    single: list[Native] = [{key: {"$in" if positive else "$nin": stored}} for key, stored in by_key.items()]
    return _join("$or" if positive else "$and", single + _elements(path, by_key, positive))


def _elements(path: str, by_key: Mapping[str, list[Any]], positive: bool) -> list[Native]:
    word = "$contains" if positive else "$not_contains"
    kinds = f"k:{path}"
    return [{f"e:{path}" if key == kinds else key: {word: value}} for key, stored in by_key.items() for value in stored]


def _by_key(path: str, values: Sequence[Scalar]) -> dict[str, list[Any]]:
    """What to look for under which key; kinds for values of which they say it all."""
    by_key: dict[str, dict[Any, None]] = {}
    for value in values:
        kind, stored = _classify(value)
        if stored is None:
            by_key.setdefault(f"k:{path}", {})[int(kind)] = None
        else:
            by_key.setdefault(f"{_LETTERS[kind]}:{path}", {})[stored] = None
    return {key: list(stored) for key, stored in by_key.items()}


def _bounds(op: Op, value: Any) -> Iterator[tuple[_Kind, str, int]]:
    """For each kind that a bound orders: the operator and the bound in that kind's integers."""
    if isinstance(value, str):
        yield _Kind.INSTANT, op, _classify(value)[1]
        return
    # Integers: at least or at most a whole number; one beyond 64 bits is above or below all of them.
    if op in ("$gt", "$gte"):
        whole = math.floor(value) + 1 if op == "$gt" else math.ceil(value)
        yield (_Kind.INTEGER, "$gte", max(whole, _LEAST)) if whole <= _GREATEST else (_Kind.INTEGER, "$gt", _GREATEST)
    else:
        whole = math.ceil(value) - 1 if op == "$lt" else math.floor(value)
        yield (_Kind.INTEGER, "$lte", min(whole, _GREATEST)) if whole >= _LEAST else (_Kind.INTEGER, "$lt", _LEAST)
    # Floats: an integer between two floats is replaced by the one that it rounds to.
    near = float(value)
    order: str = op
    if near > value:
        order = "$gte" if op in ("$gt", "$gte") else "$lt"
    elif near < value:
        order = "$gt" if op in ("$gt", "$gte") else "$lte"
    yield _Kind.FLOAT, order, _sortable(near)


def _join(word: Literal["$and", "$or"], parts: Sequence[Native]) -> Native:
    """Balanced, since SQLite allows an expression 1,000 levels and Chroma makes one of every part."""
    whole = word == "$or"  # what settles it
    if any(part is whole for part in parts):
        return whole
    left = [part for part in parts if not isinstance(part, bool)]
    if not left:
        return not whole

    def halves(some: list[dict[str, Any]]) -> dict[str, Any]:
        if len(some) == 1:
            return some[0]
        middle = len(some) // 2
        return {word: [halves(some[:middle]), halves(some[middle:])]}

    return halves(left)
