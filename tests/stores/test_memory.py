"""The memory store: the conformance suite, and what holds for the reference alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from nearest import stores
from nearest.contract import (
    Dense,
    Query,
    Record,
    Schema,
    Sparse,
    SparseVector,
    Store,
    StoreURL,
    Text,
    VectorSpec,
)
from nearest.errors import InvalidInput, NotACollection, SchemaMismatch
from nearest.stores import memory
from nearest.stores._bm25 import Analyzer
from nearest.stores.memory import MemoryStore
from nearest.testing import StoreSuite
from nearest.testing.base import Make, vector

SCHEMA = Schema(vectors={"dense": VectorSpec(4)})


class TestMemory(StoreSuite):
    module = memory

    @pytest.fixture
    def make(self) -> Make:
        return lambda schema: memory.connect(StoreURL.parse("memory:"), schema)


# --- names -----------------------------------------------------------------------------------------


@pytest.fixture
def name(monkeypatch: pytest.MonkeyPatch) -> str:
    """A URL in a process where no collection has a name yet."""
    monkeypatch.setattr(memory, "_named", {})
    return "memory:shelf"


def test_a_name_finds_the_same_collection(name: str) -> None:
    one = stores.connect(name, SCHEMA)
    one.upsert([Record("a", {"dense": [1, 2, 3, 4]})])
    other = stores.connect(name)
    assert other.schema == SCHEMA
    assert [record.id for record in other.scan_all()] == ["a"]
    other.upsert([Record("b", {"dense": [1, 2, 3, 4]})])
    one.close()
    assert other.count() == 2
    other.close()
    assert stores.connect(name, SCHEMA).count() == 2


def test_a_name_that_is_not_there(name: str) -> None:
    with pytest.raises(NotACollection, match="memory:shelf"):
        stores.connect(name)
    with pytest.raises(NotACollection, match="give a schema"):
        stores.connect("memory:")


def test_a_name_with_another_schema(name: str) -> None:
    stores.connect(name, SCHEMA)
    with pytest.raises(SchemaMismatch, match=r"vectors was .*'dim': 4.* now .*'dim': 5"):
        stores.connect(name, Schema(vectors={"dense": VectorSpec(5)}))


def test_without_a_name_every_collection_is_its_own() -> None:
    one, other = stores.connect("memory:", SCHEMA), stores.connect("memory:", SCHEMA)
    one.upsert([Record("a", {"dense": [1, 2, 3, 4]})])
    assert (one.count(), other.count()) == (1, 0)


def test_options_are_refused() -> None:
    with pytest.raises(InvalidInput, match="takes no options, got size"):
        stores.connect("memory:?size=5", SCHEMA)


def test_every_access_holds_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a race would need luck to show."""
    seen = set()

    def watched(verb: str) -> Any:
        real = getattr(memory._Collection, verb)

        def call(self: Any, *arguments: Any) -> Any:
            seen.add(verb)
            assert self.lock._is_owned(), f"{verb} without the lock"
            return real(self, *arguments)

        return call

    for verb in ("append", "remove", "search", "record", "matches", "in_order"):
        monkeypatch.setattr(memory._Collection, verb, watched(verb))
    store = MemoryStore.create(SCHEMA)
    store.upsert([Record("a", {"dense": [1, 2, 3, 4]}), Record("b", {"dense": [1, 2, 3, 4]})])
    store.delete(["b"])
    store.delete_where({"a": 1})
    assert (len(store.get(["a"])), store.count(), len(store.scan().records)) == (1, 1, 1)
    assert len(store.search(Query(Dense([1, 2, 3, 4])))) == 1
    assert len(seen) == 6


# --- exactness beyond the contract -----------------------------------------------------------------


def test_ties_at_the_cut_go_by_id() -> None:
    store = MemoryStore.create(SCHEMA)
    store.upsert([Record(f"r{i:02}", {"dense": [1, 1, 1, 1]}) for i in reversed(range(50))])
    for k in (1, 7, 49):
        assert [hit.id for hit in store.search(Query(Dense([1, 1, 1, 2]), k=k))] == [f"r{i:02}" for i in range(k)]


def test_equal_vectors_score_equal_wherever_they_lie() -> None:
    store = MemoryStore.create(Schema(vectors={"dense": VectorSpec(37, "dot")}))
    rows = np.random.default_rng(0).normal(size=(5000, 37))
    rows[::7] = rows[0]
    store.upsert([Record(f"r{i:04}", {"dense": row}) for i, row in enumerate(rows)])
    scores = {hit.id: hit.score for hit in store.search(Query(Dense(rows[0]), k=5000))}
    assert len({scores[f"r{i:04}"] for i in range(0, 5000, 7)}) == 1


def test_close_neighbours_far_from_the_origin_are_told_apart() -> None:
    store = MemoryStore.create(Schema(vectors={"dense": VectorSpec(2, "l2")}))
    store.upsert([Record(f"r{i}", {"dense": [4096.0 + i / 1024, 4096.0]}) for i in range(5)])
    hits = store.search(Query(Dense([4096.0, 4096.0])))
    assert [(hit.id, hit.score) for hit in hits] == [(f"r{i}", -i / 1024) for i in range(5)]


