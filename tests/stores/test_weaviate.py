"""The Weaviate store: the conformance suite through the client's REST and gRPC, creation, and how servers refuse."""

from __future__ import annotations

import json
import math
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import grpc  # type: ignore[import-untyped]
import numpy as np
import pytest

from nearest import filters, stores
from nearest.contract import (
    Dense,
    Fused,
    IndexParams,
    Query,
    Record,
    Schema,
    StoreURL,
    Text,
    VectorSpec,
    canonical_json,
    fused_scores,
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
    ReadOnly,
    SchemaMismatch,
    StorageError,
    Throttled,
    TimedOut,
    UnsupportedError,
)
from nearest.stores import weaviate
from nearest.stores.weaviate import WeaviateStore
from nearest.testing import StoreSuite
from tests.stores.by_url import ByURL, real_server
from tests.stores.weaviate_double import Double, serving

SERVER = real_server("weaviate")


class _OverNetwork(ByURL, StoreSuite):
    module = weaviate

    @pytest.fixture
    def server(self) -> str:
        """A URL with COLLECTION in place of its name."""
        raise NotImplementedError

    @pytest.fixture
    def new_url(self, server: str) -> Callable[[Schema], str]:
        return lambda _: server.replace("COLLECTION", f"Test{uuid.uuid4().hex}")

    @pytest.fixture
    def urls(self) -> Iterator[dict[int, str]]:
        known: dict[int, str] = {}
        yield known
        for url in set(known.values()):
            with stores.connect(url) as store:
                assert isinstance(store, WeaviateStore)
                assert store._client is not None
                store._client.collections.delete(store._open.name)


@pytest.fixture(scope="module")
def shared() -> Iterator[Double]:
    with serving(Double()) as double:
        yield double


class TestWeaviate(_OverNetwork):
    @pytest.fixture
    def server(self, shared: Double) -> str:
        return f"weaviate://127.0.0.1:{shared.port}/COLLECTION?grpc={shared.grpc_port}"


if SERVER is not None:

    class TestWeaviateServer(_OverNetwork):
        @pytest.fixture
        def server(self) -> str:
            assert SERVER is not None
            return SERVER

else:

    @pytest.mark.skip(reason="NEAREST_TEST_WEAVIATE_URL names no server; the suite ran on the double alone")
    def test_the_suite_on_a_server() -> None:
        """In place of `TestWeaviateServer`."""


SCHEMA = Schema({"dense": VectorSpec(4)}, text="body", fields={"n": "integer", "at": "datetime"})


@pytest.fixture
def double() -> Iterator[Double]:
    with serving(Double()) as double:
        yield double


def url(double: Double, rest: str = "", name: str = "Docs") -> str:
    return f"weaviate://127.0.0.1:{double.port}/{name}?grpc={double.grpc_port}{rest}"


def connect(double: Double, schema: Schema | None = SCHEMA, rest: str = "") -> WeaviateStore:
    store = stores.connect(url(double, rest), schema)
    assert isinstance(store, WeaviateStore)
    return store


def records(count: int) -> list[Record]:
    return [Record(f"r{i}", {"dense": [1, i, 0, 0]}, {"n": i, "body": f"text number{i}"}) for i in range(count)]


def config(double: Double, name: str = "Docs") -> dict[str, Any]:
    return double.collections[name].config


# --- tokens ----------------------------------------------------------------------------------------


def test_tokens_of_a_payload() -> None:
    made = weaviate.tokens({"a b": {"c": [True, "x", None]}, "d.e": 1, "": 2, "n": None, "o": {}, "l": "x" * 257})
    long = next(token for token in made if token.startswith("l'"))
    assert made == ["*", "a%20b", "a%20b.c", *_both("a%20b.c", "!true"), *_both("a%20b.c", '"x"'), "o", "l", long]
    assert len(long) < 80
    assert weaviate.tokens({"a": "x" * 256})[-1] == f'a"{"x" * 256}"'


