"""PostgreSQL with pgvector: a collection is a table, and every answer is one SQL statement.

`postgresql://user:password@host:5432/database?table=docs` needs PostgreSQL 14 and pgvector 0.8, or later. Options:

    table    the collection's name, 1 to 48 bytes (default: nearest)
    type     vector (float32, the default) or halfvec (float16: half the room, vectors come back rounded to 11 bits)
    index    hnsw (the default), ivfflat or none; `optimize` builds it once there are 1,000 records, until
             then a search is exact. HNSW takes 2,000 dimensions of vector, 4,000 of halfvec, 16,000 if binary
    lists    IVFFlat: how many lists, 1 to 32768 (default: as `optimize` finds records, rows/1000 or their root)
    probes   IVFFlat: lists looked into at first (default: the square root of the index's lists, rounded up)
    timeout  seconds that a statement may take, 0 for no limit (the default); building an index has none
    pool     connections at most, 1 to 100 (default: 4)

and those of libpq: host, sslmode, connect_timeout (default: 10) and so on. type, index, lists and probes are
kept with the collection. Behind PgBouncer use session pooling: settings and a temporary table live in the session.

A row holds the payload as jsonb, and beside it what jsonb or an index on it cannot tell:
    raw        the payload's own text, where jsonb would give it back altered (1e300, -0.0, the null character)
    instants   {"path": [microseconds since 1970]} of the strings in it that are dates
    f0, f1...  the value of each declared field, if it has a single one, as its own type under a B-tree
    odd        true where a declared field has more than that, so that its column tells nothing
    v0, v1...  dense vectors; s0_keys, s0_0...: sparse ones, in pieces since sparsevec counts to 10^9 and we to 2^32
    terms, counts, length   the words of the text and how often each occurs

BM25: ts_rank is not BM25, a tsvector counts no more than 255 occurrences, and ranking by it reads every candidate's
row. So a trigger keeps postings (term, row, occurrences, length) in `<table>_terms`, a B-tree that answers a term by an
index-only scan, and the number of texts and words in `<table>_corpus`, always in the transaction of the
write: every BM25 score is of the statement's own snapshot.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode
from weakref import WeakKeyDictionary

import numpy as np

from nearest import filters, fusion
from nearest.contract import (
    Capabilities,
    Dense,
    FieldKind,
    Float32,
    Fused,
    Gap,
    Hit,
    IndexParams,
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
    check_schema,
    flatness,
    part_name,
)
from nearest.errors import (
    AccessDenied,
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
from nearest.filters import And, Comparison, Filter, Loose, Not, Or
from nearest.stores._bm25 import K1, Analyzer, B

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg_pool import ConnectionPool

SCHEMES = ("postgresql", "postgres")
REQUIRES = {"pgvector": ">=0.4,<1", "psycopg[binary,pool]": ">=3.2,<4"}
KNOWN_GAPS: tuple[Gap, ...] = ()
IDENTITY = ("host", "port", "dbname", "table")

_DEFAULTS = {
    "table": "nearest", "type": "vector", "index": "hnsw", "lists": "", "probes": "", "timeout": "0", "pool": "4",
}  # fmt: skip
_RANGES = {"lists": range(1, 32_769), "probes": range(1, 32_769), "timeout": range(86_401), "pool": range(1, 101)}
_KEPT = ("type", "index", "lists", "probes")  # with the collection
_MAX_TABLE = 48  # bytes; PostgreSQL cuts names at 63, and ours append to it
_MARK = "nearest collection "  # then JSON; the table's comment, which is written in the creating transaction
_INDEX_FROM = 1000  # records; an exact search of fewer is as fast
_MAX_STORED = 16_000  # dimensions
_MAX_INDEXED = {"vector": 2000, "halfvec": 4000, "bit": 64_000}
_MAX_EF = 1000
_MAX_SPARSE = 16_000  # values of one sparsevec
_MAX_PAYLOAD = 2**28 - 1  # bytes that jsonb can address
_MAX_KEYWORD = 256  # characters; a B-tree refuses entries over 2,704 bytes
_MAX_TERM = 200
_FLOAT16_MAX = 65_504.0
_PIECE = 10**9  # dimensions of a sparsevec
_PIECES = range(5)
_INT64 = range(-(2**63), 2**63)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FEW = 16  # values of an $in that are looked up in an index each by its own

_DISTANCE = {"cosine": "<=>", "dot": "<#>", "l2": "<->"}
_SCORE = {"cosine": "1 - distance", "dot": "0 - distance", "l2": "0 - distance"}
_OPERATORS = {"cosine": "cosine", "dot": "ip", "l2": "l2"}
_TYPES: dict[FieldKind, str] = {
    "keyword": "text", "integer": "bigint", "float": "numeric", "bool": "boolean", "datetime": "bigint",
}  # fmt: skip
_ORDER = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}


class PgvectorStore(Store):
    capabilities = Capabilities(
        features=frozenset(
            {
                "dense", "sparse", "named_vectors", "text", "native_fusion", "cosine", "dot", "l2", "hnsw", "binary",
                "payload_index", "durable", "exact",
            }
        ),
        filters=frozenset({"$eq", "$in", *filters.ORDER_OPS, "$exists", "$contains"}),
        remote=True,
    )  # fmt: skip

    def __init__(
        self, collection: _Collection, pool: ConnectionPool[Any], indexed: set[str], probes: int | None,
        conninfo: dict[str, Any],
    ) -> None:  # fmt: skip
        self.schema = collection.schema
        self._conninfo = conninfo
        self._c = collection
        self._pool = pool
        self._indexed = indexed  # vector columns with an index, as far as this process knows
        self._probes = probes  # what follows from their lists
        self._probing: WeakKeyDictionary[Connection[Any], int] = WeakKeyDictionary()  # what each session was told
        self._closed = False
        self._write = collection.write_statements()

    def close(self) -> None:
        self._closed = True
        self._pool.close()

    @contextlib.contextmanager
    def _connection(self) -> Iterator[Connection[Any]]:
        if self._closed:
            raise StorageError(f"{self._c.where} was closed; open it again")
        import psycopg
        from psycopg_pool import PoolTimeout

        with _database_errors(self._c.where):
            try:
                with self._pool.connection() as connection:
                    yield connection
            except PoolTimeout:
                # The pool tells nobody why it cannot connect: of a password that is not right any more, say.
                psycopg.connect(**self._conninfo).close()
                raise

    # --- writing ---

    def _upsert(self, records: list[Record]) -> None:
        rows = [self._c.row(record) for record in records]
        create, copy, merge = self._write
        with self._connection() as connection, connection.transaction():
            connection.execute(create)
            with connection.cursor() as cursor:
                with cursor.copy(copy) as into:
                    into.set_types(self._c.copy_types)
                    for row in rows:
                        into.write_row(row)
                cursor.execute(merge)

    def _delete(self, ids: list[str]) -> None:
        with self._connection() as connection:
            connection.execute(f"DELETE FROM {self._c.t} WHERE id = ANY(%s)".encode(), [[_escape(i) for i in ids]])

    def _delete_where(self, where: Filter) -> None:
        condition = self._c.condition(where)
        with self._connection() as connection:
            connection.execute(f"DELETE FROM {self._c.t} WHERE {condition.text}".encode(), condition.params)

    def optimize(self) -> None:
        """Build vector indexes that are due, without stopping writers, and refresh the planner's statistics."""
        with self._connection() as connection:
            connection.execute("SET statement_timeout = 0")
            try:
                self._c.refresh_statistics(connection)
                for column in self._c.unindexed(connection):
                    self._c.build_index(connection, column)
                self._learn(connection)
            finally:
                if not connection.broken:
                    connection.execute(f"SET statement_timeout = {self._c.timeout_ms}".encode())

    def _learn(self, connection: Connection[Any]) -> None:
        self._indexed, self._probes = self._c.indexed(connection), self._c.probes(connection)

    # --- reading ---

    def _get(self, ids: list[str], with_vectors: bool) -> list[Record]:
        columns = self._c.outputs(True, with_vectors)
        text = f"SELECT id, {columns} FROM {self._c.t} WHERE id = ANY(%s)"
        with self._connection() as connection:
            rows = connection.execute(text.encode(), [[_escape(i) for i in ids]], binary=True).fetchall()
        return [self._record(row, with_vectors) for row in rows]

    def _count(self, where: Filter | None) -> int:
        condition = self._c.condition(where)
        with self._connection() as connection:
            text = f"SELECT count(*) FROM {self._c.t} WHERE {condition.text}"
            (count,) = connection.execute(text.encode(), condition.params).fetchone() or (0,)
        return int(count)

    def _scan(self, cursor: str | None, limit: int, where: Filter | None, with_vectors: bool) -> Page:
        condition = self._c.condition(where)
        text = f"SELECT id, {self._c.outputs(True, with_vectors)} FROM {self._c.t} WHERE {condition.text}"
        params = condition.params
        if cursor is not None:
            text += " AND id > %s"
            params.append(_escape(cursor))
        with self._connection() as connection:
            params.append(limit + 1)
            rows = connection.execute(f"{text} ORDER BY id LIMIT %s".encode(), params, binary=True).fetchall()
        records = [self._record(row, with_vectors) for row in rows[:limit]]
        return Page(records, records[-1].id if len(rows) > limit else None)

    def _search_many(self, queries: list[Query]) -> list[list[Hit]]:
        with self._connection() as connection:
            own_ef = any(query.ef is not None for query in queries)
            # An index may be built, with other lists, after a session has begun.
            if self._probes is not None and self._probing.get(connection) != self._probes:
                connection.execute("SELECT set_config('ivfflat.probes', %s, false)", [str(self._probes)])
                self._probing[connection] = self._probes
            if len(queries) == 1 and not own_ef:
                return [self._search(connection, queries[0])]
            # One snapshot for all, and a setting that ends with the transaction.
            answers = []
            with connection.transaction():
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                for query in queries:
                    if own_ef:
                        _set_ef(connection, query.ef or self.schema.index.ef)
                    answers.append(self._search(connection, query))
            return answers

    def _search(self, connection: Connection[Any], query: Query) -> list[Hit]:
        hits, cut = self._run(connection, query, query.exact)
        # An index scan gives up after a number of tuples, or finds too few where a condition holds for few.
        return self._run(connection, query, True)[0] if cut else hits

    def _run(self, connection: Connection[Any], query: Query, exact: bool) -> tuple[list[Hit], bool]:
        """The hits, and whether an index may have cut them short."""
        indexed = set() if exact else self._indexed
        statement = self._c.search(query, indexed)
        if statement is None:
            return [], False
        rows = connection.execute(statement.text.encode(), statement.params, binary=True).fetchall()
        find, extra = query.find, 3 if isinstance(query.find, Fused) else 2
        parts = find.parts if isinstance(find, Fused) else (find,)
        uses_index = any(isinstance(part, Dense) and self._c.columns[part.using] in indexed for part in parts)
        if isinstance(find, Fused):
            # `fewest` is what the shortest of the dense rankings found.
            cut = uses_index and (not rows or rows[0][2][0] < max(find.candidates, query.k))
        else:
            cut = uses_index and len(rows) < query.k
        hits = []
        for row in rows:
            payload, vectors = self._decode(row[extra:], query.with_payload, query.with_vectors)
            explain = _explain(find, row[2][1]) if isinstance(find, Fused) and query.explain else None
            hits.append(Hit(_unescape(row[0]), vectors, payload, float(row[1]), explain))
        hits.sort(key=lambda hit: (-hit.score, hit.id))
        return hits, cut

    def _record(self, row: Sequence[Any], with_vectors: bool) -> Record:
        payload, vectors = self._decode(row[1:], True, with_vectors)
        return Record(_unescape(row[0]), vectors, payload)

    def _decode(
        self, values: Sequence[Any], with_payload: bool, with_vectors: bool
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        payload = json.loads(values[0]) if with_payload else {}
        return payload, self._c.vectors(values[1 if with_payload else 0 :]) if with_vectors else {}

    def stats(self) -> dict[str, Any]:
        with self._connection() as connection:
            self._learn(connection)
            return self._c.stats(connection, self._indexed)


STORE = PgvectorStore


def canonical(url: StoreURL) -> StoreURL:
    """host:port and the database stand in the location; a socket's folder and several hosts stand in options."""
    _, conninfo = _options(url)
    host, database = conninfo.get("host") or "", conninfo.get("dbname") or conninfo.get("user") or ""
    port = "" if set(str(conninfo.get("port") or "").split(",")) <= {"", "5432"} else str(conninfo["port"])
    user = re.match(r"//([^/]*@)?", url.location)
    options = {name: value for name, value in url.options.items() if name not in ("host", "port", "dbname")}
    if options.get("table") == _DEFAULTS["table"]:
        del options["table"]
    if host.startswith(("/", "@")) or "," in host or not host:
        place = ""
        options |= {name: value for name, value in (("host", host), ("port", port)) if value}
    else:
        place = (f"[{host}]" if ":" in host else host.lower()) + (f":{port}" if port else "")
    return replace(url, location=f"{user[0] if user else '//'}{place}/{quote(database, safe='')}", options=options)


def ledger(url: StoreURL) -> str:
    """A collection's ledger is in its own database, where every machine that reaches the one finds the other."""
    libpq = urlencode({name: value for name, value in url.options.items() if name not in _DEFAULTS})
    return f"postgresql:{url.location}" + (f"?{libpq}" if libpq else "")


def connect(url: StoreURL, schema: Schema | None) -> PgvectorStore:
    """`postgresql://user@host/database?table=docs`. With a schema a new table becomes a collection.

    Raises NotACollection for a table that is not there or not of nearest, and SchemaMismatch for another schema.
    """
    options, conninfo = _options(url)
    pool_type, psycopg = _client()
    if schema is not None:
        check_schema(schema, PgvectorStore.capabilities)
    server = f"{conninfo.get('host') or 'localhost'}/{conninfo.get('dbname') or conninfo.get('user') or ''}"
    where = f"table {options['table']!r} at {server}"
    with _database_errors(where):
        with psycopg.connect(**conninfo, autocommit=True) as connection:
            collection = _open(connection, options, schema, where)
            indexed, probes = collection.indexed(connection), collection.probes(connection)
        settings = collection.session_settings()

        def configure(connection: Connection[Any]) -> None:
            from pgvector.psycopg import register_vector

            register_vector(connection)
            connection.execute(
                "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS s (name, value)",
                [list(settings), list(settings.values())],
            )

        pool = pool_type(
            kwargs={**conninfo, "autocommit": True}, min_size=1, max_size=int(options["pool"]), open=True,
            configure=configure, timeout=float(conninfo["connect_timeout"]), num_workers=1, name="nearest",
        )  # fmt: skip
    return PgvectorStore(collection, pool, indexed, probes, conninfo)


# --- opening ---------------------------------------------------------------------------------------


def _client() -> tuple[Any, Any]:
    try:
        import pgvector.psycopg  # noqa: F401
        import psycopg
        from psycopg_pool import ConnectionPool
    except ImportError as error:
        raise MissingDependency("it needs psycopg and pgvector; run: pip install 'nearest[pgvector]'") from error
    return ConnectionPool, psycopg


def _options(url: StoreURL) -> tuple[dict[str, str], dict[str, Any]]:
    """Our options, with their defaults ("" for one to be kept with the collection), and libpq's."""
    given = dict(url.options)
    ours = {name: given.pop(name, "" if name in _KEPT else default) for name, default in _DEFAULTS.items()}
    if not url.location.startswith("//"):
        raise InvalidInput("write postgresql://user@host/database?table=docs")
    _, psycopg = _client()
    known = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()}
    if unknown := sorted(given.keys() - known):
        raise InvalidInput(
            f"postgresql: has no option {unknown[0]!r}; there are {', '.join(_DEFAULTS)}, and libpq's: "
            f"{', '.join(sorted(known))}"
        )
    try:
        conninfo = psycopg.conninfo.conninfo_to_dict(f"postgresql:{url.location}?{urlencode(given)}")
    except psycopg.ProgrammingError as error:
        raise InvalidInput(
            f"not a URL of PostgreSQL ({_one_line(error)}); write postgresql://user@host/database"
        ) from None
    seconds = str(conninfo.setdefault("connect_timeout", "10"))
    if not (seconds.isascii() and seconds.isdigit() and int(seconds)):
        raise InvalidInput(f"connect_timeout must be a number of seconds from 1, got {seconds!r}")
    for port in str(conninfo.get("port") or "").split(","):  # one of each host
        if port and not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65_535):
            raise InvalidInput(f"the port must be an integer from 1 to 65535, got {port!r}")
    table = ours["table"]
    if not table or len(table.encode()) > _MAX_TABLE or not table.isprintable():
        raise InvalidInput(f"table must be 1 to {_MAX_TABLE} bytes of printable characters, got {table!r}")
    for name, among in (("type", ("", "vector", "halfvec")), ("index", ("", "hnsw", "ivfflat", "none"))):
        if ours[name] not in among:
            raise InvalidInput(f"{name} must be {', '.join(among[1:-1])} or {among[-1]}, got {ours[name]!r}")
    for name, allowed in _RANGES.items():
        value = ours[name]
        if value and not (value.isascii() and value.isdigit() and int(value) in allowed):
            raise InvalidInput(f"{name} must be an integer from {allowed[0]} to {allowed[-1]}, got {value!r}")
    return ours, conninfo


