"""A cache of answers: what was found for a query, by the very same query or by one that means nearly the same.

An entry is named after all that decides its answer: the version of the collection (`Visibility.version`), the tenant,
the settings of the search, its text and its vector. Each change gives the collection another version, so that what was
found before has no name any more and ages out; nothing is ever looked for and deleted. While a change is under way
there is no version: nothing is answered from here then, and nothing kept. Neither is a search kept during which the
version moved, nor one whose reranker ran out of time, or was out of reach.

Semantic: a query whose vector has at least a set cosine with that of an earlier one gets the hits of that one, if all
but text and vector is equal. The nearest earlier query counts; Redis compares with the newest 1,000 of one kind.

Answers are kept as JSON, so that callers may change theirs. A Redis that fails costs the caching and nothing else: it
is logged once, counted, and asked again after ten seconds.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar
from urllib.parse import parse_qsl, urlencode

import numpy as np
from numpy.typing import ArrayLike

from nearest import filters
from nearest.contract import Embedder, Float32, Hit, Reranker
from nearest.errors import InvalidInput, MissingDependency
from nearest.filters import Filter
from nearest.ledger import Visibility
from nearest.search.feedback import Examples
from nearest.search.hits import Hits
from nearest.search.refine import Refinement
from nearest.search.search import Expand, Mode, Searcher

_log = logging.getLogger("nearest")
_SIZE = 1000  # answers in memory; one of ten hits takes some 15 KB
_TTL = 3600  # seconds in Redis, where nothing else may end an entry
_MOST_BYTES = 1 << 20  # of one answer
_NEAR = 1000  # vectors compared with, in Redis, and read by a process that did not write them
_GROUPS = 32  # kinds of search whose vectors such a process remembers
_AT_ONCE = 500  # keys in one question
_PAUSE = 10.0  # seconds
T = TypeVar("T")


@dataclass(slots=True)
class Stats:
    """Searches by what answered them: the same query's entry, a near one's, or the store (misses).

    Those that cannot be cached (with `expand`, or a reranker that is no `provider:model`) do not count. errors: calls
    that the cache's server failed.
    """

    exact: int = 0
    semantic: int = 0
    misses: int = 0
    errors: int = 0

    @property
    def hit_rate(self) -> float:
        """0 to 1; 0 before the first search."""
        hits = self.exact + self.semantic
        return hits / (hits + self.misses) if hits + self.misses else 0.0

    def to_json(self) -> dict[str, float]:
        return {**asdict(self), "hit_rate": round(self.hit_rate, 4)}


class Entry(NamedTuple):
    """value: an answer. group: of the searches that are equal but for text and vector; vector: of unit length, (d,),
    None where it is not to be found by it."""

    key: bytes
    value: bytes
    group: bytes
    vector: Float32 | None


class Backend(Protocol):
    def get(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        """The values, in the order of the keys."""

    def put(self, entries: Sequence[Entry]) -> None: ...

    def nearest(self, group: bytes, vector: Float32, least: float) -> tuple[bytes, float] | None:
        """The value of the group's entry of the largest cosine, at least `least`, and that cosine."""

    def close(self) -> None: ...


def connect(where: str) -> ResultCache:
    """`memory`, or `redis://host:6379/0` (`rediss://`, `unix://`); options follow a `?`, joined by `&`.

    semantic: the least cosine, above 0 and at most 1; without it only the same query is found. ttl: seconds that an
    answer lives at most (Redis: an hour; memory: no limit). size: answers kept in memory (1,000). Others are the Redis
    client's. Raises InvalidInput, and MissingDependency where Redis' client is missing.
    """
    place, _, query = where.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    semantic = options.pop("semantic", None)
    try:
        least = None if semantic is None else float(semantic)
    except ValueError:
        least = -1.0
    if least is not None and not 0 < least <= 1:
        raise InvalidInput(f"the cache's semantic must be a cosine above 0 and at most 1, got {semantic!r}")
    ttl = _positive("ttl", options.pop("ttl", None))
    if place == "memory":
        size = _positive("size", options.pop("size", None))
        if options:
            raise InvalidInput(f"a cache in memory has no option {', '.join(sorted(options))}; semantic, size, ttl")
        return ResultCache(MemoryBackend(size or _SIZE, ttl), least)
    if not place.startswith(("redis://", "rediss://", "unix://")):
        raise InvalidInput("a cache is memory or redis://host:6379/0, with options: memory?semantic=0.97&ttl=600")
    return ResultCache(RedisBackend(place + (f"?{urlencode(options)}" if options else ""), ttl or _TTL), least)


