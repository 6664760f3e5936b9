"""Chroma, embedded and as a server: the conformance suite on both, and what is its own."""

from __future__ import annotations

import contextlib
import http.server
import itertools
import math
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import chromadb
import httpx
import pytest
from chromadb.config import Settings
from hypothesis import given
from hypothesis import strategies as st

from nearest import filters, stores
from nearest.contract import Dense, Fused, IndexParams, Query, Record, Schema, VectorSpec
from nearest.errors import (
    AccessDenied,
    BatchFailed,
    CollectionLocked,
    ConnectionFailed,
    InvalidInput,
    InvalidRecord,
    MissingDependency,
    NotACollection,
    SchemaMismatch,
    Throttled,
    TimedOut,
    UnsupportedError,
)
from nearest.layers.residual import Residual
from nearest.stores import chroma
from nearest.stores.chroma import ChromaStore
from nearest.testing import StoreSuite
from nearest.testing.base import check_ranking, true_scores, vector
from tests.stores.by_url import ByURL


class TestChromaFolder(ByURL, StoreSuite):
    module = chroma

    @pytest.fixture
    def new_url(self, tmp_path: Path) -> Callable[[Schema], str]:
        numbers = itertools.count()
        return lambda _: f"chroma:{tmp_path}/collection-{next(numbers)}"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("chroma")) as (address, _):
        yield address


