"""A look at a ledger file that needs no more than Python's own sqlite3.

Importing SQLAlchemy takes a third of a second, and a search wants nothing of the ledger but its settings.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

HEAD = "0001"
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
