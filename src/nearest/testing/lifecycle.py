"""A collection's life: schemas, closing, opening again, and use from several threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from nearest.contract import Dense, Query, Schema, Store, Text, VectorSpec
from nearest.errors import NearestError, SchemaMismatch
from nearest.testing.base import DIM, Base, Make, Reopen, drop, found, needs, plain, put, vector


class Lifecycle(Base):
    def test_a_store_knows_its_schema(self, build: Make) -> None:
        schema = self.schema(fields={"year": "integer", "o.tag": "keyword"})
        assert build(schema).schema == schema

    def test_two_collections_share_nothing(self, build: Make) -> None:
        one, other = build(self.schema()), build(self.schema())
        put(one, [plain(0)])
        put(other, [plain(1)])
        assert (found(one), found(other)) == ({"r000"}, {"r001"})

    def test_closing_twice_is_closing_once(self, make: Make) -> None:
        store = make(self.schema())
        put(store, [plain(0)])
        store.close()
        store.close()
        with make(self.schema()) as inside:
            put(inside, [plain(0)])
        inside.close()

    def test_a_closed_store_refuses(self, make: Make) -> None:
        store = make(self.schema())
        put(store, [plain(0)])
        store.close()
        calls: list[Callable[[], Any]] = [
            lambda: store.upsert([plain(1)]),
            lambda: store.delete(["r000"]),
            lambda: store.delete_where({"a": 1}),
            lambda: store.get(["r000"]),
            lambda: store.count(),
            lambda: store.scan(),
            lambda: store.search(Query(Dense(vector(0)))),
        ]
        for call in calls:
            with pytest.raises(NearestError):
                call()

    @needs("durable")
    def test_opening_again_finds_everything(self, make: Make, reopen: Reopen) -> None:
        fields: Any = {"n": "integer", "date": "datetime"}
        schema = self.schema(fields=fields, text="body" if "text" in self.capabilities else None)
        store = make(schema)
        put(store, [plain(i, {"n": i, "body": f"apple number{i}", "date": "2024-05-31"}) for i in range(50)])
        put(store, [plain(0, {"n": 100, "body": "pear"})])
        drop(store, ["r001"])
        query = Query(Dense(vector(5, 5)), k=10)
        before = _state(store, query)
        store.close()
        for given in (None, schema):
            store = reopen(store, given)
            assert store.schema == schema
            assert _state(store, query) == before
            assert store.count({"n": {"$gte": 49}}) == 2
            if "text" in self.capabilities:
                assert [hit.id for hit in store.search(Query(Text("number7")))] == ["r007"]
            store.close()
        store = reopen(store, None)
        put(store, [plain(60)])
        drop(store, ["r002"])
        assert store.count() == 49
        store.close()
        store = reopen(store, None)
        assert store.count() == 49
        assert [record.id for record in store.get(["r002", "r060"])] == ["r060"]
        store.close()

    @needs("durable")
    def test_opening_an_empty_collection_again(self, make: Make, reopen: Reopen) -> None:
        schema = self.schema()
        store = make(schema)
        store.close()
        store = reopen(store, None)
        assert (store.schema, store.count()) == (schema, 0)
        store.close()

    @needs("durable")
    def test_opening_with_another_schema_is_refused(self, make: Make, reopen: Reopen) -> None:
        schema = self.schema(fields={"n": "integer"})
        store = make(schema)
        put(store, [plain(0, {"n": 1})])
        store.close()
        others: list[Schema] = [
            self.schema(dim=DIM + 1, fields={"n": "integer"}),
            Schema(vectors={"other": VectorSpec(DIM, self.metric)}, fields={"n": "integer"}),
            self.schema(fields={"n": "float"}),
            self.schema(),
            *(self.schema(metric=metric, fields={"n": "integer"}) for metric in self.metrics[1:]),
        ]
        for other in others:
            with pytest.raises(SchemaMismatch):
                reopen(store, other)
        store = reopen(store, schema)
        assert store.get(["r000"])[0].payload == {"n": 1}
        store.close()

    def test_threads_write_and_search_at_once(self, store: Store) -> None:
        put(store, [plain(i) for i in range(20)])
        faults: list[BaseException] = []
        start = threading.Barrier(4)

        def run(work: Callable[[int], None]) -> None:
            try:
                start.wait()
                for step in range(25):
                    work(step)
            except BaseException as fault:  # noqa: BLE001 -- told by the main thread
                faults.append(fault)

        def write(first: int) -> Callable[[int], None]:
            def work(step: int) -> None:
                put(store, [plain(first + 4 * step + i, {"n": step}) for i in range(4)])
                drop(store, [f"r{first + 4 * step:03}"])

            return work

        def search(step: int) -> None:
            hits = store.search(Query(Dense(vector(1, step)), k=10))
            assert len(hits) == 10
            scores = [hit.score for hit in hits]
            assert scores == sorted(scores, reverse=True)

        def read(step: int) -> None:
            assert {record.id for record in store.scan_all()} >= {f"r{i:03}" for i in range(20)}
            assert len(store.get([f"r{i:03}" for i in range(20)])) == 20

        works = [write(100), write(500), search, read]
        threads = [threading.Thread(target=run, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if faults:
            raise faults[0]
        written = {f"r{first + 4 * step + i:03}" for first in (100, 500) for step in range(25) for i in (1, 2, 3)}
        assert found(store) == {f"r{i:03}" for i in range(20)} | written


def _state(store: Store, query: Query) -> tuple[dict[str, Any], list[str]]:
    records = {record.id: dict(record.payload) for record in store.scan_all()}
    return records, [hit.id for hit in store.search(query)]