@contextlib.contextmanager
def running(folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """`chroma run` on a free port: its address, chroma://127.0.0.1:port."""
    run = [sys.executable, "-c", "from chromadb.cli.cli import app; app()", "run", "--path", str(folder)]
    for _ in range(3):  # another process may take the port first
        port = free_port()
        with (folder / "log").open("w") as log:
            process = subprocess.Popen([*run, "--host", "127.0.0.1", "--port", str(port)], stdout=log, stderr=log)
        try:
            if answers(process, f"http://127.0.0.1:{port}/api/v2/heartbeat"):
                yield f"chroma://127.0.0.1:{port}", process
                return
        finally:
            process.kill()
            process.wait()
    pytest.fail(f"chroma run did not start: {(folder / 'log').read_text()[-2000:]}")


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def answers(process: subprocess.Popen[bytes], url: str) -> bool:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if httpx.get(url, timeout=5).is_success:
                return True
        except httpx.TransportError:
            pass
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
            return False
    return False


class TestChromaServer(ByURL, StoreSuite):
    module = chroma

    @pytest.fixture
    def new_url(self, server: str) -> Callable[[Schema], str]:
        return lambda _: f"{server}/{uuid.uuid4()}"


# --- what is Chroma's own --------------------------------------------------------------------------

SCHEMA = Schema(vectors={"dense": VectorSpec(4)}, fields={"n": "integer"})


@pytest.fixture(params=["folder", "server"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a collection that is not there, in a folder and on a server."""
    if request.param == "folder":
        return f"chroma:{tmp_path / 'collection'}"
    return f"{request.getfixturevalue('server')}/{uuid.uuid4()}"


def record(record_id: str, payload: dict[str, Any] | None = None, seed: int = 0) -> Record:
    return Record(record_id, {"dense": vector(seed)}, payload or {})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("chroma:", "folder and a collection"),
        ("chroma:collection/", "folder and a collection"),
        ("chroma://host:8000", "chroma://host:8000/collection"),
        ("chroma://:8000/collection", "chroma://host:8000/collection"),
        ("chroma://host:port/collection", "chroma://host:8000/collection"),
        ("chroma://key@host/collection", "CHROMA_API_KEY"),
        ("chroma://host/collection?tls=true", "no option 'tls'.*ssl"),
        ("chroma:dir/collection?tenant=t", "no option 'tenant'.*sync_threshold"),
        ("chroma:dir/collection?sync_threshold=1", "sync_threshold must be"),
        ("chroma://host/collection?ssl=1", "ssl must be"),
        ("chroma://host/collection?timeout=soon", "timeout must be"),
        ("chroma://host/collection?key_header=cookie", "key_header must be"),
    ],
)
def test_a_bad_url_is_refused(given: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        stores.connect(given, SCHEMA)


@pytest.mark.parametrize("name", ["ab", "a b", "-abc", "abc-", "é" * 3, "a" * 513])
def test_a_name_that_chroma_forbids_is_refused_before_anything_is_made(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="3 to 512 characters"):
        stores.connect(f"chroma:{tmp_path}/new/{name}", SCHEMA)
    assert not (tmp_path / "new").exists()


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(ConnectionFailed, match="is the server running"):
        stores.connect(f"chroma://127.0.0.1:{free_port()}/collection", SCHEMA)


@contextlib.contextmanager
def fake_server(status: int, headers: dict[str, str] | None = None) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A server that says this to everything; its address, and the headers of what it was asked."""
    asked: list[dict[str, str]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"chroma://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def test_a_wrong_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHROMA_API_KEY", "sesame")
    for status in (401, 403):
        with fake_server(status) as (address, asked), pytest.raises(AccessDenied, match="CHROMA_API_KEY") as raised:
            stores.connect(f"{address}/collection", SCHEMA)
        assert asked[0]["x-chroma-token"] == "sesame"
        assert "sesame" not in str(raised.value)
    with fake_server(401) as (address, asked), pytest.raises(AccessDenied):
        stores.connect(f"{address}/collection?key_header=authorization", SCHEMA)
    assert asked[0]["authorization"] == "Bearer sesame"


def test_a_server_that_is_asked_too_much() -> None:
    for status in (429, 503):
        with fake_server(status, {"Retry-After": "7"}) as (address, _), pytest.raises(Throttled) as raised:
            stores.connect(f"{address}/collection", SCHEMA)
        assert raised.value.context["retry_after"] == 7


def test_a_server_that_says_it_was_late() -> None:
    for status in (408, 504):
        with fake_server(status) as (address, _), pytest.raises(TimedOut) as raised:
            stores.connect(f"{address}/collection", SCHEMA)
        assert raised.value.retryable


def test_fused_queries_are_one_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with stores.connect(f"chroma:{tmp_path}/fused", SCHEMA) as store:
        assert isinstance(store, ChromaStore)
        store.upsert([Record(f"r{i}", {"dense": [1.0, i, 0, 0]}) for i in range(9)])
        asked = Mock(wraps=store._nearest)
        monkeypatch.setattr(store, "_nearest", asked)
        find = Fused((Dense([1.0, 0, 0, 0]), Dense([1.0, 8, 0, 0])))
        first, second = store.search_many([Query(find, k=3), Query(find, k=3)])
        assert [hit.id for hit in first] == [hit.id for hit in second]
        assert asked.call_count == 1


def test_a_server_that_does_not_answer_in_time() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(TimedOut, match="timeout"):
            stores.connect(f"chroma://127.0.0.1:{silent.getsockname()[1]}/collection?timeout=0.2", SCHEMA)


def test_a_server_that_is_something_else() -> None:
    with fake_server(404) as (address, _), pytest.raises(NotACollection):
        stores.connect(f"{address}/collection", SCHEMA)


def test_an_unknown_tenant(server: str) -> None:
    with pytest.raises(NotACollection, match="tenant"):
        stores.connect(f"{server}/collection?tenant=nobody", SCHEMA)


def test_a_server_that_goes_away(tmp_path: Path) -> None:
    with running(tmp_path) as (address, process):
        store = stores.connect(f"{address}/collection", SCHEMA)
        process.kill()
        process.wait()
        with pytest.raises(ConnectionFailed):
            store.count()
        with pytest.raises(ConnectionFailed):
            store.upsert([record("a")])
        store.close()


def test_without_a_schema_there_must_be_a_collection(url: str, tmp_path: Path) -> None:
    with pytest.raises(NotACollection, match="give a schema"):
        stores.connect(url)
    assert list(tmp_path.glob("collection*")) == []


def test_a_collection_that_nearest_did_not_make(url: str, tmp_path: Path) -> None:
    with client_of(url) as (client, name):
        client.create_collection(name, embedding_function=None)
    for schema in (None, SCHEMA):
        with pytest.raises(NotACollection, match="not made by nearest"):
            stores.connect(url, schema)


def test_another_dimension_or_metric(url: str) -> None:
    stores.connect(url, SCHEMA).close()
    for spec in (VectorSpec(5), VectorSpec(4, "l2")):
        with pytest.raises(SchemaMismatch, match="vectors was"):
            stores.connect(url, Schema(vectors={"dense": spec}, fields={"n": "integer"}))


def test_the_index_is_made_as_asked(url: str) -> None:
    schema = Schema(vectors={"dense": VectorSpec(4, "dot")}, index=IndexParams(m=7, ef_construct=77, ef=33))
    stores.connect(f"{url}?sync_threshold=500", schema).close()
    with client_of(url) as (client, name):
        hnsw = client.get_collection(name, embedding_function=None).configuration_json["hnsw"]
    asked = {"space": "ip", "max_neighbors": 7, "ef_construction": 77, "ef_search": 33, "sync_threshold": 500}
    assert {key: hnsw[key] for key in asked} == asked


def test_a_deleted_collection(url: str) -> None:
    with stores.connect(url, SCHEMA) as store, client_of(url) as (client, name):
        client.delete_collection(name)
        with pytest.raises(NotACollection):
            store.count()


def test_a_record_that_is_too_large_for_a_server(server: str) -> None:
    with stores.connect(f"{server}/{uuid.uuid4()}", SCHEMA) as store:
        with pytest.raises(BatchFailed, match="large") as raised:
            store.upsert([record("a"), record("large", {"text": "x" * (45 * 2**20)}), record("b")])
        assert [(i, type(e)) for i, e in raised.value.failed.items()] == [("large", InvalidRecord)]
        assert not raised.value.retryable
        assert {r.id for r in store.scan_all()} == {"a", "b"}


def test_a_client_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "chromadb", None)
    with pytest.raises(MissingDependency, match=r"pip install 'nearest\[chroma\]'"):
        stores.connect("chroma:dir/collection", SCHEMA)


def test_a_folder_is_for_one_opener(tmp_path: Path) -> None:
    url = f"chroma:{tmp_path}/collection"
    code = "import sys; from nearest import stores; stores.connect(sys.argv[1])"
    with stores.connect(url, SCHEMA), stores.connect(f"chroma:{tmp_path}/another", SCHEMA) as another:
        with pytest.raises(CollectionLocked):
            stores.connect(url)
        done = subprocess.run([sys.executable, "-c", code, url], capture_output=True, text=True, check=False)
        assert "CollectionLocked" in done.stderr
        another.upsert([record("a")])
    stores.connect(url).close()


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotACollection, match="is a file"):
        stores.connect(f"chroma:{tmp_path}/file/collection", SCHEMA)


def test_k_hits_come_where_the_graph_alone_does_not_reach_them(url: str) -> None:
    """With one link a node the graph falls apart."""
    schema = Schema(vectors={"dense": VectorSpec(4)}, index=IndexParams(m=1, ef_construct=1, ef=1))
    with stores.connect(url, schema) as store:
        store.upsert([record(f"r{i:03}", {"n": i}, i) for i in range(300)])
        for where in (None, {"n": {"$lt": 200}}):
            count = store.count(where)
            hits = store.search(Query(Dense(vector(7)), k=150, where=filters.parse(where), with_vectors=True))
            assert len(hits) == 150
            every = store.search(Query(Dense(vector(7)), k=1000, where=filters.parse(where)))
            truth = true_scores("cosine", vector(7), {f"r{i:03}": vector(i) for i in range(count)})
            check_ranking(every, truth, 1000)


def test_an_equality_of_a_long_string_is_completed(url: str) -> None:
    long, longer = "x" * 300, "x" * 301
    with stores.connect(url, SCHEMA) as bare:
        with pytest.raises(UnsupportedError):
            bare.count({"t": long})
        store = Residual(bare)
        store.upsert([record("a", {"t": long}), record("b", {"t": [longer, "y"]}), record("c", {"t": "y"})])
        for where, ids in (
            ({"t": long}, {"a"}),
            ({"t": {"$in": [longer, "z"]}}, {"b"}),
            ({"t": {"$ne": long}}, {"b", "c"}),
            ({"t": {"$in": ["y", *map(str, range(12_000))]}}, {"b", "c"}),
        ):
            assert {r.id for r in store.scan_all(where=where)} == ids


def test_a_condition_beyond_what_sqlite_takes(url: str) -> None:
    with stores.connect(url, SCHEMA) as store:
        store.upsert([record("a", {"n": 1})])
        with pytest.raises(UnsupportedError, match="too large"):
            store.count({"$or": [{f"n{i}": i} for i in range(20_000)]})
        assert store.count({"n": 1}) == 1


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63 - 1), st.data())
def test_bounds_hold_what_the_reference_holds(bound: float, data: st.DataObject) -> None:
    """Of numbers near the bound above all."""
    close = [math.nextafter(float(bound), math.inf), math.nextafter(float(bound), -math.inf), float(bound)]
    close += [n for n in (math.floor(bound), math.floor(bound) + 1, math.floor(bound) - 1) if abs(n) < 2**63]
    value = data.draw(st.sampled_from([x for x in close if math.isfinite(x)]))
    op = data.draw(st.sampled_from(filters.ORDER_OPS))
    kind, stored = chroma._classify(value)
    bounds = {of: (order, at) for of, order, at in chroma._bounds(op, bound)}
    order, at = bounds[kind]
    holds = {"$gt": stored > at, "$gte": stored >= at, "$lt": stored < at, "$lte": stored <= at}[order]
    assert holds == filters.evaluate(filters.parse({"a": {op: bound}}), {"a": value})


