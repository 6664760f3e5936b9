"""Looks at a ledger file that need no more than Python's own sqlite3.

Importing SQLAlchemy takes a third of a second, and a search wants nothing of the ledger but its settings.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from nearest.ledger.changes import State

HEAD = "0002"
"""The newest migration."""


def glance(path: Path) -> dict[str, Any] | None:
    """The settings of a ledger that has nothing to migrate or repair; None: open it as a `Ledger`."""
    try:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            if connection.execute("select version_num from alembic_version").fetchall() != [(HEAD,)]:
                return None
            if connection.execute("select 1 from intents limit 1").fetchone():
                return None
            rows = connection.execute("select key, value from settings")
            # A column of type JSON turns a number's text into the number.
            return {key: json.loads(value) if isinstance(value, str) else value for key, value in rows}
    except (sqlite3.Error, ValueError):
        return None


def watch(path: Path) -> Callable[[], State | None]:
    """What `Visibility.watch` asks of a ledger file that other processes write to.

    SQLite counts a file's changes, so that asking again costs microseconds while there are none.
    """
    connection: sqlite3.Connection | None = None
    known = -1

    def look() -> State | None:
        nonlocal connection, known
        if connection is None:
            if not path.is_file():
                return None
            connection = sqlite3.connect(path, timeout=5, check_same_thread=False, isolation_level=None)
        at = connection.execute("pragma data_version").fetchone()[0]
        if at == known:
            return None
        connection.execute("begin")  # one snapshot for both
        try:
            rows = connection.execute("select committed, new, old from intents").fetchall()
            epoch = connection.execute("select value from settings where key = 'epoch'").fetchone()
        finally:
            connection.execute("commit")
        known = at
        intents = ((bool(committed), json.loads(new), json.loads(old)) for committed, new, old in rows)
        return State(hidden(intents), int(epoch[0]) if epoch else 0)

    return look


def hidden(intents: Iterable[tuple[bool, Iterable[str], Iterable[str]]]) -> frozenset[str]:
    """What no search may show while changes are under way, each (committed, new, old): see the package."""
    return frozenset(record for committed, new, old in intents for record in (old if committed else new))