def _both(path: str, token: str) -> list[str]:
    return [path + token, f"{path}[]{token}"]


def test_digits_sort_as_numbers_do() -> None:
    numbers: list[float] = [
        -(2**63), -(2**63) + 1, -1e18, -(2**53) - 1, -(2**53), -1.5, -1, -5e-324, 0, 5e-324, 0.1, 1, 1.5, 2**53,
        2**53 + 1, 2**53 + 2, 1e18, 2**63 - 1025, 2**63 - 1024, 2**63 - 1, 2.0**63, 1e308,
    ]  # fmt: skip
    digits = [weaviate._digits(number) for number in numbers]
    assert digits == sorted(digits)
    assert len(set(digits)) == len(digits)
    assert {len(text) for text in digits} == {19}
    assert weaviate._digits(-0.0) == weaviate._digits(0)
    assert weaviate._digits(5.0) == weaviate._digits(5)
    for bound in digits:
        for above in (True, False):
            prefixes = tuple(weaviate._beyond(bound, above))
            found = [text for text in digits if text.startswith(prefixes)]
            assert found == [text for text in digits if (text > bound if above else text < bound)]


def test_no_more_is_fetched_than_matches(double: Double) -> None:
    """Only a substring is completed outside the database; everything else counts there in one call."""
    with connect(double) as store:
        store.upsert(records(50))
        for where in ({"n": {"$gt": 40}}, {"x": {"$lt": 3}}, {"$not": {"n": {"$in": [1, 2]}}}, {"n": None}):
            double.calls.clear()
            store.count(where)
            assert double.calls == {"Aggregate": 1}
        with pytest.raises(UnsupportedError, match="contains"):
            store.count({"body": {"$contains": "xt nu"}})


def test_numbers_that_were_deleted_are_not_counted(double: Double) -> None:
    with connect(double) as store:
        store.upsert(records(20))
        store.upsert(records(10))
        store.delete(["r0", "r1"])
        assert store.count({"n": {"$ne": 5}}) == 17
        assert store.count({"absent": None}) == 18


# --- creation --------------------------------------------------------------------------------------


def test_what_a_collection_is_made_with(double: Double) -> None:
    schema = Schema(
        {"dense": VectorSpec(8, "dot"), "other one": VectorSpec(4, "l2")},
        text="body",
        fields={"n": "integer", "k": "keyword"},
        index=IndexParams(24, 200, 150),
    )
    connect(double, schema, "&shards=3&replicas=2").close()
    made = config(double)
    assert set(made["vectorConfig"]) == {"dense", "nearest_1"}
    index = made["vectorConfig"]["dense"]["vectorIndexConfig"]
    assert (index["maxConnections"], index["efConstruction"], index["ef"]) == (24, 200, 150)
    assert index["distance"] == "dot"
    assert index["skipDefaultQuantization"] is True
    assert made["vectorConfig"]["nearest_1"]["vectorIndexConfig"]["distance"] == "l2-squared"
    assert made["shardingConfig"]["desiredCount"] == 3
    assert made["replicationConfig"]["factor"] == 2
    assert made["invertedIndexConfig"]["stopwords"]["preset"] == "none"
    properties = {one["name"]: one for one in made["properties"]}
    assert set(properties) == {"record", "payload", "tokens", "terms", "low_1", "high_1"}
    assert properties["high_1"]["indexRangeFilters"]
    assert properties["tokens"]["tokenization"] == "field"
    assert not properties["payload"]["indexFilterable"]


