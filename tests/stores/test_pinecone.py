"""Pinecone: the conformance suite on a local double, and on the real service where there is a key for it."""

from __future__ import annotations

import builtins
import itertools
import json
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pinecone", reason="needs the client of Pinecone: pip install 'nearest[pinecone]'")

from nearest import filters, stores
from nearest.contract import Dense, IndexParams, Query, Record, Schema, Sparse, SparseVector, VectorSpec
from nearest.errors import (
    AccessDenied,
    BatchFailed,
    CollectionDamaged,
    ConnectionFailed,
    InvalidInput,
    InvalidQuery,
    InvalidRecord,
    MissingDependency,
    NotACollection,
    SchemaMismatch,
    StorageError,
    Throttled,
    TimedOut,
    UnsupportedError,
)
from nearest.stores import pinecone
from nearest.testing import StoreSuite
from nearest.testing.base import put, vector
from tests.stores.by_url import ByURL
from tests.stores.pinecone_double import PineconeDouble

SCHEMA = Schema(vectors={"dense": VectorSpec(4)})
WORDS = Schema(vectors={"dense": VectorSpec(4)}, sparse=("words",))


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[PineconeDouble]:
    with PineconeDouble(key="a-key") as server:
        monkeypatch.setenv("PINECONE_API_KEY", "a-key")
        yield server


def url(double: PineconeDouble, place: str = "books/en", **options: Any) -> str:
    more = "".join(f"&{name}={value}" for name, value in options.items())
    return f"pinecone://{place}?host={double.url}{more}"


class TestPinecone(ByURL, StoreSuite):
    """With the last two writes always unindexed until they are waited for."""

    module = pinecone

    @pytest.fixture
    def new_url(self, double: PineconeDouble) -> Callable[[Schema], str]:
        numbers = itertools.count()
        double.lag = 2

        def named(schema: Schema) -> str:
            specs = "-".join(f"{spec.dim}-{spec.metric}" for spec in schema.vectors.values())
            return url(double, f"index-{specs}{'-sparse' * len(schema.sparse)}/{next(numbers)}")

        return named


def test_the_real_service() -> None:
    """What the double claims: creation, filters, freshness, scores and deletion, on a namespace of its own."""
    name = os.environ.get("NEAREST_TEST_PINECONE_INDEX")
    if not name:
        pytest.skip("needs PINECONE_API_KEY and, in NEAREST_TEST_PINECONE_INDEX, an index of dimension 4 and cosine")
    assert os.environ.get("PINECONE_API_KEY"), "NEAREST_TEST_PINECONE_INDEX needs PINECONE_API_KEY beside it"
    payloads: list[dict[str, Any]] = [
        {}, {"a": 1}, {"a": True}, {"a": "1"}, {"a": [1, "x"]}, {"a": None}, {"a": "2024-05-31"}, {"a": {"b": 2.5}},
    ]  # fmt: skip
    with stores.connect(f"pinecone://{name}/nearest-test-{uuid.uuid4()}", SCHEMA) as store:
        try:
            put(store, [Record(str(i), {"dense": vector(i)}, payload) for i, payload in enumerate(payloads)])
            conditions: list[dict[str, Any]] = [
                {"a": 1}, {"a": {"$ne": 1}}, {"a": True}, {"a": {"$nin": ["x"]}}, {"a": {"$gte": 1}}, {"a": None},
                {"$not": {"a": {"$gt": 0}}}, {"a": {"$lt": "2024-06-01"}}, {"a.b": {"$gt": 2}},
            ]  # fmt: skip
            for where in conditions:
                tree = filters.parse(where)
                expected = {str(i) for i, payload in enumerate(payloads) if filters.evaluate(tree, payload)}
                assert {hit.id for hit in store.search(Query(Dense(vector(0)), where=tree))} == expected, where
                assert store.count(where) == len(expected), where
                assert {record.id for record in store.scan_all(where=where)} == expected, where
            assert [dict(record.payload) for record in store.get(map(str, range(8)))] == payloads
            assert store.search(Query(Dense(vector(3)), k=1))[0].score == pytest.approx(1, abs=1e-5)
        finally:
            store.delete_where({"$or": [{"a": {"$exists": True}}, {"a": {"$exists": False}}]})
            store.wait()
        assert store.count() == 0


# --- freshness -------------------------------------------------------------------------------------