def _positive(name: str, value: str | None) -> int | None:
    if value is None:
        return None
    if not value.isdecimal() or not int(value):
        raise InvalidInput(f"the cache's {name} must be a whole number, at least 1, got {value!r}")
    return int(value)


class ResultCache:
    """Safe for use by several threads."""

    def __init__(self, backend: Backend, semantic: float | None = None) -> None:
        self.semantic = semantic
        self._backend = backend
        self._mutex = threading.Lock()
        self._stats: dict[str, Stats] = {}
        self._told = False
        self._again = 0.0

    def stats(self, tenant: str | None = None) -> Stats:
        """Since the collection was opened, in this process: of one tenant (`""` for searches without), or of all."""
        with self._mutex:
            some = [self._stats.get(tenant, Stats())] if tenant is not None else list(self._stats.values())
            return Stats(*(sum(getattr(each, name) for each in some) for name in Stats.__slots__))

    def close(self) -> None:
        self._backend.close()

    def count(self, tenant: str, **more: int) -> None:
        with self._mutex:
            stats = self._stats.setdefault(tenant, Stats())
            for name, by in more.items():
                setattr(stats, name, getattr(stats, name) + by)

    def ask(self, tenant: str, call: Callable[[Backend], T], otherwise: T) -> T:
        """What the backend answers, or otherwise."""
        if self._again and time.monotonic() < self._again:
            return otherwise
        try:
            return call(self._backend)
        except Exception as error:
            if not isinstance(error, OSError) and type(error).__module__.partition(".")[0] != "redis":
                raise
            self._again = time.monotonic() + _PAUSE
            self.count(tenant, errors=1)
            if not self._told:
                self._told = True
                _log.warning("the cache of answers cannot be used (%s); going on without it", type(error).__name__)
            return otherwise


class Look:
    """One call's way through the cache: `exact`, `semantic` for those that were not found, `keep` for the rest.

    The queries are of one kind. version: None to look for nothing and keep nothing. settings: all else that decides the
    answers, told by their `repr`. near: they may be answered by near ones, where the cache does that.
    """

    def __init__(
        self,
        cache: ResultCache,
        version: int | None,
        tenant: str,
        settings: Sequence[object],
        texts: Sequence[str | None],
        vectors: Sequence[ArrayLike] | None,
        *,
        near: bool,
    ) -> None:
        self._version = version
        self._cache = cache
        self._tenant = tenant
        self.near = near and version is not None and cache.semantic is not None
        self._units: dict[int, Float32] = {}
        start = _digest(b"", repr((version, tenant, *settings)))
        # A vector that was given says nothing of its text.
        self._groups = [start if vectors is None or text is None else _digest(start, text) for text in texts]
        self._keys: list[bytes | None] = (
            [_digest(start, repr(text)) for text in texts]
            if vectors is None
            else [_key(start, text, vector) for text, vector in zip(texts, vectors, strict=True)]
        )

    def exact(self) -> dict[int, Hits]:
        """By the place of the query."""
        keys = {i: key for i, key in enumerate(self._keys) if key is not None}
        if self._version is None or not keys:
            return {}
        nothing: Sequence[bytes | None] = [None] * len(keys)
        values = self._cache.ask(self._tenant, lambda backend: backend.get(list(keys.values())), nothing)
        found = {i: _read(value, 1.0) for i, value in zip(keys, values, strict=True) if value is not None}
        read = {i: hits for i, hits in found.items() if hits is not None}
        self._cache.count(self._tenant, exact=len(read))
        return read

    def semantic(self, rows: Mapping[int, ArrayLike | None]) -> dict[int, Hits]:
        """By the place of the query. rows: the vectors of those that were not found."""
        least = self._cache.semantic
        if not self.near or least is None:
            return {}
        read: dict[int, Hits] = {}
        for i, row in rows.items():
            unit = None if row is None else _unit(row)
            if unit is None:
                continue
            self._units[i] = unit
            found = self._cache.ask(self._tenant, partial(_nearest, self._groups[i], unit, least), None)
            hits = None if found is None else _read(*found)
            if hits is not None:
                read[i] = hits
        self._cache.count(self._tenant, semantic=len(read))
        return read

    def keep(self, found: Mapping[int, Hits], version: int | None, misses: int) -> None:
        """What the store answered, by the place of the query. version: now, after the search."""
        self._cache.count(self._tenant, misses=misses)
        if self._version is None or version != self._version:
            return
        entries = []
        for i, hits in found.items():
            key, value = self._keys[i], _write(hits)
            if key is not None and value is not None:
                entries.append(Entry(key, value, self._groups[i], self._units.get(i)))
        if entries:
            self._cache.ask(self._tenant, lambda backend: backend.put(entries), None)