@pytest.mark.parametrize(
    ("kind", "option", "expected"),
    [
        ("scalar", "", {"rq": {"bits": 8, "rescoreLimit": 10_000}}),
        ("scalar", "&quantizer=sq", {"sq": {"rescoreLimit": 10_000}}),
        ("product", "", {"pq": {"segments": 2}}),
        ("binary", "", {"bq": {"rescoreLimit": 10_000}}),
        ("binary", "&quantizer=rq", {"rq": {"bits": 1, "rescoreLimit": 10_000}}),
        ("scalar", "&index=flat", {"rq": {"bits": 8, "rescoreLimit": 20}}),
    ],
)
def test_quantizers(double: Double, kind: Any, option: str, expected: dict[str, Any]) -> None:
    connect(double, Schema({"dense": VectorSpec(8)}, index=IndexParams(quantization=kind)), option).close()
    index = config(double)["vectorConfig"]["dense"]["vectorIndexConfig"]
    for name in ("pq", "bq", "sq", "rq"):
        assert index[name]["enabled"] == (name in expected)
        assert index[name].items() >= expected.get(name, {}).items()


@pytest.mark.parametrize(
    ("index", "option", "error", "said"),
    [
        (IndexParams(quantization="product", rescore=False), "", UnsupportedError, "rescore"),
        (IndexParams(quantization="binary", rescore=False), "", UnsupportedError, "rescore"),
        (IndexParams(quantization="scalar"), "&quantizer=pq", InvalidInput, "quantizer=pq"),
        (IndexParams(), "&quantizer=rq", InvalidInput, "quantizer=rq"),
        (IndexParams(m=3), "", UnsupportedError, "4 or more"),
        (IndexParams(m=24), "&index=flat", UnsupportedError, "HNSW"),
        (IndexParams(quantization="product"), "&index=flat", UnsupportedError, "no pq"),
    ],
)
def test_what_cannot_be_made_is_refused(
    double: Double, index: IndexParams, option: str, error: type[NearestError], said: str
) -> None:
    with pytest.raises(error, match=said):
        connect(double, Schema({"dense": VectorSpec(8)}, index=index), option)
    assert double.collections == {}


def test_no_rescoring_where_none_is_wanted(double: Double) -> None:
    schema = Schema({"dense": VectorSpec(8)}, index=IndexParams(quantization="scalar", rescore=False))
    connect(double, schema).close()
    assert config(double)["vectorConfig"]["dense"]["vectorIndexConfig"]["rq"]["rescoreLimit"] == 0


def test_a_flat_index_is_exact_and_stays_so(double: Double) -> None:
    with connect(double, Schema({"dense": VectorSpec(4)}), "&index=flat") as store:
        store.upsert(records(3))
    with connect(double, None) as store:
        assert "exact" in store.capabilities
        assert "hnsw" not in store.capabilities
        assert len(store.search(Query(Dense([1, 0, 0, 0]), exact=True))) == 3
        assert store.stats() == {"index": "flat, ready", "indexed": 3}


def test_texts_without_vectors(double: Double) -> None:
    with connect(double, Schema(text="body")) as store:
        store.upsert([Record("a", {}, {"body": "Apples"}), Record("b", {}, {"body": "pears"})])
        assert [hit.id for hit in store.search(Query(Text("apple")))] == ["a"]
        assert store.get(["b"], with_vectors=True) == [Record("b", {}, {"body": "pears"})]


def test_names_of_collections(double: Double) -> None:
    stores.connect(url(double, name="docs_2"), SCHEMA).close()
    assert set(double.collections) == {"Docs_2"}
    for name in ("2docs", "my-docs", "a b", "", "ключ", "x" * 256, "_x"):
        with pytest.raises(InvalidInput):
            stores.connect(url(double, name=name), SCHEMA)
    assert set(double.collections) == {"Docs_2"}


def test_a_collection_that_is_not_there_or_not_ours(double: Double) -> None:
    with pytest.raises(NotACollection, match="give a schema"):
        connect(double, None)
    for description in (None, "ours", "{}", '{"nearest": 2}', "[1]"):
        _make(double, description)
        for schema in (None, SCHEMA):
            with pytest.raises(NotACollection, match="not made by nearest"):
                connect(double, schema)
    _make(double, '{"nearest": 1, "schema": {}}')
    with pytest.raises(CollectionDamaged, match="description"):
        connect(double, None)
    _make(double, canonical_json({"nearest": 1, "schema": SCHEMA.to_json(), "index": "hnsw"}))
    with pytest.raises(CollectionDamaged, match="'dense' is gone"):
        connect(double, None)


