"""Milvus by Milvus Lite: the conformance suite on a file and over the network, and what is Milvus' own.

Over the network runs all of the suite but the largest upsert, for time's sake (Milvus Lite makes every row in Python),
and with the filter terms that a server of Milvus gets by default (`terms=array`).
"""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearest import filters, stores
from nearest.contract import (
    Capabilities,
    Dense,
    Fused,
    IndexParams,
    Query,
    Record,
    Schema,
    StoreURL,
    Text,
    VectorSpec,
)
from nearest.errors import (
    AccessDenied,
    CollectionLocked,
    ConnectionFailed,
    InvalidInput,
    InvalidRecord,
    MissingDependency,
    NearestError,
    NotACollection,
    SchemaMismatch,
    Throttled,
    TimedOut,
    UnsupportedError,
)
from nearest.layers import stack_for
from nearest.layers._wrapper import Layer
from nearest.layers.residual import Residual
from nearest.layers.retry import Retry
from nearest.stores import milvus
from nearest.stores._milvus import EXACT_FILTERS
from nearest.testing import StoreSuite
from nearest.testing.base import check_ranking, plain, true_scores, vector
from tests.stores.by_url import ByURL

pymilvus = pytest.importorskip("pymilvus", reason="pymilvus is not installed: nearest[milvus]")
pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")

SERVER = milvus._Server((2, 6))
LITE = milvus._Server((3, 2), lite=True)
SCHEMA = Schema(vectors={"dense": VectorSpec(4)})
HNSW = {"M": 16, "efConstruction": 128}
REFINE = {"refine": True, "refine_type": "FP32"}


class TestMilvusFile(ByURL, StoreSuite):
    module = milvus
    declared = Capabilities(LITE.features(), EXACT_FILTERS)

    @pytest.fixture
    def new_url(self, tmp_path: Path) -> Callable[[Schema], str]:
        numbers = itertools.count()
        return lambda _: f"milvus:{tmp_path}/{next(numbers)}.db"


class TestMilvusNetwork(ByURL, StoreSuite):
    module = milvus
    declared = Capabilities(LITE.features(), EXACT_FILTERS)
    test_more_records_than_one_batch_takes = None  # type: ignore[assignment]

    @pytest.fixture
    def new_url(self, server: str) -> Callable[[Schema], str]:
        return lambda _: f"{server}/c{next(_numbers)}?terms=array"


_numbers = itertools.count()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a `milvus-lite server`."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    command = [
        sys.executable, "-m", "milvus_lite", "server", "--host", "127.0.0.1", "--port", str(port),
        "--data-dir", str(tmp_path_factory.mktemp("milvus")),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
        assert process.stdout is not None
        assert b"listening" in process.stdout.readline()
        yield f"milvus://127.0.0.1:{port}"
        process.terminate()


@pytest.fixture
def file(tmp_path: Path) -> str:
    return f"milvus:{tmp_path}/x.db"