def test_wait_makes_writes_visible(double: PineconeDouble) -> None:
    store = stores.connect(url(double), SCHEMA)
    double.lag = 6
    store.upsert([Record("a", {"dense": vector(0)}), Record("b", {"dense": vector(1)})])
    assert (store.get(["a"]), store.count(), store.search(Query(Dense(vector(0))))) == ([], 0, [])
    store.wait()
    assert ([hit.id for hit in store.search(Query(Dense(vector(0))))], store.count()) == (["a", "b"], 2)
    store.delete(["a"])
    assert store.count() == 2
    store.wait()
    assert [record.id for record in store.scan_all()] == ["b"]
    store.delete_where({"x": None})
    assert store.count() == 1
    store.wait()
    assert store.count() == 0


def test_wait_gives_up(double: PineconeDouble) -> None:
    store = stores.connect(url(double, wait=0.05), SCHEMA)
    store.wait()
    double.lag, double.frozen = 1, True
    store.upsert([Record("a", {"dense": vector(0)})])
    with pytest.raises(TimedOut, match=r"not yet 1; wait again, or give more time with the option wait=") as caught:
        store.wait()
    assert caught.value.retryable
    double.frozen = False
    store.wait()
    assert store.count() == 1


def test_a_deletion_before_the_first_record_is_waited_for(double: PineconeDouble) -> None:
    store = stores.connect(url(double), SCHEMA)
    store.delete(["nobody"])
    store.delete_where({"a": 1})
    store.wait()
    assert (store.count(), store.scan().records, store.get(["nobody"])) == (0, [], [])


# --- opening and creating --------------------------------------------------------------------------


def test_collections_share_an_index(double: PineconeDouble) -> None:
    one, other = stores.connect(url(double, "books/en"), SCHEMA), stores.connect(url(double, "books/fr"), SCHEMA)
    put(one, [Record("a", {"dense": vector(0)})])
    assert (one.count(), other.count()) == (1, 0)
    assert list(double.indexes) == ["books"]
    deployment = double.indexes["books"].described["deployment"]
    assert (deployment["cloud"], deployment["region"]) == ("aws", "us-east-1")
    stores.connect(url(double, "elsewhere/en", cloud="gcp", region="europe-west4"), SCHEMA)
    assert double.indexes["elsewhere"].described["deployment"]["region"] == "europe-west4"


def test_what_is_not_there_is_not_opened(double: PineconeDouble) -> None:
    with pytest.raises(NotACollection, match="no index 'books'"):
        stores.connect(url(double))
    stores.connect(url(double, "books/en"), SCHEMA)
    with pytest.raises(NotACollection, match="'fr' of 'books' holds no collection; to make one, give a schema"):
        stores.connect(url(double, "books/fr"))


def test_an_index_of_another_kind_is_refused(double: PineconeDouble) -> None:
    stores.connect(url(double, "books/en"), SCHEMA)
    for spec in (VectorSpec(5), VectorSpec(4, "dot")):
        with pytest.raises(SchemaMismatch, match="is for dimension 4 and cosine, the schema for"):
            stores.connect(url(double, "books/fr"), Schema(vectors={"dense": spec}))


def test_a_namespace_of_others_is_refused(double: PineconeDouble) -> None:
    import pinecone as client

    stores.connect(url(double, "books/en"), SCHEMA)
    index = client.Pinecone(api_key="a-key", host=double.url).index("books")
    index.upsert(vectors=[("a", [1.0, 2.0, 3.0, 4.0])], namespace="theirs")
    with pytest.raises(NotACollection, match="'theirs' of 'books' holds records that nearest did not write"):
        stores.connect(url(double, "books/theirs"), SCHEMA)
    index.upsert(vectors=[("a", [1.0, 2.0, 3.0, 4.0])], namespace="en")
    with pytest.raises(CollectionDamaged, match="'a' was not written by nearest"):
        stores.connect(url(double, "books/en")).get(["a"])
    index.close()


def test_a_creation_that_was_cut_off_is_finished_by_the_next(double: PineconeDouble) -> None:
    """After the index, before the schema: nothing that opens."""
    double.fail("/vectors/upsert", 500)
    with pytest.raises(ConnectionFailed):
        stores.connect(url(double), SCHEMA)
    double.mend()
    assert list(double.indexes) == ["books"]
    with pytest.raises(NotACollection, match="holds no collection"):
        stores.connect(url(double))
    stores.connect(url(double), SCHEMA)
    assert stores.connect(url(double)).schema == SCHEMA