def _make(double: Double, description: str | None) -> None:
    import httpx

    place = f"http://127.0.0.1:{double.port}/v1/schema"
    double.collections.clear()
    httpx.post(place, json={"class": "Docs", "description": description}).raise_for_status()


def test_another_schema_is_refused_and_changes_nothing(double: Double) -> None:
    connect(double).close()
    before = json.dumps(config(double))
    other = Schema({"dense": VectorSpec(5)}, text="body", fields=SCHEMA.fields)
    with pytest.raises(SchemaMismatch, match="vectors was"):
        connect(double, other)
    assert json.dumps(config(double)) == before


def test_the_order_of_names_in_a_schema_does_not_matter(double: Double) -> None:
    one = Schema({"b b": VectorSpec(4), "a a": VectorSpec(4)}, fields={"y": "integer", "x": "integer"})
    other = Schema({"a a": VectorSpec(4), "b b": VectorSpec(4)}, fields={"x": "integer", "y": "integer"})
    with connect(double, one) as store:
        store.upsert([Record("r", {"a a": [1, 0, 0, 0], "b b": [0, 1, 0, 0]}, {"x": 1, "y": 2})])
    with connect(double, other) as store:
        assert store.count({"x": {"$lt": 2}}) == 1
        assert store.search(Query(Dense([1, 0, 0, 0], "a a")))[0].score == pytest.approx(1)


def test_two_that_create_at_once_agree(double: Double) -> None:
    start, made = threading.Barrier(4), []

    def run() -> None:
        start.wait()
        with connect(double) as store:
            made.append(store.schema)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [SCHEMA] * 4


# --- tenants ---------------------------------------------------------------------------------------


def test_tenants_are_collections_of_their_own(double: Double) -> None:
    with connect(double, SCHEMA, "&tenant=a") as one, connect(double, SCHEMA, "&tenant=b") as other:
        one.upsert(records(3))
        other.upsert(records(1))
        assert (one.count(), other.count()) == (3, 1)
        other.delete_where({"n": {"$exists": True}})
        assert [record.id for record in one.get(["r2"])] == ["r2"]
        assert (len(list(one.scan_all())), other.count()) == (3, 0)
        assert one.stats()["indexed"] == 3
    with pytest.raises(NotACollection, match="no such tenant"):
        connect(double, None, "&tenant=c")
    with pytest.raises(InvalidInput, match="has tenants"):
        connect(double, None)
    with pytest.raises(InvalidInput, match="letters"):
        connect(double, SCHEMA, "&tenant=a%20b")
    assert stores.identity(StoreURL.parse(url(double, "&tenant=a"))).endswith("?tenant=a")


def test_a_collection_without_tenants(double: Double) -> None:
    connect(double).close()
    with pytest.raises(InvalidInput, match="no tenants"):
        connect(double, SCHEMA, "&tenant=a")


# --- searching -------------------------------------------------------------------------------------


def test_hybrid_search_is_one_call_and_our_fusion(double: Double) -> None:
    with connect(double) as store:
        random = np.random.default_rng(0)
        store.upsert(
            Record(f"r{i:03}", {"dense": random.normal(size=4)}, {"n": i, "body": "apple " * (1 + i % 7) + "x " * i})
            for i in range(150)
        )
        parts = (Dense(random.normal(size=4)), Text("apples"))
        for order, weights in ((parts, None), (parts[::-1], (1.0, 3.0))):
            for candidates, k in ((100, 10), (140, 10), (100, 120)):
                find = Fused(order, "normalized", weights, candidates)
                double.calls.clear()
                hits = store.search(Query(find, k=k, where=filters.parse({"n": {"$lt": 145}})))
                assert double.calls == {"Search": 1}
                depth, where = max(candidates, k), filters.parse({"n": {"$lt": 145}})
                separate = [store.search(Query(part, k=depth, where=where)) for part in order]
                scores = fused_scores(find, [[(hit.id, hit.score) for hit in part] for part in separate])
                truth = sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))
                assert [hit.id for hit in hits] == [record_id for record_id, _ in truth[:k]]
                assert [hit.score for hit in hits] == pytest.approx([score for _, score in truth[:k]], abs=1e-6)


