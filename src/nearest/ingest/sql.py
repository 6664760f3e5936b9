"""Rows of a database as documents: any that SQLAlchemy reaches, all of a query or only what is new in it.

With a cursor column (one that grows whenever a row changes, such as `updated_at`) a run reads the rows from the
highest value that the run before saw, that value included, since rows may share it; and those that failed, by their
ids. Such a run cannot see what is gone; one over all rows (`full`) removes it. Where the failed rows cannot be named
(over 500 of them, or ids that are neither all numbers nor all texts) the cursor stays, and the next run reads the same
rows again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from nearest.contract import Document, Failure
from nearest.errors import ConnectionFailed, InvalidInput, MissingDependency

if TYPE_CHECKING:
    import sqlalchemy as sa

SCHEME = "sql:"
_OWN = ("query", "id", "text", "cursor")
_AT_ONCE = 1000  # rows fetched
_MOST_FAILED = 500  # rows that are asked for by their ids


@dataclass(frozen=True, slots=True)
class Query:
    """url: SQLAlchemy's. query: a SELECT. id, text, cursor: columns of it; text may be several, by commas."""

    url: str
    query: str
    id: str = "id"
    text: str = "text"
    cursor: str | None = None

    @classmethod
    def parse(cls, spec: str) -> Query:
        """`sql:postgresql://user@host/db?query=SELECT ...&id=id&text=title,body&cursor=updated_at`."""
        url = _url(spec.removeprefix(SCHEME))
        given = {name: url.query[name] for name in _OWN if name in url.query}
        if any(not isinstance(value, str) for value in given.values()):
            raise InvalidInput(f"{SCHEME}{_shown(url)}: query, id, text and cursor are given once each")
        if "query" not in given:
            raise InvalidInput(f"{SCHEME}{_shown(url)} has no query; add ?query=SELECT ...")
        bare = url.difference_update_query(_OWN)
        query = str(given.pop("query")).rstrip().removesuffix(";")
        return cls(bare.render_as_string(hide_password=False), query, **given)  # type: ignore[arg-type]

    @property
    def origin(self) -> str:
        """For the ledger: without the password, and with the query, since another one gives other rows."""
        return f"{SCHEME}{_shown(_url(self.url))}?query={self.query}"

    @property
    def key(self) -> str:
        """Of the ledger's setting that keeps the cursor."""
        return f"cursor:{hashlib.sha256(self.origin.encode()).hexdigest()[:32]}"

    @property
    def failed_key(self) -> str:
        """Of the setting that keeps which rows failed."""
        return f"failed:{self.key.removeprefix('cursor:')}"

    def rows(self, since: Any = None, failed: Sequence[int | str | None] = ()) -> Rows:
        """since: where the cursor was. failed: ids of rows before it that are read as well."""
        return Rows(self, since, failed)