def test_a_damaged_schema_is_told(double: PineconeDouble) -> None:
    stores.connect(url(double), SCHEMA)
    double.indexes["books"].namespaces["nearest-schemas"].records["en"].metadata["schema"] = "{"
    with pytest.raises(CollectionDamaged, match="schema of 'en'"):
        stores.connect(url(double))


@pytest.mark.parametrize(
    "location", ["", "books/en", "//books", "//books/", "///en", "//Books/en", "//bo_oks/en", "//b%20/en",
                 f"//{'b' * 46}/en", "//books/é", "//books/nearest-schemas"],
)  # fmt: skip
def test_bad_urls_are_refused(location: str) -> None:
    with pytest.raises(InvalidInput):
        stores.connect(f"pinecone:{location}", SCHEMA)


def test_bad_options_are_refused() -> None:
    with pytest.raises(InvalidInput, match="no option 'shards'; there are cloud, region, host, timeout, wait"):
        stores.connect("pinecone://books/en?shards=2", SCHEMA)
    for given in ("0", "-1", "soon", "nan", "inf"):
        with pytest.raises(InvalidInput, match="timeout must be a number of seconds above 0"):
            stores.connect(f"pinecone://books/en?timeout={given}", SCHEMA)


def test_schemas_that_pinecone_cannot_hold_are_refused(double: PineconeDouble) -> None:
    with pytest.raises(InvalidInput, match="up to 20000"):
        stores.connect(url(double), Schema(vectors={"dense": VectorSpec(20_001)}))
    with pytest.raises(InvalidInput, match="declare fewer fields"):
        stores.connect(url(double), Schema(vectors=SCHEMA.vectors, fields={f"f{i}": "keyword" for i in range(3000)}))
    for refused in (
        Schema(vectors=SCHEMA.vectors, index=IndexParams(m=32)),
        Schema(vectors=SCHEMA.vectors, text="body"),
    ):
        with pytest.raises(UnsupportedError):
            stores.connect(url(double), refused)
    with pytest.raises(UnsupportedError, match=r"one sparse vector, the schema has \['a', 'b'\]; keep each in"):
        stores.connect(url(double), Schema(vectors=SCHEMA.vectors, sparse=("a", "b")))
    with pytest.raises(UnsupportedError, match=r"no sparse vectors beside l2 .*; use cosine or dot"):
        stores.connect(url(double), Schema(vectors={"dense": VectorSpec(4, "l2")}, sparse=("words",)))
    assert double.requests == []


# --- sparse vectors --------------------------------------------------------------------------------


def words(values: dict[int, float]) -> SparseVector:
    return SparseVector(np.array(list(values), np.int64), np.array(list(values.values())))


def test_neither_vector_counts_in_a_search_by_the_other(double: PineconeDouble) -> None:
    """The index answers for the sum of both inner products."""
    store = stores.connect(url(double), WORDS)
    assert double.indexes["books"].metric == "dotproduct"
    given = {"a": {1: 9.0, 2: 0.5}, "b": {2: -3.0}, "c": {}, "d": {5: 7.0, 2: 0.0}}
    records = [Record(i, {"dense": 3 * vector(n), "words": words(v)}) for n, (i, v) in enumerate(given.items())]
    put(store, [*records, Record("e", {"dense": vector(4)})])
    hits = store.search(Query(Sparse(words({2: 2.0, 3: 1.0}), "words"), k=3, with_vectors=True))
    assert [(hit.id, hit.score) for hit in hits] == [("a", 1.0), ("d", 0.0), ("b", -6.0)]
    assert hits[1].vectors["words"].values.tolist() == [0.0, 7.0]
    query = vector(0, 1)
    for hit in store.search(Query(Dense(query))):
        dense = vector("abcde".index(hit.id))
        assert hit.score == pytest.approx(dense @ query / np.linalg.norm(dense) / np.linalg.norm(query), abs=1e-6)
    store.close()
    again = stores.connect(url(double))
    assert again.schema == WORDS
    got = {record.id: record.vectors.get("words") for record in again.scan_all(with_vectors=True)}
    assert got["e"] is None
    assert {i: dict(zip(v.indices.tolist(), v.values.tolist(), strict=True)) for i, v in got.items() if v} == given


def test_a_sparse_search_under_a_condition_is_one_request(double: PineconeDouble) -> None:
    store = stores.connect(url(double), WORDS)
    put(store, [Record(f"r{i}", {"dense": vector(i), "words": words({i % 3: 1.0 + i})}, {"n": i}) for i in range(20)])
    before = len(double.requests)
    hits = store.search(Query(Sparse(words({1: 1.0}), "words"), where=filters.parse({"n": {"$ne": 4}})))
    assert [hit.id for hit in hits] == ["r19", "r16", "r13", "r10", "r7", "r1"]
    assert len(double.requests) == before + 1
    assert store.search(Query(Sparse(words({1: 0.0}), "words"))) == []