@pytest.mark.parametrize(
    "find",
    [
        Fused((Dense([1, 0, 0, 0]), Text("text")), "rrf"),
        Fused((Dense([1, 0, 0, 0]), Text("text")), candidates=50),
        Fused((Dense([1, 0, 0, 0]), Text("text")), weights=(0.0, 1.0)),
        Fused((Dense([1, 0, 0, 0]), Text("the"))),
        Fused((Dense([1, 0, 0, 0]), Dense([0, 1, 0, 0]))),
    ],
)
def test_what_is_not_weaviates_fusion_is_ours(double: Double, find: Fused) -> None:
    with connect(double) as store:
        store.upsert(records(5))
        double.calls.clear()
        store.search(Query(find))
        searchable = [part for part in find.parts if part != Text("the")]
        assert double.calls == {"Search": len(searchable)}


def test_queries_of_one_call_go_at_once_and_keep_their_order(double: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    with connect(double) as store:
        store.upsert(records(30))
        finds: list[Any] = [Dense([1, 0, 0, 0]), Text("number7"), Dense([1, 9, 0, 0]), Text("number3")]
        finds.append(Fused((Dense([1, 2, 0, 0]), Text("number9")), "rrf"))  # of two requests, fused here
        queries = [Query(find, k=3) for find in finds]
        expected = [store.search(query) for query in queries]
        meeting, asked = threading.Barrier(2), store._asked  # one after another they never meet

        def meet(query: Query, limit: int) -> dict[str, Any]:
            meeting.wait(timeout=10)
            return asked(query, limit)

        monkeypatch.setattr(store, "_asked", meet)
        assert store.search_many(queries) == expected
        monkeypatch.setattr(store, "_asked", asked)
        double.calls.clear()
        many = store.search_many([Query(Dense([1, n, 0, 0]), k=1) for n in range(25)])
        assert [hits[0].id for hits in many] == [f"r{n}" for n in range(25)]
        assert double.calls == {"Search": 25}
    with pytest.raises(StorageError, match="closed"):
        store.search_many(queries)


def test_more_candidates_are_asked_for(double: Double) -> None:
    """By a higher limit, since Weaviate takes neither `ef` nor oversampling with a query."""
    with connect(double, Schema({"dense": VectorSpec(4)})) as store:
        assert [store._depth(Query(Dense([1, 0, 0, 0]), ef=ef), 10) for ef in (None, 50, 400)] == [10, 10, 400]
        store.upsert(records(5))
        assert len(store.search(Query(Dense([1, 0, 0, 0]), k=2, ef=400))) == 2
    index = IndexParams(quantization="scalar", oversampling=20.0)
    with stores.connect(url(double, name="Other"), Schema({"dense": VectorSpec(4)}, index=index)) as other:
        assert isinstance(other, WeaviateStore)
        assert [other._depth(Query(Dense([1, 0, 0, 0])), k) for k in (3, 10, 1000)] == [3, 200, 10_000]


def test_dates_and_numbers_where_weaviates_own_end(double: Double) -> None:
    with connect(double) as store:
        dates = ["0001-01-01", "1677-01-01", "2024-05-31T12:00:00.000001Z", "2300-01-01", "9999-12-31"]
        numbers = [-(2**63), -(2**53) - 1, 0, 2**53 + 1, 2**63 - 1]
        rows = zip(dates, numbers, strict=True)
        store.upsert([Record(date, {"dense": [1, 0, 0, 0]}, {"at": date, "n": n}) for date, n in rows])
        for place, (date, number) in enumerate(zip(dates, numbers, strict=True)):
            for field, bound in (("at", date), ("n", number)):
                found = [store.count({field: {op: bound}}) for op in ("$lt", "$lte", "$eq", "$gte", "$gt")]
                assert found == [place, place + 1, 1, 5 - place, 4 - place], (field, bound)


def test_a_cursor_that_is_none(double: Double) -> None:
    with connect(double) as store, pytest.raises(InvalidInput, match="not a cursor"):
        store.scan("r1")


# --- asynchronous indexing -------------------------------------------------------------------------


def test_wait_until_vectors_are_indexed(double: Double) -> None:
    double.asynchronous = True
    with connect(double, SCHEMA, "&async_indexing=true") as store:
        assert not store.capabilities.read_your_writes
        store.upsert(records(40))
        assert store.search(Query(Dense([1, 0, 0, 0]))) == []
        store.wait()
        assert len(store.search(Query(Dense([1, 0, 0, 0]), k=40))) == 40
        assert store.stats() == {"index": "hnsw, ready", "indexed": 40}


# --- errors ----------------------------------------------------------------------------------------


def test_records_that_the_server_refuses(double: Double) -> None:
    with connect(double) as store:
        words = {
            "r1": ("vector lengths don't match", StorageError), "r3": ("put: no space left on device", DiskFull),
            "r4": ("store is read-only", ReadOnly), "r5": ("broadcast: cannot reach enough replicas", ConnectionFailed),
        }  # fmt: skip
        double.refuse = {str(weaviate._uuid(record_id)): said for record_id, (said, _) in words.items()}
        with pytest.raises(BatchFailed) as caught:
            store.upsert(records(8))
        assert {i: type(error) for i, error in caught.value.failed.items()} == {
            i: kind for i, (_, kind) in words.items()
        }
        assert caught.value.retryable
        assert store.count() == 4
        with pytest.raises(BatchFailed) as caught:
            store.upsert([records(8)[3]])
        assert set(caught.value.failed) == {"r3"}
        double.refuse = {}
        store.upsert(records(8))
        double.refuse = {str(weaviate._uuid("r7")): "put: no space left on device"}
        with pytest.raises(StorageError, match="could not be deleted"):
            store.delete(["r6", "r7"])


def test_many_batches_at_once_tell_what_failed_in_the_order_given(double: Double) -> None:
    with connect(double) as store:
        some = records(3500)
        refused = ["r10", "r1500", "r2999", "r3499"]
        double.refuse = {str(weaviate._uuid(record_id)): "no" for record_id in refused}
        with pytest.raises(BatchFailed, match="4 of 3500 records failed") as caught:
            store.upsert(some)
        assert list(caught.value.failed) == refused
        assert store.count() == 3496
        double.refuse, double.grpc_faults = {}, [(grpc.StatusCode.UNAVAILABLE, "shutting down")]
        with pytest.raises(ConnectionFailed):
            store.upsert(some)
        store.upsert(some)
        assert store.count() == 3500


def test_a_record_too_large_does_not_cost_the_others() -> None:
    with serving(Double(max_message=2**20)) as double, connect(double) as store:
        some = records(30)
        some[7] = Record("large", {"dense": [1, 0, 0, 0]}, {"x": "x" * 2**21})
        for i in range(10, 30):  # together more than one request, each alone less
            some[i] = Record(f"r{i}", {"dense": [1, i, 0, 0]}, {"x": "x" * 2**17})
        with pytest.raises(BatchFailed, match="1 of 30") as caught:
            store.upsert(some)
        assert list(caught.value.failed) == ["large"]
        assert isinstance(caught.value.failed["large"], InvalidRecord)
        assert store.count() == 29


def test_no_key_and_a_wrong_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("NEAREST_WEAVIATE_API_KEY", "WEAVIATE_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    with serving(Double(key="s3cret/key")) as double:
        place, rest = f"127.0.0.1:{double.port}/Docs", f"?grpc={double.grpc_port}&tls=false"
        for key in ("", "wrong@"):
            with pytest.raises(AccessDenied, match="key") as caught:
                stores.connect(f"weaviate://{key}{place}{rest}", SCHEMA)
            assert "wrong" not in str(caught.value).replace("the key is wrong", "")
        with stores.connect(f"weaviate://s3cret%2Fkey@{place}{rest}", SCHEMA) as store:
            store.upsert(records(2))
            assert store.count() == 2
            double.key = "changed"
            for call in (store.count, lambda: store.upsert(records(1)), lambda: store.delete(["r0"])):
                with pytest.raises(AccessDenied):
                    call()
            double.key = "s3cret/key"
        assert double.collections
        monkeypatch.setenv("WEAVIATE_API_KEY", "s3cret/key")
        with stores.connect(f"weaviate://{place}{rest}") as store:
            assert store.count() == 2


def test_nobody_listens() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        with pytest.raises(ConnectionFailed, match="is it running") as caught:
            stores.connect(f"weaviate://127.0.0.1:{port}/Docs", SCHEMA)
        assert not isinstance(caught.value, TimedOut | Throttled)
        with serving(Double()) as double:
            store = stores.connect(f"weaviate://127.0.0.1:{double.port}/Docs?grpc={port}", SCHEMA)
            calls: list[Callable[[], Any]] = [
                lambda: store.upsert(records(1)),
                lambda: store.delete(["r0"]),
                lambda: store.search(Query(Dense([1, 0, 0, 0]))),
                store.count,
            ]
            for call in calls:  # at once: the client would repeat them for a minute
                with pytest.raises(ConnectionFailed, match="gRPC"):
                    call()
            store.close()


def test_a_host_that_does_not_exist() -> None:
    with pytest.raises(ConnectionFailed):
        stores.connect("weaviate://nowhere.invalid/Docs", SCHEMA)


def test_a_server_that_does_not_answer(double: Double) -> None:
    with connect(double, SCHEMA, "&timeout=0.3") as store:
        double.stalled = threading.Event()
        for call in (store.count, lambda: store.upsert(records(1)), lambda: store.search(Query(Dense([1, 0, 0, 0])))):
            with pytest.raises(TimedOut):
                call()
        double.stalled.set()
        store.upsert(records(1))
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TimedOut):
        stores.connect(f"weaviate://127.0.0.1:{silent.getsockname()[1]}/Docs?timeout=0.3", SCHEMA)


@pytest.mark.parametrize(
    ("code", "said", "expected"),
    [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "too many requests", Throttled),
        (grpc.StatusCode.UNAVAILABLE, "shutting down", ConnectionFailed),
        (grpc.StatusCode.PERMISSION_DENIED, "forbidden", AccessDenied),
        (grpc.StatusCode.UNKNOWN, "could not find class Docs in schema", NotACollection),
        (grpc.StatusCode.UNKNOWN, 'tenant not found: "a"', NotACollection),
        (grpc.StatusCode.UNKNOWN, "context deadline exceeded", TimedOut),
        (grpc.StatusCode.UNKNOWN, "memory pressure: cannot process batch delete object", Throttled),
        (grpc.StatusCode.INTERNAL, "panic", StorageError),
    ],
)
def test_what_grpc_says(double: Double, code: Any, said: str, expected: type[NearestError]) -> None:
    with connect(double) as store:
        calls: list[Callable[[], Any]] = [
            store.count, lambda: store.upsert(records(1)), lambda: store.delete_where({"n": 1}),
            lambda: store.get(["r0"]),
        ]  # fmt: skip
        for call in calls:
            double.grpc_faults.append((code, said))
            with pytest.raises(expected) as caught:
                call()
            assert type(caught.value) is expected
        assert store.count() == 0