def test_a_score_of_zero_is_not_minus_zero() -> None:
    store = MemoryStore.create(Schema(vectors={"dense": VectorSpec(2, "l2")}))
    store.upsert([Record("a", {"dense": [1, 2]})])
    assert math.copysign(1, store.search(Query(Dense([1, 2])))[0].score) == 1


# --- after many writes -----------------------------------------------------------------------------

FULL = Schema(
    vectors={"dense": VectorSpec(4), "tokens": VectorSpec(3, "dot", multi=True)}, sparse=("words",), text="body"
)
_WORDS = ["apple", "banana", "cherry", "kiwi", "lemon", "mango"]


def _sparse(indices: Any, values: Any) -> SparseVector:
    return SparseVector(np.asarray(indices, np.uint32), np.asarray(values, np.float32))


def _full(number: int, salt: int) -> Record:
    random = np.random.default_rng([number, salt])
    vectors: dict[str, Any] = {
        "dense": random.normal(size=4),
        "tokens": random.normal(size=(1 + number % 4, 3)),
    }
    if number % 3:
        vectors["words"] = _sparse(random.choice(20, size=3, replace=False), random.normal(size=3))
    body = " ".join(random.choice(_WORDS, size=1 + number % 7))
    return Record(f"r{number:04}", vectors, {"n": number, "body": body if number % 5 else None})


def _answers(store: Store) -> list[dict[str, float]]:
    queries = [
        Query(Dense(vector(1)), k=1000),
        Query(Dense(np.stack([vector(1, dim=3), vector(2, dim=3)]), "tokens"), k=1000),
        Query(Sparse(_sparse(np.arange(10), np.linspace(-1, 1, 10)), "words"), k=1000),
        Query(Text("apples and kiwi"), k=1000),
    ]
    return [{hit.id: hit.score for hit in hits} for hits in store.search_many(queries)]


def test_what_was_replaced_or_deleted_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores, statistics included, are those of a collection that was written once; also after rebuilding."""
    for threshold in (0, 50, 10**6):
        monkeypatch.setattr(memory, "_COMPACT_FROM", threshold)
        store, once = MemoryStore.create(FULL), MemoryStore.create(FULL)
        for salt in range(4):
            for start in range(0, 200, 40):
                store.upsert(_full(i, salt) for i in range(start, start + 40))
            store.delete(f"r{i:04}" for i in range(salt, 200, 5))
        store.delete_where({"n": {"$gte": 150}})
        kept = [record.id for record in store.scan_all()]
        once.upsert(_full(int(record_id[1:]), 3) for record_id in kept)
        assert 0 < len(kept) == once.count() < 200
        assert _answers(store) == _answers(once)
        for record, same in zip(store.get(kept, with_vectors=True), once.get(kept, with_vectors=True), strict=True):
            assert record.payload == same.payload
            assert record.vectors.keys() == same.vectors.keys()
            np.testing.assert_array_equal(record.vectors["tokens"], same.vectors["tokens"])


def test_rebuilding_frees_what_is_dead() -> None:
    store = MemoryStore.create(FULL)
    for salt in range(20):
        store.upsert(_full(i, salt) for i in range(100))
    assert len(store._data.ids) <= 100 + 256 + 100
    store.delete(f"r{i:04}" for i in range(100))
    for i in range(1000):
        store.upsert([_full(0, i)])
    assert len(store._data.ids) <= 300
    assert store.count() == 1


# --- BM25 ------------------------------------------------------------------------------------------


def test_bm25_by_hand() -> None:
    """k1 = 1.2, b = 0.75, idf = ln(1 + (N - n + 0.5) / (n + 0.5)), over records that hold a text."""
    store = MemoryStore.create(Schema(text="body"))
    bodies = {"a": "apple apple banana", "b": "apple cherry", "c": "The kiwi", "none": None}
    store.upsert([Record(name, payload={"body": body}) for name, body in bodies.items()])
    count, mean = 3, (3 + 2 + 1) / 3

    def score(holding: int, times: int, length: int) -> float:
        idf = math.log(1 + (count - holding + 0.5) / (holding + 0.5))
        return idf * times * 2.2 / (times + 1.2 * (0.25 + 0.75 * length / mean))

    scores = {hit.id: hit.score for hit in store.search(Query(Text("apples, the bananas and apples")))}
    assert scores == pytest.approx({"a": score(2, 2, 3) + score(1, 1, 3), "b": score(2, 1, 2)}, rel=1e-6)


@pytest.mark.parametrize(
    ("language", "text", "terms"),
    [
        ("english", "The Running dogs' TCP/IP e-mail_2", ["run", "dog", "tcp", "ip", "e", "mail", "2"]),
        ("english", "don't isn't we've", []),
        ("english", "naïve CAFÉ", ["naïv", "café"]),
        ("german", "Die Häuser laufen", ["die", "haus", "lauf"]),
        ("french", "continuellement", ["continuel"]),
        ("hindi", "किताबें", ["किताब"]),
        ("russian", "книги", ["книг"]),
    ],
)
def test_terms(language: str, text: str, terms: list[str]) -> None:
    assert Analyzer(language).terms(text) == terms


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(InvalidInput, match="'klingon' has no stemmer; there are arabic, "):
        stores.connect("memory:", Schema(text="body", language="klingon"))