class Rows:
    """The documents of a query, once. highest: of the cursor column, so far; `encoded` for the ledger."""

    def __init__(self, query: Query, since: Any, failed: Sequence[int | str | None]) -> None:
        self._query = query
        self._since = _decoded(since)
        self._failed = failed
        self._kinds: set[type] = set()  # of the ids
        self._unnamed: set[str | None] = set()  # null and "", if rows have failed for want of an id
        self.highest: Any = self._since
        self.count = 0

    def __iter__(self) -> Generator[Document | Failure, None, None]:
        """A row without an id or a text is a Failure. Raises InvalidInput or ConnectionFailed."""
        import sqlalchemy as sa

        query = self._query
        engine = _engine(query.url)
        try:
            with _told(query), engine.connect() as connection:
                statement: sa.Select[Any] | sa.TextClause = sa.text(query.query)
                if query.cursor is not None:
                    column: sa.ColumnClause[Any] = sa.column(query.cursor)
                    rows = sa.text(query.query).columns(column).subquery("given")
                    statement = sa.select(sa.text("*")).select_from(rows)
                    if self._since is not None:
                        own: sa.ColumnClause[Any] = sa.column(query.id)
                        failed: sa.ColumnElement[bool] = own.in_([each for each in self._failed if each is not None])
                        failed = failed | own.is_(None) if None in self._failed else failed
                        statement = statement.where((column >= self._since) | column.is_(None) | failed)
                result = connection.execution_options(yield_per=_AT_ONCE).execute(statement)
                for row in result.mappings():
                    self.count += 1
                    yield self._document(dict(row))
        finally:
            engine.dispose()

    @property
    def encoded(self) -> Any:
        return _encoded(self.highest)

    def named(self, failed: Iterable[str]) -> list[int | str | None] | None:
        """The ids of rows that failed, as the database has them; None where they cannot be told."""
        ids: list[int | str | None] = [each for each in failed if not each.startswith(f"{self._query.origin}#")]
        if len(ids) > _MOST_FAILED or (ids and self._kinds not in ({int}, {str})):
            return None
        if self._kinds == {int}:
            ids = [int(str(each)) for each in ids]
        return [*ids, *self._unnamed]

    def _document(self, row: Mapping[str, Any]) -> Document | Failure:
        query = self._query
        texts = [name.strip() for name in query.text.split(",")]
        for name in (query.id, *texts, *filter(None, [query.cursor])):
            if name not in row:
                raise InvalidInput(f"{query.origin}: the query gives no column {name!r}; it gives {', '.join(row)}")
        if query.cursor is not None and (at := row[query.cursor]) is not None:
            self.highest = at if self.highest is None else max(self.highest, at)
        own = row[query.id]
        if own is None or own == "":
            self._unnamed.add(own)
            return Failure(f"{query.origin}#{self.count}", f"row {self.count}: has no {query.id}")
        self._kinds.add(type(own))
        text = "\n\n".join(str(row[name]) for name in texts if row[name] not in (None, ""))
        if not text.strip():
            return Failure(str(own), f"row {self.count}: no text")
        taken = {query.id, *(texts if len(texts) == 1 else ())}
        metadata = {name: _plain(value) for name, value in row.items() if name not in taken}
        return Document(str(own), text, {"source": f"{SCHEME}{_shown(_url(query.url))}", **metadata})


def _url(text: str) -> sa.URL:
    import sqlalchemy as sa

    try:
        return sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        raise InvalidInput("the database's URL cannot be read; write postgresql://user@host/database") from None


def _shown(url: sa.URL) -> str:
    return url.set(password=None, query={}).render_as_string()


def _engine(text: str) -> sa.Engine:
    import sqlalchemy as sa

    url = _url(text)
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    try:
        return sa.create_engine(url, poolclass=sa.NullPool)
    except sa.exc.NoSuchModuleError:
        raise InvalidInput(f"SQLAlchemy knows no database {url.drivername!r}; install its dialect") from None
    except ImportError as error:
        raise MissingDependency(
            f"{url.drivername} needs {error.name}, which is not installed; install the database's Python driver"
        ) from error


@contextmanager
def _told(query: Query) -> Iterator[None]:
    import sqlalchemy as sa

    try:
        yield
    except sa.exc.DBAPIError as error:
        said = str(error.orig).strip()
        if isinstance(error, sa.exc.ProgrammingError) or query.url.startswith("sqlite"):
            raise InvalidInput(f"{query.origin}: {said}") from None
        raise ConnectionFailed(f"{query.origin}: {said}") from error
    except sa.exc.SQLAlchemyError as error:
        raise InvalidInput(f"{query.origin}: {error}") from None


def _plain(value: Any) -> Any:
    """As JSON holds it; bytes are left out."""
    if value is None or isinstance(value, bool | int | float | str | dict | list):
        return value
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value) if value.is_finite() else None
    return None if isinstance(value, bytes | bytearray | memoryview) else str(value)


def _encoded(value: Any) -> Any:
    """A cursor's value as the ledger keeps it."""
    match value:
        case datetime():
            return {"datetime": value.isoformat()}
        case date():
            return {"date": value.isoformat()}
        case Decimal():
            return {"decimal": str(value)}
        case None | int() | float() | str():
            return {"plain": value}
    raise InvalidInput(f"a cursor is a number, a date or a text, not {type(value).__name__}; take another column")


def _decoded(kept: Any) -> Any:
    match kept:
        case {"datetime": text}:
            return datetime.fromisoformat(text)
        case {"date": text}:
            return date.fromisoformat(text)
        case {"decimal": text}:
            return Decimal(text)
        case {"plain": value}:
            return value
    return None