def test_sparse_vectors_alone(double: PineconeDouble) -> None:
    """Every record of such an index needs a vector, also one that has none for us."""
    schema = Schema(sparse=("words",))
    store = stores.connect(url(double), schema)
    assert double.indexes["books"].described["schema"]["fields"].keys() == {"_sparse_values"}
    put(store, [Record("a", {"words": words({0: 2.0})}), Record("b", {}, {"n": 1}), Record("c", {"words": words({})})])
    assert [(hit.id, hit.score) for hit in store.search(Query(Sparse(words({0: 3.0}), "words")))] == [("a", 6.0)]
    assert [set(record.vectors) for record in store.get([*"abc"], with_vectors=True)] == [{"words"}, set(), {"words"}]
    store.delete(["a"])
    store.wait()
    assert stores.connect(url(double), schema).count() == 2


def test_an_index_without_a_place_for_sparse_vectors_is_refused(double: PineconeDouble) -> None:
    dot = {"dense": VectorSpec(4, "dot")}
    stores.connect(url(double), Schema(vectors=dot))
    with pytest.raises(
        SchemaMismatch, match=r"for dimension 4 and dotproduct, the schema for .*, sparse vectors; give"
    ):
        stores.connect(url(double, "books/fr"), Schema(vectors=dot, sparse=("words",)))
    stores.connect(url(double, "words/en"), WORDS)
    stores.connect(url(double, "words/fr"), Schema(vectors=dot))
    for schema in (SCHEMA, Schema(sparse=("words",))):
        with pytest.raises(SchemaMismatch, match="for dimension 4 and dotproduct, sparse vectors, the schema for"):
            stores.connect(url(double, "words/de"), schema)


def test_too_large_sparse_vectors_are_refused_before_anything_is_written(double: PineconeDouble) -> None:
    store = stores.connect(url(double), WORDS)
    good = Record("good", {"dense": vector(0), "words": words(dict.fromkeys(range(2**32 - 1000, 2**32), 0.1))})
    large = words(dict.fromkeys(range(1001), 1.0))
    with pytest.raises(InvalidRecord, match="'big': sparse vector 'words' has 1001 values; Pinecone takes 1000"):
        store.upsert([good, Record("big", {"dense": vector(1), "words": large})])
    with pytest.raises(InvalidRecord, match=r"'big': .* 10999 for its sparse vector's indices; Pinecone takes 40960"):
        store.upsert([good, Record("big", good.vectors, {"text": "x" * 29_900})])
    store.wait()
    assert store.count() == 0
    with pytest.raises(InvalidQuery, match="the query has 1001 sparse values; Pinecone takes 1000"):
        store.search(Query(Sparse(large, "words")))
    put(store, [Record(f"r{i}", good.vectors, {"text": "x" * 29_000}) for i in range(200)])  # in parts of 2 MB
    hits = store.search(Query(Sparse(good.vectors["words"], "words"), k=200, with_vectors=True))
    assert len(hits) == 200
    assert all(len(hit.vectors["words"].values) == 1000 for hit in hits)


# --- errors ----------------------------------------------------------------------------------------


def test_a_missing_client_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any) -> Any:
        if name == "pinecone":
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependency, match=r"pip install 'nearest\[pinecone\]'"):
        stores.connect("pinecone://books/en", SCHEMA)