def _nearest(group: bytes, vector: Float32, least: float, backend: Backend) -> tuple[bytes, float] | None:
    return backend.nearest(group, vector, least)


def _digest(start: bytes, text: str) -> bytes:
    return hashlib.sha256(start + text.encode("utf-8", "surrogatepass")).digest()


def _key(start: bytes, text: str | None, vector: ArrayLike) -> bytes | None:
    """None for what is no vector, which the search will say."""
    try:
        row = np.asarray(vector, np.float32)
    except (TypeError, ValueError):
        return None
    return hashlib.sha256(start + repr((text, row.shape)).encode("utf-8", "surrogatepass") + row.tobytes()).digest()


def _unit(row: ArrayLike) -> Float32 | None:
    try:
        vector = np.asarray(row, np.float32)
    except (TypeError, ValueError):
        return None
    length = float(np.linalg.norm(vector))
    return vector / length if vector.ndim == 1 and 0 < length < np.inf else None


def _write(hits: Hits) -> bytes | None:
    """None for an answer that is too large, or holds what JSON cannot: those are not kept."""
    explain = None if hits.explain is None else {k: v for k, v in hits.explain.items() if k != "seconds"}
    try:
        rows = [[hit.id, hit.payload, hit.score, hit.explain] for hit in hits]
        value = json.dumps([hits.after, explain, rows], ensure_ascii=False, separators=(",", ":")).encode()
    except (TypeError, ValueError):
        return None
    return value if len(value) <= _MOST_BYTES else None


def _read(value: bytes, cosine: float) -> Hits | None:
    try:
        after, explain, rows = json.loads(value)
        hits = Hits((Hit(id_, {}, payload, score, told) for id_, payload, score, told in rows), explain, after, cosine)
    except (TypeError, ValueError):
        return None
    return hits


class _Vectors:
    """Vectors of unit length by their keys, compared with all at once."""

    def __init__(self, dim: int) -> None:
        self._rows: Float32 = np.empty((16, dim), np.float32)
        self._keys: list[bytes] = []
        self._at: dict[bytes, int] = {}  # the oldest key first

    def __len__(self) -> int:
        return len(self._keys)

    def put(self, key: bytes, vector: Float32) -> None:
        if len(vector) != self._rows.shape[1]:
            return
        at = self._at.setdefault(key, len(self._keys))
        if at == len(self._keys):
            self._keys.append(key)
            if at == len(self._rows):
                self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
        self._rows[at] = vector

    def drop(self, key: bytes | None = None) -> None:
        """A key, or the oldest; the last takes its row."""
        key = next(iter(self._at)) if key is None else key
        at = self._at.pop(key, None)
        if at is None:
            return
        last = self._keys.pop()
        if last != key:
            self._keys[at], self._at[last], self._rows[at] = last, at, self._rows[len(self._keys)]

    def nearest(self, vector: Float32, least: float) -> tuple[bytes, float] | None:
        if not self._keys or len(vector) != self._rows.shape[1]:
            return None
        cosines = self._rows[: len(self._keys)] @ vector
        best = int(np.argmax(cosines))
        cosine = min(float(cosines[best]), 1.0)
        return (self._keys[best], cosine) if cosine >= least else None