# --- a URL ---


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("milvus:", "needs a server or a file"),
        ("milvus://host", "write milvus://"),
        ("milvus://host/", "write milvus://"),
        ("milvus://host:x/c", "write milvus://"),
        ("milvus://host/a/b/c", "write milvus://"),
        ("milvus://host/c?colour=red", "no option colour; there are .*consistency"),
        ("milvus://host/c?index=btree", "index must be one of hnsw, "),
        ("milvus://host/c?nlist=0", "nlist must be an integer"),
        ("milvus://host/c?timeout=soon", "timeout must be seconds"),
        ("milvus://host/c?consistency=weak", "consistency must be one of strong"),
        ("milvus://host/c?collection=d", "the last part of the path"),
        ("milvus:./x.db?token=t", "neither token nor TLS"),
        ("milvus://host/1st", "cannot name a collection"),
        ("milvus:./x.db?collection=a-b", "cannot name a collection"),
    ],
)
def test_a_bad_url_is_refused(url: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        stores.connect(url, SCHEMA)


def test_a_url_says_where_and_as_whom() -> None:
    address = milvus._address(StoreURL.parse("milvus://me:p%40ss@[::1]:1/db/c?secure=true"))
    assert (address.uri, address.token, address.database, address.collection) == (
        "https://[::1]:1", "me:p@ss", "db", "c",
    )  # fmt: skip
    assert "p@ss" not in address.shown
    address = milvus._address(StoreURL.parse("milvus://x.zillizcloud.com:443/c?token=t"))
    assert (address.uri, address.token) == ("https://x.zillizcloud.com:443", "t")


# --- failures ---


def test_a_missing_client_is_named(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(MissingDependency, match=r"pip install 'nearest\[milvus\]'"):
        stores.connect("milvus://127.0.0.1:1/c", SCHEMA)
    monkeypatch.setitem(sys.modules, "milvus_lite", None)
    with pytest.raises(MissingDependency, match="pip install 'milvus-lite>=") as caught:
        stores.connect(file, SCHEMA)
    assert str(caught.value).partition("run: ")[2] in (milvus.__doc__ or "")  # docs/stores.md shows it


def test_a_refused_connection() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(ConnectionFailed, match=f"127.0.0.1:{port}/c cannot be reached"):
            stores.connect(f"milvus://me:secret@127.0.0.1:{port}/c?timeout=1", SCHEMA)


class Double:
    """Answers as a server of Milvus 2.6 does, up to what `describe` does; it holds no collection."""

    def __init__(self, describe: Callable[[Any], Any], version: str = "2.6.1", connect: Any = None) -> None:
        import grpc  # type: ignore[import-untyped]
        from pymilvus.grpc_gen import milvus_pb2, milvus_pb2_grpc  # type: ignore[import-untyped]

        class Servicer(milvus_pb2_grpc.MilvusServiceServicer):  # type: ignore[misc]
            def Connect(self, request: Any, context: Any) -> Any:
                if connect is not None:
                    connect(context)
                return milvus_pb2.ConnectResponse()

            def GetVersion(self, request: Any, context: Any) -> Any:
                return milvus_pb2.GetVersionResponse(version=version)

            def DescribeCollection(self, request: Any, context: Any) -> Any:
                return milvus_pb2.DescribeCollectionResponse(status=describe(context))

        self._server = grpc.server(futures.ThreadPoolExecutor(2))
        milvus_pb2_grpc.add_MilvusServiceServicer_to_server(Servicer(), self._server)
        self.url = f"milvus://me:secret@127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}/c?timeout=1"

    def __enter__(self) -> str:
        self._server.start()
        return self.url

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait()


def _status(**given: Any) -> Any:
    from pymilvus.grpc_gen import common_pb2

    return common_pb2.Status(**given)


def test_a_wrong_password() -> None:
    import grpc

    def refuse(context: Any) -> Any:
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "auth check failure, please check username and password")

    for double in (Double(lambda _: None, connect=refuse), Double(refuse)):
        with double as url, pytest.raises(AccessDenied, match="check user, password") as caught:
            stores.connect(url, SCHEMA)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"code": 8, "error_code": 49, "reason": "rate limit exceeded"}, Throttled),
        ({"code": 1100, "error_code": 1, "reason": "invalid parameter"}, InvalidInput),
        ({"code": 1400, "error_code": 1, "reason": "privilege is missing: PermissionDenied"}, AccessDenied),
        ({"code": 500, "error_code": 1, "reason": "not now", "retriable": True}, ConnectionFailed),
        ({"code": 4, "error_code": 1, "reason": "queue is full"}, Throttled),
        ({"code": 10001, "error_code": 1, "reason": "context deadline exceeded"}, TimedOut),
    ],
)
def test_what_a_server_answers_becomes_ours(status: dict[str, Any], expected: type[NearestError]) -> None:
    asked = []

    def describe(_: Any) -> Any:
        asked.append(1)
        return _status(**status)

    with Double(describe) as url, pytest.raises(expected):
        stores.connect(url, SCHEMA)
    assert len(asked) == 1, "the client repeated the call"


@pytest.mark.parametrize(
    ("code", "said", "retryable"),
    [
        ("UNAVAILABLE", "socket closed", True),
        ("ABORTED", "try again", True),
        ("INTERNAL", "Received RST_STREAM with error code 2", True),
        ("UNKNOWN", "Stream removed", True),
        ("INTERNAL", "a bug", False),
        ("UNIMPLEMENTED", "no such call", False),
    ],
)
def test_a_call_that_broke_can_be_repeated(code: str, said: str, retryable: bool) -> None:
    import grpc

    def broken(context: Any) -> Any:
        context.abort(grpc.StatusCode[code], said)

    with Double(broken) as url, pytest.raises(NearestError) as caught:
        stores.connect(url, SCHEMA)
    assert caught.value.retryable == retryable
    assert isinstance(caught.value, ConnectionFailed) == retryable


