"""A cache of vectors: what was embedded once, by the same model with the same settings, is not embedded again.

Content-addressed: a vector's key is the SHA-256 of the model's fingerprint, the kind (document or query) and the
text, so that collections can share one cache and none can see another model's vectors. It is kept in
the user's cache folder, beside no collection: a collection that is deleted and made anew, or made with another
chunker or database, still finds its vectors. Vectors are kept as float32 bytes.

A cache that fails (a full disk, a server that is away) costs the caching and nothing else; it is logged once.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qs, urlsplit

import numpy as np

from nearest.contract import Embedder, Float32, Usage
from nearest.embedders._remote import check_texts
from nearest.encoder import files
from nearest.errors import InvalidInput, TextsFailed
from nearest.remote import client

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_log = logging.getLogger("nearest")
_AT_ONCE = 500  # keys in one question
MOST_BYTES = 4 << 30  # of the file; the oldest vectors make room. A million vectors of 1,024 numbers


class Cache(Protocol):
    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The values of those keys that are there."""

    def put(self, values: Mapping[bytes, bytes]) -> None: ...


def connect(where: bool | str | Path) -> Cache:
    """True: the user's cache folder. A `redis://` URL, its `ttl` the seconds that a vector lives. A file.

    Raises InvalidInput for a URL of another kind, MissingDependency for Redis without its client.
    """
    if isinstance(where, str) and "://" in where:
        if not where.startswith(("redis://", "rediss://", "unix://")):
            raise InvalidInput("a cache is a file, or redis://host:6379/0?ttl=SECONDS")
        return RedisCache(where)
    if where is True or where in ("on", "true"):
        folder = files.cache_folder()
        if folder is None:
            raise InvalidInput("there is no home folder to keep a cache in; name a file: cache=PATH")
        return SQLiteCache(folder / "embeddings.db")
    return SQLiteCache(Path(str(where)).expanduser())