class MemoryBackend:
    """The answers asked for last. ttl: seconds that one lives at most."""

    def __init__(
        self, size: int = _SIZE, ttl: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._size = size
        self._ttl = ttl
        self._clock = clock
        self._mutex = threading.Lock()
        self._entries: OrderedDict[bytes, tuple[Entry, float]] = OrderedDict()  # with the time of its end
        self._vectors: dict[bytes, _Vectors] = {}

    def get(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        with self._mutex:
            return [self._get(key) for key in keys]

    def _get(self, key: bytes) -> bytes | None:
        entry, end = self._entries.get(key, (None, 0.0))
        if entry is None:
            return None
        if self._clock() >= end:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry.value

    def put(self, entries: Sequence[Entry]) -> None:
        with self._mutex:
            end = float("inf") if self._ttl is None else self._clock() + self._ttl
            for entry in entries:
                self._drop(entry.key)
                self._entries[entry.key] = entry, end
                if entry.vector is not None:
                    known = self._vectors.setdefault(entry.group, _Vectors(len(entry.vector)))
                    known.put(entry.key, entry.vector)
                if len(self._entries) > self._size:
                    self._drop(next(iter(self._entries)))

    def nearest(self, group: bytes, vector: Float32, least: float) -> tuple[bytes, float] | None:
        with self._mutex:
            while (known := self._vectors.get(group)) and (found := known.nearest(vector, least)):
                value = self._get(found[0])
                if value is not None:
                    return value, found[1]
            return None

    def _drop(self, key: bytes) -> None:
        entry, _ = self._entries.pop(key, (None, 0.0))
        if entry is not None and (known := self._vectors.get(entry.group)) is not None:
            known.drop(key)
            if not len(known):
                del self._vectors[entry.group]

    def close(self) -> None:
        with self._mutex:
            self._entries.clear()
            self._vectors.clear()


class RedisBackend:
    """Shared by all processes that name the same server.

    An answer is a string; the vectors of a group are a stream, of which each process reads what is new to it.
    """

    def __init__(self, url: str, ttl: int) -> None:
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError as error:
            raise MissingDependency("a cache in Redis needs its client; run: pip install 'nearest[redis]'") from error
        from importlib.metadata import version

        # Another nearest may rank, or write its answers, in another way.
        self._prefix = f"nearest:answer:{version('nearest')}:".encode()
        self._ttl = ttl
        self._mutex = threading.Lock()
        self._known: OrderedDict[bytes, tuple[_Vectors, bytes]] = OrderedDict()  # with the last id read
        try:
            self._redis: Any = redis.Redis.from_url(
                url, socket_timeout=1, socket_connect_timeout=1, retry=Retry(NoBackoff(), 1)
            )
            self._redis.connection_pool.make_connection()  # connects to nothing; refuses unknown options
        except (TypeError, ValueError) as error:
            raise InvalidInput(f"the cache's URL cannot be used: {error}") from None

    def get(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        values: list[bytes | None] = []
        for start in range(0, len(keys), _AT_ONCE):
            values += self._redis.mget([self._prefix + key for key in keys[start : start + _AT_ONCE]])
        return values

    def put(self, entries: Sequence[Entry]) -> None:
        for start in range(0, len(entries), _AT_ONCE):
            with self._redis.pipeline(transaction=False) as pipeline:
                for key, value, group, vector in entries[start : start + _AT_ONCE]:
                    pipeline.set(self._prefix + key, value, ex=self._ttl)
                    if vector is not None:
                        stream = self._prefix + b"near:" + group
                        pipeline.xadd(
                            stream, {b"key": key, b"vector": vector.tobytes()}, maxlen=_NEAR, approximate=False
                        )
                        pipeline.expire(stream, self._ttl)
                pipeline.execute()

    def nearest(self, group: bytes, vector: Float32, least: float) -> tuple[bytes, float] | None:
        with self._mutex:
            known, last = self._known.pop(group, (_Vectors(len(vector)), b"-"))
            new = self._redis.xrange(self._prefix + b"near:" + group, min=b"(" + last if last != b"-" else last)
            for id_, fields in new:
                last = id_
                known.put(fields[b"key"], np.frombuffer(fields[b"vector"], np.float32))
            while len(known) > _NEAR:
                known.drop()
            self._known[group] = known, last
            if len(self._known) > _GROUPS:
                self._known.popitem(last=False)
            while found := known.nearest(vector, least):
                value = self._redis.get(self._prefix + found[0])
                if value is not None:
                    return value, found[1]
                known.drop(found[0])  # its time is over
            return None

    def close(self) -> None:
        self._redis.close()


class CachedSearcher:
    """A searcher that looks into the cache first.

    spec: the `provider:model` of a reranker, None for one that was given as an object: what that does cannot be told
    from its name, no more than what a function does that expands queries. Such searches pass by the cache.
    """

    def __init__(
        self,
        inner: Searcher,
        cache: ResultCache,
        visibility: Visibility,
        embedder: Callable[[], Embedder],
        spec: Callable[[Reranker], str | None],
    ) -> None:
        self._inner = inner
        self._cache = cache
        self._visibility = visibility
        self._embedder = embedder
        self._spec = spec

    def search_many(
        self,
        tenant: str,
        texts: Sequence[str | None],
        *,
        where: Mapping[str, Any] | Filter | None,
        mode: Mode,
        vectors: Sequence[ArrayLike] | None,
        explain: bool,
        refinement: Refinement,
        examples: Examples | None = None,
        expand: Expand | None = None,
        **how: Any,
    ) -> list[Hits]:
        """As `Searcher.search_many`, for a tenant: no other's entries are used."""
        started = time.perf_counter()
        condition = filters.parse(where)

        def search(some: Sequence[str | None], rows: Sequence[ArrayLike] | None) -> list[Hits]:
            return self._inner.search_many(
                some, where=where, mode=mode, vectors=rows, explain=explain, refinement=refinement,
                examples=examples, expand=expand, **how,
            )  # fmt: skip

        reranker = refinement.rerank
        spec = None if reranker is None else self._spec(reranker)
        if (
            expand is not None
            or (reranker is not None and spec is None)
            or not all(text is None or (isinstance(text, str) and text.strip()) for text in texts)
        ):
            return search(texts, vectors)
        self._visibility.refresh()
        moved = examples and (examples.like.tobytes(), examples.unlike.tobytes(), sorted(examples.records))
        settings = (condition, mode, explain, replace(refinement, rerank=None), spec, moved, sorted(how.items()))
        near = mode != "lexical" and examples is None and refinement.after is None
        look = Look(self._cache, self._visibility.version, tenant, settings, texts, vectors, near=near)
        answered = look.exact()
        seconds = {"cache": time.perf_counter() - started}
        rest = [i for i in range(len(texts)) if i not in answered]
        rows = None if vectors is None else [vectors[i] for i in rest]
        if rest and look.near:
            if rows is None and all(texts[i] is not None for i in rest):
                rows = self._embedded([texts[i] or "" for i in rest])
                seconds["embed"] = time.perf_counter() - started - seconds["cache"]
            answered |= look.semantic(dict(zip(rest, rows or (), strict=False)))
            seconds["cache"] = time.perf_counter() - started - seconds.get("embed", 0.0)
        for hits in answered.values():
            if hits.explain is not None:
                hits.explain |= {"cached": hits.cached, "seconds": dict(seconds)}
        left = [at for at, i in enumerate(rest) if i not in answered]
        if left:
            found = search([texts[rest[at]] for at in left], None if rows is None else [rows[at] for at in left])
            for at, hits in zip(left, found, strict=True):
                answered[rest[at]] = hits
                if hits.explain is not None:
                    hits.explain["seconds"] |= seconds
            self._visibility.refresh()
            whole = {rest[at]: hits for at, hits in zip(left, found, strict=True) if hits.skipped is None}
            look.keep(whole, self._visibility.version, misses=len(left))
        return [answered[i] for i in range(len(texts))]

    def _embedded(self, texts: Sequence[str]) -> list[ArrayLike]:
        model = self._embedder()
        if len(texts) == 1:
            return [model.embed_query(texts[0], truncate=True)]
        return list(model.embed_queries(texts, truncate=True))
