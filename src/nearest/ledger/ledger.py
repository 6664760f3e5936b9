"""The ledger's operations; see the package for what they promise together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from nearest.errors import CollectionDamaged, ConnectionFailed, DiskFull, ReadOnly, StorageError
from nearest.ledger import models
from nearest.ledger.changes import Change, Entry, Intent, Visibility
from nearest.ledger.glance import HEAD
from nearest.ledger.models import chunks, documents, failures, intents, settings, version

_AT_ONCE = 500  # values in one IN (...)


class Ledger:
    """Every method is one transaction and safe from several threads.

    Raises DiskFull, ReadOnly, CollectionDamaged or ConnectionFailed for what the database reports.
    """

    def __init__(self, engine: sa.Engine, name: str, visibility: Visibility | None = None) -> None:
        self._engine = engine
        self._name = name
        self.visibility = visibility or Visibility()
        self._mutex = self.visibility.mutex

    @classmethod
    def open(cls, location: str | Path | None, visibility: Visibility | None = None) -> Self:
        """A file, a database URL, or None for one in memory that ends with the process.

        visibility: kept up to date; a new one by default.
        """
        url = str(location) if isinstance(location, str) else f"sqlite:///{location}" if location else "sqlite://"
        sqlite = url.startswith("sqlite")
        # One connection: SQLite has one writer anyway, and what is asked is short.
        engine = sa.create_engine(
            url, poolclass=StaticPool, connect_args={"check_same_thread": False} if sqlite else {}
        )
        if sqlite:
            sa.event.listen(engine, "connect", _durable)
        ledger = cls(engine, str(location or "the ledger in memory"), visibility)
        try:
            with ledger._transaction() as connection:
                ledger._migrate(connection)
        except BaseException:
            engine.dispose()
            raise
        return ledger

    def close(self) -> None:
        with self._mutex:
            self._engine.dispose()

    def _migrate(self, connection: sa.Connection) -> None:
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
        if isinstance(error, DBAPIError) and error.connection_invalidated:
            return ConnectionFailed(f"{self._name}: the database did not answer ({said})")
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
            self.visibility.hidden = frozenset().union(*(intent.new for intent in planned))
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
            self.visibility.hidden = frozenset().union(*(intent.old for intent in pending))
            self.visibility.epoch += 1

    def settle(self) -> None:
        """The store has dropped what the committed intents replaced."""
        with self._transaction() as connection:
            connection.execute(intents.delete().where(intents.c.committed))
            self.visibility.hidden = frozenset()

    def pending(self) -> list[Intent]:
        """What was under way; after a crash this is what to finish or undo."""
        with self._transaction() as connection:
            return _intents(connection)

    def undo(self) -> None:
        """The store has dropped what the uncommitted intents brought."""
        with self._transaction() as connection:
            connection.execute(intents.delete())
            self.visibility.hidden = frozenset()


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
