"""The ledger's operations; see the package for what they promise together."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from nearest.contract import Usage
from nearest.errors import (
    AccessDenied,
    CollectionDamaged,
    CollectionLocked,
    ConnectionFailed,
    DiskFull,
    InvalidInput,
    MissingDependency,
    ReadOnly,
    StorageError,
)
from nearest.ledger import models
from nearest.ledger.changes import Change, Entry, Intent, State, Visibility, draw_epoch
from nearest.ledger.glance import HEAD, hidden, watch
from nearest.ledger.models import chunks, documents, failures, intents, settings, usage, version

_AT_ONCE = 500  # values in one IN (...)


class Ledger:
    """Every method is one transaction and safe from several threads.

    followed: the epoch up to which this process saw every change: of when it was opened, or of its own last change;
    None once another process changed something in between.
    Raises DiskFull, ReadOnly, CollectionDamaged or ConnectionFailed for what the database reports.
    """

    def __init__(
        self, engine: sa.Engine, name: str, visibility: Visibility | None = None, lock: Path | None = None
    ) -> None:
        self._engine = engine
        self._name = name
        self._lock = lock
        self._key = name
        self.visibility = visibility or Visibility()
        self._mutex = self.visibility.mutex
        self.followed: int | None = None

    @classmethod
    def open(cls, location: Path | None, visibility: Visibility | None = None, *, shared: bool = False) -> Self:
        """A file, or None for one in memory that ends with the process.

        visibility: kept up to date; a new one by default. shared: other processes use the file as well;
        otherwise whoever opens it has made sure that none does.
        """
        url = f"sqlite:///{location}" if location else "sqlite://"
        # One connection: SQLite has one writer anyway, and what is asked is short.
        engine = sa.create_engine(url, poolclass=StaticPool, connect_args={"check_same_thread": False})
        sa.event.listen(engine, "connect", _durable)
        lock = location.with_suffix(".writing") if location and shared else None
        ledger = cls(engine, str(location or "the ledger in memory"), visibility, lock)
        if location and shared:
            ledger.visibility.watch = ledger.visibility.watch or watch(location)
        return ledger._opened()

    @classmethod
    def connect(cls, url: str, namespace: str, visibility: Visibility | None = None) -> Self:
        """A PostgreSQL database, `postgresql://...`; its tables are in a schema of their own, the namespace.

        Processes on any machine may use it at once; one of them at a time writes.
        """
        ledger = cls._connected(url, namespace, visibility)
        ledger.visibility.watch = ledger._seen
        with ledger._transaction() as connection:
            # Two newcomers at once: the second waits for the first.
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(ledger._number)))
            # IF NOT EXISTS asks for the right to make one even where there is one.
            if not connection.scalar(sa.text("SELECT to_regnamespace(:name)"), {"name": namespace}):
                connection.execute(sa.schema.CreateSchema(namespace))
        return ledger._opened()

    @classmethod
    def _connected(cls, url: str, namespace: str, visibility: Visibility | None = None) -> Self:
        parsed = postgresql(url)
        shown = parsed.difference_update_query(["password"]).render_as_string(hide_password=True)
        path = {"options": f"-csearch_path={namespace}"}
        try:
            engine = sa.create_engine(parsed, connect_args=path, pool_size=4, pool_pre_ping=True)
        except ImportError as error:
            raise MissingDependency(
                "a ledger in PostgreSQL needs psycopg; run: pip install 'nearest[pgvector]'"
            ) from error
        ledger = cls(engine, f"the ledger {namespace} in {shown}", visibility)
        ledger._key = namespace  # a lock's number is the database's own; how its URL is spelt must not matter
        return ledger

    @classmethod
    def namespaces(cls, url: str, among: Sequence[str]) -> set[str]:
        """Those that there are in a PostgreSQL database; nothing is made."""
        query = sa.text("SELECT nspname FROM pg_namespace WHERE nspname = ANY(:names)")
        with contextlib.closing(cls._connected(url, among[0])) as asked, asked._transaction() as connection:
            return {str(name) for name in connection.scalars(query, {"names": list(among)})}

    @classmethod
    def check_creatable(cls, url: str) -> None:
        """Raises AccessDenied where the user may not make a schema in a PostgreSQL database."""
        query = sa.text("SELECT has_database_privilege(current_database(), 'CREATE'), current_user, current_database()")
        with contextlib.closing(cls._connected(url, "public")) as asked, asked._transaction() as connection:
            allowed, user, database = connection.execute(query).one()
        if not allowed:
            raise AccessDenied(
                f"the user {user!r} may not make a schema for the ledger in the database {database!r}; an "
                f'administrator must run: GRANT CREATE ON DATABASE "{database}" TO "{user}"; or say where else '
                "the ledger may be (ledger=, NEAREST_LEDGER)"
            )

    def _opened(self) -> Self:
        try:
            with self._transaction() as connection:
                if self._postgresql:
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(self._number)))
                self._migrate(connection)
            self.visibility.state = self._seen()
            self.followed = self.visibility.epoch
        except BaseException:
            self._engine.dispose()
            raise
        return self

    @property
    def _postgresql(self) -> bool:
        return self._engine.dialect.name == "postgresql"

    @property
    def _number(self) -> int:
        """The ledger's name as PostgreSQL wants it for its advisory locks: 63 bits."""
        return int.from_bytes(hashlib.sha256(self._key.encode()).digest()[:8]) >> 1

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Held by the one process that changes documents. Raises CollectionLocked where another does."""
        busy = CollectionLocked(f"another process is writing to {self._name}; wait until it is done and try again")
        if self._postgresql:
            try:
                with self._engine.connect() as connection:
                    connection.execution_options(isolation_level="AUTOCOMMIT")
                    # 1 more than the number that opening takes, so that readers can open meanwhile.
                    if not connection.scalar(sa.select(sa.func.pg_try_advisory_lock(self._number + 1))):
                        raise busy
                    try:
                        yield
                    finally:
                        connection.execute(sa.select(sa.func.pg_advisory_unlock(self._number + 1)))
            except SQLAlchemyError as error:
                raise self._known(error) from error
            return
        if self._lock is None:
            yield
            return
        from filelock import FileLock, Timeout

        lock = FileLock(self._lock, timeout=0, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            raise busy from None
        try:
            yield
        finally:
            lock.release()

    def _seen(self) -> State:
        with self._transaction() as connection:
            pending = [(i.committed, i.new, i.old) for i in _intents(connection)]
            return State(hidden(pending), _epoch(connection))

    def _advance(self, connection: sa.Connection) -> int:
        alone = self.followed is not None and self.followed == _epoch(connection)
        epoch = _next_epoch(connection)
        self.followed = epoch if alone else None
        return epoch

    def _show(self, hidden: frozenset[str], epoch: int | None = None) -> None:
        """The mutex is held."""
        self.visibility.state = State(hidden, self.visibility.epoch if epoch is None else epoch)

    def close(self) -> None:
        with self._mutex:
            self._engine.dispose()

    def _migrate(self, connection: sa.Connection) -> None:
        # Asked anew, since another process may have made them a moment ago.
        tables = sa.inspect(connection).get_table_names()
        if not tables:
            models.metadata.create_all(connection)
            connection.execute(version.insert().values(version_num=HEAD))
            return
        at = connection.scalar(sa.select(version.c.version_num)) if "alembic_version" in tables else None
        if at == HEAD:
            return
        if at is None:
            raise CollectionDamaged(f"{self._name} is a database, but not a ledger; restore it from a backup")
        if at > HEAD:
            raise CollectionDamaged(f"{self._name} was written by a newer nearest (ledger {at}); upgrade nearest")
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        config.attributes["connection"] = connection
        command.upgrade(config, HEAD)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        with self._mutex:
            try:
                with self._engine.begin() as connection:
                    yield connection
            except SQLAlchemyError as error:
                raise self._known(error) from error

    def _known(self, error: SQLAlchemyError) -> Exception:
        said = str(error.orig if isinstance(error, DBAPIError) else error)
        if "disk is full" in said or "disk I/O error" in said:
            return DiskFull(f"{self._name}: the disk is full; free some space and run it again")
        if "readonly" in said or "unable to open" in said:
            return ReadOnly(f"{self._name} cannot be written ({said}); check its permissions, or copy it elsewhere")
        if "malformed" in said or "not a database" in said:
            return CollectionDamaged(f"{self._name} is damaged ({said}); restore it from a backup")
        if "password authentication failed" in said or "permission denied" in said:
            return AccessDenied(f"{self._name}: {said}; check the user, the password and its rights")
        if isinstance(error, sa.exc.OperationalError | sa.exc.TimeoutError) and self._postgresql:
            return ConnectionFailed(
                f"{self._name}: the database did not answer ({said}); check host, port, and that it runs"
            )
        return StorageError(f"{self._name}: {said}")

    # --- settings ---

    def settings(self) -> dict[str, Any]:
        with self._transaction() as connection:
            return {row.key: row.value for row in connection.execute(sa.select(settings))}

    def set(self, values: Mapping[str, Any]) -> None:
        with self._transaction() as connection:
            connection.execute(settings.delete().where(settings.c.key.in_(list(values))))
            connection.execute(settings.insert(), [{"key": k, "value": v} for k, v in values.items()])

    def next_run(self) -> int:
        """A number larger than any before."""
        with self._transaction() as connection:
            run = (connection.scalar(sa.select(settings.c.value).where(settings.c.key == "run")) or 0) + 1
            connection.execute(settings.delete().where(settings.c.key == "run"))
            connection.execute(settings.insert().values(key="run", value=run))
            return int(run)

    # --- what it cost ---

    def used(self, run: int, model: str, used: Usage, seconds: float) -> None:
        """What a run asked of its model; told again, it replaces what was told before."""
        values = {name: getattr(used, name) for name in Usage.__slots__}
        with self._transaction() as connection:
            connection.execute(usage.delete().where(usage.c.run == run))
            connection.execute(usage.insert().values(run=run, model=model, seconds=seconds, **values))

    def queried(self, model: str, used: Usage) -> None:
        """What a model was asked for outside of runs, added to what was told before. A row a model, its run below 1."""
        mine = (usage.c.model == model) & (usage.c.run <= 0)
        with self._transaction() as connection:
            more = {name: usage.c[name] + getattr(used, name) for name in Usage.__slots__}
            if connection.execute(usage.update().where(mine).values(more)).rowcount:
                return
            least = connection.scalar(sa.select(sa.func.min(usage.c.run)).where(usage.c.run <= 0))
            values = {name: getattr(used, name) for name in Usage.__slots__}
            run = 0 if least is None else least - 1
            connection.execute(usage.insert().values(run=run, model=model, seconds=0.0, **values))

    def queries(self) -> dict[str, dict[str, float]]:
        """By model: the fields of `Usage`, of what `queried` was told."""
        with self._transaction() as connection:
            rows = connection.execute(sa.select(usage).where(usage.c.run <= 0).order_by(usage.c.model)).mappings()
            return {row["model"]: {name: row[name] for name in Usage.__slots__} for row in rows}

    def usage(self) -> dict[str, dict[str, float]]:
        """By model: runs, seconds, and the sums of the fields of `Usage`."""
        names = (*Usage.__slots__, "seconds")
        sums = [sa.func.sum(usage.c[name]).label(name) for name in names]
        query = sa.select(usage.c.model, sa.func.count().label("runs"), *sums).group_by(usage.c.model)
        query = query.where(usage.c.run > 0)
        with self._transaction() as connection:
            rows = connection.execute(query.order_by(usage.c.model)).mappings()
            return {row["model"]: {name: row[name] for name in ("runs", *names)} for row in rows}

    # --- what is there ---

    def lookup(self, ids: Iterable[str]) -> dict[str, Entry]:
        """Entries of those documents that are there."""
        columns = (documents.c.id, documents.c.hash, documents.c.origin, documents.c.source)
        with self._transaction() as connection:
            return {
                row.id: Entry(row.hash, row.origin, row.source)
                for some in _slices(list(ids))
                for row in connection.execute(sa.select(*columns).where(documents.c.id.in_(some)))
            }

    def record_ids(self, ids: Iterable[str]) -> dict[str, list[str]]:
        """The store's ids of each document's chunks, by ordinal."""
        with self._transaction() as connection:
            return _record_ids(connection, list(ids))

    def count(self) -> int:
        """Documents."""
        with self._transaction() as connection:
            return connection.scalar(sa.select(sa.func.count()).select_from(documents)) or 0

    def count_chunks(self) -> int:
        with self._transaction() as connection:
            return connection.scalar(sa.select(sa.func.coalesce(sa.func.sum(documents.c.chunks), 0))) or 0

    def unseen(self, origin: str, run: int) -> list[str]:
        """Documents of an origin that a run did not see."""
        with self._transaction() as connection:
            query = sa.select(documents.c.id).where(documents.c.origin == origin, documents.c.run < run)
            return list(connection.scalars(query.order_by(documents.c.id)))

    def has_origin(self, origin: str) -> int:
        """How many documents came from an origin."""
        with self._transaction() as connection:
            query = sa.select(sa.func.count()).select_from(documents).where(documents.c.origin == origin)
            return connection.scalar(query) or 0

    def saw(self, ids: Sequence[str], run: int, origin: str | None = None) -> None:
        """These documents are still there in this run; an origin replaces the one they had."""
        values = {"run": run, "origin": origin} if origin is not None else {"run": run}
        with self._transaction() as connection:
            for some in _slices(ids):
                connection.execute(documents.update().where(documents.c.id.in_(some)).values(values))

    def saw_source(self, origin: str, source: str, run: int) -> None:
        """A file could not be read this time; what it gave before stays."""
        with self._transaction() as connection:
            mine = (documents.c.origin == origin) & (documents.c.source == source)
            connection.execute(documents.update().where(mine).values(run=run))

    # --- failures ---

    def failed(self, origin: str | None, reasons: Mapping[str, str]) -> None:
        """Keep why documents or files failed; a later success clears it."""
        if not reasons:
            return
        with self._transaction() as connection:
            for some in _slices(list(reasons)):
                connection.execute(failures.delete().where(failures.c.id.in_(some)))
            rows = [{"id": i, "origin": origin, "reason": reason} for i, reason in reasons.items()]
            connection.execute(failures.insert(), rows)

    def clear_failures(self, origin: str | None) -> None:
        """A new run over an origin starts; what fails again is kept again."""
        with self._transaction() as connection:
            connection.execute(failures.delete().where(failures.c.origin == origin))

    def failures(self) -> dict[str, str]:
        with self._transaction() as connection:
            return {row.id: row.reason for row in connection.execute(sa.select(failures).order_by(failures.c.id))}

    # --- changes ---

    def intend(self, changes: Sequence[Change]) -> list[Intent]:
        """Settle what was committed before, and write down what is to come. Ids must be distinct."""
        with self._transaction() as connection:
            connection.execute(intents.delete().where(intents.c.committed))
            before = _record_ids(connection, [change.document_id for change in changes])
            planned = []
            for change in changes:
                new, old = frozenset(change.record_ids), frozenset(before.get(change.document_id, ()))
                planned.append(Intent(change.document_id, new - old, old - new, False))
            rows = [
                {"document_id": i.document_id, "new": sorted(i.new), "old": sorted(i.old), "committed": False}
                for i in planned
            ]
            if rows:
                connection.execute(intents.insert(), rows)
            self._show(frozenset().union(*(intent.new for intent in planned)))
        return planned

    def commit(self, changes: Sequence[Change], run: int) -> None:
        """The changes intended last are the documents' versions from now on."""
        ids = [change.document_id for change in changes]
        with self._mutex:
            with self._transaction() as connection:
                for some in _slices(ids):
                    connection.execute(documents.delete().where(documents.c.id.in_(some)))
                    connection.execute(chunks.delete().where(chunks.c.document_id.in_(some)))
                    connection.execute(failures.delete().where(failures.c.id.in_(some)))
                kept = [change for change in changes if change.record_ids]
                if kept:
                    connection.execute(documents.insert(), [_document_row(change, run) for change in kept])
                    connection.execute(chunks.insert(), [row for change in kept for row in _chunk_rows(change)])
                connection.execute(intents.update().values(committed=True))
                pending = _intents(connection)
                epoch = self._advance(connection)
            self._show(frozenset().union(*(intent.old for intent in pending)), epoch)

    def settle(self) -> None:
        """The store has dropped what the committed intents replaced."""
        with self._transaction() as connection:
            connection.execute(intents.delete().where(intents.c.committed))
            self._show(frozenset())

    def pending(self) -> list[Intent]:
        """What was under way; after a crash this is what to finish or undo."""
        with self._transaction() as connection:
            return _intents(connection)

    def undo(self) -> None:
        """The store has dropped what the uncommitted intents brought."""
        with self._mutex:
            with self._transaction() as connection:
                connection.execute(intents.delete())
                # A search during which they came and went must not take before and after for the same.
                epoch = self._advance(connection)
            self._show(frozenset(), epoch)