def test_a_missing_or_wrong_key(double: PineconeDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PINECONE_API_KEY", "another")
    with pytest.raises(AccessDenied, match="check PINECONE_API_KEY"):
        stores.connect(url(double), SCHEMA)
    monkeypatch.setenv("PINECONE_API_KEY", "two\nlines")
    with pytest.raises(InvalidInput, match="not a valid HTTP header"):
        stores.connect(url(double), SCHEMA)
    monkeypatch.delenv("PINECONE_API_KEY")
    with pytest.raises(AccessDenied, match="set the environment variable PINECONE_API_KEY"):
        stores.connect(url(double), SCHEMA)


def test_a_refused_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PINECONE_API_KEY", "a-key")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        with pytest.raises(ConnectionFailed, match="cannot be reached") as caught:
            stores.connect(f"pinecone://books/en?host=http://127.0.0.1:{taken.getsockname()[1]}", SCHEMA)
    assert caught.value.retryable


def test_a_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PINECONE_API_KEY", "a-key")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"pinecone://books/en?host=http://127.0.0.1:{silent.getsockname()[1]}&timeout=0.1"
        with pytest.raises(TimedOut, match="timeout="):
            stores.connect(place, SCHEMA)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, InvalidInput), (401, AccessDenied), (402, AccessDenied), (403, AccessDenied), (404, NotACollection),
        (409, InvalidInput), (429, Throttled), (500, ConnectionFailed), (503, Throttled),
    ],
)  # fmt: skip
def test_what_the_service_says(double: PineconeDouble, status: int, error: type[Exception]) -> None:
    stores.connect(url(double), SCHEMA)
    double.fail("/indexes/books", status, headers={"retry-after": "7"} if status in (429, 503) else None)
    with pytest.raises(error) as caught:
        stores.connect(url(double))
    assert type(caught.value) is error
    if error is Throttled:
        assert caught.value.context == {"retry_after": 7.0}  # type: ignore[attr-defined]


def test_a_closed_store_says_so(double: PineconeDouble) -> None:
    store = stores.connect(url(double), SCHEMA)
    store.close()
    with pytest.raises(StorageError, match="'en' was closed; open it again"):
        store.wait()


# --- limits ----------------------------------------------------------------------------------------


def test_a_payload_over_the_limit_is_refused_before_anything_is_written(double: PineconeDouble) -> None:
    store = stores.connect(url(double), SCHEMA)
    good = Record("good", {"dense": vector(0)})
    for text in ("x" * 41_000, '"' * 20_500, "漢" * 13_700):
        with pytest.raises(InvalidRecord, match=r"'big': its payload needs \d+ bytes .*Pinecone takes 40960"):
            store.upsert([good, Record("big", {"dense": vector(1)}, {"text": text})])
        assert store.count() == 0
    largest = Record("big", {"dense": vector(1)}, {"text": "漢" * 13_500})
    put(store, [largest])
    assert store.get(["big"])[0].payload == largest.payload


def test_a_zero_vector_is_refused_under_every_metric(double: PineconeDouble) -> None:
    store = stores.connect(url(double), Schema(vectors={"dense": VectorSpec(4, "dot")}))
    with pytest.raises(InvalidRecord, match="'zero': vector 'dense' is zero"):
        store.upsert([Record("a", {"dense": vector(0)}), Record("zero", {"dense": [0, 0, 0, 0]})])
    assert store.count() == 0


