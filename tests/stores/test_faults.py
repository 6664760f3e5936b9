"""The scenario of faults, on a toy store over HTTP that is right, and on ones that are wrong in ways it must see."""

from __future__ import annotations

import contextlib
import pickle
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from nearest.contract import Hit, Page, Query, Record, Schema, Store
from nearest.errors import ConnectionFailed, NearestError, StorageError, Throttled
from nearest.filters import Filter
from nearest.layers import stack_for
from nearest.stores.memory import MemoryStore
from tests.stores import faults
from tests.stores.proxy import Speaks


class _Server(ThreadingHTTPServer):
    """A memory store; each request is a method and its arguments, pickled."""

    daemon_threads = True
    store: MemoryStore | None = None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 2**20))
        request = self.rfile.read(length)
        if len(request) < length:
            raise ConnectionAbortedError("cut in the middle")
        method, arguments = pickle.loads(request)
        body = pickle.dumps(getattr(self.server.store, method)(*arguments))  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # the proxy's doing
            super().handle()

    def log_message(self, format: str, *args: object) -> None:
        pass


class ToyStore(Store):
    """A client of `_Server`, without any timeout of its own."""

    capabilities = replace(MemoryStore.capabilities, remote=True)

    def __init__(self, url: str, schema: Schema) -> None:
        self.schema = schema
        self._http = httpx.Client(base_url=url, timeout=None)

    def _ask(self, method: str, *arguments: Any) -> Any:
        try:
            response = self._http.post("/", content=pickle.dumps((method, arguments)))
        except httpx.TransportError as error:
            raise ConnectionFailed(f"{type(error).__name__}: {error}") from error
        if response.status_code == 429:
            raise Throttled("asked too much", retry_after=float(response.headers.get("Retry-After", 0)))
        if response.status_code != 200:
            raise ConnectionFailed(f"status {response.status_code}")
        return pickle.loads(response.content)

    def _upsert(self, records: list[Record]) -> None:
        self._ask("_upsert", records)

    def _delete(self, ids: list[str]) -> None:
        self._ask("_delete", ids)

    def _delete_where(self, where: Filter) -> None:
        self._ask("_delete_where", where)

    def _get(self, ids: list[str], with_vectors: bool) -> list[Record]:
        found: list[Record] = self._ask("_get", ids, with_vectors)
        return found

    def _count(self, where: Filter | None) -> int:
        return int(self._ask("_count", where))

    def _scan(self, cursor: str | None, limit: int, where: Filter | None, with_vectors: bool) -> Page:
        page: Page = self._ask("_scan", cursor, limit, where, with_vectors)
        return page

    def _search_many(self, queries: list[Query]) -> list[list[Hit]]:
        hits: list[list[Hit]] = self._ask("_search_many", queries)
        return hits

    def close(self) -> None:
        self._http.close()


@pytest.fixture
def server() -> Iterator[_Server]:
    with _Server(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def run(
    server: _Server, client: Callable[[str, Schema], Store] = ToyStore, speaks: Speaks = "http", **settings: Any
) -> faults.Report:
    def connect(url: str, schema: Schema | None) -> Store:
        if schema is not None:
            server.store = MemoryStore.create(schema)
        assert server.store is not None
        return stack_for(client(url, server.store.schema))

    where = (server.server_address[1], speaks)
    return faults.check(lambda port: f"http://127.0.0.1:{port}", where, connect=connect, **settings)


@pytest.mark.parametrize("speaks", ["http", "bytes"])
def test_what_is_acknowledged_is_kept(server: _Server, speaks: Speaks) -> None:
    report = run(server, speaks=speaks, seconds=0.2)
    assert len([kind for kind, count in report.faults.items() if count]) >= 8
    assert (report.faults["answer http"] > 0) == (speaks == "http")


class SaysItIsDone(ToyStore):
    def _upsert(self, records: list[Record]) -> None:
        with contextlib.suppress(ConnectionFailed):
            super()._upsert(records)


class DeletesNothing(ToyStore):
    def _delete(self, ids: list[str]) -> None:
        with contextlib.suppress(ConnectionFailed):
            super()._delete(ids)


class GivesUp(ToyStore):
    def _ask(self, method: str, *arguments: Any) -> Any:
        try:
            return super()._ask(method, *arguments)
        except ConnectionFailed as error:
            raise StorageError(str(error)) from error


class ReadsNothing(ToyStore):
    def _get(self, ids: list[str], with_vectors: bool) -> list[Record]:
        try:
            return super()._get(ids, with_vectors)
        except NearestError:
            return []


@pytest.mark.parametrize("wrong", [SaysItIsDone, DeletesNothing, GivesUp, ReadsNothing])
def test_what_is_wrong_is_seen(server: _Server, wrong: Callable[[str, Schema], Store]) -> None:
    with pytest.raises(AssertionError):
        run(server, wrong, seconds=0.2)