def _open(connection: Connection[Any], options: dict[str, str], schema: Schema | None, where: str) -> _Collection:
    from psycopg import sql

    (schema_name,) = connection.execute("SELECT current_schema()").fetchone() or (None,)
    if schema_name is None:
        raise InvalidInput(f"{where}: no schema of the search_path exists; give one: ?options=-csearch_path%3Dpublic")
    names = {
        suffix: sql.Identifier(schema_name, options["table"] + suffix).as_string(connection)
        for suffix in ("", "_terms", "_corpus", "_count_terms")
    }
    found = _read_mark(connection, names[""], where)
    if found is None:
        if schema is None:
            raise NotACollection(f"{where}: no such table; to make one, give a schema")
        with connection.transaction():
            # Two that create at once: the second waits here, and then opens what the first has made.
            connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"nearest {names['']}"])
            found = _read_mark(connection, names[""], where)
            if found is None:
                kept = {name: options[name] or _DEFAULTS[name] for name in _KEPT}
                collection = _Collection(schema, kept, options, where, names)
                collection.check()
                _check_server(connection, where)
                collection.create(connection, schema_name)
                return collection
    was, kept = found
    differing = []
    if schema is not None and schema != was:
        before, now = was.to_json(), schema.to_json()
        differing = [f"{name} was {before[name]}, now {now[name]}" for name in before if before[name] != now[name]]
    differing += [
        f"{name} was {kept[name]!r}, now {options[name]!r}"
        for name in _KEPT
        if options[name] and options[name] != kept[name]
    ]
    if differing:
        raise SchemaMismatch(f"{where} was made with another schema: {'; '.join(differing)}")
    return _Collection(was, kept, options, where, names)