@pytest.mark.parametrize("written", [5, 25], ids=["before the first saving", "after some"])
def test_an_index_whose_saving_was_cut_off_is_put_back(tmp_path: Path, written: int) -> None:
    url = f"chroma:{tmp_path}/collection?sync_threshold=10"
    code = f"""
import os
from nearest import stores
from nearest.contract import Schema
from tests.stores.test_chroma import SCHEMA, record
store = stores.connect({url!r}, SCHEMA)
for i in range({written}):
    store.upsert([record(f"r{{i}}", {{"n": i}}, i)])
store.delete(["r1"])
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
    torn = [file for file in tmp_path.glob("*-*-*-*-*/*") if file.is_file()]
    assert torn
    for file in torn:  # as far as a killed process had come with it
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    ids = {f"r{i}" for i in range(written)} - {"r1"}
    for _ in range(2):
        with stores.connect(url) as store:
            assert {r.id for r in store.scan_all(with_vectors=True)} == ids
            truth = true_scores("cosine", vector(9), {i: vector(int(i[1:])) for i in ids})
            check_ranking(store.search(Query(Dense(vector(9)), k=100)), truth, 100)


def test_facts(url: str) -> None:
    with stores.connect(url, SCHEMA) as store:
        store.upsert([record("a"), record("b")])
        told = store.stats()
        assert told["indexed"] == 2
        assert "hnsw" in told["index"]
        assert ("disk_bytes" in told) == (not url.startswith("chroma://"))


@contextlib.contextmanager
def client_of(url: str) -> Iterator[tuple[Any, str]]:
    """Chroma's own client, beside ours, and the collection's name."""
    where, _, name = url.removeprefix("chroma:").rpartition("/")
    settings = Settings(anonymized_telemetry=False)
    if where.startswith("//"):
        host, _, port = where.removeprefix("//").partition(":")
        client: Any = chromadb.HttpClient(host=host, port=int(port), settings=settings)
    else:
        client = chromadb.PersistentClient(Path(where).resolve(), settings=settings)
    try:
        yield client, name
    finally:
        client.close()