def test_a_server_is_across_a_network_and_a_file_is_not(server: str, file: str) -> None:
    assert milvus.STORE.capabilities.remote
    with stores.connect(f"{server}/remote", SCHEMA) as store, stack_for(store) as layered:
        assert {"Retry", "Timeout"} <= _layers(layered)
    with stores.connect(file, SCHEMA) as store, stack_for(store) as layered:
        assert not {"Retry", "Timeout"} & _layers(layered)


def _layers(store: Any) -> set[str]:
    found = {type(store).__name__}
    return found | _layers(store.inner) if isinstance(store, Layer) else found


def test_a_server_that_does_not_answer() -> None:
    ended = threading.Event()
    try:
        with Double(lambda _: ended.wait(30)) as url, pytest.raises(TimedOut, match="within 1 s"):
            stores.connect(url, SCHEMA)
    finally:
        ended.set()


def test_a_server_that_is_too_old() -> None:
    with Double(lambda _: None, "v2.4.9") as url, pytest.raises(UnsupportedError, match=r"2\.5 or newer"):
        stores.connect(url, SCHEMA)


def test_a_file_that_another_process_has_open(tmp_path: Path) -> None:
    import milvus_lite  # type: ignore[import-untyped]

    other = milvus_lite.MilvusLite(str(tmp_path / "x.db"))
    try:
        with pytest.raises(CollectionLocked, match="open in another process"):
            stores.connect(f"milvus:{tmp_path}/x.db", SCHEMA)
    finally:
        other.close()
    stores.connect(f"milvus:{tmp_path}/x.db", SCHEMA).close()


# --- a collection's life ---


def test_no_collection_and_one_of_another_program(server: str) -> None:
    with pytest.raises(NotACollection, match="give a schema"):
        stores.connect(f"{server}/nothing")
    client = pymilvus.MilvusClient(uri=server.replace("milvus:", "http:"), dedicated=True)
    client.create_collection("foreign", dimension=4)
    for schema in (None, SCHEMA):
        with pytest.raises(NotACollection, match="not a collection of nearest"):
            stores.connect(f"{server}/foreign", schema)
    assert client.describe_collection("foreign")["collection_name"] == "foreign"
    client.close()


def test_several_collections_share_a_file(file: str) -> None:
    with stores.connect(f"{file}?collection=a", SCHEMA) as one, stores.connect(f"{file}?collection=b", SCHEMA) as other:
        one.upsert([plain(0)])
        assert (one.count(), other.count()) == (1, 0)
        with stores.connect(f"{file}?collection=a") as again:
            assert again.count() == 1
        assert one.count() == 1