def _read_mark(connection: Connection[Any], table: str, where: str) -> tuple[Schema, dict[str, str]] | None:
    row = connection.execute(
        "SELECT obj_description(oid, 'pg_class') FROM pg_class WHERE oid = to_regclass(%s)", [table]
    ).fetchone()
    if row is None:
        return None
    mark = row[0] or ""
    if not mark.startswith(_MARK):
        raise NotACollection(f"{where} is not a collection of nearest; give another name: ?table=...")
    try:
        told = json.loads(mark.removeprefix(_MARK))
        return Schema.from_json(told["schema"]), {name: str(told["options"][name]) for name in _KEPT}
    except (ValueError, KeyError, TypeError) as error:
        raise CollectionDamaged(f"{where}: its comment cannot be read ({error}); restore it from a backup") from None


def _check_server(connection: Connection[Any], where: str) -> None:
    """Raises unless the database is UTF-8 and has pgvector, which is created if that is allowed."""
    from psycopg import errors

    if (encoding := connection.info.parameter_status("server_encoding")) != "UTF8":
        raise UnsupportedError(f"{where}: the database's encoding is {encoding}; make one with ENCODING 'UTF8'")
    query = "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
    row = connection.execute(query).fetchone()
    if row is None:
        database = connection.info.dbname
        try:
            with connection.transaction():
                connection.execute("CREATE EXTENSION vector")
        except errors.InsufficientPrivilege:
            raise AccessDenied(
                f"{where}: user {connection.info.user!r} may not create the extension; an administrator must run "
                f"in database {database!r}: CREATE EXTENSION vector;"
            ) from None
        except (errors.FeatureNotSupported, errors.UndefinedFile):
            raise UnsupportedError(
                f"{where}: the server has no pgvector; install it there (Debian: postgresql-18-pgvector), then run "
                f"in database {database!r}: CREATE EXTENSION vector;"
            ) from None
        row = connection.execute(query).fetchone()
    version = str(row[0]) if row else ""
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < (0, 8):
        raise UnsupportedError(
            f"{where}: pgvector is {version} and 0.8 is needed; install it, then an administrator must run: "
            "ALTER EXTENSION vector UPDATE;"
        )


# --- the collection as SQL -------------------------------------------------------------------------


@dataclass(slots=True)
class _Sql:
    """A statement or a part of one, and its parameters in their order."""

    text: str
    params: list[Any] = field(default_factory=list)