@pytest.mark.parametrize(
    ("status", "expected"),
    [(401, AccessDenied), (403, AccessDenied), (429, Throttled), (503, Throttled), (502, ConnectionFailed),
     (422, InvalidInput), (500, StorageError)],
)  # fmt: skip
def test_what_rest_says(double: Double, status: int, expected: type[NearestError]) -> None:
    for before in range(4):  # asking for the version, twice; looking for the collection; making it
        double.rest_faults, double.rest_after = [(status, "no")], before
        with pytest.raises(expected) as caught:
            connect(double)
        assert type(caught.value) is expected
        assert double.collections == {}


def test_an_old_server() -> None:
    with serving(Double(version="1.32.9")) as double, pytest.raises(UnsupportedError, match=r"1\.33 or newer"):
        connect(double)


def test_a_collection_that_was_deleted_meanwhile(double: Double) -> None:
    with connect(double) as store:
        double.collections.clear()
        with pytest.raises(NotACollection, match="gone"):
            store.count()
        with pytest.raises(BatchFailed) as caught:
            store.upsert(records(2))
        assert {type(error) for error in caught.value.failed.values()} == {NotACollection}


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        ("?colour=red", "has no option colour; there are async_indexing, consistency"),
        ("?tls=yes", "tls must be true or false"),
        ("?consistency=some", "consistency must be one, quorum or all"),
        ("?index=ivf", "index must be hnsw or flat"),
        ("?shards=0", "shards must be a whole number"),
        ("?grpc=x", "grpc must be a whole number"),
        ("?timeout=0", "timeout must be a number of seconds"),
        ("?timeout=x", "timeout must be a number of seconds"),
    ],
)
def test_bad_options(rest: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        stores.connect(f"weaviate://127.0.0.1/Docs{rest}", SCHEMA)


@pytest.mark.parametrize("bad", ["weaviate:Docs", "weaviate://host", "weaviate://host:x/Docs", "weaviate:///Docs",
                                 "weaviate://user:password@host/Docs", "weaviate://host/a/b"])  # fmt: skip
def test_bad_urls(bad: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        stores.connect(bad, SCHEMA)
    assert "password" not in str(caught.value)


def test_options_of_the_connection() -> None:
    options, creation = weaviate._options(StoreURL.parse("weaviate://k%40y@c.example/docs?grpc_host=g&shards=2"))
    assert (options.host, options.port, options.tls, options.key) == ("c.example", 443, True, "k@y")
    assert (options.grpc_host, options.grpc_port, options.collection) == ("g", 443, "Docs")
    assert creation.shards == 2
    plain, _ = weaviate._options(StoreURL.parse("weaviate://localhost/Docs?tls=false"))
    assert (plain.port, plain.grpc_host, plain.grpc_port, plain.timeout) == (8080, "localhost", 50051, 60)


def test_consistency_is_told_with_every_call(double: Double) -> None:
    with connect(double, SCHEMA, "&consistency=all") as store:
        assert store._open.consistency_level.value == "ALL"
        store.upsert(records(1))
        assert store.count() == 1


def test_a_missing_client() -> None:
    code = (
        "import sys; sys.modules['weaviate'] = None\n"
        "from nearest import stores, errors\n"
        "try: stores.connect('weaviate://127.0.0.1/Docs')\n"
        "except errors.MissingDependency as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'nearest[weaviate]'" in done.stdout
    assert issubclass(MissingDependency, ImportError)


def test_a_closed_store_says_so(double: Double) -> None:
    store = connect(double)
    store.close()
    store.close()
    for call in (store.count, store.stats, store.wait):
        with pytest.raises(StorageError, match="closed"):
            call()


def test_scores_are_what_the_contract_says() -> None:
    assert [weaviate._score("cosine", d) for d in (0.0, 2.0, -1e-7, 2.0000001)] == [1.0, -1.0, 1.0, -1.0]
    assert weaviate._score("dot", -25.0) == 25.0
    assert weaviate._score("l2", 4.0) == -2.0
    assert math.copysign(1, weaviate._score("l2", 0.0)) == 1