def test_a_creation_that_was_cut_off_is_finished(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(milvus.MilvusStore, "_complete", cut)
        with pytest.raises(KeyboardInterrupt):
            stores.connect(file, SCHEMA)
    with stores.connect(file) as store:
        store.upsert([plain(0)])
        assert len(store.search(Query(Dense(vector(0))))) == 1


def test_a_schema_that_cannot_be_held_leaves_nothing(file: str) -> None:
    bad = [
        Schema(vectors={"dense": VectorSpec(1)}),
        Schema(vectors={"dense": VectorSpec(40_000)}),
        Schema(vectors={"dense": VectorSpec(4)}, fields={f"f{i}": "integer" for i in range(40)}),
        Schema(vectors={"dense": VectorSpec(4)}, index=IndexParams(quantization="scalar")),
    ]
    for schema in bad:
        with pytest.raises(UnsupportedError):
            stores.connect(file, schema)
    with pytest.raises(UnsupportedError, match="it has hnsw, ivf_flat, flat, autoindex"):
        stores.connect(f"{file}?index=diskann", SCHEMA)
    with pytest.raises(NotACollection):
        stores.connect(file)


def test_a_file_that_is_not_there_is_not_made_by_looking_for_it(file: str, tmp_path: Path) -> None:
    with pytest.raises(NotACollection, match="give a schema"):
        stores.connect(file)
    with pytest.raises(UnsupportedError, match="it has hnsw"):
        stores.connect(f"{file}?index=diskann", SCHEMA)
    assert list(tmp_path.iterdir()) == []


def test_other_options_are_told(file: str) -> None:
    stores.connect(f"{file}?index=flat", SCHEMA).close()
    with pytest.raises(SchemaMismatch, match="index was flat, now hnsw"):
        stores.connect(f"{file}?index=hnsw")
    stores.connect(f"{file}?index=flat").close()


# --- Milvus' limits, indexes, partitions, consistency ---


def test_a_record_over_the_limits_is_refused_before_anything_is_written(file: str) -> None:
    with stores.connect(file, SCHEMA) as store:
        for payload in ({"a": "é" * 40_000}, {"a": list(range(3_000))}):
            with pytest.raises(InvalidRecord, match="'large'"):
                store.upsert([plain(0), Record("large", {"dense": vector(1)}, payload)])
            assert store.count() == 0
        layered = Retry(store)
        layered.capabilities = replace(store.capabilities, max_batch=1)  # type: ignore[misc]  # a ClassVar
        with pytest.raises(InvalidRecord, match="'large'"):
            layered.upsert([plain(0), Record("large", {"dense": vector(1)}, {"a": "x" * 70_000})])
        assert store.count() == 0
        store.upsert([Record("fits", {"dense": vector(1)}, {"a": "x" * 65_000})])
        assert len(store.get(["fits"])[0].payload["a"]) == 65_000


@pytest.mark.parametrize("index", ["hnsw", "ivf_flat", "flat", "autoindex"])
def test_each_index_of_milvus_lite(file: str, index: str) -> None:
    cells = "&nlist=4&nprobe=4" if index == "ivf_flat" else ""
    with stores.connect(f"{file}?index={index}{cells}", SCHEMA) as store:
        store.upsert([plain(i) for i in range(200)])
        store.optimize()
        told = store.stats()
        assert told["disk_bytes"] > 0
        assert index.replace("_", "") in told["index"].lower().replace("_", "")
        best = max(range(200), key=lambda i: float(vector(1, 1) @ vector(i)) / float(np.linalg.norm(vector(i))))
        assert store.search(Query(Dense(vector(1, 1)), k=5))[0].id == f"r{best:03}"
        assert ("exact" in store.capabilities) == (index == "flat")
        assert ("hnsw" in store.capabilities) == (index == "hnsw")


@pytest.mark.parametrize("index", ["hnsw", "autoindex", "ivf_flat"])
def test_a_condition_that_few_satisfy_costs_no_recall(file: str, index: str) -> None:
    """Milvus Lite alone finds half of them at 1%, and a tenth at 0.1% (HNSW, 20,000 x 128)."""
    schema = Schema(vectors={"dense": VectorSpec(32)}, fields={"n": "integer"})
    centres = np.random.default_rng(0).normal(size=(100, 32))
    source = np.random.default_rng(1)
    rows = centres[source.integers(0, 100, 5000)] + 0.3 * source.normal(size=(5000, 32))
    with stores.connect(f"{file}?index={index}", schema) as store:
        store.upsert([Record(f"r{i:04}", {"dense": row}, {"n": i % 500}) for i, row in enumerate(rows)])
        store.optimize()
        for most in (5, 120, 400):  # 1, 24 and 80 percent
            where = filters.parse({"n": {"$lt": most}})
            given = {f"r{i:04}": row for i, row in enumerate(rows) if i % 500 < most}
            queries = [centres[c] + 0.3 * source.normal(size=32) for c in range(20)]
            answers = store.search_many([Query(Dense(query), where=where) for query in queries])
            found = 0
            for query, hits in zip(queries, answers, strict=True):
                truth = true_scores("cosine", query, given)
                found += len({hit.id for hit in hits} & set(sorted(truth, key=lambda i: -truth[i])[:10]))
                assert all(hit.score == pytest.approx(truth[hit.id], abs=1e-5) for hit in hits)
                assert all(hit.payload == {"n": int(hit.id[1:]) % 500} and not hit.vectors for hit in hits)
                if len(given) <= milvus._FEW:
                    check_ranking(hits, truth, 10)
            if index != "ivf_flat":  # of which a search visits some cells
                assert found >= 0.98 * 200, most
        query = Query(Dense(queries[0]), where=where, with_vectors=True, with_payload=False)
        assert store.plan(query)["completed"] == ["where, up to 1000 matches"]
        assert store.plan(replace(query, where=None))["completed"] == []
        few = store.search(replace(query, where=filters.parse({"n": 7})))
        assert len(few) == 10
        assert all(hit.payload == {} and hit.vectors["dense"].shape == (32,) for hit in few)
        assert store.search(replace(query, where=filters.parse({"n": -1}))) == []
        if index == "hnsw":  # what is known of a condition ends with a write
            store.delete_where({"n": {"$lt": 398}})
            left = {i: row for i, row in given.items() if int(i[1:]) % 500 >= 398}
            check_ranking(store.search(query), true_scores("cosine", queries[0], left), 10)


@pytest.mark.parametrize(
    ("option", "kinds"),
    [
        ("nlist", {"ivf_flat", "ivf_sq8", "ivf_pq", "ivf_rabitq", "scann"}),
        ("nprobe", {"ivf_flat", "ivf_sq8", "ivf_pq", "ivf_rabitq", "scann"}),
        ("subvectors", {"hnsw_pq", "ivf_pq"}),
        ("search_list", {"diskann"}),
    ],
)
def test_an_option_of_another_index_is_refused(option: str, kinds: set[str]) -> None:
    for index in milvus._KINDS:
        address = milvus._address(StoreURL.parse(f"milvus://host/c?index={index}&{option}=2"))
        if index in kinds:
            assert milvus._choose(address, SERVER, SCHEMA)["index"] == index
        else:
            with pytest.raises(InvalidInput, match=f"index={index} has no {option}; leave it out"):
                milvus._choose(address, SERVER, SCHEMA)


def test_an_option_of_another_index_is_refused_of_an_old_collection_too(file: str) -> None:
    with pytest.raises(InvalidInput, match="index=hnsw has no nlist"):
        stores.connect(f"{file}?nlist=4", SCHEMA)
    with pytest.raises(NotACollection):
        stores.connect(file)
    stores.connect(file, SCHEMA).close()
    for option in ("nprobe", "search_list"):
        with pytest.raises(InvalidInput, match=f"index=hnsw has no {option}"):
            stores.connect(f"{file}?{option}=4")
    stores.connect(file).close()


def test_hnsw_parameters_need_hnsw(file: str) -> None:
    with pytest.raises(UnsupportedError, match="HNSW"):
        stores.connect(f"{file}?index=ivf_flat", Schema(vectors={"dense": VectorSpec(4)}, index=IndexParams(m=32)))


@pytest.mark.parametrize(
    ("quantization", "index_type", "params"),
    [
        ("none", "HNSW", {**HNSW}),
        ("scalar", "HNSW_SQ", {**HNSW, "sq_type": "SQ8", **REFINE}),
        ("product", "HNSW_PQ", {**HNSW, "m": 96, "nbits": 8, **REFINE}),
        ("binary", "IVF_RABITQ", {**REFINE}),
    ],
)
def test_quantization_on_a_server(quantization: Any, index_type: str, params: dict[str, Any]) -> None:
    schema = Schema(vectors={"dense": VectorSpec(384)}, index=IndexParams(quantization=quantization))
    address = milvus._address(StoreURL.parse("milvus://host/c"))
    layout = milvus._choose(address, SERVER, schema)
    assert milvus._KINDS[layout["index"]].index_type == index_type
    assert milvus._build_params(schema, layout, 384) == params
    assert layout["terms"] == "array"


def test_what_a_server_can_do_is_told_by_its_version() -> None:
    assert milvus._Server.of("milvus_lite-3.2.2") == LITE
    assert "binary" in milvus._Server.of("v2.6.1").features()
    assert "binary" not in milvus._Server.of("2.5.4").features()
    cloud = milvus._Server.of("Zilliz Cloud Vector Database(Compatible with Milvus 2.6)")
    assert cloud.features() & {"hnsw", "scalar"} == set()
    binary = Schema(vectors={"dense": VectorSpec(8)}, index=IndexParams(quantization="binary"))
    address = milvus._address(StoreURL.parse("milvus://host/c"))
    with pytest.raises(UnsupportedError, match="binary"):
        milvus._choose(address, milvus._Server((2, 5)), binary)
    assert milvus._choose(address, cloud, SCHEMA)["index"] == "autoindex"
    for url, quantization, error in (
        ("milvus://host/c?index=hnsw_pq", "scalar", InvalidInput),
        ("milvus://host/c?index=ivf_sq8", "scalar", UnsupportedError),
        ("milvus://host/c?partitions=3", "none", InvalidInput),
    ):
        schema = Schema(vectors={"dense": VectorSpec(8)}, index=IndexParams(quantization=quantization))  # type: ignore[arg-type]
        with pytest.raises(error):
            milvus._choose(milvus._address(StoreURL.parse(url)), SERVER, schema)


def test_a_partition_key(file: str) -> None:
    with stores.connect(f"{file}?partition_key=tenant&partitions=4", SCHEMA) as store:
        tenants = ["a", "b", 1, None]
        store.upsert([plain(i, {"tenant": tenants[i % 4]}) for i in range(40)])
        store.upsert([plain(0, {"tenant": "b"})])  # moves
        assert store.count() == 40
        assert [store.count({"tenant": tenant}) for tenant in tenants] == [9, 11, 10, 10]
        assert store.count({"tenant": {"$in": ["a", 1]}}) == 19
        assert store.count({"tenant": {"$ne": "a"}}) == 31
        assert {hit.id for hit in store.search(Query(Dense(vector(0)), k=50, where=filters.parse({"tenant": 1})))} == {
            f"r{i:03}" for i in range(2, 40, 4)
        }
        with pytest.raises(InvalidRecord, match="partition key"):
            store.upsert([plain(1, {"tenant": ["a", "b"]})])


def test_a_weaker_consistency_is_declared(server: str) -> None:
    with stores.connect(f"{server}/weak?consistency=bounded", SCHEMA) as store:
        assert not store.capabilities.read_your_writes
        store.upsert([plain(0)])
        store.wait()
        assert store.count() == 1


def test_what_is_asked_of_the_server_is_narrow(file: str) -> None:
    """Conditions that Milvus cannot run exactly leave few records to be looked at here."""
    schema = Schema(vectors={"dense": VectorSpec(4)}, fields={"n": "integer", "x": "float"})
    with stores.connect(file, schema) as store:
        store.upsert([plain(i, {"n": i, "x": i / 2, "s": f"word{i} and"}) for i in range(100)])
        for where, exact in (
            ({"n": {"$gt": 89.5}}, True),
            ({"$not": {"x": {"$lt": 45}}}, True),
            ({"s": {"$contains": "ord9"}}, False),
        ):
            condition = filters.parse(where)
            assert condition is not None
            bound, whole = filters.upper_bound(condition, store.filter_support)
            assert whole == exact
            assert store.count(bound) in (10, 11)
            assert Residual(store).count(where) == store.count(bound)


@pytest.mark.parametrize("terms", ["text", "array"])
def test_bounds_at_the_ends_of_what_a_column_holds(file: str, terms: str) -> None:
    schema = Schema(vectors={"dense": VectorSpec(4)}, fields={"n": "integer", "x": "float"})
    ends: dict[str, list[Any]] = {
        "n": [2**63 - 1, -(2**63), 0, None, [None], [], [None, -(2**63)], [0, 2**63 - 1]],
        "x": [sys.float_info.max, -sys.float_info.max, 0.5, None, [None], [], [None, -1e308], 2**63 - 1],
    }
    payloads = [{name: value} for name, values in ends.items() for value in values]
    bounds = [2**63 - 1, -(2**63), 2.0**63, -(2.0**63), 1e308, -1e308, sys.float_info.max, -sys.float_info.max, 0]
    with Residual(stores.connect(f"{file}?terms={terms}", schema)) as store:
        store.upsert([plain(i, payload) for i, payload in enumerate(payloads)])
        for name, op, bound in itertools.product(ends, filters.ORDER_OPS, bounds):
            for where in ({name: {op: bound}}, {"$not": {name: {op: bound}}}):
                condition = filters.parse(where)
                expected = {f"r{i:03}" for i, payload in enumerate(payloads) if filters.evaluate(condition, payload)}
                assert {record.id for record in store.scan(where=where).records} == expected, where


def test_fusion_by_milvus_is_fusion_by_us(file: str) -> None:
    schema = Schema(vectors={"dense": VectorSpec(4)}, text="body")
    with stores.connect(file, schema) as store:
        store.upsert([plain(i, {"body": "apple " * (i % 5) + f"pear{i}"}) for i in range(60)])
        find = Fused((Dense(vector(3, 3)), Text("apples")), method="rrf", candidates=20)
        here = {hit.id: hit.score for hit in store.search(Query(find, k=40, explain=True))}
        there = {hit.id: hit.score for hit in store.search(Query(find, k=40))}
        assert there == pytest.approx(here)
