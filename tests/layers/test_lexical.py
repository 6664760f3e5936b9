"""The lexical fallback beyond the suite: crashes between its two stores, differences, and what a search costs."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearest import filters, stores
from nearest.contract import Dense, Fused, Page, Query, Record, Schema, Text, VectorSpec
from nearest.errors import ConnectionFailed, InvalidInput
from nearest.layers.chaos import Chaos, Fault, Plan, by_chance, script
from nearest.layers.lexical import Differences, Lexical, companion_schema, inner_schema
from nearest.layers.retry import Retry
from nearest.stores.memory import MemoryStore

SCHEMA = Schema(vectors={"dense": VectorSpec(2)}, text="text", language="german", fields={"n": "integer"})
NONE = Differences([], [], [])


def record(record_id: str, text: str | None, n: int = 0) -> Record:
    return Record(record_id, {"dense": [1, n]}, {"text": text, "n": n} if text is not None else {"n": n})


class Counting(MemoryStore):
    """Which records were asked for by id."""

    def __init__(self, collection: Any) -> None:
        super().__init__(collection)
        self.got: list[list[str]] = []

    def _get(self, ids: list[str], with_vectors: bool) -> list[Record]:
        self.got.append(sorted(ids))
        return super()._get(ids, with_vectors)


@pytest.fixture
def inner() -> Counting:
    store = Counting.create(inner_schema(SCHEMA))
    assert isinstance(store, Counting)
    return store


@pytest.fixture
def companion() -> MemoryStore:
    return MemoryStore.create(companion_schema(SCHEMA))


@pytest.fixture
def both(inner: Counting, companion: MemoryStore) -> Lexical:
    return Lexical(inner, companion)


def by_words(store: Lexical, words: str, **more: Any) -> list[str]:
    return [hit.id for hit in store.search(Query(Text(words), **more))]


def test_schemas(inner: Counting, companion: MemoryStore) -> None:
    assert companion.schema.vectors == {}
    layer = Lexical(inner, companion)
    assert layer.schema == SCHEMA
    assert "text" in layer.capabilities
    assert layer.stats() == {**inner.stats(), "lexical": companion.stats()}
    for wrong in ((companion, companion), (inner, inner)):
        with pytest.raises(InvalidInput, match="text field"):
            Lexical(*wrong)


def test_on_an_embedded_companion(tmp_path: Path, inner: Counting) -> None:
    """The engine takes a collection of texts alone, and keeps it."""
    url = f"edge:{tmp_path}/words"
    with Lexical(inner, stores.connect(url, companion_schema(SCHEMA))) as layer:
        layer.upsert([record("a", "Häuser am See", 1), record("b", "ein Haus", 2), record("c", None, 3)])
        assert set(by_words(layer, "Haus")) == {"a", "b"}
        assert by_words(layer, "Haus", where=filters.parse({"text": {"$contains": "See"}})) == ["a"]
        hits = layer.search(Query(Fused((Dense([1, 2]), Text("See"))), explain=True))
        assert [hit.id for hit in hits[:1]] == ["a"]
        assert {*(hits[0].explain or {})} == {"dense", "lexical"}
        layer.optimize()
        layer.flush()
        layer.wait()
    reopened = stores.connect(url)
    assert reopened.schema == companion_schema(SCHEMA)
    assert [hit.id for hit in reopened.search(Query(Text("See")))] == ["a"]
    reopened.close()
    with pytest.raises(Exception, match="closed"):
        layer.count()


# --- what is returned ---


def test_hits_are_as_the_inner_store_holds_them(both: Lexical, companion: MemoryStore) -> None:
    both.upsert([record("a", "Haus", 1), record("b", "Haus", 2)])
    companion.upsert([Record("a", {}, {"text": "Haus", "n": 7, "tenant": "other"})])
    (hit, other) = sorted(both.search(Query(Text("Haus"), with_vectors=True)), key=lambda hit: hit.id)
    assert hit.payload == {"text": "Haus", "n": 1}
    np.testing.assert_allclose(hit.vectors["dense"], np.array([1, 1]) / np.sqrt(2), rtol=1e-6)
    assert hit.score > 0
    assert [(h.payload, h.vectors) for h in both.search(Query(Text("Haus"), with_payload=False))] == [({}, {})] * 2
    # A condition is about what the inner store holds, too.
    assert by_words(both, "Haus", where=filters.parse({"tenant": "other"})) == []
    assert by_words(both, "Haus", where=filters.parse({"n": 2})) == [other.id]


def test_what_the_inner_store_lost_is_not_found(both: Lexical, inner: Counting) -> None:
    both.upsert([record(f"r{i:02}", "Haus " * (i + 1), i) for i in range(40)])
    best = by_words(both, "Haus", k=40)
    assert len(best) == 40
    inner.delete(best[:25])
    assert by_words(both, "Haus", k=5) == best[25:30]  # others take their places
    assert by_words(both, "Haus", k=40) == best[25:]
    fused = both.search(Query(Fused((Dense([1, 0]), Text("Haus"))), k=40))
    assert {hit.id for hit in fused} == set(best[25:])


def test_a_search_asks_once_for_what_it_does_not_know(both: Lexical, inner: Counting) -> None:
    both.upsert([record(f"r{i}", "Haus" if i % 2 else "See", i) for i in range(6)])
    assert len(by_words(both, "Haus")) == 3
    assert inner.got == [["r1", "r3", "r5"]]
    inner.got.clear()
    # What the vectors found is known already.
    both.search(Query(Fused((Dense([1, 9]), Text("Haus")), candidates=3), k=3))
    assert inner.got == [["r1"]]
    inner.got.clear()
    both.search(Query(Fused((Dense([1, 9]), Text("Haus")))))
    both.search(Query(Dense([1, 9])))
    assert by_words(both, "Zebra") == []
    assert inner.got == []
    answers = both.search_many([Query(Text("Haus")), Query(Dense([1, 9]), k=1), Query(Text("See"), with_vectors=True)])
    assert [len(hits) for hits in answers] == [3, 1, 3]
    assert all("dense" in hit.vectors for hit in answers[2])
    assert all(hit.vectors == {} for hits in answers[:2] for hit in hits)
    assert len(inner.got) == 1


# --- crashes ---

LOST = Fault("before")


def state(store: Any) -> dict[str, Any]:
    return {record.id: record.payload for record in store.scan_all()}


def check(store: Lexical, words: str = "Haus") -> None:
    """Nothing is returned that is not there, and nothing that is there is missed by its words."""
    held = state(store.inner)
    found = set(by_words(store, words, k=1000))
    assert found <= set(held)
    texts = {i for i, payload in held.items() if words in (payload.get("text") or "").split()}
    assert texts <= {record.id for record in store._companion.scan_all()}


@pytest.mark.parametrize("when", [0, 1], ids=["before the first", "between the two"])
@pytest.mark.parametrize("write", ["new", "replace", "delete", "delete_where"])
def test_a_crash_between_the_two_and_a_repetition(
    inner: Counting, companion: MemoryStore, write: str, when: int
) -> None:
    Lexical(inner, companion).upsert([record("a", "altes Haus", 1), record("b", "Haus", 2)])
    before = state(inner)
    plan: Plan = script([*[None] * when, LOST])  # one plan for both: calls are counted through
    cut = Lexical(Chaos(inner, plan), Chaos(companion, plan))
    writes: dict[str, Callable[[Lexical], None]] = {
        "new": lambda store: store.upsert([record("c", "neues Haus", 3)]),
        "replace": lambda store: store.upsert([record("a", "neuer See", 3)]),
        "delete": lambda store: store.delete(["a"]),
        "delete_where": lambda store: store.delete_where({"n": 1}),
    }
    with pytest.raises(ConnectionFailed):
        writes[write](cut)
    layer = Lexical(inner, companion)
    check(layer)
    if when == 0 or write in ("new", "replace"):
        assert state(inner) == before
    assert bool(layer.verify()) == (when == 1)
    writes[write](layer)
    check(layer)
    assert layer.verify() == NONE
    assert set(by_words(layer, "Haus")) == {"a": {"a", "b"}, "new": {"a", "b", "c"}}.get(write, {"b"})


def test_differences_are_found_and_repaired(both: Lexical, inner: Counting, companion: MemoryStore) -> None:
    both.upsert([record(f"r{i:04}", "Haus", i) for i in range(2500)])
    assert both.verify(repair=True) == NONE
    companion.delete(["r0003", "r2400"])
    inner.delete(["r0000", "r1999"])
    inner.upsert(
        [record("r1000", "See", 1000), Record("r1001", {"dense": [1, 2]}, {"text": "Haus", "n": 1001, "x": 1})]
    )
    companion.upsert([Record("r1002", {}, {"text": "Haus", "n": 1002, "x": True})])
    inner.upsert([Record("r1002", {"dense": [1, 2]}, {"text": "Haus", "n": 1002, "x": 1})])
    companion.upsert([Record("stray", {}, {"text": "Haus"})])
    before, expected = state(inner), Differences(
        ["r0003", "r2400"], ["r1000", "r1001", "r1002"], ["r0000", "r1999", "stray"]
    )  # fmt: skip
    assert both.verify() == expected
    assert both.verify() == expected  # nothing was repaired
    assert both.verify(repair=True) == expected
    assert both.verify() == NONE
    assert not both.verify()
    assert state(inner) == before == state(companion)


def test_any_faults_and_a_repair(inner: Counting, companion: MemoryStore) -> None:
    chances = {Fault("before"): 0.15, Fault("after"): 0.15, Fault("partial"): 0.1}
    for seed in range(5):
        plan = by_chance(chances, seed)
        layer = Lexical(Chaos(inner, plan, seed=seed), Chaos(companion, plan, seed=seed))
        source = random.Random(seed)
        for step in range(60):
            ids = source.sample("abcdefgh", 3)
            try:
                if source.random() < 0.6:
                    layer.upsert([record(i, source.choice(["Haus", "See", None]), step) for i in ids])
                else:
                    layer.delete(ids)
            except Exception:  # noqa: BLE001, S110 -- any of the faults; the state is checked below
                pass
        whole = Lexical(inner, companion)
        found = {hit.id: hit.payload for hit in whole.search(Query(Text("Haus"), k=100))}
        assert found.items() <= state(inner).items()
        whole.verify(repair=True)
        assert state(inner) == state(companion)
        # With retries there is nothing to repair.
        patient = Lexical(
            Retry(Chaos(inner, plan), attempts=100, sleep=lambda _: None),
            Retry(Chaos(companion, plan), attempts=100, sleep=lambda _: None),
        )
        patient.upsert([record(i, "Haus", 99) for i in "abc"])
        patient.delete(["d", "e", "f", "g", "h"])
        assert whole.verify() == NONE
        assert set(by_words(whole, "Haus")) == {"a", "b", "c"}


# --- threads ---


def test_two_writers_of_the_same_record_leave_the_stores_equal(
    inner: Counting, companion: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second writes while the first is between the two stores."""
    layer = Lexical(inner, companion)
    between, second_is_through = threading.Event(), threading.Event()
    upsert = inner._upsert

    def pausing(records: list[Record]) -> None:
        if not between.is_set():
            between.set()
            second_is_through.wait(0.2)  # it is not to come through, so this is waited out
        upsert(records)

    monkeypatch.setattr(inner, "_upsert", pausing)

    def second() -> None:
        between.wait()
        layer.upsert([record("a", "See", 2)])
        second_is_through.set()

    thread = threading.Thread(target=second)
    thread.start()
    layer.upsert([record("a", "Haus", 1)])
    thread.join()
    assert layer.verify() == NONE
    assert (by_words(layer, "See"), by_words(layer, "Haus")) == (["a"], [])


def test_a_page_that_is_not_full_is_no_end(inner: Counting, companion: MemoryStore) -> None:
    class Sparse(Counting):
        def _scan(self, cursor: str | None, limit: int, where: Any, with_vectors: bool) -> Page:
            return super()._scan(cursor, min(limit, 2), where, with_vectors)

    sparse = Sparse.create(inner_schema(SCHEMA))
    layer = Lexical(sparse, companion)
    layer.upsert([record(str(i), "Haus", i) for i in range(7)])
    companion.delete(["6"])
    assert layer.verify().missing == ["6"]