def postgresql(url: str) -> sa.URL:
    """Raises InvalidInput for a URL of another database; the driver is psycopg 3."""
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        raise InvalidInput("the ledger's URL cannot be read; write postgresql://user@host/database") from None
    if parsed.get_backend_name() not in ("postgresql", "postgres"):
        raise InvalidInput(f"a ledger is a folder, or in PostgreSQL (postgresql://...), not {parsed.drivername}")
    return parsed.set(drivername="postgresql+psycopg")


def _epoch(connection: sa.Connection) -> int:
    return int(connection.scalar(sa.select(settings.c.value).where(settings.c.key == "epoch")) or 0)


def _next_epoch(connection: sa.Connection) -> int:
    epoch = draw_epoch()
    connection.execute(settings.delete().where(settings.c.key == "epoch"))
    connection.execute(settings.insert().values(key="epoch", value=epoch))
    return epoch


def _intents(connection: sa.Connection) -> list[Intent]:
    rows = connection.execute(sa.select(intents))
    return [Intent(row.document_id, frozenset(row.new), frozenset(row.old), row.committed) for row in rows]


def _record_ids(connection: sa.Connection, ids: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for some in _slices(ids):
        query = sa.select(chunks).where(chunks.c.document_id.in_(some))
        for row in connection.execute(query.order_by(chunks.c.document_id, chunks.c.ordinal)):
            found.setdefault(row.document_id, []).append(row.record_id)
    return found


def _document_row(change: Change, run: int) -> dict[str, Any]:
    return {
        "id": change.document_id,
        "hash": change.hash,
        "origin": change.origin,
        "source": change.source,
        "run": run,
        "chunks": len(change.record_ids),
    }


def _chunk_rows(change: Change) -> list[dict[str, Any]]:
    return [
        {"document_id": change.document_id, "ordinal": ordinal, "record_id": record_id}
        for ordinal, record_id in enumerate(change.record_ids)
    ]


def _slices(values: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(values), _AT_ONCE):
        yield values[start : start + _AT_ONCE]


def _durable(connection: Any, _record: Any) -> None:
    """What is committed survives a power cut; readers do not wait for the writer."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA busy_timeout=5000")
    cursor.close()
