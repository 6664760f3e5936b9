"""Random sequences of calls: after each, a store answers as the memory store does."""

from __future__ import annotations

import itertools
import random
from typing import Any

from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from nearest import filters
from nearest.contract import Dense, Query, Record, Store
from nearest.stores.memory import MemoryStore
from nearest.testing.base import Base, Make, check_ranking, drop, drop_where, put, same_json, vector
from nearest.testing.generated import DECLARED, _fewer, conditions, payload

_IDS = [
    "a",
    "b",
    "c",
    "A",
    "é",
    "e\u0301",
    "5f0c2a1e-8b1d-4a57-9d3e-0a4a8b1c2d3e",
    "5F0C2A1E-8B1D-4A57-9D3E-0A4A8B1C2D3E",
]


def _calls() -> st.SearchStrategy[list[tuple[str, Any]]]:
    ids = st.lists(st.sampled_from(_IDS), max_size=5)
    call: st.SearchStrategy[tuple[str, Any]] = st.one_of(
        st.tuples(st.just("upsert"), ids),
        st.tuples(st.just("upsert"), ids),
        st.tuples(st.just("delete"), ids),
        st.tuples(st.just("delete_where"), conditions()),
        st.tuples(st.just("get"), ids),
        st.tuples(st.just("search"), st.tuples(st.integers(1, 10), st.one_of(st.none(), conditions()))),
        st.tuples(st.just("count"), st.one_of(st.none(), conditions())),
        st.tuples(st.just("scan"), st.integers(1, 9)),
        st.tuples(st.just("optimize"), st.none()),
    )
    return st.lists(call, min_size=1, max_size=25)


class Sequences(Base):
    def test_sequences_of_calls(self, build: Make) -> None:
        schema = self.schema(fields=DECLARED)
        store, reference = build(schema), MemoryStore.create(schema)
        seeds = itertools.count()

        @settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=_fewer(5))
        @given(_calls())
        def check(calls: list[tuple[str, Any]]) -> None:
            drop(store, _IDS)
            drop(reference, _IDS)
            for name, argument in calls:
                note(f"{name} {argument}")
                # A vector of its own for every write, so that no two scores tie.
                _step(store, reference, name, argument, next(seeds))
            _equal_states(store, reference)

        check()


def _step(store: Store, reference: Store, name: str, argument: Any, seed: int) -> None:
    match name:
        case "upsert":
            source = random.Random(seed)
            records = [Record(i, {"dense": vector(seed, n)}, payload(source)) for n, i in enumerate(argument)]
            put(store, records)
            put(reference, records)
        case "delete":
            drop(store, argument)
            drop(reference, argument)
        case "delete_where":
            drop_where(store, argument)
            drop_where(reference, argument)
        case "get":
            got, expected = store.get(argument), reference.get(argument)
            assert [record.id for record in got] == [record.id for record in expected]
            assert all(same_json(x.payload, y.payload) for x, y in zip(got, expected, strict=True))
        case "search":
            k, where = argument
            query = Query(Dense(vector(0)), k=k, where=filters.parse(where))
            every = Query(Dense(vector(0)), k=100, where=filters.parse(where))
            check_ranking(store.search(query), {hit.id: hit.score for hit in reference.search(every)}, k)
        case "count":
            assert store.count(argument) == reference.count(argument)
        case "scan":
            ids: list[str] = []
            cursor: str | None = None
            while True:
                page = store.scan(cursor, limit=argument)
                ids += [record.id for record in page.records]
                cursor = page.cursor
                if cursor is None:
                    break
            assert sorted(ids) == [record.id for record in reference.scan_all()]
        case "optimize":
            store.optimize()
        case _:
            raise AssertionError(name)


def _equal_states(store: Store, reference: Store) -> None:
    got = {record.id: record.payload for record in store.scan_all()}
    expected = {record.id: record.payload for record in reference.scan_all()}
    assert got.keys() == expected.keys()
    assert all(same_json(got[i], expected[i]) for i in expected)