class SQLiteCache:
    """One file, which several processes may use at once."""

    def __init__(self, path: Path, most_bytes: int = MOST_BYTES) -> None:
        self._path = path
        self._most = most_bytes
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._written = 0

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self._path, timeout=10, check_same_thread=False, isolation_level=None)
            connection.execute("pragma journal_mode = wal")
            connection.execute("pragma synchronous = off")  # a lost vector is embedded again
            # The rowid is the order of age.
            connection.execute(
                "create table if not exists vectors (age integer primary key, key blob unique not null, value blob)"
            )
            self._connection = connection
        return self._connection

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        with self._lock:
            connection = self._opened()
            for start in range(0, len(keys), _AT_ONCE):
                some = keys[start : start + _AT_ONCE]
                marks = ",".join("?" * len(some))
                found.update(connection.execute(f"select key, value from vectors where key in ({marks})", some))
        return found

    def put(self, values: Mapping[bytes, bytes]) -> None:
        with self._lock:
            connection = self._opened()
            connection.execute("begin immediate")
            try:
                connection.executemany("insert or replace into vectors (key, value) values (?, ?)", values.items())
                connection.execute("commit")
            except BaseException:
                connection.execute("rollback")
                raise
            self._written += sum(map(len, values.values()))
            if self._written > self._most // 50:
                self._written = 0
                self._make_room(connection)

    def _make_room(self, connection: sqlite3.Connection) -> None:
        (pages,), (free,), (size,) = (
            connection.execute(f"pragma {name}").fetchone() for name in ("page_count", "freelist_count", "page_size")
        )
        if (pages - free) * size > self._most:
            count, oldest = connection.execute("select count(*), min(age) from vectors").fetchone()
            connection.execute("delete from vectors where age < ?", (oldest + max(count // 10, 1),))

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None


class RedisCache:
    """redis://host:6379/0?ttl=86400: each vector lives so many seconds from when it was put; without, for good."""

    def __init__(self, url: str) -> None:
        redis = client("redis", "redis")
        parts = urlsplit(url)
        options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        ttl = options.pop("ttl", None)
        if ttl is not None and (not ttl.isdigit() or not int(ttl)):
            raise InvalidInput(f"the cache's ttl must be seconds, at least 1, got {ttl!r}")
        self._ttl = int(ttl) if ttl else None
        query = "&".join(f"{name}={value}" for name, value in options.items())
        self._redis: Any = redis.Redis.from_url(
            url.partition("?")[0] + (f"?{query}" if query else ""), socket_timeout=5, socket_connect_timeout=2
        )

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        for start in range(0, len(keys), _AT_ONCE):
            some = keys[start : start + _AT_ONCE]
            values = self._redis.mget([b"nearest:vector:" + key for key in some])
            found.update((key, value) for key, value in zip(some, values, strict=True) if value is not None)
        return found

    def put(self, values: Mapping[bytes, bytes]) -> None:
        with self._redis.pipeline(transaction=False) as pipeline:
            for key, value in values.items():
                pipeline.set(b"nearest:vector:" + key, value, ex=self._ttl)
            pipeline.execute()


class Cached(Embedder):
    """An embedder that looks into a cache first. Its `usage.cached` counts what it found there."""

    def __init__(self, inner: Embedder, cache: Cache) -> None:
        self.name = inner.name
        self.fingerprint = inner.fingerprint
        self.max_tokens = inner.max_tokens
        self.price = inner.price
        self.estimated = inner.estimated
        self.note = inner.note
        self.remote = inner.remote
        self.inner = inner
        self._cache = cache
        self._lock = threading.Lock()
        self._asked = self._found = 0
        self._told = False

    @property
    def dimension(self) -> int:  # type: ignore[override] # an attribute of the inner one
        return self.inner.dimension

    @property
    def tokenizer(self) -> Tokenizer:  # type: ignore[override] # as above
        return self.inner.tokenizer

    @property
    def truncated(self) -> int:  # type: ignore[override] # as above; texts from the cache are not counted again
        return self.inner.truncated

    @property
    def usage(self) -> Usage:  # type: ignore[override] # the inner one's; not all of them count their texts
        return replace(self.inner.usage, texts=self._asked, cached=self._found)

    @property
    def unprobed(self) -> bool:  # type: ignore[override] # as above
        return self.inner.unprobed

    def expect(self, dimension: int) -> None:
        self.inner.expect(dimension)

    def embed_documents(self, texts: Sequence[str], *, truncate: bool = False) -> Float32:
        return self._through(texts, "document", truncate, self.inner.embed_documents)

    def embed_queries(self, texts: Sequence[str], *, truncate: bool = False) -> Float32:
        return self._through(texts, "query", truncate, self.inner.embed_queries)

    def embed_query(self, text: str, *, truncate: bool = False) -> Float32:
        def one(texts: Sequence[str], *, truncate: bool) -> Float32:
            rows: Float32 = self.inner.embed_query(texts[0], truncate=truncate)[None]
            return rows

        row: Float32 = self._through([text], "query", truncate, one)[0]
        return row

    def estimate(self, texts: Sequence[str], *, truncate: bool = False) -> Usage:
        check_texts(texts)
        keys = self._keys(texts, "document", truncate)
        found = self._looked_up(keys, probing=False)
        missing = [text for text, key in zip(texts, keys, strict=True) if key not in found]
        cached = len(texts) - len(missing)
        return self.inner.estimate(missing, truncate=truncate) + Usage(texts=cached, cached=cached)

    def _keys(self, texts: Sequence[str], kind: str, truncate: bool) -> list[bytes]:
        # Cut texts would else be found by those who asked for whole ones.
        start = hashlib.sha256("\0".join((self.fingerprint, kind, "cut" if truncate else "whole", "")).encode())
        keys = []
        for text in texts:
            key = start.copy()
            key.update(text.encode())
            keys.append(key.digest())
        return keys

    def _through(self, texts: Sequence[str], kind: str, truncate: bool, embed: Callable[..., Float32]) -> Float32:
        check_texts(texts)
        keys = self._keys(texts, kind, truncate)
        found = self._looked_up(keys)
        missing = [row for row, key in enumerate(keys) if key not in found]
        with self._lock:
            self._asked += len(texts)
            self._found += len(texts) - len(missing)
        if len(missing) == len(texts) and len(texts):
            vectors, failed = self._embedded(texts, truncate, embed)
        else:
            vectors = np.empty((len(texts), self.dimension), np.float32)
            failed = {}
            if missing:
                vectors[missing], some = self._embedded([texts[row] for row in missing], truncate, embed)
                failed = {missing[row]: error for row, error in some.items()}
            gone = set(missing)
            hits = [row for row in range(len(texts)) if row not in gone]
            if hits:
                joined = np.frombuffer(b"".join(found[keys[row]] for row in hits), np.float32)
                vectors[hits] = joined.reshape(len(hits), self.dimension)
        if new := {keys[row]: vectors[row].tobytes() for row in missing if row not in failed}:
            self._tried(lambda: self._cache.put(new), None)
        if failed:
            raise TextsFailed(failed, vectors)
        return vectors

    def _embedded(self, texts: Sequence[str], truncate: bool, embed: Callable[..., Float32]) -> tuple[Float32, Any]:
        try:
            return embed(texts, truncate=truncate), {}
        except TextsFailed as error:
            return error.vectors, error.failed

    def _looked_up(self, keys: Sequence[bytes], *, probing: bool = True) -> dict[bytes, bytes]:
        """probing: the model may be asked for its dimension."""
        found: dict[bytes, bytes] = self._tried(lambda: self._cache.get(list(dict.fromkeys(keys))), {})
        if not found or (not probing and self.unprobed):
            return found
        size = 4 * self.dimension
        return {key: value for key, value in found.items() if len(value) == size}

    def _tried(self, call: Callable[[], Any], otherwise: Any) -> Any:
        try:
            return call()
        except (OSError, sqlite3.Error) as error:
            problem: Exception = error
        except Exception as error:
            if type(error).__module__.partition(".")[0] != "redis":
                raise
            problem = error
        if not self._told:
            self._told = True
            _log.warning("the cache of vectors cannot be used (%s); going on without it", type(problem).__name__)
        with contextlib.suppress(AttributeError):
            self._cache.close()  # type: ignore[attr-defined] # so that a file that was put back is opened anew
        return otherwise
