"""The Qdrant store: the conformance suite through the client's HTTP, creation, and how servers refuse."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import grpc  # type: ignore[import-untyped]
import numpy as np
import pytest
from qdrant_client import models

from nearest import stores
from nearest.contract import (
    Dense,
    Fused,
    IndexParams,
    Query,
    Record,
    Schema,
    Text,
    VectorSpec,
    canonical_json,
)
from nearest.errors import (
    AccessDenied,
    BatchFailed,
    CollectionDamaged,
    ConnectionFailed,
    DiskFull,
    InvalidInput,
    InvalidRecord,
    MissingDependency,
    NearestError,
    NotACollection,
    SchemaMismatch,
    StorageError,
    Throttled,
    TimedOut,
    UnsupportedError,
)
from nearest.filters import Comparison
from nearest.layers.residual import Residual
from nearest.stores import qdrant
from nearest.stores.memory import MemoryStore
from nearest.testing import StoreSuite
from tests.stores.by_url import ByURL, real_server
from tests.stores.qdrant_double import Double, serving, serving_grpc

# Local mode, which answers here, says so.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Local mode"),
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect"),
]

SERVER = real_server("qdrant")


class _Remote(ByURL):
    module = qdrant

    @pytest.fixture
    def server(self) -> str:
        """A URL with COLLECTION in place of its name."""
        raise NotImplementedError

    @pytest.fixture
    def new_url(self, server: str) -> Callable[[Schema], str]:
        return lambda _: server.replace("COLLECTION", f"test-{uuid.uuid4().hex}")

    @pytest.fixture
    def urls(self) -> Iterator[dict[int, str]]:
        known: dict[int, str] = {}
        yield known
        for url in set(known.values()):
            with stores.connect(url) as store:
                assert isinstance(store, qdrant.QdrantStore)
                store._open.delete_collection(store._collection)


@pytest.fixture(scope="module")
def local_mode() -> Iterator[Double]:
    with serving(Double()) as double:
        yield double


@pytest.fixture(scope="module")
def local_mode_grpc() -> Iterator[Double]:
    with serving_grpc(Double()) as double:
        yield double


class TestQdrant(_Remote, StoreSuite):
    @pytest.fixture
    def server(self, local_mode: Double) -> str:
        return f"qdrant://127.0.0.1:{local_mode.port}/COLLECTION"


class TestQdrantGRPC(_Remote, StoreSuite):
    @pytest.fixture
    def server(self, local_mode_grpc: Double) -> str:
        return f"qdrant://127.0.0.1:1/COLLECTION?grpc=true&grpc_port={local_mode_grpc.port}"


if SERVER is not None:

    class TestQdrantServer(_Remote, StoreSuite):
        @pytest.fixture
        def server(self) -> str:
            assert SERVER is not None
            return SERVER

else:

    @pytest.mark.skip(reason="NEAREST_TEST_QDRANT_URL names no server; the suite ran on local mode alone")
    def test_the_suite_on_a_server() -> None:
        """In place of `TestQdrantServer`."""


@pytest.mark.parametrize(
    "wrong",
    ["localhost:6333", "http://localhost:6333/COLLECTION", "qdrant://localhost:6333", "qdrant://localhost/docs"],
)
def test_a_server_that_is_named_wrongly_is_no_skip(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEAREST_TEST_QDRANT_URL", wrong)
    with pytest.raises(pytest.UsageError, match="must be written qdrant://"):
        real_server("qdrant")
    monkeypatch.setenv("NEAREST_TEST_QDRANT_URL", "qdrant://key@localhost:6333/COLLECTION?grpc=true")
    assert real_server("qdrant") == "qdrant://key@localhost:6333/COLLECTION?grpc=true"
    monkeypatch.delenv("NEAREST_TEST_QDRANT_URL")
    assert real_server("qdrant") is None


# --- creation --------------------------------------------------------------------------------------

SCHEMA = Schema({"dense": VectorSpec(4)}, text="body", fields={"n": "integer", "tag": "keyword"})


@pytest.fixture
def double() -> Iterator[Double]:
    with serving(Double()) as double:
        yield double


def url(double: Double, rest: str = "") -> str:
    return f"qdrant://127.0.0.1:{double.port}/docs{rest}"


def records(count: int) -> list[Record]:
    return [Record(f"r{i}", {"dense": [1, i, 0, 0]}, {"n": i, "body": f"text number{i}"}) for i in range(count)]


def writes(double: Double) -> int:
    return sum(method in ("PUT", "PATCH") for method, _ in double.asked)


def test_a_creation_that_was_cut_off_is_finished_by_the_next(double: Double) -> None:
    """Cut before every write of a creation: nothing opens until a schema is given again."""
    with stores.connect(url(double), SCHEMA):
        steps = writes(double)
    assert steps == 4  # the collection, two indexes, the mark
    for step in range(steps):
        double.engine.delete_collection("docs")
        double.asked.clear()
        double.answer = lambda method, path, step=step: (  # type: ignore[misc]
            (502, {}, "") if method in ("PUT", "PATCH") and writes(double) > step else None
        )
        with pytest.raises(ConnectionFailed):
            stores.connect(url(double), SCHEMA)
        double.answer = lambda method, path: None
        with pytest.raises(NotACollection, match="give a schema"):
            stores.connect(url(double))
        with stores.connect(url(double), SCHEMA) as store:
            store.upsert(records(1))
        with stores.connect(url(double)) as store:
            assert (store.schema, store.count()) == (SCHEMA, 1)


def test_a_creation_that_was_cut_off_gives_way_to_another_schema(double: Double) -> None:
    double.answer = lambda method, path: (502, {}, "") if method == "PATCH" else None
    with pytest.raises(ConnectionFailed):
        stores.connect(url(double), SCHEMA)
    double.answer = lambda method, path: None
    other = Schema({"other": VectorSpec(7)})
    with stores.connect(url(double), other) as store:
        store.upsert([Record("a", {"other": [1] * 7})])
        assert store.count() == 1


def test_a_creation_whose_answer_was_lost_is_complete(double: Double) -> None:
    def lose(method: str, path: str) -> tuple[int, dict[str, str], str] | None:
        if (method, path) != ("PUT", "/collections/docs"):
            return None
        mark = {"creating": canonical_json(SCHEMA.to_json())}
        double.engine.create_collection("docs", **qdrant._layout(SCHEMA, qdrant.Creation()), metadata={"nearest": mark})
        return 504, {}, ""

    double.answer = lose
    with stores.connect(url(double), SCHEMA) as store:
        store.upsert(records(2))
        assert store.count() == 2


def test_a_collection_that_others_made_is_left_alone(double: Double) -> None:
    double.engine.create_collection("docs", models.VectorParams(size=4, distance=models.Distance.COSINE))
    for schema in (None, SCHEMA):
        with pytest.raises(NotACollection, match="not made by nearest"):
            stores.connect(url(double), schema)
    assert writes(double) == 0


def test_a_schema_that_cannot_be_read_is_damage(double: Double) -> None:
    stores.connect(url(double), SCHEMA).close()
    double.engine.update_collection("docs", metadata={"nearest": {"schema": "{}"}})
    with pytest.raises(CollectionDamaged, match="backup"):
        stores.connect(url(double))


def test_another_dimension_metric_or_layout_is_refused(double: Double) -> None:
    stores.connect(url(double), SCHEMA).close()
    for spec in (VectorSpec(5), VectorSpec(4, "dot")):
        with pytest.raises(SchemaMismatch, match="vectors was"):
            stores.connect(url(double), replace(SCHEMA, vectors={"dense": spec}))
    with pytest.raises(SchemaMismatch, match="shard_number=3"):
        stores.connect(url(double, "?shard_number=3"))


def test_what_qdrant_cannot_hold_makes_nothing(double: Double) -> None:
    bad: list[tuple[type[Exception], Schema]] = [
        (UnsupportedError, Schema({"dense": VectorSpec(4, "l2", multi=True)})),
        (InvalidInput, Schema({"a/b": VectorSpec(4)})),
        (InvalidInput, Schema({"nearest-text": VectorSpec(4)})),
        (InvalidInput, replace(SCHEMA, language="klingon")),
    ]
    for kind, schema in bad:
        with pytest.raises(kind):
            stores.connect(url(double), schema)
    for name in ("a*b", "a%2Fb", "a%00b", "..", "x" * 256):
        with pytest.raises(InvalidInput, match="no name"):
            stores.connect(f"qdrant://127.0.0.1:{double.port}/{name}", SCHEMA)
    assert double.asked == []


def test_a_server_that_is_too_old_is_refused(double: Double) -> None:
    double.version = "1.15.5"
    with pytest.raises(UnsupportedError, match=r"1\.15.*1\.16 or newer"):
        stores.connect(url(double), SCHEMA)
    assert writes(double) == 0


def test_substrings_are_left_to_the_layer_where_the_server_has_none(double: Double) -> None:
    double.version = "1.19.2"
    with stores.connect(url(double), SCHEMA) as store:
        store.upsert(records(3))
        assert store.filter_support(Comparison(("body",), "$contains", "1")) == "none"
        assert store.filter_support(Comparison(("n",), "$contains", 1)) == "superset"
        assert Residual(store).count({"body": {"$contains": "number1"}}) == 1


def test_a_collection_is_laid_out_as_asked() -> None:
    index = IndexParams(m=24, ef_construct=200, quantization="scalar")
    layout = qdrant._layout(replace(SCHEMA, index=index), qdrant.Creation(3, 2, 2, on_disk=True))
    assert (layout["shard_number"], layout["replication_factor"], layout["write_consistency_factor"]) == (3, 2, 2)
    assert (layout["hnsw_config"].m, layout["hnsw_config"].ef_construct) == (24, 200)
    assert layout["vectors_config"]["dense"].on_disk
    assert layout["quantization_config"].scalar.always_ram
    assert layout["sparse_vectors_config"]["nearest-text"].modifier == models.Modifier.IDF


# --- URLs and keys ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    ["qdrant:", "qdrant:docs", "qdrant://", "qdrant://host", "qdrant://host/", "qdrant://host:port/docs",
     "qdrant://host:99999/docs", "qdrant://:6333/docs"],
)  # fmt: skip
def test_bad_urls(wrong: str) -> None:
    with pytest.raises(InvalidInput, match="qdrant://HOST:6333/COLLECTION"):
        stores.connect(wrong)


@pytest.mark.parametrize(
    "option", ["shards=1", "timeout=0", "timeout=soon", "grpc_port=-1", "tls=yes", "grpc=1", "shard_number="]
)
def test_bad_options(option: str) -> None:
    with pytest.raises(InvalidInput, match=option.partition("=")[0]):
        stores.connect(f"qdrant://127.0.0.1:1/docs?{option}")


def test_an_unknown_option_lists_the_known() -> None:
    with pytest.raises(InvalidInput, match=r"grpc, grpc_port, on_disk.*shard_number.*timeout, tls"):
        stores.connect("qdrant://127.0.0.1:1/docs?shards=1")


def test_a_missing_client_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "qdrant_client", None)
    with pytest.raises(MissingDependency, match=r"pip install 'nearest\[qdrant\]'"):
        stores.connect("qdrant://127.0.0.1:1/docs", SCHEMA)


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
def test_a_key_from_the_url_or_the_environment(double: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    double.key = "se/cret"
    plain = f"127.0.0.1:{double.port}/docs?tls=false"
    with stores.connect(f"qdrant://se%2Fcret@{plain}", SCHEMA) as store:
        store.upsert(records(1))
    monkeypatch.setenv("QDRANT_API_KEY", "wrong")
    monkeypatch.setenv("NEAREST_QDRANT_API_KEY", "se/cret")
    with stores.connect(f"qdrant://{plain}") as store:
        assert store.count() == 1
    monkeypatch.delenv("NEAREST_QDRANT_API_KEY")
    with pytest.raises(AccessDenied, match="API key"):
        stores.connect(f"qdrant://{plain}")


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
def test_a_key_is_never_told(double: Double) -> None:
    double.key = "right"
    for wrong in (
        f"qdrant://hush-hush@127.0.0.1:{double.port}/docs?tls=false",  # denied
        "qdrant://hush-hush@127.0.0.1:1/docs?tls=false",  # refused
        "qdrant://hush-hush@127.0.0.1:1/do:cs",
        "qdrant://hush-hush@127.0.0.1:port/docs",
        "qdrant://hush-hush@127.0.0.1:1/docs?tls",
        "qdrant://hush-hush@127.0.0.1:1/docs?tls=maybe",
    ):
        with pytest.raises(NearestError) as caught:
            stores.connect(wrong, SCHEMA)
        error: BaseException | None = caught.value
        while error is not None:
            assert "hush" not in f"{error} {error!r} {getattr(error, 'context', '')}"
            error = error.__cause__ or error.__context__


def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key goes over TLS unless told otherwise, to a server whose certificate is trusted."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=double", "-addext",
         "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with serving(Double(key="secret"), context) as double:
        secured = f"qdrant://secret@127.0.0.1:{double.port}/docs"
        with pytest.raises(ConnectionFailed, match=r"(?i)certificate.*tls=true"):
            stores.connect(secured, SCHEMA)
        assert double.asked == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with stores.connect(secured, SCHEMA) as store:
            store.upsert(records(1))
            assert store.count() == 1


# --- refusals --------------------------------------------------------------------------------------


def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but not listening
        with pytest.raises(ConnectionFailed, match="cannot be reached") as caught:
            stores.connect(f"qdrant://127.0.0.1:{taken.getsockname()[1]}/docs", SCHEMA)
    assert caught.value.retryable


def test_no_such_host() -> None:
    with pytest.raises(ConnectionFailed, match="cannot be reached"):
        stores.connect("qdrant://nobody.invalid:6333/docs", SCHEMA)


def test_no_answer_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TimedOut, match="timeout=SECONDS"):
        stores.connect(f"qdrant://127.0.0.1:{silent.getsockname()[1]}/docs?timeout=1", SCHEMA)


_REFUSALS: list[tuple[int, dict[str, str], str, type[NearestError], str]] = [
    (401, {}, "Must provide an API key", AccessDenied, "API key"),
    (403, {}, "Forbidden: read only", AccessDenied, "read only"),
    (404, {}, "Collection `docs` doesn't exist!", NotACollection, "doesn't exist"),
    (408, {}, "", TimedOut, "in time"),
    (504, {}, "", TimedOut, "in time"),
    (429, {"Retry-After": "7"}, "rate limit", Throttled, "rate limit"),
    (429, {"Retry-After": "Wed, 21 Oct 2099 07:28:00 GMT"}, "rate limit", Throttled, "slow down"),
    (429, {}, "rate limit", Throttled, "rate limit"),
    (503, {"Retry-After": "3"}, "starting", Throttled, "starting"),
    (400, {}, "Wrong input: no", InvalidInput, "Wrong input"),
    (422, {}, "Validation error", InvalidInput, "Validation error"),
    (500, {}, "Service internal error: shard 2 is lost", ConnectionFailed, "shard 2 is lost"),
    (501, {}, "not implemented", UnsupportedError, "does not know this call"),
    (502, {}, "<html>bad gateway</html>", ConnectionFailed, "bad gateway"),
    (500, {}, "No space left on device", DiskFull, "free some space"),
    (507, {}, "Insufficient storage", DiskFull, "free some space"),
    (200, {}, "<html>another service</html>", StorageError, "not Qdrant's"),
]


@pytest.mark.parametrize(
    ("status", "headers", "said", "kind", "naming"), _REFUSALS, ids=[f"{r[0]}-{r[3].__name__}" for r in _REFUSALS]
)
def test_what_a_server_answers(
    double: Double, status: int, headers: dict[str, str], said: str, kind: type[NearestError], naming: str
) -> None:
    store = stores.connect(url(double), SCHEMA)
    body = said if said.startswith("<") or not said else f'{{"status": {{"error": "{said}"}}}}'
    double.answer = lambda method, path: (status, headers, body)
    calls: list[Callable[[], object]] = [
        lambda: store.upsert(records(2)),
        lambda: store.search(Query(Dense([1, 2, 3, 4]))),
        lambda: store.get(["r0"]),
        lambda: store.count(),
        lambda: store.scan(),
        lambda: store.delete(["r0"]),
        lambda: store.delete_where({"n": 1}),
        lambda: store.stats(),
        lambda: stores.connect(url(double)),
    ]
    for call in calls:
        with pytest.raises(kind, match=naming) as caught:
            call()
        assert type(caught.value) is kind
        if headers.get("Retry-After", "").isdigit():
            assert caught.value.context == {"retry_after": float(headers["Retry-After"])}
    store.close()


def test_a_batch_that_is_too_large_is_sent_in_parts(double: Double) -> None:
    """And the one record that is too large by itself is named, while the others are written."""
    with stores.connect(url(double), SCHEMA) as store:
        double.largest = 20_000
        large = Record("large", {"dense": [1, 0, 0, 0]}, {"body": "x" * 30_000})
        with pytest.raises(BatchFailed) as caught:
            store.upsert([*records(200), large])
        assert {i: type(error) for i, error in caught.value.failed.items()} == {"large": InvalidRecord}
        assert not caught.value.retryable
        assert store.count() == 200


def test_a_payload_key_that_is_taken(double: Double) -> None:
    with stores.connect(url(double), SCHEMA) as store:
        for name in ("nearest:id", "nearest:json"):
            with pytest.raises(InvalidRecord, match=name):
                store.upsert([*records(1000), Record("a", {"dense": [1, 0, 0, 0]}, {name: 1})])  # two requests
        assert store.count() == 0


def test_batches_fit_in_a_request(double: Double) -> None:
    with stores.connect(url(double), Schema({"dense": VectorSpec(4096)})) as store:
        assert store.capabilities.max_batch == 195
        rows = np.random.default_rng(0).normal(size=(400, 4096))
        store.upsert(Record(str(i), {"dense": row}) for i, row in enumerate(rows))
        assert sum(path.endswith("/points") for _, path in double.asked) == 3
        assert store.count() == 400


def test_a_hybrid_search_is_one_request(double: Double) -> None:
    with stores.connect(url(double), SCHEMA) as store:
        store.upsert(records(20))
        find = Fused((Dense([1, 2, 3, 4]), Text("number3")), "rrf")
        for fused, requests in ((find, 1), (replace(find, method="normalized"), 2)):
            double.asked.clear()
            assert store.search(Query(fused, k=3))[0].payload
            assert len(double.asked) == requests  # the second fetches the winners' payloads
        double.asked.clear()
        assert store.search(Query(Text("the"))) == []
        assert store.search(Query(Fused((Text("the"), Text("of")), "rrf"))) == []
        assert double.asked == []


def test_optimize_waits_for_the_index(double: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    with stores.connect(url(double), SCHEMA) as store:
        info = double.engine.get_collection("docs")
        states = iter(["yellow", "yellow", "green"])
        monkeypatch.setattr(qdrant, "_POLL", 0)

        def told(method: str, path: str) -> tuple[int, dict[str, str], str]:
            body = info.model_dump(mode="json") | {"status": next(states)}
            return 200, {}, json.dumps({"result": body, "status": "ok", "time": 0})

        double.answer = told
        store.optimize()
        assert next(states, None) is None
        states = iter(["red"])
        with pytest.raises(StorageError, match="cannot build"):
            store.optimize()


def test_stats(double: Double) -> None:
    with stores.connect(url(double), SCHEMA) as store:
        assert store.stats() == {"index": "hnsw, green, 1 segments", "indexed": 0}


def test_bm25_is_that_of_the_reference_at_the_average_length(double: Double) -> None:
    """Where the texts' average length is the constant's, scores are those of exact BM25."""
    schema = Schema({"dense": VectorSpec(4)}, text="body")
    words = ["apple", "pear", "plum", "kiwi"]
    lengths = [qdrant.AVERAGE_LENGTH + 16 * sign for sign in (1, -1)] * 4
    repeated = [[words[i % 4]] * (1 + i % 3) for i in range(8)]
    bodies = [
        " ".join(some + ["filler"] * (length - len(some))) for some, length in zip(repeated, lengths, strict=True)
    ]
    made = [Record(f"r{i}", {"dense": [1, 0, 0, 0]}, {"body": body}) for i, body in enumerate(bodies)]
    with stores.connect(url(double), schema) as store, MemoryStore.create(schema) as reference:
        store.upsert(made)
        reference.upsert(made)
        for text in ("apple", "pear plum", "filler", "kiwi filler"):
            expected = reference.search(Query(Text(text)))
            hits = store.search(Query(Text(text)))
            assert [hit.id for hit in hits] == [hit.id for hit in expected]
            assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in expected], rel=1e-5)


# --- gRPC ------------------------------------------------------------------------------------------


_CODES = [
    ("UNAVAILABLE", "connection refused", ConnectionFailed),
    ("DEADLINE_EXCEEDED", "", TimedOut),
    ("UNAUTHENTICATED", "Must provide an API key", AccessDenied),
    ("PERMISSION_DENIED", "read only", AccessDenied),
    ("RESOURCE_EXHAUSTED", "rate limit", Throttled),
    ("NOT_FOUND", "no collection", NotACollection),
    ("INVALID_ARGUMENT", "Wrong input", InvalidInput),
    ("UNIMPLEMENTED", "Method not found", UnsupportedError),
    ("ALREADY_EXISTS", "collection `docs` exists", InvalidInput),
    ("FAILED_PRECONDITION", "collection is write-locked", InvalidInput),
    ("OUT_OF_RANGE", "an offset beyond the end", InvalidInput),
    ("DATA_LOSS", "checksum mismatch", CollectionDamaged),
    ("INTERNAL", "No space left on device", DiskFull),
    ("ABORTED", "consensus is lost", ConnectionFailed),
    ("UNKNOWN", "stream ended", ConnectionFailed),
    ("INTERNAL", "shard 2 is lost", ConnectionFailed),
]


@pytest.mark.parametrize(("code", "said", "kind"), _CODES, ids=[f"{c}-{k.__name__}" for c, _, k in _CODES])
def test_what_a_server_answers_over_grpc(code: str, said: str, kind: type[NearestError]) -> None:
    class Refusing(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: object) -> object:
            return grpc.unary_unary_rpc_method_handler(
                lambda request, context: context.abort(getattr(grpc.StatusCode, code), said)
            )

    server = grpc.server(ThreadPoolExecutor(1), handlers=[Refusing()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with pytest.raises(kind) as caught:
            stores.connect(f"qdrant://127.0.0.1:1/docs?grpc=true&grpc_port={port}", SCHEMA)
        assert type(caught.value) is kind
    finally:
        server.stop(None).wait()


def test_a_payload_too_deep_for_grpc_is_refused(local_mode_grpc: Double) -> None:
    def nested(levels: int) -> dict[str, object]:
        return {} if levels == 1 else {"a": nested(levels - 1)}

    with stores.connect(f"qdrant://127.0.0.1:1/deep?grpc=true&grpc_port={local_mode_grpc.port}", SCHEMA) as store:
        good = Record("good", {"dense": [1, 0, 0, 0]}, nested(20))
        store.upsert([good])
        assert store.get(["good"])[0].payload == good.payload
        with pytest.raises(InvalidRecord, match="grpc=false"):
            store.upsert([Record("other", {"dense": [1, 0, 0, 0]}), Record("bad", {"dense": [1, 0, 0, 0]}, nested(21))])
        assert store.count() == 1