def test_what_is_refused_in_a_later_part_stops_the_first(
    double: PineconeDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = stores.connect(url(double), SCHEMA)
    monkeypatch.setattr(store, "capabilities", replace(store.capabilities, max_batch=1))
    for bad in (Record("big", {"dense": vector(1)}, {"text": "x" * 41_000}), Record("zero", {"dense": [0, 0, 0, 0]})):
        with pytest.raises(InvalidRecord, match=bad.id):
            store.upsert([Record("good", {"dense": vector(0)}), bad])
    store.wait()
    assert store.count() == 0


def test_a_bulk_goes_in_parts_within_the_limits(double: PineconeDouble) -> None:
    store = stores.connect(url(double, "wide/en"), Schema(vectors={"dense": VectorSpec(1536)}))
    random = np.random.default_rng(0)
    put(store, [Record(f"r{i}", {"dense": random.normal(size=1536)}, {"text": "x" * 5000}) for i in range(200)])
    upserts = sum(path.endswith("/vectors/upsert") for _, path in double.requests)
    assert store.count() == 200
    assert 4 <= upserts <= 8  # by size, and one for the schema
    store.delete(f"r{i}" for i in range(1001))
    store.wait()
    assert store.count() == 0


def test_results_over_the_limit_come_by_their_ids(double: PineconeDouble) -> None:
    store = stores.connect(url(double), SCHEMA)
    ids = [f"r{i:03}" for i in range(149)] + ["💡" * 512]
    put(store, [Record(i, {"dense": vector(n)}, {"text": "x" * 35_000, "n": n}) for n, i in enumerate(ids)])
    for k in (10, 150):
        hits = store.search(Query(Dense(vector(149)), k=k, with_vectors=True))
        assert (len(hits), hits[0].id, hits[0].payload["n"]) == (k, ids[149], 149)
        assert hits[0].vectors["dense"].shape == (4,)
        assert {hit.id for hit in store.search(Query(Dense(vector(149)), k=150, with_payload=False))} == set(ids)
    assert len(store.scan(limit=150).records) == len(store.scan(limit=150, where={"n": {"$gte": 0}}).records) == 150


def test_a_part_of_a_batch_that_fails_is_named(double: PineconeDouble) -> None:
    store = stores.connect(url(double), SCHEMA)
    double.fail("/vectors/upsert", 400, "to order", skip=1)
    records = [Record(f"r{i}", {"dense": vector(i)}) for i in range(1500)]
    with pytest.raises(BatchFailed, match="of 1500 records were not written") as caught:
        store.upsert(records)
    double.mend()
    assert len(caught.value.failed) in (500, 1000)
    assert {type(error) for error in caught.value.failed.values()} == {InvalidRecord}
    assert not caught.value.retryable
    store.wait()
    assert {record.id for record in store.scan_all()} == {r.id for r in records} - caught.value.failed.keys()
    double.fail("/vectors/upsert", 400, "to order")
    with pytest.raises(InvalidRecord, match="to order"):
        store.upsert(records)


# --- what is stored --------------------------------------------------------------------------------


def test_derived_metadata(double: PineconeDouble) -> None:
    store = stores.connect(url(double), SCHEMA)
    payload = {
        "lang": "en",
        "n": [3, 1.0, True, "7"],
        "o": {"date": ["2024-05-31", "1970-01-01T00:00:01Z"], "x.y": 1, "none": None, "empty": [], "deep": {}},
        "$odd": 1,
        "long": "x" * 100,
    }
    put(store, [Record("é 100%", {"dense": vector(0)}, payload)])
    ((key, stored),) = double.indexes["books"].namespaces["en"].records.items()
    assert key == "%C3%A9 100%25"
    metadata = dict(stored.metadata)
    digest = metadata.pop("long#")[0]
    assert digest.startswith("s#")
    assert len(digest) == 42
    assert json.loads(metadata.pop("_json")) == payload
    assert metadata == {
        "_v": 1,
        "lang#": ["sen"],
        "n#": ["n3", "n1", "b1", "s7"],
        "n#min": 1,
        "n#max": 3,
        "o#": ["o"],
        "o.date#": ["t1717113600000000", "t1000000"],
        "o.date#first": 1_000_000,
        "o.date#last": 1717113600000000,
        "o.deep#": ["o"],
    }
    assert store.get(["é 100%"])[0].id == "é 100%"


def test_filters_run_on_the_server(double: PineconeDouble) -> None:
    """A filtered search is one request, whatever the operator."""
    store = stores.connect(url(double), SCHEMA)
    put(store, [Record(f"r{i}", {"dense": vector(i)}, {"n": i, "tags": ["a", "b"][: i % 3]}) for i in range(50)])
    for where in ({"n": {"$ne": 3}}, {"$not": {"n": {"$gt": 40}}}, {"tags": {"$nin": ["b"]}}, {"tags": None}):
        before = len(double.requests)
        hits = store.search(Query(Dense(vector(0)), k=50, where=filters.parse(where)))
        assert {hit.id for hit in hits} == {
            f"r{i}" for i in range(50) if filters.evaluate(filters.parse(where), {"n": i, "tags": ["a", "b"][: i % 3]})
        }
        assert len(double.requests) == before + 1
        assert store.count(where) == len(hits)
        assert len(double.requests) == before + 2


def test_a_service_that_does_not_count(double: PineconeDouble) -> None:
    store = stores.connect(url(double), SCHEMA)
    double.counts = False
    put(store, [Record(f"r{i}", {"dense": vector(i)}, {"even": i % 2 == 0}) for i in range(250)])
    assert (store.count(), store.count({"even": True}), store.count({"even": 1})) == (250, 125, 0)


def test_statistics(double: PineconeDouble) -> None:
    store = stores.connect(url(double), SCHEMA)
    assert store.stats() == {"index": "Pinecone serverless; the service builds and keeps it"}
    put(store, [Record("a", {"dense": vector(0)})])
    assert store.stats()["indexed"] == 1
    assert store.stats()["disk_bytes"] > 16


def test_stores_are_closed_while_others_use_the_service(double: PineconeDouble) -> None:
    """Clients share nothing that closing one takes from another."""
    kept = stores.connect(url(double), SCHEMA)
    put(kept, [Record("a", {"dense": vector(0)})])

    def open_and_close() -> None:
        with stores.connect(url(double)) as store:
            assert store.count() == 1

    threads = [threading.Thread(target=open_and_close) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kept.count() == 1