class _Collection:
    """How a schema lies in tables, and what is said about them in SQL. Holds no connection."""

    def __init__(
        self, schema: Schema, kept: dict[str, str], options: dict[str, str], where: str, names: dict[str, str]
    ) -> None:
        self.schema = schema
        self.where = where
        self.kept = kept
        self.timeout_ms = 1000 * int(options["timeout"])
        # Quoted, with the percent signs that would otherwise be placeholders doubled.
        self.t, self.t_terms, self.t_corpus, self.f_count = (
            names[suffix].replace("%", "%%") for suffix in ("", "_terms", "_corpus", "_count_terms")
        )
        self.table = options["table"]
        self.kind = kept["type"]
        self.columns = {name: f"v{i}" for i, name in enumerate(schema.vectors)}
        self.sparse = {name: f"s{i}" for i, name in enumerate(schema.sparse)}
        self.fields = {tuple(path.split(".")): (f"f{i}", kind) for i, (path, kind) in enumerate(schema.fields.items())}
        self._text_path = None if schema.text is None else tuple(schema.text.split("."))
        self._analyzer = None if schema.text is None else Analyzer(schema.language)
        self._layout = self._columns()
        bare = (re.sub(r"\(.*\)| COLLATE .*", "", kind) for _, kind in self._layout)
        self.copy_types = [_COPIED.get(kind, kind) for kind in bare]

    def _columns(self) -> list[tuple[str, str]]:
        """Name and type of every column that a write fills."""
        columns = [("id", 'text COLLATE "C"'), ("payload", "jsonb"), ("raw", "text"), ("instants", "jsonb")]
        if self.fields:
            columns.append(("odd", "boolean"))
            columns += [
                (column, _TYPES[kind] + (' COLLATE "C"' if kind == "keyword" else ""))
                for column, kind in self.fields.values()
            ]
        for name, column in self.columns.items():
            columns.append((column, f"{self.kind}({self.schema.vectors[name].dim})"))
        for column in self.sparse.values():
            columns.append((f"{column}_keys", "bigint[]"))
            columns += [(f"{column}_{piece}", f"sparsevec({_PIECE})") for piece in _PIECES]
        if self._analyzer is not None:
            columns += [("terms", 'text[] COLLATE "C"'), ("counts", "integer[]"), ("length", "integer")]
        return columns

    # --- creating ---

    def check(self) -> None:
        """Raises UnsupportedError for what pgvector cannot hold or index, saying what it could."""
        index = self.schema.index
        hnsw = (index.m, index.ef_construct, index.ef)
        default = IndexParams()
        if self.kept["index"] != "hnsw" and hnsw != (default.m, default.ef_construct, default.ef):
            raise UnsupportedError(f"index={self.kept['index']} has no m, ef_construct and ef; leave `index` out")
        if self.kept["index"] != "hnsw" and index.quantization != "none":
            raise UnsupportedError("binary quantization needs index=hnsw")
        if self.kept["index"] != "ivfflat" and (self.kept["lists"] or self.kept["probes"]):
            raise InvalidInput("lists and probes belong to index=ivfflat")
        if not (2 <= index.m <= 100 and 4 <= index.ef_construct <= 1000 and index.ef_construct >= 2 * index.m):
            raise UnsupportedError(
                f"pgvector takes m from 2 to 100 and ef_construct from 4 to 1000, at least twice m; "
                f"got m={index.m}, ef_construct={index.ef_construct}"
            )
        if index.ef > _MAX_EF:
            raise UnsupportedError(f"pgvector takes ef up to {_MAX_EF}, got {index.ef}")
        indexed = "bit" if index.quantization == "binary" else self.kind
        limit = _MAX_STORED if self.kept["index"] == "none" else min(_MAX_INDEXED[indexed], _MAX_STORED)
        for name, spec in self.schema.vectors.items():
            if spec.dim > limit:
                ways = [
                    f"?type=halfvec (up to {_MAX_INDEXED['halfvec']})" if indexed == "vector" else "",
                    f"quantization binary (up to {_MAX_STORED})" if indexed != "bit" else "",
                    f"?index=none (exact search, up to {_MAX_STORED})" if self.kept["index"] != "none" else "",
                ]
                fitting = "; use " + ", ".join(filter(None, ways)) if spec.dim <= _MAX_STORED else ""
                raise UnsupportedError(
                    f"vector {name!r} has {spec.dim} dimensions, and pgvector takes {limit} here{fitting}",
                    limit=limit,
                )

    def create(self, connection: Connection[Any], schema_name: str) -> None:
        """Everything in the caller's transaction, the mark included."""
        from psycopg import sql

        needed = {"payload", *self.columns.values()}
        columns = [f"{name} {kind}{' NOT NULL' if name in needed else ''}" for name, kind in self._layout]
        columns.append("PRIMARY KEY (id)")
        if self._analyzer is not None:
            columns.append("n bigint GENERATED ALWAYS AS IDENTITY UNIQUE")
        statements = [f"CREATE TABLE {self.t} ({', '.join(columns)})"]

        def index(name: str, rest: str) -> None:
            quoted = sql.Identifier(f"{self.table}_{name}").as_string(connection)
            statements.append(f"CREATE INDEX {quoted} ON {self.t} {rest}")

        index("payload", "USING gin (payload jsonb_path_ops)")
        index("instants", "USING gin (instants jsonb_path_ops)")
        for column, _ in self.fields.values():
            index(column, f"({column})")
        if self.fields:
            index("odd", "(odd) WHERE odd")
        for column in self.sparse.values():
            index(f"{column}_keys", f"USING gin ({column}_keys)")
        if self._analyzer is not None:
            statements += self._lexical_tables()
        for statement in statements:
            connection.execute(statement.replace("%%", "%").encode())
        mark = {"schema": self.schema.to_json(), "options": self.kept}
        comment = sql.Literal(_MARK + json.dumps(mark)).as_string(connection)
        connection.execute(f"COMMENT ON TABLE {self.t} IS {comment}".replace("%%", "%").encode())

    def _lexical_tables(self) -> list[str]:
        remove = f"""DELETE FROM {self.t_terms} AS p USING (SELECT n, unnest(terms) AS term FROM removed) AS r
            WHERE p.term = r.term AND p.n = r.n"""
        add = f"""INSERT INTO {self.t_terms} SELECT t.term, a.n, t.times, a.length
            FROM added AS a, unnest(a.terms, a.counts) AS t (term, times) ORDER BY t.term, a.n"""
        # Last, since writers wait for each other from here to their commit.
        totals = "UPDATE {t} AS c SET docs = c.docs {sign} s.docs, words = c.words {sign} s.words FROM "
        totals += "(SELECT count(length) AS docs, coalesce(sum(length), 0) AS words FROM {rows}) AS s WHERE s.docs > 0"
        less = totals.format(t=self.t_corpus, sign="-", rows="removed")
        more = totals.format(t=self.t_corpus, sign="+", rows="added")
        statements = [
            f'CREATE TABLE {self.t_terms} (term text COLLATE "C" NOT NULL, n bigint NOT NULL, times integer NOT NULL, '
            "length integer NOT NULL, PRIMARY KEY (term, n) INCLUDE (times, length))",
            f"CREATE TABLE {self.t_corpus} (docs bigint NOT NULL, words bigint NOT NULL)",
            f"INSERT INTO {self.t_corpus} VALUES (0, 0)",
            f"""CREATE FUNCTION {self.f_count}() RETURNS trigger LANGUAGE plpgsql AS $body$ BEGIN
            IF TG_OP <> 'INSERT' THEN {remove}; END IF;
            IF TG_OP <> 'DELETE' THEN {add}; END IF;
            IF TG_OP <> 'INSERT' THEN {less}; END IF;
            IF TG_OP <> 'DELETE' THEN {more}; END IF;
            RETURN NULL; END $body$""",
        ]
        old, new = "OLD TABLE AS removed", "NEW TABLE AS added"
        for event, rows in (("INSERT", new), ("UPDATE", f"{old} {new}"), ("DELETE", old)):
            statements.append(
                f"CREATE TRIGGER nearest_{event.lower()} AFTER {event} ON {self.t} REFERENCING {rows} "
                f"FOR EACH STATEMENT EXECUTE FUNCTION {self.f_count}()"
            )
        return statements

    # --- rows ---

    def write_statements(self) -> tuple[bytes, bytes, bytes]:
        """Make the temporary table; copy into it; merge it into the collection."""
        names = [name for name, _ in self._layout]
        # Copied as text what is parsed by the server on the way in.
        copied = ", ".join(f"{name} {'text' if kind == 'jsonb' else kind}" for name, kind in self._layout)
        values = ", ".join(f"{name}::jsonb" if kind == "jsonb" else name for name, kind in self._layout)
        replaced = ", ".join(f"{name} = excluded.{name}" for name in names if name != "id")
        return (
            f"CREATE TEMPORARY TABLE IF NOT EXISTS nearest_incoming ({copied}) ON COMMIT DELETE ROWS".encode(),
            f"COPY pg_temp.nearest_incoming ({', '.join(names)}) FROM STDIN (FORMAT BINARY)".encode(),
            f"INSERT INTO {self.t} ({', '.join(names)}) SELECT {values} FROM pg_temp.nearest_incoming ORDER BY id "
            f"ON CONFLICT (id) DO UPDATE SET {replaced}".replace("%%", "%").encode(),
        )

    def row(self, record: Record) -> list[Any]:
        payload = record.payload
        text = json.dumps(payload, ensure_ascii=False)
        if len(text) > _MAX_PAYLOAD // 4 and len(text.encode()) > _MAX_PAYLOAD:
            raise InvalidRecord(f"record {record.id!r}: its payload is over {_MAX_PAYLOAD} bytes; split it")
        raw = None
        searched = text
        if "e+" in text or "-0.0" in text or "\\u000" in text:
            raw, searched = text, json.dumps(_searchable(payload), ensure_ascii=False)
        instants = None
        if _DATE.search(text):
            instants = json.dumps(_instants(payload), ensure_ascii=False)
        row: list[Any] = [_escape(record.id), searched, raw, instants]
        if self.fields:
            odd = None
            values = []
            for path, (_, kind) in self.fields.items():
                value, told = _typed(kind, filters.resolve(payload, path))
                values.append(value)
                odd = odd if told else True
            row.append(odd)
            row += values
        for name in self.columns:
            row.append(self._dense(record, name))
        for name in self.sparse:
            row += _sparse_columns(record, record.vectors.get(name))
        if self._analyzer is not None and self._text_path is not None:
            body = filters.resolve(payload, self._text_path)
            if body is None:
                row += (None, None, None)
            else:
                counts = Counter(_term(word) for word in self._analyzer.terms(body))
                row += (list(counts), list(counts.values()), counts.total())
        return row

    def _dense(self, record: Record, name: str) -> Any:
        vector = record.vectors[name]
        if self.kind == "vector":
            return vector
        from pgvector import HalfVector

        if float(np.abs(vector).max()) > _FLOAT16_MAX:
            raise InvalidRecord(
                f"record {record.id!r}: vector {name!r} holds a number over {_FLOAT16_MAX}, which type=halfvec "
                "cannot hold; scale the vectors or use type=vector"
            )
        return HalfVector(vector)

    def outputs(self, with_payload: bool, with_vectors: bool, prefix: str = "") -> str:
        """The select list after the id: the payload as text, then the columns of vectors."""
        listed = [f"coalesce({prefix}raw, {prefix}payload::text)"] if with_payload else []
        return ", ".join(listed + [prefix + c for c in self._vector_columns(with_vectors)]) or "NULL"

    def _vector_columns(self, wanted: bool) -> list[str]:
        pieces = [f"{c}_{part}" for c in self.sparse.values() for part in ("keys", *_PIECES)]
        return [*self.columns.values(), *pieces] if wanted else []

    def vectors(self, values: Sequence[Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in zip(self.columns, values, strict=False):
            found[name] = np.array(value.to_numpy(), np.float32)
        width = 1 + len(_PIECES)
        for i, name in enumerate(self.sparse):
            keys, *pieces = values[len(self.columns) + i * width : len(self.columns) + (i + 1) * width]
            if keys is None:
                continue
            weights: dict[int, float] = {}
            for piece, held in zip(_PIECES, pieces, strict=True):
                if held is not None:
                    weights |= zip((piece * _PIECE + j for j in held.indices()), held.values(), strict=True)
            # sparsevec keeps no zeros; the keys do.
            told = np.array([weights.get(key, 0.0) for key in keys], np.float32)
            found[name] = SparseVector(np.array(keys, np.uint32), told)
        return found

    # --- conditions and searches ---

    def condition(self, where: Filter | None) -> _Sql:
        """An expression that is true exactly where the condition holds; elsewhere false or null."""
        if where is None:
            return _Sql("true")
        translation = _Translation(self.fields)
        return _Sql(translation.expression(where), translation.params)

    def search(self, query: Query, indexed: set[str]) -> _Sql | None:
        """(id, score[, [fewest, parts]], payload and vectors as asked) of the best k; None if nothing can match."""
        find = query.find
        kept = [*(("payload", "raw") if query.with_payload else ()), *self._vector_columns(query.with_vectors)]
        if not isinstance(find, Fused):
            ranking = self._ranking(find, query.where, query.k, indexed, kept)
            if ranking is not None:
                outputs = self.outputs(query.with_payload, query.with_vectors)
                ranking.text = f"SELECT id, score, {outputs} FROM ({ranking.text}) AS ranking"
            return ranking
        return self._fused(query, find, indexed)

    def _fused(self, query: Query, find: Fused, indexed: set[str]) -> _Sql | None:
        depth = max(find.candidates, query.k)
        weights = find.weights or [1.0] * len(find.parts)
        rankings, gains, counts, told, params = [], [], [], [], []
        for i, (part, weight) in enumerate(zip(find.parts, weights, strict=True)):
            ranking = self._ranking(part, query.where, depth, indexed, [])
            if ranking is None:
                continue
            rankings.append(
                f"r{i} AS (SELECT id, score, row_number() OVER (ORDER BY score DESC, id) AS place "
                f"FROM ({ranking.text}) AS ranking)"
            )
            params += ranking.params
            if find.method == "rrf":
                gain = f"{weight!r}::float8 / ({find.rrf_k} + place)"
            elif find.method == "distribution":
                share = f"{weight / sum(weights)!r}::float8"
                scaled = "0.5 + (score - avg(score) OVER ()) / nullif(6 * stddev_samp(score) OVER (), 0)"
                gain = f"{share} * coalesce({scaled}, 0.5)"
            else:
                low, high = "min(score) OVER ()", "max(score) OVER ()"
                share = f"{weight / sum(weights)!r}::float8"
                if find.method == "adaptive":
                    told.append(f"{_told(f'r{i}', weight, flatness(part))} AS w{i}")
                    share = f"coalesce((SELECT w{i} / nullif(total, 0) FROM shares), {share})"
                gain = f"{share} * CASE WHEN {high} > {low} THEN (score - {low}) / ({high} - {low}) ELSE 1 END"
            gains.append(f"SELECT id, {i} AS part, place, score, {gain} AS gain FROM r{i}")
            if isinstance(part, Dense):
                counts.append(f"(SELECT count(*) FROM r{i})")
        if not rankings:
            return None
        fewest = f"least({', '.join(counts)})" if counts else "NULL::bigint"
        parts = "json_agg(json_build_array(part, place, score))" if query.explain else "NULL::json"
        total = "least(sum(gain), 1.0)" if find.method in ("adaptive", "normalized") else "sum(gain)"
        if told:
            names = [each.rpartition(" ")[2] for each in told]
            lengths = ", ".join(f"(SELECT count(*) FROM r{name.removeprefix('w')})" for name in names)
            rankings.append(f"depth AS (SELECT greatest({lengths}) AS n)")
            rankings.append(
                f"shares AS (SELECT *, {' + '.join(names)} AS total FROM (SELECT {', '.join(told)}) AS told)"
            )
        text = (
            f"WITH {', '.join(rankings)}, fused AS (SELECT id, {total} AS score, {parts} AS parts "
            f"FROM ({' UNION ALL '.join(gains)}) AS gains GROUP BY id ORDER BY score DESC, id LIMIT {query.k}) "
            f"SELECT fused.id, fused.score, json_build_array({fewest}, fused.parts), "
            f"{self.outputs(query.with_payload, query.with_vectors, 'd.')} "
            f"FROM fused JOIN {self.t} AS d USING (id)"
        )
        return _Sql(text, params)

    def _ranking(
        self, part: Dense | Sparse | Text, where: Filter | None, limit: int, indexed: set[str], kept: Sequence[str]
    ) -> _Sql | None:
        """A query for (id, score, what is kept) of the best by one part; None if nothing can match."""
        condition = self.condition(where)
        columns = ", ".join(["id", *kept])
        match part:
            case Dense(vector, using):
                return self._by_vector(np.asarray(vector, np.float32), using, condition, limit, indexed, columns)
            case Sparse(vector, using):
                return self._by_sparse(vector, self.sparse[using], condition, limit, columns)
            case Text(text):
                return self._by_words(text, condition, limit, kept)

    def _by_vector(
        self, vector: Float32, using: str, condition: _Sql, limit: int, indexed: set[str], columns: str
    ) -> _Sql:
        metric, column, index = self.schema.vectors[using].metric, self.columns[using], self.schema.index
        asked = f"%s::{self.kind}"
        # An index serves an ordering by the operator alone: with + 0 there is none that could.
        distance = f"{column} {_DISTANCE[metric]} {asked}" if column in indexed else _exact(column, metric, asked)
        rows, params = f"{self.t} WHERE {condition.text}", [vector, *condition.params]
        if column in indexed and index.quantization == "binary":
            dim = self.schema.vectors[using].dim
            candidates = math.ceil(limit * index.oversampling) if index.rescore else limit
            params.append(vector)
            rows = (
                f"(SELECT {columns}, {column} AS full_{column} FROM {rows} "
                f"ORDER BY binary_quantize({column})::bit({dim}) <~> binary_quantize({asked})::bit({dim}) "
                f"LIMIT {candidates}) AS candidates"
            )
            distance = _exact(f"full_{column}", metric, asked)
        return _Sql(
            f"SELECT {columns}, {_SCORE[metric]} AS score FROM (SELECT {columns}, {distance} AS distance "
            # A limit that is a parameter would be unknown to a prepared plan, which then may leave the index out.
            f"FROM {rows} ORDER BY distance, id LIMIT {limit}) AS nearest",
            params,
        )

    def _by_sparse(self, vector: SparseVector, column: str, condition: _Sql, limit: int, columns: str) -> _Sql:
        pieces = _pieces(vector)
        products = " + ".join(f"coalesce({column}_{piece} <#> %s, 0)" for piece in pieces) or "0"
        return _Sql(
            f"SELECT {columns}, 0 - ({products}) AS score FROM {self.t} "
            f"WHERE {column}_keys && %s::bigint[] AND {condition.text} ORDER BY score DESC, id LIMIT %s",
            [*pieces.values(), vector.indices.tolist(), *condition.params, limit],
        )

    def _by_words(self, text: str, condition: _Sql, limit: int, kept: Sequence[str]) -> _Sql | None:
        assert self._analyzer is not None
        terms = list(dict.fromkeys(_term(word) for word in self._analyzer.terms(text)))
        if not terms:
            return None
        # Without a condition the best are cut before their rows are read, with all that tie with the last.
        cut = "" if condition.params else "ORDER BY score DESC FETCH FIRST %s ROWS WITH TIES"
        columns = ", ".join(f"d.{name}" for name in ("id", *kept))
        return _Sql(
            f"""WITH corpus AS (SELECT docs, words::float8 / greatest(docs, 1) AS mean FROM {self.t_corpus} LIMIT 1),
            found AS MATERIALIZED (SELECT term, n, times, length FROM {self.t_terms} WHERE term = ANY(%s)),
            weights AS (SELECT term, ln(1 + (docs - count(*) + 0.5::float8) / (count(*) + 0.5::float8)) AS idf
                FROM found, corpus GROUP BY term, docs),
            scored AS (SELECT n, sum(idf * times * {K1 + 1} / (times + {K1} * ({1 - B} + {B} * length / mean)))::real
                AS score FROM found JOIN weights USING (term), corpus GROUP BY n {cut})
            SELECT {columns}, s.score FROM scored AS s JOIN {self.t} AS d USING (n)
            WHERE {condition.text} ORDER BY s.score DESC, id LIMIT %s""",
            [terms, *([] if condition.params else [limit]), *condition.params, limit],
        )

    # --- upkeep ---

    def session_settings(self) -> dict[str, str]:
        # An index scan goes on until k rows satisfy the condition, in order of distance.
        settings = {"hnsw.ef_search": str(self.schema.index.ef), "hnsw.iterative_scan": "strict_order"}
        settings |= {"ivfflat.iterative_scan": "relaxed_order", "statement_timeout": str(self.timeout_ms)}
        settings["jit"] = "off"  # compiling takes longer than the searches it is meant to shorten
        if self.kept["probes"]:
            settings["ivfflat.probes"] = self.kept["probes"]
        return settings

    def probes(self, connection: Connection[Any]) -> int | None:
        """The root of the lists that the indexes really have (of the most); None where that does not matter."""
        if self.kept["index"] != "ivfflat" or self.kept["probes"]:
            return None
        (lists,) = connection.execute(
            "SELECT max(substring(option FROM '^lists=([0-9]+)$')::integer) FROM pg_index AS i "
            "JOIN pg_class AS c ON c.oid = i.indexrelid CROSS JOIN unnest(c.reloptions) AS option "
            "WHERE i.indrelid = to_regclass(%s) AND i.indisvalid",
            [self.t.replace("%%", "%")],
        ).fetchone() or (None,)
        return None if lists is None else math.ceil(math.sqrt(lists))

    def _index_name(self, column: str) -> str:
        return f"{self.table}_{column}_index"

    def indexed(self, connection: Connection[Any]) -> set[str]:
        """The vector columns that have a complete index."""
        rows = connection.execute(
            "SELECT c.relname FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid "
            "WHERE i.indrelid = to_regclass(%s) AND i.indisvalid",
            [self.t.replace("%%", "%")],
        ).fetchall()
        valid = {name for (name,) in rows}
        return {column for column in self.columns.values() if self._index_name(column) in valid}

    def unindexed(self, connection: Connection[Any]) -> list[str]:
        """The columns whose index is due."""
        missing = [] if self.kept["index"] == "none" else sorted({*self.columns.values()} - self.indexed(connection))
        if not missing:
            return []
        text = f"SELECT count(*) FROM (SELECT 1 FROM {self.t} LIMIT %s) AS first"
        (rows,) = connection.execute(text.encode(), [_INDEX_FROM]).fetchone() or (0,)
        return missing if rows >= _INDEX_FROM else []

    def build_index(self, connection: Connection[Any], column: str) -> None:
        from psycopg import sql

        spec = next(self.schema.vectors[name] for name, held in self.columns.items() if held == column)
        index = self.schema.index
        (rows,) = connection.execute(f"SELECT count(*) FROM {self.t}".replace("%%", "%").encode()).fetchone() or (0,)
        schema_name, _, _ = self.t.replace("%%", "%").partition(".")
        name = sql.Identifier(self._index_name(column)).as_string(connection)
        expression, operators = column, f"{self.kind}_{_OPERATORS[spec.metric]}_ops"
        if index.quantization == "binary":
            expression, operators = f"(binary_quantize({column})::bit({spec.dim}))", "bit_hamming_ops"
        if self.kept["index"] == "ivfflat":
            lists = int(self.kept["lists"] or max(1, rows // 1000 if rows <= 1_000_000 else math.isqrt(rows)))
            how, needed = f"lists = {lists}", 4 * spec.dim * (50 * lists + lists) * 2
        else:
            how = f"m = {index.m}, ef_construction = {index.ef_construct}"
            width = spec.dim / 8 if index.quantization == "binary" else (4 if self.kind == "vector" else 2) * spec.dim
            needed = int(rows * 1.2 * (width + 40 * index.m + 200))  # the graph that is built in memory
        memory = min(max(64, needed >> 20), 2048)
        # One that a crash cut off is there, but not valid.
        connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {schema_name}.{name}".encode())
        connection.execute(f"SET maintenance_work_mem = '{memory}MB'".encode())
        try:
            connection.execute(
                f"CREATE INDEX CONCURRENTLY {name} ON {self.t} USING {self.kept['index']} ({expression} {operators}) "
                f"WITH ({how})".replace("%%", "%").encode()
            )
        finally:
            if not connection.broken:
                connection.execute("RESET maintenance_work_mem")

    def refresh_statistics(self, connection: Connection[Any]) -> None:
        """VACUUM ANALYZE where much was written; it also lets the postings be read from their index alone."""
        tables = [self.t, self.t_terms] if self._analyzer is not None else [self.t]
        for table in (name.replace("%%", "%") for name in tables):
            # Counts of rows are told a second late, so just after a bulk load the table's size tells.
            (due,) = connection.execute(
                "SELECT pg_stat_get_mod_since_analyze(oid) > 50 + 0.2 * pg_stat_get_live_tuples(oid) "
                "OR pg_relation_size(oid) > (1.2 * relpages + 1) * current_setting('block_size')::bigint "
                "FROM pg_class WHERE oid = to_regclass(%s)",
                [table],
            ).fetchone() or (False,)
            if due:
                connection.execute(f"VACUUM (ANALYZE) {table}".encode())

    def stats(self, connection: Connection[Any], indexed: set[str]) -> dict[str, Any]:
        tables = [self.t, self.t_terms] if self._analyzer is not None else [self.t]
        text = "SELECT sum(pg_total_relation_size(to_regclass(t))) FROM unnest(%s::text[]) AS t"
        (size,) = connection.execute(text, [[name.replace("%%", "%") for name in tables]]).fetchone() or (0,)
        rows = 0
        if indexed:
            count = f"SELECT count(*) FROM {self.t}".replace("%%", "%")
            (rows,) = connection.execute(count.encode()).fetchone() or (0,)
        state = "built" if indexed and len(indexed) == len(self.columns) else "not built yet; search is exact"
        words = "none; search is exact" if self.kept["index"] == "none" else f"{self.kept['index']}, {state}"
        return {"disk_bytes": int(size), "index": words, "indexed": int(rows) * len(indexed)}


_COPIED = {
    "jsonb": "text", "bigint": "int8", "integer": "int4", "boolean": "bool",
    "bigint[]": "int8[]", "integer[]": "int4[]",
}  # fmt: skip


def _exact(column: str, metric: Metric, asked: str) -> str:
    return f"({column} {_DISTANCE[metric]} {asked}) + 0"


def _set_ef(connection: Connection[Any], ef: int) -> None:
    if ef > _MAX_EF:
        raise UnsupportedError(f"pgvector takes ef up to {_MAX_EF}, got {ef}; use exact=True for all candidates")
    connection.execute("SELECT set_config('hnsw.ef_search', %s, true)", [str(ef)])


def _told(ranking: str, weight: float, power: float) -> str:
    """What `fusion.adapted` makes of one ranking's weight; `depth` has the length of the longest."""
    padded = (
        f"SELECT score FROM {ranking} UNION ALL SELECT least((SELECT min(score) FROM {ranking}), 0) "
        f"FROM generate_series((SELECT count(*) FROM {ranking}) + 1, (SELECT n FROM depth))"
    )
    apart = f"power((max(score) - avg(score)) / stddev_pop(score), {fusion.SHARPNESS!r})"
    flat = f"CASE WHEN min(score) < 0 THEN 1 ELSE power(1 - min(score) / max(score), {power!r}) END"
    equal = "stddev_pop(score) = 0 OR max(score) <= avg(score)"
    told = f"SELECT CASE WHEN {equal} THEN 1 ELSE {apart} * {flat} END FROM ({padded}) AS padded"
    return f"CASE WHEN EXISTS (SELECT FROM {ranking}) THEN {weight!r}::float8 * ({told}) ELSE 0 END"


def _explain(find: Fused, parts: list[Any]) -> dict[str, Any]:
    names = [part_name(part) for part in find.parts]
    told: dict[str, Any] = {}
    for i, place, score in sorted(parts):
        before = names[:i].count(names[i])
        told[f"{names[i]}#{before + 1}" if before else names[i]] = {"rank": place, "score": score}
    return told


# --- filters as SQL --------------------------------------------------------------------------------


class _Translation:
    """A condition as an SQL expression that is true exactly where it holds, and false or null elsewhere.

    What it compares with is in `params`, the parts of paths too, in the order of their places in the expression.
    """

    def __init__(self, fields: Mapping[tuple[str, ...], tuple[str, FieldKind]]) -> None:
        self._fields = fields
        self.params: list[Any] = []

    def expression(self, node: Filter) -> str:
        match node:
            case And(parts):
                return f"({' AND '.join(self.expression(part) for part in parts)})" if parts else "true"
            case Or(parts):
                return f"({' OR '.join(self.expression(part) for part in parts)})" if parts else "false"
            case Not(part):
                return f"NOT coalesce({self.expression(part)}, false)"
            case Loose(part):
                return self.expression(part)
            case Comparison():
                told = self._fields.get(node.path)
                typed = None if told is None else self._typed(*told, node)
                if typed is None:
                    return self._anywhere(node)
                # `coalesce` keeps the planner from weighing the payload's indexes, which costs more than the odd rows.
                return f"({typed} OR (odd AND coalesce({self._anywhere(node)}, false)))"

    def _bind(self, value: Any) -> str:
        self.params.append(value)
        return "%s"

    def _typed(self, column: str, kind: FieldKind, node: Comparison) -> str | None:
        """The comparison with a declared field's own column; None where the column cannot tell."""
        op, value = node.op, node.value
        values = value if isinstance(value, tuple) else (value,)
        if op in ("$eq", "$in"):
            if kind == "keyword" and any(isinstance(v, str) and filters.instant(v) is not None for v in values):
                return None  # its equals may be written differently
            equals = [e for v in values if (e := _column_value(kind, v)) is not None]
            if op == "$eq":
                return f"{column} = {self._bind(equals[0])}::{_TYPES[kind]}" if equals else "false"
            return f"{column} = ANY({self._bind(equals)}::{_TYPES[kind]}[])"
        if op not in _ORDER or isinstance(value, tuple) or kind in ("keyword", "bool"):
            return None
        if isinstance(value, str) != (kind == "datetime"):
            return "false"
        bound: Any = value
        if kind == "datetime":
            bound = _micros(str(value))
        elif kind == "float":
            bound = _number_text(value)
        elif isinstance(value, float):
            bound = math.floor(value) if op in ("$gt", "$lte") else math.ceil(value)
            if bound not in _INT64:
                return None
        return f"{column} {_ORDER[op]} {self._bind(bound)}::{_TYPES[kind]}"

    def _anywhere(self, node: Comparison) -> str:
        """The comparison with the payload itself, whatever it holds there."""
        path, op, value = tuple(_escape(part) for part in node.path), node.op, node.value
        match op:
            case "$exists":
                return f"{self._at(path)} <> ALL (ARRAY['null', '[]']::jsonb[])"
            case "$eq":
                return self._equal(path, value)
            case "$in":
                assert isinstance(value, tuple)
                if len(value) <= _FEW:
                    return f"({' OR '.join(self._equal(path, v) for v in value)})" if value else "false"
                return self._among(path, value)
            case "$contains":
                if not isinstance(value, str):
                    return self._holds(path, [_plain(value)])
                return (
                    f"CASE jsonb_typeof({self._at(path)}) WHEN 'string' "
                    f"THEN strpos(({self._at(path)} #>> '{{}}') COLLATE \"C\", {self._bind(_escape(value))}) > 0 "
                    f"WHEN 'array' THEN {self._element(path, value)} END"
                )
        bound, sign = value, _ORDER[op]
        if isinstance(bound, str):
            where = json.dumps({"v": _micros(bound)})
            return (
                f"jsonb_path_exists(instants -> {self._bind('.'.join(path))}::text, 'strict $[*] ? (@ {sign} $v)', "
                f"{self._bind(where)}::jsonb, true)"
            )
        # Strict, since lax would look into lists of lists; what isn't a number is then not comparable.
        return (
            f"jsonb_path_exists({self._at(path)}, CASE jsonb_typeof({self._at(path)}) "
            f"WHEN 'array' THEN 'strict $[*] ? (@ {sign} $v)'::jsonpath ELSE 'strict $ ? (@ {sign} $v)' END, "
            f"{self._bind(json.dumps({'v': _plain(bound)}))}::jsonb, true)"
        )

    def _at(self, path: tuple[str, ...]) -> str:
        # By `->` with text, which reaches into objects alone; `#>` would take "0" for a list's first element.
        return "(payload" + "".join(f" -> {self._bind(part)}::text" for part in path) + ")"

    def _holds(self, path: tuple[str, ...], value: Any) -> str:
        """Containment, which the index answers: nested scalars must be equal, a list may hold more."""
        for part in reversed(path):
            value = {part: value}
        return f"payload @> {self._bind(json.dumps(value, ensure_ascii=False))}::jsonb"

    def _dated(self, path: tuple[str, ...], text: str) -> str:
        wanted = json.dumps({".".join(path): [_micros(text)]}, ensure_ascii=False)
        return f"instants @> {self._bind(wanted)}::jsonb"

    def _element(self, path: tuple[str, ...], value: Any) -> str:
        if isinstance(value, str) and filters.instant(value) is not None:
            return self._dated(path, value)
        return self._holds(path, [_plain(value)])

    def _equal(self, path: tuple[str, ...], value: Any) -> str:
        if isinstance(value, str) and filters.instant(value) is not None:
            return self._dated(path, value)
        plain = _plain(value)
        return f"({self._holds(path, plain)} OR {self._holds(path, [plain])})"

    def _among(self, path: tuple[str, ...], values: tuple[Any, ...]) -> str:
        """For many values: each payload's own are looked up in a hash table of them."""
        plain = [json.dumps(_plain(v), ensure_ascii=False) for v in values if not _dates(v)]
        dates = [str(_micros(v)) for v in values if _dates(v)]
        found = (
            f"CASE jsonb_typeof({self._at(path)}) WHEN 'array' THEN EXISTS (SELECT 1 FROM "
            f"jsonb_array_elements({self._at(path)}) AS e WHERE e = ANY({self._bind(plain)}::jsonb[])) "
            f"ELSE {self._at(path)} = ANY({self._bind(plain)}::jsonb[]) END"
        )
        if not dates:
            return found
        return (
            f"({found} OR EXISTS (SELECT 1 FROM jsonb_array_elements(instants -> {self._bind('.'.join(path))}::text) "
            f"AS e WHERE e = ANY({self._bind(dates)}::jsonb[])))"
        )


# --- values ----------------------------------------------------------------------------------------

# PostgreSQL has no null character. These four become three each, in a way that keeps order, equality and substrings.
_ESCAPES = {"\x00": "\x01\x02\x02", "\x01": "\x01\x02\x03", "\x02": "\x01\x03\x02", "\x03": "\x01\x03\x03"}
_CONTROL = re.compile("[\x00-\x03]")
_ESCAPED = re.compile("\x01..", re.DOTALL)
_PLAIN_OF = {escaped: plain for plain, escaped in _ESCAPES.items()}
_DATE = re.compile(r'"\d{4}-\d\d-\d\d')


def _escape(text: str) -> str:
    return _CONTROL.sub(lambda m: _ESCAPES[m[0]], text) if _CONTROL.search(text) else text


def _unescape(text: str) -> str:
    return _ESCAPED.sub(lambda m: _PLAIN_OF[m[0]], text) if "\x01" in text else text


def _plain(value: Any) -> Any:
    """A scalar as it stands in the searchable payload, where numbers are exact decimals."""
    if isinstance(value, str):
        return _escape(value)
    if isinstance(value, float) and abs(value) >= 1e16:
        return int(value)  # its shortest decimal is not always the number itself
    return value


def _searchable(value: Any) -> Any:
    if isinstance(value, dict):
        return {_escape(key): _searchable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_searchable(item) for item in value]
    return _plain(value)


def _number_text(value: Any) -> str:
    return repr(_plain(value))


def _micros(text: str) -> int:
    when = filters.instant(text)
    assert when is not None
    return (when - _EPOCH) // _MICROSECOND


def _dates(value: Any) -> bool:
    return isinstance(value, str) and filters.instant(value) is not None


def _instants(payload: Mapping[str, Any], above: str = "") -> dict[str, list[int]]:
    """By path, the dates of every field that a condition can reach; a dot in a key is none that it could."""
    told: dict[str, list[int]] = {}
    for key, value in payload.items():
        if not key or "." in key:
            continue
        path = above + _escape(key)
        if isinstance(value, dict):
            told |= _instants(value, path + ".")
        else:
            dates = [_micros(v) for v in (value if isinstance(value, list) else (value,)) if _dates(v)]
            if dates:
                told[path] = dates
    return told


def _typed(kind: FieldKind, value: Any) -> tuple[Any, bool]:
    """What a declared field's column holds, and whether that tells all."""
    if isinstance(value, list):
        values = [v for v in value if v is not None]
        if len(values) > 1:
            return None, False
        value = values[0] if values else None
    if value is None:
        return None, True
    if kind == "keyword" and len(value) > _MAX_KEYWORD:
        return None, False
    told = _column_value(kind, value)
    if kind == "float":
        from decimal import Decimal

        told = Decimal(told)
    return told, True


def _column_value(kind: FieldKind, value: Any) -> Any:
    """A value as a column of that kind holds it; None for one that no such field can equal."""
    match kind:
        case "keyword":
            return _escape(value) if isinstance(value, str) else None
        case "bool":
            return value if isinstance(value, bool) else None
        case "datetime":
            return _micros(value) if _dates(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if kind == "float":
        return _number_text(value)
    whole = int(value)
    return whole if whole == value and whole in _INT64 else None


def _term(word: str) -> str:
    """A B-tree refuses long entries; of a long word its beginning and a digest of the whole stand for it."""
    if len(word) <= _MAX_TERM:
        return word
    return word[:_MAX_TERM] + hashlib.blake2b(word.encode(), digest_size=16).hexdigest()


def _pieces(vector: SparseVector) -> dict[int, Any]:
    from pgvector import SparseVector as Piece

    split: dict[int, dict[int, float]] = {}
    for key, value in zip(vector.indices.tolist(), vector.values.tolist(), strict=True):
        split.setdefault(key // _PIECE, {})[key % _PIECE] = value
    return {piece: Piece(values, _PIECE) for piece, values in split.items()}


def _sparse_columns(record: Record, vector: SparseVector | None) -> list[Any]:
    if vector is None:
        return [None] * (1 + len(_PIECES))
    if len(vector.indices) > _MAX_SPARSE:
        raise InvalidRecord(
            f"record {record.id!r}: a sparse vector has {len(vector.indices)} values; pgvector takes {_MAX_SPARSE}"
        )
    pieces = _pieces(vector)
    return [vector.indices.tolist(), *(pieces.get(piece) for piece in _PIECES)]


# --- errors ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def _database_errors(where: str) -> Iterator[None]:
    """What psycopg raises, as ours."""
    import psycopg
    from psycopg_pool import PoolClosed, PoolTimeout, TooManyRequests

    try:
        yield
    except NearestError:
        raise
    except PoolClosed as error:
        raise StorageError(f"{where} was closed; open it again") from error
    except PoolTimeout as error:
        raise TimedOut(f"{where}: no connection within its time ({error}); is the server up? raise ?pool=") from error
    except TooManyRequests as error:
        raise Throttled(f"{where}: {error}") from error
    except psycopg.Error as error:
        raise _ours(error, where) from error


def _ours(error: Any, where: str) -> NearestError:
    from psycopg import errors

    said = f"{where}: {_one_line(error)}"
    match error:
        case errors.InsufficientPrivilege():
            return AccessDenied(f"{said}; an administrator must grant it (USAGE and CREATE on the schema to create)")
        case errors.QueryCanceled() | errors.ConnectionTimeout():
            return TimedOut(f"{said}; raise ?timeout= or ?connect_timeout=")
        case errors.IdleInTransactionSessionTimeout():  # nothing of the transaction is kept
            return ConnectionFailed(f"{said}; the network or this machine was too slow, try again")
        case errors.TooManyConnections() | errors.CannotConnectNow() | errors.LockNotAvailable():
            return Throttled(f"{said}; try again")
        case errors.DeadlockDetected() | errors.SerializationFailure():
            return Throttled(f"{said}; try again")
        case errors.DiskFull():
            return DiskFull(f"{said}; free some space on the server")
        case errors.ReadOnlySqlTransaction():
            return ReadOnly(f"{said}; connect to the primary server")
        case errors.DuplicateTable() | errors.DuplicateFunction():
            return NotACollection(f"{said}; give another name: ?table=...")
        case errors.UndefinedTable():
            return NotACollection(f"{said}; it was dropped; open it again with a schema")
        case errors.DataCorrupted() | errors.IndexCorrupted():
            return CollectionDamaged(f"{said}; restore it from a backup")
        case errors.StatementTooComplex():
            return InvalidInput(f"{said}; the condition is too large or nested too deeply, make it smaller")
        case errors.TooManyColumns():
            return InvalidInput(f"{said}; the schema has too many vectors and fields for one table, declare fewer")
        case errors.ProgramLimitExceeded() | errors.UntranslatableCharacter():
            return InvalidRecord(said)
    # psycopg's classes for this class of codes have no parent of their own.
    if (error.sqlstate or "").startswith("54"):
        return InvalidInput(f"{said}; it is over a limit of PostgreSQL, ask for less at once")
    if "number of parameters must be" in said:
        return InvalidInput(f"{said}; the condition has too many values, ask in parts or with $in")
    # Of a connection that failed libpq tells the words alone.
    if isinstance(error, errors.OperationalError | errors.InterfaceError):
        for pattern, kind, advice in _REFUSALS:
            if re.search(pattern, said):
                return kind(f"{said}; {advice}")
        return ConnectionFailed(f"{said}; is the server up, and its address right?")
    return StorageError(said)


_REFUSALS: tuple[tuple[str, type[NearestError], str], ...] = (
    ("password|authentication|pg_hba|no such role|role .* does not exist|certificate", AccessDenied,
     "check the user and the password in the URL"),
    ("permission denied for database", AccessDenied, "an administrator must grant CONNECT"),
    ("database .* does not exist", NotACollection, "create it with CREATE DATABASE, or give another"),
    ("too many clients|connection slots|starting up|shutting down|too many connections", Throttled, "try again"),
    ("timeout expired|timed out", TimedOut, "is the server up? raise ?connect_timeout="),
    ("No space left", DiskFull, "free some space on the server"),
)  # fmt: skip


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
